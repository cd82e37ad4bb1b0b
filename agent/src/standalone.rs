//! The program where another process is the first: on a developer's machine, or started by an init system.
//!
//! It serves the port, and in a confidential guest it binds initdata; nothing else of what [`crate::pid1`] does to a machine: that is somebody
//! else's.

use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::sync::Arc;

use protected_memory::harden::harden_process;

use crate::args::{Args, version_line};
use crate::cmdline::CommandLine;
use crate::error::AgentError;
use crate::insecure::InsecureModes;
use crate::log::{Key, Level, Log};
use crate::pid1;
use crate::reaper::Reaper;
use crate::server::ServerAddress;
use crate::start::{self, Choices, Compiling};
use crate::tee::Platform;
use crate::zygote::Zygote;
use crate::{audit, descriptors, rest, server, sys};

const SUBSYSTEM: &str = "main";
const FAILURE: i32 = 1;

/// The whole program. Returns the exit status.
pub(crate) fn run() -> i32 {
    sys::pipes::ignore_broken();
    let args = match Args::parse_from_words(std::env::args_os()) {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return error.exit_code();
        }
    };
    if args.version {
        return i32::from(writeln!(std::io::stdout(), "{}", version_line()).is_err());
    }
    let log = Log::console();
    let outcome = serve(&args, &log);
    if let Err(error) = &outcome {
        log.fail(Level::Critical, SUBSYSTEM, "failed", error);
    }
    log.flush(std::time::Duration::from_secs(2));
    if outcome.is_ok() { 0 } else { FAILURE }
}

fn serve(args: &Args, log: &Log) -> Result<(), AgentError> {
    // Before anything else, and before there is a second thread.
    let zygote = zygote(log)?;
    sys::allocator::bound_heaps();
    descriptors::raise()?;
    harden_process()?;
    let platform = Platform::detect()?;
    let tee_active = platform.sign().is_some();
    check_policy_argument(tee_active, args.policy.as_deref())?;
    let line = command_line(&args.server_addr)?;
    if let Some(level) = line.log_level {
        log.set_level(level);
    }
    log.info(SUBSYSTEM, "innerkeep-agent starts", &[(Key::Tee, platform.name().into())]);
    pid1::report_words(log, &line);
    // Elsewhere every disk of somebody's machine would be looked into.
    let modes = InsecureModes::default();
    let initdata = if tee_active { pid1::bind_initdata(log, &platform, &modes)? } else { None };
    if let Some(initdata) = &initdata {
        start::write_guest_files(initdata)?;
    }
    log.write_behind()?;
    let policy = Compiling::begin(tee_active, initdata.as_ref(), args.policy.as_deref())?;
    let runtime = server::runtime()?;
    runtime.block_on(async {
        let (stopper, stop) = server::stop_on_signals(log)?;
        let reaper = Arc::new(Reaper::start(log)?);
        let attester = platform.attester().cloned();
        let choices = Choices {
            policy,
            attester: attester.clone(),
            passfd_port: line.passfd_port.unwrap_or_default(),
            pipe_size: line.pipe_size.unwrap_or_default(),
            ..Choices::default()
        };
        let nursery = zygote.map(Zygote::watch).transpose()?.map(Arc::new);
        let engine = start::engine(nursery.as_ref(), &reaper, log)?;
        let agent = start::agent(log, tee_active, initdata, reaper, engine, choices, stopper)?;
        if let Some(attester) = attester {
            audit::attest(&agent, attester);
        }
        rest::begin(&agent).await?;
        let served = async {
            let served = server::serve(&args.server_addr, &agent, stop).await;
            // The machine goes on: containers do not, nor what they share. The host may have ended them already.
            let _ = agent.sandbox.destroy(&agent).await;
            served
        };
        match &nursery {
            Some(nursery) => nursery.outlive(served).await,
            None => served.await,
        }
    })
}

/// What the runtime says on the kernel's command line: it concerns nobody who serves a socket.
fn command_line(address: &ServerAddress) -> Result<CommandLine, AgentError> {
    match address {
        ServerAddress::Vsock { .. } => pid1::command_line(),
        ServerAddress::Unix(_) => Ok(CommandLine::default()),
    }
}

/// Whether a policy of the command line may count: in a TEE it is one that initdata binds, or the measured image holds.
fn check_policy_argument(tee_active: bool, policy: Option<&Path>) -> Result<(), AgentError> {
    // GUARD: policy-argument-off-tee -> evil_image_policy_argument_in_a_tee
    if tee_active && policy.is_some() {
        return Err(AgentError::PolicyArgument);
    }
    Ok(())
}

/// The zygote. Who may not mount has none, and makes no containers: everybody else has one.
fn zygote(log: &Log) -> Result<Option<Zygote>, AgentError> {
    match Zygote::start() {
        Ok(zygote) => Ok(Some(zygote)),
        Err(AgentError::Zygote { source, .. }) if source.kind() == ErrorKind::PermissionDenied => {
            log.warn(SUBSYSTEM, "no privileges: no containers can be made", &[]);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evil_image_policy_argument_in_a_tee() {
        let policy = Some(Path::new("/etc/policy.rego"));
        let error = check_policy_argument(true, policy).unwrap_err();
        assert_eq!(error.code(), "AGENT_POLICY_ARGUMENT");
        check_policy_argument(true, None).unwrap();
        check_policy_argument(false, policy).unwrap();
    }
}
