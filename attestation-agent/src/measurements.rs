//! Registers of a TDX guest: the kernel's measurement files, or a TDREPORT where there are none.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use evidence::Octets;

use crate::error::TeeError;
use crate::provider::{LogIndex, RuntimeRegisters};
use crate::tdx_guest::TdxDevice;

const BYTES: usize = 48;
const CONFIG_ID: &str = "mrconfigid";

/// The registers.
#[derive(Clone, Debug)]
pub(crate) struct TdxMeasurements {
    directory: PathBuf,
    device: TdxDevice,
}

impl TdxMeasurements {
    pub(crate) fn new(directory: PathBuf, device: PathBuf) -> Self {
        Self { directory, device: TdxDevice::new(device) }
    }

    /// What the host launched this guest with.
    ///
    /// # Errors
    /// See [`TeeError`].
    pub(crate) fn config_id(&self) -> Result<Octets<BYTES>, TeeError> {
        if self.directory.is_dir() {
            return self.read_file(CONFIG_ID);
        }
        self.device.report().map(|report| report.mr_config_id)
    }

    fn read_file(&self, name: &str) -> Result<Octets<BYTES>, TeeError> {
        let path = self.directory.join(name);
        let mut bytes = Vec::new();
        let limit = u64::try_from(BYTES + 1).unwrap_or(u64::MAX);
        File::open(&path)
            .and_then(|file| file.take(limit).read_to_end(&mut bytes))
            .map_err(|source| failed("read", &path, source))?;
        // GUARD: measurement-size -> evil_host_measurement_file_of_another_size
        if bytes.len() != BYTES {
            return Err(TeeError::Empty {
                what: "measurement register",
                found: format!("{} bytes or more", bytes.len()),
                cause: "this kernel's measurement files are of another form",
            });
        }
        Ok(Octets::fitted(&bytes))
    }
}

impl RuntimeRegisters for TdxMeasurements {
    fn read(&self, register: LogIndex) -> Result<Octets<BYTES>, TeeError> {
        if self.directory.is_dir() {
            return self.read_file(&file_name(register));
        }
        let report = self.device.report()?;
        let mut registers = report.rtmr.into_iter().zip(LogIndex::ALL);
        let found = registers.find(|(_, index)| *index == register).map(|(value, _)| value);
        found.ok_or(TeeError::Unsupported { what: "this register", platform: "TDX" })
    }

    fn extend(&self, register: LogIndex, digest: &Octets<BYTES>) -> Result<(), TeeError> {
        let path = self.directory.join(file_name(register));
        let written = OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| file.write(&digest.0))
            .map_err(|source| failed("extend", &path, source))?;
        if written != BYTES {
            let source = io::Error::new(io::ErrorKind::WriteZero, "the kernel took a part of the digest");
            return Err(failed("extend", &path, source));
        }
        Ok(())
    }

    fn can_extend(&self) -> bool {
        LogIndex::ALL.into_iter().all(|register| self.directory.join(file_name(register)).is_file())
    }
}

fn file_name(register: LogIndex) -> String {
    format!("rtmr{}:sha384", register.rtmr())
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> TeeError {
    let advice = "measurement files need Linux 6.16 and root; the firmware may have refused";
    TeeError::Io { action, path: path.display().to_string(), advice, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plain files in place of the kernel's: a write replaces what is read.
    fn fake() -> (tempfile::TempDir, TdxMeasurements) {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("measurements");
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join(CONFIG_ID), [0x11; 48]).unwrap();
        for register in LogIndex::ALL {
            let value = u8::try_from(register.rtmr()).unwrap();
            std::fs::write(directory.join(file_name(register)), [value; 48]).unwrap();
        }
        let measurements = TdxMeasurements::new(directory, root.path().join("tdx_guest"));
        (root, measurements)
    }

    #[test]
    fn registers_are_read_and_extended_by_their_own_file() {
        let (_root, measurements) = fake();
        assert!(measurements.can_extend());
        assert_eq!(measurements.config_id().unwrap(), Octets([0x11; 48]));
        let register = LogIndex::of_pcr(8);
        assert_eq!(measurements.read(register).unwrap(), Octets([2; 48]));
        measurements.extend(register, &Octets([0x77; 48])).unwrap();
        let found: Vec<u8> = LogIndex::ALL
            .into_iter()
            .map(|register| measurements.read(register).unwrap().0.first().copied().unwrap())
            .collect();
        assert_eq!(found, [0, 1, 0x77, 3]);
    }

    #[test]
    fn evil_host_measurement_file_of_another_size() {
        let (_root, measurements) = fake();
        for bytes in [&[][..], &[1; 47], &[1; 49]] {
            std::fs::write(measurements.directory.join(CONFIG_ID), bytes).unwrap();
            assert_eq!(measurements.config_id().unwrap_err().code(), "ATTEST_EVIDENCE_EMPTY");
        }
    }

    #[test]
    fn without_files_and_device_the_device_is_named() {
        let root = tempfile::tempdir().unwrap();
        let measurements =
            TdxMeasurements::new(root.path().join("measurements"), root.path().join("tdx_guest"));
        assert!(!measurements.can_extend());
        let error = measurements.config_id().unwrap_err();
        assert_eq!(error.code(), "ATTEST_TEE_IO");
        assert!(error.to_string().contains("tdx_guest"), "{error}");
    }
}
