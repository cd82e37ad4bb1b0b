//! Which configuration counts: the one that the platform vouches for (invariant 5 of ARCHITECTURE.md).
//!
//! Initdata counts only after a digest of its exact bytes is found in the register; only then is it parsed. A digest
//! from the command line is compared and never believed. A configuration file has to be the one in bound initdata.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde::Deserialize;
use sha2::{Digest, Sha256, Sha384, Sha512};

use crate::attester::{Attester, Bound};
use crate::config::{AgentConfig, MAXIMUM_CONFIG_BYTES};
use crate::error::{AttestationError, BindingError};
use crate::provider::InitdataRegister;

/// Longest initdata.
pub const MAXIMUM_INITDATA_BYTES: usize = 8 * 1024 * 1024;
const VERSION: &str = "0.1.0";
const CONFIG: &str = "aa.toml";

/// What the agent was started with. Nothing of it is trusted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Launch<'a> {
    /// `--config-file`.
    pub config_file: Option<&'a Path>,
    /// `--initdata-digest`, decoded.
    pub initdata_digest: Option<&'a [u8]>,
    /// `--initdata-toml`.
    pub initdata_toml: Option<&'a Path>,
    /// `--insecure-unbound-config`: files count although nothing vouches for them. Only outside a TEE.
    pub insecure_unbound_config: bool,
}

/// What the platform vouches for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Binding {
    /// The configuration.
    pub config: AgentConfig,
    /// The exact text of initdata.
    pub initdata: Option<String>,
}

/// The document, after its digest was found in the register.
#[derive(Deserialize)]
struct Document {
    version: String,
    algorithm: String,
    data: BTreeMap<String, String>,
}

impl Binding {
    /// Decides which configuration counts.
    ///
    /// # Errors
    /// See [`BindingError`]; those of reading the register.
    pub fn decide(attester: &Attester, launch: &Launch<'_>) -> Result<Self, AttestationError> {
        let register = attester.initdata_register()?;
        let unbound = launch.insecure_unbound_config && !attester.insecure_modes().is_empty();
        if let Some(digest) = launch.initdata_digest
            && attester.bind_initdata(digest)? == Bound::NotSupported
        {
            return Err(no_register(attester).into());
        }
        let initdata = launch.initdata_toml.map(|path| read(path, MAXIMUM_INITDATA_BYTES)).transpose()?;
        let mut binding = Self::default();
        let mut bound_config = None;
        match (initdata, register) {
            (Some(text), Some(register)) => {
                let algorithm = matching(text.as_bytes(), &register)?;
                bound_config = document(&text, Some(algorithm))?.data.remove(CONFIG);
                binding.initdata = Some(text);
            }
            (Some(text), None) if unbound => {
                bound_config = document(&text, None)?.data.remove(CONFIG);
                binding.initdata = Some(text);
            }
            (Some(_), None) => return Err(no_register(attester).into()),
            (None, Some(register)) if launch.initdata_digest.is_none() => not_withheld(&register)?,
            (None, _) => {}
        }
        if let Some(path) = launch.config_file {
            let text = read(path, MAXIMUM_CONFIG_BYTES)?;
            let same = bound_config.as_ref() == Some(&text);
            // GUARD: config-file-bound -> evil_host_configuration_that_nothing_vouches_for
            if !same && !unbound {
                return Err(BindingError::ConfigUnbound {
                    path: path.display().to_string(),
                    expected: "the aa.toml of bound initdata",
                }
                .into());
            }
            bound_config = Some(text);
        }
        if let Some(text) = bound_config {
            binding.config = AgentConfig::parse(&text)?;
        }
        Ok(binding)
    }
}

/// The exact text of an initdata file, for whoever needs it alone: its digest was found in the register before it was
/// parsed, and it names the algorithm of that digest.
///
/// # Errors
/// See [`BindingError`]; those of reading the register.
pub fn bound_initdata(attester: &Attester, path: &Path) -> Result<String, AttestationError> {
    let register = attester.initdata_register()?.ok_or_else(|| no_register(attester))?;
    let text = read(path, MAXIMUM_INITDATA_BYTES)?;
    document(&text, Some(matching(text.as_bytes(), &register)?))?;
    Ok(text)
}

/// The algorithm whose digest of `bytes` the register holds.
fn matching(bytes: &[u8], register: &InitdataRegister) -> Result<&'static str, BindingError> {
    let digests = [
        ("sha256", Sha256::digest(bytes).to_vec()),
        ("sha384", Sha384::digest(bytes).to_vec()),
        ("sha512", Sha512::digest(bytes).to_vec()),
    ];
    let mut held = digests.iter().filter(|(_, digest)| register.holds(digest));
    match (held.next(), held.next()) {
        (Some((algorithm, _)), None) => Ok(algorithm),
        _ => Err(BindingError::Mismatch {
            register: register.name,
            expected: hex::encode(&register.value),
            found: format!("SHA-256 {}", hex::encode(Sha256::digest(bytes))),
        }),
    }
}

fn document(text: &str, algorithm: Option<&str>) -> Result<Document, BindingError> {
    let refused = |reason: String| BindingError::Invalid { reason };
    let document: Document = toml::from_str(text).map_err(|error| refused(error.message().to_owned()))?;
    // GUARD: initdata-version -> evil_host_initdata_of_another_version_or_algorithm
    if document.version != VERSION {
        return Err(refused(format!("version: expected {VERSION}, found {:.16}", document.version)));
    }
    let differs = algorithm.is_some_and(|algorithm| algorithm != document.algorithm);
    // GUARD: initdata-algorithm -> evil_host_initdata_of_another_version_or_algorithm
    if differs {
        let expected = algorithm.unwrap_or_default();
        return Err(refused(format!("algorithm: expected {expected}, found {:.16}", document.algorithm)));
    }
    Ok(document)
}

fn not_withheld(register: &InitdataRegister) -> Result<(), BindingError> {
    // GUARD: initdata-withheld -> evil_host_withholds_initdata
    if !register.is_zero() {
        return Err(BindingError::Withheld { register: register.name, found: hex::encode(&register.value) });
    }
    Ok(())
}

fn no_register(attester: &Attester) -> BindingError {
    BindingError::NoRegister { platform: attester.tee().name() }
}

/// A text of at most `maximum` bytes, read once.
fn read(path: &Path, maximum: usize) -> Result<String, BindingError> {
    let name = || path.display().to_string();
    let failed = |source| BindingError::Io { path: name(), source };
    let limit = u64::try_from(maximum).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)).map_err(failed)?;
    // GUARD: launch-file-cap -> evil_host_oversize_launch_files
    if bytes.len() > maximum {
        return Err(BindingError::Invalid {
            reason: format!("{}: expected at most {maximum} bytes", name()),
        });
    }
    String::from_utf8(bytes).map_err(|_| BindingError::Invalid { reason: format!("{}: no UTF-8", name()) })
}

#[cfg(test)]
mod tests;
