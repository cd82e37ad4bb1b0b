use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::super::*;
use super::{asks, engine};
use crate::{Input, Limits, RequestName};

const FIRST: &str = "6f1c0e0d9ab34c5d8e7f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5";
const SECOND: &str = "1111111111111111111111111111111111111111111111111111111111111111";

/// What a runtime asks for to bring up one container in a sandbox, run a probe in it and take it down.
fn pod(sandbox: &str, container: &str, process: &str, unique: &str) -> Vec<Observed> {
    let shared = format!("/run/kata-containers/shared/containers/{container}-{unique}-hosts");
    let lines = [
        json!({ "endpoint": "CopyFile", "input": { "path": shared, "file_type": "Regular", "file_mode": 0o100_644 } }),
        json!({ "endpoint": "CreateSandbox", "input": { "hostname": "pod", "sandbox_id": sandbox, "dns": ["10.0.0.1"] } }),
        json!({ "kind": "CreateContainerRequest", "request": {
            "container_id": container, "exec_id": container,
            "OCI": {
                "Version": "1.1.0",
                "Root": { "Path": format!("/run/kata-containers/{container}/rootfs"), "Readonly": true },
                "Process": { "Args": ["/bin/serve", "--port=80"], "Env": ["A=1"], "Cwd": "/", "User": { "UID": 7 } },
                "Mounts": [{ "destination": "/etc/hosts", "source": shared, "type_": "bind", "options": ["rbind", "ro"] }],
                "Annotations": { "io.kubernetes.cri.sandbox-id": sandbox },
                "Linux": { "CgroupsPath": format!("/kubepods/{container}") },
            },
        } }),
        json!({ "endpoint": "StartContainer", "input": { "container_id": container } }),
        json!({ "endpoint": "ExecProcess", "input": {
            "container_id": container, "exec_id": process, "process": { "Args": ["/bin/probe"], "Cwd": "/" },
        } }),
        json!({ "endpoint": "WaitProcess", "input": { "container_id": container, "exec_id": process } }),
        json!({ "endpoint": "SignalProcess", "input": { "container_id": container, "exec_id": container, "signal": 15 } }),
        json!({ "endpoint": "GetOOMEvent" }),
        json!({ "endpoint": "RemoveContainer", "input": { "container_id": container } }),
        json!({ "endpoint": "DestroySandbox" }),
    ];
    let text: Vec<String> = lines.iter().map(Json::to_string).collect();
    Observed::parse_lines(&text.join("\n")).unwrap()
}

fn recorded() -> Vec<Observed> {
    pod(FIRST, SECOND, "probe-1", "0123456789abcdef")
}

/// Decides in order, each with its effect; the position of the first that is denied.
fn denied_at(text: &str, requests: &[Observed]) -> Option<usize> {
    let engine = engine(text);
    requests.iter().position(|request| {
        let input = Input::from_json(&request.input.to_string(), engine.limits()).unwrap();
        let decision = engine.decide(&RequestName::new(request.rule()).unwrap(), &input);
        let denied = !decision.is_allowed();
        decision.commit();
        denied
    })
}

fn proposed(identifiers: Identifiers) -> String {
    propose(&recorded(), identifiers, &Limits::default()).unwrap().text
}

#[test]
fn a_pod_that_starts_again_is_allowed_and_another_is_not() {
    let text = proposed(Identifiers::Bound);
    let again = pod(&"a".repeat(64), &"b".repeat(64), "probe-2", "fedcba9876543210");
    assert_eq!(denied_at(&text, &again), None);
    let exact = proposed(Identifiers::Exact);
    assert_eq!((denied_at(&exact, &recorded()), denied_at(&exact, &again)), (None, Some(0)));
    // Compiled, all of it.
    let policy = crate::Policy::load(&text, &Limits::default()).unwrap();
    let interpreted: Vec<_> =
        policy.rules().into_iter().filter(|rule| rule.path != crate::Path::Compiled).collect();
    assert!(interpreted.is_empty(), "{interpreted:?}");
}

