use proptest::prelude::*;

use super::*;
use crate::fixture::POLICY;

fn facts() -> StaticFacts {
    StaticFacts {
        counter: Counter::new(7),
        environment: EnvironmentTag::parse("production").unwrap(),
        family: Family::parse("acme/ranker").unwrap(),
        link_mode: LinkMode::KeyRelease,
        tier: EnvironmentTag::parse("production").unwrap(),
    }
}

fn toml_code(source: &str) -> &'static str {
    PolicyDocument::from_toml(source).map_or_else(|error| error.code(), |_| "accepted")
}

fn codes(source: &str) -> Vec<&'static str> {
    PolicyDocument::from_toml(source).unwrap().weaknesses().iter().map(Weakness::code).collect()
}

/// The rule that denied.
fn denied(facts: &StaticFacts) -> &'static str {
    match PolicyDocument::from_toml(POLICY).unwrap().evaluate(facts) {
        Err(ArtifactError::PolicyDenied { rule, .. }) => rule,
        other => panic!("{other:?}"),
    }
}

#[test]
fn toml_and_canonical_form_are_the_same_policy() {
    let document = PolicyDocument::from_toml(POLICY).unwrap();
    let expected = "{\"@type\":\"innerkeep policy v1\",\"environment\":{\"exactly\":\"production\"},\
        \"family\":{\"one_of\":[\"acme/embedder\",\"acme/ranker\"]},\"link_mode\":{\"exactly\":\"key-release\"},\"min_counter\":5}";
    assert_eq!(document.preimage(), expected.as_bytes());
    assert_eq!(PolicyDocument::parse(document.preimage()), Ok(document.clone()));
    assert_eq!(PolicyDocument::new(document.policy()), Ok(document.clone()));
    assert_eq!(document.digest(), PolicyDigest::of(expected.as_bytes()));
    assert_eq!(document.evaluate(&facts()), Ok(()));
}

#[test]
fn template_is_a_policy_and_weak_until_filled_in() {
    let document = PolicyDocument::from_toml(TEMPLATE).unwrap();
    assert!(document.evidence().is_some_and(|rules| rules.snp.is_some() && rules.tdx.is_some()));
    let weak = [
        "WEAK_INITDATA",
        "WEAK_MEASUREMENT",
        "WEAK_MIN_TCB",
        "WEAK_SNP_COLLATERAL",
        "WEAK_MRTD",
        "WEAK_RTMR1",
        "WEAK_RTMR2",
        "WEAK_MIN_TEE_TCB_SVN",
        "WEAK_MIN_TCB_EVALUATION",
        "WEAK_TDX_COLLATERAL",
    ];
    assert_eq!(codes(TEMPLATE), weak);
    let measured = TEMPLATE
        .replace("\"any\"", &format!("{{ exactly = \"{}\" }}", "ab".repeat(48)))
        .replace("min_tcb = \"0000000000000000\"", "min_tcb = \"0000000000000001\"")
        .replace("min_tee_tcb_svn = \"00", "min_tee_tcb_svn = \"01")
        .replace("min_tcb_evaluation = 0", "min_tcb_evaluation = 18");
    let digest = |name: &str, bytes: usize, text: String| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        text.replace(&line, &format!("{name} = {{ exactly = \"{}\" }}", "cd".repeat(bytes)))
    };
    let measured = digest("certificate_chain", 32, measured);
    let measured = digest("unsigned_manifest", 32, measured);
    let measured = digest("guest_policy", 8, measured);
    let choice = measured.lines().find(|line| line.starts_with("generation")).unwrap().to_owned();
    let measured = measured.replace(&choice, "generation = { one_of = [\"milan\", \"genoa\"] }");
    // The comment line of the template quotes "any" too.
    let strong: String =
        measured.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    assert_eq!(codes(&strong), [""; 0]);
    assert_eq!(PolicyDocument::from_toml(&strong).unwrap().refuse_weak(), Ok(()));
}

#[test]
fn every_weakness_is_found() {
    assert_eq!(codes("type = \"opaque\"\nbytes = \"\""), ["WEAK_OPAQUE"]);
    let open = "environment = \"any\"\nfamily = \"any\"\nlink_mode = \"any\"\nmin_counter = 0";
    assert_eq!(codes(open), ["WEAK_NO_EVIDENCE", "WEAK_ENVIRONMENT", "WEAK_FAMILY", "WEAK_MIN_COUNTER"]);
    let debug = TEMPLATE
        .replace("debug = { exactly = false }", "debug = \"any\"")
        .replace("max_vmpl = 0", "max_vmpl = 1");
    let found = codes(&debug);
    assert!(found.contains(&"WEAK_DEBUG") && found.contains(&"WEAK_MAX_VMPL"));
}

