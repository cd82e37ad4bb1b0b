//! Verification of evidence: signatures, chains and dates by the crate `evidence`, then what binds it to this very session.

mod collateral;
mod eventlog;
mod sample;
mod snp;
mod tdx;

use evidence::verify::roots::Roots;
use evidence::{Class, EvidenceError};
use serde_json::Value;

use crate::initdata::InitData;
use crate::rcar::Tee;
use crate::runtime_data::Digest48;

pub(crate) use collateral::Collateral;

/// What evidence has to say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound<'a> {
    /// The report data of this session, key and devices.
    pub(crate) report_data: &'a Digest48,
    /// The init data that was sent beside it.
    pub(crate) init_data: Option<&'a InitData>,
    /// Seconds since 1970.
    pub(crate) now: u64,
}

/// Evidence that verified.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Claims {
    /// What the evidence says, in the members that Trustee gives it.
    pub(crate) claims: Value,
    /// The field that binds init data, where the hardware has one.
    pub(crate) init_data: Option<String>,
    /// The report data as the evidence has it.
    pub(crate) report_data: String,
}

/// Evidence that is not believed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Untrusted {
    /// The crate `evidence` refuses it.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// Other init data than the hardware was started with.
    #[error("init data: expected {expected}, found {found} in the evidence")]
    InitData {
        /// Digest of what was sent.
        expected: String,
        /// The hardware's field.
        found: String,
    },
    /// Evidence of a form that this broker does not take.
    #[error("{what}: expected {expected}, found {found}")]
    Form {
        /// Which part.
        what: &'static str,
        /// What it takes.
        expected: &'static str,
        /// What was there.
        found: String,
    },
    /// Nothing is known about the platform.
    #[error("no collateral for FMSPC {0}")]
    NoCollateral(String),
    /// Evidence for another session, key or devices.
    #[error("report data: expected {expected}, found {found}")]
    ReportData {
        /// Of this session.
        expected: String,
        /// In the evidence.
        found: String,
    },
    /// Sample evidence without the flag that allows it.
    #[error("sample evidence needs --insecure-allow-sample")]
    SampleForbidden,
}

impl Untrusted {
    /// The stable code of the log.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::Evidence(error) => error.code(),
            Self::Form { .. } => "BROKER_EVIDENCE_FORM",
            Self::InitData { .. } => "BROKER_INIT_DATA",
            Self::NoCollateral(_) => "BROKER_NO_COLLATERAL",
            Self::ReportData { .. } => "BROKER_REPORT_DATA",
            Self::SampleForbidden => "BROKER_SAMPLE_FORBIDDEN",
        }
    }

    /// What it means: nothing is known against the guest, or it is not believed.
    pub(crate) fn verdict(&self) -> &'static str {
        let unavailable = match self {
            Self::NoCollateral(_) => true,
            Self::Evidence(error) => error.class() == Class::Unavailable,
            _ => false,
        };
        if unavailable { "unavailable" } else { "not trusted" }
    }
}

/// Verifies evidence.
#[derive(Debug)]
pub(crate) struct Verifier {
    /// The roots that are believed.
    pub(crate) roots: Roots,
    /// What is known about platforms.
    pub(crate) collateral: Collateral,
    /// Whether sample evidence counts.
    pub(crate) allow_sample: bool,
}

impl Verifier {
    /// Verifies the evidence of a guest.
    pub(crate) fn verify(&self, tee: Tee, evidence: &[u8], bound: Bound<'_>) -> Result<Claims, Untrusted> {
        match tee {
            Tee::Sample => {
                self.sample_allowed()?;
                sample::guest(evidence, bound)
            }
            Tee::Snp => snp::verify(self, evidence, bound),
            Tee::Tdx => tdx::verify(self, evidence, bound),
        }
    }

    /// Verifies the evidence of a sample device.
    pub(crate) fn sample_device(&self, evidence: &[u8], report_data: &Digest48) -> Result<Claims, Untrusted> {
        self.sample_allowed()?;
        sample::device(evidence, report_data)
    }

    /// Refuses sample evidence where it is not allowed.
    pub(crate) fn sample_allowed(&self) -> Result<(), Untrusted> {
        // GUARD: broker-sample-flag -> evil_guest_sends_sample_evidence
        if !self.allow_sample {
            return Err(Untrusted::SampleForbidden);
        }
        Ok(())
    }
}

/// Compares report data.
fn require_report_data(expected: &[u8], found: &[u8]) -> Result<(), Untrusted> {
    // GUARD: broker-report-data -> evil_guest_replays_evidence_of_another_session, evil_guest_replays_snp_evidence
    if expected != found {
        return Err(Untrusted::ReportData { expected: hex::encode(expected), found: hex::encode(found) });
    }
    Ok(())
}

/// Compares the field of the hardware with the digest of what was sent, cut or filled with zeros to its length.
fn require_init_data<const N: usize>(
    sent: Option<&InitData>,
    found: &evidence::Octets<N>,
) -> Result<(), Untrusted> {
    let Some(sent) = sent else { return Ok(()) };
    let expected = evidence::Octets::<N>::fitted(&sent.digest);
    // GUARD: broker-init-data -> evil_guest_sends_other_init_data, evil_guest_sends_other_init_data_on_snp
    if expected != *found {
        return Err(Untrusted::InitData { expected: expected.to_string(), found: found.to_string() });
    }
    Ok(())
}

fn form(what: &'static str, expected: &'static str, found: impl std::fmt::Display) -> Untrusted {
    Untrusted::Form { what, expected, found: crate::log::printable(&found.to_string(), 160) }
}

/// Seconds since 1970 as text of RFC 3339.
fn date(seconds: u64) -> String {
    let date = x509_cert::der::DateTime::from_unix_duration(std::time::Duration::from_secs(seconds));
    date.map(|date| date.to_string()).unwrap_or_default()
}

/// Whose roots were believed, as policies read it.
const fn root_set(set: evidence::verify::roots::RootSet) -> &'static str {
    match set {
        evidence::verify::roots::RootSet::Builtin => "builtin",
        evidence::verify::roots::RootSet::InsecureEmulator => "insecure-emulator",
    }
}
