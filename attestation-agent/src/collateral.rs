//! What a verifier without a network needs beside evidence (specification §4, §5).

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use evidence::EvidenceError;
use evidence::abi::event_log::EventLog;
use evidence::abi::json::{MAXIMUM_CERTIFICATES, SnpCertificate, SnpEvidence};
use evidence::abi::presentation::{Presentation, PresentedEvidence};
use evidence::verify::collateral::TdxCollateral;
use evidence::verify::snp::SnpCollateral;
use serde::Deserialize;

use crate::error::AttestationError;
use crate::received::{Evidence, Form, no_presentation};

/// Longest file.
pub const MAXIMUM_COLLATERAL_BYTES: usize = 512 * 1024;

/// Collateral of one platform, from a file. Everything in it is signed by somebody, and is verified by whoever it is
/// presented to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collateral {
    path: String,
    bytes: Vec<u8>,
}

/// The file of an SNP guest.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SnpFile {
    #[serde(default)]
    certificates: Vec<SnpCertificate>,
    #[serde(default)]
    crl: Option<String>,
}

impl Collateral {
    /// No file: an SNP report can come with its certificates, a TDX quote is not presented without.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Reads a file of at most 512 KiB.
    ///
    /// # Errors
    /// `ATTEST_COLLATERAL_INVALID` if it cannot be read or is longer.
    pub fn load(path: &Path) -> Result<Self, AttestationError> {
        let name = path.display().to_string();
        let refused = |reason: String| AttestationError::Collateral { path: name.clone(), reason };
        let file = File::open(path).map_err(|error| refused(error.to_string()))?;
        let mut bytes = Vec::new();
        let cap = u64::try_from(MAXIMUM_COLLATERAL_BYTES).unwrap_or(u64::MAX);
        file.take(cap + 1).read_to_end(&mut bytes).map_err(|error| refused(error.to_string()))?;
        // GUARD: collateral-cap -> evil_host_oversize_collateral
        if bytes.len() > MAXIMUM_COLLATERAL_BYTES {
            return Err(refused(format!("expected at most {MAXIMUM_COLLATERAL_BYTES} bytes, found more")));
        }
        Ok(Self { path: name, bytes })
    }

    /// The collateral of a TDX platform.
    fn tdx(&self) -> Result<TdxCollateral, AttestationError> {
        if self.bytes.is_empty() {
            return Err(AttestationError::Presentation(EvidenceError::CollateralMissing {
                what: "a file with TDX collateral",
            }));
        }
        TdxCollateral::parse(&self.bytes).map_err(|error| self.refused(error))
    }

    /// The collateral of an SNP platform: the file's certificates, or those that came with the report.
    fn snp(&self, evidence: &SnpEvidence) -> Result<SnpCollateral, AttestationError> {
        let file: SnpFile = if self.bytes.is_empty() {
            SnpFile::default()
        } else {
            serde_json::from_slice(&self.bytes).map_err(|error| self.refused(error))?
        };
        // GUARD: collateral-certificates -> evil_host_oversize_collateral
        if file.certificates.len() > MAXIMUM_CERTIFICATES {
            return Err(self.refused(format!("expected at most {MAXIMUM_CERTIFICATES} certificates")));
        }
        let certificates = if file.certificates.is_empty() {
            evidence.certificates.as_deref().unwrap_or_default()
        } else {
            &file.certificates
        };
        let mut collateral = SnpCollateral::sort(certificates).map_err(AttestationError::Presentation)?;
        if let Some(crl) = file.crl {
            let crl = STANDARD.decode(crl).map_err(|error| self.refused(format!("crl: {error}")))?;
            collateral.crl = Some(crl);
        }
        Ok(collateral)
    }

    fn refused(&self, reason: impl std::fmt::Display) -> AttestationError {
        AttestationError::Collateral { path: self.path.clone(), reason: reason.to_string() }
    }
}

impl Evidence {
    /// The evidence as it is presented to a chip or a broker, with the collateral that its verifier needs.
    ///
    /// # Errors
    /// `ATTEST_COLLATERAL_INVALID`; `EVIDENCE_COLLATERAL_MISSING` if neither the file nor the platform has what is
    /// needed; `EVIDENCE_TOO_LARGE`; `EVIDENCE_UNSUPPORTED` for platforms without a presentation.
    pub fn present(&self, collateral: &Collateral) -> Result<Vec<u8>, AttestationError> {
        let presentation = match &self.form {
            Form::Json { tee, .. } => return Err(AttestationError::Presentation(no_presentation(*tee))),
            Form::Snp(evidence) => {
                let SnpCollateral { ask, crl, kind, vek, .. } = collateral.snp(evidence)?;
                let report = evidence.report.encode();
                Presentation {
                    evidence: PresentedEvidence::Snp { report, kind, vek, ask, crl },
                    event_log: None,
                }
            }
            Form::Tdx { quote, event_log, .. } => Presentation {
                evidence: PresentedEvidence::Tdx {
                    quote: quote.clone(),
                    collateral: collateral.tdx()?.encode(),
                },
                event_log: event_log.as_ref().map(EventLog::encode),
            },
        };
        presentation.encode().map_err(AttestationError::Presentation)
    }
}
