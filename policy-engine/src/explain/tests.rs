use super::{Explanation, MAX_HOST_BYTES, Reason};
use crate::{FailingRequests, Input, Limits, PolicyEngine, RequestName};

fn engine(text: &str) -> PolicyEngine {
    let engine = PolicyEngine::new(Limits::default(), FailingRequests::Denied);
    engine.set_policy(text).unwrap();
    engine
}

fn explained(engine: &PolicyEngine, name: &str, json: &str) -> Explanation {
    let input = Input::from_json(json, engine.limits()).unwrap();
    let decision = engine.decide(&RequestName::new(name).unwrap(), &input);
    let explanation = decision.explain(&input);
    assert_eq!(explanation.is_empty(), decision.is_allowed());
    explanation
}

const POLICY: &str = r#"package agent_policy

default ExecProcessRequest := false

ExecProcessRequest if {
    input.process.Terminal == false
    good(input.process, data.pstate)
}

good(process, state) if {
    every i, argument in process.Args {
        argument == ["/bin/probe", "--ready"][i]
    }
    some user in ["a", "b"]
    process.User == user
}

CopyFileRequest if startswith(input.path, "/run/shared/")
"#;

#[test]
fn the_furthest_way_names_rule_and_field() {
    let engine = engine(POLICY);
    let ask = |json: &str| explained(&engine, "ExecProcessRequest", json);
    let fields = |explanation: &Explanation| explanation.reasons()[0].fields.clone();
    let terminal = ask(r#"{"process": {"Terminal": true, "Args": ["/bin/probe"], "User": "a"}}"#);
    assert_eq!(fields(&terminal), ["process.Terminal"]);
    assert_eq!((terminal.reasons()[0].rule.as_str(), terminal.reasons()[0].line), ("ExecProcessRequest", 6));
    let argument = ask(r#"{"process": {"Terminal": false, "Args": ["/bin/probe", "--evil"], "User": "a"}}"#);
    assert_eq!(fields(&argument), ["process.Args[1]"]);
    assert_eq!((argument.reasons()[0].rule.as_str(), argument.reasons()[0].line), ("good", 12));
    let user = ask(r#"{"process": {"Terminal": false, "Args": ["/bin/probe"], "User": "c"}}"#);
    assert_eq!(fields(&user), ["process.User"]);
    assert!(ask(r#"{"process": {"Terminal": false, "Args": ["/bin/probe"], "User": "b"}}"#).is_empty());
    let copy = explained(&engine, "CopyFileRequest", r#"{"path": "/etc/shadow"}"#);
    assert_eq!(fields(&copy), ["path"]);
}

/// What is kept of an explanation is for the state in which it was given, and the request that it was about.
#[test]
fn explanations_follow_the_state() {
    let text = r#"package agent_policy

default ExecProcessRequest := false

ExecProcessRequest if {
    data.pstate.ready == true
    input.a == 1
}

StartContainerRequest := {"allowed": true, "ops": [{"op": "add", "path": "/pstate/ready", "value": true}]}
"#;
    let engine = engine(text);
    let line = |json: &str| explained(&engine, "ExecProcessRequest", json).reasons()[0].line;
    assert_eq!([line(r#"{"a": 2}"#), line(r#"{"a": 2}"#), line(r#"{"a": 1}"#)], [6, 6, 6]);
    let input = Input::from_json("{}", engine.limits()).unwrap();
    let start = engine.decide(&RequestName::new("StartContainerRequest").unwrap(), &input);
    assert!(start.is_allowed());
    start.commit();
    assert_eq!([line(r#"{"a": 2}"#), line(r#"{"a": 2}"#)], [7, 7]);
    assert!(explained(&engine, "ExecProcessRequest", r#"{"a": 1}"#).is_empty());
}

#[test]
fn a_request_without_a_rule_is_explained_too() {
    let engine = engine(POLICY);
    let explanation = explained(&engine, "SetPolicyRequest", "{}");
    assert_eq!(
        explanation.for_host("4f2"),
        "SetPolicyRequest is blocked by policy: SetPolicyRequest [POLICY_UNDEFINED, trace 4f2]"
    );
}

#[test]
fn evil_runtime_long_names_in_the_denial() {
    let engine = engine(
        "package agent_policy\n\nCopyFileRequest if { every key, value in input.options { value == true } }\n",
    );
    let name = "n\n\u{1b}[31m".repeat(4000);
    let json = serde_json::json!({ "options": { name.as_str(): false } }).to_string();
    let text = explained(&engine, "CopyFileRequest", &json).for_host(&"t".repeat(5000));
    assert!(text.len() <= MAX_HOST_BYTES, "{}", text.len());
    assert!(text.starts_with("CopyFileRequest is blocked by policy"));
    assert!(!text.contains(char::is_control), "{text:?}");
    let many = Explanation {
        request: RequestName::new("CopyFileRequest").unwrap(),
        code: Some("POLICY_DENIED"),
        reasons: vec![
            Reason {
                rule: "r".repeat(700),
                line: 1,
                statement: String::new(),
                fields: vec!["f".repeat(900)]
            };
            3
        ],
    };
    assert!(many.for_host("a").len() <= MAX_HOST_BYTES);
    assert!(many.for_host("a").ends_with("trace a]"));
}

#[test]
fn evil_runtime_reads_its_request_back_from_the_denial() {
    let engine = engine(POLICY);
    let secret = "hunter2-in-an-argument";
    let json =
        serde_json::json!({ "process": { "Terminal": false, "Args": [secret], "User": secret } }).to_string();
    let text = explained(&engine, "ExecProcessRequest", &json).for_host("1");
    assert!(
        text.contains("process.Args[0]") && !text.contains(secret) && !text.contains("/bin/probe"),
        "{text}"
    );
}
