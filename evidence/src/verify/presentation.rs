//! Verification of what a guest presented: the same steps for chip, broker and command line.

use crate::abi::event_log::EventLog;
use crate::abi::presentation::{Presentation, PresentedEvidence};
use crate::bytes::Octets;
use crate::error::{EvidenceError, Found};
use crate::verify::collateral::TdxCollateral;
use crate::verify::replay::replay;
use crate::verify::roots::{RootSet, Roots};
use crate::verify::snp::{SnpCollateral, VerifiedSnp};
use crate::verify::tdx::{Appraisal, VerifiedTdx};
use crate::verify::{snp, tdx};

/// The time of a verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Seconds since 1970, of a clock that this verifier trusts.
    At(u64),
    /// There is no clock: the latest issue date of what is presented, every object of which is then signature-checked.
    /// Age is refused by the numbers of [`series`](crate::verify::series).
    LatestIssueDate,
}

/// Evidence whose signatures were verified. Only [`verify_presentation`], and the functions for one kind, make one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerifiedEvidence {
    /// Of a SEV-SNP guest.
    Snp(Box<VerifiedSnp>),
    /// Of a TDX guest.
    Tdx(Box<VerifiedTdx>),
}

impl VerifiedEvidence {
    /// What the guest had attested.
    #[must_use]
    pub fn report_data(&self) -> &Octets<64> {
        match self {
            Self::Snp(snp) => &snp.report.report_data,
            Self::Tdx(tdx) => &tdx.quote.body.report_data,
        }
    }

    /// Whose roots were believed.
    #[must_use]
    pub fn roots(&self) -> RootSet {
        match self {
            Self::Snp(snp) => snp.roots,
            Self::Tdx(tdx) => tdx.roots,
        }
    }
}

/// Verifies what was presented. An event log is replayed and has to lead to the registers of the quote; it is used
/// for nothing else.
///
/// # Errors
/// All codes but `EVIDENCE_POLICY_DENIED`; `EVIDENCE_UNSUPPORTED` for an event log beside an SNP report, which has no
/// registers; `EVIDENCE_ROOT_UNTRUSTED` for a quote where no root for TDX is believed.
pub fn verify_presentation(
    presentation: &Presentation,
    roots: &Roots,
    clock: Clock,
    appraisal: &Appraisal,
) -> Result<VerifiedEvidence, EvidenceError> {
    match &presentation.evidence {
        PresentedEvidence::Tdx { quote, collateral } => {
            let Some(root) = &roots.tdx else {
                return Err(EvidenceError::RootUntrusted {
                    expected: Found::text("evidence of another kind: no root for TDX is believed"),
                    found: Found::text("a TDX quote"),
                });
            };
            let collateral = TdxCollateral::parse(collateral.as_bytes())?;
            let verified = match clock {
                Clock::At(now) => tdx::verify(quote, &collateral, root, appraisal, now)?,
                Clock::LatestIssueDate => tdx::verify_without_clock(quote, &collateral, root, appraisal)?,
            };
            let log = presentation.event_log.as_deref().map(EventLog::parse).transpose()?;
            // GUARD: presented-log-replays -> evil_presented_log_has_to_lead_to_the_registers
            log.map(|log| replay(&log, &verified.quote.body.rtmr).map(|_| ())).transpose()?;
            Ok(VerifiedEvidence::Tdx(Box::new(verified)))
        }
        PresentedEvidence::Snp { report, kind, vek, ask, crl } => {
            // GUARD: snp-log-refused -> evil_log_beside_a_report_without_registers_is_refused
            if presentation.event_log.is_some() {
                return Err(EvidenceError::Unsupported {
                    what: "event log",
                    expected: "none beside an SNP report, which has no registers",
                    found: Found::text("a log"),
                });
            }
            let collateral = SnpCollateral {
                ark: None,
                ask: ask.clone(),
                crl: crl.clone(),
                kind: *kind,
                vek: vek.clone(),
            };
            let verified = match clock {
                Clock::At(now) => snp::verify(report, &collateral, &roots.snp, now)?,
                Clock::LatestIssueDate => snp::verify_without_clock(report, &collateral, &roots.snp)?,
            };
            Ok(VerifiedEvidence::Snp(Box::new(verified)))
        }
    }
}
