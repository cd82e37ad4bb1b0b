//! Insecure modes of the hub: inside a TEE only bound initdata names them, elsewhere a flag does.

use std::collections::BTreeSet;

use attestation_agent::Attester;
use initdata::{Initdata, InsecureMode};

use crate::hub_error::HubError;

/// The insecure modes that are in effect. There is no other way to one than these constructors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Modes(BTreeSet<InsecureMode>);

impl Modes {
    /// None of them.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Those that the bound document names, and those that flags name, each with its flag.
    ///
    /// # Errors
    ///
    /// `CDH_INSECURE_IN_TEE` for a flag inside a TEE.
    pub fn decide(
        attester: &Attester,
        bound: Option<&Initdata>,
        flags: &[(&'static str, InsecureMode)],
    ) -> Result<Self, HubError> {
        let mut modes = bound.map(|bound| bound.document().settings().insecure.clone()).unwrap_or_default();
        let emulated = !attester.insecure_modes().is_empty();
        if let Some((flag, _)) = flags.first() {
            // GUARD: hub-flag-in-tee -> evil_host_flag_weakens_the_hub
            if !emulated {
                return Err(HubError::InsecureInTee { flag, tee: attester.tee().name() });
            }
        }
        modes.extend(flags.iter().map(|(_, mode)| *mode));
        Ok(Self(modes))
    }

    /// Whether a mode is in effect.
    #[must_use]
    pub fn has(&self, mode: InsecureMode) -> bool {
        self.0.contains(&mode)
    }

    /// Whether a mode that was asked for is in effect.
    ///
    /// # Errors
    ///
    /// `CDH_INSECURE_UNBOUND`.
    pub fn require(&self, asked: &'static str, mode: InsecureMode) -> Result<(), HubError> {
        if self.has(mode) { Ok(()) } else { Err(HubError::InsecureUnbound { asked, mode: mode.name() }) }
    }

    /// Their names, in order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|mode| mode.name())
    }

    /// These, for tests.
    #[cfg(test)]
    pub(crate) fn of(modes: &[InsecureMode]) -> Self {
        Self(modes.iter().copied().collect())
    }
}
