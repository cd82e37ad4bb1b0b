//! SignalProcess.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use protocol::agent::SignalProcessRequest;
use protocol::ids::{ProcessRef, Signal as Asked};
use protocol::status::RpcError;
use rustix::io::Errno;
use rustix::process::{Pid, Signal};

use crate::containers::missing;
use crate::context::Agent;

/// Longest status of a process that is looked at.
const MAXIMUM_STATUS_BYTES: u64 = 16 * 1024;
/// How often, and how far apart, a process that only blocks a signal is looked at. Shells and C libraries block all of them for a moment at each
/// fork; who waits for one by `sigwait` or a descriptor blocks it whenever it is looked at.
const LOOKS: usize = 10;
const BETWEEN_LOOKS: Duration = Duration::from_millis(3);

/// Sends a signal: to one process, or, if it is SIGKILL and names none, to all of the container. A process that has ended is no
/// error: the signal came too late, as signals do.
///
/// # Errors
/// The process is not known, or the signal is none.
pub(crate) async fn signal(agent: &Agent, request: &SignalProcessRequest) -> Result<(), RpcError> {
    let which = ProcessRef::try_from(request)?;
    let asked = Asked::parse(request.signal)?;
    let container = agent.containers.get(&which.container).ok_or(RpcError::ProcessWithoutContainer)?;
    if which.exec.is_none() && asked.number() == Signal::KILL.as_raw() {
        return Ok(container.cgroup().kill_all().await?);
    }
    let process = agent.containers.process(&which).map_err(missing)?;
    if asked.number() == 0 {
        return Ok(());
    }
    let mut signal = named(asked)?;
    // A first process is not ended by signals that it does not handle, and runtimes count on this one.
    let is_first = std::sync::Arc::ptr_eq(&process, container.first());
    if is_first
        && signal == Signal::TERM
        && process.is_alive()
        && !handles(&agent.roots.proc, process.pid(), signal).await
    {
        signal = Signal::KILL;
    }
    match process.signal(signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(RpcError::Failed("PROCESS_SIGNAL", std::io::Error::from(error).to_string())),
    }
}

/// Those with names, as upstream: none of the real-time ones.
fn named(asked: Asked) -> Result<Signal, RpcError> {
    Signal::from_named_raw(asked.number())
        .ok_or_else(|| RpcError::Failed("PROCESS_SIGNAL", "expected a signal that has a name".to_owned()))
}

/// Whether a process blocks, ignores or handles a signal. One that cannot be looked at counts as one that does.
async fn handles(proc: &Path, process: Pid, signal: Signal) -> bool {
    for _ in 0..LOOKS {
        match stance(proc, process, signal) {
            Stance::None => return false,
            Stance::Handles => return true,
            Stance::Blocks => tokio::time::sleep(BETWEEN_LOOKS).await,
        }
    }
    true
}

/// What a process does about a signal at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stance {
    /// Nothing: a first process of a namespace does not see it.
    None,
    /// It is kept for later, which may be in a moment.
    Blocks,
    /// It ignores it, has a function for it, or cannot be looked at.
    Handles,
}

fn stance(proc: &Path, process: Pid, signal: Signal) -> Stance {
    let read = || {
        let file = File::open(proc.join(process.as_raw_nonzero().to_string()).join("status"))?;
        let mut text = String::new();
        file.take(MAXIMUM_STATUS_BYTES).read_to_string(&mut text)?;
        Ok::<_, std::io::Error>(text)
    };
    read().map_or(Stance::Handles, |status| stance_in(&status, signal))
}

fn stance_in(status: &str, signal: Signal) -> Stance {
    let bit = u32::try_from(signal.as_raw() - 1).ok().and_then(|shift| 1_u64.checked_shl(shift)).unwrap_or(0);
    let has = |wanted: &[&str]| {
        let masks = status.lines().filter_map(|line| {
            let (name, mask) = line.split_once(':')?;
            wanted.contains(&name).then(|| u64::from_str_radix(mask.trim(), 16).ok())?
        });
        masks.fold(0, |all, mask| all | mask) & bit != 0
    };
    match (has(&["SigIgn", "SigCgt"]), has(&["SigBlk"])) {
        (true, _) => Stance::Handles,
        (false, true) => Stance::Blocks,
        (false, false) => Stance::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_of_a_status() {
        let status = |block, ignore, catch| {
            format!(
                "Name:\tx\nSigPnd:\t0000000000004000\nSigBlk:\t{block:016x}\nSigIgn:\t{ignore:016x}\nSigCgt:\t{catch:016x}\n"
            )
        };
        assert_eq!(stance_in(&status(0, 0, 0), Signal::TERM), Stance::None);
        assert_eq!(stance_in(&status(0, 0, 1 << 13), Signal::TERM), Stance::None);
        assert_eq!(stance_in(&status(1 << 14, 0, 0), Signal::TERM), Stance::Blocks);
        for (block, ignore, catch) in [(0, 1 << 14, 0), (0, 0, 1 << 14), (1 << 14, 0, 1 << 14)] {
            assert_eq!(stance_in(&status(block, ignore, catch), Signal::TERM), Stance::Handles);
        }
        assert_eq!(stance_in(&status(0, 0, 1 << 8), Signal::KILL), Stance::Handles);
    }

    #[test]
    fn signals_by_number() {
        let number = |number: u32| named(Asked::parse(number).unwrap()).map(Signal::as_raw);
        for wanted in [1, 2, 9, 15, 28] {
            assert_eq!(number(wanted), Ok(i32::try_from(wanted).unwrap()));
        }
        for none in [32, 33, 34, 64] {
            assert!(matches!(number(none), Err(RpcError::Failed("PROCESS_SIGNAL", _))));
        }
    }

    #[tokio::test]
    async fn who_cannot_be_looked_at_is_not_killed_for_it() {
        assert!(handles(Path::new("/nowhere"), Pid::INIT, Signal::TERM).await);
        let own = rustix::process::getpid();
        assert!(!handles(Path::new("/proc"), own, Signal::USR2).await);
    }

    // COMPAT: SignalProcess better: a first process that blocks SIGTERM only for a moment, as shells do at each fork, is ended by it
    /// A shell that forks blocks everything for a moment: a signal sent then would be dropped when the moment is over.
    #[tokio::test(start_paused = true)]
    async fn who_blocks_for_a_moment_does_not_handle() {
        let proc = tempfile::tempdir().unwrap();
        let own = proc.path().join("1");
        std::fs::create_dir(&own).unwrap();
        let write = |mask: &str| std::fs::write(own.join("status"), format!("SigBlk:\t{mask}\n")).unwrap();
        write("ffffffffffffffff");
        assert!(handles(proc.path(), Pid::INIT, Signal::TERM).await);
        let looks = handles(proc.path(), Pid::INIT, Signal::TERM);
        let unblocks = async {
            tokio::time::sleep(BETWEEN_LOOKS * 2).await;
            write("0000000000000000");
        };
        assert!(!tokio::join!(looks, unblocks).0);
    }
}
