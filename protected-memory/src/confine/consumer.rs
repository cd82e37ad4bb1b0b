//! Running the consumer.

use std::io;
use std::process::{Child, Command, ExitStatus};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, getpid, pidfd_open};

use super::{ConfineError, PrivateNamespaces};
use crate::sys::child::confine;
use crate::sys::signals::{SignalSet, read_signal, send_signal};

impl PrivateNamespaces {
    /// Runs a command as the consumer and waits for its end: in nested user and mount namespaces, with no capability
    /// and no way to gain one, no core dump, and no descriptor but standard input, output and error.
    ///
    /// It is killed when the calling *thread* dies. While it runs, SIGTERM, SIGHUP, SIGINT and SIGQUIT that another
    /// process sends to this thread's process are passed on to it (a terminal sends them to both itself), so that the
    /// caller lives to wipe. That works when no other thread takes them: run it when the others have ended.
    ///
    /// # Errors
    ///
    /// [`ConfineError::Start`] if the confinement or the exec fails; nothing ran then.
    pub fn run(&self, mut command: Command) -> Result<ExitStatus, ConfineError> {
        let wait = |step| move |source| ConfineError::Wait { step, source };
        let program = command.get_program().into();
        let namespace =
            self.consumer_user_namespace.try_clone().map_err(wait("copy of the namespace's descriptor"))?;
        let signals = SignalSet::ending();
        let mask = signals.block().map_err(wait("blocking of signals"))?;
        confine(&mut command, namespace, getpid(), mask);
        let result = match command.spawn() {
            Ok(child) => wait_and_forward(child, &signals).map_err(wait("waiting")),
            Err(source) => Err(ConfineError::Start { program, source }),
        };
        mask.install().map_err(wait("restoring of the signal mask"))?;
        result
    }
}

fn wait_and_forward(mut child: Child, signals: &SignalSet) -> io::Result<ExitStatus> {
    let result = forward_until_exit(&child, signals);
    if result.is_err() {
        // Never leave it running unwatched.
        let _ = child.kill();
    }
    let status = child.wait()?;
    result.map(|()| status)
}

fn forward_until_exit(child: &Child, signals: &SignalSet) -> io::Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    let arrived = signals.descriptor()?;
    loop {
        let mut events = [PollFd::new(&process, PollFlags::IN), PollFd::new(&arrived, PollFlags::IN)];
        match poll(&mut events, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [exited, _] = events.map(|event| !event.revents().is_empty());
        while let Some(signal) = read_signal(&arrived)? {
            if signal.sent_by_process {
                // Fails only if the process has just ended.
                let _ = send_signal(&process, signal.number);
            }
        }
        if exited {
            return Ok(());
        }
    }
}
