use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::fixture::{POLICY, policy};
use crate::policy::{PolicyDocument, TEMPLATE};

/// 48 bytes in hex.
fn long(byte: &str) -> String {
    byte.repeat(48)
}

/// A policy that demands everything that claims can show.
fn demanding() -> String {
    TEMPLATE
        .replace("initdata = \"any\"", &format!("initdata = {{ exactly = \"{}\" }}", long("1d")))
        .replace("generation = \"any\"", "generation = { exactly = \"milan\" }")
        .replace(
            "guest_policy = \"any\"",
            "guest_policy = { one_of = [\"0000000000030000\", \"0000000000130137\"] }",
        )
        .replace(
            "measurement = \"any\"",
            &format!("measurement = {{ one_of = [\"{}\", \"{}\"] }}", long("3e"), long("3f")),
        )
        .replace("min_tcb = \"0000000000000000\"", "min_tcb = \"04000000000016d5\"")
        .replace("min_pck_crl_number = 0", "min_pck_crl_number = 3")
        .replace("min_root_crl_number = 0", "min_root_crl_number = 2")
        .replace("min_tcb_evaluation = 0", "min_tcb_evaluation = 17")
        .replace("min_tee_tcb_svn = \"0000", "min_tee_tcb_svn = \"0b09")
        .replace("mrtd = \"any\"", &format!("mrtd = {{ exactly = \"{}\" }}", long("aa")))
        .replace("rtmr0 = \"any\"", &format!("rtmr0 = {{ exactly = \"{}\" }}", long("b0")))
        .replace("rtmr1 = \"any\"", &format!("rtmr1 = {{ exactly = \"{}\" }}", long("b1")))
        .replace(
            "rtmr2 = \"any\"",
            &format!("rtmr2 = {{ one_of = [\"{}\", \"{}\"] }}", long("b2"), long("c2")),
        )
        .replace("rtmr3 = \"any\"", &format!("rtmr3 = {{ exactly = \"{}\" }}", long("b3")))
}

fn tdx_claims() -> Value {
    json!({
        "tdx": {
            "quote": { "body": {
                "mr_td": long("aa"), "mr_config_id": long("1d"), "rtmr_0": long("b0"), "rtmr_1": long("b1"),
                "rtmr_2": long("c2"), "rtmr_3": long("b3"), "tcb_svn": format!("0b0a{}", "00".repeat(14)),
            } },
            "td_attributes": { "debug": false, "perfmon": false },
            "tcb_status": "UpToDate", "collateral_expiration_status": "0",
            "tcb_eval_num": 18, "pck_crl_num": 3, "root_ca_crl_num": 2,
        },
        "init_data": long("1d"),
    })
}

fn snp_claims() -> Value {
    json!({
        "snp": {
            "measurement": long("3f"), "policy_abi_major": 1, "policy_abi_minor": 55, "policy_smt_allowed": true,
            "policy_migrate_ma": false, "policy_debug_allowed": false, "policy_single_socket": true,
            "reported_tcb_bootloader": 4, "reported_tcb_tee": 0, "reported_tcb_snp": 23, "reported_tcb_microcode": 213,
        },
        "init_data": "1d".repeat(32),
    })
}

fn core(seed: u8) -> CoreDigest {
    CoreDigest::new([0xa0 + seed; 32])
}

fn fragment(seed: u8) -> PolicyFragment {
    policy_fragment(core(seed), &policy(&demanding())).unwrap()
}

/// What a broker answers: `path` for a guest with these claims.
fn allowed(text: &str, path: &[String], claims: &Value) -> bool {
    asked(text, &json!({ "plugin": "resource", "resource-path": path, "query": {} }), claims)
}

fn asked(text: &str, data: &Value, claims: &Value) -> bool {
    let mut engine = regorus::Engine::new();
    engine.set_rego_v0(false);
    engine.add_policy("resource-policy".to_owned(), text.to_owned()).unwrap();
    engine.add_data_json(&data.to_string()).unwrap();
    let token = json!({ "submods": { "cpu0": { "ear.veraison.annotated-evidence": claims } } });
    engine.set_input_json(&token.to_string()).unwrap();
    engine.eval_rule("data.policy.allow".to_owned()).unwrap() == regorus::Value::Bool(true)
}

