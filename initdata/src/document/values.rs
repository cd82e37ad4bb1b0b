//! Values in the files of a document: whoever holds one knows its form.

use std::fmt;

use serde::Deserialize;

macro_rules! parsed_from_text {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                Self::parse(&text)
                    .ok_or_else(|| format!("expected {}, found {:?}", Self::FORM, crate::error::shown(&text)))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.to_text())
            }
        }
    };
}

/// A SHA-256 digest: `sha256:` and 64 lower-case hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Sha256Digest([u8; 32]);

impl Sha256Digest {
    const FORM: &str = "sha256: and 64 lower-case hex digits";

    /// The digest with these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Parses its text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("sha256:")?;
        let lower = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let bytes = hex::decode(digits).ok().filter(|_| lower)?;
        bytes.try_into().ok().map(Self)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn to_text(self) -> String {
        format!("sha256:{}", hex::encode(self.0))
    }
}

parsed_from_text!(Sha256Digest);

/// Rollback family or environment tag, as sealed artifacts spell them: 1 to 128 letters, digits, `.`, `_`, `/`, `-`, first a
/// letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Tag(String);

impl Tag {
    const FORM: &str = "1 to 128 letters, digits, '.', '_', '/', '-', first a letter or digit";

    /// Parses its text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let starts_well = text.starts_with(|first: char| first.is_ascii_alphanumeric());
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._/-".contains(&byte);
        (text.len() <= 128 && starts_well && text.bytes().all(allowed)).then(|| Self(text.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn to_text(&self) -> String {
        self.0.clone()
    }
}

parsed_from_text!(Tag);

/// Where an artifact may be found: `registry/repository`, with a tag or digest. Nothing of it is trusted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Reference(String);

impl Reference {
    const FORM: &str =
        "registry/repository[:tag][@digest] of at most 512 letters, digits, '.', '_', '-', ':', '/', '@'";

    /// Parses its text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:/@".contains(&byte);
        let parts = text.split('/');
        let whole = parts.clone().count() >= 2 && parts.clone().all(|part| !matches!(part, "" | "." | ".."));
        (text.len() <= 512 && whole && text.bytes().all(allowed)).then(|| Self(text.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn to_text(&self) -> String {
        self.0.clone()
    }
}

parsed_from_text!(Reference);

/// A directory in a container: absolute, without `.`, `..` and empty components, and not where the system or this agent
/// keeps its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct ContainerPath(String);

impl ContainerPath {
    const FORM: &str = "an absolute path without '.', '..', '//' and control characters, of at most 1024 bytes, outside \
                        /dev, /proc, /sys, /run/confidential-containers, /run/innerkeep, /run/kata-containers";

    /// Nothing is landed here, below, or in place of what leads here.
    pub(crate) const PROTECTED: [&str; 6] =
        ["/dev", "/proc", "/sys", "/run/confidential-containers", "/run/innerkeep", "/run/kata-containers"];

    /// Parses its text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let components = text.strip_prefix('/')?;
        let plain = |part: &str| {
            part.len() <= 255 && !matches!(part, "" | "." | "..") && !part.chars().any(char::is_control)
        };
        let path = Self(text.to_owned());
        let free = Self::PROTECTED.iter().all(|protected| !path.overlaps(&Self((*protected).to_owned())));
        (text.len() <= 1024 && components.split('/').all(plain) && free).then_some(path)
    }

    /// The path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether one of both is the other or lies below it.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let below = |path: &str, directory: &str| {
            path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        below(&self.0, &other.0) || below(&other.0, &self.0)
    }

    fn to_text(&self) -> String {
        self.0.clone()
    }
}

parsed_from_text!(ContainerPath);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_have_one_form() {
        let text = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(Sha256Digest::parse(&text).unwrap().to_string(), text);
        for other in ["", "sha256:", &text.to_uppercase(), &text.replace('a', "A"), &text[..70], "sha384:00"]
        {
            assert_eq!(Sha256Digest::parse(other), None, "{other}");
        }
    }

    #[test]
    fn evil_operator_path_that_leaves_its_place() {
        for path in ["/models/ranker", "/m", "/run/models", "/procfs", "/devices", "/run/innerkeep2"] {
            assert!(ContainerPath::parse(path).is_some(), "{path}");
        }
        for path in [
            "",
            "/",
            "models",
            "/models/",
            "/a//b",
            "/a/./b",
            "/a/../b",
            "/..",
            "/a\nb",
            "/a\0b",
            "/proc",
            "/proc/self",
            "/sys/kernel",
            "/dev/shm",
            "/run",
            "/run/innerkeep",
            "/run/innerkeep/landing",
            "/run/kata-containers/x",
            "/run/confidential-containers/initdata",
        ] {
            assert_eq!(ContainerPath::parse(path), None, "{path}");
        }
        assert!(ContainerPath::parse(&format!("/{}", "a".repeat(256))).is_none());
        assert!(ContainerPath::parse(&"/a".repeat(513)).is_none());
    }

    #[test]
    fn tags_and_references_have_plain_characters() {
        assert!(Tag::parse("acme/ranker-1.0_x").is_some());
        for tag in ["", "/a", "-a", "a b", "ä", &"a".repeat(129)] {
            assert_eq!(Tag::parse(tag), None, "{tag}");
        }
        assert!(Reference::parse("registry.example:5000/acme/ranker:v1@sha256:00").is_some());
        for reference in ["", "ranker", "a//b", "/a/b", "a/../b", "a/b c", "a/b?x", "a/b\n"] {
            assert_eq!(Reference::parse(reference), None, "{reference}");
        }
    }
}
