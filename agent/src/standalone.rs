//! The program where another process is the first: on a developer's machine, or started by an init system.
//!
//! It serves the port and nothing else of what [`crate::pid1`] does: the machine is somebody else's.

use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::sync::Arc;

use protected_memory::harden::harden_process;

use crate::args::{Args, version_line};
use crate::error::AgentError;
use crate::log::{Level, Log};
use crate::reaper::Reaper;
use crate::start::{self, Choices};
use crate::tee::Platform;
use crate::zygote::Zygote;
use crate::{audit, server, sys};

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
    harden_process()?;
    let platform = Platform::detect()?;
    let tee_active = platform.sign().is_some();
    check_policy_argument(tee_active, args.policy.as_deref())?;
    log.write_behind()?;
    let runtime = server::runtime()?;
    runtime.block_on(async {
        let (stopper, stop) = server::stop_on_signals(log)?;
        let reaper = Arc::new(Reaper::start(log)?);
        let choices = Choices { policy: args.policy.as_deref(), ..Choices::default() };
        let nursery = zygote.map(Zygote::watch).transpose()?.map(Arc::new);
        let engine = start::engine(nursery.as_ref(), &reaper, log)?;
        let agent = start::agent(log, tee_active, None, reaper, engine, choices, stopper)?;
        if let Platform::Tee(attester) = platform {
            audit::attest(&agent.audit, Arc::new(attester), log);
        }
        let served = server::serve(&args.server_addr, &agent, stop);
        match &nursery {
            Some(nursery) => nursery.outlive(served).await,
            None => served.await,
        }
    })
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
