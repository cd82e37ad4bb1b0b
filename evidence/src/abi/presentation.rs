//! Evidence as it is presented to whoever releases keys: one quote or report, its collateral, perhaps an event log
//! (`docs/spec/attestation-v1.md`, section 5). Nothing in it is true before
//! [`verify_presentation`](crate::verify::verify_presentation).

use crate::abi::event_log::MAXIMUM_LOG_BYTES;
use crate::abi::snp::REPORT_BYTES;
use crate::abi::tdx::MAXIMUM_QUOTE_BYTES;
use crate::bytes::{Reader, length_u32, limit};
use crate::error::{EvidenceError, Found};
use crate::verify::snp::{MAXIMUM_CERTIFICATE_BYTES, MAXIMUM_LIST_BYTES, VekKind};

/// Longest presentation.
pub const MAXIMUM_PRESENTATION_BYTES: usize = 262_144;
const VERSION: u16 = 1;
const TDX: u16 = 1;
const SNP: u16 = 2;
const VCEK: u16 = 1;
const VLEK: u16 = 2;

/// What a guest presents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presentation {
    /// Quote or report, with its collateral.
    pub evidence: PresentedEvidence,
    /// The complete event log of a TDX guest; an empty one is as none.
    pub event_log: Option<Vec<u8>>,
}

/// Quote or report, with its collateral; the parts are still to be parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PresentedEvidence {
    /// Of a SEV-SNP guest.
    Snp {
        /// The report.
        report: Vec<u8>,
        /// Which key signed it.
        kind: VekKind,
        /// Certificate of that key, DER.
        vek: Vec<u8>,
        /// Intermediate, DER; an empty one is as none.
        ask: Option<Vec<u8>>,
        /// Revocation list of the root, DER; an empty one is as none.
        crl: Option<Vec<u8>>,
    },
    /// Of a TDX guest.
    Tdx {
        /// The quote.
        quote: Vec<u8>,
        /// JSON of [`TdxCollateral`](crate::verify::collateral::TdxCollateral).
        collateral: String,
    },
}

impl Presentation {
    /// Parses what was presented.
    ///
    /// # Errors
    /// `EVIDENCE_MALFORMED`, `EVIDENCE_TOO_LARGE`, `EVIDENCE_TRAILING_BYTES`, `EVIDENCE_UNSUPPORTED`.
    pub fn parse(bytes: &[u8]) -> Result<Self, EvidenceError> {
        limit("presented evidence", MAXIMUM_PRESENTATION_BYTES, bytes.len())?;
        let mut reader = Reader::new("presented evidence", bytes);
        let version = reader.u16()?;
        // GUARD: presentation-version -> evil_presentations_of_other_versions_and_kinds_are_refused
        if version != VERSION {
            return Err(unsupported("version of presented evidence", "1", version));
        }
        let evidence = match reader.u16()? {
            TDX => PresentedEvidence::Tdx {
                quote: field(&mut reader, "TDX quote", MAXIMUM_QUOTE_BYTES)?.to_vec(),
                collateral: text(field(&mut reader, "TDX collateral", MAXIMUM_PRESENTATION_BYTES)?)?,
            },
            SNP => {
                let report = field(&mut reader, "SNP report", REPORT_BYTES)?.to_vec();
                let collateral = field(&mut reader, "SNP collateral", MAXIMUM_PRESENTATION_BYTES)?;
                let (kind, [vek, ask, crl]) = snp_collateral(collateral)?;
                let present = |part: Vec<u8>| (!part.is_empty()).then_some(part);
                PresentedEvidence::Snp { report, kind, vek, ask: present(ask), crl: present(crl) }
            }
            other => return Err(unsupported("kind of presented evidence", "1 (TDX) or 2 (SNP)", other)),
        };
        let log = field(&mut reader, "event log", MAXIMUM_LOG_BYTES)?.to_vec();
        reader.finish()?;
        Ok(Self { evidence, event_log: (!log.is_empty()).then_some(log) })
    }

