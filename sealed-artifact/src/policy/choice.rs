//! Explicit choices: any, exactly one, or one of a list. There is no default.

use std::fmt;

use crate::error::{ArtifactError, Found, limit};
use crate::json::{Value, lower_hex};
use crate::names::{EnvironmentTag, Family};
use crate::parameters::count;

/// Which values a policy allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice<T> {
    /// Every value.
    Any,
    /// One value.
    Exactly(T),
    /// One of 1 to 64 values, ascending.
    OneOf(Vec<T>),
}

impl<T: PartialEq> Choice<T> {
    /// Whether `value` is allowed.
    #[must_use]
    pub fn allows(&self, value: &T) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(allowed) => allowed == value,
            Self::OneOf(allowed) => allowed.contains(value),
        }
    }

    /// Whether every value is allowed.
    #[must_use]
    pub fn is_any(&self) -> bool {
        matches!(self, Self::Any)
    }
}

impl<T: fmt::Display> fmt::Display for Choice<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Exactly(value) => write!(f, "{value}"),
            Self::OneOf(values) => {
                f.write_str("one of")?;
                values.iter().try_for_each(|value| write!(f, " {value}"))
            }
        }
    }
}

/// A value that stands in a choice.
pub(crate) trait ChoiceValue: Sized {
    fn from_value(what: &'static str, value: Value) -> Result<Self, ArtifactError>;
    fn to_value(&self) -> Value;
}

#[expect(private_bounds, reason = "reading and writing choices stays inside this crate")]
impl<T: ChoiceValue> Choice<T> {
    pub(crate) fn from_value(what: &'static str, value: Value) -> Result<Self, ArtifactError> {
        let expected = "\"any\", {\"exactly\": …} or {\"one_of\": […]}";
        if value == Value::text("any") {
            return Ok(Self::Any);
        }
        let Value::Object(_) = value else {
            return Err(value.malformed(what, expected));
        };
        let mut members = value.into_members(what)?;
        let exactly = members.take_optional("exactly");
        let one_of = members.take_optional("one_of");
        members.finish()?;
        match (exactly, one_of) {
            (Some(value), None) => Ok(Self::Exactly(T::from_value(what, value)?)),
            (None, Some(values)) => Self::one_of_from_values(what, values.into_array(what)?),
            _ => Err(ArtifactError::Malformed { what, expected, found: Found::text("both or none") }),
        }
    }

    fn one_of_from_values(what: &'static str, values: Vec<Value>) -> Result<Self, ArtifactError> {
        limit("values of one_of", 1, 64, count(&values))?;
        let encoded: Vec<Vec<u8>> = values.iter().map(Value::encode).collect();
        // GUARD: one-of-ascending -> evil_repeated_choices_are_refused
        if !encoded.is_sorted_by(|a, b| a < b) {
            let expected = "values of one_of strictly ascending";
            return Err(ArtifactError::Malformed {
                what,
                expected,
                found: Found::text("another order, or a repeat"),
            });
        }
        let values = values.into_iter().map(|value| T::from_value(what, value));
        Ok(Self::OneOf(values.collect::<Result<_, _>>()?))
    }

    pub(crate) fn to_value(&self) -> Value {
        match self {
            Self::Any => Value::text("any"),
            Self::Exactly(value) => Value::object([("exactly", value.to_value())]),
            Self::OneOf(values) => {
                let mut values: Vec<Value> = values.iter().map(ChoiceValue::to_value).collect();
                values.sort_by_key(Value::encode);
                Value::object([("one_of", Value::Array(values))])
            }
        }
    }
}

impl ChoiceValue for EnvironmentTag {
    fn from_value(what: &'static str, value: Value) -> Result<Self, ArtifactError> {
        Self::parse(&value.into_text(what)?)
    }

    fn to_value(&self) -> Value {
        Value::text(self.as_str())
    }
}

impl ChoiceValue for Family {
    fn from_value(what: &'static str, value: Value) -> Result<Self, ArtifactError> {
        Self::parse(&value.into_text(what)?)
    }

    fn to_value(&self) -> Value {
        Value::text(self.as_str())
    }
}

/// How key or plaintext reaches the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkMode {
    /// The recipient writes plaintext into the guest's private memory.
    DmaDirect,
    /// The recipient re-seals to the session through a shared window.
    DmaSealed,
    /// The recipient releases the content key to the session.
    KeyRelease,
}

impl LinkMode {
    /// Parses the name in policies.
    ///
    /// # Errors
    /// `MALFORMED`.
    pub fn parse(text: &str) -> Result<Self, ArtifactError> {
        match text {
            "dma-direct" => Ok(Self::DmaDirect),
            "dma-sealed" => Ok(Self::DmaSealed),
            "key-release" => Ok(Self::KeyRelease),
            other => Err(ArtifactError::Malformed {
                what: "link_mode",
                expected: "dma-direct, dma-sealed or key-release",
                found: Found::text(other),
            }),
        }
    }

    /// The name in policies.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DmaDirect => "dma-direct",
            Self::DmaSealed => "dma-sealed",
            Self::KeyRelease => "key-release",
        }
    }
}

impl fmt::Display for LinkMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl ChoiceValue for LinkMode {
    fn from_value(what: &'static str, value: Value) -> Result<Self, ArtifactError> {
        Self::parse(&value.into_text(what)?)
    }

    fn to_value(&self) -> Value {
        Value::text(self.as_str())
    }
}

/// `N` bytes, written in lower-case hex.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hex<const N: usize>(pub [u8; N]);

impl<const N: usize> Hex<N> {
    pub(crate) fn from_value(what: &'static str, value: Value) -> Result<Self, ArtifactError> {
        value.into_hex(what).map(Self)
    }

    pub(crate) fn to_value(self) -> Value {
        Value::hex(&self.0)
    }

    /// Whether all bytes are zero.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }
}

impl<const N: usize> fmt::Display for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl<const N: usize> fmt::Debug for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<const N: usize> ChoiceValue for Hex<N> {
    fn from_value(what: &'static str, value: Value) -> Result<Self, ArtifactError> {
        value.into_hex(what).map(Self)
    }

    fn to_value(&self) -> Value {
        Value::hex(&self.0)
    }
}

/// Digest of initdata as hardware binds it: 32, 48 or 64 bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct InitdataDigest(Vec<u8>);

impl InitdataDigest {
    /// The digest with these bytes.
    ///
    /// # Errors
    /// `MALFORMED` unless there are 32, 48 or 64.
    pub fn new(bytes: Vec<u8>) -> Result<Self, ArtifactError> {
        if !matches!(bytes.len(), 32 | 48 | 64) {
            return Err(ArtifactError::Malformed {
                what: "initdata",
                expected: "32, 48 or 64 bytes",
                found: Found::value(format_args!("{} bytes", bytes.len())),
            });
        }
        Ok(Self(bytes))
    }

    /// The raw bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for InitdataDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for InitdataDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl ChoiceValue for InitdataDigest {
    fn from_value(what: &'static str, value: Value) -> Result<Self, ArtifactError> {
        let text = value.into_text(what)?;
        let bytes = lower_hex(&text).ok_or_else(|| ArtifactError::Malformed {
            what,
            expected: "lower-case hex",
            found: Found::text(&text),
        })?;
        Self::new(bytes)
    }

    fn to_value(&self) -> Value {
        Value::hex(&self.0)
    }
}
