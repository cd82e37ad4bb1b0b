//! Sealed artifacts of bound configuration: landed as soon as they can be, attached to the containers that it names, and to no others.
//!
//! ```text
//!  sealed.toml ─▶ thread "sealed": evidence for the audit? ─▶ stored artifact ─pin, environment─▶ chip or processor
//!                   │                                          ─▶ landing, read-only, without a path
//!                   └ failed: again after a pause, at most 12 times, then when a container needs it
//!
//!  CreateContainer ─admit─▶ verified root, process, place of its /        (nothing of it is the host's word)
//!  StartContainer ─attach─▶ whose artifact is it? ─▶ ready? ─▶ in its mount namespace, before its program: same root? nothing of the
//!                           host over it? directory in that root? ─▶ a mount of the landing, looked at in the mount table
//!  RemoveContainer ─release─▶ forgotten; the landing stays for the next instance
//! ```
//! A container that no entry names gets nothing, and is told nothing. One that is named and cannot have its artifact is not started, and neither
//! is one that the policy takes for a named one and that stands on another root.

mod askers;
mod attach;
mod cache;
mod entitled;
mod error;
mod fetch;
mod files;
mod lander;
mod mounts;
mod secrets;
mod state;
mod work;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cdh::artifact::Shared;
use initdata::{Artifact, Initdata, Root, Sha256Digest};
use policy_engine::InForce;
use policy_engine::audit::Audit;
use protocol::ids::ContainerId;
use rustix::fs::lstat;
use sha2::{Digest as _, Sha256};

use crate::context::Roots;
use crate::error::AgentError;
use crate::hub::DataHub;
use crate::log::Log;
pub(crate) use askers::Askers;
use attach::Item;
use cache::Places;
use entitled::{Admission, By, Seat};
pub(crate) use error::SealedError;
pub(crate) use files::SecretFiles;
use lander::Setup;
pub(crate) use secrets::{SecretError, Secrets, sealed_value};
use state::States;
pub(crate) use state::{Progress, Stage};

const SUBSYSTEM: &str = "sealed";
/// Longest wait of a StartContainer for an artifact. Runtimes give up after 60 s.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often such a call looks whether its caller is still there.
const LOOK: Duration = Duration::from_millis(500);

/// The sealed artifacts of this guest. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Sealed {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    setup: Setup,
    states: States,
    wake: (Mutex<bool>, Condvar),
    containers: Mutex<HashMap<ContainerId, Known>>,
    proc: PathBuf,
    log: Log,
}

/// A container that was admitted.
#[derive(Debug)]
struct Known {
    admission: Admission,
    /// The process that its artifacts were attached for.
    attached: Option<i32>,
}

/// What all that opens artifacts in this guest has in common.
pub(crate) fn shared(roots: &Roots) -> Shared {
    Shared::at(Some(Arc::new(Places::of(roots))))
}

impl Sealed {
    /// The artifacts that a bound document names, if there is one and it names any.
    pub(crate) fn new(
        initdata: Option<&Initdata>,
        roots: &Roots,
        hub: &DataHub,
        shared: Shared,
        log: &Log,
    ) -> Self {
        let document = initdata.map(Initdata::document);
        let config = document.and_then(|document| document.sealed());
        let setup = Setup {
            environment: config.map(|config| config.environment.to_string()).unwrap_or_default(),
            chip_root: config.and_then(|config| config.chip_root.clone()),
            artifacts: config.map(|config| config.artifacts.clone()).unwrap_or_default(),
            secrets: config.map(|config| config.secrets.clone()).unwrap_or_default(),
            policy: document.and_then(|document| document.policy()).map(text_digest),
            insecure: document.map(|document| document.settings().insecure.clone()).unwrap_or_default(),
            places: Places::of(roots),
            attached: roots.own.join("landed"),
            hub: hub.clone(),
            shared,
        };
        Self::of(setup, roots.proc.clone(), log)
    }

    fn of(setup: Setup, proc: PathBuf, log: &Log) -> Self {
        let states = States::new(setup.artifacts.len());
        let wake = (Mutex::new(false), Condvar::new());
        let inner = Inner { setup, states, wake, containers: Mutex::default(), proc, log: log.clone() };
        Self { inner: Arc::new(inner) }
    }

    /// Landing begins, on a thread of its own, if there is anything to land; nothing before there is evidence for the audit.
    ///
    /// # Errors
    /// No thread.
    pub(crate) fn start(&self, audit: &Arc<Audit>) -> Result<(), AgentError> {
        if self.artifacts().is_empty() {
            return Ok(());
        }
        let (worker, audit) = (self.clone(), Arc::clone(audit));
        let thread = std::thread::Builder::new().name("sealed".to_owned()).spawn(move || worker.work(&audit));
        thread.map(drop).map_err(AgentError::system("start the thread that lands artifacts"))
    }

    /// How far each artifact is: for metrics.
    #[must_use]
    pub(crate) fn progress(&self) -> Vec<Progress> {
        let names = self.inner.setup.artifacts.iter().map(|artifact| artifact.name.to_string());
        names.zip(self.inner.states.stages()).map(|(name, stage)| Progress { name, stage }).collect()
    }

