//! Strict JSON: one value, no member twice, nesting capped by the parser.
//!
//! What is checked and what is used must be one thing, so a text in which two readers can see two values is refused.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;

use super::error::Cause;

/// Reads `bytes`, whose length the caller has capped.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Cause> {
    // GUARD: kbs-json-unique -> evil_broker_repeats_a_member
    serde_json::from_slice::<Unique>(bytes).map_err(cause)?;
    serde_json::from_slice(bytes).map_err(cause)
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
