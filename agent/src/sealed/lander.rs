//! One attempt to land one artifact, on a thread that may block.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use attestation_agent::tpm::TpmLocation;
use attestation_agent::{AttestationError, Attester, Collateral, Options, Tee, TeeRoot};
use cdh::artifact::{Choices, Guest, KeySource, Landed, Order, Prepared, pin_of};
use chip_client::abi::DataPath;
use chip_client::address::DeviceAddress;
use chip_client::chain::TrustRoot;
use chip_client::vfio::VfioDevice;
use initdata::{Artifact, Container, InsecureMode, Sha256Digest};
use protected_memory::landing::{AttachTarget, SwapPolicy, TeePolicy, TeeState};
use rustix::fs::{CWD, Mode, mkdirat};
use rustix::io::Errno;

use super::cache::{Cache, Places};
use super::error::SealedError;
use super::fetch;
use super::state::Count;
use crate::hub::DataHub;

/// What every attempt starts from: bound configuration, and where things are.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) environment: String,
    /// The certificate that chips' chains have to end at, PEM.
    pub(super) chip_root: Option<String>,
    pub(super) artifacts: Vec<Artifact>,
    /// Containers with secrets that no artifact is for.
    pub(super) secrets: Vec<Container>,
    /// SHA-256 of the text that indices of containers are of: `policy.rego` of the same document.
    pub(super) policy: Option<Sha256Digest>,
    pub(super) insecure: BTreeSet<InsecureMode>,
    pub(super) places: Places,
    /// A directory of the agent's own, for landings that the kernel clones only where they are attached.
    pub(super) attached: PathBuf,
    /// A directory of the agent's own, for what is fetched from registries.
    pub(super) fetched: PathBuf,
    /// The data hub, for its broker and for registries.
    pub(super) hub: DataHub,
}

impl Setup {
    /// Lands an artifact. `fetching` is told that its registry is asked, `begin` its size when its origin is proven.
    pub(super) fn land(
        &self,
        index: usize,
        artifact: &Artifact,
        fetching: impl FnOnce(),
        begin: impl FnOnce(u64) -> Arc<Count>,
    ) -> Result<Landed, SealedError> {
        let pins = [pin_of(&artifact.origin)?];
        let stored = Cache::open(&self.places);
        let cache = stored.as_ref().ok();
        let found = match &stored {
            Ok(cache) => cache.prepare(artifact.name.as_str(), &artifact.reference, &pins),
            Err(SealedError::NoCache { tag, directory }) => {
                Err(SealedError::NoCache { tag, directory: directory.clone() })
            }
            Err(_) => return Err(stored.err().unwrap_or(SealedError::Unknown)),
        };
        let fetched = self.fetched.join(index.to_string());
        let prepared = match found {
            // The host has it not: its registry, where bound configuration says how registries are asked.
            Err(SealedError::NoCache { .. } | SealedError::NotInCache { .. })
                if self.hub.require().is_ok() =>
            {
                fetching();
                fetch::fetch(&self.hub, artifact, &fetched, &pins)?
            }
            found => found?,
        };
        require_environment(
            artifact.name.as_str(),
            &self.environment,
            prepared.store().core.parameters().environment().as_str(),
        )?;
        let guest = self.guest(cache)?;
        let count = begin(prepared.total());
        let landed = self.by_any_source(artifact, &prepared, &guest, &count)?;
        self.keep_mountable(index, &landed)?;
        // What is left over is ciphertext, and memory.
        drop(prepared);
        fetch::forget(&fetched);
        Ok(landed)
    }

    /// Chips first, then the broker, the processor, the TPM. Where none of them opens it, the first one's failure says why.
    fn by_any_source(
        &self,
        artifact: &Artifact,
        prepared: &Prepared,
        guest: &Guest,
        count: &Arc<Count>,
    ) -> Result<Landed, SealedError> {
        let mut first = None;
        for source in self.sources(guest)? {
            let choices = self.choices(&source, prepared);
            let landed = Order::new(prepared, &source, guest, choices)
                .reserve()
                .and_then(|reserved| reserved.land(&**count));
            match landed {
                Ok(landed) => return Ok(landed),
                Err(error) if is_about_the_source(&error) => {
                    first.get_or_insert(error);
                }
                Err(error) => return Err(error.into()),
            }
        }
        let none = || SealedError::NoKeySource { name: artifact.name.to_string() };
        Err(first.map_or_else(none, SealedError::from))
    }

