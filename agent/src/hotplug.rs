//! Devices that come while the guest runs: where they are, and waiting until they are there.
//!
//! ```text
//!  kernel ─uevents─▶ listen ─▶ "something changed" ─▶ look into /sys and /dev ─▶ there: done
//!                      │                                   │ not there: until the time is over
//!                      └─▶ memory that came is put online  └─▶ again, at the next event, and every tenth of a second
//! ```
//! An event only says that it is time to look: what is believed is what `/sys` shows at that time. So it does not matter which events came
//! before somebody waited, nor how many were lost.

mod address;
mod listen;
mod memory;
pub(crate) mod sysfs;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use protocol::status::RpcError;
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};

pub use address::{BlockName, PciPath, ScsiAddress};
use listen::Listener;
pub use sysfs::{BlockDevice, PciDevice};

use crate::error::AgentError;
use crate::log::Log;

/// How long a device is waited for: upstream's default. What the kernel's command line says about it is the host's word, and has no effect.
pub const LIMIT: Duration = Duration::from_secs(3);
/// How often there is a look without an event.
const PAUSE: Duration = Duration::from_millis(100);
/// Searches of a SCSI bus that may be under way: a device that does not answer keeps one.
const SCANS: usize = 4;

/// Why there is no device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HotplugError {
    /// An address that is none.
    #[error("{what}: expected {expected}")]
    Address {
        /// Of what.
        what: &'static str,
        /// The form.
        expected: &'static str,
    },
    /// The host names one device, and there are several.
    #[error("{what}: expected one device, found {found}")]
    Ambiguous {
        /// The device.
        what: String,
        /// How many.
        found: usize,
    },
    /// `/sys` or `/dev`.
    #[error("{action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: String,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// It did not come.
    #[error("timeout after {seconds}s waiting for {what}: the host has not plugged it in, or elsewhere")]
    Timeout {
        /// How long it was waited for.
        seconds: u64,
        /// The device.
        what: String,
    },
}

impl HotplugError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Address { .. } => "HOTPLUG_ADDRESS",
            Self::Ambiguous { .. } => "HOTPLUG_AMBIGUOUS",
            Self::Io { .. } => "HOTPLUG_IO",
            Self::Timeout { .. } => "HOTPLUG_TIMEOUT",
        }
    }

    fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.display().to_string();
        move |source| Self::Io { action, path, source }
    }
}

impl From<HotplugError> for RpcError {
    fn from(error: HotplugError) -> Self {
        match error {
            HotplugError::Timeout { seconds, what } => Self::DeviceTimeout(seconds, what),
            other => Self::Failed(other.code(), crate::error::chain(&other)),
        }
    }
}

/// Who knows about devices. Clones are the same.
#[derive(Clone, Debug)]
pub struct Hotplug {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    sys: PathBuf,
    dev: PathBuf,
    limit: Duration,
    news: watch::Sender<u64>,
    scans: Arc<Semaphore>,
    /// Ends with this.
    _listener: Option<Listener>,
}

impl Hotplug {
    /// Listens from now on; `sys` and `dev` are where `/sys` and `/dev` are. Memory that is there already, and offline,
    /// is put online.
    ///
    /// # Errors
    /// `AGENT_SYSTEM`.
    pub fn start(sys: &Path, dev: &Path, log: &Log) -> Result<Self, AgentError> {
        let news = watch::Sender::new(0);
        let listener = Listener::start(sys, &news, log)?;
        Ok(Self::new(sys, dev, LIMIT, news, Some(listener)))
    }

    /// Without events: looks alone.
    #[cfg(test)]
    pub(crate) fn looking(sys: &Path, dev: &Path, limit: Duration) -> Self {
        Self::new(sys, dev, limit, watch::Sender::new(0), None)
    }

    fn new(
        sys: &Path,
        dev: &Path,
        limit: Duration,
        news: watch::Sender<u64>,
        listener: Option<Listener>,
    ) -> Self {
        let scans = Arc::new(Semaphore::new(SCANS));
        let inner =
            Inner { sys: sys.to_owned(), dev: dev.to_owned(), limit, news, scans, _listener: listener };
        Self { inner: Arc::new(inner) }
    }

