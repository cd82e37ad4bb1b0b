use std::collections::BTreeSet;

use protobuf::reflect::{MessageDescriptor, RuntimeFieldType, RuntimeType};

use super::*;
use crate::endpoint::Endpoint;

fn field(number: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = value.len();
    while length > 0x7f {
        out.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap());
    out.extend(value);
    out
}

fn create(payload: &[u8]) -> Result<(), LimitError> {
    shapes::CREATE_CONTAINER_REQUEST.check(payload)
}

/// Each list, message and map of a message has its member in the shape, of its kind; members are in no second place.
fn compare(message: &MessageDescriptor, shape: &Shape, seen: &mut BTreeSet<String>) {
    assert!(shape.0.len() <= MOST_MEMBERS, "{}", message.full_name());
    seen.insert(message.full_name().to_owned());
    let mut expected = BTreeSet::new();
    for field in message.fields() {
        let number = u32::try_from(field.number()).unwrap();
        let at = format!("{}.{}", message.full_name(), field.name());
        let found = shape.0.iter().find(|member| member.number == number);
        if let Some(member) = found {
            assert_eq!(member.name, field.name(), "{at}");
            expected.insert(number);
        }
        let (element, single) = match field.runtime_field_type() {
            RuntimeFieldType::Singular(element) => (element, true),
            RuntimeFieldType::Repeated(element) => (element, false),
            RuntimeFieldType::Map(_, value) => {
                assert!(!matches!(value, RuntimeType::Message(_)), "{at}");
                assert!(matches!(found.expect(&at).kind, Kind::Bytes(_)), "{at}");
                continue;
            }
        };
        match (element, found) {
            (RuntimeType::Message(inner), Some(Member { kind: Kind::Message(shape), most, .. })) => {
                assert_eq!(*most == 1, single, "{at}");
                compare(&inner, shape, seen);
            }
            (RuntimeType::Message(_), _) => panic!("{at} is not in its shape"),
            (RuntimeType::String | RuntimeType::VecU8, Some(member)) => {
                assert!(matches!(member.kind, Kind::Bytes(_)), "{at}");
            }
            (_, Some(member)) => assert!(matches!(member.kind, Kind::Numbers) && !single, "{at}"),
            (_, None) => assert!(single, "{at} is a list without a limit"),
        }
    }
    let members: BTreeSet<u32> = shape.0.iter().map(|member| member.number).collect();
    assert_eq!(members, expected, "{}", message.full_name());
    assert_eq!(members.len(), shape.0.len(), "{}", message.full_name());
}

#[test]
fn every_list_of_every_request_has_a_limit() {
    let mut seen = BTreeSet::new();
    for endpoint in Endpoint::ALL {
        compare(&endpoint.request(), endpoint.shape(), &mut seen);
    }
    assert!(seen.contains("grpc.LinuxSyscall") && seen.contains("types.IPAddress"), "{seen:?}");
}

#[test]
fn evil_host_many_empty_members() {
    // Members that nobody knows: each would be an entry of a table.
    let mut payload = Vec::new();
    for _ in 0..MAXIMUM_MEMBERS {
        payload.extend([0x78, 0]);
    }
    assert_eq!(create(&payload), Ok(()));
    payload.extend([0x78, 0]);
    assert_eq!(create(&payload), Err(LimitError::Members));
    // And within a member.
    assert_eq!(create(&field(6, &field(8, &payload))), Err(LimitError::Members));
    assert_eq!(Endpoint::CreateContainer.decode(&payload).err(), Some(LimitError::Members));
}

#[test]
fn evil_host_more_elements_than_a_list_takes() {
    let mounts = |count| field(6, &field(5, b"").repeat(count));
    assert_eq!(create(&mounts(1024)), Ok(()));
    let refused = Err(LimitError::Count { member: "Mounts", most: 1024 });
    assert_eq!(create(&mounts(1025)), refused);
    // A single message in two pieces would be merged: each with its own lists.
    let twice = mounts(1024).repeat(2);
    assert_eq!(create(&twice), Err(LimitError::Count { member: "OCI", most: 1 }));
    // Numbers, packed and not.
    let swap = &shapes::ADD_SWAP_REQUEST;
    let refused = Err(LimitError::Count { member: "PCIPath", most: 32 });
    assert_eq!(swap.check(&field(1, &[0xff, 1].repeat(32))), Ok(()));
    assert_eq!(swap.check(&field(1, &[0xff, 1].repeat(33))), refused);
    assert_eq!(swap.check(&[8, 1].repeat(32)), Ok(()));
    assert_eq!(swap.check(&[8, 1].repeat(33)), refused);
}

#[test]
fn evil_host_endless_text() {
    let id = |length| field(1, &b"a".repeat(length));
    assert_eq!(create(&id(TEXT_BYTES)), Ok(()));
    let refused = LimitError::Bytes { member: "text", most: TEXT_BYTES, found: TEXT_BYTES + 1 };
    assert_eq!(create(&id(TEXT_BYTES + 1)), Err(refused));
}

#[test]
fn evil_host_more_bytes_than_a_member_takes() {
    let entropy = |length| shapes::RESEED_RANDOM_DEV_REQUEST.check(&field(2, &b"a".repeat(length)));
    assert_eq!(entropy(ENTROPY_BYTES), Ok(()));
    let refused = LimitError::Bytes { member: "data", most: ENTROPY_BYTES, found: ENTROPY_BYTES + 1 };
    assert_eq!(entropy(ENTROPY_BYTES + 1), Err(refused));
    let chunk = field(8, &b"a".repeat(2 << 20));
    assert_eq!(shapes::COPY_FILE_REQUEST.check(&chunk), Ok(()));
}

#[test]
fn what_is_no_message_is_refused() {
    let bad: [&[u8]; 8] = [
        &[8],
        &[0, 0],
        &[0x0a, 5, 1],
        &[0x0b],
        &[0x0c],
        &[0x0e, 0],
        &[0x09, 0],
        &[8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
    ];
    for payload in bad {
        assert_eq!(FLAT.check(payload), Err(LimitError::Malformed), "{payload:x?}");
    }
    assert_eq!(Endpoint::StartContainer.decode(&[0x0a, 1, 0xff]).err(), Some(LimitError::Undecodable));
    assert_eq!(FLAT.check(&[]), Ok(()));
}
