//! What a policy is asked with: the JSON of a request, by method. It has every field that an empty request has, it is the same when it is read
//! again, and what the engine decides about the one it decides about the other.
//!
//! Input: one byte (which method), then the payload.

#![no_main]

use libfuzzer_sys::fuzz_target;
use policy_engine::authoring::complete;
use policy_engine::{FailingRequests, Input, Limits, PolicyEngine, RequestName};
use protocol::Endpoint;
use std::sync::LazyLock;

/// A policy that looks into requests of any kind.
static ENGINE: LazyLock<PolicyEngine> = LazyLock::new(|| {
    let engine = PolicyEngine::new(Limits { instructions: 100_000, ..Limits::default() }, FailingRequests::Denied);
    let rules = "package agent_policy\n\ndeep(x) if { some y in x; some z in y; z != null }\nlong if { some key, value in input; count(key) > 3; replace(value, \"a\", key) != value }\n";
    let each: String = Endpoint::ALL
        .into_iter()
        .filter_map(Endpoint::policy_rule)
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .map(|rule| format!("{rule} if {{ deep(input); not long }}\n{rule} if {{ some i; input.container_id == input[i]; i != \"container_id\" }}\n"))
        .collect();
    engine.set_policy(&format!("{rules}{each}")).expect("a policy");
    engine
});

fuzz_target!(|data: &[u8]| {
    let [which, payload @ ..] = data else { return };
    let endpoint = Endpoint::ALL[usize::from(*which) % Endpoint::ALL.len()];
    let Ok(message) = endpoint.decode(payload) else { return };
    let Ok(input) = Input::of_request(endpoint, &*message, &Limits::default()) else { return };
    let json = input.to_json().expect("a request is JSON");
    let empty = complete(endpoint, &serde_json::json!({})).expect("every request can be empty");
    let keys = |json: &serde_json::Value| -> Vec<String> { json.as_object().expect("an object").keys().cloned().collect() };
    assert_eq!(keys(&json), keys(&empty));
    assert_eq!(complete(endpoint, &json).expect("it has its own fields"), json);
    let again = Input::from_json(&json.to_string(), &Limits::default()).expect("it was within the limits");
    assert_eq!(again.to_json().expect("it is JSON"), json);
    // A share of them is decided, twice, and explained, which takes a thousand times as long: the input itself says whether.
    if !payload.iter().fold(*which, |sum, byte| sum.wrapping_add(*byte)).is_multiple_of(32) {
        return;
    }
    let Some(rule) = endpoint.policy_rule() else { return };
    let name = RequestName::new(rule).expect("a name");
    let (one, two) = (ENGINE.decide(&name, &input), ENGINE.decide(&name, &again));
    assert_eq!(one.denial(), two.denial());
    assert_eq!(one.explain(&input).is_empty(), one.is_allowed());
});
