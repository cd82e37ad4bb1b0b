use serde_json::{Value as Json, json};

use super::*;
use crate::{FailingRequests, Input, Limits, PolicyEngine, RequestName};

mod proposals;

fn codes(rules: &str, guest: Guest) -> Vec<(&'static str, String)> {
    let text = format!("package agent_policy\n\n{rules}\n");
    let found = lint(&text, &Limits::default(), guest).unwrap();
    found.into_iter().map(|finding| (finding.code, finding.rule)).collect()
}

fn has(rules: &str, code: &str, rule: &str) -> bool {
    codes(rules, Guest::default()).iter().any(|found| (found.0, found.1.as_str()) == (code, rule))
}

#[test]
fn what_is_open_is_found_however_it_is_written() {
    for (rule, code) in [
        ("ExecProcessRequest", "EXEC_OPEN"),
        ("CreateContainerRequest", "CREATE_OPEN"),
        ("CopyFileRequest", "COPY_OPEN"),
        ("SetPolicyRequest", "SET_POLICY_OPEN"),
        ("ReadStreamRequest", "READ_STREAM_OPEN"),
        ("SetIPTablesRequest", "IPTABLES_OPEN"),
    ] {
        for text in [
            format!("default {rule} := true"),
            format!("{rule} := true"),
            format!("{rule} if input"),
            format!("{rule} := {{\"allowed\": true}} if {{ not input.nothing }}"),
        ] {
            assert!(has(&text, code, rule), "{text}");
        }
        assert!(!has(&format!("default {rule} := false"), code, rule));
        assert!(!has("default WaitProcessRequest := true", code, rule));
    }
}

#[test]
fn what_is_not_looked_at_is_found() {
    let guarded = "X if data.pstate[input.container_id]";
    assert!(has(&guarded.replace('X', "ExecProcessRequest"), "EXEC_COMMAND_UNCHECKED", "ExecProcessRequest"));
    let text = "ExecProcessRequest if { data.pstate[input.container_id]; good(input.process) }\ngood(process) if process.Args == [\"/a\"]";
    assert!(!has(text, "EXEC_COMMAND_UNCHECKED", "ExecProcessRequest"));
    let text = "CopyFileRequest if { input.file_size < 100; input.uid == 7 }";
    assert!(has(text, "COPY_PATH_UNCHECKED", "CopyFileRequest"));
    let text = "CreateContainerRequest if input.OCI.Process.Args == [\"/a\"]";
    assert!(has(text, "CREATE_FIELDS_UNCHECKED", "CreateContainerRequest"));
    let text = "CreateContainerRequest if input.OCI == policy_data\npolicy_data := {\"Args\": 1}";
    assert!(!has(text, "CREATE_FIELDS_UNCHECKED", "CreateContainerRequest"));
    // What data names is not what rules look at.
    let text = "CreateContainerRequest if input.container_id == policy_data.id\npolicy_data := {\"id\": \"a\", \"Hooks\": []}";
    assert!(has(text, "CREATE_FIELDS_UNCHECKED", "CreateContainerRequest"));
}

#[test]
fn streams_that_do_not_fit_are_found() {
    let terminal =
        "ExecProcessRequest if { input.process.Args == [\"/bin/sh\"]; input.process.Terminal == true }";
    assert!(has(terminal, "TTY_WITHOUT_STDIN", "ExecProcessRequest"));
    assert!(!has(
        &format!("{terminal}\ndefault WriteStreamRequest := true"),
        "TTY_WITHOUT_STDIN",
        "ExecProcessRequest"
    ));
    let plain = terminal.replace("Terminal == true", "Terminal == false");
    assert!(!has(&plain, "TTY_WITHOUT_STDIN", "ExecProcessRequest"));
    assert!(has(&plain, "EXEC_OUTPUT_UNREAD", "ExecProcessRequest"));
    let container = "CreateContainerRequest if input.OCI.Process == policy_data.process\npolicy_data := {\"process\": {\"Terminal\": true}}";
    assert!(has(container, "TTY_WITHOUT_STDIN", "CreateContainerRequest"));
    assert!(has(
        "WriteStreamRequest if input.container_id == \"a\"",
        "STDIN_NEVER_ENDS",
        "WriteStreamRequest"
    ));
}