    /// Where `/sys` is.
    #[must_use]
    pub fn sys(&self) -> &Path {
        &self.inner.sys
    }

    /// Waits for a device on the PCI bus.
    ///
    /// # Errors
    /// `HOTPLUG_…`.
    pub async fn pci(&self, path: &PciPath) -> Result<PciDevice, HotplugError> {
        self.wait(&format!("PCI device {path}"), || sysfs::pci(self.sys(), path)).await
    }

    /// Waits for the disk of a device on the PCI bus.
    ///
    /// # Errors
    /// `HOTPLUG_…`.
    pub async fn block_by_pci(&self, path: &PciPath) -> Result<BlockDevice, HotplugError> {
        self.wait(&format!("block device at PCI path {path}"), || {
            let Some(device) = sysfs::pci(self.sys(), path)? else { return Ok(None) };
            sysfs::block_below(self.sys(), &self.inner.dev, &device)
        })
        .await
    }

    /// Waits for the name of the network device that a device on the PCI bus has.
    ///
    /// # Errors
    /// `HOTPLUG_…`.
    pub async fn net_by_pci(&self, path: &PciPath) -> Result<String, HotplugError> {
        self.wait(&format!("network device at PCI path {path}"), || {
            let Some(device) = sysfs::pci(self.sys(), path)? else { return Ok(None) };
            sysfs::net_below(&device)
        })
        .await
    }

    /// Waits for a disk by its name: those of virtio-mmio and of persistent memory have no other address.
    ///
    /// # Errors
    /// `HOTPLUG_…`.
    pub async fn block_by_name(&self, name: &BlockName) -> Result<BlockDevice, HotplugError> {
        self.wait(&format!("block device /dev/{name}"), || {
            sysfs::block(self.sys(), &self.inner.dev, name.as_str())
        })
        .await
    }

    /// Waits for a partition of a disk, as the kernel found it.
    ///
    /// # Errors
    /// `HOTPLUG_…`.
    pub async fn partition(&self, disk: &BlockDevice, number: u32) -> Result<BlockDevice, HotplugError> {
        self.wait(&format!("partition {number} of {}", disk.name), || {
            sysfs::partition(self.sys(), &self.inner.dev, disk, number)
        })
        .await
    }

    /// Has the SCSI buses searched and waits for the disk.
    ///
    /// # Errors
    /// `HOTPLUG_…`.
    pub async fn block_by_scsi(&self, address: &ScsiAddress) -> Result<BlockDevice, HotplugError> {
        if let Some(found) = sysfs::scsi(self.sys(), &self.inner.dev, address)? {
            return Ok(found);
        }
        self.scan(address);
        self.wait(&format!("SCSI disk {address}"), || sysfs::scsi(self.sys(), &self.inner.dev, address)).await
    }

    /// Asks in a thread of its own: the kernel asks the device, which is the host's, and takes its time.
    fn scan(&self, address: &ScsiAddress) {
        let Ok(permit) = Arc::clone(&self.inner.scans).try_acquire_owned() else { return };
        let (sys, address) = (self.inner.sys.clone(), *address);
        spawn_blocking(move || {
            sysfs::scan_scsi(&sys, &address);
            drop(permit);
        });
    }

    /// Looks, until there is something or the time is over.
    async fn wait<T>(
        &self,
        what: &str,
        look: impl Fn() -> Result<Option<T>, HotplugError>,
    ) -> Result<T, HotplugError> {
        let mut news = self.inner.news.subscribe();
        let end = Instant::now() + self.inner.limit;
        loop {
            news.borrow_and_update();
            // Taken before the look: the last look is behind the end.
            let now = Instant::now();
            if let Some(found) = look()? {
                return Ok(found);
            }
            if now >= end {
                let seconds = self.inner.limit.as_secs();
                return Err(HotplugError::Timeout { seconds, what: what.to_owned() });
            }
            let pause = PAUSE.min(end - now);
            if let Ok(Err(_)) = timeout(pause, news.changed()).await {
                // Nobody tells any more.
                tokio::time::sleep(pause).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
