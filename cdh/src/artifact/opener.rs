//! By whose key this guest opens artifacts: chips first, then the broker, the processor, the TPM.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use attestation_agent::kbs::{KbsClient, KbsOptions};
use attestation_agent::service::AttestationSource;
use attestation_agent::tpm::TpmLocation;
use attestation_agent::{Attester, Collateral, Tee};
use chip_client::abi::DataPath;
use chip_client::address::DeviceAddress;
use chip_client::chain::TrustRoot;
use chip_client::error::ChipError;
use chip_client::vfio::VfioDevice;
use initdata::InsecureMode;
use protected_memory::landing::{SwapPolicy, TeePolicy};
use sealed_artifact::kbs::KbsRecipient;
use sealed_artifact::parallel::Observer;

use super::cache::{Cache, StoredArtifacts};
use super::guest::{Choices, Guest};
use super::keys::{Broker, BrokerAccess, KeySource};
use super::land::{Landed, Order};
use super::prepared::Prepared;
use crate::{Class, Error};

/// How long a broker has for the key of an artifact.
const KEY_PATIENCE: Duration = Duration::from_secs(60);

/// Why nothing is opened, beside what the parts say.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenerError {
    /// The core was sealed for another environment than the guest was configured for.
    #[error("artifact {name}: expected a core for environment {expected}, found one for {found}")]
    Environment {
        /// Its name.
        name: String,
        /// Of bound configuration.
        expected: String,
        /// Of the core.
        found: String,
    },
    /// Nothing here has a key: no chip below a configured root, no broker that bound `cdh.toml` names, no processor that
    /// derives keys, no TPM.
    #[error(
        "artifact {name}: expected a chip with `chip_root` in sealed.toml, a broker with `broker` in cdh.toml, an SEV-SNP processor, or a TPM; found none"
    )]
    NoKeySource {
        /// Its name.
        name: String,
    },
}

impl OpenerError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Environment { .. } => "SEALED_ENVIRONMENT",
            Self::NoKeySource { .. } => "SEALED_NO_KEY_SOURCE",
        }
    }

    /// Whose fault.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Environment { .. } => Class::Refused,
            Self::NoKeySource { .. } => Class::Config,
        }
    }
}

/// Chips whose certificates end at a pinned root.
#[derive(Clone, Debug)]
pub struct Chips {
    root: TrustRoot,
    addresses: Option<Vec<DeviceAddress>>,
}

impl Chips {
    /// Those that are on the bus when somebody asks. `root` is PEM of bound configuration.
    ///
    /// # Errors
    ///
    /// No certificate of a root.
    pub fn on_the_bus(root: &str) -> Result<Self, Error> {
        let root = TrustRoot::from_trusted(root.as_bytes()).map_err(ChipError::from)?;
        Ok(Self { root, addresses: None })
    }

    /// These, and no others.
    #[must_use]
    pub const fn these(root: TrustRoot, addresses: Vec<DeviceAddress>) -> Self {
        Self { root, addresses: Some(addresses) }
    }

    /// The chips that can be driven, and why the first other one cannot.
    fn found(&self) -> Result<(Vec<KeySource>, Option<Error>), Error> {
        let source = |address| KeySource::Chip { address, root: self.root.clone() };
        if let Some(these) = &self.addresses {
            return Ok((these.iter().cloned().map(source).collect(), None));
        }
        let (mut sources, mut unbound) = (Vec::new(), None);
        for address in VfioDevice::present()? {
            match VfioDevice::bind(address) {
                Ok(()) => sources.push(source(DeviceAddress::Pci(address))),
                // One of several, perhaps: anybody on the bus can say that it is a chip.
                Err(error) => {
                    unbound.get_or_insert(Error::from(error));
                }
            }
        }
        Ok((sources, unbound))
    }
}

/// The broker of bound configuration, as a place of keys.
#[derive(Clone)]
pub struct BrokerPlace {
    /// Whom grants have to name.
    pub recipient: KbsRecipient,
    /// The way to it.
    pub access: Arc<dyn BrokerAccess>,
}

