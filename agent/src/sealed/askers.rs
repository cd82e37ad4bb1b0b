//! Containers that may ask the REST front: who they are, and whether this guest gives them what bound configuration lists.
//!
//! ```text
//!  CreateContainer ─admit─▶ verified root, process, name, control group
//!  StartContainer ──begin─▶ an entry of [[rest]] means it? else its name, if sealed.toml or an index of the policy means it; the same root under
//!                           the process? nothing of the host over it? ─▶ KnownContainers: before its program runs
//!  request ─permit─▶ does it stand as it should? audit attested?
//!  RemoveContainer ─release─▶ nobody: whoever has the id next begins anew
//! ```
//! A name is the host's word that policy let pass, and says which list is meant; that the container is the one that bound configuration means
//! is held to the rule of sealed values. A container that may not ask is started all the same: it is told so when it asks.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cdh::rest::peers::{ContainerId as Asking, KnownContainers};
use cdh::rest::{RestError, Route, Rule};
use initdata::{Container, Root, Sha256Digest};
use policy_engine::InForce;
use protocol::ids::ContainerId;
use rustix::fs::lstat;

use super::entitled::{Admission, By, Seat};
use super::secrets::{SecretError, Secrets};
use super::{SUBSYSTEM, SealedError, attach};
use crate::log::{Key, Level};
use crate::spec::CgroupPath;

/// The containers of this guest, for its REST front. Clones are the same.
#[derive(Clone)]
pub(crate) struct Askers {
    inner: Arc<Inner>,
}

struct Inner {
    secrets: Secrets,
    /// Whom the entries of `[[rest]]` mean.
    entries: Vec<Container>,
    known: Arc<KnownContainers>,
    made: Mutex<HashMap<ContainerId, Made>>,
}

impl fmt::Debug for Askers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Askers").field("known", &self.inner.known).finish_non_exhaustive()
    }
}

/// A container that was made.
#[derive(Clone)]
struct Made {
    admission: Admission,
    /// The name that policy let pass.
    name: Option<String>,
    cgroup: String,
    /// Whether it gets what is listed; else the code of what is in the way.
    standing: Result<(), &'static str>,
    /// Whether somebody was told that it read a secret.
    told: bool,
}

