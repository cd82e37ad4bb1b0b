//! Who watches a machine: its time, and the processes that it cannot do without.

use super::backend::Backend;
use super::guest::End;
use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::os::fd::OwnedFd;
use std::process::Child;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What the monitor knows.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Why the monitor killed QEMU.
    pub(super) killed: Option<End>,
    /// QEMU's status.
    pub(super) ended: Option<String>,
}

/// Ends QEMU when its time is over, or when somebody who serves its devices is gone: the guest would only hang.
pub(super) fn monitor(
    mut qemu: Child,
    watch: &Mutex<Watch>,
    backends: &Mutex<Vec<Backend>>,
    watched: &[(String, OwnedFd)],
    deadline: Instant,
) {
    loop {
        if let Ok(Some(status)) = qemu.try_wait() {
            watch.lock().unwrap_or_else(PoisonError::into_inner).ended = Some(status.to_string());
            return;
        }
        let cause = dead(backends, watched).map(End::BackendDied);
        let cause = cause.or_else(|| (Instant::now() > deadline).then_some(End::TimedOut));
        if let Some(cause) = cause {
            // A machine that ends by itself takes its back ends along: that is no cause.
            std::thread::sleep(Duration::from_millis(200));
            if matches!(qemu.try_wait(), Ok(None)) {
                watch.lock().unwrap_or_else(PoisonError::into_inner).killed = Some(cause);
                let _ = qemu.kill();
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn dead(backends: &Mutex<Vec<Backend>>, watched: &[(String, OwnedFd)]) -> Option<String> {
    let mut backends = backends.lock().unwrap_or_else(PoisonError::into_inner);
    let own = backends.iter_mut().find_map(|backend| {
        let status = backend.process.try_wait().ok().flatten()?;
        Some(format!("{} ({status}): {}", backend.name, backend.said().trim()))
    });
    own.or_else(|| {
        watched.iter().find_map(|(name, process)| {
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            let mut fds = [PollFd::new(process, PollFlags::IN)];
            matches!(poll(&mut fds, Some(&now)), Ok(ready) if ready > 0).then(|| name.clone())
        })
    })
}

/// A process to watch, whatever becomes of its number.
pub(super) fn pidfd(process: u32) -> anyhow::Result<OwnedFd> {
    let process = i32::try_from(process).ok().and_then(Pid::from_raw).context("a process number")?;
    pidfd_open(process, PidfdFlags::empty()).context("watch the process behind a device")
}

/// Kills QEMU unless it ended: then its number may be somebody else's.
pub(super) fn kill(qemu: u32, watch: &Mutex<Watch>) {
    let watch = watch.lock().unwrap_or_else(PoisonError::into_inner);
    if watch.ended.is_none()
        && let Some(process) = i32::try_from(qemu).ok().and_then(Pid::from_raw)
    {
        let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
    }
}
