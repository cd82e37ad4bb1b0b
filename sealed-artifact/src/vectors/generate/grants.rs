//! Grants: suites, recipients, policies.

use super::{Set, Writer, direct, openable, released, whole};
use crate::fixture::{POLICY, Recipe, grant, identity, policy};
use crate::grant::{GrantSuite, RecipientIdentity};
use crate::json::{Name, Value};

fn recipient(writer: Writer, own: &RecipientIdentity) -> Writer {
    let suite = match own.key.suite() {
        GrantSuite::P384 => "P-384",
        GrantSuite::XWing => "X-Wing",
    };
    writer
        .line("recipient.suite", suite)
        .line("recipient.secret", &hex::encode(own.key.expose_bytes().as_slice()))
        .line("recipient.id", &hex::encode(own.id.as_bytes()))
        .line("recipient.epoch", &own.key_epoch.value().to_string())
}

/// A grant with one member replaced.
pub(super) fn altered(grant: &[u8], member: &str, value: Value) -> Vec<u8> {
    let Ok(Value::Object(mut members)) = Value::parse("grant", grant, 1 << 20) else { panic!("no grant") };
    members.insert(Name(member.to_owned()), value);
    Value::Object(members).encode()
}

pub(super) fn add(set: &mut Set) {
    let artifact = Recipe::new(50, &[33]).seal();
    let none = released(&[]);
    for (name, suite) in [("p-384", GrantSuite::P384), ("x-wing", GrantSuite::XWing)] {
        let own = identity(suite, 60, 3);
        let bytes = grant(&artifact, &own, POLICY).encode();
        let writer = openable(Writer::default(), &artifact).bytes("grant", &bytes);
        let fixture = set.fixture(&format!("grant-{name}"), recipient(writer, &own));
        let on = |comment: &str, expect: &str| Writer::on(&fixture, comment, expect).line("released", &none);
        let comment = format!("a grant of suite {name}, its policy satisfied");
        set.vector(
            &format!("success-grant-{name}"),
            Writer::on(&fixture, &comment, "success")
                .line("facts", "tier production link-mode key-release")
                .line("released", &whole(&artifact)),
        );
        let other = identity(suite, 61, 3);
        let foreign_id = on("a recipient with another id", "GRANT_WRONG_RECIPIENT")
            .line("recipient.id", &hex::encode(other.id.as_bytes()));
        set.vector(&format!("wrong-recipient-id-{name}"), foreign_id);
        let foreign_key = on("a recipient with another key", "GRANT_WRONG_RECIPIENT")
            .line("recipient.secret", &hex::encode(other.key.expose_bytes().as_slice()));
        set.vector(&format!("wrong-recipient-key-{name}"), foreign_key);
        set.vector(
            &format!("wrong-epoch-{name}"),
            on("a recipient whose epoch went on", "GRANT_WRONG_RECIPIENT").line("recipient.epoch", "4"),
        );
        lies(set, name, &fixture, &bytes, &own);
        let preimage = policy(POLICY).preimage().to_vec();
        let text = String::from_utf8(preimage).unwrap().replace("\"min_counter\":5", "\"min_counter\":4");
        set.vector(
            &format!("wrong-policy-byte-{name}"),
            on("one byte of the policy preimage altered", "GRANT_OPEN_FAILED")
                .bytes("preimage", text.as_bytes()),
        );
    }
    policies(set);
    forms(set);
}

/// Grants whose plain members name this recipient although they were sealed for something else.
fn lies(set: &mut Set, name: &str, fixture: &str, bytes: &[u8], own: &RecipientIdentity) {
    let none = released(&[]);
    let other = identity(own.key.suite(), 62, 3);
    let artifact = Recipe::new(50, &[33]).seal();
    let foreign = grant(&artifact, &other, POLICY).encode();
    let Ok(Value::Object(members)) = Value::parse("grant", bytes, 1 << 20) else { panic!("no grant") };
    let relabelled = altered(&foreign, "recipient", members[&Name("recipient".to_owned())].clone());
    let writer = |comment: &str, grant: &[u8]| {
        Writer::on(fixture, comment, "GRANT_OPEN_FAILED")
            .remove("grant")
            .bytes("grant", grant)
            .line("released", &none)
    };
    set.vector(
        &format!("relabelled-recipient-{name}"),
        writer("a grant for another recipient that names this one", &relabelled),
    );
    let elsewhere = Recipe::new(51, &[33]).seal();
    let foreign = grant(&elsewhere, own, POLICY).encode();
    let relabelled = altered(&foreign, "core", Value::text(artifact.core.digest().to_string()));
    set.vector(
        &format!("relabelled-core-{name}"),
        writer("a grant for another core that names this one", &relabelled),
    );
    let weak = policy(&POLICY.replace("min_counter = 5", "min_counter = 0"));
    set.vector(
        &format!("replaced-policy-{name}"),
        writer(
            "a grant with a weaker policy put in",
            &altered(bytes, "policy", Value::base64(weak.preimage())),
        ),
    );
    set.vector(
        &format!("wrapped-altered-{name}"),
        writer("the wrapped key altered", &altered(bytes, "wrapped", Value::base64(&[7; 48]))),
    );
}

