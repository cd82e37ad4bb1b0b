use crate::{
    Denial, FailingRequests, Input, InputError, LimitKind, Limits, Path, Policy, PolicyEngine, PolicyError,
    RequestName, Verdict, WITHOUT_POLICY,
};
use std::time::Duration;

fn name(name: &str) -> RequestName {
    RequestName::new(name).unwrap()
}

fn engine_with(text: &str, limits: Limits) -> PolicyEngine {
    let engine = PolicyEngine::new(limits, FailingRequests::Denied);
    engine.set_policy(&format!("package agent_policy\n\n{text}")).unwrap();
    engine
}

fn engine(text: &str) -> PolicyEngine {
    engine_with(text, Limits::default())
}

fn input(json: &str) -> Input {
    Input::from_json(json, &Limits::default()).unwrap()
}

/// The code of a denial; `None` if it is allowed, whose change of state is undone.
fn code(engine: &PolicyEngine, request: &str, json: &str) -> Option<&'static str> {
    let decision = engine.decide(&name(request), &input(json));
    assert_eq!(decision.is_allowed(), decision.denial().is_none());
    decision.denial().map(Denial::code)
}

const STATE: &str = r#"
CreateContainerRequest := {"allowed": true, "ops": [{"op": "add", "path": concat("/", ["/pstate", input.id]), "value": input.value}]}
RemoveContainerRequest := {"allowed": true, "ops": [{"op": "remove", "path": concat("/", ["/pstate", input.id])}]}
ExecProcessRequest if data.pstate[input.id]
"#;

#[test]
fn evil_policy_without_the_rule() {
    let engine = engine("default WaitProcessRequest := true\nCopyFileRequest if input.path == \"/a\"\n");
    assert_eq!(code(&engine, "WaitProcessRequest", "{}"), None);
    assert_eq!(code(&engine, "ExecProcessRequest", "{}"), Some("POLICY_UNDEFINED"));
    assert_eq!(code(&engine, "CopyFileRequest", "{\"path\": \"/b\"}"), Some("POLICY_UNDEFINED"));
}

#[test]
fn evil_runtime_request_that_the_rule_denies() {
    let engine = engine(
        "default ExecProcessRequest := false\nCopyFileRequest := {\"allowed\": false, \"ops\": [{\"op\": \"add\", \"path\": \"/pstate/x\", \"value\": 1}]}\n",
    );
    assert_eq!(code(&engine, "ExecProcessRequest", "{}"), Some("POLICY_DENIED"));
    let decision = engine.decide(&name("CopyFileRequest"), &input("{}"));
    assert_eq!(decision.denial(), Some(&Denial::Rule));
    decision.commit();
    assert_eq!(engine.state(), Some(serde_json::json!({ "pstate": {} })));
}

#[test]
fn evil_policy_that_answers_something_else() {
    let engine = engine(
        "AddSwapRequest := \"true\"\nCopyFileRequest := 1\nReadStreamRequest := {\"allowed\": \"true\"}\nWriteStreamRequest := {\"ops\": []}\nCloseStdinRequest := {\"allowed\": true, \"ops\": 7}\nStatsContainerRequest := [true]\n",
    );
    for request in [
        "AddSwapRequest",
        "CopyFileRequest",
        "ReadStreamRequest",
        "WriteStreamRequest",
        "CloseStdinRequest",
        "StatsContainerRequest",
    ] {
        assert_eq!(code(&engine, request, "{}"), Some("POLICY_RESULT"), "{request}");
    }
}

#[test]
fn without_a_policy_only_the_record_can_be_read() {
    let engine = PolicyEngine::new(Limits::default(), FailingRequests::InsecureAllowedIfPolicyAsks);
    for request in
        ["CreateContainerRequest", "SetPolicyRequest", "GuestDetailsRequest", "AllowRequestsFailingPolicy"]
    {
        assert_eq!(code(&engine, request, "{}"), Some("POLICY_ABSENT"), "{request}");
    }
    for request in WITHOUT_POLICY {
        assert_eq!(code(&engine, request, "{}"), None);
    }
}

