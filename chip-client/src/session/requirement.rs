//! What the caller demands of a session. Every field is stated: there is no default.

use crate::abi::{DataPath, InsecureFlags, SessionSuite, SessionSuites, TdispState};
use crate::chain::{ChipId, ChipIdentity, TrustRoot};
use crate::error::{ChipError, SessionError};

/// Which chip is acceptable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedChip {
    /// Any chip below the root: for provisioning and for looking at a chip, never for a grant.
    AnyBelowRoot,
    /// The recipient of the grant.
    Exactly(ChipId),
}

/// Which suites are acceptable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SuiteRequirement {
    /// Hybrid is offered beside classical; either is accepted.
    AtLeastClassical,
    /// Only classical is offered.
    ClassicalOnly,
    /// Only hybrid is offered and accepted.
    Hybrid,
}

impl SuiteRequirement {
    pub(super) const fn offered(self) -> SessionSuites {
        match self {
            Self::AtLeastClassical => SessionSuites(SessionSuites::ALL),
            Self::ClassicalOnly => SessionSuites(SessionSuite::Classical.as_u16()),
            Self::Hybrid => SessionSuites(SessionSuite::Hybrid.as_u16()),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::AtLeastClassical => "classical or hybrid",
            Self::ClassicalOnly => "classical",
            Self::Hybrid => "hybrid",
        }
    }
}

/// What a session must be.
#[derive(Clone, Copy, Debug)]
pub struct Requirement<'a> {
    /// The root that the chip's certificates must lead to.
    pub root: &'a TrustRoot,
    /// The chip.
    pub chip: ExpectedChip,
    /// The data path.
    pub path: DataPath,
    /// The suites.
    pub suite: SuiteRequirement,
    /// Insecure modes of this guest, as they are: the chip and the transcript get them.
    pub guest_insecure: InsecureFlags,
    /// Insecure modes of the chip that are accepted.
    pub accepted_insecure: InsecureFlags,
}

impl Requirement<'_> {
    /// Refuses what no session can fulfil.
    pub(super) fn validate(&self) -> Result<(), ChipError> {
        if self.guest_insecure.contains(InsecureFlags::EMULATED_CHIP) {
            let what = "the flag emulated-chip is the chip's to set";
            return Err(SessionError::Requirement { what }.into());
        }
        let emulated = InsecureFlags::EMULATED_DMA;
        let both = self.guest_insecure.contains(emulated) && self.accepted_insecure.contains(emulated);
        if self.path == DataPath::DmaDirect && !both {
            let what = "dma-direct needs device evidence, which this version cannot verify, \
                        or the insecure flag emulated-dma on both sides";
            return Err(SessionError::Requirement { what }.into());
        }
        Ok(())
    }

    pub(super) fn verify_chip(&self, found: &ChipIdentity) -> Result<(), ChipError> {
        let ExpectedChip::Exactly(expected) = self.chip else { return Ok(()) };
        // GUARD: session-chip-id -> evil_other_chip
        if found.id() != expected {
            let (expected, found) = (expected.to_string(), found.id().to_string());
            return Err(SessionError::OtherChip { expected, found }.into());
        }
        Ok(())
    }

    pub(super) fn verify_suite(&self, found: SessionSuite) -> Result<(), ChipError> {
        // GUARD: session-suite -> evil_suite_downgrade
        if !self.suite.offered().contains(found) {
            let (expected, found) = (self.suite.name(), found.name());
            return Err(SessionError::DowngradeSuite { expected, found }.into());
        }
        Ok(())
    }

    pub(super) fn verify_path(&self, found: DataPath) -> Result<(), ChipError> {
        // GUARD: session-path -> evil_path_downgrade
        if found != self.path {
            let (expected, found) = (self.path.name(), found.name());
            return Err(SessionError::DowngradePath { expected, found }.into());
        }
        Ok(())
    }

    pub(super) fn verify_insecure(&self, found: InsecureFlags) -> Result<(), ChipError> {
        // GUARD: session-insecure-flags -> evil_insecure_flag_injected
        if !found.without(self.accepted_insecure).is_empty() {
            return Err(SessionError::InsecureRefused { accepted: self.accepted_insecure, found }.into());
        }
        Ok(())
    }

    pub(super) fn verify_link(&self, state: TdispState, chip: InsecureFlags) -> Result<(), ChipError> {
        let refused = |expected| SessionError::LinkState { expected, found: state.name() };
        // GUARD: session-link-error -> evil_link_in_error
        if state == TdispState::Error {
            return Err(refused("a link without error").into());
        }
        // GUARD: session-link-direct -> evil_dma_direct_without_private_link
        if self.path == DataPath::DmaDirect && !chip.contains(InsecureFlags::EMULATED_DMA) {
            return Err(refused("verified device evidence, or emulated private DMA on both sides").into());
        }
        Ok(())
    }
}
