//! A process of a container: how it is signalled, its streams, its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use protocol::ids::ExecId;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use tokio::sync::watch;

use crate::reaper::{Admitted, Ended, Handle};
use crate::streams::Streams;

/// Processes of one container that are known at one time, those whose end nobody asked for included.
pub(crate) const MAXIMUM_PROCESSES: usize = 512;
/// Ended processes of one container whose status somebody took and that stay to be asked again.
pub(crate) const MAXIMUM_REMEMBERED: usize = 32;

/// A process that was started for the runtime. Its status is kept until the container is removed, or until more than
/// [`MAXIMUM_REMEMBERED`] others ended and were asked for.
#[derive(Debug)]
pub(crate) struct Process {
    exec: Option<ExecId>,
    handle: Handle,
    streams: Arc<Streams>,
    ended: watch::Receiver<Option<Ended>>,
    taken: AtomicBool,
}

impl Process {
    /// Takes over a process that the engine made. To be called inside a runtime: a task of its own waits for the end.
    pub(crate) fn adopt(exec: Option<ExecId>, made: Admitted, streams: Streams) -> Self {
        let (handle, streams) = (made.handle(), Arc::new(streams));
        let (end, ended) = watch::channel(None);
        let told = Arc::clone(&streams);
        tokio::spawn(async move {
            let how = made.await;
            told.process_ended();
            end.send_replace(how);
        });
        Self { exec, handle, streams, ended, taken: AtomicBool::new(false) }
    }

    /// One whose end the test decides.
    #[cfg(test)]
    pub(super) fn watched(
        exec: Option<ExecId>,
        handle: Handle,
        streams: Arc<Streams>,
        ended: watch::Receiver<Option<Ended>>,
    ) -> Self {
        Self { exec, handle, streams, ended, taken: AtomicBool::new(false) }
    }

    /// Its id; the first process of a container may have none.
    pub(crate) fn exec(&self) -> Option<&ExecId> {
        self.exec.as_ref()
    }

    /// Its number in the guest. Only while it runs it is this process's.
    pub(crate) fn pid(&self) -> Pid {
        self.handle.process()
    }

    /// Its standard streams.
    pub(crate) fn streams(&self) -> &Streams {
        &self.streams
    }

    /// Whether it runs; then its number was its own until now.
    pub(crate) fn is_alive(&self) -> bool {
        let Some(descriptor) = self.handle.pidfd() else { return false };
        let mut polled = [PollFd::new(&descriptor, PollFlags::IN)];
        poll(&mut polled, Some(&Timespec::default())) == Ok(0)
    }

    /// Sends a signal to it, or to nobody.
    ///
    /// # Errors
    /// `ESRCH` if it ended.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Errno> {
        self.handle.signal(signal)
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&self) -> Option<Ended> {
        *self.ended.borrow()
    }

    /// Waits for its end alone.
    ///
    /// `None` if the agent stopped waiting for children.
    pub(crate) async fn end(&self) -> Option<Ended> {
        let mut ended = self.ended.clone();
        ended.wait_for(Option::is_some).await.ok().and_then(|ended| *ended)
    }

    /// Waits for its end, and until sockets of the host have its output; remembers that somebody was told. Any number may wait,
    /// at any time; one that is dropped takes nothing away.
    ///
    /// `None` if the agent stopped waiting for children.
    pub(crate) async fn wait(&self) -> Option<Ended> {
        let found = self.end().await?;
        self.streams.output_copied().await;
        self.taken.store(true, Ordering::Release);
        Some(found)
    }

    /// Whether it ended and somebody was told how: its id may be used again.
    pub(crate) fn is_settled(&self) -> bool {
        self.taken.load(Ordering::Acquire) && self.ended().is_some()
    }
}
