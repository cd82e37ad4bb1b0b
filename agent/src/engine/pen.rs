//! Where a helper is with all that it starts: a control group of its own. Who ends the one ends the others, whatever they made of their sessions and
//! groups of processes, and whoever killed the helper before.
//!
//! ```text
//!  innerkeep/0, innerkeep/1, …   one for each operation; its processes of containers leave it for the groups of their containers
//! ```

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::Pid;
use tokio::runtime::Handle;
use tokio::time::sleep;

use crate::spec::AGENT_GROUP;

/// Between two looks at a group whose processes are about to go.
const PAUSE: Duration = Duration::from_millis(2);
/// Looks, until a group that does not empty is left: its processes were killed.
const LOOKS: u32 = 2500;

/// Where pens are made.
#[derive(Debug)]
pub(super) struct Pens {
    place: PathBuf,
    made: AtomicU64,
    /// Where those who are made here wait: whoever drops one may have a runtime that ends with him, or none.
    runtime: Option<Handle>,
}

impl Pens {
    /// Below the root of the control groups.
    pub(super) fn below(root: &Path) -> Self {
        let runtime = Handle::try_current().ok();
        Self { place: root.join(AGENT_GROUP), made: AtomicU64::new(0), runtime }
    }

    /// Makes one, with nobody in it.
    pub(super) fn make(&self) -> io::Result<Pen> {
        let path = self.place.join(self.made.fetch_add(1, Ordering::Relaxed).to_string());
        match fs::create_dir(&self.place) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        fs::create_dir(&path)?;
        Ok(Pen { path, runtime: self.runtime.clone() })
    }
}

/// A group for a helper. Dropped, everybody in it is killed, and it goes.
#[derive(Debug)]
pub(super) struct Pen {
    path: PathBuf,
    runtime: Option<Handle>,
}

impl Pen {
    /// Puts a helper in, that has begun nothing yet.
    pub(super) fn put(&self, helper: Pid) -> io::Result<()> {
        write(&self.path.join("cgroup.procs"), &helper.to_string())
    }
}

/// Into a file that the kernel has made.
fn write(path: &Path, value: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

impl Pen {
    /// Kills everybody in it, and waits until nobody is left.
    pub(super) async fn empty(&self) -> io::Result<()> {
        write(&self.path.join("cgroup.kill"), "1")?;
        for _ in 0..LOOKS {
            if fs::read_to_string(self.path.join("cgroup.procs"))?.is_empty() {
                return Ok(());
            }
            sleep(PAUSE).await;
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

impl Drop for Pen {
    fn drop(&mut self) {
        let _ = write(&self.path.join("cgroup.kill"), "1");
        if is_removed(&self.path) {
            return;
        }
        let path = std::mem::take(&mut self.path);
        let Some(runtime) = self.runtime.take() else { return };
        runtime.spawn(async move {
            for _ in 0..LOOKS {
                sleep(PAUSE).await;
                if is_removed(&path) {
                    return;
                }
            }
        });
    }
}

/// Whether it went, or cannot go by waiting.
fn is_removed(path: &Path) -> bool {
    !fs::remove_dir(path).is_err_and(|error| error.raw_os_error() == Some(Errno::BUSY.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pens_are_made_and_go() {
        let root = tempfile::tempdir().unwrap();
        let pens = Pens::below(root.path());
        let (first, second) = (pens.make().unwrap(), pens.make().unwrap());
        assert_ne!(first.path, second.path);
        assert_eq!(fs::read_dir(root.path().join(AGENT_GROUP)).unwrap().count(), 2);
        // In a directory that is no control group nobody is put anywhere.
        assert!(first.put(rustix::process::getpid()).is_err());
        drop((first, second));
        assert_eq!(fs::read_dir(root.path().join(AGENT_GROUP)).unwrap().count(), 0);
        assert!(Pens::below(&root.path().join("none")).make().is_err());
    }
}
