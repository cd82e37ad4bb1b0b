//! A request message as policies see it: the JSON that upstream's agent makes of it (serde over rust-protobuf's types).
//!
//! Every field is present: what was not sent is empty, zero, `false`, or `null` for a message, an `optional` and a oneof.
//! Keys are the names of the wire, but for `type`, which is `type_`. Enumerations are numbers, bytes are lists of numbers, a
//! oneof is keyed by its own name and holds `{"Variant": value}`.

use protobuf::MessageDyn;
use protobuf::reflect::{FieldDescriptor, MessageRef, ReflectFieldRef, ReflectValueRef};
use protocol::Endpoint;
use protocol::agent::CopyFileRequest;
use regorus::Value;
use std::collections::BTreeMap;

use crate::error::InputError;
use crate::limits::Limits;
use crate::request::Input;

/// File types of `file_mode` (`S_IFMT` and what it selects, inode(7)).
const TYPE_MASK: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const SYMLINK: u32 = 0o120_000;
/// What a value without text costs of the cap, in bytes of JSON, roughly.
const VALUE_BYTES: usize = 4;

impl Input {
    /// What the policy is asked with about a request.
    ///
    /// # Errors
    /// `POLICY_INPUT_TOO_LARGE`; `POLICY_INPUT_LINK` if a link to copy has a target that is no text.
    pub fn of_request(
        endpoint: Endpoint,
        message: &dyn MessageDyn,
        limits: &Limits,
    ) -> Result<Self, InputError> {
        if let (Endpoint::CopyFile, Some(copy)) = (endpoint, message.downcast_ref::<CopyFileRequest>()) {
            return copy_file(copy);
        }
        of_message(&MessageRef::from(message), limits)
    }
}

/// Any message, as it stands in a request.
pub(crate) fn of_message(message: &MessageRef<'_>, limits: &Limits) -> Result<Input, InputError> {
    let mut budget = Budget { left: limits.input_bytes, max: limits.input_bytes };
    object(message, &mut budget).map(Input)
}

/// What a request may still cost.
struct Budget {
    left: usize,
    max: usize,
}

impl Budget {
    fn take(&mut self, bytes: usize) -> Result<(), InputError> {
        let left = self.left.checked_sub(bytes);
        // GUARD: policy-message-cap -> evil_host_request_of_many_bytes
        self.left =
            left.ok_or(InputError::TooLarge { found: self.max.saturating_add(bytes), max: self.max })?;
        Ok(())
    }
}

fn object(message: &MessageRef<'_>, budget: &mut Budget) -> Result<Value, InputError> {
    let mut members = BTreeMap::new();
    let descriptor = message.descriptor_dyn();
    for field in descriptor.fields() {
        if let Some(oneof) = field.containing_oneof() {
            let name = Value::from(oneof.name());
            budget.take(oneof.name().len() + VALUE_BYTES)?;
            match field.get_singular(&**message) {
                Some(value) => {
                    let variant =
                        BTreeMap::from([(Value::from(capitalised(field.name())), scalar(&value, budget)?)]);
                    members.insert(name, Value::from(variant));
                }
                None => {
                    members.entry(name).or_insert(Value::Null);
                }
            }
            continue;
        }
        budget.take(field.name().len() + VALUE_BYTES)?;
        members.insert(Value::from(key(&field)), member(&field, message, budget)?);
    }
    Ok(Value::from(members))
}

fn member(
    field: &FieldDescriptor,
    message: &MessageRef<'_>,
    budget: &mut Budget,
) -> Result<Value, InputError> {
    match field.get_reflect(&**message) {
        ReflectFieldRef::Optional(optional) => match optional.value() {
            Some(value) => scalar(&value, budget),
            None if is_nullable(field) => Ok(Value::Null),
            None => scalar(&field.singular_default_value(), budget),
        },
        ReflectFieldRef::Repeated(list) => {
            let values: Result<Vec<Value>, InputError> =
                list.into_iter().map(|value| scalar(&value, budget)).collect();
            values.map(Value::from)
        }
        ReflectFieldRef::Map(map) => {
            let entries: Result<BTreeMap<Value, Value>, InputError> = map
                .into_iter()
                .map(|(key, value)| Ok((scalar(&key, budget)?, scalar(&value, budget)?)))
                .collect();
            entries.map(Value::from)
        }
    }
}

