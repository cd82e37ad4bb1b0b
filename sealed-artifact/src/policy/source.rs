//! TOML sources of policies: the same members without `@type`, and the template that a newcomer starts from.

use super::{MAXIMUM_PREIMAGE, OPAQUE_TYPE, TYPE};
use crate::error::{ArtifactError, Found, length, limit};
use crate::json::{Name, Value};

/// What `policy new` writes: a policy that is refused as weak until the marked values are filled in.
pub const TEMPLATE: &str = include_str!("template.toml");

/// Converts a TOML text into the object it stands for.
pub(super) fn to_value(source: &str) -> Result<Value, ArtifactError> {
    limit("policy source", 0, 4 * MAXIMUM_PREIMAGE, length(source.as_bytes()))?;
    let table: toml::Table = source.parse().map_err(|error: toml::de::Error| ArtifactError::Malformed {
        what: "policy source",
        expected: "TOML",
        found: Found::text(error.message()),
    })?;
    let Value::Object(mut members) = convert(toml::Value::Table(table))? else {
        return Ok(Value::object([]));
    };
    let type_name = Name("type".to_owned());
    let object_type = match members.remove(&type_name) {
        None => TYPE,
        Some(value) if value == Value::text("opaque") => OPAQUE_TYPE,
        Some(other) => return Err(other.malformed("type", "\"opaque\", or no type")),
    };
    if members.insert(Name("@type".to_owned()), Value::text(object_type)).is_some() {
        return Err(Value::text("@type").malformed("policy source", "members without @type"));
    }
    Ok(Value::Object(members))
}

fn convert(value: toml::Value) -> Result<Value, ArtifactError> {
    match value {
        toml::Value::String(text) => Ok(Value::Text(text)),
        toml::Value::Boolean(value) => Ok(Value::Bool(value)),
        toml::Value::Integer(integer) => {
            u64::try_from(integer).map(Value::integer).map_err(|_| ArtifactError::Malformed {
                what: "policy source",
                expected: "no negative integer",
                found: Found::value(integer),
            })
        }
        toml::Value::Array(items) => {
            Ok(Value::Array(items.into_iter().map(convert).collect::<Result<_, _>>()?))
        }
        toml::Value::Table(table) => {
            let members = table.into_iter().map(|(name, member)| {
                let mut member = convert(member)?;
                if let ("one_of", Value::Array(items)) = (name.as_str(), &mut member) {
                    items.sort_by_key(Value::encode);
                }
                Ok((Name(name), member))
            });
            Ok(Value::Object(members.collect::<Result<_, ArtifactError>>()?))
        }
        toml::Value::Float(_) | toml::Value::Datetime(_) => Err(ArtifactError::Malformed {
            what: "policy source",
            expected: "text, integers, booleans, arrays and tables",
            found: Found::text(value.type_str()),
        }),
    }
}
