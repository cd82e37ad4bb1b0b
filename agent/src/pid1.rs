//! The first process of the guest: what it does before it serves, while it serves, and at the end.
//!
//! ```text
//!  console ─▶ environment (the program starts itself again without one) ─▶ crash and panic end the machine
//!    ─▶ mounts ─▶ is this the machine's process 1? ─▶ hardening ─▶ control groups ─▶ host name, loopback
//!    ─▶ command line ─▶ platform ─▶ insecure file ─▶ first log line ─▶ runtime: signals, reaper, uevents, initdata, port
//!    ─▶ stop or error ─▶ processes ended, disks written, power off
//! ```
//! Up to the question for the platform there is one thread, so that helpers can be forked from here.

mod cgroup;
mod console;
mod end;
mod environment;
mod hostname;
mod kernel;
mod loopback;
mod mounts;

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use initdata::{Binding, BlockDevices, Initdata};
use protected_memory::harden::{InitOnFree, KernelState, harden_process};
use protected_memory::landing::HostFacts;

use crate::cmdline::{self, CommandLine};
use crate::error::AgentError;
use crate::insecure::{self, InsecureModes};
use crate::log::{Key, Level, Log, Value};
use crate::reaper::Reaper;
use crate::server::{self, ServerAddress};
use crate::start::{self, Choices, Compiling};
use crate::tee::Platform;
use crate::uevent::DiskNews;
use crate::zygote::Zygote;
use crate::{audit, descriptors, rest, sys};

/// Subsystem of the lines from here.
pub(crate) const SUBSYSTEM: &str = "pid1";
/// Where the runtimes look for the agent.
const PORT: u32 = 1024;
/// Names a process id namespace that is the machine's own (`PROC_PID_INIT_INO` of the kernel).
const PID_NAMESPACE: &str = "pid:[4026531836]";
const COMMAND_LINE: &str = "/proc/cmdline";
/// How long tasks have to end when the port is closed.
const TASKS_END: Duration = Duration::from_secs(5);

/// Everything, in order. Returns only in process 1 of a container, which is refused.
pub(crate) fn run() -> i32 {
    console::open_missing();
    let log = Log::console();
    // Before a crash is caught: until the environment is gone, nothing of the host's has been read.
    if let Err(error) = environment::leave() {
        end::power_off(&log, Some(&error));
    }
    sys::crash::end_the_machine();
    end::on_panic(&log);
    match live(&log) {
        Ok(()) => end::power_off(&log, None),
        Err(error @ AgentError::NotTheMachine { .. }) => {
            log.fail(Level::Critical, SUBSYSTEM, "refused", &error);
            1
        }
        Err(error) => end::power_off(&log, Some(&error)),
    }
}

