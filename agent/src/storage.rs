//! What the host mounts into the sandbox: storages, by driver.
//!
//! ```text
//!  Storage of the wire ─▶ Request: driver, place, options, all checked before anything is done
//!    ─▶ is the place in use? ─▶ the same storage once more: one user more
//!    ─▶ device waited for ─▶ claimed ─▶ verified ─▶ mounted detached ─▶ attached      each a Step, undone in reverse
//!  release(container): one user less; the last one takes the mount with it, unless it is shared by the sandbox
//! ```
//! Places are below `/run/kata-containers` (`place`), and are reached through no link. Nothing is mounted over what is mounted, and
//! nothing into a root that was verified.

mod beneath;
mod bind;
mod blk;
mod block;
mod claims;
mod ephemeral;
mod error;
mod fs_group;
mod huge_pages;
mod image;
mod layers;
mod local;
mod mkfs;
mod mmioblk;
mod mount;
mod nvdimm;
mod options;
mod overlay;
mod pause;
mod place;
mod request;
mod scsi;
mod steps;
mod table;
mod verified;
mod verity;
mod virtio_fs;
mod watch;
mod watchable;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use protocol::agent::Storage;
use protocol::ids::ContainerId;
use tokio::task::spawn_blocking;

pub(crate) use beneath::{Beneath, by_number};
pub(crate) use claims::{Claim, Claims};
pub use error::StorageError;
pub(crate) use image::{Images, Permission};
pub(crate) use place::{Place, RUN};
pub use verified::VerifiedRoot;

use crate::hotplug::{BlockDevice, Hotplug};
use crate::log::Log;
use crate::reaper::Reaper;
use request::{Driver, Request};
use steps::Steps;
use table::{Reuse, Table, User};

/// The drivers, as GetGuestDetails names them.
pub const DRIVERS: [&str; 12] = Driver::NAMES;

/// The storages of the sandbox. Clones are the same.
#[derive(Clone)]
pub struct Storages {
    inner: Arc<Inner>,
}

/// What a container's storages are added with.
#[derive(Debug, Default)]
pub(crate) struct Beside<'a> {
    /// The device file of a disk that becomes the store of images, encrypted under a key that nobody keeps.
    pub(crate) store: Option<&'a str>,
    /// The image that was pulled for one of them.
    pub(crate) images: Option<&'a Images>,
    /// Layers of a root may be what nobody verifies. In a confidential guest they may not.
    pub(crate) unverified_layers: bool,
}

struct Inner {
    run: PathBuf,
    sys: PathBuf,
    dev: PathBuf,
    reaper: Arc<Reaper>,
    log: Log,
    claims: Claims,
    /// One request after the other: what one of them found free stays free until it has it.
    order: tokio::sync::Mutex<()>,
    table: Mutex<Table>,
}

impl fmt::Debug for Storages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storages").field("run", &self.inner.run).finish_non_exhaustive()
    }
}

/// What a driver works with.
struct Site<'a> {
    inner: &'a Arc<Inner>,
    hotplug: &'a Hotplug,
}

