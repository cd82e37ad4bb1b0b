//! A request of which only some fields are given.

use protobuf::reflect::{FieldDescriptor, MessageDescriptor, MessageRef, RuntimeFieldType, RuntimeType};
use protocol::Endpoint;
use serde_json::{Map, Value as Json};

use crate::error::{InputError, shortened};
use crate::limits::Limits;
use crate::message;
use crate::request::Input;

/// The request as a policy sees it when it has the fields of `partial` and no others: what is left out has the value
/// that it has in a message without it.
///
/// # Errors
/// `POLICY_INPUT_JSON`: a field that the request does not have, or something else than an object.
pub fn complete(endpoint: Endpoint, partial: &Json) -> Result<Json, InputError> {
    let given = partial
        .as_object()
        .ok_or_else(|| InputError::Json { message: "it is another kind of value".to_owned() })?;
    if endpoint == Endpoint::CopyFile {
        let message = endpoint.request().new_instance();
        let empty = json(Input::of_request(endpoint, &*message, &Limits::default())?)?;
        return Ok(Json::Object(with_known(empty, given, "")?));
    }
    merged(&endpoint.request(), given, "").map(Json::Object)
}

/// The fields of a message without any, and those given.
fn merged(
    message: &MessageDescriptor,
    given: &Map<String, Json>,
    at: &str,
) -> Result<Map<String, Json>, InputError> {
    let instance = message.new_instance();
    let empty = json(message::of_message(&MessageRef::from(&*instance), &Limits::default())?)?;
    let mut nested = Map::new();
    for (name, value) in given {
        let field = message.fields().find(|field| message::key(field) == name);
        let below = |value: &Json| match (field.as_ref().and_then(inner), value) {
            (Some(inner), Json::Object(members)) => {
                merged(&inner, members, &format!("{at}{name}.")).map(Json::Object)
            }
            _ => Ok(value.clone()),
        };
        let value = match (field.as_ref().map(FieldDescriptor::runtime_field_type), value) {
            (Some(RuntimeFieldType::Singular(_)), value) => below(value)?,
            (Some(RuntimeFieldType::Repeated(_)), Json::Array(items)) => {
                Json::Array(items.iter().map(below).collect::<Result<_, _>>()?)
            }
            (Some(RuntimeFieldType::Map(..)), Json::Object(members)) => {
                let members = members.iter().map(|(key, value)| Ok((key.clone(), below(value)?)));
                Json::Object(members.collect::<Result<_, InputError>>()?)
            }
            (_, value) => value.clone(),
        };
        nested.insert(name.clone(), value);
    }
    with_known(empty, &nested, at)
}

/// The message that a field holds: itself, or in each of its items.
fn inner(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    match field.runtime_field_type() {
        RuntimeFieldType::Singular(RuntimeType::Message(message))
        | RuntimeFieldType::Repeated(RuntimeType::Message(message))
        | RuntimeFieldType::Map(_, RuntimeType::Message(message)) => Some(message),
        _ => None,
    }
}

/// Puts `given` over `empty`, which has every field that there is.
fn with_known(
    mut empty: Map<String, Json>,
    given: &Map<String, Json>,
    at: &str,
) -> Result<Map<String, Json>, InputError> {
    for (name, value) in given {
        let Some(slot) = empty.get_mut(name) else {
            let field = shortened(&format!("{at}{name}"), 128);
            return Err(InputError::Json { message: format!("the request has no field {field:?}") });
        };
        slot.clone_from(value);
    }
    Ok(empty)
}

fn json(input: Input) -> Result<Map<String, Json>, InputError> {
    match input.to_json()? {
        Json::Object(members) => Ok(members),
        _ => Err(InputError::Json { message: "it is another kind of value".to_owned() }),
    }
}
