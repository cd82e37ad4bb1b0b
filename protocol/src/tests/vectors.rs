//! Every message with every field set, against bytes that another implementation wrote (`tests/compat/kata_client.py`), both ways.
//!
//! A line of the file: the message, its bytes in order of numbers, and ours where these differ (a `oneof` is written last).

use protobuf::MessageDyn;
use protobuf::reflect::{MessageDescriptor, ReflectValueBox, RuntimeFieldType, RuntimeType};

use crate::generated::{agent, csi, health, innerkeep, oci, types};

const VECTORS: &str = include_str!("../../../tests/vectors/protocol/messages.txt");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// The value of a field: made from its name and number alone, and from its place in a list.
fn value(kind: &RuntimeType, name: &str, number: u32, place: u32) -> ReflectValueBox {
    let n = u64::from(number + 100 * place);
    match kind {
        RuntimeType::Bool => ReflectValueBox::Bool(true),
        RuntimeType::I32 => ReflectValueBox::I32(-i32::try_from(n).unwrap()),
        RuntimeType::I64 => ReflectValueBox::I64(-i64::try_from(n).unwrap()),
        RuntimeType::U32 => ReflectValueBox::U32(u32::MAX - u32::try_from(n).unwrap()),
        RuntimeType::U64 => ReflectValueBox::U64(u64::MAX - n),
        RuntimeType::String => ReflectValueBox::String(format!("{name} é {place}")),
        RuntimeType::VecU8 => ReflectValueBox::Bytes([&[0, 0xff], name.as_bytes()].concat()),
        RuntimeType::Enum(kind) => {
            let last = kind.values().map(|value| value.value()).max().unwrap();
            ReflectValueBox::Enum(kind.clone(), last)
        }
        RuntimeType::Message(kind) => ReflectValueBox::Message(full(kind)),
        RuntimeType::F32 | RuntimeType::F64 => panic!("{name}: not on this wire"),
    }
}

fn full(kind: &MessageDescriptor) -> Box<dyn MessageDyn> {
    let mut message = kind.new_instance();
    for field in kind.fields() {
        let (name, number) = (field.name().to_owned(), u32::try_from(field.number()).unwrap());
        match field.runtime_field_type() {
            RuntimeFieldType::Singular(kind) => {
                field.set_singular_field(&mut *message, value(&kind, &name, number, 0));
            }
            RuntimeFieldType::Repeated(kind) => {
                let mut list = field.mut_repeated(&mut *message);
                for place in 0..2 {
                    list.push(value(&kind, &name, number, place));
                }
            }
            RuntimeFieldType::Map(key, kind) => {
                field
                    .mut_map(&mut *message)
                    .insert(value(&key, "key", number, 0), value(&kind, &name, number, 0));
            }
        }
    }
    message
}

#[test]
fn every_message_is_as_another_implementation_writes_and_reads_it() {
    let empty = protobuf::well_known_types::empty::file_descriptor();
    let files = [
        agent::file_descriptor(),
        csi::file_descriptor(),
        health::file_descriptor(),
        innerkeep::file_descriptor(),
        oci::file_descriptor(),
        types::file_descriptor(),
        empty,
    ];
    let mut ours: Vec<MessageDescriptor> = files.iter().flat_map(|file| file.messages()).collect();
    ours.sort_by_key(|kind| kind.full_name().to_owned());
    let mut lines = VECTORS.lines();
    for kind in ours {
        let name = kind.full_name().to_owned();
        let mut parts = lines.next().expect(&name).split(' ');
        assert_eq!(parts.next(), Some(name.as_str()));
        let theirs = parts.next().unwrap();
        let message = full(&kind);
        let written = hex(&message.write_to_bytes_dyn().unwrap());
        assert_eq!(written, parts.next().unwrap_or(theirs), "{name}");
        let read = kind.parse_from_bytes(&bytes(theirs)).unwrap();
        assert!(kind.eq(&*read, &*message), "{name}");
        assert!(read.special_fields_dyn().unknown_fields().iter().next().is_none(), "{name}");
    }
    assert_eq!(lines.next(), None);
}
