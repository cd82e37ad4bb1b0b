//! What this guest is, what it can prove, and which insecure modes are in effect.

use std::collections::BTreeSet;

use attestation_agent::{AttestationError, Attester, Claim, Collateral, Options, Tee};
use chip_client::abi::InsecureFlags;
use chip_client::session::{EvidenceFailure, ReportData};
use initdata::InsecureMode;
use protected_memory::landing::{
    InsecureChoice, LandingPolicy, LandingReport, SwapPolicy, TeePolicy, TeeState,
};

use crate::args::UnsealArgs;
use crate::error::Failure;
use crate::insecure::permitted;
use crate::platform;

/// The TEE that was found, if any, and what it presents.
pub(super) struct Guest {
    tee: TeeState,
    attester: Option<Attester>,
    /// What a chip needs to verify evidence; `None` where none is presented.
    collateral: Option<Collateral>,
    /// Insecure modes that bound initdata permits; `None` outside a TEE.
    bound: Option<BTreeSet<InsecureMode>>,
}

impl Guest {
    /// Looks for the TEE (specification, attestation §2) and reads the collateral. A guest that could prove nothing where it has to is
    /// refused here, before anything is asked of anybody.
    pub(super) fn find(arguments: &UnsealArgs) -> Result<Self, Failure> {
        let root = platform::root(&arguments.platform);
        let without = arguments.tpm || (arguments.insecure_no_evidence && !root.is_insecure());
        let attester = match Attester::detect(&root, Options::default()) {
            Ok(attester) => Some(attester),
            Err(error) if no_tee(&error) && without => None,
            Err(error) => return Err(error.into()),
        };
        let initdata = arguments.broker.initdata.as_deref();
        let bound = permitted(attester.as_ref(), initdata, &asked(arguments))?;
        // GUARD: tee-never-to-disk -> evil_host_flag_weakens_a_tee
        if arguments.insecure_to_disk.is_some() && bound.is_some() {
            return Err(Failure::InsecureUnbound { mode: "to-disk" });
        }
        let tee = match &attester {
            None => TeeState::None,
            Some(attester) if root.is_insecure() => TeeState::Emulated(attester.tee().name()),
            Some(attester) => TeeState::Active(attester.tee().name()),
        };
        // GUARD: tpm-is-no-tee -> evil_unseal_by_a_tpm_alone_is_refused
        if arguments.tpm && tee == TeeState::None && !arguments.insecure_tpm_only {
            return Err(Failure::TpmAlone);
        }
        let collateral = match (&attester, &arguments.collateral) {
            (Some(_), Some(file)) => Some(Collateral::load(file)?),
            (Some(attester), None) if presents(arguments) => Some(without_file(attester)?),
            _ => None,
        };
        Ok(Self { tee, attester, collateral, bound })
    }

    /// The TEE, for whoever attests to somebody else than a chip.
    pub(super) fn into_attester(self) -> Result<Attester, Failure> {
        self.attester.ok_or_else(|| Failure::Usage {
            argument: "--kbs, --snp",
            expected: "a TEE",
            found: "none".to_owned(),
        })
    }

    /// What protects the memory of this machine.
    pub(super) fn tee(&self) -> TeeState {
        self.tee
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
    pub(super) fn accepted(&self, arguments: &UnsealArgs) -> InsecureFlags {
        let mut accepted = InsecureFlags::NONE;
        // Only an emulated chip believes the roots of an emulated TEE.
        let emulated = InsecureFlags::EMULATED_TEE.union(InsecureFlags::EMULATED_CHIP);
        if arguments.insecure_no_evidence {
            accepted = accepted.union(InsecureFlags::NO_EVIDENCE);
            if self.bound.is_none() {
                accepted = accepted.union(InsecureFlags::EMULATED_CHIP);
            }
        }
        if arguments.platform.insecure_tee_root.is_some() || self.binds(InsecureMode::EmulatedTee) {
            accepted = accepted.union(emulated);
        }
        if self.binds(InsecureMode::EmulatedChip) {
            accepted = accepted.union(InsecureFlags::EMULATED_CHIP);
        }
        if arguments.insecure_emulated_dma {
            accepted = accepted.union(InsecureFlags::EMULATED_DMA);
        }
        accepted
    }

    fn binds(&self, mode: InsecureMode) -> bool {
        self.bound.as_ref().is_some_and(|bound| bound.contains(&mode))
    }

    /// What landing insists on: each insecure choice as it was made by name.
    pub(super) fn landing_policy(&self, arguments: &UnsealArgs) -> LandingPolicy {
        let alone = arguments.insecure_tpm_only && self.tee == TeeState::None;
        LandingPolicy {
            tee: if arguments.insecure_no_tee || alone {
                TeePolicy::InsecureNoTee
            } else if arguments.platform.insecure_tee_root.is_some() {
                TeePolicy::InsecureEmulatedTee
            } else {
                TeePolicy::Require
            },
            swap: if arguments.insecure_swap { SwapPolicy::InsecureSwap } else { SwapPolicy::Refuse },
        }
    }
}

/// What the command line asks for and bound initdata can permit.
fn asked(arguments: &UnsealArgs) -> Vec<InsecureMode> {
    let modes = [
        (arguments.insecure_emulated_dma, InsecureMode::EmulatedDma),
        (arguments.insecure_no_evidence, InsecureMode::NoEvidence),
        (arguments.broker.insecure_plain_http, InsecureMode::PlainHttp),
        (arguments.insecure_swap, InsecureMode::Swap),
        (arguments.insecure_tpm_only, InsecureMode::TpmOnly),
    ];
    modes.into_iter().filter(|(asked, _)| *asked).map(|(_, mode)| mode).collect()
}

/// Whether a chip is to get evidence.
fn presents(arguments: &UnsealArgs) -> bool {
    arguments.chip.is_some() && !arguments.insecure_no_evidence
}

/// Collateral where no file was given: a report comes with its certificates, a quote with nothing.
fn without_file(attester: &Attester) -> Result<Collateral, Failure> {
    match attester.tee() {
        Tee::Tdx => Err(Failure::NoCollateral { tee: attester.tee().name() }),
        _ => Ok(Collateral::none()),
    }
}

fn no_tee(error: &AttestationError) -> bool {
    error.code() == "ATTEST_NO_TEE"
}

/// The insecure modes that are in effect.
pub(super) struct Facts {
    /// Those of this guest: the chip gets them, and they are in the transcript.
    pub(super) guest: InsecureFlags,
    /// Those that no chip hears of.
    beside: Vec<&'static str>,
}

impl Facts {
    /// The modes with this landing; without one the plaintext goes to a disk.
    pub(super) fn new(arguments: &UnsealArgs, machine: &Guest, landing: Option<&LandingReport>) -> Self {
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
        // This guest cannot tell; who launched it says so.
        if machine.binds(InsecureMode::EmulatedTee) {
            guest = guest.union(InsecureFlags::EMULATED_TEE);
        }
        let beside = [
            (arguments.tpm && machine.tee == TeeState::None, "tpm-only"),
            (arguments.broker.insecure_plain_http, "plain-http"),
            (machine.binds(InsecureMode::EmulatedChip), "emulated-chip"),
        ];
        Self { guest, beside: beside.into_iter().filter(|(on, _)| *on).map(|(_, name)| name).collect() }
    }

    /// Their names.
    pub(super) fn names(&self) -> Vec<&'static str> {
        InsecureFlags::NAMED
            .iter()
            .filter(|(flag, _)| self.guest.contains(*flag))
            .map(|(_, name)| *name)
            .chain(self.beside.iter().copied())
            .collect()
    }
}
