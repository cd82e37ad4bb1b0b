//! `passfd`: streams on sockets of their own. The host connects to a port of the guest before it creates a process, and names
//! the connection in its request by the port that it connected from.
//!
//! Only the host is let in: a container shares the guest's vsock. Connections that nobody asks for are closed after a while, and
//! there are never more than a few.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener};

use crate::log::{Key, Level, Log, Value};
use crate::streams::StreamError;
use crate::streams::port::Port;

const SUBSYSTEM: &str = "passfd";
/// Connections that wait for their request. A process has three.
pub const MAXIMUM_WAITING: usize = 64;
/// How long a connection waits for its request: the longest that runtimes give to one by default.
pub const WAITING: Duration = Duration::from_secs(60);
/// How long a request waits for its connections.
pub const ARRIVING: Duration = Duration::from_millis(300);
/// After an error of accept(2).
const RECOVERY: Duration = Duration::from_millis(50);

/// The ports that a request names; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// Of standard input.
    pub stdin: u32,
    /// Of standard output.
    pub stdout: u32,
    /// Of standard error.
    pub stderr: u32,
}

impl Ports {
    /// Whether the request names any: then its streams go by sockets, and requests do not read them.
    #[must_use]
    pub const fn is_any(self) -> bool {
        self.stdin != 0 || self.stdout != 0 || self.stderr != 0
    }
}

/// What policy permits of a process's streams, whichever way they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permits {
    /// Standard input may be written.
    pub write: bool,
    /// Standard output and error may be read.
    pub read: bool,
}

/// Connections of the host for one process.
#[derive(Debug, Default)]
pub struct HostSockets {
    pub(super) stdin: Option<Port>,
    pub(super) stdout: Option<Port>,
    pub(super) stderr: Option<Port>,
}

impl HostSockets {
    /// Of sockets that are connected already. To be called inside a runtime.
    ///
    /// # Errors
    /// `STREAM_SYSTEM`.
    pub fn new(
        stdin: Option<OwnedFd>,
        stdout: Option<OwnedFd>,
        stderr: Option<OwnedFd>,
    ) -> Result<Self, StreamError> {
        let port = |socket: Option<OwnedFd>| socket.map(Port::new).transpose();
        Ok(Self { stdin: port(stdin)?, stdout: port(stdout)?, stderr: port(stderr)? })
    }

    /// Without those that policy does not permit.
    pub(super) fn permitted(mut self, permits: Permits) -> Self {
        // GUARD: passfd-input-permitted -> evil_host_passfd_around_the_policy
        if !permits.write {
            self.stdin = None;
        }
        // GUARD: passfd-output-permitted -> evil_host_passfd_around_the_policy
        if !permits.read {
            (self.stdout, self.stderr) = (None, None);
        }
        self
    }
}

/// The listener. Dropped, it listens no more.
#[derive(Debug)]
pub struct Passfd {
    waiting: Arc<Waiting>,
    task: JoinHandle<()>,
}

impl Passfd {
    /// Listens on a port of every CID of the guest. To be called inside a runtime.
    ///
    /// # Errors
    /// `STREAM_SYSTEM`.
    pub fn listen(port: u32, log: &Log) -> Result<Self, StreamError> {
        let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port))
            .map_err(StreamError::system("listen for streams"))?;
        let (waiting, log) = (Arc::<Waiting>::default(), log.clone());
        let task = tokio::spawn(accept(listener, Arc::clone(&waiting), log));
        Ok(Self { waiting, task })
    }

    /// The connections that a request names. One that has not come within [`ARRIVING`] is absent.
    ///
    /// # Errors
    /// `STREAM_SYSTEM`.
    pub async fn take(&self, ports: Ports) -> Result<HostSockets, StreamError> {
        let until = Instant::now() + ARRIVING;
        let stdin = self.waiting.take(ports.stdin, until).await;
        let stdout = self.waiting.take(ports.stdout, until).await;
        let stderr = self.waiting.take(ports.stderr, until).await;
        HostSockets::new(stdin, stdout, stderr)
    }
}

impl Drop for Passfd {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: VsockListener, waiting: Arc<Waiting>, log: Log) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = tokio::time::sleep(WAITING) => {
                waiting.expire();
                continue;
            }
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Err(refusal) = waiting.admit(peer, stream.into()) {
                    log.warn(SUBSYSTEM, refusal, &[]);
                }
            }
            Err(error) => {
                let fields = [(Key::Error, Value::shown(&error.to_string()))];
                log.say(Level::Error, SUBSYSTEM, "accept failed", &fields);
                tokio::time::sleep(RECOVERY).await;
            }
        }
    }
}

/// Connections without a request, by the port that they came from.
#[derive(Debug, Default)]
struct Waiting {
    table: Mutex<HashMap<u32, (Instant, OwnedFd)>>,
    came: Notify,
}

impl Waiting {
    /// Takes a connection into the table, or closes it and says why.
    fn admit(&self, peer: VsockAddr, socket: OwnedFd) -> Result<(), &'static str> {
        // GUARD: passfd-host-only -> evil_peer_connects_passfd_port_from_another_cid
        if peer.cid() != VMADDR_CID_HOST {
            return Err("a stream of a peer that is not the host was refused");
        }
        self.expire();
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        // GUARD: passfd-bounded -> evil_host_opens_streams_that_nobody_names
        if table.len() >= MAXIMUM_WAITING {
            return Err("too many streams wait for their process, one was refused");
        }
        table.insert(peer.port(), (Instant::now(), socket));
        drop(table);
        self.came.notify_waiters();
        Ok(())
    }

    /// Closes what has waited too long.
    fn expire(&self) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.retain(|_, (since, _)| since.elapsed() < WAITING);
    }

    async fn take(&self, port: u32, until: Instant) -> Option<OwnedFd> {
        if port == 0 {
            return None;
        }
        loop {
            // Before the look, so that nothing comes unseen in between.
            let came = self.came.notified();
            let found = self.table.lock().unwrap_or_else(PoisonError::into_inner).remove(&port);
            if let Some((_, socket)) = found {
                return Some(socket);
            }
            tokio::time::timeout_at(until, came).await.ok()?;
        }
    }
}

#[cfg(test)]
mod tests;