/// The claims with the value at a pointer replaced, or taken away.
fn with(claims: &Value, pointer: &str, value: Option<Value>) -> Value {
    let mut claims = claims.clone();
    match value {
        Some(value) => *claims.pointer_mut(pointer).unwrap() = value,
        None => {
            let (object, member) = pointer.rsplit_once('/').unwrap();
            assert!(claims.pointer_mut(object).unwrap().as_object_mut().unwrap().remove(member).is_some());
        }
    }
    claims
}

#[test]
fn fragment_opens_its_path_to_the_guests_of_the_policy() {
    let fragment = fragment(1);
    let merged = merge("", &fragment).unwrap();
    assert!(!merged.foreign_rules);
    let path = fragment.path().segments();
    assert!(allowed(&merged.text, &path, &tdx_claims()));
    assert!(allowed(&merged.text, &path, &snp_claims()));
    assert_eq!(fragment.path().to_string(), path.join("/"));
    let other = with(&snp_claims(), "/snp/policy_abi_major", Some(json!(0)));
    let other = with(&other, "/snp/policy_abi_minor", Some(json!(0)));
    assert!(allowed(&merged.text, &path, &with(&other, "/snp/policy_single_socket", Some(json!(false)))));
    // Parts of two allowed guest policies are no guest policy.
    assert!(!allowed(&merged.text, &path, &other));
}

#[test]
fn evil_claims_that_differ_in_one_field_are_denied() {
    let fragment = fragment(1);
    let text = merge("", &fragment).unwrap().text;
    let path = fragment.path().segments();
    let body = "/tdx/quote/body";
    let hex = |name: &str| (format!("{body}/{name}"), json!(long("00")));
    let tdx = [
        hex("mr_td"),
        hex("mr_config_id"),
        hex("rtmr_0"),
        hex("rtmr_1"),
        hex("rtmr_2"),
        hex("rtmr_3"),
        (format!("{body}/tcb_svn"), json!(format!("0a0a{}", "ff".repeat(14)))),
        (format!("{body}/tcb_svn"), json!(format!("ff08{}", "ff".repeat(14)))),
        (format!("{body}/tcb_svn"), json!("ffff")),
        (format!("{body}/tcb_svn"), json!(u64::MAX)),
        ("/tdx/td_attributes/debug".to_owned(), json!(true)),
        ("/tdx/td_attributes/debug".to_owned(), json!("false")),
        ("/tdx/td_attributes/perfmon".to_owned(), json!(true)),
        ("/tdx/tcb_status".to_owned(), json!("OutOfDate")),
        ("/tdx/collateral_expiration_status".to_owned(), json!("1")),
        ("/tdx/tcb_eval_num".to_owned(), json!(16)),
        ("/tdx/pck_crl_num".to_owned(), json!(2)),
        ("/tdx/root_ca_crl_num".to_owned(), json!(1)),
        // Text compares above every number.
        ("/tdx/tcb_eval_num".to_owned(), json!("18")),
        ("/tdx/pck_crl_num".to_owned(), json!([])),
    ];
    let snp = [
        ("/snp/measurement".to_owned(), json!(long("3d"))),
        ("/init_data".to_owned(), json!("1e".repeat(32))),
        ("/snp/policy_abi_major".to_owned(), json!(2)),
        ("/snp/policy_abi_minor".to_owned(), json!(54)),
        ("/snp/policy_smt_allowed".to_owned(), json!(false)),
        ("/snp/policy_migrate_ma".to_owned(), json!(true)),
        ("/snp/policy_debug_allowed".to_owned(), json!(true)),
        ("/snp/policy_single_socket".to_owned(), json!(false)),
        ("/snp/reported_tcb_bootloader".to_owned(), json!(3)),
        ("/snp/reported_tcb_snp".to_owned(), json!(21)),
        ("/snp/reported_tcb_microcode".to_owned(), json!(212)),
        ("/snp/reported_tcb_microcode".to_owned(), json!("255")),
    ];
    for (claims, changes) in [(tdx_claims(), tdx.as_slice()), (snp_claims(), snp.as_slice())] {
        for (pointer, value) in changes {
            let changed = with(&claims, pointer, Some(value.clone()));
            assert!(!allowed(&text, &path, &changed), "{pointer} = {value}");
            assert!(!allowed(&text, &path, &with(&claims, pointer, None)), "{pointer} absent");
        }
    }
    for nothing in
        [json!({}), json!({ "sample": {} }), json!({ "tdx": {} }), json!({ "snp": {} }), Value::Null]
    {
        assert!(!allowed(&text, &path, &nothing), "{nothing}");
    }
}