impl Storages {
    /// Without storages. `run` is where `/run/kata-containers` is, `sys` and `dev` where `/sys` and `/dev` are.
    #[must_use]
    pub fn new(run: &Path, sys: &Path, dev: &Path, reaper: Arc<Reaper>, log: &Log) -> Self {
        let inner = Inner {
            run: run.to_owned(),
            sys: sys.to_owned(),
            dev: dev.to_owned(),
            reaper,
            log: log.clone(),
            claims: Claims::default(),
            order: tokio::sync::Mutex::new(()),
            table: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The devices that are in use.
    pub(crate) fn claims(&self) -> &Claims {
        &self.inner.claims
    }

    /// Whether a disk is below the store of images.
    pub(crate) fn is_store(&self, disk: &BlockDevice) -> bool {
        let user = self.inner.claims.user(disk);
        user.is_some_and(|user| Path::new(&user) == Place::store().on_the_wire())
    }

    /// Adds storages for a container, or for the sandbox. Those that are there already get one user more. What is returned is undone
    /// when it is dropped, unless it is kept.
    ///
    /// # Errors
    /// `STORAGE_…`, `HOTPLUG_…`, `DM_…`, `CDH_ABSENT`: everything is as before then, but for `STORAGE_ROLLBACK`
    /// ([`StorageError::leaves_traces`]).
    pub async fn add(
        &self,
        storages: &[Storage],
        container: Option<&ContainerId>,
        hotplug: &Hotplug,
    ) -> Result<Added, StorageError> {
        self.add_with(storages, container, hotplug, &Beside::default()).await
    }

    /// The same, with what is beside them.
    ///
    /// # Errors
    /// As [`Storages::add`].
    pub(crate) async fn add_with(
        &self,
        storages: &[Storage],
        container: Option<&ContainerId>,
        hotplug: &Hotplug,
        beside: &Beside<'_>,
    ) -> Result<Added, StorageError> {
        let requests = requests(storages, container, beside)?;
        let _order = self.inner.order.lock().await;
        let site = Site { inner: &self.inner, hotplug };
        let user = container.map_or(User::Sandbox, |id| User::Container(id.clone()));
        let mut added =
            Added { inner: Arc::clone(&self.inner), user, joined: Vec::new(), created: Vec::new() };
        for request in requests {
            if let Err(error) = site.add(request, &mut added).await {
                return Err(match added.undo().await {
                    Ok(()) => error,
                    Err(source) => {
                        StorageError::Rollback { cause: Box::new(error), source: Box::new(source) }
                    }
                });
            }
        }
        Ok(added)
    }

    /// A container is gone: storages of which it was the last user are taken off, those excepted that the sandbox shares.
    ///
    /// # Errors
    /// The first one of those that cannot be taken off; the others are.
    pub async fn release(&self, container: &ContainerId) -> Result<(), StorageError> {
        let (inner, user) = (Arc::clone(&self.inner), User::Container(container.clone()));
        let released = spawn_blocking(move || inner.table().leave_all(&user));
        released.await.map_err(|_| StorageError::Panicked)?
    }

    /// The verified root that a container has, if the directory that becomes its root is where one is mounted, read-only or below an
    /// upper layer of this container's own, and nobody else uses that mount.
    #[must_use]
    pub fn verified_root(&self, root: &Path, container: &ContainerId) -> Option<VerifiedRoot> {
        self.inner.table().verified_root(&self.inner.run, root, container)
    }

    /// UpdateEphemeralMounts: gives ephemeral storages that are there other parameters, and mounts those that are not.
    ///
    /// # Errors
    /// `STORAGE_NOT_EPHEMERAL`; as [`Storages::add`]. Everything is as before then.
    pub async fn update(&self, storages: &[Storage], hotplug: &Hotplug) -> Result<(), StorageError> {
        ephemeral::update(self, storages, hotplug).await
    }
}

/// All of them, checked; those that are one root together are one.
fn requests(
    storages: &[Storage],
    container: Option<&ContainerId>,
    beside: &Beside<'_>,
) -> Result<Vec<Request>, StorageError> {
    let mut requests = Vec::new();
    if let Some(node) = beside.store {
        requests.push(Request::trusted_store(node)?);
    }
    let layers = storages.iter().filter(|storage| layers::is_layer(storage)).collect::<Vec<_>>();
    if !layers.is_empty() {
        requests.push(Request::of_layers(&layers, container, beside.unverified_layers)?);
    }
    for (index, storage) in storages.iter().enumerate().filter(|(_, storage)| !layers::is_layer(storage)) {
        let mut request = Request::parse(storage, container)?;
        request.image = beside.images.and_then(|images| images.of(index));
        requests.push(request);
    }
    Ok(requests)
}

impl Inner {
    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Storages that were just added. Dropped, they are as before.
#[must_use = "storages that are not kept are taken off again"]
pub struct Added {
    inner: Arc<Inner>,
    user: User,
    joined: Vec<Place>,
    created: Vec<Place>,
}

impl fmt::Debug for Added {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Added")
            .field("joined", &self.joined)
            .field("created", &self.created)
            .finish_non_exhaustive()
    }
}

impl Added {
    /// They stay until [`Storages::release`].
    pub fn keep(mut self) {
        self.joined.clear();
        self.created.clear();
    }

    /// Takes them off, and says whether that worked.
    ///
    /// # Errors
    /// The first one of those that cannot be taken off; the others are.
    pub async fn undo(mut self) -> Result<(), StorageError> {
        let undone = spawn_blocking(move || self.take_off());
        undone.await.map_err(|_| StorageError::Panicked)?
    }

    fn take_off(&mut self) -> Result<(), StorageError> {
        let (joined, created) = (std::mem::take(&mut self.joined), std::mem::take(&mut self.created));
        if joined.is_empty() && created.is_empty() {
            return Ok(());
        }
        self.inner.table().leave(&self.user, &joined, &created)
    }
}

impl Drop for Added {
    fn drop(&mut self) {
        let _ = self.take_off();
    }
}

impl Site<'_> {
    async fn add(&self, request: Request, added: &mut Added) -> Result<(), StorageError> {
        match self.inner.table().join(&request, &added.user)? {
            Reuse::NewUser => {
                added.joined.push(request.place);
                return Ok(());
            }
            Reuse::SameUser => return Ok(()),
            Reuse::Free => {}
        }
        let mut steps = Steps::below(&self.inner.run);
        let root = match self.make(&request, &mut steps).await {
            Ok(root) => root,
            Err(error) => {
                return Err(match steps.blocking(Steps::undo).await {
                    Ok(()) => error,
                    Err(source) => {
                        StorageError::Rollback { cause: Box::new(error), source: Box::new(source) }
                    }
                });
            }
        };
        added.created.push(request.place.clone());
        self.inner.table().insert(request, added.user.clone(), steps, root);
        Ok(())
    }

    /// Waits for a disk, as its driver finds it.
    async fn disk(&self, driver: Driver, source: &str) -> Result<BlockDevice, StorageError> {
        match driver {
            Driver::MmioBlk => mmioblk::find(self, source).await,
            Driver::Nvdimm => nvdimm::find(self, source).await,
            Driver::Scsi => scsi::find(self, source).await,
            _ => blk::find(self, source).await,
        }
    }

    async fn make(&self, request: &Request, steps: &mut Steps) -> Result<Option<VerifiedRoot>, StorageError> {
        match request.driver {
            Driver::Blk | Driver::MmioBlk | Driver::Nvdimm | Driver::Scsi => {
                let disk = self.disk(request.driver, request.source()).await?;
                block::make(self, request, disk, steps).await
            }
            Driver::Bind => bind::make(request, steps).await.map(|()| None),
            Driver::Ephemeral => ephemeral::make(self, request, steps).await.map(|()| None),
            Driver::Image => image::make(request, steps).await,
            Driver::Layers => layers::make(self, request, steps).await,
            Driver::Local => local::make(request, steps).await.map(|()| None),
            Driver::Overlay => overlay::make(self, request, steps).await,
            Driver::VirtioFs => virtio_fs::make(request, steps).await.map(|()| None),
            Driver::WatchableBind => watchable::make(self, request, steps).await.map(|()| None),
        }
    }
}

#[cfg(test)]
mod tests;
