//! `[[credentials]]`: which resource goes to which file.

use std::path::Path;

use attestation_agent::kbs::ResourceUri;
use serde::Deserialize;

use crate::hub_error::{HubError, shown};

/// The directory that all credentials are below.
pub const CREDENTIALS: &str = "/run/confidential-containers/cdh/kbs";
/// Most credentials.
pub const MAXIMUM_CREDENTIALS: usize = 64;
const MAXIMUM_PATH_BYTES: usize = 1024;
const MAXIMUM_NAME_BYTES: usize = 240;
/// Names that begin like this are ours: files that are not complete.
pub(crate) const PARTIAL: &str = ".partial-";

/// A resource and the file that it is written to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawCredential")]
pub struct Credential {
    /// The resource.
    pub resource: ResourceUri,
    /// The file.
    pub path: CredentialPath,
}

/// The place of a credential below [`CREDENTIALS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialPath {
    relative: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCredential {
    resource_uri: String,
    path: String,
}

impl TryFrom<RawCredential> for Credential {
    type Error = HubError;

    fn try_from(raw: RawCredential) -> Result<Self, HubError> {
        Ok(Self { resource: ResourceUri::parse(&raw.resource_uri)?, path: CredentialPath::parse(&raw.path)? })
    }
}

impl CredentialPath {
    /// Reads a path: below `/run/confidential-containers/cdh/kbs/`, without empty segments, `.`, `..` and control characters.
    ///
    /// # Errors
    ///
    /// `CDH_CREDENTIAL_PATH`.
    pub fn parse(path: &str) -> Result<Self, HubError> {
        let bad = |expected| HubError::CredentialPath { expected, found: shown(path) };
        let relative = path.strip_prefix(CREDENTIALS).and_then(|rest| rest.strip_prefix('/'));
        // GUARD: credential-below -> evil_configuration_writes_credentials_elsewhere
        if relative.is_none() {
            return Err(bad("a file below /run/confidential-containers/cdh/kbs"));
        }
        let relative = relative.unwrap_or(path);
        // GUARD: credential-segments -> evil_configuration_writes_credentials_elsewhere
        if !relative.split('/').all(is_segment) || path.len() > MAXIMUM_PATH_BYTES {
            return Err(bad("segments of 1 to 240 bytes without control characters, and none . or .."));
        }
        Ok(Self { relative: relative.to_owned() })
    }

    /// The path below the directory of credentials.
    #[must_use]
    pub fn relative(&self) -> &Path {
        Path::new(&self.relative)
    }

    /// Whether one is the other, or a directory above it.
    fn overlaps(&self, other: &Self) -> bool {
        self.relative().starts_with(other.relative()) || other.relative().starts_with(self.relative())
    }
}

fn is_segment(segment: &str) -> bool {
    (1..=MAXIMUM_NAME_BYTES).contains(&segment.len())
        && !matches!(segment, "." | "..")
        && !segment.starts_with(PARTIAL)
        && !segment.chars().any(char::is_control)
}

/// Not too many, and no two in one place.
pub(super) fn require_apart(credentials: &[Credential]) -> Result<(), HubError> {
    if credentials.len() > MAXIMUM_CREDENTIALS {
        let found = credentials.len();
        let reason = format!("credentials: expected at most {MAXIMUM_CREDENTIALS}, found {found}");
        return Err(HubError::ConfigInvalid { reason });
    }
    for (index, one) in credentials.iter().enumerate() {
        let mut others = credentials.iter().skip(index.saturating_add(1));
        if let Some(other) = others.find(|other| one.path.overlaps(&other.path)) {
            let found = shown(&other.path.relative);
            return Err(HubError::CredentialPath { expected: "a place of its own", found });
        }
    }
    Ok(())
}
