//! The one root below which a platform is looked for (specification §2).

use std::path::{Path, PathBuf};

/// `/`, or the directory of an emulated platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TeeRoot {
    base: PathBuf,
    insecure: bool,
}

impl TeeRoot {
    /// The platform that this process runs on.
    #[must_use]
    pub fn system() -> Self {
        Self { base: PathBuf::from("/"), insecure: false }
    }

    /// An emulated platform below `directory`, for `--insecure-tee-root`. [`detect`](crate::Attester::detect)
    /// refuses it inside a real one.
    #[must_use]
    pub fn insecure(directory: impl Into<PathBuf>) -> Self {
        Self { base: directory.into(), insecure: true }
    }

    /// Whether this is an emulated platform.
    #[must_use]
    pub const fn is_insecure(&self) -> bool {
        self.insecure
    }

    /// `path`, which is relative, below this root.
    #[must_use]
    pub fn join(&self, path: &str) -> PathBuf {
        self.base.join(path.trim_start_matches('/'))
    }

    /// The directory itself.
    #[must_use]
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// configfs-tsm.
    #[must_use]
    pub fn tsm_reports(&self) -> PathBuf {
        self.join("sys/kernel/config/tsm/report")
    }

    /// Measurement files of the TDX guest driver.
    #[must_use]
    pub fn tdx_measurements(&self) -> PathBuf {
        self.join("sys/devices/virtual/misc/tdx_guest/measurements")
    }

    /// Event log of the firmware.
    #[must_use]
    pub fn firmware_log(&self) -> PathBuf {
        self.join("sys/firmware/acpi/tables/data/CCEL")
    }

    /// Device of the SNP guest driver.
    #[must_use]
    pub fn sev_guest(&self) -> PathBuf {
        self.join("dev/sev-guest")
    }

    /// Device of the TDX guest driver.
    #[must_use]
    pub fn tdx_guest(&self) -> PathBuf {
        self.join("dev/tdx_guest")
    }

    /// Socket that derives keys of an emulated SNP guest; nothing below the system's root.
    #[must_use]
    pub fn derived_key_socket(&self) -> Option<PathBuf> {
        self.insecure.then(|| self.join("dev/sev-guest.sock"))
    }

    /// Directory of the runtime log and of the lock that evidence and extensions share.
    #[must_use]
    pub fn run_directory(&self) -> PathBuf {
        self.join("run/attestation-agent")
    }
}
