//! Grants that open with a secret: of a key broker, of an SEV-SNP processor, of a TPM.

use super::grants::altered;
use super::{Set, Writer, openable, released, whole};
use crate::fixture::{
    Artifact, POLICY, Recipe, broker, grant, identity, kbs_grant, policy, secret, snp_grant, snp_grant_with,
    snp_guest, snp_selection, tpm_grant, tpm_recipient,
};
use crate::grant::{Grant, GrantSuite};
use crate::json::{Name, Value};
use crate::kbs::KbsRecipient;
use crate::snp::{SnpGuest, SnpRootKey};
use crate::tpm::TpmRecipient;

const KINDS: [&str; 3] = ["kbs", "snp", "tpm"];
/// Every code that an altered grant may be refused with.
const ALTERED: &str = "MALFORMED NOT_CANONICAL LIMIT_EXCEEDED GRANT_KIND_UNKNOWN GRANT_WRONG_OBJECT \
    GRANT_WRONG_RECIPIENT GRANT_OPEN_FAILED";

fn with_secret(writer: Writer, kind: &str, secret: [u8; 32]) -> Writer {
    writer.line("recipient.kind", kind).line("recipient.secret", &hex::encode(secret))
}

fn kbs_lines(writer: Writer, own: &KbsRecipient) -> Writer {
    writer.line("recipient.name", own.name.as_str()).line("recipient.key", &own.key.to_string())
}

fn snp_lines(writer: Writer, own: &SnpGuest) -> Writer {
    writer
        .line("recipient.measurement", &hex::encode(own.measurement))
        .line("recipient.guest_policy", &hex::encode(own.guest_policy.to_be_bytes()))
        .line("recipient.chip_id", &hex::encode(own.chip_id))
        .line("recipient.host_data", &hex::encode(own.host_data))
}

fn tpm_lines(writer: Writer, own: &TpmRecipient) -> Writer {
    writer
        .line("recipient.attestation_key", &hex::encode(own.attestation_key))
        .line("recipient.key", &own.storage_key.to_string())
}

fn make(kind: &str, artifact: &Artifact, seed: u64, secret: [u8; 32], source: &str) -> Grant {
    match kind {
        "kbs" => kbs_grant(artifact, &broker(seed), secret, source),
        "snp" => snp_grant(artifact, &snp_guest(seed), secret, source),
        _ => tpm_grant(artifact, &tpm_recipient(seed), secret, source),
    }
}

fn lines(kind: &str, writer: Writer, seed: u64) -> Writer {
    match kind {
        "kbs" => kbs_lines(writer, &broker(seed)),
        "snp" => snp_lines(writer, &snp_guest(seed)),
        _ => tpm_lines(writer, &tpm_recipient(seed)),
    }
}

/// A member of a grant.
fn member(grant: &[u8], name: &str) -> Value {
    let Ok(Value::Object(members)) = Value::parse("grant", grant, 1 << 20) else { panic!("no grant") };
    members[&Name(name.to_owned())].clone()
}

/// A grant without a member.
fn without(grant: &[u8], name: &str) -> Vec<u8> {
    let Ok(Value::Object(mut members)) = Value::parse("grant", grant, 1 << 20) else { panic!("no grant") };
    members.remove(&Name(name.to_owned()));
    Value::Object(members).encode()
}

/// A grant with a member of one of its objects replaced or added.
fn inner(grant: &[u8], object: &str, name: &str, value: Value) -> Vec<u8> {
    let Value::Object(mut members) = member(grant, object) else { panic!("no object") };
    members.insert(Name(name.to_owned()), value);
    altered(grant, object, Value::Object(members))
}

pub(super) fn add(set: &mut Set) {
    let artifact = Recipe::new(56, &[21]).seal();
    for kind in KINDS {
        each(set, kind, &artifact);
    }
    recipients(set, &artifact);
    crossed(set, &artifact);
    kbs_forms(set, &artifact);
    snp_forms(set, &artifact);
    tpm_forms(set, &artifact);
}

