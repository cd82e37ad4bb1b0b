//! The state directory: silicon, helper data, memory, and a lock against a second process.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::rand::{GetRandomFlags, getrandom};
use zeroize::{Zeroize, Zeroizing};

use super::nvm::{Nvm, NvmError, write_atomically};
use crate::puf::noise::Probability;
use crate::puf::{BLOCKS, Extractor, HELPER_BYTES, HelperData, RESPONSE_BYTES, Silicon};

/// The state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// There is a chip in this directory already.
    #[error("{0}: there is a chip here already")]
    Exists(PathBuf),
    /// A file operation failed.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file of another length than this program writes.
    #[error("{path}: expected {expected} bytes, found {found}")]
    Length {
        /// The file.
        path: PathBuf,
        /// What it should have.
        expected: usize,
        /// What it has.
        found: usize,
    },
    /// Another process uses the directory.
    #[error("{0}: another chip emulator uses this directory")]
    Locked(PathBuf),
    /// The memory file is unusable.
    #[error(transparent)]
    Memory(#[from] NvmError),
}

/// One chip on disk, locked for this process.
#[derive(Debug)]
pub(crate) struct StateDirectory {
    path: PathBuf,
    _lock: fs::File,
}

impl StateDirectory {
    /// Opens and locks the directory, making it when it is missing.
    pub(crate) fn open(path: &Path) -> Result<Self, StateError> {
        use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
        let io_error = |source| StateError::Io { path: path.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error)?;
        let lock = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(io_error)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StateError::Locked(path.to_owned())),
            Err(e) => Err(io_error(e.into())),
        }
    }

    pub(crate) fn has_chip(&self) -> bool {
        self.path.join("silicon").exists()
    }

    /// Makes new silicon and enrols it.
    pub(crate) fn manufacture(&self) -> Result<(), StateError> {
        if self.has_chip() {
            return Err(StateError::Exists(self.path.clone()));
        }
        let mut random = Zeroizing::new([0; RESPONSE_BYTES]);
        self.random(random.as_mut_slice())?;
        let reference = Silicon::manufacture(&random);
        let mut messages = [0; BLOCKS];
        for message in &mut messages {
            let mut bytes = [0; 8];
            self.random(&mut bytes)?;
            *message = u64::from_le_bytes(bytes);
        }
        // Enrolment reads the silicon without noise, as a maker would by averaging many readings.
        let enrolment = crate::puf::Response::unpack(&reference);
        let (helper, _root) = Extractor::new().enrol(&enrolment, &messages);
        messages.zeroize();
        Nvm::create(&self.path.join("nvm.json"))?;
        self.write("helper", &helper.to_bytes())?;
        // Last: its presence is what makes the directory hold a chip.
        self.write("silicon", reference.as_slice())
    }

    pub(crate) fn silicon(&self, noise: Probability) -> Result<Silicon, StateError> {
        let reference = Zeroizing::new(self.read::<RESPONSE_BYTES>("silicon")?);
        let mut seed = [0; 8];
        self.random(&mut seed)?;
        Ok(Silicon::new(&reference, noise, u64::from_le_bytes(seed)))
    }

    pub(crate) fn helper(&self) -> Result<HelperData, StateError> {
        Ok(HelperData::from_bytes(&self.read::<HELPER_BYTES>("helper")?))
    }

    pub(crate) fn nvm(&self) -> Result<Nvm, StateError> {
        Ok(Nvm::load(&self.path.join("nvm.json"))?)
    }

    fn random(&self, mut out: &mut [u8]) -> Result<(), StateError> {
        while !out.is_empty() {
            let done = getrandom(&mut *out, GetRandomFlags::empty())
                .map_err(|e| StateError::Io { path: self.path.clone(), source: e.into() })?;
            out = out.get_mut(done..).unwrap_or_default();
        }
        Ok(())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        let path = self.path.join(name);
        write_atomically(&path, bytes).map_err(|source| StateError::Io { path, source })
    }

    fn read<const N: usize>(&self, name: &str) -> Result<[u8; N], StateError> {
        let path = self.path.join(name);
        let bytes =
            Zeroizing::new(fs::read(&path).map_err(|source| StateError::Io { path: path.clone(), source })?);
        bytes.as_slice().try_into().map_err(|_length| StateError::Length {
            path,
            expected: N,
            found: bytes.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Keys;

    #[test]
    fn a_chip_keeps_its_identity_over_power_cycles() {
        let directory = tempfile::tempdir().unwrap();
        let id = || {
            let state = StateDirectory::open(directory.path()).unwrap();
            if !state.has_chip() {
                state.manufacture().unwrap();
            }
            let mut silicon = state.silicon(Probability::new(0.03).unwrap()).unwrap();
            let root = Extractor::new().reconstruct(&silicon.read(), &state.helper().unwrap()).unwrap();
            Keys::derive(&root, state.nvm().unwrap().key_epoch()).unwrap().id()
        };
        let first = id();
        assert_eq!(id(), first);
        let other = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(other.path()).unwrap();
        state.manufacture().unwrap();
        assert!(matches!(state.manufacture(), Err(StateError::Exists(_))));
        assert!(matches!(StateDirectory::open(other.path()), Err(StateError::Locked(_))));
    }
}
