//! Strict canonical JSON (RFC 8785 without floats, negative numbers and null): one byte string for one value.
//!
//! [`Value::parse`] accepts any strict JSON text of the subset and then refuses it unless it equals its canonical
//! re-encoding. [`Members`] turns an object into a typed structure: each member is taken once, what remains is unknown.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

use crate::error::{ArtifactError, Found, length, limit};

mod encode;
mod parse;

#[cfg(test)]
mod tests;

/// Largest integer that is written as a JSON number.
pub(crate) const MAXIMUM_NUMBER: u64 = (1 << 53) - 1;
/// Deepest nesting of arrays and objects.
pub(crate) const MAXIMUM_NESTING: u64 = 8;

/// A JSON value of the subset that the format uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Array(Vec<Value>),
    Bool(bool),
    Number(u64),
    Object(BTreeMap<Name, Value>),
    Text(String),
}

/// A member name; ordered by UTF-16 code units as RFC 8785 demands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name(pub(crate) String);

impl Ord for Name {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.encode_utf16().cmp(other.0.encode_utf16())
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Value {
    /// Parses `bytes`, at most `maximum` of them, and refuses all but the canonical encoding.
    pub(crate) fn parse(what: &'static str, bytes: &[u8], maximum: u64) -> Result<Self, ArtifactError> {
        limit(what, 0, maximum, length(bytes))?;
        let value = parse::strict(what, bytes)?;
        let canonical = value.encode();
        // GUARD: canonical-json -> evil_non_canonical_json_is_refused
        if canonical != bytes {
            let same = canonical.iter().zip(bytes).take_while(|(a, b)| a == b).count();
            return Err(ArtifactError::NotCanonical {
                what,
                offset: u64::try_from(same).unwrap_or(u64::MAX),
            });
        }
        Ok(value)
    }

    /// The canonical encoding.
    pub(crate) fn encode(&self) -> Vec<u8> {
        encode::canonical(self)
    }

    /// An object from names and values.
    pub(crate) fn object<const N: usize>(members: [(&str, Self); N]) -> Self {
        Self::Object(members.into_iter().map(|(name, value)| (Name(name.to_owned()), value)).collect())
    }

    /// An object from names and values, some of them absent.
    pub(crate) fn object_of<const N: usize>(members: [(&str, Option<Self>); N]) -> Self {
        let present = members.into_iter().filter_map(|(name, value)| Some((Name(name.to_owned()), value?)));
        Self::Object(present.collect())
    }

    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub(crate) fn hex(bytes: &[u8]) -> Self {
        Self::Text(hex::encode(bytes))
    }

    pub(crate) fn base64(bytes: &[u8]) -> Self {
        Self::Text(BASE64.encode(bytes))
    }

    /// An integer: a number up to 2^53−1, a decimal string above.
    pub(crate) fn integer(integer: u64) -> Self {
        if integer <= MAXIMUM_NUMBER { Self::Number(integer) } else { Self::Text(integer.to_string()) }
    }

    /// What kind of value this is, for messages.
    pub(crate) fn describe(&self) -> Found {
        match self {
            Self::Array(items) => Found::value(format_args!("an array of {}", items.len())),
            Self::Bool(value) => Found::value(value),
            Self::Number(value) => Found::value(value),
            Self::Object(_) => Found::text("an object"),
            Self::Text(text) => Found::value(format_args!("\"{text}\"")),
        }
    }

    pub(crate) fn malformed(&self, what: &'static str, expected: &'static str) -> ArtifactError {
        ArtifactError::Malformed { what, expected, found: self.describe() }
    }

    pub(crate) fn into_text(self, what: &'static str) -> Result<String, ArtifactError> {
        match self {
            Self::Text(text) => Ok(text),
            other => Err(other.malformed(what, "text")),
        }
    }

    pub(crate) fn into_array(self, what: &'static str) -> Result<Vec<Self>, ArtifactError> {
        match self {
            Self::Array(items) => Ok(items),
            other => Err(other.malformed(what, "an array")),
        }
    }

    pub(crate) fn into_members(self, what: &'static str) -> Result<Members, ArtifactError> {
        match self {
            Self::Object(members) => Ok(Members { what, members }),
            other => Err(other.malformed(what, "an object")),
        }
    }

    /// An integer in its only form: a number up to 2^53−1, else a decimal string up to 2^64−1.
    pub(crate) fn into_integer(self, what: &'static str) -> Result<u64, ArtifactError> {
        let expected = "an integer up to 2^64-1, above 2^53-1 as a decimal string";
        match &self {
            Self::Number(number) => Ok(*number),
            Self::Text(text) => {
                let number = text.parse::<u64>().map_err(|_| self.malformed(what, expected))?;
                // GUARD: integer-form -> evil_integers_in_the_other_form_are_refused
                if number <= MAXIMUM_NUMBER || *text != number.to_string() {
                    return Err(self.malformed(what, expected));
                }
                Ok(number)
            }
            other => Err(other.malformed(what, expected)),
        }
    }

    /// Lower-case hex of exactly `N` bytes.
    pub(crate) fn into_hex<const N: usize>(self, what: &'static str) -> Result<[u8; N], ArtifactError> {
        let text = self.into_text(what)?;
        lower_hex(&text).and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| ArtifactError::Malformed {
            what,
            expected: "lower-case hex of the right length",
            found: Found::text(&text),
        })
    }

    /// Canonical base64.
    pub(crate) fn into_base64(self, what: &'static str) -> Result<Vec<u8>, ArtifactError> {
        let text = self.into_text(what)?;
        BASE64.decode(&text).map_err(|_| ArtifactError::Malformed {
            what,
            expected: "padded canonical base64",
            found: Found::text(&text),
        })
    }
}

/// Decodes lower-case hex; `None` for anything else.
pub(crate) fn lower_hex(text: &str) -> Option<Vec<u8>> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    hex::decode(text).ok()
}

/// The members of one object, taken one by one; [`Members::finish`] refuses what was not taken.
#[derive(Debug)]
pub(crate) struct Members {
    what: &'static str,
    members: BTreeMap<Name, Value>,
}

impl Members {
    /// Takes a member that must be there.
    pub(crate) fn take(&mut self, name: &'static str) -> Result<Value, ArtifactError> {
        self.take_optional(name).ok_or(ArtifactError::Malformed {
            what: self.what,
            expected: name,
            found: Found::text("no such member"),
        })
    }

    /// Takes a member that may be absent.
    pub(crate) fn take_optional(&mut self, name: &'static str) -> Option<Value> {
        self.members.remove(&Name(name.to_owned()))
    }

    /// Takes `@type`, which must have the value `expected`.
    pub(crate) fn take_type(&mut self, expected: &'static str) -> Result<(), ArtifactError> {
        let found = self.take("@type")?.into_text(self.what)?;
        // GUARD: object-type -> evil_object_of_another_type_is_refused
        if found != expected {
            return Err(ArtifactError::Malformed { what: self.what, expected, found: Found::text(&found) });
        }
        Ok(())
    }

    /// Refuses members that nobody took.
    pub(crate) fn finish(self) -> Result<(), ArtifactError> {
        // GUARD: unknown-member -> evil_unknown_members_are_refused
        if let Some(name) = self.members.into_keys().next() {
            return Err(ArtifactError::Malformed {
                what: self.what,
                expected: "only members that the specification names",
                found: Found::value(format_args!("member \"{}\"", name.0)),
            });
        }
        Ok(())
    }
}
