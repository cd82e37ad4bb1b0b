//! One attempt to land one artifact, on a thread that may block.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use attestation_agent::{AttestationError, Attester, Options, TeeRoot};
use cdh::artifact::{Chips, Guest, Landed, Opener, Shared, pin_of, require_environment};
use initdata::{Artifact, Container, InsecureMode, Sha256Digest};
use protected_memory::landing::{AttachTarget, TeePolicy, TeeState};
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
    /// The data hub, for its broker and for registries.
    pub(super) hub: DataHub,
    /// What it has in common with the hub, where both open artifacts.
    pub(super) shared: Shared,
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
        let found = match &stored {
            Ok(cache) => cache.prepare(artifact.name.as_str(), &artifact.reference, &pins),
            Err(SealedError::NoCache { tag, directory }) => {
                Err(SealedError::NoCache { tag, directory: directory.clone() })
            }
            Err(_) => return Err(stored.err().unwrap_or(SealedError::Unknown)),
        };
        let prepared = match found {
            // The host has it not: its registry, where bound configuration says how registries are asked.
            Err(SealedError::NoCache { .. } | SealedError::NotInCache { .. })
                if self.hub.require().is_ok() =>
            {
                fetching();
                fetch::prepare(&self.hub, artifact, &pins)?
            }
            found => found?,
        };
        let name = artifact.name.as_str();
        require_environment(name, &self.environment, &prepared).map_err(cdh::Error::from)?;
        let opener = self.opener()?;
        let count = begin(prepared.total());
        let landed = opener.land(name, &self.environment, &prepared, &*count)?;
        self.keep_mountable(index, &landed)?;
        Ok(landed)
    }

    /// By whose key artifacts are opened here. Landing insists on a TEE whatever is found.
    fn opener(&self) -> Result<Opener, SealedError> {
        Ok(Opener {
            guest: self.guest()?,
            chips: self.chip_root.as_deref().map(Chips::on_the_bus).transpose()?,
            broker: self.hub.broker_place(),
            insecure: self.insecure.clone(),
            tee: TeePolicy::Require,
            shared: self.shared.clone(),
        })
    }

    /// What protects this guest. Landing insists on a TEE whatever is found.
    fn guest(&self) -> Result<Guest, SealedError> {
        let root = TeeRoot::system();
        let attester = match Attester::detect(&root, Options::default()) {
            Ok(attester) => Some(attester),
            Err(AttestationError::Tee(attestation_agent::error::TeeError::NoTee { .. })) => None,
            Err(error) => return Err(cdh::Error::from(error).into()),
        };
        let tee = attester.as_ref().map_or(TeeState::None, |found| TeeState::Active(found.tee().name()));
        let bound = attester.is_some().then(|| self.insecure.clone());
        // What chips verify its evidence with is the opener's to find.
        Ok(Guest { tee, attester: attester.map(Arc::new), collateral: None, bound, root })
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
