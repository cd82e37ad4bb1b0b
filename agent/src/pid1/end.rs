//! The end of the machine: in order, or at once, but always.

use std::convert::Infallible;
use std::process::abort;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use rustix::fs::sync;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::system::{RebootCommand, reboot};

use crate::error::AgentError;
use crate::log::{Key, Level, Log, Value};
use crate::pid1::{SUBSYSTEM, mounts};

/// How long processes have to end by themselves.
const GRACE: Duration = Duration::from_millis(500);
/// How long disks have to take what is written to them. They are the host's, who may take nothing.
const DISKS: Duration = Duration::from_secs(5);
/// How long the console has to take the last lines. It is the host's as well.
const CONSOLE: Duration = Duration::from_secs(2);

/// How long the start may take, from the first question to the platform until the port is open. The longest wait of its own is
/// that for the disk with initdata.
const START: Duration = Duration::from_secs(30);
/// How long the kernel has to power off. It asks every device first, and one that the host has stopped does not answer.
const KERNEL: Duration = Duration::from_secs(10);
const SYSRQ: &str = "/proc/sysrq-trigger";

/// Ends the machine unless it is dropped in time.
#[derive(Debug)]
pub(crate) struct Watchdog {
    _dropped: mpsc::Sender<Infallible>,
}

/// Watches the start. Firmware and disks are the host's, who may let a read of them wait for ever: that cannot be
/// interrupted, only ended.
pub(crate) fn watch_start(log: &Log) -> Result<Watchdog, AgentError> {
    let (sender, dropped) = mpsc::channel();
    let log = log.clone();
    let watch = move || {
        if dropped.recv_timeout(START) == Err(RecvTimeoutError::Timeout) {
            let text = "the start takes too long, the machine is powered off";
            let fields = [(Key::Code, Value::from("AGENT_START_TIMEOUT"))];
            log.last_words(SUBSYSTEM, text, &fields, CONSOLE);
            off();
        }
    };
    let thread = thread::Builder::new().name("watchdog".to_owned()).spawn(watch);
    thread.map_err(AgentError::system("start the watchdog"))?;
    Ok(Watchdog { _dropped: sender })
}

/// Powers off. The reason is the last line but one of the log.
pub(crate) fn power_off(log: &Log, reason: Option<&AgentError>) -> ! {
    match reason {
        Some(error) => log.fail(Level::Critical, SUBSYSTEM, "failed, the machine is powered off", error),
        None => log.say(Level::Info, SUBSYSTEM, "stopped, the machine is powered off", &[]),
    }
    log.flush(CONSOLE);
    let (done, wait) = mpsc::sync_channel(1);
    let tidy = move || {
        end_processes();
        write_disks();
        let _ = done.send(());
    };
    // Without a thread there is nobody who could wait for the disks only so long: then they are not waited for.
    if thread::Builder::new().spawn(tidy).is_ok() {
        let _ = wait.recv_timeout(GRACE + DISKS);
    }
    off()
}

/// A panic of any thread ends the machine: what went wrong in process 1 is not known to have stayed there.
pub(crate) fn on_panic(log: &Log) {
    let log = log.clone();
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(|place| format!("{}:{}", place.file(), place.line()));
        let fields =
            [(Key::Code, Value::from("AGENT_PANIC")), (Key::Error, Value::shown(&place.unwrap_or_default()))];
        log.last_words(SUBSYSTEM, "panic, the machine is powered off", &fields, CONSOLE);
        off()
    }));
}

fn off() -> ! {
    let insist = || {
        thread::sleep(KERNEL);
        // Restarts at once and asks nobody; a runtime takes that for the end as well. Root may always write it.
        let _ = std::fs::write(SYSRQ, "b");
    };
    let _ = thread::Builder::new().spawn(insist);
    let _ = reboot(RebootCommand::PowerOff);
    // A machine that cannot be switched off can be started again, and a runtime takes that for its end.
    let _ = reboot(RebootCommand::Restart);
    // The end of process 1: the kernel panics, and was told to end the machine then.
    abort()
}

/// Asks every other process to end, and then ends it.
fn end_processes() {
    // The group of process 1 means every process but this one (kill(2)).
    let everybody = Pid::INIT;
    if kill_process_group(everybody, Signal::TERM).is_err() {
        return;
    }
    thread::sleep(GRACE);
    let _ = kill_process_group(everybody, Signal::KILL);
}

fn write_disks() {
    sync();
    for target in mounts::on_devices() {
        let _ = unmount(target.as_str(), UnmountFlags::NOFOLLOW);
    }
    sync();
}