#[test]
fn evil_host_policy_that_is_half_good() {
    let engine = engine(STATE);
    engine.decide(&name("CreateContainerRequest"), &input("{\"id\": \"a\", \"value\": 0}")).commit();
    for bad in [
        "package agent_policy\ndefault ExecProcessRequest := true\nAddSwapRequest {",
        "package agent_policy\nExecProcessRequest if undefined_name == 1\ndefault AddSwapRequest := true",
        "package other\ndefault ExecProcessRequest := true",
    ] {
        assert!(engine.set_policy(bad).is_err());
        assert_eq!(code(&engine, "AddSwapRequest", "{}"), Some("POLICY_UNDEFINED"));
        assert_eq!(code(&engine, "ExecProcessRequest", "{\"id\": \"b\"}"), Some("POLICY_UNDEFINED"));
        assert_eq!(code(&engine, "ExecProcessRequest", "{\"id\": \"a\"}"), None, "the state is still there");
    }
    engine.set_policy("package agent_policy\nExecProcessRequest if data.pstate[input.id]").unwrap();
    assert_eq!(
        code(&engine, "ExecProcessRequest", "{\"id\": \"a\"}"),
        Some("POLICY_UNDEFINED"),
        "a fresh state"
    );
}

#[test]
fn evil_operator_oversize_policy() {
    let limits = Limits { policy_bytes: 64, ..Limits::default() };
    let text = format!("package agent_policy\n# {}\n", "x".repeat(64));
    assert_eq!(
        Policy::load(&text, &limits).unwrap_err(),
        PolicyError::TooLarge { found: text.len(), max: 64 }
    );
}

#[test]
fn evil_operator_policy_of_another_package() {
    let error = Policy::load("package policy\ndefault ExecProcessRequest := false\n", &Limits::default())
        .unwrap_err();
    assert_eq!(error.code(), "POLICY_PACKAGE");
}

#[test]
fn evil_operator_policy_that_asks_the_hosts_clock() {
    for call in ["time.now_ns()", "http.send({})", "opa.runtime()", "rand.intn(\"a\", 2)"] {
        let text =
            format!("package agent_policy\nExecProcessRequest if {{\n    x := {call}\n    x == 1\n}}\n");
        let error = Policy::load(&text, &Limits::default()).unwrap_err();
        assert!(
            matches!(error, PolicyError::Builtin { line: 3, .. } | PolicyError::Analysis { .. }),
            "{error}"
        );
        assert_eq!(error.code(), "POLICY_BUILTIN");
    }
}

#[test]
fn evil_operator_rego_of_the_old_kind() {
    let error =
        Policy::load("package agent_policy\nExecProcessRequest { true }\n", &Limits::default()).unwrap_err();
    assert_eq!(error.code(), "POLICY_SYNTAX");
}

#[test]
fn evil_runtime_name_that_is_a_query() {
    for bad in ["", "1Request", "A; data", "ARequest\n", "A.b", "A[0]", &"A".repeat(65), "AÉ"] {
        assert!(matches!(RequestName::new(bad), Err(InputError::Name { .. })), "{bad:?}");
    }
}

#[test]
fn evil_runtime_oversize_request() {
    let limits = Limits { input_bytes: 16, ..Limits::default() };
    let error = Input::from_json("{\"path\": \"/aaaaaaaa\"}", &limits).unwrap_err();
    assert_eq!(error.code(), "POLICY_INPUT_TOO_LARGE");
}

