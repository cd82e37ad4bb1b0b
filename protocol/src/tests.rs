//! Descriptors of our `.proto` files against tables of the wire: names, numbers, types, presence, packing, both ways.

mod vectors;

use std::collections::BTreeSet;

use protobuf::descriptor::field_descriptor_proto::{Label, Type};
use protobuf::descriptor::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto};

use crate::generated::{
    agent, api, artifact, attestation_agent, csi, health, innerkeep, keyprovider, oci, types,
};

/// The lines of a table for a file.
fn lines(file: &FileDescriptorProto) -> BTreeSet<String> {
    let mut lines = BTreeSet::from([format!("package {}", file.package())]);
    for service in &file.service {
        for method in &service.method {
            assert!(!method.client_streaming() && !method.server_streaming(), "{}", method.name());
            let types = [method.input_type(), method.output_type()].map(full);
            lines.insert(format!("rpc {}.{} {}", service.name(), method.name(), types.join(" ")));
        }
    }
    for message in &file.message_type {
        lines.insert(format!("message {}", message.name()));
        lines.extend(message.field.iter().map(|field| line(message, field)));
        let within = format!("{}.", message.name());
        lines.extend(message.enum_type.iter().flat_map(|kind| values(&within, kind)));
        let entries = message.nested_type.iter().all(|nested| nested.options.map_entry());
        assert!(entries, "{}: only entries of maps are nested", message.name());
    }
    lines.extend(file.enum_type.iter().flat_map(|kind| values("", kind)));
    lines
}

fn values(within: &str, kind: &EnumDescriptorProto) -> Vec<String> {
    let line = |number, name| format!("value {within}{} {number} {name}", kind.name());
    kind.value.iter().map(|value| line(value.number(), value.name())).collect()
}

fn line(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let entry = message.nested_type.iter().find(|nested| {
        nested.options.map_entry()
            && field.type_name().ends_with(&format!(".{}.{}", message.name(), nested.name()))
    });
    let (kind, label) = match entry {
        Some(entry) => {
            let [key, value] = entry.field.as_slice() else { panic!("{}", entry.name()) };
            (format!("map<{},{}>", kind(key), kind(value)), "map".to_owned())
        }
        None => (kind(field), label(message, field)),
    };
    format!("field {} {} {} {kind} {label}", message.name(), field.number(), field.name())
}

fn label(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let label = match (field.label(), field.proto3_optional(), field.oneof_index) {
        (Label::LABEL_REPEATED, ..) => "repeated",
        (_, true, _) => "optional",
        (_, false, Some(index)) => {
            let oneof = &message.oneof_decl[usize::try_from(index).unwrap()];
            return format!("oneof({})", oneof.name());
        }
        _ => "singular",
    };
    let is_number = !matches!(field.type_(), Type::TYPE_STRING | Type::TYPE_BYTES | Type::TYPE_MESSAGE);
    let is_packed = label == "repeated" && is_number && field.options.packed.unwrap_or(true);
    format!("{label}{}", if is_packed { " packed" } else { "" })
}

fn kind(field: &FieldDescriptorProto) -> String {
    match field.type_() {
        Type::TYPE_BOOL => "bool",
        Type::TYPE_BYTES => "bytes",
        Type::TYPE_ENUM | Type::TYPE_MESSAGE => full(field.type_name()),
        Type::TYPE_INT32 => "int32",
        Type::TYPE_INT64 => "int64",
        Type::TYPE_STRING => "string",
        Type::TYPE_UINT32 => "uint32",
        Type::TYPE_UINT64 => "uint64",
        other => panic!("{other:?} is not in the table's language"),
    }
    .to_owned()
}

fn full(name: &str) -> &str {
    name.strip_prefix('.').unwrap_or(name)
}

fn compare(table: &str, file: &FileDescriptorProto) {
    let table: BTreeSet<String> = table.lines().map(str::to_owned).collect();
    let ours = lines(file);
    let missing: Vec<_> = table.difference(&ours).collect();
    let extra: Vec<_> = ours.difference(&table).collect();
    assert!(missing.is_empty() && extra.is_empty(), "missing {missing:?}, more than the table {extra:?}");
}

#[test]
fn the_guest_agent_is_as_the_wire_table_says() {
    compare(include_str!("tests/agent.txt"), agent::file_descriptor().proto());
    compare(include_str!("tests/csi.txt"), csi::file_descriptor().proto());
    compare(include_str!("tests/oci.txt"), oci::file_descriptor().proto());
    compare(include_str!("tests/types.txt"), types::file_descriptor().proto());
}

#[test]
fn the_attestation_agent_is_as_the_wire_table_says() {
    compare(include_str!("tests/attestation_agent.txt"), attestation_agent::file_descriptor().proto());
}

#[test]
fn health_is_as_the_wire_table_says() {
    compare(include_str!("tests/health.txt"), health::file_descriptor().proto());
}

#[test]
fn the_audit_is_as_the_wire_table_says() {
    compare(include_str!("tests/innerkeep.txt"), innerkeep::file_descriptor().proto());
}

#[test]
fn the_data_hub_is_as_the_wire_table_says() {
    compare(include_str!("tests/api.txt"), api::file_descriptor().proto());
    compare(include_str!("tests/keyprovider.txt"), keyprovider::file_descriptor().proto());
}

#[test]
fn artifacts_are_as_the_wire_table_says() {
    compare(include_str!("tests/artifact.txt"), artifact::file_descriptor().proto());
}