    fn sources(&self, guest: &Guest) -> Result<Vec<KeySource>, SealedError> {
        let (mut sources, mut unbound) = (Vec::new(), None);
        if let Some(pem) = &self.chip_root {
            let failed = |error| cdh::Error::from(chip_client::ChipError::from(error));
            let root = TrustRoot::from_trusted(pem.as_bytes()).map_err(failed)?;
            for address in VfioDevice::present().map_err(cdh::Error::from)? {
                match VfioDevice::bind(address) {
                    Ok(()) => {
                        let address = DeviceAddress::Pci(address);
                        sources.push(KeySource::Chip { address, root: root.clone() });
                    }
                    // One of several, perhaps: anybody on the bus can say that it is a chip.
                    Err(error) => {
                        unbound.get_or_insert(error);
                    }
                }
            }
        }
        sources.extend(self.hub.key_source());
        if guest.attester.as_ref().is_some_and(|attester| attester.tee() == Tee::Snp) {
            sources.push(KeySource::Snp);
        }
        // A second factor, beside the TEE that landing insists on.
        if TpmLocation::find().is_ok() {
            sources.push(KeySource::Tpm { insecure_below: None });
        }
        match unbound {
            Some(error) if sources.is_empty() => Err(cdh::Error::from(error).into()),
            _ => Ok(sources),
        }
    }

    /// What protects this guest. Landing insists on a TEE whatever is found.
    fn guest(&self, cache: Option<&Cache>) -> Result<Guest, SealedError> {
        let root = TeeRoot::system();
        let attester = match Attester::detect(&root, Options::default()) {
            Ok(attester) => Some(attester),
            Err(AttestationError::Tee(attestation_agent::error::TeeError::NoTee { .. })) => None,
            Err(error) => return Err(cdh::Error::from(error).into()),
        };
        let tee = attester.as_ref().map_or(TeeState::None, |found| TeeState::Active(found.tee().name()));
        let collateral = match &attester {
            Some(_) if self.has(InsecureMode::NoEvidence) => None,
            Some(found) => match cache.map(Cache::collateral).transpose()?.flatten() {
                Some(collateral) => Some(collateral),
                // A report comes with its certificates, a quote with nothing.
                None if found.tee() == Tee::Snp => Some(Collateral::none()),
                None => return Err(cdh::Error::NoCollateral { tee: found.tee().name() }.into()),
            },
            None => None,
        };
        let bound = attester.is_some().then(|| self.insecure.clone());
        Ok(Guest { tee, attester: attester.map(Arc::new), collateral, bound, root })
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
            tee: TeePolicy::Require,
            swap: if self.has(InsecureMode::Swap) { SwapPolicy::InsecureSwap } else { SwapPolicy::Refuse },
            no_evidence: self.has(InsecureMode::NoEvidence),
            emulated_dma: self.has(InsecureMode::EmulatedDma),
            ..Choices::default()
        }
    }

    fn has(&self, mode: InsecureMode) -> bool {
        self.insecure.contains(&mode)
    }

    /// Kernels before 6.15 clone only what is attached: there the landing, complete and read-only, gets a place that only the agent's mount
    /// namespace has. Containers have namespaces of their own, in which nothing of it is left.
    fn keep_mountable(&self, index: usize, landed: &Landed) -> Result<(), SealedError> {
        if landed.landing.mounts_often()? {
            return Ok(());
        }
        let place = self.attached.join(index.to_string());
        let parents = [self.attached.parent(), Some(self.attached.as_path()), Some(place.as_path())];
        for directory in parents.into_iter().flatten() {
            match mkdirat(CWD, directory, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(SealedError::system("make a place for a landing")(error)),
            }
        }
        let _stays = landed.landing.attach(AttachTarget::path(&place))?;
        Ok(())
    }
}

/// Whether another source may still have a key: this one has no grant, is not there, not well, not a chip of ours, or says no. Each has grants of
/// its own, under policies of their own. An artifact that is damaged is damaged for all.
fn is_about_the_source(error: &cdh::Error) -> bool {
    match error {
        cdh::Error::NoGrantForChip { .. } | cdh::Error::NoGrantForKey { .. } | cdh::Error::Tpm(_) => true,
        // It is not there, or says no.
        cdh::Error::Kbs(_) => !matches!(error.class(), cdh::Class::Bug),
        cdh::Error::Chip(_) => !matches!(error.class(), cdh::Class::Artifact | cdh::Class::Bug),
        _ => false,
    }
}

fn require_environment(name: &str, expected: &str, found: &str) -> Result<(), SealedError> {
    // GUARD: sealed-environment -> evil_host_artifact_of_another_environment
    if expected != found {
        let (name, expected, found) = (name.to_owned(), expected.to_owned(), found.to_owned());
        return Err(SealedError::Environment { name, expected, found });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evil_host_artifact_of_another_environment() {
        require_environment("m", "production", "production").unwrap();
        for found in ["development", "", "production/x"] {
            let error = require_environment("m", "production", found).unwrap_err();
            assert_eq!(error.code(), "SEALED_ENVIRONMENT");
        }
    }
}
