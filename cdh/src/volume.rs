//! Encrypted volumes on disks of the host (SecureMount): every block is encrypted and authenticated with its number, and nothing that the host
//! wrote on the disk says how.
//!
//! ```text
//!  request ─▶ Order (all checked) ─▶ key ─▶ empty, no key:  nothing on the disk says anything; the key is in the kernel alone
//!                                      │    empty, key:     header of LUKS2 and seal are written
//!                                      └──▶ encrypted:      header and seal, read once ─▶ seal verified ─▶ one form of header only
//!       ─▶ dm-integrity with journal ─▶ dm-crypt (AES-256-XTS, HMAC-SHA-256) ─▶ ext4, mounted nosuid, nodev; or a link to the device
//! ```
//! # What is believed of a disk
//!
//! Nothing before the **seal** (`seal`) was verified with a key made of the volume's own: it covers the whole header and the length of the
//! data. A header that the host made, or took from another volume, does not get as far as being parsed. A header that a holder of the key
//! sealed is opened in one form only (`luks2`): no other cipher, none without tags, no second slot.
//!
//! # Who may write
//!
//! A key from a broker may be had by more than one guest, and two that write one volume destroy it. So a volume with such a key is opened
//! read-only, by as many as like; to write, the key has to be listed in `innerkeep.volumes.writable` of bound `cdh.toml`, which is the operator's
//! word that one guest does. As a net below that, who opens a volume to write marks its seal, and takes the mark off when it is closed: a marked
//! volume is opened by nobody, unless `innerkeep.volumes.unclean` lists its key.
//!
//! # What it cannot do
//!
//! A host that keeps earlier contents, of the disk or of single blocks, can put them back, and can give two guests a copy each: a block is
//! bound to its number and to the key, not to a time. It can withhold, and it sees which blocks are read and written, and when.

pub mod error;
pub mod ext4;

mod device;
mod keyslot;
mod luks2;
mod opened;
mod place;
mod request;
mod seal;
mod stack;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use attestation_agent::kbs::ResourceUri;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use crate::config::VolumesConfig;
use crate::hub_error::HubError;
use crate::modes::Modes;
use crate::plaintext::Plaintext;
use crate::resources::ResourceSource;
use crate::sealed_secret::{self, Verification};
use crate::service::{Volume, Volumes};

pub use error::VolumeError;
use ext4::Helper;
use opened::{Opened, Permission, Site};
use request::{Order, Source};
pub use stack::{Stack, ephemeral};

/// Volumes of one hub.
const MAXIMUM_VOLUMES: usize = 64;
/// Of a key: from what nobody guesses to what nobody needs.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 32..=8192;

/// Where keys come from.
pub struct Keys {
    /// Resources.
    pub resources: Arc<dyn ResourceSource>,
    /// How sealed secrets are verified.
    pub verification: Verification,
    /// The insecure modes that are in effect.
    pub modes: Modes,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("modes", &self.modes).finish_non_exhaustive()
    }
}

/// Mounts volumes of disks, and knows those that it mounted.
pub struct BlockVolumes {
    keys: Keys,
    config: VolumesConfig,
    site: Arc<Site>,
    open: Arc<Mutex<HashMap<PathBuf, Slot>>>,
}

/// A mount point is somebody's from before the first look at it.
enum Slot {
    Taken,
    Open(Box<Opened>),
}

impl fmt::Debug for BlockVolumes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockVolumes").field("config", &self.config).finish_non_exhaustive()
    }
}

impl BlockVolumes {
    /// None yet. `helper` makes file systems.
    #[must_use]
    pub fn new(keys: Keys, config: VolumesConfig, helper: Box<dyn Helper>) -> Self {
        Self::at(keys, config, helper, Path::new("/sys"), Path::new("/dev"))
    }

    /// As there; `sys` and `dev` are where `/sys` and `/dev` are.
    #[must_use]
    pub fn at(keys: Keys, config: VolumesConfig, helper: Box<dyn Helper>, sys: &Path, dev: &Path) -> Self {
        let site = Arc::new(Site { sys: sys.to_owned(), dev: dev.to_owned(), helper });
        Self { keys, config, site, open: Arc::default() }
    }

    async fn key(&self, name: &str, deadline: Instant) -> Result<Arc<Plaintext>, crate::Error> {
        let Keys { resources, verification, modes } = &self.keys;
        let key = if name.starts_with("sealed.") {
            sealed_secret::unseal(name.as_bytes(), &**resources, *verification, modes, deadline).await?
        } else {
            resources.get(&ResourceUri::parse(name).map_err(HubError::from)?, deadline).await?
        };
        // GUARD: volume-key-length -> evil_broker_key_that_can_be_guessed
        if !KEY_BYTES.contains(&key.expose().len()) {
            return Err(VolumeError::Key { expected: "32 to 8192 bytes" }.into());
        }
        Ok(key)
    }

