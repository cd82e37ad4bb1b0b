//! `run`: a guest in a mount namespace of its own, and a command in it. For whoever may not mount: first a user
//! namespace, with the ids as they are outside, so that the command can make further ones.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode};

use anyhow::Context;
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{Pid, getegid, geteuid, kill_process};

use crate::serve::{Mounted, Options, termination_signals};

/// Runs a command in a guest. Its exit status is the result; 128 and the number of the signal that ended it.
pub(crate) fn run(options: &Options, command: &[OsString]) -> anyhow::Result<ExitCode> {
    // The process has one thread, as a new user namespace demands.
    enter_namespaces()?;
    let signals = termination_signals();
    signals.thread_block().context("signals")?;
    let mounted = Mounted::new(options)?;
    let mut child = spawn(command)?;
    forward(&child, signals)?;
    let status = child.wait().context("waiting for the command")?;
    drop(mounted);
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    Ok(ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

fn enter_namespaces() -> anyhow::Result<()> {
    match unshare(CloneFlags::CLONE_NEWNS) {
        Ok(()) => {}
        Err(Errno::EPERM) => {
            let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
            unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).context(
                "a user namespace; see user.max_user_namespaces and the machine's security modules",
            )?;
            let maps = [
                ("setgroups", "deny".to_owned()),
                ("uid_map", format!("{uid} {uid} 1")),
                ("gid_map", format!("{gid} {gid} 1")),
            ];
            for (file, text) in maps {
                fs::write(format!("/proc/self/{file}"), text).context(file)?;
            }
        }
        Err(error) => return Err(error).context("a mount namespace"),
    }
    // Nothing that is mounted from here on is seen outside.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).context("private mounts")
}

/// Starts this program again, which becomes the command. A child inherits the blocked signals, and to unblock them here, even for a
/// moment and in one thread, would let a signal end the emulator instead of the command.
fn spawn(command: &[OsString]) -> anyhow::Result<Child> {
    let mut start = Command::new("/proc/self/exe");
    start.args(["start", "--"]).args(command).spawn().context("starting the command")
}

/// In the child: lets signals in that were sent since, and becomes the command.
pub(crate) fn start(command: &[OsString]) -> anyhow::Result<ExitCode> {
    let (program, arguments) = command.split_first().context("a command is needed")?;
    termination_signals().thread_unblock().context("signals")?;
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| program.display().to_string())
}

/// SIGTERM goes on to the command, whose end ends the emulator. SIGINT comes from the terminal to both.
fn forward(child: &Child, signals: SigSet) -> anyhow::Result<()> {
    let pid = Pid::from_child(child);
    let forward = move || {
        while let Ok(signal) = signals.wait() {
            if signal == Signal::SIGTERM {
                let _ = kill_process(pid, rustix::process::Signal::TERM);
            }
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(forward).context("thread")?;
    Ok(())
}
