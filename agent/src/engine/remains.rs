//! Taking away what was made: processes, control group, state.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::time::sleep;

/// Between two looks at something that is about to go.
const PAUSE: Duration = Duration::from_millis(1);
/// Looks, until what does not go is left.
const LOOKS: u32 = 5000;
/// Deepest control groups that a container makes of its own, and most of them, which are taken away with it.
const MAXIMUM_GROUPS: usize = 4096;

/// A control group that belongs to one container.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// Where it is.
    path: PathBuf,
    /// Directories above it that were made for it, the lowest first.
    made: Vec<PathBuf>,
}

impl Group {
    /// A control group that is to be made: `path` below `root`.
    pub(super) fn new(root: &Path, path: &Path) -> Self {
        let path = root.join(path);
        let above = path.ancestors().skip(1).take_while(|above| *above != root);
        let made = above.take_while(|above| !above.exists()).map(Path::to_owned).collect();
        Self { path, made }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there are processes in it, or below it. One that is not there has none.
    fn is_populated(&self) -> io::Result<bool> {
        match fs::read_to_string(self.path.join("cgroup.events")) {
            Ok(events) => Ok(events.lines().any(|line| line == "populated 1")),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Kills what is in it, and takes it away.
    pub(super) async fn remove(&self) -> io::Result<()> {
        match fs::write(self.path.join("cgroup.kill"), "1") {
            Err(error) if !is_gone(&error) => return Err(error),
            _ => {}
        }
        // What is frozen is killed all the same; what is dead leaves the group as its parent, or ours, waits for it.
        for _ in 0..LOOKS {
            if !self.is_populated()? {
                break;
            }
            sleep(PAUSE).await;
        }
        for _ in 0..LOOKS {
            match remove_groups(&self.path) {
                Ok(()) => break,
                Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => sleep(PAUSE).await,
                Err(error) => return Err(error),
            }
        }
        if self.path.exists() {
            return Err(Errno::BUSY.into());
        }
        self.forget_parents();
        Ok(())
    }

    /// Takes the directories above it away that were made for it.
    pub(super) fn forget_parents(&self) {
        for above in &self.made {
            // Another container may be there now, and one that was not made yet is not in the way of others.
            match fs::remove_dir(above) {
                Err(error) if !is_gone(&error) => break,
                _ => {}
            }
        }
    }
}

/// Removes a control group and those below it, the lowest first, without recursion: a container decides how deep they are.
fn remove_groups(top: &Path) -> io::Result<()> {
    let mut found = vec![top.to_owned()];
    let mut at = 0;
    while let Some(group) = found.get(at).cloned() {
        at += 1;
        let entries = match fs::read_dir(&group) {
            Ok(entries) => entries,
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() && found.len() < MAXIMUM_GROUPS {
                found.push(entry.path());
            }
        }
    }
    for group in found.iter().rev() {
        match fs::remove_dir(group) {
            Err(error) if !is_gone(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Removes a directory of state, if it is there.
pub(super) fn remove_state(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if !is_gone(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Kills every process that holds this end of a latch: processes of an operation that did not get to their programs.
pub(super) async fn kill_holders(other_end: u64) -> io::Result<()> {
    for _ in 0..LOOKS {
        let holders = holders(Path::new("/proc"), other_end)?;
        if holders.is_empty() {
            return Ok(());
        }
        for holder in holders {
            let Ok(descriptor) = pidfd_open(holder, PidfdFlags::empty()) else { continue };
            // The number may be another's by now, the descriptor is not.
            if holds(Path::new("/proc"), holder, other_end) {
                let _ = pidfd_send_signal(&descriptor, Signal::KILL);
            }
        }
        sleep(PAUSE).await;
    }
    Err(Errno::BUSY.into())
}

fn holders(proc: &Path, socket: u64) -> io::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(proc)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.parse::<i32>().ok()).and_then(Pid::from_raw);
        found.extend(
            number.filter(|number| *number != rustix::process::getpid() && holds(proc, *number, socket)),
        );
    }
    Ok(found)
}

fn holds(proc: &Path, process: Pid, socket: u64) -> bool {
    let wanted = format!("socket:[{socket}]");
    // A process that went meanwhile holds nothing.
    let Ok(entries) = fs::read_dir(proc.join(process.to_string()).join("fd")) else { return false };
    entries
        .flatten()
        .any(|entry| fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == wanted.as_str()))
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::NODEV.raw_os_error())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[tokio::test]
    async fn who_holds_a_latch_is_killed_and_nobody_else() {
        let (latch, theirs) = crate::engine::latch::Latch::pair().unwrap();
        let sleeper = || {
            let mut command = Command::new("/bin/sleep");
            command.arg("100").stdout(Stdio::null());
            command
        };
        let mut other = sleeper().spawn().unwrap();
        let mut holder = sleeper().stdin(theirs).spawn().unwrap();
        kill_holders(latch.other_end()).await.unwrap();
        assert!(!holder.wait().unwrap().success());
        assert_eq!(other.try_wait().unwrap(), None);
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!(latch.ready().await.unwrap_err().code(), "ENGINE_ENDED");
    }

    #[test]
    fn what_was_there_before_is_remembered() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("a")).unwrap();
        let group = Group::new(root.path(), Path::new("a/b/c/d"));
        assert_eq!(group.path(), root.path().join("a/b/c/d"));
        assert_eq!(group.made, [root.path().join("a/b/c"), root.path().join("a/b")]);
        assert!(!group.is_populated().unwrap());
    }

    #[test]
    fn groups_below_a_group_go_with_it() {
        let root = tempfile::tempdir().unwrap();
        let top = root.path().join("top");
        fs::create_dir_all(top.join("a/b/c")).unwrap();
        fs::create_dir_all(top.join("d")).unwrap();
        remove_groups(&top).unwrap();
        assert!(!top.exists() && root.path().exists());
        remove_groups(&top).unwrap();
    }
}