/// Whether absence can be seen: messages, and `optional` fields.
fn is_nullable(field: &FieldDescriptor) -> bool {
    field.containing_oneof_including_synthetic().is_some()
        || matches!(field.singular_default_value(), ReflectValueRef::Message(_))
}

fn scalar(value: &ReflectValueRef<'_>, budget: &mut Budget) -> Result<Value, InputError> {
    budget.take(VALUE_BYTES)?;
    Ok(match value {
        ReflectValueRef::U32(number) => Value::from(u64::from(*number)),
        ReflectValueRef::U64(number) => Value::from(*number),
        ReflectValueRef::I32(number) => Value::from(i64::from(*number)),
        ReflectValueRef::I64(number) => Value::from(*number),
        ReflectValueRef::F32(number) => Value::from(f64::from(*number)),
        ReflectValueRef::F64(number) => Value::from(*number),
        ReflectValueRef::Bool(bit) => Value::from(*bit),
        ReflectValueRef::String(text) => {
            budget.take(text.len())?;
            Value::from(*text)
        }
        ReflectValueRef::Bytes(bytes) => {
            budget.take(bytes.len().saturating_mul(VALUE_BYTES))?;
            Value::from(bytes.iter().map(|byte| Value::from(u64::from(*byte))).collect::<Vec<_>>())
        }
        ReflectValueRef::Enum(_, number) => Value::from(i64::from(*number)),
        ReflectValueRef::Message(message) => object(message, budget)?,
    })
}

/// The key of a field.
pub(crate) fn key(field: &FieldDescriptor) -> &str {
    match field.name() {
        "type" => "type_",
        name => name,
    }
}

/// A variant's name: that of the field, with a capital.
fn capitalised(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + letters.as_str())
}