/// What holds for every kind.
fn each(set: &mut Set, kind: &str, artifact: &Artifact) {
    let none = released(&[]);
    let bytes = make(kind, artifact, 1, secret(1), POLICY).encode();
    let writer = lines(kind, with_secret(openable(Writer::default(), artifact), kind, secret(1)), 1);
    let plain = set.fixture(&format!("recipient-{kind}"), writer);
    let success = format!("a grant of kind {kind}, its policy satisfied");
    set.vector(
        &format!("success-grant-{kind}"),
        Writer::on(&plain, &success, "success")
            .bytes("grant", &bytes)
            .line("facts", "tier production link-mode key-release")
            .line("released", &whole(artifact)),
    );
    let on = |comment: &str, expect: &str, grant: &[u8]| {
        Writer::on(&plain, comment, expect).bytes("grant", grant).line("released", &none)
    };
    set.vector(
        &format!("policy-denied-{kind}"),
        on("the policy of the grant does not allow the recipient's tier", "POLICY_DENIED", &bytes)
            .line("facts", "tier test link-mode key-release"),
    );
    set.vector(
        &format!("wrong-secret-{kind}"),
        on("another secret", "GRANT_OPEN_FAILED", &bytes).line("recipient.secret", &hex::encode(secret(2))),
    );
    set.vector(
        &format!("wrong-secret-zeros-{kind}"),
        on("a secret of zeros, which nobody made", "KEY_INVALID", &bytes)
            .line("recipient.secret", &"00".repeat(32)),
    );
    let text = String::from_utf8(policy(POLICY).preimage().to_vec()).unwrap();
    let text = text.replace("\"min_counter\":5", "\"min_counter\":4");
    set.vector(
        &format!("wrong-policy-byte-{kind}"),
        on("one byte of the policy preimage altered", "GRANT_OPEN_FAILED", &bytes)
            .bytes("preimage", text.as_bytes()),
    );
    let weak = policy(&POLICY.replace("min_counter = 5", "min_counter = 0"));
    let foreign = make(kind, artifact, 2, secret(1), POLICY).encode();
    let relabelled = altered(&foreign, "recipient", member(&bytes, "recipient"));
    let relabelled =
        if kind == "kbs" { altered(&relabelled, "kbs", member(&bytes, "kbs")) } else { relabelled };
    let elsewhere = Recipe::new(57, &[21]).seal();
    let other = make(kind, &elsewhere, 1, secret(1), POLICY).encode();
    let digest = Value::text(artifact.core.digest().to_string());
    let cases = [
        ("relabelled-recipient", "a grant for another recipient that names this one", relabelled),
        ("relabelled-core", "a grant for another core that names this one", altered(&other, "core", digest)),
        (
            "replaced-policy",
            "a grant with a weaker policy put in",
            altered(&bytes, "policy", Value::base64(weak.preimage())),
        ),
        ("wrapped-altered", "the wrapped key altered", altered(&bytes, "wrapped", Value::base64(&[7; 48]))),
    ];
    for (name, comment, grant) in cases {
        set.vector(&format!("{name}-{kind}"), on(comment, "GRANT_OPEN_FAILED", &grant));
    }
    set.vector(&format!("other-core-{kind}"), on("a grant for another core", "GRANT_WRONG_OBJECT", &other));
    set.vector(
        &format!("other-recipient-{kind}"),
        on("a grant for another recipient", "GRANT_WRONG_RECIPIENT", &foreign),
    );
    let opened_by_chip = identity(GrantSuite::P384, 67, 1);
    let writer =
        openable(Writer::new("a chip with a grant of another kind", "GRANT_WRONG_RECIPIENT"), artifact)
            .bytes("grant", &bytes)
            .line("recipient.suite", "P-384")
            .line("recipient.secret", &hex::encode(opened_by_chip.key.expose_bytes().as_slice()))
            .line("recipient.id", &hex::encode(opened_by_chip.id.as_bytes()))
            .line("recipient.epoch", "0")
            .line("released", &none);
    set.vector(&format!("chip-opens-{kind}"), writer);
    let sweep = |comment: &str, expect: &str| on(comment, expect, &bytes);
    set.vector(
        &format!("every-prefix-grant-{kind}"),
        sweep("a truncated grant", "MALFORMED").mutate("every-prefix grant.0"),
    );
    set.vector(
        &format!("every-bit-grant-{kind}"),
        sweep("one bit of a grant flipped", ALTERED).mutate("every-bit grant.0"),
    );
    let spaced = String::from_utf8(bytes.clone()).unwrap().replacen("\"kind\":", "\"kind\": ", 1);
    let object = |comment: &str, expect: &str, bytes: &[u8]| {
        Writer::new(comment, expect).line("kind", "grant").bytes("object", bytes)
    };
    let forms = [
        ("not-canonical", "NOT_CANONICAL", "a space after a colon", spaced.into_bytes()),
        (
            "unknown-member",
            "MALFORMED",
            "an unknown member in the kind's object",
            inner(&bytes, kind, "other", Value::integer(1)),
        ),
        ("no-object", "MALFORMED", "no object of the kind", without(&bytes, kind)),
        (
            "enc",
            "MALFORMED",
            "an encapsulated key, which only chips have",
            altered(&bytes, "enc", Value::base64(&[4; 97])),
        ),
        (
            "epoch",
            "MALFORMED",
            "a key epoch, which only chips have",
            inner(&bytes, "recipient", "key_epoch", Value::integer(1)),
        ),
        (
            "suite",
            "GRANT_KIND_UNKNOWN",
            "the suite of a chip",
            altered(&bytes, "suite", Value::text(GrantSuite::P384.as_str())),
        ),
        (
            "wrapped-short",
            "MALFORMED",
            "a wrapped key of 47 bytes",
            altered(&bytes, "wrapped", Value::base64(&[7; 47])),
        ),
    ];
    for (name, expect, comment, bytes) in forms {
        set.vector(&format!("grant-{kind}-{name}"), object(comment, expect, &bytes));
    }
}

