//! Errors of the trusted execution environment and what stands before it.

use std::io;

use evidence::EvidenceError;
use rustix::io::Errno;

use super::Class;
use crate::tpm::TpmError;

/// The trusted execution environment did not do what was asked, or the host came between.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TeeError {
    /// The table of certificates that the host delivers beside a report.
    #[error("certificate table from the host: {reason}")]
    CertificateTable {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Nothing where evidence was expected.
    #[error("{what}: expected evidence, found {found}; likely cause: {cause}")]
    Empty {
        /// What was asked for.
        what: &'static str,
        /// What came.
        found: String,
        /// What usually brings this about.
        cause: &'static str,
    },
    /// Bytes that are no evidence of this kind.
    #[error("{what} from the platform")]
    Evidence {
        /// What was asked for.
        what: &'static str,
        /// Why it was refused.
        #[source]
        source: EvidenceError,
    },
    /// The firmware refused a request.
    #[error("{operation}: the firmware answered with status {status:#x}")]
    Firmware {
        /// What was asked for.
        operation: &'static str,
        /// Its status.
        status: u64,
    },
    /// Somebody else wrote to the same report.
    #[error("report: expected generation {expected} after one write, found {found}; it was refused")]
    Generation {
        /// Generation after our own write.
        expected: u64,
        /// Generation found.
        found: String,
    },
    /// An insecure mode was asked for inside a confidential guest.
    #[error("insecure mode {mode} refused: {found} shows a real trusted execution environment")]
    InsecureOnTee {
        /// The mode.
        mode: &'static str,
        /// What shows it.
        found: String,
    },
    /// A file or device of the platform.
    #[error("{action} {path}; {advice}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: String,
        /// What to look at.
        advice: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Protected memory for a key.
    #[error("memory for a derived key")]
    Memory(#[source] protected_memory::secret::SecretError),
    /// No trusted execution environment.
    #[error("expected a TDX or SEV-SNP guest, found none: {probes}")]
    NoTee {
        /// What was looked at, and what was found there.
        probes: String,
    },
    /// The kernel serves another kind of report than was detected.
    #[error("report provider: expected {expected}, found {found}")]
    Provider {
        /// The provider that was detected.
        expected: &'static str,
        /// The provider now.
        found: String,
    },
    /// The kernel has no random numbers.
    #[error("random numbers of the kernel")]
    Random,
    /// Evidence about other data than was asked for.
    #[error("{what}: expected report data {expected}, found {found}; the evidence was dropped")]
    ReportData {
        /// What was asked for.
        what: &'static str,
        /// The data that was asked for, in hex.
        expected: String,
        /// The data in the answer, in hex.
        found: String,
    },
    /// More bytes than any honest answer has.
    #[error("{what}: expected at most {maximum} bytes, found more")]
    TooLarge {
        /// What was read.
        what: &'static str,
        /// The limit.
        maximum: usize,
    },
    /// The TPM beside the TEE.
    #[error("TPM")]
    Tpm(#[from] TpmError),
    /// This platform cannot do it.
    #[error("{what} is not supported by {platform}")]
    Unsupported {
        /// What was asked for.
        what: &'static str,
        /// The platform.
        platform: &'static str,
    },
}

impl TeeError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::CertificateTable { .. } => "ATTEST_CERTIFICATE_TABLE",
            Self::Empty { .. } => "ATTEST_EVIDENCE_EMPTY",
            Self::Evidence { .. } => "ATTEST_EVIDENCE_INVALID",
            Self::Firmware { .. } => "ATTEST_FIRMWARE_REFUSED",
            Self::Generation { .. } => "ATTEST_GENERATION_RACE",
            Self::InsecureOnTee { .. } => "ATTEST_INSECURE_ON_TEE",
            Self::Io { .. } => "ATTEST_TEE_IO",
            Self::Memory(_) => "ATTEST_MEMORY",
            Self::NoTee { .. } => "ATTEST_NO_TEE",
            Self::Provider { .. } => "ATTEST_PROVIDER_CHANGED",
            Self::Random => "ATTEST_RANDOM",
            Self::ReportData { .. } => "ATTEST_REPORT_DATA_MISMATCH",
            Self::TooLarge { .. } => "ATTEST_TOO_LARGE",
            Self::Tpm(_) => "ATTEST_TPM",
            Self::Unsupported { .. } => "ATTEST_NOT_SUPPORTED",
        }
    }

    /// Who misbehaved.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::InsecureOnTee { .. } | Self::NoTee { .. } | Self::Unsupported { .. } => Class::Config,
            Self::Io { source, .. } => match Errno::from_io_error(source) {
                Some(Errno::BUSY | Errno::AGAIN | Errno::INTR | Errno::TIMEDOUT) => Class::Transient,
                _ => Class::HostFault,
            },
            Self::Generation { .. } | Self::Memory(_) | Self::Random => Class::Transient,
            _ => Class::HostFault,
        }
    }
}