#[test]
fn evil_host_takes_a_container_that_was_not_created() {
    let text = proposed(Identifiers::Bound);
    let requests = recorded();
    // Without the creation, everything that is asked of the container is denied.
    let engine = engine(&text);
    let sandbox = Input::from_json(&requests[1].input.to_string(), engine.limits()).unwrap();
    engine.decide(&RequestName::new("CreateSandboxRequest").unwrap(), &sandbox).commit();
    for request in requests.iter().filter(|request| request.input.get("container_id").is_some()) {
        assert_eq!(asks(&engine, request), request.rule() == "CreateContainerRequest", "{}", request.rule());
    }
    // A second container with the identifier of the first.
    let twice: Vec<Observed> =
        [1, 2, 2].into_iter().filter_map(|index| requests.get(index).cloned()).collect();
    assert_eq!(denied_at(&text, &twice), Some(2));
}

#[test]
fn a_proposal_says_nothing_about_nothing() {
    let error = propose(&[], Identifiers::Bound, &Limits::default()).unwrap_err();
    assert_eq!(error.code(), "POLICY_NOTHING_OBSERVED");
    let line = json!({ "endpoint": "StartContainer", "input": { "container_id": "$(container-id)" } });
    let request = Observed::parse(&line.to_string(), 1).unwrap();
    let error = propose(&[request], Identifiers::Bound, &Limits::default()).unwrap_err();
    assert_eq!(error.code(), "POLICY_INPUT_JSON");
    let made = propose(&recorded(), Identifiers::Bound, &Limits::default()).unwrap();
    assert_eq!((made.requests, made.distinct.get("CreateContainerRequest")), (10, Some(&1)));
    let twice: Vec<Observed> = recorded().into_iter().chain(recorded()).collect();
    let again = propose(&twice, Identifiers::Bound, &Limits::default()).unwrap();
    assert_eq!(again.text, made.text, "what was seen twice is there once");
}

/// Pointers to everything in a request.
fn places(value: &Json, at: &str, found: &mut Vec<String>) {
    let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
    found.push(at.to_owned());
    match value {
        Json::Object(members) => {
            members.iter().for_each(|(key, value)| places(value, &format!("{at}/{}", escaped(key)), found));
        }
        Json::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| places(item, &format!("{at}/{index}"), found));
        }
        _ => {}
    }
}

/// Makes another value of a value: no identifier, nothing that a form would take.
fn alter(value: &mut Json, how: u8) {
    *value = match (&*value, how % 3) {
        (Json::String(text), 0) => json!(format!("{text}/evil")),
        (Json::String(text), 1) => json!(format!("/evil/{text}")),
        (Json::Number(number), 0 | 1) => json!(number.as_i64().unwrap_or(0) + 1),
        (Json::Bool(bit), _) => json!(!bit),
        (Json::Array(items), 0 | 1) => {
            let mut items = items.clone();
            items.push(json!("evil"));
            json!(items)
        }
        (Json::Object(members), 0 | 1) => {
            let mut members = members.clone();
            members.insert("evil".to_owned(), json!(1));
            json!(members)
        }
        (Json::Null, _) => json!({}),
        _ => Json::Null,
    };
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// One place of one request of an allowed pod is altered: that request is denied, and those before it are not.
    #[test]
    fn evil_host_alters_what_was_recorded(which in 0_usize..10, place in any::<prop::sample::Index>(), how in any::<u8>(), exact in any::<bool>()) {
        let text = proposed(if exact { Identifiers::Exact } else { Identifiers::Bound });
        let mut requests = recorded();
        let mut pointers = Vec::new();
        places(&requests[which].input, "", &mut pointers);
        let pointer = place.get(&pointers).clone();
        alter(requests[which].input.pointer_mut(&pointer).unwrap(), how);
        // Something else than an object is no request at all.
        prop_assume!(requests[which].input.is_object());
        prop_assert_eq!(denied_at(&text, &requests[..=which]), Some(which), "{}", pointer);
    }
}
