//! Insecure modes of the command line, and who may switch them on (invariant 6 of ARCHITECTURE.md).
//!
//! Outside a TEE, and in an emulated one below another root, whoever types the command. Inside a TEE whoever typed it may be the host: only what
//! bound initdata lists is permitted there.

use std::collections::BTreeSet;
use std::path::Path;

use attestation_agent::Attester;
use attestation_agent::binding::bound_document;
use initdata::InsecureMode;

use crate::error::Failure;

/// What bound initdata permits, if the platform is a TEE and not an emulated one below another root; `None`: everything that is asked for by name.
///
/// # Errors
///
/// Initdata that is not bound to this guest; a mode among `asked` that it does not list.
pub(crate) fn permitted(
    attester: Option<&Attester>,
    initdata: Option<&Path>,
    asked: &[InsecureMode],
) -> Result<Option<BTreeSet<InsecureMode>>, Failure> {
    let Some(attester) = attester.filter(|attester| attester.insecure_modes().is_empty()) else {
        return Ok(None);
    };
    let bound = match initdata {
        Some(path) => bound_document(attester, path)?.document().settings().insecure.clone(),
        None => BTreeSet::new(),
    };
    for mode in asked {
        // GUARD: insecure-mode-bound -> evil_host_flag_weakens_a_tee
        if !bound.contains(mode) {
            return Err(Failure::InsecureUnbound { mode: mode.name() });
        }
    }
    Ok(Some(bound))
}
