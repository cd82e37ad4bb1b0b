//! Names of images: `registry/repository[:tag][@digest]`, normalised as the tools do that write policies and signatures.
//!
//! Grammar and normalisation are those of distribution/reference: `busybox` is `docker.io/library/busybox`. One thing is stricter:
//! a registry has no upper-case letters, because a second spelling of one host would be looked up under another scope.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::digest::Digest;

/// Longest text of a reference, in bytes.
pub const REFERENCE_MAX: usize = 1024;
/// Longest registry and repository together, in bytes (distribution/reference, `NameTotalLengthMax`).
pub const NAME_MAX: usize = 255;
/// Longest tag, in bytes.
pub const TAG_MAX: usize = 128;

const DEFAULT_REGISTRY: &str = "docker.io";
/// Other names of the same registry.
const OLD_REGISTRIES: [&str; 2] = ["index.docker.io", "registry-1.docker.io"];

/// What a text should have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} in the name of an image")]
pub struct NameFault {
    /// The part that is not as it should be.
    pub expected: &'static str,
}

/// The name of an image, in its expanded form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImageName {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl ImageName {
    /// Reads a reference and expands it.
    ///
    /// # Errors
    ///
    /// [`NameFault`], naming the first part that is not of the grammar.
    pub fn parse(text: &str) -> Result<Self, NameFault> {
        // GUARD: image-name-size -> evil_names_of_images
        if text.len() > REFERENCE_MAX {
            return Err(NameFault { expected: "at most 1024 bytes" });
        }
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest)) => {
                let bad = NameFault { expected: "sha256, sha384 or sha512 in lower-case hex after '@'" };
                (rest, Some(Digest::parse(digest).ok_or(bad)?))
            }
        };
        let slash = rest.rfind('/').map_or(0, |at| at + 1);
        let last = rest.get(slash..).unwrap_or_default();
        let (name, tag) = match last.find(':') {
            None => (rest, None),
            Some(at) => (rest.get(..slash + at).unwrap_or_default(), last.get(at + 1..).map(str::to_owned)),
        };
        let (registry, repository) = match name.split_once('/') {
            Some((first, path)) if is_registry_part(first) => (first, path),
            _ => (DEFAULT_REGISTRY, name),
        };
        Self::new(registry, repository, tag, digest)
    }

    /// A name from its parts. A registry has a dot or a port, or is `localhost`: anything else would read back as a namespace.
    ///
    /// # Errors
    ///
    /// [`NameFault`], naming the first part that is not of the grammar.
    pub fn new(
        registry: &str,
        repository: &str,
        tag: Option<String>,
        digest: Option<Digest>,
    ) -> Result<Self, NameFault> {
        // One spelling of each name: two would be looked up under two scopes.
        let registry = if OLD_REGISTRIES.contains(&registry) { DEFAULT_REGISTRY } else { registry };
        let official = registry == DEFAULT_REGISTRY && !repository.contains('/');
        let repository = if official { format!("library/{repository}") } else { repository.to_owned() };
        if !is_registry(registry) {
            return Err(NameFault { expected: "a registry: a lower-case host and perhaps a port" });
        }
        if !is_repository(&repository) || registry.len() + 1 + repository.len() > NAME_MAX {
            return Err(NameFault { expected: "a repository of lower-case components, 255 bytes at most" });
        }
        if !tag.as_deref().is_none_or(is_tag) {
            return Err(NameFault { expected: "a tag of 1 to 128 letters, digits, '_', '.' and '-'" });
        }
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }

    /// Host and perhaps port.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path in the registry.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if there is one.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if there is one.
    #[must_use]
    pub const fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// `registry/repository`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Whether the first component of a name is a registry rather than a namespace.
fn is_registry_part(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// A host, perhaps with a port, that is no namespace, in the one spelling that it has.
pub(crate) fn is_registry(text: &str) -> bool {
    let end = text.find(']').map_or_else(|| text.find(':').unwrap_or(text.len()), |end| end + 1);
    let Some((host, port)) = text.split_at_checked(end) else { return false };
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|number| number.to_string() == port);
    is_registry_part(text)
        && !OLD_REGISTRIES.contains(&text)
        && (is_host(host) || is_address(host))
        && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

/// Labels of lower-case letters, digits and inner hyphens. What ends in a number is an address of version 4.
pub(crate) fn is_host(host: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    };
    let numeric =
        host.rsplit('.').next().is_some_and(|last| last.starts_with(|first: char| first.is_ascii_digit()));
    host.len() <= NAME_MAX && host.split('.').all(label) && (!numeric || host.parse::<Ipv4Addr>().is_ok())
}

/// An address of version 6 in brackets.
fn is_address(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or_default();
    address.parse::<Ipv6Addr>().is_ok_and(|parsed| parsed.to_string() == address)
}

/// Components of letters and digits with single separators `.`, `_`, `__` or any number of `-` between them.
pub(crate) fn is_repository(path: &str) -> bool {
    path.len() <= NAME_MAX && path.split('/').all(is_component)
}

fn is_component(component: &str) -> bool {
    let is_word = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9');
    let ends = component.bytes().next().is_some_and(is_word) && component.bytes().last().is_some_and(is_word);
    ends && component
        .split(|character: char| character.is_ascii_lowercase() || character.is_ascii_digit())
        .all(|between| matches!(between, "" | "." | "_" | "__") || between.bytes().all(|byte| byte == b'-'))
}

pub(crate) fn is_tag(tag: &str) -> bool {
    (1..=TAG_MAX).contains(&tag.len())
        && !tag.starts_with(['.', '-'])
        && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

#[cfg(test)]
mod tests;
