//! Services against a table of the wire that was made apart from the `.proto` files: names, numbers, types, both ways.

use std::collections::BTreeSet;

use protobuf::descriptor::field_descriptor_proto::{Label, Type};
use protobuf::descriptor::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto};

use crate::generated::{attestation_agent, health};

/// The lines of a table for a file.
fn lines(file: &FileDescriptorProto) -> BTreeSet<String> {
    let mut lines = BTreeSet::from([format!("package {}", file.package())]);
    for service in &file.service {
        for method in &service.method {
            assert!(!method.client_streaming() && !method.server_streaming(), "{}", method.name());
            let types = [method.input_type(), method.output_type()].map(short);
            lines.insert(format!("rpc {}.{} {}", service.name(), method.name(), types.join(" ")));
        }
    }
    for message in &file.message_type {
        lines.insert(format!("message {}", message.name()));
        lines.extend(message.field.iter().map(|field| line(message, field)));
        let within = format!("{}.", message.name());
        lines.extend(message.enum_type.iter().flat_map(|kind| values(&within, kind)));
    }
    lines.extend(file.enum_type.iter().flat_map(|kind| values("", kind)));
    lines
}

fn values(within: &str, kind: &EnumDescriptorProto) -> Vec<String> {
    let line = |number, name| format!("value {within}{} {number} {name}", kind.name());
    kind.value.iter().map(|value| line(value.number(), value.name())).collect()
}

fn line(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let kind = match field.type_() {
        Type::TYPE_BYTES => "bytes",
        Type::TYPE_ENUM | Type::TYPE_MESSAGE => short(field.type_name()),
        Type::TYPE_STRING => "string",
        Type::TYPE_UINT64 => "uint64",
        other => panic!("{other:?} is not in the table's language"),
    };
    let label = match (field.label(), field.proto3_optional()) {
        (Label::LABEL_REPEATED, _) => "repeated",
        (_, true) => "optional",
        _ => "singular",
    };
    format!("field {} {} {} {kind} {label}", message.name(), field.number(), field.name())
}

fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

fn compare(table: &str, file: &FileDescriptorProto) {
    let table: BTreeSet<String> = table.lines().map(str::to_owned).collect();
    let ours = lines(file);
    let missing: Vec<_> = table.difference(&ours).collect();
    let extra: Vec<_> = ours.difference(&table).collect();
    assert!(missing.is_empty() && extra.is_empty(), "missing {missing:?}, more than the table {extra:?}");
}

#[test]
fn the_attestation_agent_is_as_the_wire_table_says() {
    compare(include_str!("tests/attestation_agent.txt"), attestation_agent::file_descriptor().proto());
}

#[test]
fn health_is_as_the_wire_table_says() {
    compare(include_str!("tests/health.txt"), health::file_descriptor().proto());
}
