//! What this guest is, what it can prove, and which insecure modes the command line asks for.

use std::sync::Arc;

use attestation_agent::{AttestationError, Attester, Collateral, Options, Tee};
use cdh::artifact::{Choices, Guest};
use chip_client::session::SuiteRequirement;
use initdata::InsecureMode;
use protected_memory::landing::{SwapPolicy, TeePolicy, TeeState};

use super::data_path;
use crate::args::UnsealArgs;
use crate::cmd::seal::threads;
use crate::error::Failure;
use crate::insecure::permitted;
use crate::platform;

/// Looks for the TEE (specification, attestation §2) and reads the collateral. A guest that could prove nothing where it has to is
/// refused here, before anything is asked of anybody.
pub(super) fn find(arguments: &UnsealArgs) -> Result<Guest, Failure> {
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
        return Err(cdh::Error::TpmAlone.into());
    }
    let collateral = match (&attester, &arguments.collateral) {
        (Some(_), Some(file)) => Some(Collateral::load(file)?),
        (Some(attester), None) if presents(arguments) => Some(without_file(attester)?),
        _ => None,
    };
    Ok(Guest { tee, attester: attester.map(Arc::new), collateral, bound, root })
}

/// How to land, and what landing insists on: each insecure choice as it was made by name.
pub(super) fn choices(arguments: &UnsealArgs, guest: &Guest) -> Choices {
    let alone = arguments.insecure_tpm_only && guest.tee == TeeState::None;
    Choices {
        path: data_path(arguments.path),
        suite: if arguments.allow_classical {
            SuiteRequirement::AtLeastClassical
        } else {
            SuiteRequirement::Hybrid
        },
        threads: threads(arguments.threads),
        tee: if arguments.insecure_no_tee || alone {
            TeePolicy::InsecureNoTee
        } else if arguments.platform.insecure_tee_root.is_some() {
            TeePolicy::InsecureEmulatedTee
        } else {
            TeePolicy::Require
        },
        swap: if arguments.insecure_swap { SwapPolicy::InsecureSwap } else { SwapPolicy::Refuse },
        no_evidence: arguments.insecure_no_evidence,
        emulated_dma: arguments.insecure_emulated_dma,
        plain_http: arguments.broker.insecure_plain_http,
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
        Tee::Tdx => Err(cdh::Error::NoCollateral { tee: attester.tee().name() }.into()),
        _ => Ok(Collateral::none()),
    }
}

fn no_tee(error: &AttestationError) -> bool {
    error.code() == "ATTEST_NO_TEE"
}