#[test]
fn the_rest_is_found() {
    assert!(has(
        "default AllowRequestsFailingPolicy := true",
        "ALLOWS_FAILING",
        "AllowRequestsFailingPolicy"
    ));
    assert!(has("default PullImageRequest := true", "RULE_NEVER_ASKED", "PullImageRequest"));
    assert!(has("default WaitProcessRequest := true", "ENDPOINT_NEEDED", "CreateSandboxRequest"));
    assert!(has("default WaitProcessRequest := true", "AUDIT_UNREADABLE", "AuditReadRequest"));
    assert!(has("default MemHotplugByProbeRequest := true", "DEFAULT_TRUE", "MemHotplugByProbeRequest"));
    assert!(has("MemHotplugByProbeRequest := true", "ALWAYS_ALLOWED", "MemHotplugByProbeRequest"));
    assert!(has("StatsContainerRequest if { x := print(input); x }", "INTERPRETED", "StatsContainerRequest"));
    let secrets = Guest { has_secrets: true };
    let text = "package agent_policy\n\ndefault ReadStreamRequest := true\n";
    let weight = |guest| {
        let found = lint(text, &Limits::default(), guest).unwrap();
        found
            .iter()
            .find(|finding| finding.code == "READ_STREAM_OPEN")
            .map(|finding| (finding.severity, finding.line))
    };
    assert_eq!(weight(Guest::default()), Some((Severity::Warning, 3)));
    assert_eq!(weight(secrets), Some((Severity::Error, 3)));
}

#[test]
fn a_generated_policy_is_not_called_open() {
    let text = format!("{}\npolicy_data := {{}}\n", include_str!("../../../tests/vectors/policy/rules.rego"));
    let found = lint(&text, &Limits::default(), Guest { has_secrets: true }).unwrap();
    assert!(found.iter().all(|finding| finding.severity < Severity::Error), "{found:?}");
    assert!(!found.iter().any(|finding| finding.code.contains("UNCHECKED")), "{found:?}");
}

#[test]
fn rules_are_told_as_they_are() {
    let text = "package agent_policy\n\ndefault AddSwapRequest := false\n\nCopyFileRequest if input.path == \"/a\"\nRemoveContainerRequest := {\"allowed\": true, \"ops\": [input.x]}\nWaitProcessRequest if { 1 == 1 }\n";
    let policy = crate::Policy::load(text, &Limits::default()).unwrap();
    let rules = policy.rules();
    let of = |name: &str| rules.iter().find(|rule| rule.name == name).unwrap();
    assert_eq!((of("AddSwapRequest").line, of("AddSwapRequest").always), (3, Some(Always::Denied)));
    assert_eq!((of("CopyFileRequest").line, of("CopyFileRequest").always), (5, None));
    assert!(of("RemoveContainerRequest").state.writes);
    assert_eq!(of("WaitProcessRequest").always, Some(Always::Allowed));
    assert_eq!(policy.always(&RequestName::new("ExecProcessRequest").unwrap()), Some(Always::Denied));
}

#[test]
fn partial_requests_are_completed_and_typing_errors_found() {
    let endpoint = endpoint_of("ExecProcess").unwrap();
    let whole = complete(endpoint, &json!({ "process": { "Args": ["/a"], "User": { "UID": 7 } } })).unwrap();
    assert_eq!(whole["process"]["User"], json!({ "UID": 7, "GID": 0, "AdditionalGids": [], "Username": "" }));
    assert_eq!((&whole["container_id"], &whole["string_user"]), (&json!(""), &Json::Null));
    let error = complete(endpoint, &json!({ "process": { "User": { "uid": 7 } } })).unwrap_err();
    assert_eq!(error.code(), "POLICY_INPUT_JSON");
    assert!(error.to_string().contains("process.User.uid"), "{error}");
    let copy = complete(endpoint_of("CopyFileRequest").unwrap(), &json!({ "path": "/a" })).unwrap();
    assert_eq!((&copy["file_type"], &copy["path"]), (&json!("Unknown"), &json!("/a")));
    let create = endpoint_of("/grpc.AgentService/CreateContainer").unwrap();
    let whole = complete(create, &json!({ "OCI": { "Mounts": [{ "type_": "bind" }] } })).unwrap();
    assert_eq!(whole["OCI"]["Mounts"][0]["destination"], json!(""));
    for bad in ["Check", "/grpc.Health/Check", "grpc.AgentService/ExecProcess", "Exec", ""] {
        assert_eq!(endpoint_of(bad), None, "{bad}");
    }
}