#[test]
fn evil_other_paths_plugins_and_queries_are_denied() {
    let (fragment, other) = (fragment(1), fragment(2));
    let text = merge("", &fragment).unwrap().text;
    let [repository, core, policy] = fragment.path().segments();
    let paths = [
        vec![],
        vec![repository.clone(), core.clone()],
        vec![repository.clone(), core.clone(), String::new()],
        vec![repository.clone(), policy.clone(), core.clone()],
        vec!["default".to_owned(), core.clone(), policy.clone()],
        vec![repository.clone(), core.to_uppercase(), policy.clone()],
        vec![repository.clone(), core.clone(), policy[..126].to_owned()],
        vec![repository.clone(), core.clone(), policy.clone(), policy.clone()],
        other.path().segments().to_vec(),
    ];
    for path in paths {
        assert!(!allowed(&text, &path, &tdx_claims()), "{path:?}");
    }
    let path = [repository, core, policy];
    for plugin in ["sample", "Resource", ""] {
        let data = json!({ "plugin": plugin, "resource-path": path, "query": {} });
        assert!(!asked(&text, &data, &tdx_claims()), "{plugin}");
    }
    assert!(!asked(&text, &json!({ "plugin": "resource", "resource-path": path.join("/") }), &tdx_claims()));
    // Evidence of a device is no evidence of the guest.
    let mut engine = regorus::Engine::new();
    engine.add_policy("resource-policy".to_owned(), text).unwrap();
    engine.add_data_json(&json!({ "plugin": "resource", "resource-path": path }).to_string()).unwrap();
    let token = json!({ "submods": { "gpu0": { "ear.veraison.annotated-evidence": tdx_claims() } } });
    engine.set_input_json(&token.to_string()).unwrap();
    assert_ne!(engine.eval_rule("data.policy.allow".to_owned()).unwrap(), regorus::Value::Bool(true));
}

#[test]
fn evil_merged_fragments_do_not_open_each_others_path() {
    let strict = fragment(1);
    let loose_source =
        demanding().replace(&format!("mrtd = {{ exactly = \"{}\" }}", long("aa")), "mrtd = \"any\"");
    let loose = policy_fragment(core(2), &policy(&loose_source)).unwrap();
    let both = merge(&merge("", &strict).unwrap().text, &loose).unwrap();
    assert!(!both.foreign_rules);
    let other = with(&tdx_claims(), "/tdx/quote/body/mr_td", Some(json!(long("00"))));
    assert!(allowed(&both.text, &strict.path().segments(), &tdx_claims()));
    assert!(allowed(&both.text, &loose.path().segments(), &tdx_claims()));
    assert!(allowed(&both.text, &loose.path().segments(), &other));
    assert!(!allowed(&both.text, &strict.path().segments(), &other));
    let mixed =
        [REPOSITORY.to_owned(), strict.path().segments()[1].clone(), loose.path().segments()[2].clone()];
    assert!(!allowed(&both.text, &mixed, &tdx_claims()));
    let without = remove(&both.text, loose.path()).unwrap();
    assert_eq!(without, merge("", &strict).unwrap());
    assert!(!allowed(&without.text, &loose.path().segments(), &other));
}

#[test]
fn a_tee_without_rules_is_not_accepted() {
    let source = demanding();
    let only_tdx: String = [
        source.split("[evidence.snp]").next().unwrap(),
        "[evidence.tdx]",
        source.split("[evidence.tdx]").nth(1).unwrap(),
    ]
    .concat();
    let fragment = policy_fragment(core(1), &policy(&only_tdx)).unwrap();
    let text = merge("", &fragment).unwrap().text;
    assert!(allowed(&text, &fragment.path().segments(), &tdx_claims()));
    assert!(!allowed(&text, &fragment.path().segments(), &snp_claims()));
}

