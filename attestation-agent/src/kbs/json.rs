//! Strict JSON: one object, no member twice, nesting capped by the parser.
//!
//! What is checked and what is used must be one thing, so a text in which two readers can see two values is refused.

use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;

use super::error::Cause;

/// Reads the object in `bytes`, whose length the caller has capped. A text in which a member is named twice is refused.
///
/// # Errors
///
/// Where it is no JSON, or of another form; nothing of the text is in the error.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Cause> {
    // GUARD: kbs-json-unique -> evil_broker_repeats_a_member
    serde_json::from_slice::<Unique>(bytes).map_err(cause)?;
    serde_json::from_slice::<Object<T>>(bytes).map(|object| object.0).map_err(cause)
}

/// A structure that was written as an object: serde would take an array of its members too.
#[derive(Debug)]
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Named(PhantomData))
    }
}

struct Named<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Named<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(members)).map(Object)
    }
}

/// Where and how, without a word of the text: it may be long, or a secret.
fn cause(error: serde_json::Error) -> Cause {
    let what = match error.classify() {
        Category::Data => "another form, or a member twice",
        Category::Eof => "the end of the text",
        Category::Io | Category::Syntax => "no JSON",
    };
    Cause::new(format!("found {what} at line {} column {}", error.line(), error.column()))
}

/// Any value without repeated members.
struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Unique)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self, A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(name) = members.next_key::<String>()? {
            members.next_value::<Self>()?;
            if !seen.insert(name) {
                return Err(A::Error::custom("a member occurs twice"));
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests;
