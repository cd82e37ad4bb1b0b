//! The document: version, algorithm, files. Parsed only after its digest was found, or for those who only look.

pub(crate) mod audit;
pub(crate) mod container_identity;
pub(crate) mod sealed;
pub(crate) mod settings;
pub(crate) mod values;

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::{InitdataError, shown};
use crate::register::Algorithm;
use audit::AuditConfig;
use sealed::SealedConfig;
use settings::Settings;

/// The version of documents.
pub const VERSION: &str = "0.1.0";
/// Most files of a document.
pub const MAXIMUM_FILES: usize = 64;
/// Longest file with a form that is known here, in bytes; `policy.rego` and others are bounded by the document.
pub const MAXIMUM_CONFIG_BYTES: usize = 256 * 1024;
/// Longest name of a file in bytes.
const MAXIMUM_NAME_BYTES: usize = 255;

const POLICY: &str = "policy.rego";
const AA: &str = "aa.toml";
const CDH: &str = "cdh.toml";
const SEALED: &str = "sealed.toml";
const AUDIT: &str = "audit.toml";
const SETTINGS: &str = "innerkeep.toml";

/// The name of a file in a document: one path component of printable characters, at most 255 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName(String);

impl FileName {
    /// Parses a name.
    ///
    /// # Errors
    /// `INITDATA_FILE`.
    pub fn parse(name: &str) -> Result<Self, InitdataError> {
        let fits = (1..=MAXIMUM_NAME_BYTES).contains(&name.len());
        let plain = !name.contains('/') && !name.chars().any(char::is_control);
        // GUARD: initdata-file-name -> names_of_files_are_one_component
        if !fits || !plain || matches!(name, "." | "..") {
            return Err(InitdataError::File {
                file: shown(name),
                reason: "expected a name of one path component, 1 to 255 bytes, without control characters"
                    .to_owned(),
            });
        }
        Ok(Self(name.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A document of version 0.1.0. Files whose form is known here are parsed with it: what nobody can use is refused at the
/// beginning.
#[derive(Clone, PartialEq, Eq)]
pub struct Document {
    algorithm: Algorithm,
    files: BTreeMap<FileName, String>,
    sealed: Option<SealedConfig>,
    audit: Option<AuditConfig>,
    settings: Settings,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    version: String,
    algorithm: String,
    data: BTreeMap<String, String>,
}

impl Document {
    /// Parses a document. Keys occur once, and there are no others than `version`, `algorithm` and `data`.
    ///
    /// # Errors
    /// `INITDATA_DOCUMENT`, `INITDATA_VERSION`, `INITDATA_ALGORITHM`, `INITDATA_FILE`, `INITDATA_TOO_LARGE`.
    pub fn parse(text: &str) -> Result<Self, InitdataError> {
        let raw: Raw =
            toml::from_str(text).map_err(|error| InitdataError::Document { reason: reason(text, &error) })?;
        // GUARD: initdata-version -> evil_operator_document_of_another_version
        if raw.version != VERSION {
            return Err(InitdataError::Version { expected: VERSION, found: shown(&raw.version) });
        }
        let algorithm = Algorithm::parse(&raw.algorithm)?;
        if raw.data.len() > MAXIMUM_FILES {
            return Err(InitdataError::too_large("files", MAXIMUM_FILES, raw.data.len()));
        }
        let named = raw.data.into_iter().map(|(name, text)| Ok((FileName::parse(&name)?, text)));
        Self::of(algorithm, named.collect::<Result<_, InitdataError>>()?)
    }

    /// A document of these files.
    pub(crate) fn of(algorithm: Algorithm, files: BTreeMap<FileName, String>) -> Result<Self, InitdataError> {
        for name in [AA, CDH] {
            config(&files, name)?;
        }
        let sealed = parsed(&files, SEALED)?;
        let audit = parsed(&files, AUDIT)?;
        let settings = parsed(&files, SETTINGS)?.unwrap_or_default();
        Ok(Self { algorithm, files, sealed, audit, settings })
    }

    /// By which algorithm its digest is made.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// `policy.rego`: the policy of the guest agent.
    #[must_use]
    pub fn policy(&self) -> Option<&str> {
        self.file(POLICY)
    }

    /// `aa.toml`: the configuration of the attestation agent.
    #[must_use]
    pub fn aa_config(&self) -> Option<&str> {
        self.file(AA)
    }

    /// `cdh.toml`: the configuration of the confidential data hub.
    #[must_use]
    pub fn cdh_config(&self) -> Option<&str> {
        self.file(CDH)
    }

    /// `sealed.toml`: which artifacts are landed, for whom.
    #[must_use]
    pub const fn sealed(&self) -> Option<&SealedConfig> {
        self.sealed.as_ref()
    }

    /// `audit.toml`: whom audit records are sealed to.
    #[must_use]
    pub const fn audit(&self) -> Option<&AuditConfig> {
        self.audit.as_ref()
    }

    /// `innerkeep.toml`: insecure modes, routes of containers, policies that may follow. Nothing of it without the file.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The text of a file.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&str> {
        self.files.iter().find(|(found, _)| found.as_str() == name).map(|(_, text)| text.as_str())
    }

    /// All files, by name.
    pub fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(name, text)| (name.as_str(), text.as_str()))
    }

    /// Files that nobody here knows: kept and measured, and otherwise of no effect.
    pub fn other_files(&self) -> impl Iterator<Item = (&str, &str)> {
        let known = [POLICY, AA, CDH, SEALED, AUDIT, SETTINGS];
        self.files().filter(move |(name, _)| !known.contains(name))
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.files().map(|(name, _)| name).collect();
        f.debug_struct("Document")
            .field("algorithm", &self.algorithm)
            .field("files", &names)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// The text of a file with a form.
fn config<'a>(
    files: &'a BTreeMap<FileName, String>,
    name: &str,
) -> Result<Option<&'a String>, InitdataError> {
    let text = files.iter().find(|(found, _)| found.as_str() == name).map(|(_, text)| text);
    let length = text.map_or(0, String::len);
    // GUARD: initdata-config-cap -> evil_operator_oversize_file
    if length > MAXIMUM_CONFIG_BYTES {
        return Err(InitdataError::too_large("bytes of a configuration file", MAXIMUM_CONFIG_BYTES, length));
    }
    Ok(text)
}

fn parsed<T: DeserializeOwned>(
    files: &BTreeMap<FileName, String>,
    name: &str,
) -> Result<Option<T>, InitdataError> {
    let Some(text) = config(files, name)? else { return Ok(None) };
    let refused = |error| InitdataError::File { file: name.to_owned(), reason: reason(text, &error) };
    toml::from_str(text).map(Some).map_err(refused)
}

/// What a TOML parser says, with the line.
fn reason(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    let message: String = error.message().chars().take(256).collect();
    match before {
        Some(before) => format!("line {}: {message}", before.matches('\n').count().saturating_add(1)),
        None => message,
    }
}

#[cfg(test)]
mod tests;