#[test]
fn what_a_broker_cannot_enforce_is_said_three_times() {
    let source = demanding()
        .replace(
            "certificate_chain = \"any\"",
            &format!("certificate_chain = {{ exactly = \"{}\" }}", "cc".repeat(32)),
        )
        .replace(
            "unsigned_manifest = \"any\"",
            &format!("unsigned_manifest = {{ exactly = \"{}\" }}", "dd".repeat(32)),
        )
        .replace("id_key_digest = \"any\"", &format!("id_key_digest = {{ exactly = \"{}\" }}", long("1f")))
        .replace(
            "author_key_digest = \"any\"",
            &format!("author_key_digest = {{ exactly = \"{}\" }}", long("2f")),
        )
        .replace("min_crl_number = 0", "min_crl_number = 1")
        .replace("{ exactly = \"milan\" }", "{ exactly = \"turin\" }")
        .replace("04000000000016d5", "01040009000000d5");
    let fragment = policy_fragment(core(1), &policy(&source)).unwrap();
    let members: Vec<&str> = fragment.unenforced().iter().map(|one| one.member).collect();
    let expected = [
        "environment",
        "family",
        "min_counter",
        "link_mode",
        "certificate_chain",
        "unsigned_manifest",
        "author_key_digest",
        "generation",
        "guest_policy",
        "id_key_digest",
        "min_crl_number",
        "min_tcb",
    ];
    assert_eq!(members, expected);
    for one in fragment.unenforced() {
        assert!(fragment.text().contains(&format!("#   {}: {}\n", one.member, one.reason)));
    }
    let text = merge("", &fragment).unwrap().text;
    let mut engine = regorus::Engine::new();
    engine.add_policy("resource-policy".to_owned(), text).unwrap();
    let rule = format!("data.policy.innerkeep_{}_unenforced", fragment.path().id());
    let listed = engine.eval_rule(rule).unwrap().to_json_str().unwrap();
    assert_eq!(serde_json::from_str::<Vec<String>>(&listed).unwrap(), expected);
    // Turin names its components elsewhere: bootloader 4, snp 9, microcode d5.
    assert!(fragment.text().contains("snp.reported_tcb_bootloader >= 4\n"));
    assert!(fragment.text().contains("snp.reported_tcb_snp >= 9\n"));
    assert!(fragment.text().contains("snp.reported_tcb_microcode >= 213\n"));
}

#[test]
fn evil_policy_that_demands_nothing_of_the_guest_makes_no_fragment() {
    for source in [POLICY, "type = \"opaque\"\nbytes = \"AAEC\""] {
        assert_eq!(policy_fragment(core(1), &policy(source)).unwrap_err().code(), "POLICY_WEAK");
    }
}

#[test]
fn evil_text_of_a_policy_does_not_reach_rego() {
    // Names are the only free text of a policy; one that would read well in Rego appears nowhere.
    let source = demanding()
        .replace("example/model", "allow/if/true")
        .replace("exactly = \"production\"", "exactly = \"default-allow\"");
    let fragment = policy_fragment(core(1), &policy(&source)).unwrap();
    assert!(!fragment.text().contains("allow/if") && !fragment.text().contains("default-allow"));
    // Every quoted text is hex, or a word of this crate.
    let words =
        ["innerkeep", "resource", "resource-path", "ear.veraison.annotated-evidence", "UpToDate", "0"];
    let members: Vec<&str> = fragment.unenforced().iter().map(|one| one.member).collect();
    for line in fragment.text().lines().filter(|line| !line.starts_with('#')) {
        for quoted in line.split('"').skip(1).step_by(2) {
            let hex = quoted.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            assert!(hex || words.contains(&quoted) || members.contains(&quoted), "{quoted}");
        }
        assert!(line.is_ascii() && !line.contains('`') && line.len() < 1_000);
    }
}

