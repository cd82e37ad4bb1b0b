//! Random numbers: what the host gives is mixed in.

use std::fs::OpenOptions;
use std::io::Write as _;

use super::{Machine, MachineError};
use crate::sys;

impl Machine {
    /// Mixes bytes of the host into the kernel's generator. In a confidential guest they count for nothing: whoever gave them knows them.
    ///
    /// # Errors
    /// `MACHINE_NO_ENTROPY` without any; `MACHINE_FILE`, `MACHINE_RANDOM`.
    pub fn reseed(&self, data: &[u8]) -> Result<(), MachineError> {
        if data.is_empty() {
            return Err(MachineError::NoEntropy);
        }
        let path = self.dev.join("random");
        let device = OpenOptions::new().write(true).open(&path);
        let mut device = device.map_err(MachineError::file("open", &path))?;
        device.write_all(data).map_err(MachineError::file("write", &path))?;
        let failed = |what| move |source| MachineError::Random { what, source };
        // As upstream: a bit for each byte.
        let mut bits = i32::try_from(data.len()).unwrap_or(i32::MAX);
        // GUARD: entropy-not-credited -> evil_host_gives_entropy_that_it_knows
        if self.tee_active {
            bits = 0;
        }
        if bits > 0 {
            sys::entropy::credit(&device, bits).map_err(failed("credit entropy"))?;
        }
        sys::entropy::reseed(&device).map_err(failed("reseed the generator"))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The device of these tests is a file, which takes the bytes, and knows none of the controls: the first that is asked for is told.
    fn asked_first(tee_active: bool) -> (String, Vec<u8>) {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("random");
        fs::write(&file, b"").unwrap();
        let error =
            Machine::new(root.path(), root.path(), tee_active).reseed(b"sixteen and more").unwrap_err();
        assert_eq!(error.code(), "MACHINE_RANDOM");
        (error.to_string(), fs::read(file).unwrap())
    }

    #[test]
    fn bytes_of_the_host_are_mixed_in_and_credited_outside_of_a_tee() {
        let (asked, mixed) = asked_first(false);
        assert!(asked.starts_with("credit entropy: "), "{asked}");
        assert_eq!(mixed, b"sixteen and more");
    }

    // COMPAT: ReseedRandomDev stricter: in a confidential guest it is mixed in and not credited
    #[test]
    fn evil_host_gives_entropy_that_it_knows() {
        let (asked, mixed) = asked_first(true);
        assert!(asked.starts_with("reseed the generator: "), "{asked}");
        assert_eq!(mixed, b"sixteen and more");
    }

    // COMPAT: ReseedRandomDev same: code and text without data
    #[test]
    fn no_bytes_are_an_error() {
        let root = tempfile::tempdir().unwrap();
        let error = Machine::new(root.path(), root.path(), true).reseed(b"").unwrap_err();
        assert_eq!(error.code(), "MACHINE_NO_ENTROPY");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