impl fmt::Debug for BrokerPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerPlace").field("recipient", &self.recipient).finish_non_exhaustive()
    }
}

/// The way to the broker of a hub's configuration, with a session of its own.
pub struct HubBroker {
    /// How to reach it.
    pub options: KbsOptions,
    /// The exact text of bound initdata.
    pub initdata: Option<String>,
}

impl fmt::Debug for HubBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HubBroker(..)")
    }
}

impl BrokerAccess for HubBroker {
    fn connect(&self, attester: Arc<Attester>) -> Result<Broker, Error> {
        let evidence = Arc::new(AttestationSource::new(attester, self.initdata.clone()));
        Broker::new(KbsClient::background_check(&self.options, evidence)?, KEY_PATIENCE)
    }
}

/// What this guest is, and where it has keys from.
#[derive(Clone, Debug)]
pub struct Opener {
    /// What protects this guest, and what it can prove.
    pub guest: Guest,
    /// Chips, if bound configuration pins a root.
    pub chips: Option<Chips>,
    /// The broker, if bound configuration names one.
    pub broker: Option<BrokerPlace>,
    /// Insecure modes that are in effect.
    pub insecure: BTreeSet<InsecureMode>,
    /// What landing insists on: a TEE, unless whoever started this said otherwise by name.
    pub tee: TeePolicy,
    /// What all openers of this guest have in common.
    pub shared: Shared,
}

/// What all openers of one guest have in common. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    /// Where the host stores artifacts, and beside them what chips verify this guest's evidence with.
    stored: Option<Arc<dyn StoredArtifacts>>,
    /// Held by whoever has a chip open: it serves one session.
    turn: Arc<Mutex<()>>,
}

impl Shared {
    /// Openers that look for stored artifacts there.
    #[must_use]
    pub fn at(stored: Option<Arc<dyn StoredArtifacts>>) -> Self {
        Self { stored, turn: Arc::default() }
    }

    /// The directory of stored artifacts, if it is there now.
    ///
    /// # Errors
    ///
    /// As [`Cache::open`].
    pub fn cache(&self) -> Result<Option<Cache>, Error> {
        Ok(self.stored.as_ref().map(|stored| stored.cache()).transpose()?.flatten())
    }
}