/// What is worth a warning, kept until the first line of the log has said what this is.
#[derive(Debug, Default)]
struct Notes(Vec<(&'static str, Key, Value)>);

impl Notes {
    fn add(&mut self, text: &'static str, key: Key, value: Value) {
        self.0.push((text, key, value));
    }

    fn log(self, log: &Log) {
        for (text, key, value) in self.0 {
            log.warn(SUBSYSTEM, text, &[(key, value)]);
        }
    }
}

/// From the mounts to the end of serving.
fn live(log: &Log) -> Result<(), AgentError> {
    let mut notes = Notes::default();
    // A container has a /proc already: it is not touched before the question is answered.
    if mounts::has_proc() {
        refuse_in_container()?;
    }
    mounts::mount_proc()?;
    refuse_in_container()?;
    mounts::mount_all(&mut notes)?;
    harden_process()?;
    kernel::harden(&mut notes)?;
    cgroup::enable_controllers(&mut notes)?;
    rustix::process::setsid().map(drop).or_else(|error| match error {
        // Already the leader of one.
        rustix::io::Errno::PERM => Ok(()),
        other => Err(AgentError::system("become the leader of a session")(other)),
    })?;
    hostname::set()?;
    loopback::up()?;
    let line = command_line()?;
    if let Some(level) = line.log_level {
        log.set_level(level);
    }
    // The last thing that one thread does: the zygote is as old as this program can make it, and has seen nothing of the host's.
    let zygote = Zygote::start()?;
    sys::allocator::bound_heaps();
    descriptors::raise()?;
    // From here on there is a second thread, and the host is asked for something.
    let watchdog = end::watch_start(log)?;
    let platform = Platform::detect()?;
    let modes = insecure::read(&platform)?;
    report(log, &line, &platform, &modes)?;
    notes.log(log);
    let initdata = bind_initdata(log, &platform, &modes)?;
    if let Some(initdata) = &initdata {
        start::write_guest_files(initdata)?;
    }
    drop(watchdog);
    let names = modes.names();
    let choices = Choices {
        attester: platform.attester().cloned(),
        modes: &names,
        policy: Compiling::begin(platform.sign().is_some(), initdata.as_ref(), None)?,
        passfd_port: line.passfd_port.unwrap_or_default(),
        pipe_size: line.pipe_size.unwrap_or_default(),
    };
    serve(log, zygote, platform, initdata, choices)
}

/// What this process does to the machine is not for a container's process 1 to do.
fn refuse_in_container() -> Result<(), AgentError> {
    let path = "/proc/self/ns/pid";
    let found = std::fs::read_link(path).map_err(AgentError::io("read", path))?;
    is_the_machine(&found.to_string_lossy())
}

fn is_the_machine(found: &str) -> Result<(), AgentError> {
    // GUARD: not-the-machine -> process_1_of_a_container_is_refused
    if found != PID_NAMESPACE {
        return Err(AgentError::NotTheMachine { expected: PID_NAMESPACE, found: found.to_owned() });
    }
    Ok(())
}

/// The kernel's command line.
pub(crate) fn command_line() -> Result<CommandLine, AgentError> {
    let limit = u64::try_from(cmdline::MAXIMUM_BYTES + 1).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    let file = std::fs::File::open(COMMAND_LINE).map_err(AgentError::io("open", COMMAND_LINE))?;
    file.take(limit).read_to_end(&mut bytes).map_err(AgentError::io("read", COMMAND_LINE))?;
    Ok(CommandLine::parse(&bytes))
}

/// The first lines: what this guest is, loud if it is not protected, and what the host said in vain.
fn report(
    log: &Log,
    line: &CommandLine,
    platform: &Platform,
    modes: &InsecureModes,
) -> Result<(), AgentError> {
    let kernel = KernelState::read()?;
    let facts = HostFacts::read()?;
    let init_on_free = match kernel.init_on_free {
        InitOnFree::On => "on",
        InitOnFree::Off => "off",
        _ => "unstated",
    };
    let mut fields = vec![
        (Key::Tee, platform.name().into()),
        (Key::Interface, crate::INTERFACE_VERSION.into()),
        (Key::InitOnFree, init_on_free.into()),
        (Key::Swap, facts.swap().areas().into()),
    ];
    if modes.is_empty() {
        log.info(SUBSYSTEM, "innerkeep-agent starts", &fields);
    } else {
        fields.push((Key::Insecure, Value::shown(&modes.names().join(" "))));
        log.say(
            Level::Critical,
            SUBSYSTEM,
            "innerkeep-agent starts INSECURE: nothing here is protected",
            &fields,
        );
    }
    if let Some(probes) = platform.absence() {
        log.warn(SUBSYSTEM, "no platform: nothing can be attested", &[(Key::Probes, Value::shown(probes))]);
    }
    report_words(log, line);
    Ok(())
}

/// What the host said in vain.
pub(crate) fn report_words(log: &Log, line: &CommandLine) {
    if line.ignored_count > 0 || !line.malformed.is_empty() || line.arguments > 0 || line.is_cut {
        let fields = [
            (Key::Count, (line.ignored_count + line.arguments).into()),
            (Key::Ignored, Value::shown(&line.ignored().join(" "))),
            (Key::Malformed, Value::shown(&line.malformed.join(" "))),
        ];
        log.warn(SUBSYSTEM, "kernel command line: words without effect", &fields);
    }
}

/// Finds initdata, reads it once, and takes it only if the platform vouches for it. What it configures is for those who
/// come later; that it is the operator's is decided here, before a port is open.
pub(crate) fn bind_initdata(
    log: &Log,
    platform: &Platform,
    modes: &InsecureModes,
) -> Result<Option<Initdata>, AgentError> {
    let expected = platform.for_initdata(modes)?;
    // Listens before the first look, so that no device is missed.
    let mut news = DiskNews::listen()?;
    let found = initdata::obtain(&mut BlockDevices::system(), &mut news, &expected)?;
    match &found {
        Some(initdata) => {
            let fields = [
                (Key::Digest, Value::shown(&initdata.digest().to_string())),
                (Key::Register, Value::shown(&binding(initdata))),
                (Key::Count, news.heard().into()),
            ];
            log.info(SUBSYSTEM, "initdata bound", &fields);
        }
        None => log.info(SUBSYSTEM, "no initdata: none was launched with, none is offered", &[]),
    }
    Ok(found)
}

fn binding(initdata: &Initdata) -> String {
    match initdata.binding() {
        Binding::Register(name) => name.clone(),
        _ => "INSECURE: none".to_owned(),
    }
}

/// Serves until a signal says stop.
fn serve(
    log: &Log,
    zygote: Zygote,
    platform: Platform,
    initdata: Option<Initdata>,
    choices: Choices<'_>,
) -> Result<(), AgentError> {
    let tee_active = platform.sign().is_some();
    log.write_behind()?;
    let runtime = server::runtime()?;
    let served = runtime.block_on(async {
        let (stopper, stop) = server::stop_on_signals(log)?;
        let reaper = Arc::new(Reaper::start(log)?);
        let nursery = Arc::new(zygote.watch()?);
        let engine = start::engine(Some(&nursery), &reaper, log)?;
        let attester = choices.attester.clone();
        let agent = start::agent(log, tee_active, initdata, reaper, engine, choices, stopper)?;
        if let Some(attester) = attester {
            audit::attest(&agent, attester);
        }
        rest::begin(&agent).await?;
        nursery.outlive(server::serve(&ServerAddress::Vsock { port: PORT }, &agent, stop)).await
    });
    runtime.shutdown_timeout(TASKS_END);
    served
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_1_of_a_container_is_refused() {
        assert!(is_the_machine("pid:[4026531836]").is_ok());
        for found in ["pid:[4026532001]", "pid:[40265318360]", ""] {
            assert_eq!(is_the_machine(found).unwrap_err().code(), "AGENT_NOT_THE_MACHINE");
        }
    }
}
