//! What this guest is, what it can prove, and which insecure modes are in effect.

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

use attestation_agent::{Attester, Claim, Collateral, TeeRoot};
use chip_client::abi::{DataPath, InsecureFlags};
use chip_client::session::{EvidenceFailure, ReportData, SuiteRequirement};
use initdata::InsecureMode;
use protected_memory::landing::{
    InsecureChoice, LandingPolicy, LandingReport, SwapPolicy, TeePolicy, TeeState,
};

use super::keys::KeySource;
use crate::Error;

/// Most threads that decrypt.
const MAXIMUM_THREADS: usize = 64;

/// The TEE that was found, if any, and what it presents.
#[derive(Clone)]
pub struct Guest {
    /// What protects the memory of this machine.
    pub tee: TeeState,
    /// Who gives evidence.
    pub attester: Option<Arc<Attester>>,
    /// What a chip needs to verify evidence; `None` where none is presented.
    pub collateral: Option<Collateral>,
    /// Insecure modes that bound initdata permits; `None` outside a TEE.
    pub bound: Option<BTreeSet<InsecureMode>>,
    /// Where the platform is.
    pub root: TeeRoot,
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest").field("tee", &self.tee).field("bound", &self.bound).finish_non_exhaustive()
    }
}

impl Guest {
    /// The TEE, for whoever attests to somebody else than a chip.
    pub(super) fn attester(&self) -> Result<&Arc<Attester>, Error> {
        self.attester.as_ref().ok_or_else(|| Error::Usage {
            argument: "--kbs, --snp",
            expected: "a TEE",
            found: "none".to_owned(),
        })
    }

    /// Evidence about one session and no other; empty without evidence.
    pub(super) fn evidence(&self, session: &ReportData) -> Result<Vec<u8>, EvidenceFailure> {
        let (Some(attester), Some(collateral)) = (&self.attester, &self.collateral) else {
            return Ok(Vec::new());
        };
        let claim = Claim::ChipSession { transcript: *session.transcript() };
        let evidence = attester.evidence(&claim)?;
        Ok(evidence.present(collateral)?)
    }

    /// The insecure modes of a chip that are accepted: what was asked for by name or bound, and what it makes no sense without.
    pub(super) fn accepted(&self, choices: &Choices) -> InsecureFlags {
        let mut accepted = InsecureFlags::NONE;
        // Only an emulated chip believes the roots of an emulated TEE.
        let emulated = InsecureFlags::EMULATED_TEE.union(InsecureFlags::EMULATED_CHIP);
        if choices.no_evidence {
            accepted = accepted.union(InsecureFlags::NO_EVIDENCE);
            if self.bound.is_none() {
                accepted = accepted.union(InsecureFlags::EMULATED_CHIP);
            }
        }
        if self.root.is_insecure() || self.binds(InsecureMode::EmulatedTee) {
            accepted = accepted.union(emulated);
        }
        if self.binds(InsecureMode::EmulatedChip) {
            accepted = accepted.union(InsecureFlags::EMULATED_CHIP);
        }
        if choices.emulated_dma {
            accepted = accepted.union(InsecureFlags::EMULATED_DMA);
        }
        accepted
    }

    fn binds(&self, mode: InsecureMode) -> bool {
        self.bound.as_ref().is_some_and(|bound| bound.contains(&mode))
    }
}

/// How to land, and each insecure choice as it was made by name. The default makes none.
#[derive(Clone, Copy, Debug)]
pub struct Choices {
    /// The way that the plaintext takes from a chip.
    pub path: DataPath,
    /// Suites of the session with a chip.
    pub suite: SuiteRequirement,
    /// How many threads decrypt; at most 64.
    pub threads: NonZeroUsize,
    /// Which TEE landing insists on.
    pub tee: TeePolicy,
    /// Whether pages of the landing may be swapped.
    pub swap: SwapPolicy,
    /// A session without evidence.
    pub no_evidence: bool,
    /// Private DMA is emulated.
    pub emulated_dma: bool,
    /// The key broker is asked by http.
    pub plain_http: bool,
}

impl Default for Choices {
    fn default() -> Self {
        Self {
            path: DataPath::KeyRelease,
            suite: SuiteRequirement::Hybrid,
            threads: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            tee: TeePolicy::Require,
            swap: SwapPolicy::Refuse,
            no_evidence: false,
            emulated_dma: false,
            plain_http: false,
        }
    }
}

impl Choices {
    pub(super) fn landing_policy(&self) -> LandingPolicy {
        LandingPolicy { tee: self.tee, swap: self.swap }
    }

    pub(super) fn threads(&self) -> NonZeroUsize {
        self.threads.min(NonZeroUsize::new(MAXIMUM_THREADS).unwrap_or(NonZeroUsize::MIN))
    }
}

/// The insecure modes that are in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Those of this guest: the chip gets them, and they are in the transcript.
    pub guest: InsecureFlags,
    /// Those that no chip hears of.
    beside: Vec<&'static str>,
}

impl Facts {
    /// The modes with this landing; without one the plaintext goes to a disk.
    #[must_use]
    pub fn new(
        choices: &Choices,
        source: &KeySource,
        machine: &Guest,
        landing: Option<&LandingReport>,
    ) -> Self {
        let mut guest = InsecureFlags::NONE;
        for choice in landing.map(|report| report.insecure.as_slice()).unwrap_or_default() {
            guest = guest.union(match choice {
                InsecureChoice::EmulatedTee => InsecureFlags::EMULATED_TEE,
                InsecureChoice::NoTee => InsecureFlags::NO_TEE,
                _ => InsecureFlags::SWAP,
            });
        }
        if landing.is_none() {
            guest = guest.union(InsecureFlags::NO_TEE).union(InsecureFlags::SWAP);
        }
        if choices.no_evidence {
            guest = guest.union(InsecureFlags::NO_EVIDENCE);
        }
        if choices.emulated_dma {
            guest = guest.union(InsecureFlags::EMULATED_DMA);
        }
        // This guest cannot tell; who launched it says so.
        if machine.binds(InsecureMode::EmulatedTee) {
            guest = guest.union(InsecureFlags::EMULATED_TEE);
        }
        let tpm = matches!(source, KeySource::Tpm { .. });
        let beside = [
            (tpm && machine.tee == TeeState::None, "tpm-only"),
            (choices.plain_http, "plain-http"),
            (machine.binds(InsecureMode::EmulatedChip), "emulated-chip"),
        ];
        Self { guest, beside: beside.into_iter().filter(|(on, _)| *on).map(|(_, name)| name).collect() }
    }

    /// Their names.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        InsecureFlags::NAMED
            .iter()
            .filter(|(flag, _)| self.guest.contains(*flag))
            .map(|(_, name)| *name)
            .chain(self.beside.iter().copied())
            .collect()
    }
}
