//! Strict JSON: no member twice, no member that nobody asked for, each value of its type.
//!
//! What is checked and what is used must be one thing, so a text in which two readers can see two values is refused.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::{Map, Number, Value};

/// Why a text was refused. It quotes nothing of the text but names of members that stood where none belongs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found {found}")]
pub struct JsonFault {
    /// What was expected.
    pub expected: &'static str,
    /// What was there: a kind of value, a place, or a member's name of at most 64 characters.
    pub found: String,
}

impl JsonFault {
    pub(crate) fn new(expected: &'static str, found: impl Into<String>) -> Self {
        Self { expected, found: found.into() }
    }
}

/// Reads the one value that `bytes` hold.
pub(crate) fn parse(bytes: &[u8], maximum: usize) -> Result<Value, JsonFault> {
    // GUARD: image-json-size -> evil_huge_texts
    if bytes.len() > maximum {
        return Err(JsonFault::new("a shorter text", format!("{} bytes of at most {maximum}", bytes.len())));
    }
    serde_json::from_slice::<Once>(bytes).map(|value| value.0).map_err(|error| {
        let what = match error.classify() {
            Category::Data => "a member twice",
            Category::Eof => "the end of the text",
            Category::Io | Category::Syntax => "something else",
        };
        let found = format!("{what} at line {} column {}", error.line(), error.column());
        JsonFault::new("JSON with each member once", found)
    })
}

/// The members of one object, taken one by one.
#[derive(Debug)]
pub(crate) struct Members(Map<String, Value>);

impl Members {
    /// The members of an object; anything else is refused.
    pub(crate) fn of(value: Value, expected: &'static str) -> Result<Self, JsonFault> {
        match value {
            Value::Object(members) => Ok(Self(members)),
            other => Err(JsonFault::new(expected, kind(&other))),
        }
    }

    /// Takes a member that may be absent.
    pub(crate) fn optional(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    /// Takes a member that must be there.
    pub(crate) fn take(&mut self, name: &'static str) -> Result<Value, JsonFault> {
        self.optional(name).ok_or_else(|| JsonFault::new(name, "no such member"))
    }

    /// Takes a text.
    pub(crate) fn text(&mut self, name: &'static str) -> Result<String, JsonFault> {
        text(self.take(name)?, name)
    }

    /// Takes a text that may be absent.
    pub(crate) fn optional_text(&mut self, name: &'static str) -> Result<Option<String>, JsonFault> {
        self.optional(name).map(|value| text(value, name)).transpose()
    }

    /// Takes a list of texts that may be absent, with at most this many.
    pub(crate) fn optional_texts(
        &mut self,
        name: &'static str,
        most: usize,
    ) -> Result<Option<Vec<String>>, JsonFault> {
        let Some(value) = self.optional(name) else { return Ok(None) };
        let items = items(value, name, most)?;
        items.into_iter().map(|item| text(item, name)).collect::<Result<_, _>>().map(Some)
    }

    /// Refuses what nobody took.
    pub(crate) fn finish(self) -> Result<(), JsonFault> {
        // GUARD: image-json-unknown -> evil_members_that_nobody_knows
        if let Some((name, _)) = self.0.iter().next() {
            return Err(JsonFault::new("only documented members", quoted(name)));
        }
        Ok(())
    }

    /// All members, each once.
    pub(crate) fn into_entries(self) -> impl Iterator<Item = (String, Value)> {
        self.0.into_iter()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// A text.
pub(crate) fn text(value: Value, expected: &'static str) -> Result<String, JsonFault> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(JsonFault::new(expected, kind(&other))),
    }
}

/// A list that is neither empty nor longer than `most`.
pub(crate) fn items(value: Value, expected: &'static str, most: usize) -> Result<Vec<Value>, JsonFault> {
    let items = match value {
        Value::Array(items) => items,
        other => return Err(JsonFault::new(expected, kind(&other))),
    };
    // GUARD: image-json-list -> evil_lists_that_are_empty_or_long
    if !(1..=most).contains(&items.len()) {
        return Err(JsonFault::new(expected, format!("a list of {}, not of 1 to {most}", items.len())));
    }
    Ok(items)
}

/// A name in quotes, escaped and cut.
pub(crate) fn quoted(name: &str) -> String {
    format!("{:?}", name.chars().take(64).collect::<String>())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Array(_) => "a list",
        Value::Bool(_) => "a boolean",
        Value::Null => "null",
        Value::Number(_) => "a number",
        Value::Object(_) => "an object",
        Value::String(_) => "a text",
    }
}

/// A value in which no object has a member twice.
struct Once(Value);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OnceVisitor).map(Self)
    }
}

struct OnceVisitor;

impl<'de> Visitor<'de> for OnceVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Once(item)) = items.next_element()? {
            all.push(item);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let Once(value) = members.next_value()?;
            let twice = all.insert(name, value).is_some();
            // GUARD: image-json-unique -> evil_members_twice
            if twice {
                return Err(A::Error::custom("a member occurs twice"));
            }
        }
        Ok(Value::Object(all))
    }
}

#[cfg(test)]
mod tests;