#[test]
fn evil_weak_policy_is_refused() {
    let refused = PolicyDocument::from_toml(POLICY).unwrap().refuse_weak().unwrap_err();
    assert_eq!(refused, ArtifactError::PolicyWeak { first: "WEAK_NO_EVIDENCE", more: 0 });
}

#[test]
fn evil_policy_with_evidence_rules_is_not_satisfied_without_evidence() {
    let source = TEMPLATE.replace("example/model", "acme/ranker");
    let document = PolicyDocument::from_toml(&source).unwrap();
    assert_eq!(document.evaluate_static(&facts()), Ok(()));
    assert_eq!(document.evaluate(&facts()), Err(ArtifactError::EvidenceRequired));
}

#[test]
fn evil_core_of_another_environment_is_denied() {
    let environment = EnvironmentTag::parse("test").unwrap();
    assert_eq!(denied(&StaticFacts { environment, ..facts() }), "environment");
}

#[test]
fn evil_recipient_of_another_tier_is_denied() {
    assert_eq!(denied(&StaticFacts { tier: EnvironmentTag::parse("test").unwrap(), ..facts() }), "tier");
}

#[test]
fn evil_core_of_another_family_is_denied() {
    let facts = StaticFacts { family: Family::parse("acme/other").unwrap(), ..facts() };
    assert_eq!(denied(&facts), "family");
    let message = PolicyDocument::from_toml(POLICY).unwrap().evaluate(&facts).unwrap_err().to_string();
    assert_eq!(message, "policy: family: expected one of acme/embedder acme/ranker, found acme/other");
}

#[test]
fn evil_other_link_mode_is_denied() {
    assert_eq!(denied(&StaticFacts { link_mode: LinkMode::DmaDirect, ..facts() }), "link_mode");
}

#[test]
fn evil_counter_below_the_policy_is_denied() {
    assert_eq!(denied(&StaticFacts { counter: Counter::new(4), ..facts() }), "min_counter");
    let at = StaticFacts { counter: Counter::new(5), ..facts() };
    assert_eq!(PolicyDocument::from_toml(POLICY).unwrap().evaluate(&at), Ok(()));
}

#[test]
fn evil_repeated_choices_are_refused() {
    let text = String::from_utf8(PolicyDocument::from_toml(POLICY).unwrap().preimage().to_vec()).unwrap();
    let families = "[\"acme/embedder\",\"acme/ranker\"]";
    for other in ["[\"acme/ranker\",\"acme/embedder\"]", "[\"acme/ranker\",\"acme/ranker\"]"] {
        let refused = PolicyDocument::parse(text.replace(families, other).as_bytes()).unwrap_err();
        assert_eq!(refused.code(), "MALFORMED");
    }
    assert_eq!(toml_code(&POLICY.replace("acme/embedder", "acme/ranker")), "MALFORMED");
}

#[test]
fn evil_evidence_rules_without_a_tee_are_refused() {
    let tables = TEMPLATE.split("[evidence.snp]").next().unwrap();
    assert_eq!(toml_code(tables), "MALFORMED");
}

/// The template with another generation and minimum TCB.
fn with_tcb(generation: &str, min_tcb: &str) -> String {
    TEMPLATE
        .replace("generation = \"any\"", &format!("generation = {generation}"))
        .replace("min_tcb = \"0000000000000000\"", &format!("min_tcb = \"{min_tcb}\""))
}