    /// What bound configuration allows for a key.
    fn permission(&self, order: &Order) -> Result<Permission, VolumeError> {
        let (Source::Empty(Some(name)) | Source::Encrypted(name)) = &order.source else {
            return Ok(Permission::default());
        };
        let listed = |names: &[String]| names.iter().any(|listed| listed == name);
        // GUARD: volume-write-bound -> evil_second_pod_writes_a_shared_volume
        if !order.read_only && !listed(&self.config.writable) {
            return Err(VolumeError::WriteNotBound);
        }
        Ok(Permission { unclean: listed(&self.config.unclean) })
    }

    async fn make(&self, order: Order, deadline: Instant) -> Result<Opened, crate::Error> {
        let permission = self.permission(&order)?;
        let key = match &order.source {
            Source::Empty(None) => None,
            Source::Empty(Some(name)) | Source::Encrypted(name) => Some(self.key(name, deadline).await?),
        };
        let site = Arc::clone(&self.site);
        let made = spawn_blocking(move || {
            let opened = opened::open(&site, &order, key.as_deref(), permission)?;
            if Instant::now() < deadline {
                return Ok(opened);
            }
            Err(opened.undone_for(VolumeError::Timeout))
        });
        // What comes too late is undone where it is made.
        match timeout_at(deadline, made).await {
            Ok(Ok(made)) => Ok(made?),
            Ok(Err(_)) => Err(HubError::Interrupted.into()),
            Err(_) => Err(VolumeError::Timeout.into()),
        }
    }
}

fn locked(open: &Mutex<HashMap<PathBuf, Slot>>) -> MutexGuard<'_, HashMap<PathBuf, Slot>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The volume of a place, which stays somebody's meanwhile. One that is being mounted, or closed, is left to whoever does that.
fn take_open(open: &Mutex<HashMap<PathBuf, Slot>>, place: &Path) -> Result<Box<Opened>, VolumeError> {
    let mut slots = locked(open);
    match slots.get_mut(place).map(|slot| std::mem::replace(slot, Slot::Taken)) {
        Some(Slot::Open(opened)) => Ok(opened),
        Some(Slot::Taken) | None => Err(VolumeError::Place { expected: "one with a volume" }),
    }
}

/// A place in the table. Dropped, it is free again.
struct Reservation<'a> {
    open: &'a Mutex<HashMap<PathBuf, Slot>>,
    place: Option<PathBuf>,
}

impl<'a> Reservation<'a> {
    fn take(open: &'a Mutex<HashMap<PathBuf, Slot>>, place: &Path) -> Result<Self, crate::Error> {
        let mut slots = locked(open);
        if slots.contains_key(place) {
            return Err(VolumeError::Place { expected: "one without a volume" }.into());
        }
        if slots.len() >= MAXIMUM_VOLUMES {
            return Err(HubError::Busy { what: "volumes" }.into());
        }
        slots.insert(place.to_owned(), Slot::Taken);
        Ok(Self { open, place: Some(place.to_owned()) })
    }

    fn keep(mut self, opened: Opened) {
        if let Some(place) = self.place.take() {
            locked(self.open).insert(place, Slot::Open(Box::new(opened)));
        }
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            locked(self.open).remove(&place);
        }
    }
}

#[async_trait]
impl Volumes for BlockVolumes {
    async fn mount(&self, volume: Volume, deadline: Instant) -> Result<(), crate::Error> {
        let order = Order::parse(volume)?;
        let place = Reservation::take(&self.open, &order.place)?;
        let opened = self.make(order, deadline).await?;
        place.keep(opened);
        Ok(())
    }

    async fn unmount(&self, mount_point: &str) -> Result<(), crate::Error> {
        let place = place::parse(mount_point)?;
        let open = Arc::clone(&self.open);
        let closed = spawn_blocking(move || {
            let mut opened = take_open(&open, &place)?;
            let closed = opened.close();
            match &closed {
                Ok(()) => locked(&open).remove(&place),
                // It can be tried again.
                Err(_) => locked(&open).insert(place, Slot::Open(opened)),
            };
            closed
        });
        Ok(closed.await.map_err(|_| HubError::Interrupted)??)
    }
}

#[cfg(test)]
mod tests;
