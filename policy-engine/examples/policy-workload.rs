//! The generated policy as a workload for whoever measures a whole agent: its text, requests as they go over the wire, and the
//! reference's decisions on the same requests, on demand. `cargo xtask bench agent` starts it.
//!
//! ```text
//!  stdout, first line: {"policy": TEXT, "requests": [{"name", "method", "payload": HEX}]}
//!  then for each line `NAME CALLS` of stdin: {"seconds": per call, "allowed": bool}
//! ```
//! The reference is regorus 0.9.1 as upstream's agent configures it; it gets the request as JSON text and changes no state.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    dead_code,
    reason = "a program for developers"
)]

#[path = "../tests/support/reference.rs"]
mod reference;
#[path = "../tests/support/mod.rs"]
mod support;

use protobuf::MessageDyn;
use protobuf::reflect::{FieldDescriptor, MessageDescriptor, ReflectValueBox, RuntimeFieldType, RuntimeType};
use protocol::{MessageFull, agent};
use reference::Reference;
use serde_json::{Value, json};
use std::io::{BufRead, Write};
use std::time::Instant;
use support::Request;

/// The size that promises are about.
const POLICY_BYTES: usize = 80_000;
const CONTAINERS: usize = 2;

fn main() {
    let text = policy();
    let requests = requests();
    let mut reference = Reference::new(&text);
    let wire = requests.iter().map(|(name, request)| {
        let (method, payload) = wire(request);
        json!({ "name": name, "method": method, "payload": hex::encode(payload) })
    });
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", json!({ "policy": text, "requests": wire.collect::<Vec<_>>() })).unwrap();
    out.flush().unwrap();
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let (wanted, calls) = line.split_once(' ').unwrap();
        let calls: u32 = calls.parse().unwrap();
        let (_, request) = requests.iter().find(|(name, _)| *name == wanted).unwrap();
        let input = request.input.to_string();
        let start = Instant::now();
        for _ in 0..calls {
            reference.value(request.name, &input).unwrap();
        }
        let seconds = start.elapsed().as_secs_f64() / f64::from(calls);
        let value = reference.value(request.name, &input).unwrap();
        let allowed = match value {
            Some(regorus091::Value::Bool(allowed)) => allowed,
            Some(value) => value.as_object().is_ok_and(|found| {
                found.get(&regorus091::Value::from("allowed")) == Some(&regorus091::Value::from(true))
            }),
            None => false,
        };
        writeln!(out, "{}", json!({ "seconds": seconds, "allowed": allowed })).unwrap();
        out.flush().unwrap();
    }
}

/// A text for two containers, as long as promises say: the rest is digests of images, as in generated ones.
fn policy() -> String {
    let mut data = support::data(CONTAINERS);
    let mut index = 0_u32;
    loop {
        let text =
            format!("{}\npolicy_data := {}\n", support::RULES, serde_json::to_string_pretty(&data).unwrap());
        if text.len() >= POLICY_BYTES {
            return text;
        }
        let digests = data["cluster_config"]["image_digests"].as_array_mut().unwrap();
        for _ in 0..(POLICY_BYTES - text.len()).div_ceil(120).max(1) {
            digests.push(json!(format!("registry.example/serving/more@sha256:{index:064x}")));
            index += 1;
        }
    }
}

fn requests() -> Vec<(&'static str, Request)> {
    let mut random = support::Random::new(7);
    let last = CONTAINERS - 1;
    let id = format!("{last:064x}");
    // The pause container: what else is allowed waits in its handler for devices.
    let create = support::create(0, &format!("{:064x}", 0xa), &mut random);
    let mut other = support::create(last, &id, &mut random);
    let environment = other.input["OCI"]["Process"]["Env"].as_array_mut().unwrap();
    *environment.last_mut().unwrap() = json!("LD_PRELOAD=/tmp/evil.so");
    let mut denied = support::exec(last, &id);
    denied.input["process"]["Args"] = json!(["sh", "-c", "cat /srv/model/weights"]);
    // Without a container in the policy's state a probe is not allowed: one that every container may run.
    let mut allowed = denied.clone();
    allowed.input["process"]["Args"] = json!(["/bin/check", "--now"]);
    vec![
        ("exec-denied", denied),
        ("exec-allowed", allowed),
        ("create-allowed", create),
        ("create-denied", other),
    ]
}

/// The method, and the message's bytes.
fn wire(request: &Request) -> (&'static str, Vec<u8>) {
    let (method, descriptor) = match request.name {
        "ExecProcessRequest" => ("ExecProcess", agent::ExecProcessRequest::descriptor()),
        "CreateContainerRequest" => ("CreateContainer", agent::CreateContainerRequest::descriptor()),
        other => panic!("{other} is not sent"),
    };
    (method, message(&descriptor, &request.input).write_to_bytes_dyn().unwrap())
}

/// What a policy's view of a message was made of.
fn message(descriptor: &MessageDescriptor, value: &Value) -> Box<dyn MessageDyn> {
    let mut message = descriptor.new_instance();
    for (key, value) in value.as_object().unwrap() {
        if value.is_null() {
            continue;
        }
        let name = if key == "type_" { "type" } else { key };
        let Some(field) = descriptor.field_by_name(name) else {
            // What only other versions of the wire have is not sent, and was empty.
            assert!(value.as_array().is_some_and(Vec::is_empty), "{} has no {name}", descriptor.name());
            continue;
        };
        set(&mut *message, &field, value);
    }
    message
}

fn set(message: &mut dyn MessageDyn, field: &FieldDescriptor, value: &Value) {
    match field.runtime_field_type() {
        RuntimeFieldType::Singular(kind) => field.set_singular_field(message, scalar(&kind, value)),
        RuntimeFieldType::Repeated(kind) => {
            let mut list = field.mut_repeated(message);
            for value in value.as_array().unwrap() {
                list.push(scalar(&kind, value));
            }
        }
        RuntimeFieldType::Map(key, kind) => {
            let mut map = field.mut_map(message);
            for (name, value) in value.as_object().unwrap() {
                map.insert(scalar(&key, &json!(name)), scalar(&kind, value));
            }
        }
    }
}

fn scalar(kind: &RuntimeType, value: &Value) -> ReflectValueBox {
    match kind {
        RuntimeType::I32 => ReflectValueBox::I32(i32::try_from(value.as_i64().unwrap()).unwrap()),
        RuntimeType::I64 => ReflectValueBox::I64(value.as_i64().unwrap()),
        RuntimeType::U32 => ReflectValueBox::U32(u32::try_from(value.as_u64().unwrap()).unwrap()),
        RuntimeType::U64 => ReflectValueBox::U64(value.as_u64().unwrap()),
        RuntimeType::Bool => ReflectValueBox::Bool(value.as_bool().unwrap()),
        RuntimeType::String => ReflectValueBox::String(value.as_str().unwrap().to_owned()),
        RuntimeType::Message(descriptor) => ReflectValueBox::Message(message(descriptor, value)),
        other => panic!("{other} is in no request"),
    }
}
