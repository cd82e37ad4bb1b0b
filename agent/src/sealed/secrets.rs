//! Sealed values of a container, in its environment and in files that are mounted: opened by the data hub, for a container that this guest
//! verified. Those of the environment are given to its first process alone.
//!
//! ```text
//!  CreateContainer ─admit─▶ NAME=sealed.…? a sealed file? a hub? a root that the guest verified?       (otherwise it is not made)
//!  StartContainer ──open──▶ named by sealed.toml, or by an index of the policy? ─▶ the same root under the process? no files of the host
//!                           over it, but as the policy judged? ─▶ audit attested ─▶ hub ─▶ the process, at its latch; files of the guest's memory
//! ```
//! A value of an environment is in no file, no state of the container and no answer. A container that may not have it is not started.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cdh::plaintext::Plaintext;
use cdh::sealed_secret::{MAXIMUM_SEALED_BYTES, artifact};
use initdata::{Root, Sha256Digest};
use policy_engine::InForce;
use protocol::ids::ContainerId;
use protocol::status::RpcError;
use rustix::fs::lstat;
use tokio::time::Instant;

use super::entitled::{Admission, By, Seat};
use super::files::{FilesError, SecretFiles};
use super::{SUBSYSTEM, Sealed, SealedError, attach};
use crate::engine::SecretVariable;
use crate::error::chain;
use crate::hub::{DataHub, DataHubError};
use crate::log::{Key, Level, Log, Value};

/// How a sealed value begins.
const SEALED: &str = "sealed.";
/// Most sealed values of a container.
const MAXIMUM_VALUES: usize = 64;
/// Longest wait of a StartContainer. Runtimes give up after 60 s.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a container does not get its secrets, and is not started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    /// The hub, or whom it asked.
    #[error(transparent)]
    Hub(#[from] DataHubError),
    /// What is not to be seen by this container.
    #[error(transparent)]
    Container(#[from] SealedError),
    /// The host provides the root.
    #[error("sealed values: expected a root that this guest verified, found one that the host provides")]
    Root,
    /// Nothing names the container.
    #[error(
        "sealed values: expected a container of sealed.toml, or one with an index in the policy whose root is no image, found another"
    )]
    NotNamed,
    /// More than are opened.
    #[error(
        "process.env: expected at most {MAXIMUM_VALUES} sealed values of {MAXIMUM_SEALED_BYTES} bytes, found more"
    )]
    TooMany,
    /// It cannot be a value of an environment.
    #[error(
        "process.env: a secret: expected UTF-8 without NUL, with its name at most 131071 bytes; found another"
    )]
    Text,
    /// Files that are mounted.
    #[error(transparent)]
    Files(#[from] FilesError),
}

impl SecretError {
    /// The stable code.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Hub(error) => error.code(),
            Self::Container(error) => error.code(),
            Self::Root => "SEALED_VALUE_ROOT",
            Self::NotNamed => "SEALED_VALUE_NOT_NAMED",
            Self::TooMany => "SEALED_VALUE_TOO_MANY",
            Self::Text => "SEALED_VALUE_TEXT",
            Self::Files(error) => error.code(),
        }
    }
}

impl From<SecretError> for RpcError {
    fn from(error: SecretError) -> Self {
        match error {
            SecretError::Container(error) => error.into(),
            // Where a broker is and what it says is the log's to tell.
            SecretError::Hub(DataHubError::Hub(_)) => {
                Self::Failed(error.code(), "a sealed value: see the log of the guest".to_owned())
            }
            _ => Self::Failed(error.code(), error.to_string()),
        }
    }
}

/// Whether the value of an entry of an environment is sealed: name and text.
pub(crate) fn sealed_value(entry: &str) -> Option<(&str, &str)> {
    entry.split_once('=').filter(|(_, value)| value.starts_with(SEALED))
}

/// What containers get by the hub. Clones are the same.
#[derive(Clone)]
pub(crate) struct Secrets {
    hub: DataHub,
    sealed: Sealed,
    containers: Arc<Mutex<HashMap<ContainerId, Known>>>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").field("hub", &self.hub).finish_non_exhaustive()
    }
}

