//! Insecure modes of process 1: asked for by a file of the initramfs, which is measured, and by nothing else.
//!
//! ```toml
//! insecure = ["unbound-initdata"]
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{OFlags, fstatfs};
use serde::Deserialize;

use crate::error::AgentError;
use crate::tee::Platform;

/// The file.
pub const PATH: &str = "/etc/innerkeep/insecure.toml";
const MAXIMUM_BYTES: u64 = 4096;
/// An initramfs is one of these (`linux/magic.h`).
const RAMFS_MAGIC: u64 = 0x8584_58F6;
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// One insecure mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum InsecureMode {
    /// Initdata counts although nothing vouches for it.
    UnboundInitdata,
}

impl InsecureMode {
    /// Its name in the file and in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnboundInitdata => "unbound-initdata",
        }
    }
}

/// The modes that are on; by default none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InsecureModes(Vec<InsecureMode>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    insecure: Vec<InsecureMode>,
}

impl InsecureModes {
    /// Reads the text of the file. A mode that nobody knows is an error, not a mode that is off.
    ///
    /// # Errors
    /// `AGENT_INSECURE_FILE`.
    pub fn parse(text: &str) -> Result<Self, AgentError> {
        let document: Document = toml::from_str(text).map_err(|error| refused(error.message()))?;
        let mut modes = document.insecure;
        modes.sort_unstable();
        modes.dedup();
        Ok(Self(modes))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a mode is on.
    #[must_use]
    pub fn has(&self, mode: InsecureMode) -> bool {
        self.0.contains(&mode)
    }

    /// Names, in order.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(|mode| mode.name()).collect()
    }
}

/// The modes of this guest.
pub(crate) fn read(platform: &Platform) -> Result<InsecureModes, AgentError> {
    read_at(Path::new(PATH), Path::new("/"), || platform.sign(), is_initramfs)
}

fn read_at(
    path: &Path,
    root: &Path,
    sign: impl FnOnce() -> Option<String>,
    is_initramfs: impl FnOnce(&File) -> io::Result<bool>,
) -> Result<InsecureModes, AgentError> {
    let no_link = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
    let file = match OpenOptions::new().read(true).custom_flags(no_link).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(InsecureModes::default()),
        Err(error) => return Err(refused(&error.to_string())),
    };
    let system = |error: io::Error| refused(&error.to_string());
    let (found, root) = (file.metadata().map_err(system)?, fs::metadata(root).map_err(system)?);
    let is_measured = found.dev() == root.dev() && is_initramfs(&file).map_err(system)?;
    // GUARD: insecure-file-measured -> evil_host_insecure_file_on_a_disk
    if !is_measured {
        return Err(refused(
            "expected a file of the initramfs, which is measured, found one of another file system",
        ));
    }
    // GUARD: insecure-file-size -> an_oversize_file_is_refused
    if found.len() > MAXIMUM_BYTES {
        return Err(refused(&format!("expected at most {MAXIMUM_BYTES} bytes, found {}", found.len())));
    }
    let mut text = String::new();
    file.take(MAXIMUM_BYTES).read_to_string(&mut text).map_err(system)?;
    let modes = InsecureModes::parse(&text)?;
    let sign = sign().filter(|_| !modes.is_empty());
    // GUARD: insecure-pid1-off-tee -> evil_operator_insecure_file_in_a_tee
    if let Some(found) = sign {
        return Err(AgentError::InsecureOnTee { found });
    }
    Ok(modes)
}

fn is_initramfs(file: &File) -> io::Result<bool> {
    let magic = u64::try_from(fstatfs(file)?.f_type).unwrap_or_default();
    Ok(matches!(magic, RAMFS_MAGIC | TMPFS_MAGIC))
}

fn refused(reason: &str) -> AgentError {
    AgentError::InsecureFile { path: PATH.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ON: &str = "insecure = [\"unbound-initdata\"]\n";

    fn outcome(text: &str, sign: Option<&str>, measured: bool) -> Result<InsecureModes, &'static str> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("insecure.toml");
        fs::write(&path, text).unwrap();
        let sign = sign.map(str::to_owned);
        read_at(&path, directory.path(), || sign, |_| Ok(measured)).map_err(|error| error.code())
    }

    #[test]
    fn modes_are_read_from_the_measured_file() {
        let modes = outcome(ON, None, true).unwrap();
        assert_eq!(modes.names(), ["unbound-initdata"]);
        assert!(modes.has(InsecureMode::UnboundInitdata));
        assert_eq!(outcome("insecure = []\n", Some("cpuid SEV"), true), Ok(InsecureModes::default()));
    }

    #[test]
    fn without_the_file_no_mode_is_on() {
        let directory = tempfile::tempdir().unwrap();
        let modes = read_at(&directory.path().join("absent"), directory.path(), || None, |_| Ok(true));
        assert!(modes.unwrap().is_empty());
    }

    #[test]
    fn evil_host_insecure_file_on_a_disk() {
        assert_eq!(outcome(ON, None, false), Err("AGENT_INSECURE_FILE"));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("insecure.toml");
        fs::write(&path, ON).unwrap();
        // On another file system than the root.
        let read = read_at(&path, Path::new("/proc"), || None, |_| Ok(true));
        assert_eq!(read.unwrap_err().code(), "AGENT_INSECURE_FILE");
    }

    #[test]
    fn evil_operator_insecure_file_in_a_tee() {
        assert_eq!(outcome(ON, Some("cpuid IntelTDX"), true), Err("AGENT_INSECURE_ON_TEE"));
    }

    #[test]
    fn unknown_modes_and_keys_are_refused() {
        for text in
            ["insecure = [\"everything\"]\n", "unbound-initdata = true\n", "", "insecure = 1\n", "\u{0}"]
        {
            assert_eq!(outcome(text, None, true), Err("AGENT_INSECURE_FILE"), "{text}");
        }
    }

    #[test]
    fn an_oversize_file_is_refused() {
        let text = format!("{ON}# {}\n", "x".repeat(5000));
        assert_eq!(outcome(&text, None, true), Err("AGENT_INSECURE_FILE"));
        // What would be left of it is well-formed.
        assert!(InsecureModes::parse(&text[..4096]).is_ok());
    }

    #[test]
    fn a_link_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("target"), ON).unwrap();
        let path = directory.path().join("insecure.toml");
        std::os::unix::fs::symlink("target", &path).unwrap();
        let read = read_at(&path, directory.path(), || None, |_| Ok(true));
        assert_eq!(read.unwrap_err().code(), "AGENT_INSECURE_FILE");
    }
}
