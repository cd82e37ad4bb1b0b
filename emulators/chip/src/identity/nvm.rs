//! What the chip remembers without power: certificates, tier, floors, epoch. Written atomically.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use chip_client::abi::limits::MAX_FLOORS;

/// Largest file that is read back.
const MAX_BYTES: u64 = 4 << 20;

/// The chip could not read or write its memory.
#[derive(Debug, thiserror::Error)]
pub enum NvmError {
    /// No room for another floor.
    #[error("the chip's memory for rollback floors is full")]
    Full,
    /// A file operation failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file is not what this program writes.
    #[error("{path}: not a chip memory: {source}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: serde_json::Error,
    },
}

/// Given to the chip once by its maker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Provisioned {
    pub(crate) environment: String,
    #[serde(with = "hex")]
    pub(crate) model: Vec<u8>,
    #[serde(with = "hex")]
    pub(crate) chip: Vec<u8>,
    #[serde(with = "hex")]
    pub(crate) root: Vec<u8>,
    pub(crate) min_tcb_evaluation: u64,
    pub(crate) min_crl: u64,
}

/// Smallest counter accepted for one sealer and family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Floor {
    #[serde(with = "hex")]
    pub(crate) sealer: [u8; 32],
    pub(crate) family: String,
    pub(crate) counter: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    version: u32,
    key_epoch: u64,
    provisioned: Option<Provisioned>,
    floors: Vec<Floor>,
}

impl Default for Contents {
    fn default() -> Self {
        Self { version: 1, key_epoch: 1, provisioned: None, floors: Vec::new() }
    }
}

/// The memory and the file behind it. Each change is durable when the method that makes it returns.
#[derive(Debug)]
pub(crate) struct Nvm {
    path: PathBuf,
    contents: Contents,
}

impl Nvm {
    /// Writes the memory of a new chip.
    pub(crate) fn create(path: &Path) -> Result<Self, NvmError> {
        let nvm = Self { path: path.to_owned(), contents: Contents::default() };
        nvm.store(&nvm.contents)?;
        Ok(nvm)
    }

    pub(crate) fn load(path: &Path) -> Result<Self, NvmError> {
        let io_error = |source| NvmError::Io { path: path.to_owned(), source };
        let file = fs::File::open(path).map_err(io_error)?;
        let bytes = io::read_to_string(io::Read::take(file, MAX_BYTES)).map_err(io_error)?;
        let contents = serde_json::from_str(&bytes)
            .map_err(|source| NvmError::Malformed { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), contents })
    }

    pub(crate) fn key_epoch(&self) -> u64 {
        self.contents.key_epoch
    }

    pub(crate) fn provisioned(&self) -> Option<&Provisioned> {
        self.contents.provisioned.as_ref()
    }

    pub(crate) fn floors(&self) -> &[Floor] {
        &self.contents.floors
    }

    pub(crate) fn floor(&self, sealer: &[u8; 32], family: &str) -> Option<u64> {
        self.contents.floors.iter().find(|f| f.sealer == *sealer && f.family == family).map(|f| f.counter)
    }

    /// Keeps certificates and tier.
    pub(crate) fn provision(&mut self, provisioned: Provisioned) -> Result<(), NvmError> {
        self.change(|contents| {
            contents.provisioned = Some(provisioned);
            Ok(())
        })
    }

    /// Makes all grants of former epochs unusable; the certificates no longer fit and are forgotten, floors stay.
    pub(crate) fn raise_epoch(&mut self) -> Result<u64, NvmError> {
        self.change(|contents| {
            contents.key_epoch = contents.key_epoch.saturating_add(1);
            contents.provisioned = None;
            Ok(())
        })?;
        Ok(self.contents.key_epoch)
    }

    /// Raises a floor; never lowers it.
    pub(crate) fn raise_floor(
        &mut self,
        sealer: &[u8; 32],
        family: &str,
        counter: u64,
    ) -> Result<(), NvmError> {
        if self.floor(sealer, family).is_some_and(|floor| floor >= counter) {
            return Ok(());
        }
        self.change(|contents| {
            let full = contents.floors.len() >= MAX_FLOORS as usize;
            let known = contents.floors.iter_mut().find(|f| f.sealer == *sealer && f.family == family);
            match known {
                Some(floor) => floor.counter = counter,
                None if full => return Err(NvmError::Full),
                None => contents.floors.push(Floor { sealer: *sealer, family: family.to_owned(), counter }),
            }
            Ok(())
        })
    }

    fn change(&mut self, edit: impl FnOnce(&mut Contents) -> Result<(), NvmError>) -> Result<(), NvmError> {
        let mut next = self.contents.clone();
        edit(&mut next)?;
        self.store(&next)?;
        self.contents = next;
        Ok(())
    }

    fn store(&self, contents: &Contents) -> Result<(), NvmError> {
        let text = serde_json::to_vec_pretty(contents)
            .map_err(|source| NvmError::Malformed { path: self.path.clone(), source })?;
        write_atomically(&self.path, &text).map_err(|source| NvmError::Io { path: self.path.clone(), source })
    }
}

/// Writes beside the file, syncs, renames, syncs the directory. Readable by the owner only.
pub(super) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let temporary = path.with_extension("new");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("nvm.json");
        let mut nvm = Nvm::create(&path).unwrap();
        nvm.provision(Provisioned {
            environment: "lab".into(),
            model: vec![1],
            chip: vec![2],
            root: vec![3],
            min_tcb_evaluation: 4,
            min_crl: 5,
        })
        .unwrap();
        nvm.raise_floor(&[7; 32], "acme/x", 3).unwrap();
        nvm.raise_floor(&[7; 32], "acme/y", u64::MAX).unwrap();
        let again = Nvm::load(&path).unwrap();
        assert_eq!(again.contents, nvm.contents);
        assert_eq!(again.floor(&[7; 32], "acme/y"), Some(u64::MAX));
        assert_eq!(again.floor(&[8; 32], "acme/y"), None);
    }

    #[test]
    fn floors_only_rise() {
        let directory = tempfile::tempdir().unwrap();
        let mut nvm = Nvm::create(&directory.path().join("nvm.json")).unwrap();
        nvm.raise_floor(&[1; 32], "f", 9).unwrap();
        nvm.raise_floor(&[1; 32], "f", 4).unwrap();
        assert_eq!(nvm.floor(&[1; 32], "f"), Some(9));
    }

    #[test]
    fn a_failed_write_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gone").join("nvm.json");
        fs::create_dir(path.parent().unwrap()).unwrap();
        let mut nvm = Nvm::create(&path).unwrap();
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
        assert!(matches!(nvm.raise_floor(&[1; 32], "f", 9), Err(NvmError::Io { .. })));
        assert_eq!(nvm.floor(&[1; 32], "f"), None);
    }

    #[test]
    fn raising_the_epoch_forgets_the_certificates_and_keeps_the_floors() {
        let directory = tempfile::tempdir().unwrap();
        let mut nvm = Nvm::create(&directory.path().join("nvm.json")).unwrap();
        nvm.raise_floor(&[1; 32], "f", 9).unwrap();
        assert_eq!(nvm.raise_epoch().unwrap(), 2);
        assert!(nvm.provisioned().is_none());
        assert_eq!(nvm.floor(&[1; 32], "f"), Some(9));
    }
}