impl Opener {
    /// Lands an artifact, by the first of all places that has its key. For threads that may block.
    ///
    /// # Errors
    ///
    /// `SEALED_ENVIRONMENT`, `SEALED_NO_KEY_SOURCE`; where no place opens it, the first one's failure says why.
    pub fn land(
        &self,
        name: &str,
        environment: &str,
        prepared: &Prepared,
        observer: &impl Observer,
    ) -> Result<Landed, Error> {
        require_environment(name, environment, prepared)?;
        let mut first = None;
        for source in self.sources()? {
            let choices = self.choices(&source, prepared);
            let guest = match self.presented_to(&source) {
                Ok(guest) => guest,
                Err(error) => {
                    first.get_or_insert(error);
                    continue;
                }
            };
            let is_chip = matches!(source, KeySource::Chip { .. });
            let _turn = is_chip.then(|| self.shared.turn.lock().unwrap_or_else(PoisonError::into_inner));
            let landed = Order::new(prepared, &source, &guest, choices)
                .reserve()
                .and_then(|reserved| reserved.land(observer));
            match landed {
                Ok(landed) => return Ok(landed),
                Err(error) if is_about_the_source(&error) => {
                    first.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(first.unwrap_or_else(|| OpenerError::NoKeySource { name: name.to_owned() }.into()))
    }

    /// This guest, with what its evidence is verified by: a chip verifies quotes itself, and has no network. A report of SEV-SNP comes with its
    /// certificates.
    fn presented_to(&self, source: &KeySource) -> Result<Cow<'_, Guest>, Error> {
        let complete = self.guest.collateral.is_some() || self.has(InsecureMode::NoEvidence);
        let Some(attester) = &self.guest.attester else { return Ok(Cow::Borrowed(&self.guest)) };
        if complete || !matches!(source, KeySource::Chip { .. }) {
            return Ok(Cow::Borrowed(&self.guest));
        }
        let cache = self.shared.cache()?;
        let collateral = match cache.as_ref().map(Cache::collateral).transpose()?.flatten() {
            None if attester.tee() == Tee::Snp => Collateral::none(),
            found => found.ok_or(Error::NoCollateral { tee: attester.tee().name() })?,
        };
        Ok(Cow::Owned(Guest { collateral: Some(collateral), ..self.guest.clone() }))
    }

    fn sources(&self) -> Result<Vec<KeySource>, Error> {
        let (mut sources, unbound) = self.chips.as_ref().map(Chips::found).transpose()?.unwrap_or_default();
        sources.extend(self.broker.as_ref().map(|place| KeySource::Broker {
            recipient: place.recipient.clone(),
            access: Box::new(Arc::clone(&place.access)),
        }));
        if self.guest.attester.as_ref().is_some_and(|attester| attester.tee() == Tee::Snp) {
            sources.push(KeySource::Snp);
        }
        // A second factor, beside the TEE that landing insists on.
        if TpmLocation::find().is_ok() {
            sources.push(KeySource::Tpm { insecure_below: None });
        }
        match unbound {
            Some(error) if sources.is_empty() => Err(error),
            _ => Ok(sources),
        }
    }

    fn choices(&self, source: &KeySource, prepared: &Prepared) -> Choices {
        let among: &[DataPath] = if self.has(InsecureMode::EmulatedDma) {
            &[DataPath::DmaDirect, DataPath::DmaSealed, DataPath::KeyRelease]
        } else {
            &[DataPath::DmaSealed, DataPath::KeyRelease]
        };
        let path = match source {
            KeySource::Chip { .. } => prepared.data_path(among).unwrap_or(DataPath::KeyRelease),
            _ => DataPath::KeyRelease,
        };
        Choices {
            path,
            tee: self.tee,
            swap: if self.has(InsecureMode::Swap) { SwapPolicy::InsecureSwap } else { SwapPolicy::Refuse },
            no_evidence: self.has(InsecureMode::NoEvidence),
            emulated_dma: self.has(InsecureMode::EmulatedDma),
            plain_http: self.has(InsecureMode::PlainHttp),
            ..Choices::default()
        }
    }

    fn has(&self, mode: InsecureMode) -> bool {
        self.insecure.contains(&mode)
    }
}

/// Refuses an artifact of another environment than bound configuration names.
///
/// # Errors
///
/// `SEALED_ENVIRONMENT`.
pub fn require_environment(name: &str, expected: &str, prepared: &Prepared) -> Result<(), OpenerError> {
    same_environment(name, expected, prepared.store().core.parameters().environment().as_str())
}

fn same_environment(name: &str, expected: &str, found: &str) -> Result<(), OpenerError> {
    // GUARD: opener-environment -> evil_artifact_of_another_environment
    if expected != found {
        let (name, expected, found) = (name.to_owned(), expected.to_owned(), found.to_owned());
        return Err(OpenerError::Environment { name, expected, found });
    }
    Ok(())
}

/// Whether another source may still have a key: this one has no grant, is not there, not well, not a chip of ours, or says no. Each has grants of
/// its own, under policies of their own. An artifact that is damaged is damaged for all.
fn is_about_the_source(error: &Error) -> bool {
    match error {
        Error::NoGrantForChip { .. } | Error::NoGrantForKey { .. } | Error::Tpm(_) => true,
        // It is not there, or says no.
        Error::Kbs(_) => !matches!(error.class(), Class::Bug),
        Error::Chip(_) => !matches!(error.class(), Class::Artifact | Class::Bug),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evil_artifact_of_another_environment() {
        same_environment("m", "production", "production").unwrap();
        for found in ["development", "", "production/x"] {
            let error = same_environment("m", "production", found).unwrap_err();
            assert_eq!(error.code(), "SEALED_ENVIRONMENT");
        }
    }
}