impl Askers {
    /// Nobody yet. `entries` are those of `[[rest]]` in bound `innerkeep.toml`, in their order.
    pub(crate) fn new(secrets: &Secrets, entries: Vec<Container>) -> Self {
        let inner =
            Inner { secrets: secrets.clone(), entries, known: Arc::default(), made: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    /// By their control groups.
    pub(crate) fn known(&self) -> &Arc<KnownContainers> {
        &self.inner.known
    }

    fn made(&self) -> MutexGuard<'_, HashMap<ContainerId, Made>> {
        self.inner.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A container is being made: with this name, its processes in this group; the rest as [`super::Sealed::admit`].
    ///
    /// # Errors
    /// `rootfs` cannot be looked at.
    pub(crate) fn admit(
        &self,
        container: &ContainerId,
        name: Option<&str>,
        cgroup: &CgroupPath,
        roots: impl IntoIterator<Item = Root>,
        rootfs: &Path,
        process: Sha256Digest,
    ) -> Result<(), SealedError> {
        if !self.inner.secrets.hub().is_asked_by_containers() {
            return Ok(());
        }
        let stat = lstat(rootfs).map_err(SealedError::system("look at the container's root"))?;
        let roots = roots.into_iter().collect();
        let admission = Admission { roots, place: (stat.st_dev, stat.st_ino), process };
        let (name, cgroup) = (name.map(str::to_owned), cgroup.absolute().to_string_lossy().into_owned());
        let standing = Err(SealedError::Unknown.code());
        self.made().insert(container.clone(), Made { admission, name, cgroup, standing, told: false });
        Ok(())
    }

    /// A container is made, and its program is about to run: it may ask from here on. `policy` is the one in force, `process` its first one.
    pub(crate) async fn begin(&self, container: &ContainerId, policy: Option<&InForce>, process: i32) {
        let Some(made) = self.made().get(container).cloned() else { return };
        let secrets = &self.inner.secrets;
        let seat = Seat::of(policy, secrets.own_policy(), container.as_str());
        let entry = self.inner.entries.iter().enumerate();
        let entry = entry.filter_map(|(index, named)| Some((index, made.admission.is(named, seat)?))).next();
        let (asking, by) = match (entry, &made.name) {
            (Some((index, by)), _) => (Asking::of_entry(container.as_str(), index), Ok(by)),
            (None, Some(name)) => {
                (Asking::new(container.as_str(), name), self.by_name(&made.admission, seat))
            }
            (None, None) => (None, Err(SecretError::NotNamed)),
        };
        // Whom nothing names is nobody to the front.
        let Some(asking) = asking else { return };
        let mut standing = made.standing;
        // Of others nothing is asked: what they ask is not listed.
        if secrets.hub().lists_for(asking.name()) {
            standing = match by {
                Ok(by) => self.look(made.admission.place, process, by).await.map_err(|error| error.code()),
                Err(error) => Err(error.code()),
            };
            if let Err(code) = standing {
                let text = "a container gets nothing of what is listed for its name";
                secrets.log().say(Level::Warning, SUBSYSTEM, text, &[(Key::Code, code.into())]);
            }
        }
        // One that was removed meanwhile is nobody.
        if let Some(made) = self.made().get_mut(container) {
            made.standing = standing;
            self.inner.known.insert(asking, &made.cgroup);
        }
    }

    fn by_name(&self, admission: &Admission, seat: Seat) -> Result<By, SecretError> {
        // GUARD: asker-root -> evil_host_container_of_its_own_root_asks_for_a_secret
        if admission.roots.is_empty() {
            return Err(SecretError::Root);
        }
        self.inner.secrets.named(admission, seat)
    }

    /// Whether the verified root is the process's, and nothing of the host lies over it.
    async fn look(&self, place: (u64, u64), process: i32, by: By) -> Result<(), SealedError> {
        let proc = self.inner.secrets.proc().to_owned();
        let looked = tokio::task::spawn_blocking(move || attach::look(&proc, process, place, by)).await;
        looked.map_err(|_| SealedError::Unknown)?
    }

    /// Its program does not run.
    pub(crate) fn withdraw(&self, container: &ContainerId) {
        self.inner.known.remove(container.as_str());
    }

    /// A container is gone, and none of its processes is left.
    pub(crate) fn release(&self, container: &ContainerId) {
        let mut made = self.made();
        self.withdraw(container);
        made.remove(container);
    }
}

impl Rule for Askers {
    fn permit(&self, container: &Asking, route: &Route) -> Result<(), RestError> {
        if *route == Route::Info {
            return Ok(());
        }
        let unknown = || RestError::Withheld { code: SealedError::Unknown.code() };
        let id = ContainerId::parse(container.id()).map_err(|_| unknown())?;
        let standing = self.made().get(&id).map(|made| made.standing).ok_or_else(unknown)?;
        // GUARD: asker-standing -> evil_host_container_of_its_own_root_asks_for_a_secret, evil_host_takes_the_id_of_a_container_that_asked
        standing.map_err(|code| RestError::Withheld { code })?;
        // GUARD: asker-audit-attested -> evil_host_container_asks_before_the_audit_is_attested
        self.inner.secrets.hub().require_attested().map_err(|_| RestError::NotAttested)?;
        let is_first = self.made().get_mut(&id).is_some_and(|made| !std::mem::replace(&mut made.told, true));
        if is_first {
            let text = "a container that bound configuration names asks the REST front";
            self.inner.secrets.log().info(SUBSYSTEM, text, &[]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