/// Recipients that differ in one thing.
fn recipients(set: &mut Set, artifact: &Artifact) {
    let none = released(&[]);
    let on = |kind: &str, comment: &str, expect: &str| {
        Writer::on(&format!("fixture-recipient-{kind}.txt"), comment, expect)
            .bytes("grant", &make(kind, artifact, 1, secret(1), POLICY).encode())
            .line("released", &none)
    };
    let cases = [
        (
            "wrong-broker-name",
            "kbs",
            "recipient.name",
            broker(2).name.to_string(),
            "a broker of another name",
        ),
        ("wrong-broker-key", "kbs", "recipient.key", broker(2).key.to_string(), "a broker with another key"),
        (
            "wrong-measurement",
            "snp",
            "recipient.measurement",
            hex::encode(snp_guest(2).measurement),
            "a guest with another measurement",
        ),
        (
            "wrong-guest-policy",
            "snp",
            "recipient.guest_policy",
            "0000000000030002".to_owned(),
            "a guest with another guest policy",
        ),
        (
            "wrong-chip",
            "snp",
            "recipient.chip_id",
            hex::encode(snp_guest(2).chip_id),
            "the same guest on another chip",
        ),
        (
            "wrong-attestation-key",
            "tpm",
            "recipient.attestation_key",
            hex::encode(tpm_recipient(2).attestation_key),
            "a TPM with another attestation key",
        ),
        (
            "wrong-storage-key",
            "tpm",
            "recipient.key",
            tpm_recipient(2).storage_key.to_string(),
            "a TPM with another storage key",
        ),
    ];
    for (name, kind, member, value, comment) in cases {
        set.vector(name, on(kind, comment, "GRANT_WRONG_RECIPIENT").line(member, &value));
    }
    set.vector(
        "wrong-initdata-snp",
        on("snp", "the same guest with other initdata: its key is another", "GRANT_OPEN_FAILED")
            .line("recipient.host_data", &hex::encode(snp_guest(2).host_data)),
    );
    let own = snp_guest(1);
    let moved = SnpGuest { chip_id: snp_guest(2).chip_id, ..own };
    let grant = snp_grant_with(artifact, &own, snp_selection(SnpRootKey::Vmrk), secret(1), POLICY).encode();
    let writer = Writer::on(
        "fixture-recipient-snp.txt",
        "a key from the VM root key names no chip: the guest opens it on another",
        "success",
    );
    set.vector(
        "success-grant-snp-vmrk",
        writer
            .line("recipient.chip_id", &hex::encode(moved.chip_id))
            .bytes("grant", &grant)
            .line("released", &whole(artifact)),
    );
}

