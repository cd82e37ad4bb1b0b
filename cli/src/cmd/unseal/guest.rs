//! What this guest is, what it can prove, and which insecure modes are in effect.

use attestation_agent::{AttestationError, Attester, Claim, Collateral, Options, Tee, TeeRoot};
use chip_client::abi::InsecureFlags;
use chip_client::session::{EvidenceFailure, ReportData};
use protected_memory::landing::{
    InsecureChoice, LandingPolicy, LandingReport, SwapPolicy, TeePolicy, TeeState,
};

use crate::args::UnsealArgs;
use crate::error::Failure;

/// The TEE that was found, if any, and what it presents.
pub(super) struct Guest {
    tee: TeeState,
    evidence: Option<Proof>,
}

/// What evidence is made of.
struct Proof {
    attester: Attester,
    collateral: Collateral,
}

impl Guest {
    /// Looks for the TEE (specification, attestation §2) and reads the collateral. Without `--insecure-no-evidence` a guest that could prove
    /// nothing is refused here, before anything is asked of a chip.
    pub(super) fn find(arguments: &UnsealArgs) -> Result<Self, Failure> {
        let emulated = arguments.insecure_tee_root.as_ref();
        let root = emulated.map_or_else(TeeRoot::system, TeeRoot::insecure);
        let attester = match Attester::detect(&root, Options::default()) {
            Ok(attester) => attester,
            Err(error) if no_tee(&error) && arguments.insecure_no_evidence && emulated.is_none() => {
                return Ok(Self { tee: TeeState::None, evidence: None });
            }
            Err(error) => return Err(error.into()),
        };
        let name = attester.tee().name();
        let tee = if root.is_insecure() { TeeState::Emulated(name) } else { TeeState::Active(name) };
        if arguments.insecure_no_evidence {
            return Ok(Self { tee, evidence: None });
        }
        let collateral = match &arguments.collateral {
            Some(file) => Collateral::load(file)?,
            // A report comes with its certificates, a quote with nothing.
            None if attester.tee() == Tee::Tdx => return Err(Failure::NoCollateral { tee: name }),
            None => Collateral::none(),
        };
        Ok(Self { tee, evidence: Some(Proof { attester, collateral }) })
    }

    /// What protects the memory of this machine.
    pub(super) fn tee(&self) -> TeeState {
        self.tee
    }

    /// Evidence about one session and no other; empty without evidence.
    pub(super) fn evidence(&self, session: &ReportData) -> Result<Vec<u8>, EvidenceFailure> {
        let Some(Proof { attester, collateral }) = &self.evidence else { return Ok(Vec::new()) };
        let claim = Claim::ChipSession { transcript: *session.transcript() };
        let evidence = attester.evidence(&claim)?;
        Ok(evidence.present(collateral)?)
    }
}

fn no_tee(error: &AttestationError) -> bool {
    error.code() == "ATTEST_NO_TEE"
}

/// What landing insists on: each insecure choice as it was made by name.
pub(super) fn landing_policy(arguments: &UnsealArgs) -> LandingPolicy {
    LandingPolicy {
        tee: if arguments.insecure_no_tee {
            TeePolicy::InsecureNoTee
        } else if arguments.insecure_tee_root.is_some() {
            TeePolicy::InsecureEmulatedTee
        } else {
            TeePolicy::Require
        },
        swap: if arguments.insecure_swap { SwapPolicy::InsecureSwap } else { SwapPolicy::Refuse },
    }
}

/// The insecure modes that are in effect.
pub(super) struct Facts {
    /// Those of this guest: the chip gets them, and they are in the transcript.
    pub(super) guest: InsecureFlags,
}

impl Facts {
    /// The modes with this landing; without one the plaintext goes to a disk.
    pub(super) fn new(arguments: &UnsealArgs, landing: Option<&LandingReport>) -> Self {
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
        if arguments.insecure_no_evidence {
            guest = guest.union(InsecureFlags::NO_EVIDENCE);
        }
        if arguments.insecure_emulated_dma {
            guest = guest.union(InsecureFlags::EMULATED_DMA);
        }
        Self { guest }
    }

    /// Their names.
    pub(super) fn names(&self) -> Vec<&'static str> {
        InsecureFlags::NAMED
            .iter()
            .filter(|(flag, _)| self.guest.contains(*flag))
            .map(|(_, name)| *name)
            .collect()
    }
}

/// The insecure modes of a chip that are accepted: what was asked for by name, and what it makes no sense without.
pub(super) fn accepted(arguments: &UnsealArgs) -> InsecureFlags {
    let mut accepted = InsecureFlags::NONE;
    if arguments.insecure_no_evidence {
        accepted = accepted.union(InsecureFlags::NO_EVIDENCE).union(InsecureFlags::EMULATED_CHIP);
    }
    if arguments.insecure_tee_root.is_some() {
        // Only an emulated chip believes the roots of an emulated TEE.
        accepted = accepted.union(InsecureFlags::EMULATED_TEE).union(InsecureFlags::EMULATED_CHIP);
    }
    if arguments.insecure_emulated_dma {
        accepted = accepted.union(InsecureFlags::EMULATED_DMA);
    }
    accepted
}