fn policies(set: &mut Set) {
    let artifact = Recipe::new(52, &[12]).seal();
    let own = identity(GrantSuite::P384, 63, 1);
    let none = released(&[]);
    let evidence = r#"
[evidence]
certificate_chain = "any"
debug = { exactly = false }
initdata = "any"
unsigned_manifest = "any"
[evidence.tdx]
min_pck_crl_number = 0
min_root_crl_number = 0
min_tcb_evaluation = 0
min_tee_tcb_svn = "00000000000000000000000000000000"
mrtd = "any"
rtmr0 = "any"
rtmr1 = "any"
rtmr2 = "any"
rtmr3 = "any"
"#;
    let cases = [
        (
            "policy-environment",
            "environment = { exactly = \"staging\" }",
            "production",
            "the core's environment is not allowed",
        ),
        ("policy-tier", "", "test", "the recipient's tier is not allowed"),
        (
            "policy-family",
            "family = { exactly = \"acme/embedder\" }",
            "production",
            "the core's family is not allowed",
        ),
        (
            "policy-link-mode",
            "link_mode = { one_of = [\"dma-direct\", \"dma-sealed\"] }",
            "production",
            "the link mode is not allowed",
        ),
        ("policy-min-counter", "min_counter = 8", "production", "the core's counter is below the policy's"),
        ("policy-evidence", evidence, "production", "the policy demands evidence, none was judged"),
    ];
    for (name, change, tier, comment) in cases {
        let member = change.split(' ').next().unwrap_or_default();
        let kept = POLICY
            .lines()
            .filter(|line| change.starts_with('\n') || member.is_empty() || !line.starts_with(member));
        let source = kept.collect::<Vec<_>>().join("\n") + "\n" + change;
        let expect = if name == "policy-evidence" { "EVIDENCE_REQUIRED" } else { "POLICY_DENIED" };
        let writer = openable(Writer::new(comment, expect), &artifact)
            .bytes("grant", &grant(&artifact, &own, &source).encode())
            .line("facts", &format!("tier {tier} link-mode key-release"))
            .line("released", &none);
        set.vector(name, recipient(writer, &own));
    }
    let opaque = "type = \"opaque\"\nbytes = \"b3RoZXI=\"\n";
    let writer = openable(Writer::new("an opaque policy binds by its digest only", "success"), &artifact)
        .bytes("grant", &grant(&artifact, &own, opaque).encode())
        .line("facts", "tier test link-mode dma-direct")
        .line("released", &whole(&artifact));
    set.vector("success-opaque-policy", recipient(writer, &own));
}

fn forms(set: &mut Set) {
    let artifact = Recipe::new(53, &[12]).seal();
    let own = identity(GrantSuite::P384, 64, 1);
    let bytes = grant(&artifact, &own, POLICY).encode();
    let none = released(&[]);
    let fixture = set.fixture("grant-forms", recipient(openable(Writer::default(), &artifact), &own));
    let elsewhere = Recipe::new(54, &[12]).seal();
    let cases = [
        (
            "grant-kind-unknown",
            "GRANT_KIND_UNKNOWN",
            "a grant of a kind that this version does not know",
            altered(&bytes, "kind", Value::text("sgx")),
        ),
        (
            "grant-suite-unknown",
            "GRANT_KIND_UNKNOWN",
            "a grant of an unknown suite",
            altered(&bytes, "suite", Value::text("HPKE X25519")),
        ),
        (
            "grant-object-secret",
            "GRANT_WRONG_OBJECT",
            "a grant for a secret, not for a core",
            altered(&bytes, "object", Value::text("secret")),
        ),
        (
            "grant-object-unknown",
            "MALFORMED",
            "a grant for an unknown kind of object",
            altered(&bytes, "object", Value::text("disk")),
        ),
        (
            "grant-other-core",
            "GRANT_WRONG_OBJECT",
            "a grant for another core",
            grant(&elsewhere, &own, POLICY).encode(),
        ),
        (
            "grant-short-enc",
            "MALFORMED",
            "an encapsulated key of another length",
            altered(&bytes, "enc", Value::base64(&[4; 96])),
        ),
        (
            "grant-point-off-curve",
            "GRANT_OPEN_FAILED",
            "an encapsulated key off the curve",
            altered(&bytes, "enc", Value::base64(&[4; 97])),
        ),
        (
            "grant-base64-unpadded",
            "MALFORMED",
            "base64 without its padding",
            altered(&bytes, "enc", Value::text("BAQ")),
        ),
        (
            "grant-policy-malformed",
            "MALFORMED",
            "a grant with a policy that is none",
            altered(&bytes, "policy", Value::base64(b"{}")),
        ),
        (
            "grant-other-suite",
            "GRANT_WRONG_RECIPIENT",
            "a grant that names another suite than the recipient's key",
            {
                let longer = altered(&bytes, "enc", Value::base64(&[4; 1120]));
                altered(&longer, "suite", Value::text(GrantSuite::XWing.as_str()))
            },
        ),
    ];
    for (name, expect, comment, grant) in cases {
        set.vector(
            name,
            Writer::on(&fixture, comment, expect).bytes("grant", &grant).line("released", &none),
        );
    }
    let stranger = Recipe { sealer: Some(9), ..Recipe::new(55, &[12]) }.seal();
    let writer = direct(
        Writer::new(
            "an artifact and a grant that a stranger made: it would open, but proves no origin",
            "ORIGIN_UNPROVEN",
        ),
        &stranger,
    )
    .bytes("grant", &grant(&stranger, &own, POLICY).encode())
    .bytes("signature", &crate::fixture::sign(&stranger.core, 9))
    .line("pin", &super::pin_sealer(1, "acme/ranker", 1))
    .line("released", &none);
    set.vector("stranger-grant", recipient(writer, &own));
    let writer = direct(
        Writer::new("the same read by one who does not look at origin: it opens", "success"),
        &stranger,
    )
    .bytes("grant", &grant(&stranger, &own, POLICY).encode())
    .line("origin", "unchecked")
    .line("released", &whole(&stranger));
    set.vector("stranger-grant-unchecked", recipient(writer, &own));
}