#[test]
fn cases_pass_and_fail_as_they_should() {
    let policy = "package agent_policy\n\nCreateContainerRequest := {\"allowed\": true, \"ops\": [{\"op\": \"add\", \"path\": concat(\"/\", [\"/pstate\", input.container_id]), \"value\": 1}]} if { input.container_id != \"x\" }\nStartContainerRequest if data.pstate[input.container_id] == 1\n";
    let run = |steps: Json| {
        let file = json!({ "cases": [{ "name": "one", "steps": steps }] }).to_string();
        cases::run(policy, &file, &Limits::default()).map(|outcomes| outcomes[0].failures.clone())
    };
    let start = json!({ "endpoint": "StartContainer", "input": { "container_id": "a" } });
    let with = |base: &Json, members: Json| {
        let mut step = base.clone();
        members.as_object().unwrap().iter().for_each(|(name, value)| step[name] = value.clone());
        step
    };
    let create =
        json!({ "endpoint": "CreateContainer", "input": { "container_id": "a" }, "expect": "allowed" });
    let denied = with(
        &start,
        json!({ "expect": "denied", "code": "POLICY_UNDEFINED", "rule": "StartContainerRequest", "field": "container_id" }),
    );
    let allowed = with(&start, json!({ "expect": "allowed" }));
    assert_eq!(run(json!([denied, create, allowed])).unwrap(), []);
    assert_eq!(run(json!([with(&create, json!({ "state": { "a": 1 } })), allowed])).unwrap(), []);
    // Without the effect the state is as it was.
    assert_eq!(run(json!([with(&create, json!({ "effect": false, "state": {} })), denied])).unwrap(), []);
    for wrong in [
        json!([allowed]),
        json!([create, denied]),
        json!([with(&denied, json!({ "code": "POLICY_DENIED" }))]),
        json!([with(&denied, json!({ "rule": "ExecProcessRequest" }))]),
        json!([with(&denied, json!({ "field": "exec_id" }))]),
        json!([with(&create, json!({ "state": {} }))]),
    ] {
        assert_eq!(run(wrong.clone()).unwrap().len(), 1, "{wrong}");
    }
    for (bad, code) in [
        (json!([]), "POLICY_NOTHING_OBSERVED"),
        (json!([with(&start, json!({ "expect": "maybe" }))]), "POLICY_FORM"),
        (json!([with(&allowed, json!({ "filed": "x" }))]), "POLICY_FORM"),
        (json!([with(&allowed, json!({ "endpoint": "Start" }))]), "POLICY_ENDPOINT"),
        (json!([with(&allowed, json!({ "input": { "id": "a" } }))]), "POLICY_INPUT_JSON"),
    ] {
        assert_eq!(run(bad).unwrap_err().code(), code);
    }
}

/// What the engine says about one request.
fn asks(engine: &PolicyEngine, request: &Observed) -> bool {
    let input = Input::from_json(&request.input.to_string(), engine.limits()).unwrap();
    let decision = engine.decide(&RequestName::new(request.rule()).unwrap(), &input);
    let allowed = decision.is_allowed();
    decision.undo();
    allowed
}

fn engine(text: &str) -> PolicyEngine {
    let engine = PolicyEngine::new(Limits::default(), FailingRequests::Denied);
    engine.set_policy(text).unwrap();
    engine
}
