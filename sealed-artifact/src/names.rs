//! Names and numbers of an artifact as types: whoever holds one knows that it is within the limits.

use std::fmt;

use crate::error::{ArtifactError, Found, length, limit};

#[cfg(test)]
mod tests;

/// Characters of `family` and `environment`.
fn is_tag_character(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'/' | b'-')
}

fn parse_tag(what: &'static str, text: &str) -> Result<String, ArtifactError> {
    limit(what, 1, 128, length(text.as_bytes()))?;
    let starts_well = text.starts_with(|first: char| first.is_ascii_alphanumeric());
    // GUARD: tag-characters -> evil_names_with_foreign_characters_are_refused
    if !starts_well || !text.bytes().all(is_tag_character) {
        let expected = "letters, digits, '.', '_', '/', '-', first a letter or digit";
        return Err(ArtifactError::Malformed { what, expected, found: Found::text(text) });
    }
    Ok(text.to_owned())
}

macro_rules! text_newtype {
    ($(#[$doc:meta])* $name:ident, $parse:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Parses untrusted text.
            ///
            /// # Errors
            /// `LIMIT_EXCEEDED` for a length outside the limits, `MALFORMED` for other characters.
            pub fn parse(text: &str) -> Result<Self, ArtifactError> {
                $parse(text).map(Self)
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_newtype! {
    /// Environment tag, such as `production`; the tier of a recipient has the same form.
    EnvironmentTag, |text| parse_tag("environment", text)
}
text_newtype! {
    /// Rollback family, such as `acme/ranker`: counters are compared within it.
    Family, |text| parse_tag("family", text)
}
text_newtype! {
    /// Name of a payload: one path component.
    PayloadName, parse_payload_name
}
text_newtype! {
    /// Inner media type of a payload, without `+sealed`.
    MediaType, parse_media_type
}

fn parse_payload_name(text: &str) -> Result<String, ArtifactError> {
    limit("payload name", 1, 255, length(text.as_bytes()))?;
    let foreign = text.contains('/') || text.chars().any(char::is_control);
    // GUARD: payload-name-component -> evil_payload_names_that_leave_their_directory_are_refused
    if foreign || matches!(text, "." | "..") {
        let expected = "one path component without control characters";
        return Err(ArtifactError::Malformed { what: "payload name", expected, found: Found::text(text) });
    }
    Ok(text.to_owned())
}

fn is_restricted_name(part: &str) -> bool {
    part.starts_with(|first: char| first.is_ascii_alphanumeric())
        && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
}

fn parse_media_type(text: &str) -> Result<String, ArtifactError> {
    limit("media type", 1, 127, length(text.as_bytes()))?;
    let well_formed = text.split_once('/').is_some_and(|(r#type, subtype)| {
        is_restricted_name(r#type) && is_restricted_name(subtype) && !subtype.ends_with("+sealed")
    });
    if !well_formed {
        let expected = "type/subtype of RFC 6838, not ending in +sealed";
        return Err(ArtifactError::Malformed { what: "media type", expected, found: Found::text(text) });
    }
    Ok(text.to_owned())
}

/// 32 random bytes, fresh at every seal.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ArtifactId([u8; 32]);

impl ArtifactId {
    /// The id with these bytes; only a sealer makes a fresh one.
    pub(crate) const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The raw bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ArtifactId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ArtifactId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Rollback counter of a family: only goes up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Counter(u64);

impl Counter {
    /// The counter with this value.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The value.
    #[must_use]
    pub const fn value(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Segment size: a power of two from 64 KiB to 4 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentSize(u32);

impl SegmentSize {
    /// 1 MiB.
    pub const DEFAULT: Self = Self(1_048_576);
    /// 4 MiB.
    pub const MAXIMUM: Self = Self(4_194_304);
    /// 64 KiB.
    pub const MINIMUM: Self = Self(65_536);

    /// Parses a number of bytes.
    ///
    /// # Errors
    /// `LIMIT_EXCEEDED` for a number that is no segment size of this version.
    pub fn parse(bytes: u64) -> Result<Self, ArtifactError> {
        let (minimum, maximum) = (Self::MINIMUM.bytes(), Self::MAXIMUM.bytes());
        // GUARD: segment-size -> evil_numbers_outside_the_limits_are_refused
        if !(minimum..=maximum).contains(&bytes) || !bytes.is_power_of_two() {
            return Err(ArtifactError::LimitExceeded {
                what: "segment size, a power of two",
                minimum,
                maximum,
                found: bytes,
            });
        }
        Ok(Self(u32::try_from(bytes).unwrap_or_default()))
    }

    /// Number of bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        u64::from(self.0)
    }

    /// The next larger size, if there is one.
    #[must_use]
    pub fn larger(self) -> Option<Self> {
        (self < Self::MAXIMUM).then(|| Self(self.0 * 2))
    }

    /// As an allocation size.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// Zero-based index of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PayloadIndex(u32);

impl PayloadIndex {
    /// The index with this value.
    #[must_use]
    pub const fn new(value: u32) -> Self {
        Self(value)
    }

    /// The value.
    #[must_use]
    pub const fn value(self) -> u32 {
        self.0
    }

    /// As an index into a slice.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// Zero-based index of a segment within its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentIndex(u32);

impl SegmentIndex {
    /// The index with this value.
    #[must_use]
    pub const fn new(value: u32) -> Self {
        Self(value)
    }

    /// The value.
    #[must_use]
    pub const fn value(self) -> u32 {
        self.0
    }

    /// As an index into a slice.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}