/// CopyFile has an input of its own: no content, a name for the type, the target of a link as a text.
fn copy_file(request: &CopyFileRequest) -> Result<Input, InputError> {
    let kind = match request.file_mode & TYPE_MASK {
        REGULAR => "Regular",
        DIRECTORY => "Directory",
        SYMLINK => "Symlink",
        _ => "Unknown",
    };
    let target = if kind == "Symlink" {
        let text = std::str::from_utf8(&request.data);
        Value::from(text.map_err(|_| InputError::Link)?)
    } else {
        Value::Null
    };
    let members = [
        ("path", Value::from(request.path.as_str())),
        ("file_type", Value::from(kind)),
        ("symlink_target", target),
        ("file_size", Value::from(request.file_size)),
        ("file_mode", Value::from(u64::from(request.file_mode))),
        ("dir_mode", Value::from(u64::from(request.dir_mode))),
        ("uid", Value::from(i64::from(request.uid))),
        ("gid", Value::from(i64::from(request.gid))),
        ("offset", Value::from(request.offset)),
    ];
    Ok(Input(Value::from(
        members.into_iter().map(|(key, value)| (Value::from(key), value)).collect::<BTreeMap<_, _>>(),
    )))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap as Map;

    use protocol::{agent, oci};

    use super::*;

    fn json(endpoint: Endpoint, message: &dyn MessageDyn) -> serde_json::Value {
        let input = Input::of_request(endpoint, message, &Limits::default()).unwrap();
        serde_json::from_str(&input.0.to_json_str().unwrap()).unwrap()
    }

    /// The defaults of the table of the wire, `tests/vectors/policy/input-defaults.txt`, for every request and what is in it.
    #[test]
    fn messages_are_as_policies_expect_them() {
        let table: Map<&str, serde_json::Value> =
            include_str!("../../tests/vectors/policy/input-defaults.txt")
                .lines()
                .filter_map(|line| line.split_once(' '))
                .map(|(name, json)| (name, serde_json::from_str(json).unwrap()))
                .collect();
        let mut seen = 0;
        for endpoint in Endpoint::ALL {
            let name = format!("grpc.{}", endpoint.message());
            let Some(expected) = table.get(name.as_str()) else { continue };
            let message = endpoint.request().new_instance();
            if endpoint != Endpoint::CopyFile {
                assert_eq!(&json(endpoint, &*message), expected, "{name}");
            }
            seen += 1;
        }
        assert!(seen > 40, "{seen}");
        let inner: [(&str, Box<dyn MessageDyn>); 8] = [
            ("grpc.Spec", Box::new(oci::Spec::new())),
            ("grpc.Process", Box::new(oci::Process::new())),
            ("grpc.Linux", Box::new(oci::Linux::new())),
            ("grpc.LinuxSyscall", Box::new(oci::LinuxSyscall::new())),
            ("grpc.LinuxResources", Box::new(oci::LinuxResources::new())),
            ("grpc.Mount", Box::new(oci::Mount::new())),
            ("grpc.Device", Box::new(agent::Device::new())),
            ("grpc.Storage", Box::new(agent::Storage::new())),
        ];
        for (name, message) in inner {
            assert_eq!(json(Endpoint::CreateContainer, &*message), table[name], "{name}");
        }
    }

    #[test]
    fn values_have_the_forms_of_policies() {
        let mut syscall = oci::LinuxSyscall { Names: vec!["read".to_owned()], ..Default::default() };
        syscall.set_errnoret(22);
        let expected =
            serde_json::json!({"Names": ["read"], "Action": "", "Args": [], "ErrnoRet": {"Errnoret": 22}});
        assert_eq!(json(Endpoint::CreateContainer, &syscall), expected);
        let write = agent::WriteStreamRequest { data: vec![1, 2, 255], ..Default::default() };
        assert_eq!(json(Endpoint::WriteStdin, &write)["data"], serde_json::json!([1, 2, 255]));
        // Numbers are the numbers that a policy's text has.
        let json = r#"{"container_id": "", "timeout": 7}"#;
        let parsed = Input::from_json(json, &Limits::default()).unwrap();
        let remove = agent::RemoveContainerRequest { timeout: 7, ..Default::default() };
        let made = Input::of_request(Endpoint::RemoveContainer, &remove, &Limits::default()).unwrap();
        assert!(made.0 == parsed.0);
    }

    #[test]
    fn copies_are_judged_by_what_they_make() {
        let mut copy = CopyFileRequest { path: "/a".to_owned(), data: b"b".to_vec(), ..Default::default() };
        for (mode, kind, target) in [
            (0o100_644, "Regular", None),
            (0o040_755, "Directory", None),
            (0o120_777, "Symlink", Some("b")),
            (0o140_777, "Unknown", None),
        ] {
            copy.file_mode = mode;
            let found = json(Endpoint::CopyFile, &copy);
            assert_eq!((found["file_type"].as_str(), found["symlink_target"].as_str()), (Some(kind), target));
            assert_eq!(found.get("data"), None);
        }
        copy.file_mode = 0o120_777;
        copy.data = vec![0xFF];
        let error = Input::of_request(Endpoint::CopyFile, &copy, &Limits::default()).unwrap_err();
        assert_eq!(error.code(), "POLICY_INPUT_LINK");
    }

    #[test]
    fn evil_host_request_of_many_bytes() {
        let write = agent::WriteStreamRequest { data: vec![0; 2 << 20], ..Default::default() };
        let error = Input::of_request(Endpoint::WriteStdin, &write, &Limits::default()).unwrap_err();
        assert_eq!(error.code(), "POLICY_INPUT_TOO_LARGE");
    }
}