/// A wrapped key of one kind in a grant of another, everything else and the secret being right.
fn crossed(set: &mut Set, artifact: &Artifact) {
    let none = released(&[]);
    let chip = grant(artifact, &identity(GrantSuite::P384, 68, 1), POLICY).encode();
    for to in KINDS {
        let bytes = make(to, artifact, 1, secret(1), POLICY).encode();
        for from in ["chip", "kbs", "snp", "tpm"].into_iter().filter(|from| *from != to) {
            let other = match from {
                "chip" => chip.clone(),
                kind => make(kind, artifact, 1, secret(1), POLICY).encode(),
            };
            let comment = format!("a wrapped key of kind {from} as one of kind {to}");
            let grant = altered(&bytes, "wrapped", member(&other, "wrapped"));
            let fixture = format!("fixture-recipient-{to}.txt");
            set.vector(
                &format!("crossed-{from}-as-{to}"),
                Writer::on(&fixture, &comment, "GRANT_OPEN_FAILED")
                    .bytes("grant", &grant)
                    .line("released", &none),
            );
        }
    }
    for from in KINDS {
        let own = identity(GrantSuite::P384, 68, 1);
        let bytes = make(from, artifact, 1, secret(1), POLICY).encode();
        let grant = altered(&chip, "wrapped", member(&bytes, "wrapped"));
        let comment = format!("a wrapped key of kind {from} as one of kind chip");
        let writer = openable(Writer::new(&comment, "GRANT_OPEN_FAILED"), artifact)
            .bytes("grant", &grant)
            .line("recipient.suite", "P-384")
            .line("recipient.secret", &hex::encode(own.key.expose_bytes().as_slice()))
            .line("recipient.id", &hex::encode(own.id.as_bytes()))
            .line("recipient.epoch", "1")
            .line("released", &none);
        set.vector(&format!("crossed-{from}-as-chip"), writer);
    }
}

fn objects(set: &mut Set, cases: Vec<(&str, &str, &str, Vec<u8>)>) {
    for (name, expect, comment, bytes) in cases {
        let writer = Writer::new(comment, expect).line("kind", "grant").bytes("object", &bytes);
        set.vector(&format!("grant-{name}"), writer);
    }
}

fn kbs_forms(set: &mut Set, artifact: &Artifact) {
    let bytes = make("kbs", artifact, 1, secret(1), POLICY).encode();
    let broker = |name: &str| inner(&bytes, "kbs", "broker", Value::text(name));
    objects(
        set,
        vec![
            ("kbs-other-broker", "MALFORMED", "a broker's name that is not the recipient's", broker("other")),
            ("kbs-name-empty", "LIMIT_EXCEEDED", "an empty broker's name", broker("")),
            ("kbs-name-129", "LIMIT_EXCEEDED", "a broker's name of 129 bytes", broker(&"a".repeat(129))),
            ("kbs-name-quote", "MALFORMED", "a broker's name with a quotation mark", broker("a\"b")),
        ],
    );
}

