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
        let bound = bound.map(|bound| bound.document().settings().insecure.clone()).unwrap_or_default();
        Self::combine(bound, flags, attester.insecure_modes().is_empty().then(|| attester.tee().name()))
    }

    /// `tee`: the real one that this is inside of, if it is.
    fn combine(
        bound: BTreeSet<InsecureMode>,
        flags: &[(&'static str, InsecureMode)],
        tee: Option<&'static str>,
    ) -> Result<Self, HubError> {
        if let (Some((flag, _)), Some(tee)) = (flags.first(), tee) {
            // GUARD: hub-flag-in-tee -> evil_host_flag_weakens_the_hub
            return Err(HubError::InsecureInTee { flag, tee });
        }
        let flags = flags.iter().map(|(_, mode)| *mode);
        Ok(Self(bound.into_iter().chain(flags).collect()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evil_host_flag_weakens_the_hub() {
        let flags = [("--insecure-offline-kbc", InsecureMode::OfflineKbc)];
        let combine = |bound: &[InsecureMode], flags: &[_], tee| {
            Modes::combine(bound.iter().copied().collect(), flags, tee)
        };
        let refused = combine(&[InsecureMode::OfflineKbc], &flags, Some("tdx"));
        assert_eq!(refused.unwrap_err().code(), "CDH_INSECURE_IN_TEE");
        let bound = combine(&[InsecureMode::PlainHttp], &[], Some("tdx")).unwrap();
        assert_eq!(bound.names().collect::<Vec<_>>(), ["plain-http"]);
        let outside = combine(&[], &flags, None).unwrap();
        assert!(outside.has(InsecureMode::OfflineKbc) && !outside.has(InsecureMode::PlainHttp));
    }
}
