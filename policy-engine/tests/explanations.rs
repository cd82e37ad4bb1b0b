//! Explanations on a policy of the generated kind: one field of an allowed request is altered, the explanation names
//! that field, and with the field mended the reason is gone.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, dead_code, reason = "tests, and what they share")]

#[path = "support/mod.rs"]
mod support;

use policy_engine::{FailingRequests, Input, Limits, PolicyEngine, RequestName};
use serde_json::{Value, json};
use support::Request;

fn engine() -> PolicyEngine {
    let engine = PolicyEngine::new(Limits::default(), FailingRequests::Denied);
    engine.set_policy(&support::policy(support::CONTAINERS)).unwrap();
    engine
}

/// The fields named, the way that came furthest first; none if it is allowed.
fn fields(engine: &PolicyEngine, request: &Request) -> Vec<Vec<String>> {
    let input = Input::from_json(&request.input.to_string(), engine.limits()).unwrap();
    let decision = engine.decide(&RequestName::new(request.name).unwrap(), &input);
    let explanation = decision.explain(&input);
    assert_eq!(explanation.is_empty(), decision.is_allowed());
    let text = explanation.for_host("0123456789abcdef");
    assert!(text.len() <= policy_engine::MAX_HOST_BYTES);
    explanation.reasons().iter().map(|reason| reason.fields.clone()).collect()
}

/// Alters `pointer` and expects `field` to be named; before and after the request is allowed.
fn names(engine: &PolicyEngine, request: &Request, pointer: &str, value: Value, field: &str) {
    let mut altered = request.clone();
    *altered.input.pointer_mut(pointer).unwrap() = value;
    let named = fields(engine, &altered);
    assert!(
        named.first().is_some_and(|fields| fields.iter().any(|named| named == field)),
        "{pointer}: expected {field}, found {named:?}"
    );
    assert!(fields(engine, request).is_empty(), "the mended request is allowed");
}

#[test]
fn the_altered_field_of_a_container_is_named() {
    let engine = engine();
    let last = support::CONTAINERS - 1;
    let request = support::create(last, &format!("{last:064x}"), &mut support::Random::new(5));
    for (pointer, value, field) in [
        ("/OCI/Process/Args/1", json!("--worker=99"), "OCI.Process.Args[1]"),
        ("/OCI/Process/Env/20", json!("LD_PRELOAD=/evil.so"), "OCI.Process.Env[20]"),
        ("/OCI/Process/Cwd", json!("/etc"), "OCI.Process.Cwd"),
        ("/OCI/Process/Terminal", json!(true), "OCI.Process.Terminal"),
        ("/OCI/Process/User/UID", json!(0), "OCI.Process.User.UID"),
        (
            "/OCI/Process/Capabilities/Effective",
            json!(["CAP_SYS_ADMIN"]),
            "OCI.Process.Capabilities.Effective",
        ),
        ("/OCI/Root/Path", json!("/run/kata-containers/other/rootfs"), "OCI.Root.Path"),
        ("/OCI/Root/Readonly", json!(false), "OCI.Root.Readonly"),
        ("/OCI/Mounts/7/source", json!("/run/evil"), "OCI.Mounts[7].source"),
        ("/OCI/Version", json!("9"), "OCI.Version"),
        (
            "/OCI/Annotations/io.kubernetes.cri.container-name",
            json!("other"),
            "OCI.Annotations[\"io.kubernetes.cri.container-name\"]",
        ),
        ("/OCI/Linux/Seccomp", json!({}), "OCI.Linux.Seccomp"),
        ("/sandbox_pidns", json!(true), "sandbox_pidns"),
        ("/devices", json!([{ "container_path": "/dev/mem", "type_": "char" }]), "devices[0].container_path"),
        ("/storages/0/options", json!(["rw"]), "storages[0].options"),
    ] {
        names(&engine, &request, pointer, value, field);
    }
}

#[test]
fn the_altered_field_of_a_small_request_is_named() {
    let engine = engine();
    let mut random = support::Random::new(6);
    let copy = support::copy_file("a", &mut random);
    names(&engine, &copy, "/path", json!("/etc/shadow"), "path");
    names(&engine, &copy, "/file_mode", json!(0o104_755), "file_mode");
    let exec = support::exec(1, &format!("{:064x}", 1));
    let create = support::create(1, &format!("{:064x}", 1), &mut random);
    let input = Input::from_json(&create.input.to_string(), engine.limits()).unwrap();
    engine.decide(&RequestName::new(create.name).unwrap(), &input).commit();
    names(&engine, &exec, "/process/NoNewPrivileges", json!(false), "process.NoNewPrivileges");
    names(&engine, &exec, "/process/User/GID", json!(0), "process.User.GID");
}
