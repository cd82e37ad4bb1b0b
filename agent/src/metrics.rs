//! What GetMetrics answers: figures of the agent and of the guest, in the text form of Prometheus, under upstream's names.
//!
//! | family | from | unit |
//! |---|---|---|
//! | `kata_agent_scrape_count`, `_threads`, `_total_time`, `_total_vm`, `_total_rss` | `/proc/self/stat` | –, –, s, bytes, bytes |
//! | `kata_agent_proc_status`, `_proc_stat`, `_io_stat` | `/proc/self/status`, `stat`, `io` | kB, ticks, as named |
//! | `kata_guest_load`, `_tasks` | `/proc/loadavg` | |
//! | `kata_guest_cpu_time` | `/proc/stat` | ms |
//! | `kata_guest_vm_stat`, `_meminfo` | `/proc/vmstat`, `/proc/meminfo` | as named, bytes |
//! | `kata_guest_diskstat`, `_netdev_stat` | `/proc/diskstats`, `/proc/net/dev` | as named |
//! | `kata_guest_filesystem_bytes`, `_inodes` | mounted file systems that can be written | |
//! | `innerkeep_sealed_artifact_verified_percent`, `_stage` | artifacts of bound `sealed.toml` | %, 1 at the stage that it is in |
//!
//! The figures are of the machine and not of what runs in it: nothing here is read from a container. A file that is not there has
//! no figures. The host learns no more of an artifact than the log tells it: its name, and how far it is. The answer is at most [`MAXIMUM_BYTES`] long.

mod agent;
mod artifacts;
mod filesystems;
mod guest;
mod text;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use protocol::status::RpcError;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::metrics::text::{Kind, Text};
use crate::sealed::Progress;

/// The longest answer, in bytes. What does not fit is left out, whole lines at a time.
pub const MAXIMUM_BYTES: usize = 1 << 20;
/// The longest file that is read.
const MAXIMUM_FILE_BYTES: u64 = 256 << 10;

/// How long an answer may take: a file system that the host does not serve keeps whoever asks it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Counts how often it was asked.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    scrapes: Arc<AtomicU64>,
    turn: Arc<Mutex<()>>,
}

impl Metrics {
    /// The answer, on a thread beside. One at a time: one that never ends is the only one.
    ///
    /// # Errors
    /// [`RpcError::Busy`] after 10 s.
    pub(crate) async fn gather(&self, proc: &Path, artifacts: Vec<Progress>) -> Result<String, RpcError> {
        let answer = async {
            let turn = Arc::clone(&self.turn).lock_owned().await;
            let (own, proc) = (self.clone(), proc.to_owned());
            let text = spawn_blocking(move || {
                let text = own.text(&proc, &artifacts);
                drop(turn);
                text
            });
            text.await.map_err(|_| RpcError::Failed("AGENT_METRICS", "no figures".to_owned()))
        };
        timeout(PATIENCE, answer).await.unwrap_or(Err(RpcError::Busy))
    }

    /// The answer. `proc` is where the kernel's files are. It may wait for a file system: not for a task that others wait for.
    #[must_use]
    pub(crate) fn text(&self, proc: &Path, artifacts: &[Progress]) -> String {
        let scrapes = self.scrapes.fetch_add(1, Ordering::Relaxed) + 1;
        let mut text = Text::new(MAXIMUM_BYTES);
        text.family("kata_agent_scrape_count", "Metrics scrape count", Kind::Counter);
        text.sample(&[], scrapes);
        // Bounded by bound configuration; what the machine has could crowd it out.
        artifacts::write(&mut text, artifacts);
        agent::write(&mut text, proc);
        guest::write(&mut text, proc);
        filesystems::write(&mut text, proc);
        text.finish()
    }
}

/// A file, as text; empty if it is not there, cut if it is long.
fn read(path: &Path) -> String {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    if let Ok(file) = std::fs::File::open(path) {
        // What was read before an error is what there is.
        let _ = file.take(MAXIMUM_FILE_BYTES).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The number that a word is; 0 if it is none.
fn number(word: Option<&str>) -> u64 {
    word.and_then(|word| word.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
