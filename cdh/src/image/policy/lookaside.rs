//! Where simple signatures lie beside a registry: the configuration of containers-registries.d(5), and the files that it leads to
//! (`<base>/<repository>@<algorithm>=<hex>/signature-1`, `…-2`, and so on until there is none).
//!
//! The configuration is YAML, of which the documented form is read and nothing else: mappings of plain or quoted texts, one a line,
//! indented by spaces. Lists, anchors, tags, several documents and texts over several lines are refused. So are addresses other than
//! `file:///`: a guest fetches nothing from places that the policy of its network does not know.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;

use super::digest::Digest;
use super::error::{Cause, PolicyError};
use super::json::{JsonFault, quoted};
use super::name::ImageName;
use super::openpgp::MESSAGE_MAX;
use super::scope;
use super::source::SIGNATURES_MAX;

mod yaml;

/// Longest configuration, in bytes.
pub const LOOKASIDE_CONFIG_MAX: usize = 256 << 10;

/// Which directory holds the signatures of which images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LookasideConfig {
    default: Option<PathBuf>,
    docker: BTreeMap<String, Option<PathBuf>>,
}

impl LookasideConfig {
    /// Reads one configuration of at most [`LOOKASIDE_CONFIG_MAX`] bytes.
    ///
    /// # Errors
    ///
    /// `IMAGE_POLICY_MALFORMED`.
    pub fn parse(bytes: &[u8]) -> Result<Self, PolicyError> {
        Self::read_config(bytes).map_err(|source| PolicyError::Malformed {
            what: "configuration of signatures",
            place: "sigstore.yaml".to_owned(),
            source,
        })
    }

    fn read_config(bytes: &[u8]) -> Result<Self, JsonFault> {
        // GUARD: lookaside-size -> evil_configurations_of_signatures
        if bytes.len() > LOOKASIDE_CONFIG_MAX {
            return Err(JsonFault::new("at most 262144 bytes", bytes.len().to_string()));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| JsonFault::new("UTF-8", "other bytes"))?;
        let mut top = yaml::parse(text)?;
        let mut config = Self::default();
        if let Some(section) = top.remove("default-docker") {
            config.default = base(section)?;
        }
        if let Some(scopes) = top.remove("docker") {
            for (scope, section) in scopes.mapping("scopes")? {
                if !scope::is_scope(&scope) || scope.starts_with("*.") {
                    return Err(JsonFault::new("a scope in its expanded, lower-case form", quoted(&scope)));
                }
                config.docker.insert(scope, base(section)?);
            }
        }
        match top.into_keys().next() {
            Some(name) => Err(JsonFault::new("`default-docker` and `docker`", quoted(&name))),
            None => Ok(config),
        }
    }

    /// The directory for an image: that of its most precise scope, even when that scope has none.
    #[must_use]
    pub fn base(&self, name: &ImageName) -> Option<&PathBuf> {
        match scope::lookup(&self.docker, name) {
            Some((_, base)) => base.as_ref(),
            None => self.default.as_ref(),
        }
    }

    /// The simple signatures of a manifest: none when there is no directory for it.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or is longer than [`MESSAGE_MAX`], or more than [`SIGNATURES_MAX`] of them.
    pub fn read(&self, name: &ImageName, digest: &Digest) -> Result<Vec<Vec<u8>>, Cause> {
        let Some(base) = self.base(name) else { return Ok(Vec::new()) };
        let directory = format!("{}@{}={}", name.repository(), digest.algorithm().name(), digest.hex());
        let directory = base.join(directory);
        let mut signatures = Vec::new();
        loop {
            let number = signatures.len() + 1;
            let file = match File::open(directory.join(format!("signature-{number}"))) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(signatures),
                file => file?,
            };
            // GUARD: lookaside-count -> evil_directory_of_signatures
            if number > SIGNATURES_MAX {
                return Err(format!("more than {SIGNATURES_MAX} signatures").into());
            }
            let mut bytes = Vec::new();
            let bound = u64::try_from(MESSAGE_MAX)?.saturating_add(1);
            file.take(bound).read_to_end(&mut bytes)?;
            // GUARD: lookaside-file-size -> evil_directory_of_signatures
            if bytes.len() > MESSAGE_MAX {
                return Err(format!("a signature of more than {MESSAGE_MAX} bytes").into());
            }
            signatures.push(bytes);
        }
    }
}

/// The directory in a section. `sigstore` is the older name of `lookaside`.
fn base(section: yaml::Node) -> Result<Option<PathBuf>, JsonFault> {
    const READ: [&str; 2] = ["lookaside", "sigstore"];
    const UNUSED: [&str; 3] = ["lookaside-staging", "sigstore-staging", "use-sigstore-attachments"];
    let mut base = None;
    for (key, value) in section.mapping("a section")? {
        let text = value.text("a text")?;
        if READ.contains(&key.as_str()) {
            let path = text.strip_prefix("file://").filter(|path| path.starts_with('/'));
            let plain = |path: &&str| {
                !path.contains(['%', '?', '#', '\0']) && path.split('/').all(|part| part != "..")
            };
            let path = path.filter(plain).ok_or_else(|| JsonFault::new("a file:/// URL", quoted(&text)))?;
            if base.replace(PathBuf::from(path)).is_some() {
                return Err(JsonFault::new("`lookaside` or `sigstore`", "both"));
            }
        } else if !UNUSED.contains(&key.as_str()) {
            return Err(JsonFault::new("a documented key", quoted(&key)));
        }
    }
    Ok(base)
}

#[cfg(test)]
mod tests;
