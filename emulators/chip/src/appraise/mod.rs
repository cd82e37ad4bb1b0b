//! Evidence of the guest: verified at PRESENT, judged at UNWRAP (interface spec §8.4).

use chip_client::abi::{EvidenceDetail, InsecureFlags, Status};
use evidence::abi::presentation::Presentation;
use evidence::validate::judge;
use evidence::verify::roots::RootSet;
use evidence::verify::tdx::Appraisal;
use evidence::verify::{Clock, VerifiedEvidence, verify_presentation};
use evidence::{EvidenceError, Octets};
use sealed_artifact::policy::PolicyDocument;

use crate::firmware::{Failure, Firmware};
use crate::session::{LiveSession, Presented};

impl Firmware {
    /// Verifies presented evidence and that it is of this very session, whatever any policy says. Empty: none.
    pub(crate) fn verify_evidence(
        &self,
        session: &LiveSession,
        presented: &[u8],
    ) -> Result<Option<VerifiedEvidence>, Failure> {
        if presented.is_empty() {
            return Ok(None);
        }
        let presentation = Presentation::parse(presented).map_err(refused)?;
        // A guest that can be debugged passes here: the policy's rule judges it, and without rules it is refused.
        let appraisal = Appraisal { debug: true, ..Appraisal::servers() };
        let verified = verify_presentation(&presentation, &self.roots, Clock::LatestIssueDate, &appraisal)
            .map_err(refused)?;
        // GUARD: evidence-of-this-session -> evil_guest_replayed_report, evil_workload_replays_chip_transcript
        if verified.report_data() != &Octets(*session.report_data()) {
            crate::log::note("evidence refused: its report data is not that of this session");
            return Err(Failure::Status(Status::EvidenceRefused, EvidenceDetail::ReportData.as_u32()));
        }
        let emulated = verified.roots() == RootSet::InsecureEmulator;
        // GUARD: emulated-tee-named -> evil_guest_emulated_tee_that_it_does_not_name
        if emulated && !session.guest().contains(InsecureFlags::EMULATED_TEE) {
            return Err(Status::InsecureRefused.into());
        }
        Ok(Some(verified))
    }

    /// Judges what was presented by the policy's rules and by the minimums of the chip.
    pub(crate) fn judge_evidence(&self, session: &LiveSession, presented: &Presented) -> Result<(), Failure> {
        let Some(verified) = presented.evidence.as_deref() else {
            return self.without_evidence(session, &presented.policy);
        };
        let floors = self.nvm().collateral_floors(&verified.series());
        let judgement = judge(presented.policy.evidence(), verified, session.report_data(), &floors);
        // GUARD: evidence-rules -> evil_guest_other_measurement, evil_guest_debug, evil_guest_collateral_below_floor
        judgement.require().map_err(refused)?;
        Ok(())
    }

    /// No evidence is enough only where neither the policy nor the chip demands any and the guest says so too.
    fn without_evidence(&self, session: &LiveSession, policy: &PolicyDocument) -> Result<(), Failure> {
        // GUARD: evidence-demanded -> evil_policy_that_demands_evidence_is_not_satisfied_without
        if policy.evidence().is_some() {
            return Err(Status::EvidenceRequired.into());
        }
        // Said twice: such a chip lets no session say NO_EVIDENCE (guard `no-evidence-mode`), so the next check refuses too.
        if !self.modes.no_evidence {
            return Err(Status::EvidenceRequired.into());
        }
        // GUARD: evidence-by-the-guest -> evil_guest_without_evidence_that_does_not_say_so
        if !session.guest().contains(InsecureFlags::NO_EVIDENCE) {
            return Err(Status::EvidenceRequired.into());
        }
        Ok(())
    }
}

/// EVIDENCE_REFUSED with its detail; the log of this emulator says it in words.
fn refused(error: EvidenceError) -> Failure {
    crate::log::note(&format!("evidence refused: {error}"));
    Failure::Status(Status::EvidenceRefused, detail(&error))
}

/// The number of what did not hold: a rule by its name, else the code without its prefix.
fn detail(error: &EvidenceError) -> u32 {
    let detail = match error {
        EvidenceError::PolicyDenied { rule, .. } => EvidenceDetail::of_name(rule),
        other => of_code(other.code()),
    };
    detail.map_or(0, EvidenceDetail::as_u32)
}

fn of_code(code: &str) -> Option<EvidenceDetail> {
    EvidenceDetail::of_name(&code.strip_prefix("EVIDENCE_")?.to_ascii_lowercase())
}

#[cfg(test)]
mod tests;