fn snp_forms(set: &mut Set, artifact: &Artifact) {
    let bytes = make("snp", artifact, 1, secret(1), POLICY).encode();
    let with = |member: &str, value: u64| inner(&bytes, "snp", member, Value::integer(value));
    let unselected = inner(&with("guest_field_select", 41), "snp", "guest_svn", Value::integer(3));
    let largest = inner(&bytes, "snp", "guest_svn", Value::integer(u64::from(u32::MAX)));
    let key = Value::text(broker(1).key.to_string());
    objects(
        set,
        vec![
            ("snp-all-fields", "success", "all six fields selected", with("guest_field_select", 63)),
            ("snp-largest-svn", "success", "the largest guest SVN", largest),
            ("snp-no-policy", "MALFORMED", "a key without the guest policy", with("guest_field_select", 56)),
            (
                "snp-no-measurement",
                "MALFORMED",
                "a key without the measurement",
                with("guest_field_select", 49),
            ),
            ("snp-no-tcb", "MALFORMED", "a key without the TCB version", with("guest_field_select", 25)),
            ("snp-unknown-field", "MALFORMED", "a field that nobody named", with("guest_field_select", 127)),
            ("snp-svn-unselected", "MALFORMED", "a guest SVN that is not selected", unselected),
            ("snp-svn-2-32", "LIMIT_EXCEEDED", "a guest SVN of 2^32", with("guest_svn", 1 << 32)),
            ("snp-vmpl-1", "MALFORMED", "a key of VMPL 1", with("vmpl", 1)),
            ("snp-root-2", "MALFORMED", "a root key that nobody named", with("root_key_select", 2)),
            (
                "snp-tcb-short",
                "MALFORMED",
                "a TCB version of seven bytes",
                inner(&bytes, "snp", "tcb_version", Value::hex(&[0; 7])),
            ),
            (
                "snp-salt-short",
                "MALFORMED",
                "a salt of 31 bytes",
                inner(&bytes, "snp", "salt", Value::hex(&[7; 31])),
            ),
            (
                "snp-recipient-key",
                "MALFORMED",
                "a public key, which a guest has none of",
                inner(&bytes, "recipient", "key", key),
            ),
        ],
    );
}

fn tpm_forms(set: &mut Set, artifact: &Artifact) {
    let bytes = make("tpm", artifact, 1, secret(1), POLICY).encode();
    let with = |member: &str, value: Value| inner(&bytes, "tpm", member, value);
    let pcrs = |registers: &[u64]| {
        with("pcrs", Value::Array(registers.iter().map(|register| Value::integer(*register)).collect()))
    };
    let all: Vec<u64> = (0..24).collect();
    let many: Vec<u64> = (0..25).collect();
    objects(
        set,
        vec![
            ("tpm-initdata-alone", "success", "register 8 alone", pcrs(&[8])),
            ("tpm-all-pcrs", "success", "all registers", pcrs(&all)),
            ("tpm-no-initdata", "MALFORMED", "registers without the one of initdata", pcrs(&[0, 4, 9])),
            ("tpm-no-pcrs", "MALFORMED", "no register", pcrs(&[])),
            ("tpm-pcrs-unsorted", "MALFORMED", "registers in another order", pcrs(&[8, 4])),
            ("tpm-pcrs-repeated", "MALFORMED", "a register twice", pcrs(&[8, 8])),
            ("tpm-pcr-24", "LIMIT_EXCEEDED", "a register that does not exist", pcrs(&[8, 24])),
            ("tpm-pcr-264", "LIMIT_EXCEEDED", "a register that is 8 in one byte", pcrs(&[264])),
            ("tpm-pcrs-25", "LIMIT_EXCEEDED", "twenty-five registers", pcrs(&many)),
            ("tpm-bank", "MALFORMED", "the bank of SHA-1", with("bank", Value::text("sha1"))),
            (
                "tpm-private-512",
                "success",
                "a private part of 512 bytes",
                with("private", Value::base64(&[1; 512])),
            ),
            (
                "tpm-private-513",
                "LIMIT_EXCEEDED",
                "a private part of 513 bytes",
                with("private", Value::base64(&[1; 513])),
            ),
            (
                "tpm-public-513",
                "LIMIT_EXCEEDED",
                "a public part of 513 bytes",
                with("public", Value::base64(&[1; 513])),
            ),
            (
                "tpm-public-empty",
                "LIMIT_EXCEEDED",
                "an empty public part",
                with("public", Value::base64(&[])),
            ),
            (
                "tpm-policy-short",
                "MALFORMED",
                "a policy digest of 20 bytes",
                with("policy", Value::hex(&[1; 20])),
            ),
        ],
    );
}
