//! `innerkeep policy` for agent policies, from requests that were seen to a policy that is checked, linted and tested.

#![expect(clippy::unwrap_used, reason = "tests")]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tests::innerkeep::{Innerkeep, Said};
use tests::programs::{Programs, User};
use tests::work::Work;
use tests::{DAMAGED, REFUSED, USAGE, args};

const SANDBOX: &str = "6f1c0e0d9ab34c5d8e7f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5";
const CONTAINER: &str = "1111111111111111111111111111111111111111111111111111111111111111";

/// The program, and a directory for files.
struct Desk {
    work: Work,
    innerkeep: Innerkeep,
}

impl Desk {
    fn new() -> Self {
        let work = Work::create(User::Same);
        let innerkeep = Innerkeep::new(&Programs::built(), &work.join("tmp"));
        Self { work, innerkeep }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.work.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The result on standard output, the exit status and the code of the failure.
    fn told(&self, arguments: &[std::ffi::OsString]) -> (Value, Option<i32>, String) {
        let said: Said = self.innerkeep.attempt(arguments);
        (serde_json::from_str(&said.stdout).unwrap_or_default(), said.status, said.code())
    }

    /// A policy of requests that were seen.
    fn recorded(&self, container: &str) -> PathBuf {
        let requests = self.file("requests.jsonl", &lines(&pod(SANDBOX, container)));
        let policy = self.work.join(format!("{}.rego", &container[..4]));
        self.innerkeep.run(&args!["policy", "record", &requests, "-o", &policy]);
        policy
    }
}

/// A pod with one container, as upstream's agent writes what it is asked, and in our words.
fn pod(sandbox: &str, container: &str) -> Vec<Value> {
    vec![
        json!({ "kind": "CreateSandboxRequest", "request": { "sandbox_id": sandbox } }),
        json!({ "endpoint": "CreateContainer", "input": {
            "container_id": container, "exec_id": container,
            "OCI": {
                "Process": { "Args": ["/bin/serve"], "Cwd": "/", "User": { "UID": 7 } },
                "Root": { "Path": format!("/run/kata-containers/{container}/rootfs") },
                "Annotations": { "io.kubernetes.cri.sandbox-id": sandbox },
            },
        } }),
        json!({ "endpoint": "/grpc.AgentService/StartContainer", "input": { "container_id": container } }),
        json!({ "endpoint": "GetGuestDetails", "input": { "mem_block_size": true } }),
        json!({ "endpoint": "WaitProcess", "input": { "container_id": container } }),
        json!({ "endpoint": "RemoveContainer", "input": { "container_id": container } }),
        json!({ "endpoint": "DestroySandbox" }),
    ]
}

fn lines(requests: &[Value]) -> String {
    requests.iter().map(|request| format!("{request}\n")).collect()
}

fn codes(found: &Value) -> Vec<&str> {
    found["findings"].as_array().unwrap().iter().map(|finding| finding["code"].as_str().unwrap()).collect()
}

#[test]
fn from_requests_to_a_policy_that_is_checked_linted_and_tested() {
    let desk = Desk::new();
    let policy = desk.recorded(CONTAINER);

    let checked = desk.innerkeep.run(&args!["policy", "check", &policy]);
    let decided = checked["decided"].as_array().unwrap();
    assert!(decided.iter().all(|rule| rule["compiled"] == true), "{checked}");
    let of = |name: &str| decided.iter().find(|rule| rule["rule"] == name).unwrap();
    assert_eq!(
        (&of("CreateContainerRequest")["changes_state"], &of("CreateContainerRequest")["always"]),
        (&json!(true), &Value::Null)
    );
    assert_eq!(
        (&of("ExecProcessRequest")["always"], &of("ExecProcessRequest")["default"]),
        (&json!("denied"), &json!(false))
    );
    assert_eq!(of("ReadStreamRequest")["methods"], json!(["ReadStderr", "ReadStdout"]));
    assert_eq!(checked["denied_without_rule"], json!([]));

    // Nothing is weak in it but what the operator has to decide, which is a note.
    let (found, status, _) = desk.told(&args!["policy", "lint", &policy, "--secrets"]);
    assert_eq!((status, &found["weak"]), (Some(0), &json!(0)), "{found}");
    assert_eq!(codes(&found), ["AUDIT_UNREADABLE", "AUDIT_UNREADABLE"]);

    // The next start of the pod has other identifiers. What was not seen is denied, and the container has to be created first.
    let (sandbox, container) = ("a".repeat(64), "b".repeat(64));
    let mut steps: Vec<Value> = pod(&sandbox, &container)
        .iter()
        .map(|request| {
            let (endpoint, input) = match request.get("kind") {
                Some(kind) => (kind, request.get("request")),
                None => (&request["endpoint"], request.get("input")),
            };
            json!({ "endpoint": endpoint, "input": input.cloned().unwrap_or(json!({})), "expect": "allowed" })
        })
        .collect();
    let start = steps[2].clone();
    steps.insert(1, json!({ "endpoint": start["endpoint"], "input": start["input"], "expect": "denied", "rule": "StartContainerRequest" }));
    let mut evil = steps[2].clone();
    evil["input"]["OCI"]["Process"]["Args"] = json!(["/bin/sh"]);
    evil["expect"] = json!("denied");
    evil["code"] = json!("POLICY_DENIED");
    evil["field"] = json!("OCI.Process.Args");
    steps.insert(2, evil);
    steps[3]["state"] = json!({ "$sandbox": sandbox, (container.clone()): 0 });
    let cases =
        desk.file("cases.json", &json!({ "cases": [{ "name": "again", "steps": steps }] }).to_string());
    let passed = desk.innerkeep.run(&args!["policy", "test", &policy, &cases]);
    assert_eq!((&passed["failed"], &passed["cases"][0]["steps"]), (&json!(0), &json!(9)));

    // A case that is not as expected is told, with the step, and fails.
    steps[0]["expect"] = json!("denied");
    let cases =
        desk.file("wrong.json", &json!({ "cases": [{ "name": "wrong", "steps": steps }] }).to_string());
    let (told, status, code) = desk.told(&args!["policy", "test", &policy, &cases]);
    assert_eq!((status, code.as_str()), (Some(REFUSED), "POLICY_CASES_FAILED"));
    assert_eq!(
        (&told["cases"][0]["passed"], &told["cases"][0]["failures"][0]["step"]),
        (&json!(false), &json!(1))
    );
}

#[test]
fn a_denial_is_explained_and_what_mends_it_mends_it() {
    let desk = Desk::new();
    let policy = desk.recorded(CONTAINER);
    let before = desk.file("before.jsonl", &lines(&pod(SANDBOX, CONTAINER)[..1]));
    let mut request = pod(SANDBOX, CONTAINER).remove(1);
    request["input"]["OCI"]["Process"]["User"]["UID"] = json!(0);
    let asked = desk.file("request.json", &request.to_string());
    let explain = |asked: &Path| desk.told(&args!["policy", "explain", &policy, asked, "--after", &before]);
    let (told, status, code) = explain(&asked);
    assert_eq!((status, code.as_str(), &told["allowed"]), (Some(REFUSED), "POLICY_DENIED", &json!(false)));
    let reason = &told["reasons"][0];
    assert!(reason["rule"].as_str().unwrap().starts_with("same_CreateContainerRequest_0_"), "{told}");
    assert_eq!(reason["fields"], json!(["OCI.Process.User.UID"]), "{told}");
    let line = usize::try_from(reason["line"].as_u64().unwrap()).unwrap();
    let text = std::fs::read_to_string(&policy).unwrap();
    assert!(text.lines().nth(line - 1).unwrap().contains(reason["statement"].as_str().unwrap()), "{told}");
    // The field mended, the request is allowed: the explanation named what was wrong.
    request["input"]["OCI"]["Process"]["User"]["UID"] = json!(7);
    let mended = desk.file("mended.json", &request.to_string());
    let (told, status, _) = explain(&mended);
    assert_eq!((status, &told["allowed"], &told["reasons"]), (Some(0), &json!(true), &json!([])));
}

#[test]
fn what_an_agent_would_not_take_is_refused() {
    let desk = Desk::new();
    for (text, code) in [
        ("package agent_policy\nExecProcessRequest {", "POLICY_SYNTAX"),
        ("package other\ndefault ExecProcessRequest := false\n", "POLICY_PACKAGE"),
        ("package agent_policy\nExecProcessRequest if time.now_ns() > 1\n", "POLICY_BUILTIN"),
        ("package agent_policy\nExecProcessRequest if nothing == 1\n", "POLICY_ANALYSIS"),
    ] {
        let policy = desk.file("bad.rego", text);
        for command in ["check", "lint"] {
            let (_, status, found) = desk.told(&args!["policy", command, &policy]);
            assert_eq!((status, found.as_str()), (Some(DAMAGED), code), "{command}: {text}");
        }
    }
    let policy = desk.recorded(CONTAINER);
    for (line, code) in [
        ("{\"endpoint\": \"ExecProcess\", \"input\": {\"container\": \"a\"}}", "POLICY_INPUT_JSON"),
        ("{\"endpoint\": \"Check\"}", "POLICY_ENDPOINT"),
        ("{\"endpoint\": \"ExecProcess\", \"inputs\": {}}", "POLICY_FORM"),
        ("[]", "POLICY_FORM"),
    ] {
        let request = desk.file("bad.json", line);
        for arguments in [args!["policy", "explain", &policy, &request], args!["policy", "record", &request]]
        {
            let (_, status, found) = desk.told(&arguments);
            assert_eq!((status, found.as_str()), (Some(DAMAGED), code), "{line}");
        }
    }
    let empty = desk.file("empty.jsonl", "\n");
    let (_, status, code) = desk.told(&args!["policy", "record", &empty]);
    assert_eq!((status, code.as_str()), (Some(DAMAGED), "POLICY_NOTHING_OBSERVED"));
}

#[test]
fn lint_tells_the_two_kinds_of_policies_apart() {
    let desk = Desk::new();
    let open = "# all of it\npackage agent_policy\n\ndefault AllowRequestsFailingPolicy := true\ndefault ExecProcessRequest := true\ndefault CreateContainerRequest := true\ndefault SetPolicyRequest := true\ndefault ReadStreamRequest := true\ndefault PullImageRequest := true\n";
    let policy = desk.file("open.policy", open);
    let (found, status, code) = desk.told(&args!["policy", "lint", &policy]);
    assert_eq!((status, code.as_str()), (Some(REFUSED), "POLICY_WEAK"));
    let found_codes = codes(&found);
    for code in [
        "ALLOWS_FAILING",
        "EXEC_OPEN",
        "CREATE_OPEN",
        "SET_POLICY_OPEN",
        "READ_STREAM_OPEN",
        "DEFAULT_TRUE",
        "TTY_WITHOUT_STDIN",
        "RULE_NEVER_ASKED",
        "ENDPOINT_NEEDED",
    ] {
        assert!(found_codes.contains(&code), "{code} is not in {found_codes:?}");
    }
    let exec =
        found["findings"].as_array().unwrap().iter().find(|finding| finding["code"] == "EXEC_OPEN").unwrap();
    assert_eq!(
        (&exec["line"], &exec["severity"], &exec["rule"]),
        (&json!(5), &json!("error"), &json!("ExecProcessRequest"))
    );

    let document = desk.innerkeep.run(&args!["policy", "new"]);
    let toml = desk.file("document.toml", document["toml"].as_str().unwrap());
    let (found, _, _) = desk.told(&args!["policy", "lint", &toml]);
    assert!(found["weaknesses"].is_array(), "{found}");
    let (_, status, code) = desk.told(&args!["policy", "lint", &toml, "--secrets"]);
    assert_eq!((status, code.as_str()), (Some(USAGE), "USAGE"));
}

/// An audit says which requests were allowed, and nothing of what was in them: that is no reason to allow any.
#[test]
fn evil_host_has_requests_recorded_that_only_an_audit_saw() {
    let desk = Desk::new();
    let vectors: Value = serde_json::from_str(include_str!("../vectors/audit/vectors.json")).unwrap();
    let whole = vectors.as_array().unwrap().iter().find(|vector| vector["name"] == "whole").unwrap();
    let bytes = |name: &str| hex::decode(whole[name].as_str().unwrap()).unwrap();
    let audit = desk.work.join("audit");
    std::fs::write(&audit, bytes("file")).unwrap();
    let secret = STANDARD.encode(bytes("secret"));
    let key = desk.file("operator.key", &json!({ "secret": secret, "suite": whole["suite"] }).to_string());

    // The audit alone gives nothing that could be allowed.
    let (_, status, code) = desk.told(&args!["policy", "record", "--audit", &audit, "--key", &key]);
    assert_eq!((status, code.as_str()), (Some(DAMAGED), "POLICY_NOTHING_OBSERVED"));

    let requests = desk.file("requests.jsonl", "{\"endpoint\": \"DestroySandbox\"}\n");
    let made = desk.innerkeep.run(&args!["policy", "record", &requests, "--audit", &audit, "--key", &key]);
    assert_eq!(made["seen_without_content"], json!(["CreateContainer"]));
    let policy = desk.file("made.rego", made["policy"].as_str().unwrap());
    let create = desk.file("create.json", &pod(SANDBOX, CONTAINER)[1].to_string());
    let (told, status, code) = desk.told(&args!["policy", "explain", &policy, &create]);
    assert_eq!((status, code.as_str(), &told["allowed"]), (Some(REFUSED), "POLICY_DENIED", &json!(false)));
}
