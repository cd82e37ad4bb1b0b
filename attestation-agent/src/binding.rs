//! Which configuration counts: the one that the platform vouches for (invariant 5 of ARCHITECTURE.md).
//!
//! Initdata counts only after a digest of its exact bytes is found in the register; only then is it parsed. A digest
//! from the command line is compared and never believed. A configuration file has to be the one in bound initdata.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use initdata::{Initdata, InitdataError, MAXIMUM_TEXT_BYTES, Register, Unverified};

use crate::attester::{Attester, Bound};
use crate::config::{AgentConfig, MAXIMUM_CONFIG_BYTES};
use crate::error::{AttestationError, BindingError};
use crate::provider::InitdataRegister;

/// Longest initdata.
pub const MAXIMUM_INITDATA_BYTES: usize = MAXIMUM_TEXT_BYTES;

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

impl Binding {
    /// Decides which configuration counts.
    ///
    /// # Errors
    /// See [`BindingError`]; those of reading the register.
    pub fn decide(attester: &Attester, launch: &Launch<'_>) -> Result<Self, AttestationError> {
        let bound = launched_initdata(attester, launch)?;
        let named = bound.as_ref().and_then(|bound| bound.document().aa_config());
        let config = launched_config(attester, launch, named, "the aa.toml of bound initdata")?;
        let config = config.map_or_else(|| Ok(AgentConfig::default()), |text| AgentConfig::parse(&text))?;
        Ok(Self { config, initdata: bound.map(|bound| bound.text().to_owned()) })
    }
}

/// The initdata that a program was launched with, if there is any: its digest was found in the register before it was parsed. None is
/// accepted only where the register is zero, or is not there.
///
/// # Errors
/// See [`BindingError`]; those of reading the register.
pub fn launched_initdata(
    attester: &Attester,
    launch: &Launch<'_>,
) -> Result<Option<Initdata>, AttestationError> {
    let register = attester.initdata_register()?;
    if let Some(digest) = launch.initdata_digest
        && attester.bind_initdata(digest)? == Bound::NotSupported
    {
        return Err(no_register(attester).into());
    }
    let initdata = launch.initdata_toml.map(|path| read(path, MAXIMUM_INITDATA_BYTES)).transpose()?;
    Ok(match (initdata, register) {
        (Some(text), Some(register)) => Some(bind(text, &register)?),
        (Some(text), None) if counts_unbound(attester, launch) => {
            let document = Unverified::new(text.into_bytes()).and_then(Unverified::insecure_unbound);
            Some(document.map_err(refused)?)
        }
        (Some(_), None) => return Err(no_register(attester).into()),
        (None, Some(register)) if launch.initdata_digest.is_none() => {
            not_withheld(&register)?;
            None
        }
        (None, _) => None,
    })
}

/// The text of the configuration that counts: `bound`, which is that of bound initdata. A file is accepted only if it is the same, byte for
/// byte; `expected` says in an error what it should have been.
///
/// # Errors
/// `ATTEST_CONFIG_UNBOUND`; the file cannot be read.
pub fn launched_config(
    attester: &Attester,
    launch: &Launch<'_>,
    bound: Option<&str>,
    expected: &'static str,
) -> Result<Option<String>, AttestationError> {
    let Some(path) = launch.config_file else { return Ok(bound.map(str::to_owned)) };
    let text = read(path, MAXIMUM_CONFIG_BYTES)?;
    let same = bound == Some(text.as_str());
    // GUARD: config-file-bound -> evil_host_configuration_that_nothing_vouches_for
    if !same && !counts_unbound(attester, launch) {
        return Err(BindingError::ConfigUnbound { path: path.display().to_string(), expected }.into());
    }
    Ok(Some(text))
}

/// Whether files count although nothing vouches for them: asked for by name, and only outside a TEE.
fn counts_unbound(attester: &Attester, launch: &Launch<'_>) -> bool {
    launch.insecure_unbound_config && !attester.insecure_modes().is_empty()
}

/// The exact text of an initdata file, for whoever needs it alone: its digest was found in the register before it was
/// parsed, and it names the algorithm of that digest.
///
/// # Errors
/// See [`BindingError`]; those of reading the register.
pub fn bound_initdata(attester: &Attester, path: &Path) -> Result<String, AttestationError> {
    Ok(bound_document(attester, path)?.text().to_owned())
}

/// As [`bound_initdata`], with what the document says.
///
/// # Errors
/// As [`bound_initdata`].
pub fn bound_document(attester: &Attester, path: &Path) -> Result<Initdata, AttestationError> {
    let register = attester.initdata_register()?.ok_or_else(|| no_register(attester))?;
    Ok(bind(read(path, MAXIMUM_INITDATA_BYTES)?, &register)?)
}

/// The document, if the register holds the digest of its exact bytes by the algorithm that it names.
fn bind(text: String, register: &InitdataRegister) -> Result<Initdata, BindingError> {
    let bound = Register::new(register.name, &register.value)
        .and_then(|held| Unverified::new(text.into_bytes())?.bind(&held));
    bound.map_err(|error| match error {
        InitdataError::Mismatch { expected, found, .. } => {
            BindingError::Mismatch { register: register.name, expected, found }
        }
        other => refused(other),
    })
}

#[expect(clippy::needless_pass_by_value, reason = "what `map_err` takes")]
fn refused(error: InitdataError) -> BindingError {
    let text = error.to_string();
    // Both errors begin with the word.
    let reason = text.strip_prefix("initdata").unwrap_or(&text).trim_start_matches([':', ' ']);
    BindingError::Invalid { reason: reason.to_owned() }
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
