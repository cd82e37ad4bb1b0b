//! Figures of decisions on a generated policy: this engine beside the reference, interleaved, in one run.
//!
//! ```sh
//! cargo run --profile ci --workspace --example policy-figures
//! ```
//!
//! The reference is regorus 0.9.1 as upstream's agent configures it. Both get the request as JSON text; the state after a
//! permission is applied by neither. Times are medians of rounds, in microseconds, with the smallest and largest.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, dead_code, reason = "a program for developers")]

#[path = "../tests/support/reference.rs"]
mod reference;
#[path = "../tests/support/mod.rs"]
mod support;

use policy_engine::{FailingRequests, Input, Limits, PolicyEngine, RequestName};
use reference::Reference;
use std::time::{Duration, Instant};
use support::Request;

const ROUNDS: usize = 11;

fn main() {
    let text = support::policy(support::CONTAINERS);
    let engine = PolicyEngine::new(Limits::default(), FailingRequests::Denied);
    let start = Instant::now();
    engine.set_policy(&text).unwrap();
    let load = start.elapsed();
    let mut reference = Reference::new(&text);
    println!(
        "policy of {} bytes, {} containers; load {:.1} ms",
        text.len(),
        support::CONTAINERS,
        micros(load) / 1000.0
    );
    println!(
        "{:<44} {:>26} {:>30} {:>7}",
        "request", "ours µs [min..max]", "reference µs [min..max]", "ratio"
    );

    let mut random = support::Random::new(7);
    let last = support::CONTAINERS - 1;
    let allowed = support::create(last, &format!("{last:064x}"), &mut random);
    let mut denied = allowed.clone();
    let environment = denied.input["OCI"]["Process"]["Env"].as_array_mut().unwrap();
    *environment.last_mut().unwrap() = serde_json::json!("LD_PRELOAD=/tmp/evil.so");
    let mut terminal = support::exec(last, "nobody");
    terminal.input["process"]["Terminal"] = serde_json::json!(true);
    let copy = support::copy_file("a", &mut random);
    let constant = Request {
        name: "ReadStreamRequest",
        input: serde_json::json!({ "container_id": "a", "exec_id": "", "len": 1 }),
    };
    let default = Request {
        name: "WaitProcessRequest",
        input: serde_json::json!({ "container_id": "a", "exec_id": "" }),
    };
    for (what, request, ours, theirs) in [
        ("CreateContainer allowed (last of 5)", &allowed, 15, 2),
        ("CreateContainer denied (last variable)", &denied, 15, 2),
        ("ExecProcess denied", &terminal, 2000, 100),
        ("CopyFile allowed", &copy, 2000, 100),
        ("ReadStream denied (constant)", &constant, 5000, 200),
        ("WaitProcess allowed (default)", &default, 5000, 200),
    ] {
        let json = request.input.to_string();
        let name = RequestName::new(request.name).unwrap();
        let mut our_times = Vec::new();
        let mut their_times = Vec::new();
        for _ in 0..ROUNDS {
            our_times.push(per_call(ours, || {
                let input = Input::from_json(&json, engine.limits()).unwrap();
                engine.decide(&name, &input).undo();
            }));
            their_times.push(per_call(theirs, || {
                reference.value(request.name, &json).unwrap();
            }));
        }
        our_times.sort();
        their_times.sort();
        let (ours, theirs) = (our_times[ROUNDS / 2], their_times[ROUNDS / 2]);
        println!(
            "{what:<44} {:>26} {:>30} {:>6.1}x",
            spread(&our_times),
            spread(&their_times),
            micros(theirs) / micros(ours),
        );
    }
}

fn per_call(calls: u32, mut call: impl FnMut()) -> Duration {
    let start = Instant::now();
    for _ in 0..calls {
        call();
    }
    start.elapsed() / calls
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn spread(sorted: &[Duration]) -> String {
    format!(
        "{:.1} [{:.1}..{:.1}]",
        micros(sorted[sorted.len() / 2]),
        micros(sorted[0]),
        micros(sorted[sorted.len() - 1])
    )
}