    /// A container is being made: what this guest knows of it by itself. `roots` are the names of what it verified of the file system at
    /// `rootfs`, the directory that becomes the container's `/`; `process` is [`crate::spec::process_identity`] of what will run.
    ///
    /// # Errors
    /// `rootfs` cannot be looked at.
    pub(crate) fn admit(
        &self,
        container: &ContainerId,
        roots: impl IntoIterator<Item = Root>,
        rootfs: &Path,
        process: Sha256Digest,
    ) -> Result<(), SealedError> {
        if self.artifacts().is_empty() {
            return Ok(());
        }
        let stat = lstat(rootfs).map_err(SealedError::system("look at the container's root"))?;
        let roots = roots.into_iter().collect();
        let admission = Admission { roots, place: (stat.st_dev, stat.st_ino), process };
        self.containers().insert(container.clone(), Known { admission, attached: None });
        Ok(())
    }

    /// A container is made and not started: attaches what it is entitled to, which may be nothing. Waits for what is still being landed, at
    /// most 30 s, not for a caller that is gone, and not for what is refused. `policy` is the one in force.
    ///
    /// # Errors
    /// `SEALED_NOT_READY`: to be tried again. Anything else: the container is not to be started.
    pub(crate) async fn attach(
        &self,
        container: &ContainerId,
        policy: Option<&InForce>,
        process: i32,
        is_late: impl Fn() -> bool,
    ) -> Result<(), SealedError> {
        if self.artifacts().is_empty() {
            return Ok(());
        }
        let (admission, attached) = match self.containers().get(container) {
            Some(known) => (known.admission.clone(), known.attached),
            None => return Err(SealedError::Unknown),
        };
        let seat = Seat::of(policy, self.inner.setup.policy.as_ref(), container.as_str());
        let entitled = entitled::entitled(self.artifacts(), &admission, seat)?;
        if entitled.is_empty() || attached == Some(process) {
            return Ok(());
        }
        self.wait(&entitled, is_late).await?;
        let sealed = self.clone();
        let work = tokio::task::spawn_blocking(move || sealed.attach_now(&admission, process, &entitled));
        work.await.map_err(|_| SealedError::Unknown)??;
        if let Some(known) = self.containers().get_mut(container) {
            known.attached = Some(process);
        }
        self.inner.log.info(
            SUBSYSTEM,
            "artifacts attached to the container that bound configuration names",
            &[],
        );
        Ok(())
    }

    /// A container is gone. Its mounts went with its mount namespace.
    pub(crate) fn release(&self, container: &ContainerId) {
        self.containers().remove(container);
    }

    fn containers(&self) -> std::sync::MutexGuard<'_, HashMap<ContainerId, Known>> {
        self.inner.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn artifacts(&self) -> &[Artifact] {
        &self.inner.setup.artifacts
    }

    /// The text whose indices `sealed.toml` means.
    fn own_policy(&self) -> Option<&Sha256Digest> {
        self.inner.setup.policy.as_ref()
    }

    async fn wait(&self, entitled: &[(usize, By)], is_late: impl Fn() -> bool) -> Result<(), SealedError> {
        let (states, end) = (&self.inner.states, Instant::now() + PATIENCE);
        let mut changes = states.watch();
        let refusals: HashMap<usize, u64> =
            entitled.iter().map(|(index, _)| (*index, states.refusals(*index))).collect();
        for (index, _) in entitled {
            states.needed(*index, Instant::now());
        }
        self.wake();
        loop {
            let missing =
                entitled.iter().map(|(index, _)| *index).find(|index| states.landed(*index).is_none());
            let Some(missing) = missing else { return Ok(()) };
            let stage = states.stage(missing);
            let name =
                || self.artifacts().get(missing).map_or_else(String::new, |found| found.name.to_string());
            // It was tried once more for this one, and is what it was.
            let is_refused = refusals.get(&missing).is_some_and(|before| states.refusals(missing) > *before);
            // GUARD: sealed-not-ready -> evil_host_starts_before_the_artifact_is_there
            if matches!(stage, Stage::Failed(_)) || is_refused || is_late() || Instant::now() >= end {
                return Err(SealedError::NotReady { name: name(), state: stage.to_string() });
            }
            // A change, or time to look whether somebody still waits.
            let _ = tokio::time::timeout(LOOK, changes.changed()).await;
        }
    }

    fn attach_now(
        &self,
        admission: &Admission,
        process: i32,
        entitled: &[(usize, By)],
    ) -> Result<(), SealedError> {
        let mut items = Vec::new();
        for (index, by) in entitled {
            let (Some(landing), Some(artifact)) =
                (self.inner.states.landed(*index), self.artifacts().get(*index))
            else {
                return Err(SealedError::Unknown);
            };
            let path = artifact.path.as_str().to_owned();
            items.push(Item { mount: landing.mount()?, path, by: *by });
        }
        attach::attach(&self.inner.proc, process, admission.place, items)
    }

    fn wake(&self) {
        let (asked, condition) = &self.inner.wake;
        *asked.lock().unwrap_or_else(PoisonError::into_inner) = true;
        condition.notify_all();
    }
}

/// As bound configuration lists texts of policies.
fn text_digest(text: &str) -> Sha256Digest {
    Sha256Digest::new(Sha256::digest(text.as_bytes()).into())
}

#[cfg(test)]
mod tests;