    /// The bytes to present.
    ///
    /// # Errors
    /// `EVIDENCE_TOO_LARGE` if nobody would take them.
    pub fn encode(&self) -> Result<Vec<u8>, EvidenceError> {
        let mut out = VERSION.to_le_bytes().to_vec();
        match &self.evidence {
            PresentedEvidence::Tdx { quote, collateral } => {
                out.extend(TDX.to_le_bytes());
                put(&mut out, "TDX quote", MAXIMUM_QUOTE_BYTES, quote)?;
                put(&mut out, "TDX collateral", MAXIMUM_PRESENTATION_BYTES, collateral.as_bytes())?;
            }
            PresentedEvidence::Snp { report, kind, vek, ask, crl } => {
                out.extend(SNP.to_le_bytes());
                put(&mut out, "SNP report", REPORT_BYTES, report)?;
                let kind = match kind {
                    VekKind::Vcek => VCEK,
                    VekKind::Vlek => VLEK,
                };
                let mut collateral = kind.to_le_bytes().to_vec();
                put(&mut collateral, "VEK certificate", MAXIMUM_CERTIFICATE_BYTES, vek)?;
                let ask = ask.as_deref().unwrap_or_default();
                put(&mut collateral, "ASK certificate", MAXIMUM_CERTIFICATE_BYTES, ask)?;
                let crl = crl.as_deref().unwrap_or_default();
                put(&mut collateral, "SNP revocation list", MAXIMUM_LIST_BYTES, crl)?;
                put(&mut out, "SNP collateral", MAXIMUM_PRESENTATION_BYTES, &collateral)?;
            }
        }
        put(&mut out, "event log", MAXIMUM_LOG_BYTES, self.event_log.as_deref().unwrap_or_default())?;
        limit("presented evidence", MAXIMUM_PRESENTATION_BYTES, out.len())?;
        Ok(out)
    }
}

fn snp_collateral(bytes: &[u8]) -> Result<(VekKind, [Vec<u8>; 3]), EvidenceError> {
    let mut reader = Reader::new("presented SNP collateral", bytes);
    let kind = match reader.u16()? {
        VCEK => VekKind::Vcek,
        VLEK => VekKind::Vlek,
        other => return Err(unsupported("key of a presented report", "1 (VCEK) or 2 (VLEK)", other)),
    };
    let vek = field(&mut reader, "VEK certificate", MAXIMUM_CERTIFICATE_BYTES)?.to_vec();
    let ask = field(&mut reader, "ASK certificate", MAXIMUM_CERTIFICATE_BYTES)?.to_vec();
    let crl = field(&mut reader, "SNP revocation list", MAXIMUM_LIST_BYTES)?.to_vec();
    reader.finish()?;
    Ok((kind, [vek, ask, crl]))
}

fn field<'a>(reader: &mut Reader<'a>, what: &'static str, maximum: usize) -> Result<&'a [u8], EvidenceError> {
    let length = reader.length(what, maximum)?;
    reader.take(length)
}

fn put(out: &mut Vec<u8>, what: &'static str, maximum: usize, bytes: &[u8]) -> Result<(), EvidenceError> {
    limit(what, maximum, bytes.len())?;
    out.extend(length_u32(bytes.len()));
    out.extend(bytes);
    Ok(())
}

fn text(bytes: &[u8]) -> Result<String, EvidenceError> {
    String::from_utf8(bytes.to_vec()).map_err(|error| EvidenceError::Malformed {
        what: "TDX collateral",
        expected: "JSON text",
        found: Found::value(error.utf8_error()),
    })
}

fn unsupported(what: &'static str, expected: &'static str, found: u16) -> EvidenceError {
    EvidenceError::Unsupported { what, expected, found: Found::value(found) }
}

#[cfg(test)]
mod tests;