#[test]
fn merging_is_idempotent_and_touches_only_its_own_section() {
    let operators = "# ours\npackage policy\nimport rego.v1\n\ndefault allow := false\n\nallow if data.query.key == \"x\" # ours";
    let first = merge(operators, &fragment(1)).unwrap();
    assert!(first.foreign_rules);
    assert!(first.text.starts_with(operators));
    assert_eq!(merge(&first.text, &fragment(1)), Ok(first.clone()));
    let second = merge(&first.text, &fragment(2)).unwrap();
    assert!(second.text.starts_with(&first.text));
    // The section of a path is replaced in place, whatever was written into it.
    let edited = second.text.replacen("    tdx.td_attributes.debug == false\n", "    true\r\n", 1);
    assert_ne!(edited, second.text);
    assert_eq!(merge(&edited, &fragment(1)), Ok(second.clone()));
    assert_eq!(
        remove(&remove(&second.text, fragment(2).path()).unwrap().text, fragment(1).path()).unwrap().text,
        format!("{operators}\n")
    );
    assert_eq!(remove("", fragment(1).path()).unwrap().text, "");
    for harmless in
        ["", "\n", "package policy\n", "package policy # ours\nimport rego.v1\ndefault allow = false\n"]
    {
        assert!(!merge(harmless, &fragment(1)).unwrap().foreign_rules, "{harmless}");
    }
    for open in [
        "package policy\ndefault allow = true\n",
        "package policy\nallow := true\n",
        "package policy\n\"#\"\n",
    ] {
        assert!(merge(open, &fragment(1)).unwrap().foreign_rules, "{open}");
    }
}

#[test]
fn evil_resource_policy_of_another_package_is_refused() {
    for text in [
        "package agent_policy\n",
        "import rego.v1\npackage policy\n",
        "default allow := true\n",
        "package policy2\n",
    ] {
        assert_eq!(merge(text, &fragment(1)).unwrap_err().code(), "MALFORMED", "{text}");
        assert_eq!(remove(text, fragment(1).path()).unwrap_err().code(), "MALFORMED", "{text}");
    }
    // The package goes with the section that it stands in.
    for within in [1, 2] {
        let id = fragment(within).path().id();
        let text = format!("# BEGIN innerkeep {id}\npackage policy\n# END innerkeep {id}\npackage policy\n");
        assert_eq!(merge(&text, &fragment(1)).unwrap_err().code(), "MALFORMED", "{text}");
        assert_eq!(remove(&text, fragment(1).path()).unwrap_err().code(), "MALFORMED", "{text}");
    }
}

#[test]
fn evil_damaged_markers_are_refused() {
    let whole = merge("", &fragment(1)).unwrap().text;
    let (begin, end) = (
        format!("# BEGIN innerkeep {}\n", fragment(1).path().id()),
        format!("# END innerkeep {}\n", fragment(1).path().id()),
    );
    let other = fragment(2).path().id();
    let damaged = [
        whole.replace(&begin, ""),
        whole.replace(&end, ""),
        whole.replace(&end, &begin),
        whole.replace(&begin, &end),
        whole.replace(&begin, &format!("{begin}{begin}")),
        whole.replace(&end, &format!("{end}{end}")),
        whole.replace(&end, &format!("# END innerkeep {other}\n")),
        whole.replace(&begin, &format!(" {begin}")),
        whole.replace("# BEGIN innerkeep ", "# BEGIN innerkeep  "),
        whole.replace("# BEGIN innerkeep ", "# BEGIN innerkeep"),
        whole.replace(&end, "# END innerkeep\n"),
        whole.replace(&end, &end.to_uppercase().replace("INNERKEEP", "innerkeep")),
        format!("{whole}{begin}{end}"),
        format!("{whole}# BEGIN innerkeep {other}\n"),
        format!("{whole}# END innerkeep {other}\n"),
    ];
    for text in damaged {
        assert_ne!(text, whole);
        // Also where the section that is asked for is another one.
        for seed in [1, 3] {
            assert_eq!(merge(&text, &fragment(seed)).unwrap_err().code(), "MALFORMED", "{text}");
            assert_eq!(remove(&text, fragment(seed).path()).unwrap_err().code(), "MALFORMED", "{text}");
        }
    }
    let long = format!("package policy\n{}", "#".repeat(1 << 20));
    assert_eq!(merge(&long, &fragment(1)).unwrap_err().code(), "LIMIT_EXCEEDED");
}