/// A container with sealed values.
#[derive(Clone)]
struct Known {
    admission: Admission,
    values: Vec<(String, String)>,
    files: Option<Arc<SecretFiles>>,
}

impl Secrets {
    /// By this hub, for the containers that these artifacts, too, are for.
    pub(crate) fn new(hub: DataHub, sealed: &Sealed) -> Self {
        Self { hub, sealed: sealed.clone(), containers: Arc::default() }
    }

    /// The hub.
    pub(crate) const fn hub(&self) -> &DataHub {
        &self.hub
    }

    /// The text whose indices `sealed.toml` means.
    pub(super) fn own_policy(&self) -> Option<&Sha256Digest> {
        self.sealed.own_policy()
    }

    /// The system's `/proc`.
    pub(super) fn proc(&self) -> &Path {
        &self.sealed.inner.proc
    }

    /// Where it is told.
    pub(super) fn log(&self) -> &Log {
        &self.sealed.inner.log
    }

    fn containers(&self) -> MutexGuard<'_, HashMap<ContainerId, Known>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a container that has sealed values can be made: where there is a hub, on a root that this guest verified.
    ///
    /// # Errors
    /// `CDH_ABSENT`, `SEALED_VALUE_ROOT`.
    pub(crate) fn require(&self, roots: &[Root]) -> Result<(), SecretError> {
        self.hub.require()?;
        // GUARD: sealed-value-root -> evil_host_sealed_value_on_a_root_of_the_host
        if roots.is_empty() {
            return Err(SecretError::Root);
        }
        Ok(())
    }

    /// A container is being made, with this environment and these files; the rest as [`Sealed::admit`].
    ///
    /// # Errors
    /// It has sealed values, and cannot have them whatever happens.
    pub(crate) fn admit(
        &self,
        container: &ContainerId,
        environment: &[String],
        files: Option<SecretFiles>,
        roots: impl IntoIterator<Item = Root>,
        rootfs: &Path,
        process: Sha256Digest,
    ) -> Result<(), SecretError> {
        let values = environment.iter().filter_map(|entry| sealed_value(entry));
        let values: Vec<_> = values.map(|(name, text)| (name.to_owned(), text.to_owned())).collect();
        if values.is_empty() && files.is_none() {
            return Ok(());
        }
        let roots: Vec<Root> = roots.into_iter().collect();
        self.require(&roots)?;
        // GUARD: sealed-values-cap -> evil_host_sealed_values_without_end
        if values.len() > MAXIMUM_VALUES || values.iter().any(|(_, text)| text.len() > MAXIMUM_SEALED_BYTES) {
            return Err(SecretError::TooMany);
        }
        let stat = lstat(rootfs).map_err(SealedError::system("look at the container's root"))?;
        let admission = Admission { roots, place: (stat.st_dev, stat.st_ino), process };
        self.containers().insert(container.clone(), Known { admission, values, files: files.map(Arc::new) });
        Ok(())
    }

    /// A container is made and not started: opens its sealed values, which may be none. `policy` is the one in force, `process` its first one;
    /// waits no longer than the caller.
    ///
    /// # Errors
    /// The container is not to be started.
    pub(crate) async fn open(
        &self,
        container: &ContainerId,
        policy: Option<&InForce>,
        process: i32,
        deadline: Option<Instant>,
        is_late: impl Fn() -> bool,
    ) -> Result<Vec<SecretVariable>, SecretError> {
        let Some(known) = self.containers().get(container).cloned() else { return Ok(Vec::new()) };
        let seat = Seat::of(policy, self.sealed.own_policy(), container.as_str());
        let by = self.named(&known.admission, seat)?;
        let (proc, place) = (self.sealed.inner.proc.clone(), known.admission.place);
        let looked = tokio::task::spawn_blocking(move || attach::look(&proc, process, place, by));
        looked.await.map_err(|_| SealedError::Unknown)??;
        let latest = Instant::now() + PATIENCE;
        let deadline = deadline.map_or(latest, |deadline| deadline.min(latest));
        let mut variables = Vec::with_capacity(known.values.len());
        for (name, text) in &known.values {
            let opened = self.hub.unseal(text.as_bytes(), deadline, &is_late).await;
            let opened = opened.map_err(SecretError::from).and_then(|secret| variable(name, &secret));
            variables.push(opened.inspect_err(|error| self.complain(error))?);
        }
        let mut opened = variables.len();
        if let Some(files) = &known.files {
            opened += fill(&self.hub, files, deadline, &is_late, |_| true)
                .await
                .inspect_err(|error| self.complain(error))?;
            self.rotate(files);
        }
        let count = u64::try_from(opened).unwrap_or(u64::MAX);
        let fields = [(Key::Count, count.into())];
        self.sealed.inner.log.info(SUBSYSTEM, "sealed values opened for a container", &fields);
        Ok(variables)
    }