#[test]
fn evil_runtime_request_that_is_no_object() {
    for bad in ["[]", "null", "true", "1", "\"a\"", "", "{", "{} {}"] {
        assert_eq!(
            Input::from_json(bad, &Limits::default()).unwrap_err().code(),
            "POLICY_INPUT_JSON",
            "{bad}"
        );
    }
    let deep = format!("{{\"a\": {}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(Input::from_json(&deep, &Limits::default()).unwrap_err().code(), "POLICY_INPUT_JSON");
}

/// Rounds within rounds: more work than any limit allows.
const ENDLESS: &str = "
digits := [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
ExecProcessRequest if {
    some a in digits
    some b in digits
    some c in digits
    some d in digits
    some e in digits
    some f in digits
    some g in digits
    [a, b, c, d, e, f, g] == [10, 10, 10, 10, 10, 10, 10]
}
";

#[test]
fn evil_policy_that_never_ends() {
    let engine = engine_with(ENDLESS, Limits { instructions: 100_000, ..Limits::default() });
    let decision = engine.decide(&name("ExecProcessRequest"), &input("{}"));
    assert_eq!(decision.denial(), Some(&Denial::Limit(LimitKind::Instructions)));
    assert!(!decision.explain(&input("{}")).is_empty());
    // A limit that is high enough is no hindrance.
    let text = ENDLESS.replace("    some e in digits\n    some f in digits\n    some g in digits\n", "");
    let text =
        text.replace("[a, b, c, d, e, f, g] == [10, 10, 10, 10, 10, 10, 10]", "[a, b, c, d] == [9, 9, 9, 9]");
    let engine = engine_with(&text, Limits { instructions: 5_000_000, ..Limits::default() });
    assert!(engine.decide(&name("ExecProcessRequest"), &input("{}")).is_allowed());
}

#[test]
fn evil_policy_that_takes_too_long() {
    let engine = engine_with(ENDLESS, Limits { time: Duration::from_millis(20), ..Limits::default() });
    assert_eq!(
        engine.decide(&name("ExecProcessRequest"), &input("{}")).denial(),
        Some(&Denial::Limit(LimitKind::Time))
    );
}

#[test]
fn evil_policy_that_never_ends_interpreted() {
    let text = ENDLESS.replace("some a in digits", "some a in digits\n    x := print(a)");
    let engine = engine_with(&text, Limits { time: Duration::from_millis(20), ..Limits::default() });
    assert_eq!(
        engine.decide(&name("ExecProcessRequest"), &input("{}")).denial(),
        Some(&Denial::Limit(LimitKind::Time))
    );
}

#[test]
fn the_state_changes_with_the_effect_and_not_before() {
    let engine = engine(STATE);
    let before = engine.state();
    let decision = engine.decide(&name("CreateContainerRequest"), &input("{\"id\": \"a\", \"value\": 3}"));
    assert!(decision.is_allowed());
    assert_eq!(engine.state(), before);
    assert_eq!(code(&engine, "ExecProcessRequest", "{\"id\": \"a\"}"), Some("POLICY_UNDEFINED"));
    decision.undo();
    assert_eq!(engine.state(), before);
    engine.decide(&name("CreateContainerRequest"), &input("{\"id\": \"a\", \"value\": 3}")).commit();
    assert_eq!(engine.state(), Some(serde_json::json!({ "pstate": { "a": 3 } })));
    assert_eq!(code(&engine, "ExecProcessRequest", "{\"id\": \"a\"}"), None);
    engine.decide(&name("RemoveContainerRequest"), &input("{\"id\": \"a\"}")).commit();
    assert_eq!(engine.state(), before);
    // As upstream: what is not there cannot be removed.
    assert_eq!(code(&engine, "RemoveContainerRequest", "{\"id\": \"a\"}"), Some("POLICY_PATCH"));
}

#[test]
fn evil_runtime_two_creates_at_once() {
    let engine = engine(STATE);
    let first = engine.decide(&name("CreateContainerRequest"), &input("{\"id\": \"a\", \"value\": 1}"));
    assert_eq!(
        code(&engine, "CreateContainerRequest", "{\"id\": \"b\", \"value\": 2}"),
        Some("POLICY_STATE_BUSY")
    );
    assert_eq!(
        code(&engine, "ExecProcessRequest", "{\"id\": \"b\"}"),
        Some("POLICY_UNDEFINED"),
        "readers need not wait"
    );
    first.commit();
    engine.decide(&name("CreateContainerRequest"), &input("{\"id\": \"b\", \"value\": 2}")).commit();
    assert_eq!(engine.state(), Some(serde_json::json!({ "pstate": { "a": 1, "b": 2 } })));
}

#[test]
fn evil_runtime_state_that_grows() {
    let engine = engine_with(STATE, Limits { state_bytes: 128, ..Limits::default() });
    let json = serde_json::json!({ "id": "a", "value": "v".repeat(200) }).to_string();
    let decision = engine.decide(&name("CreateContainerRequest"), &input(&json));
    assert_eq!(decision.denial(), Some(&Denial::Limit(LimitKind::State)));
    decision.commit();
    assert_eq!(engine.state(), Some(serde_json::json!({ "pstate": {} })));
}

#[test]
fn evil_policy_patch_of_many_operations() {
    let text = "CreateContainerRequest := {\"allowed\": true, \"ops\": [{\"op\": \"add\", \"path\": \"/pstate/a\", \"value\": 1} | some x in input.l]}\n";
    let engine = engine_with(text, Limits { patch_operations: 3, ..Limits::default() });
    assert_eq!(code(&engine, "CreateContainerRequest", "{\"l\": [1, 2, 3]}"), None);
    assert_eq!(code(&engine, "CreateContainerRequest", "{\"l\": [1, 2, 3, 4]}"), Some("POLICY_LIMIT"));
}

#[test]
fn evil_policy_patch_of_the_root() {
    let engine = engine(
        "CreateContainerRequest := {\"allowed\": true, \"ops\": [{\"op\": \"replace\", \"path\": \"\", \"value\": 1}]}\n",
    );
    let decision = engine.decide(&name("CreateContainerRequest"), &input("{}"));
    assert_eq!(decision.denial().map(Denial::code), Some("POLICY_PATCH"));
    decision.commit();
    assert_eq!(engine.state(), Some(serde_json::json!({ "pstate": {} })));
}

#[test]
fn evil_policy_that_allows_what_fails() {
    let text = "package agent_policy\ndefault AllowRequestsFailingPolicy := true\ndefault ExecProcessRequest := false\nCopyFileRequest := 7\n";
    let strict = PolicyEngine::new(Limits::default(), FailingRequests::Denied);
    strict.set_policy(text).unwrap();
    assert_eq!(code(&strict, "ExecProcessRequest", "{}"), Some("POLICY_DENIED"));
    let insecure = PolicyEngine::new(Limits::default(), FailingRequests::InsecureAllowedIfPolicyAsks);
    insecure.set_policy(text).unwrap();
    let decision = insecure.decide(&name("ExecProcessRequest"), &input("{}"));
    assert_eq!(decision.verdict(), &Verdict::AllowedThoughDenied(Denial::Rule));
    assert_eq!(
        code(&insecure, "CopyFileRequest", "{}"),
        Some("POLICY_RESULT"),
        "an error is a denial even then"
    );
}

#[test]
fn generated_patterns_compile() {
    let engine = engine(
        "CopyFileRequest if regex.match(`^((25[0-5]|(2[0-4]|1\\d|[1-9]|)\\d)\\.?\\b){4}$`, input.a)\nAddSwapRequest if regex.match(`(?i)^x\\w+\\s$`, input.a)\n",
    );
    assert_eq!(code(&engine, "CopyFileRequest", "{\"a\": \"10.96.0.1\"}"), None);
    assert_eq!(code(&engine, "AddSwapRequest", "{\"a\": \"Xé \"}"), None);
}

/// Where bytecode would allow what the interpreter does not: each has to be denied, and compiled where it can be.
#[test]
fn evil_runtime_values_of_another_kind() {
    let text = r#"
ARequest if not loop(input.s)
loop(x) if { some y in x; y == 1 }
BRequest if not two(1)
two(x) := 1 if input.n == 5
two(x) := 2 if input.n == 5
CRequest := {"allowed": true, "at": i} if { some i, x in input.l }
DRequest if { every k in ["a", "b"] { wanted[k] == input.o[k] } }
wanted := {"a": 1, "b": 2}
ERequest if { x := input.nothing }
FRequest if not input.s - 1 == 2
GRequest if { every k, v in input.o { x := wanted[k]; v == x } }
HRequest if { y := [x | x := input.nothing]; y == [] }
"#;
    let engine = engine(text);
    let json = r#"{"s": "text", "n": 5, "l": [1, 2], "o": {"a": 1, "b": 3}}"#;
    for (request, expected) in [
        ("ARequest", Some("POLICY_EVALUATION")),
        ("BRequest", Some("POLICY_EVALUATION")),
        ("CRequest", Some("POLICY_EVALUATION")),
        ("DRequest", Some("POLICY_UNDEFINED")),
        ("ERequest", Some("POLICY_UNDEFINED")),
        ("FRequest", Some("POLICY_EVALUATION")),
        ("GRequest", Some("POLICY_UNDEFINED")),
        ("HRequest", None),
    ] {
        assert_eq!(code(&engine, request, json), expected, "{request}");
    }
    let policy = Policy::load(&format!("package agent_policy\n{text}"), &Limits::default()).unwrap();
    for request in ["ARequest", "BRequest", "CRequest", "DRequest", "ERequest", "GRequest"] {
        assert_eq!(policy.path(&name(request)), Path::Compiled, "{request}");
    }
    for request in ["FRequest", "HRequest"] {
        assert!(matches!(policy.path(&name(request)), Path::Interpreted { .. }), "{request}");
    }
}

/// What a few kilobytes of a host become when policy puts one into the other.
#[test]
fn evil_host_bytes_that_policy_multiplies() {
    let large = "a".repeat(16 << 10);
    let json =
        serde_json::json!({ "a": large, "b": large, "l": vec![large.as_str(); 2], "n": 8_000_000, "m": 1_000_000_000, "f": "%100000000d" })
            .to_string();
    for multiplied in [
        "replace(input.a, \"a\", input.b)",
        "concat(input.b, split(input.a, \"\"))",
        "numbers.range(0, input.n)",
        "bits.lsh(1, input.m)",
        "regex.replace(input.a, \"a\", input.b)",
        "strings.replace_n({\"a\": input.b}, input.a)",
        "sprintf(input.f, [input.n])",
    ] {
        // As bytecode, and, for its print, interpreted.
        for before in ["", "    p := print(1)\n    p\n"] {
            for text in [
                format!("ExecProcessRequest if {{\n{before}    x := {multiplied}\n    count([x]) == 1\n}}\n"),
                // A limit is no "false" either.
                format!(
                    "ExecProcessRequest if {{\n{before}    not bad\n}}\nbad if {{\n    x := {multiplied}\n    count([x]) == 7\n}}\n"
                ),
            ] {
                let engine = engine(&text);
                let decision = engine.decide(&name("ExecProcessRequest"), &input(&json));
                assert_eq!(decision.denial(), Some(&Denial::Limit(LimitKind::Memory)), "{text}");
                // The next request begins with a whole budget.
                let small = r#"{"a": "aa", "b": "bb", "l": [], "n": 2, "m": 2, "f": "%1d"}"#;
                assert_ne!(code(&engine, "ExecProcessRequest", small), Some("POLICY_LIMIT"), "{text}");
            }
        }
    }
    // What is made piece by piece counts as a whole.
    let text = "ExecProcessRequest if { every x in numbers.range(1, 20000) { count(replace(concat(\"\", [input.a, format_int(x, 10)]), \"b\", \"c\")) > 0 } }\n";
    assert_eq!(code(&engine(text), "ExecProcessRequest", &json), Some("POLICY_LIMIT"));
    assert_eq!(code(&engine(text), "ExecProcessRequest", r#"{"a": "a"}"#), None);
}

#[test]
fn rules_that_look_at_nothing_are_decided_once() {
    let text = "WaitProcessRequest if { settings.wait == true }\nsettings := {\"wait\": true}\nStatsContainerRequest if { not WaitProcessRequest }\nCopyFileRequest if { 1 - \"a\" == 0 }\n";
    let engine = engine(text);
    assert_eq!(code(&engine, "WaitProcessRequest", "{}"), None);
    assert_eq!(code(&engine, "StatsContainerRequest", "{}"), Some("POLICY_UNDEFINED"));
    assert_eq!(code(&engine, "CopyFileRequest", "{}"), Some("POLICY_EVALUATION"));
}

/// The same three strings again and again: what is remembered is what would be made.
#[test]
fn replacements_are_remembered_as_they_are() {
    let text = "ExecProcessRequest if { every item in input.l { some pattern in patterns; item.wanted == replace(replace(pattern, \"$(a)\", item.a), \"$(b)\", input.b) } }\npatterns := [\"x-$(a)-$(b)\", \"y-$(b)\", \"$(a)$(a)\"]\n";
    let engine = engine(text);
    let items: Vec<_> = (0..2000).map(|number| serde_json::json!({ "a": format!("{number}"), "wanted": match number % 3 { 0 => format!("x-{number}-Z"), 1 => "y-Z".to_owned(), _ => format!("{number}{number}") } })).collect();
    let json = serde_json::json!({ "l": items, "b": "Z" });
    assert_eq!(code(&engine, "ExecProcessRequest", &json.to_string()), None);
    let mut wrong = json.clone();
    wrong["l"][1999]["wanted"] = serde_json::json!("x-1998-Z");
    assert_eq!(code(&engine, "ExecProcessRequest", &wrong.to_string()), Some("POLICY_UNDEFINED"));
}