#[test]
fn evil_minimum_tcb_without_one_layout_is_refused() {
    let (milan, turin) = ("0300000000000816", "0103020400000050");
    let refused = [
        ("\"any\"", milan),
        ("{ one_of = [\"milan\", \"turin\"] }", milan),
        ("{ one_of = [\"genoa\", \"milan\", \"turin\"] }", "0100000000000000"),
        ("{ exactly = \"milan\" }", turin),
        ("{ exactly = \"turin\" }", milan),
        ("{ exactly = \"rome\" }", milan),
        ("{ exactly = \"Milan\" }", milan),
    ];
    for (generation, min_tcb) in refused {
        assert_eq!(toml_code(&with_tcb(generation, min_tcb)), "MALFORMED", "{generation} {min_tcb}");
    }
    let accepted = [
        ("{ exactly = \"genoa\" }", milan),
        ("{ one_of = [\"milan\", \"genoa\"] }", milan),
        ("{ exactly = \"turin\" }", turin),
        ("{ one_of = [\"milan\", \"turin\"] }", "0000000000000000"),
    ];
    for (generation, min_tcb) in accepted {
        let document = PolicyDocument::from_toml(&with_tcb(generation, min_tcb)).unwrap();
        let snp = document.evidence().and_then(|rules| rules.snp.as_ref()).unwrap();
        assert_eq!(snp.min_tcb.to_string(), min_tcb);
    }
    // A program that builds such rules is refused too.
    let document = PolicyDocument::from_toml(&with_tcb("{ exactly = \"milan\" }", milan)).unwrap();
    let Policy::Rules(mut rules) = document.policy().clone() else { panic!("an opaque template") };
    rules.evidence.as_mut().unwrap().snp.as_mut().unwrap().generation = Choice::Any;
    assert_eq!(PolicyDocument::new(&Policy::Rules(rules)).unwrap_err().code(), "MALFORMED");
}

#[test]
fn one_minimum_of_the_collateral_is_enough_to_refuse_old_one() {
    let minimums = [
        ("WEAK_TDX_COLLATERAL", TEMPLATE.replace("min_pck_crl_number = 0", "min_pck_crl_number = 1")),
        ("WEAK_TDX_COLLATERAL", TEMPLATE.replace("min_root_crl_number = 0", "min_root_crl_number = 1")),
        ("WEAK_TDX_COLLATERAL", TEMPLATE.replace("min_tcb_evaluation = 0", "min_tcb_evaluation = 17")),
        ("WEAK_SNP_COLLATERAL", TEMPLATE.replace("\nmin_crl_number = 0", "\nmin_crl_number = 1")),
        ("WEAK_SNP_COLLATERAL", with_tcb("{ exactly = \"turin\" }", "0000000000000000")),
        ("WEAK_SNP_COLLATERAL", with_tcb("{ exactly = \"turin\" }", "0100000000000000")),
    ];
    assert!(codes(TEMPLATE).contains(&"WEAK_TDX_COLLATERAL"));
    assert!(codes(TEMPLATE).contains(&"WEAK_SNP_COLLATERAL"));
    for (weakness, source) in minimums {
        assert!(!codes(&source).contains(&weakness), "{source}");
    }
}

#[test]
fn evil_sources_are_refused() {
    let cases = [
        ("= 5", "= 5.0"),
        ("= 5", "= -5"),
        ("= 5", "= 2026-01-01"),
        ("= 5", "= \"5\""),
        ("= 5", "= true"),
        ("min_counter", "min_count"),
        ("= 5", "= 5\nother = 1"),
        ("= 5", "= 5\n\"@type\" = \"innerkeep policy v1\""),
        ("= 5", "= 5\ntype = \"rego\""),
        ("= 5", "= 5\nmin_counter = 6"),
        ("{ exactly = \"production\" }", "\"production\""),
        ("exactly", "exactly_"),
        ("= 5", "= "),
    ];
    for (from, to) in cases {
        assert_eq!(toml_code(&POLICY.replacen(from, to, 1)), "MALFORMED", "{to}");
    }
    assert_eq!(toml_code(&"#".repeat(300_000)), "LIMIT_EXCEEDED");
}

#[test]
fn opaque_policy_is_bound_and_not_evaluated() {
    let document = PolicyDocument::from_toml("type = \"opaque\"\nbytes = \"AAEC\"").unwrap();
    assert_eq!(document.policy(), &Policy::Opaque(vec![0, 1, 2]));
    assert_eq!(document.evaluate(&facts()), Ok(()));
    assert_eq!(PolicyDocument::new(document.policy()), Ok(document));
}

proptest! {
    #[test]
    fn one_byte_altered_is_refused_or_another_policy(place: prop::sample::Index, byte: u8) {
        let bytes = PolicyDocument::from_toml(TEMPLATE).unwrap().preimage().to_vec();
        let mut altered = bytes.clone();
        let place = place.index(altered.len());
        altered[place] = byte;
        if let Ok(parsed) = PolicyDocument::parse(&altered) {
            prop_assert_eq!(parsed.digest() == PolicyDigest::of(&bytes), altered == bytes);
            prop_assert_eq!(PolicyDocument::new(parsed.policy()).unwrap(), parsed);
        }
    }

    #[test]
    fn no_source_makes_the_converter_panic(source in "[a-z_=\\[\\]{}\", \n0-9.-]{0,200}") {
        let _ = PolicyDocument::from_toml(&source);
    }
}