    /// Opens the files now and then, as often as bound configuration says, for as long as the container is there. What cannot be opened stays as it
    /// was: the log tells.
    fn rotate(&self, files: &Arc<SecretFiles>) {
        // A start that failed may be tried again.
        let may_change = |text: &[u8]| !artifact::is_one(text);
        let Some(every) = self.hub.refresh().filter(|_| files.texts().any(may_change)) else { return };
        if !files.begins_to_rotate() {
            return;
        }
        let (own, files) = (self.clone(), Arc::downgrade(files));
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(every).await;
                let Some(files) = files.upgrade() else { return };
                match fill(&own.hub, &files, Instant::now() + PATIENCE, || false, may_change).await {
                    Ok(0) => {}
                    Ok(count) => {
                        let fields = [(Key::Count, u64::try_from(count).unwrap_or(u64::MAX).into())];
                        own.sealed.inner.log.info(SUBSYSTEM, "sealed files replaced in a container", &fields);
                    }
                    Err(error) => own.complain(&error),
                }
            }
        });
    }

    /// A container is gone.
    pub(crate) fn release(&self, container: &ContainerId) {
        self.containers().remove(container);
    }

    /// How bound configuration comes to mean this container: an entry of `sealed.toml`, or an index that the policy gave it. Whose root was
    /// verified is nobody yet, for the hash that it was verified against came from the host, and so did the name of an image: generated policies
    /// do not look at the image that a storage names or at the order of layers, and so an index says nothing about those.
    pub(super) fn named(&self, admission: &Admission, seat: Seat) -> Result<By, SecretError> {
        let named = self.sealed.artifacts().iter().map(|artifact| &artifact.container);
        let mut named = named.chain(&self.sealed.inner.setup.secrets);
        let by = named.find_map(|container| admission.is(container, seat)).ok_or(SecretError::NotNamed);
        // GUARD: sealed-value-image -> evil_host_another_image_under_a_process_with_secrets
        if admission.is_beyond_policy() {
            return by;
        }
        // The policy that gave it an index judged the hash of its root, and its mounts.
        if seat != Seat::None {
            return Ok(By::Policy);
        }
        by
    }

    fn complain(&self, error: &SecretError) {
        let fields = [(Key::Code, error.code().into()), (Key::Error, Value::shown(&chain(error)))];
        self.sealed.inner.log.say(Level::Warning, SUBSYSTEM, "a sealed value was not opened", &fields);
    }
}

/// Opens the sealed files whose texts are meant, and returns how many have another content now.
async fn fill(
    hub: &DataHub,
    files: &Arc<SecretFiles>,
    deadline: Instant,
    is_late: impl Fn() -> bool,
    means: impl Fn(&[u8]) -> bool,
) -> Result<usize, SecretError> {
    let texts: Vec<Vec<u8>> = files.texts().map(<[u8]>::to_vec).collect();
    let mut changed = 0;
    for (number, text) in texts.iter().enumerate().filter(|(_, text)| means(text)) {
        let secret = hub.unseal(text, deadline, &is_late).await?;
        let files = Arc::clone(files);
        let filled = tokio::task::spawn_blocking(move || files.fill(number, &secret)).await;
        changed += usize::from(filled.map_err(|_| SealedError::Unknown)??);
    }
    Ok(changed)
}

/// A secret as a value of an environment.
fn variable(name: &str, secret: &Plaintext) -> Result<SecretVariable, SecretError> {
    let text = std::str::from_utf8(secret.expose()).map_err(|_| SecretError::Text)?;
    SecretVariable::new(name, text).ok_or(SecretError::Text)
}

#[cfg(test)]
mod tests;
