//! Decisions and state, held against the reference over generated requests: the bytecode of a text without `print`
//! against the tree interpreter on the text as it is.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[path = "support/reference.rs"]
mod reference;
#[path = "support/mod.rs"]
mod support;

use policy_engine::{Denial, FailingRequests, Input, Limits, Path, Policy, PolicyEngine, RequestName};
use reference::{Outcome, Reference};
use std::collections::BTreeMap;
use support::Request;

struct Pair {
    engine: PolicyEngine,
    reference: Reference,
    seen: BTreeMap<(String, &'static str), usize>,
}

impl Pair {
    fn new(text: &str) -> Self {
        let engine = PolicyEngine::new(Limits::default(), FailingRequests::Denied);
        engine.set_policy(text).unwrap();
        Self { engine, reference: Reference::new(text), seen: BTreeMap::new() }
    }

    fn compare(&mut self, request: &Request) {
        let json = request.input.to_string();
        let theirs = self.reference.decide(request.name, &json);
        let decision = self.engine.decide(
            &RequestName::new(request.name).unwrap(),
            &Input::from_json(&json, self.engine.limits()).unwrap(),
        );
        let ours = match decision.denial() {
            None => Outcome::Allowed,
            Some(Denial::Rule) => Outcome::Denied,
            Some(Denial::Undefined) => Outcome::Undefined,
            Some(other) => Outcome::Error(other.to_string()),
        };
        let kind = match (&ours, &theirs) {
            (Outcome::Allowed, Outcome::Allowed) => "allowed",
            (Outcome::Denied, Outcome::Denied) => "denied",
            (Outcome::Undefined, Outcome::Undefined) => "undefined",
            (Outcome::Error(_), Outcome::Error(_)) => "error",
            _ => panic!("{}: ours {ours:?}, theirs {theirs:?}: {json}", request.name),
        };
        decision.commit();
        *self.seen.entry((request.name.to_owned(), kind)).or_default() += 1;
        assert_eq!(self.engine.state().unwrap(), self.reference.state);
    }

    fn seen(&self, name: &str, kind: &'static str) -> usize {
        self.seen.get(&(name.to_owned(), kind)).copied().unwrap_or_default()
    }
}

#[test]
fn the_generated_policy_is_of_the_size_and_kind() {
    let text = support::policy(support::CONTAINERS);
    assert!((95_000..103_000).contains(&text.len()), "{} bytes", text.len());
    let policy = Policy::load(&text, &Limits::default()).unwrap();
    assert!(policy.prints_removed() > 130, "{}", policy.prints_removed());
    for name in ["CreateContainerRequest", "ExecProcessRequest", "CopyFileRequest", "ReadStreamRequest"] {
        assert_eq!(policy.path(&RequestName::new(name).unwrap()), Path::Compiled, "{name}");
    }
    let writes = |name: &str| policy.state_use(&RequestName::new(name).unwrap()).writes;
    assert!(writes("CreateContainerRequest") && writes("RemoveContainerRequest"));
    assert!(!writes("ExecProcessRequest") && !writes("CopyFileRequest"));
    let reads = |name: &str| policy.state_use(&RequestName::new(name).unwrap()).reads;
    assert!(reads("CreateContainerRequest") && reads("ExecProcessRequest") && !reads("CopyFileRequest"));
}

#[test]
fn what_the_policy_allows_is_allowed_by_both() {
    let mut pair = Pair::new(&support::policy(support::CONTAINERS));
    let mut random = support::Random::new(1);
    for index in 0..support::CONTAINERS {
        let id = format!("{index:064x}");
        pair.compare(&support::exec(index, &id));
        pair.compare(&support::create(index, &id, &mut random));
        pair.compare(&support::exec(index, &id));
    }
    assert_eq!(pair.seen("CreateContainerRequest", "allowed"), support::CONTAINERS);
    assert_eq!(pair.seen("ExecProcessRequest", "allowed"), support::CONTAINERS);
    assert_eq!(pair.seen("ExecProcessRequest", "denied"), support::CONTAINERS);
}

/// Pointers to all leaves of a request.
fn leaves(value: &serde_json::Value, at: &str, found: &mut Vec<String>) {
    let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        serde_json::Value::Object(fields) if !fields.is_empty() => {
            fields.iter().for_each(|(key, value)| leaves(value, &format!("{at}/{}", escaped(key)), found));
        }
        serde_json::Value::Array(items) if !items.is_empty() => {
            items
                .iter()
                .enumerate()
                .for_each(|(index, value)| leaves(value, &format!("{at}/{index}"), found));
        }
        _ => found.push(at.to_owned()),
    }
}

/// Alters one leaf after the other of requests that are allowed.
#[test]
fn evil_runtime_alters_one_field() {
    let mut pair = Pair::new(&support::policy(support::CONTAINERS));
    let mut random = support::Random::new(9);
    let id = format!("{:064x}", 1);
    let create = support::create(1, &id, &mut random);
    pair.compare(&create);
    for (request, stride) in
        [(create, 5), (support::exec(1, &id), 1), (support::copy_file(&id, &mut random), 1)]
    {
        let mut pointers = Vec::new();
        leaves(&request.input, "", &mut pointers);
        for pointer in pointers.iter().skip(stride / 2).step_by(stride) {
            let mut altered = request.clone();
            support::mutate(altered.input.pointer_mut(pointer).unwrap(), &mut random);
            pair.compare(&altered);
        }
    }
    assert!(
        pair.seen("ExecProcessRequest", "denied") > 10 && pair.seen("CreateContainerRequest", "denied") > 20
    );
}

/// The sequence of a seed, with every kind of answer in it.
fn sequence(seed: u64, number: usize, creates_in: usize) {
    let number = if std::env::var_os("INNERKEEP_TEST_LONG").is_some() { number * 10 } else { number };
    let mut pair = Pair::new(&support::policy(support::CONTAINERS));
    for request in support::requests(seed, number, creates_in) {
        pair.compare(&request);
    }
    for (name, kind) in [
        ("CreateContainerRequest", "allowed"),
        ("CreateContainerRequest", "denied"),
        ("ExecProcessRequest", "allowed"),
        ("ExecProcessRequest", "denied"),
        ("CopyFileRequest", "allowed"),
        ("CopyFileRequest", "denied"),
        ("RemoveContainerRequest", "allowed"),
        ("RemoveContainerRequest", "error"),
        ("AddSwapPathRequest", "undefined"),
        ("UpdateInterfaceRequest", "allowed"),
        ("UpdateRoutesRequest", "denied"),
    ] {
        assert!(pair.seen(name, kind) > 0, "no {name} was {kind}: {:?}", pair.seen);
    }
}

#[test]
fn decisions_and_state_equal_the_reference_first() {
    sequence(0x1001, 3_400, 40);
}

#[test]
fn decisions_and_state_equal_the_reference_second() {
    sequence(0x2002, 3_400, 40);
}

#[test]
fn decisions_and_state_equal_the_reference_third() {
    sequence(0x3003, 3_400, 40);
}
