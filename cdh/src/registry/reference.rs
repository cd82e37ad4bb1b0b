//! Image references: `[registry[:port]/]repository[:tag][@digest]`.
//!
//! The grammar is that of the distribution project's `reference` package, with its normalisation: what names no registry is at
//! `docker.io`, there with `library/` in front if it has no namespace; without tag and digest the tag is `latest`. No list of
//! registries is searched: a short name must not mean what a stranger pushed first.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::digest::Digest;
use super::error::{RegistryError, shown};

/// Longest reference in bytes.
pub const REFERENCE_MAX: usize = 1_024;
const NAME_MAX: usize = 255;
const TAG_MAX: usize = 128;
const HOST_MAX: usize = 253;
pub(super) const DOCKER: &str = "docker.io";

/// A reference that was read and normalised.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Reads a reference of at most [`REFERENCE_MAX`] bytes.
    ///
    /// # Errors
    ///
    /// `REGISTRY_REFERENCE`, saying what was expected.
    pub fn parse(text: &str) -> Result<Self, RegistryError> {
        let bad = |expected| RegistryError::Reference { expected, found: shown(text) };
        // Nothing that the rules below accept is longer.
        if text.len() > REFERENCE_MAX {
            return Err(bad("at most 1024 bytes"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(Digest::parse(digest)?)),
            None => (text, None),
        };
        let slash = rest.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match rest.get(slash..).and_then(|last| last.split_once(':')) {
            Some((last, tag)) => (rest.get(..slash + last.len()).unwrap_or_default(), Some(tag)),
            None => (rest, None),
        };
        if !tag.is_none_or(is_tag) {
            return Err(bad(
                "a tag of 1 to 128 letters, digits, '_', '.' and '-', not starting with '.' or '-'",
            ));
        }
        let (registry, repository) = split_registry(name);
        let registry = normal_registry(registry).ok_or_else(|| bad("a host name or address, and a port"))?;
        // In lower case it would be a part of a repository: what is shown and compared would be another image.
        // GUARD: reference-one-meaning -> evil_reference_that_changes_its_meaning
        if split_registry(&format!("{registry}/x")).0 != registry {
            return Err(bad("a registry with '.', a port, or localhost"));
        }
        let repository = if registry == DOCKER && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository.to_owned()
        };
        // GUARD: reference-repository -> evil_references_are_refused
        if !is_repository(&repository) || registry.len() + 1 + repository.len() > NAME_MAX {
            return Err(bad(
                "a repository of lower-case letters and digits, with single '.', '_', '__' or '-' between, at most 255 bytes",
            ));
        }
        let tag = match (tag, digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { registry, repository, tag, digest })
    }

    /// Host, with the port if one is written. `docker.io` is a name, not where its registry listens.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Path of the repository in its registry.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// `registry/repository`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The tag. There is none only where there is a digest.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, which decides if there is a tag too.
    #[must_use]
    pub const fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same name with this digest and no tag.
    #[must_use]
    pub fn pinned(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The same name with this tag and no digest.
    ///
    /// # Errors
    ///
    /// `REGISTRY_REFERENCE`.
    pub fn tagged(&self, tag: &str) -> Result<Self, RegistryError> {
        if !is_tag(tag) {
            return Err(RegistryError::Reference { expected: "a tag", found: shown(tag) });
        }
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// What the manifest is asked for by: the digest, else the tag.
    pub(super) fn selector(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.clone().unwrap_or_else(|| "latest".to_owned()),
        }
    }

    /// The same tag and digest under another name; the name is read again.
    pub(super) fn renamed(&self, name: &str) -> Result<Self, RegistryError> {
        let mut renamed = Self::parse(name)?;
        renamed.tag.clone_from(&self.tag);
        renamed.digest = self.digest;
        Ok(renamed)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.as_ref().map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

/// The first part is a registry if it looks like a host; else all of it is at the default registry.
fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':', '[']) || first == "localhost" || first.to_lowercase() != first =>
        {
            (first, rest)
        }
        _ => (DOCKER, name),
    }
}

/// A host and port in their one form: lower case, no leading zeros, aliases of Docker's registry resolved.
pub(super) fn normal_registry(text: &str) -> Option<String> {
    let (host, port) = split_port(text)?;
    let host = normal_host(host)?;
    if port.is_none() && matches!(host.as_str(), "index.docker.io" | "registry-1.docker.io") {
        return Some(DOCKER.to_owned());
    }
    Some(match port {
        Some(port) => format!("{host}:{port}"),
        None => host,
    })
}

/// Host (IPv6 in brackets) and port.
pub(super) fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let end = match authority.find(']') {
        Some(end) => end + 1,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at_checked(end)?;
    if rest.is_empty() {
        return Some((host, None));
    }
    let port = rest.strip_prefix(':')?;
    let digits = port.bytes().all(|byte| byte.is_ascii_digit()) && !port.starts_with('0');
    Some((host, Some(port.parse().ok().filter(|_| digits)?)))
}

/// A host in lower case, or an address in its one form. Numbers that some resolvers take for addresses are refused.
pub(super) fn normal_host(host: &str) -> Option<String> {
    if let Some(inner) = host.strip_prefix('[') {
        let address: Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
        return Some(format!("[{address}]"));
    }
    let last = host.rsplit('.').next().unwrap_or_default();
    if last.starts_with(|first: char| first.is_ascii_digit()) {
        // GUARD: reference-numeric-host -> evil_references_are_refused
        return host.parse::<Ipv4Addr>().ok().map(|address| address.to_string());
    }
    let valid = host.len() <= HOST_MAX && host.split('.').all(is_label);
    valid.then(|| host.to_ascii_lowercase())
}

fn is_label(label: &str) -> bool {
    let ends = |end: Option<&u8>| end.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = label.as_bytes();
    bytes.len() <= 63
        && ends(bytes.first())
        && ends(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// Whether a path is one of a repository.
pub(super) fn is_repository(path: &str) -> bool {
    path.split('/').all(|part| {
        let mut rest = part;
        loop {
            let word = rest.find(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit());
            if word == Some(0) || rest.is_empty() {
                return false;
            }
            let Some((_, after)) = word.and_then(|at| rest.split_at_checked(at)) else { return true };
            rest = match after.as_bytes() {
                [b'_', b'_', ..] => after.get(2..).unwrap_or_default(),
                [b'.' | b'_', ..] => after.get(1..).unwrap_or_default(),
                [b'-', ..] => after.trim_start_matches('-'),
                _ => return false,
            };
        }
    })
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=TAG_MAX).contains(&tag.len())
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

#[cfg(test)]
mod tests;