#[test]
fn evil_broker_names_with_foreign_characters_are_refused() {
    for text in ["a b", ".a", "-", "a\"", "a\n", "ä", "a\\", "a?", "a%20"] {
        assert_eq!(BrokerName::parse(text).unwrap_err().code(), "MALFORMED", "{text}");
    }
    assert_eq!(BrokerName::parse("").unwrap_err().code(), "LIMIT_EXCEEDED");
    assert_eq!(BrokerName::parse(&"a".repeat(129)).unwrap_err().code(), "LIMIT_EXCEEDED");
    let names = ["kbs.example:8443", "127.0.0.1:8080", "acme/eu-1_kbs"];
    for name in names {
        assert_eq!(BrokerName::parse(name).unwrap().to_string(), name);
    }
}

#[test]
fn paths_are_what_a_broker_takes() {
    let [repository, core, policy] = fragment(1).path().segments();
    assert_eq!((repository.as_str(), core.len(), policy.len()), ("innerkeep", 64, 128));
    for segment in [&repository, &core, &policy] {
        assert!(segment.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_policy_that_is_read_makes_valid_rego(
        mrtd in proptest::collection::btree_set("[0-9a-f]{96}", 1..64),
        initdata in "([0-9a-f]{64}|[0-9a-f]{96}|[0-9a-f]{128})",
        svn in "[0-9a-f]{32}",
        tcb in "[0-9a-f]{4}00000000[0-9a-f]{4}",
        number: u64,
    ) {
        let values: Vec<String> = mrtd.iter().map(|value| format!("\"{value}\"")).collect();
        let source = demanding()
            .replace(&format!("mrtd = {{ exactly = \"{}\" }}", long("aa")), &format!("mrtd = {{ one_of = [{}] }}", values.join(", ")))
            .replace(&format!("initdata = {{ exactly = \"{}\" }}", long("1d")), &format!("initdata = {{ exactly = \"{initdata}\" }}"))
            .replace(&format!("0b09{}", "0".repeat(28)), &svn)
            .replace("04000000000016d5", &tcb)
            .replace("min_tcb_evaluation = 17", &format!("min_tcb_evaluation = {}", number >> 1));
        let document: PolicyDocument = policy(&source);
        let fragment = policy_fragment(core(1), &document).unwrap();
        let text = merge("", &fragment).unwrap().text;
        let register = |length: usize| {
            let mut text = initdata.clone();
            text.truncate(length * 2);
            format!("{text:0<width$}", width = length * 2)
        };
        let claims = with(&tdx_claims(), "/tdx/quote/body/mr_td", Some(json!(mrtd.first().unwrap())));
        let claims = with(&claims, "/tdx/quote/body/mr_config_id", Some(json!(register(48))));
        let claims = with(&claims, "/tdx/quote/body/tcb_svn", Some(json!(svn)));
        let claims = with(&claims, "/tdx/tcb_eval_num", Some(json!(number >> 1)));
        prop_assert!(allowed(&text, &fragment.path().segments(), &claims));
        let bytes = hex::decode(&tcb).unwrap();
        let mut claims = with(&snp_claims(), "/init_data", Some(json!(register(32))));
        for (name, byte) in [("bootloader", bytes[0]), ("tee", bytes[1]), ("snp", bytes[6]), ("microcode", bytes[7])] {
            claims = with(&claims, &format!("/snp/reported_tcb_{name}"), Some(json!(byte)));
        }
        prop_assert!(allowed(&text, &fragment.path().segments(), &claims));
    }

    #[test]
    fn no_text_makes_the_merger_panic(text in "(package policy\n)?(# (BEGIN|END) innerkeep( [0-9a-f]{64})?\r?\n|[ -~]{0,20}\n){0,8}") {
        let fragment = fragment(1);
        if let Ok(merged) = merge(&text, &fragment) {
            prop_assert_eq!(merge(&merged.text, &fragment), Ok(merged.clone()));
        }
        let _ = remove(&text, fragment.path());
    }
}
