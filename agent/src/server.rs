//! The served port: who may connect, and what a connection may cost.
//!
//! ```text
//!  vsock, any CID, port 1024 ─accept─▶ is it the host (CID 2)? ─▶ a place? ─▶ Guarded ─▶ ttrpc ─▶ services
//!  unix:// (not as PID 1)    ─accept─▶ this user or root, beside us? ──┘
//! ```
//! A container shares the guest's vsock and may reach this port by the local CID: it is not served.

mod address;
mod guarded;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

pub use address::ServerAddress;
use attestation_agent::service::{Peer, Placement, bind_socket, serve_connection};
pub use guarded::{Guarded, Limits};
use protocol::{
    Refused, admitted, agent::create_agent_service, health::create_health, innerkeep::create_audit_service,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener};
use ttrpc::asynchronous::Service;

use crate::audit_service::AuditService;
use crate::context::Agent;
use crate::error::AgentError;
use crate::health::Health;
use crate::log::{Key, Level, Log, Value};
use crate::rpc;
use crate::vsock::Pieces;

const SUBSYSTEM: &str = "server";
/// Connections at one time. Runtimes hold one, tools two.
const MAXIMUM_CONNECTIONS: usize = 64;
const WORKERS: usize = 2;
/// Mode of a Unix socket: for this user alone.
const SOCKET_MODE: u32 = 0o600;
/// How long answers that are ready have to leave when the server stops.
const LAST_ANSWERS: Duration = Duration::from_millis(200);

/// Becomes true when the server is to stop.
pub type Stop = watch::Receiver<bool>;

/// Ends the agent: its server first.
#[derive(Clone, Debug)]
pub struct Stopper(Arc<watch::Sender<bool>>);

impl Stopper {
    /// One, and what it stops.
    #[must_use]
    pub fn new() -> (Self, Stop) {
        let (sender, stop) = watch::channel(false);
        (Self(Arc::new(sender)), stop)
    }

    /// Calls that are under way are answered, if they are quick.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

/// Stops on SIGTERM, SIGINT and SIGHUP. Has to be called inside a runtime.
///
/// # Errors
/// `AGENT_SYSTEM`.
pub fn stop_on_signals(log: &Log) -> Result<(Stopper, Stop), AgentError> {
    let listen = |kind| signal(kind).map_err(AgentError::system("listen for signals"));
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut hangup = listen(SignalKind::hangup())?;
    let (stopper, stop) = Stopper::new();
    let (own, log) = (stopper.clone(), log.clone());
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            _ = hangup.recv() => "SIGHUP",
        };
        log.info(SUBSYSTEM, "stopping", &[(Key::Signal, name.into())]);
        own.stop();
    });
    Ok((stopper, stop))
}

/// The runtime that everything asynchronous of this process runs on.
///
/// # Errors
/// `AGENT_SYSTEM`.
pub fn runtime() -> Result<tokio::runtime::Runtime, AgentError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .map_err(AgentError::system("start the runtime"))
}

/// Serves until `stop` says so. Connections are ended then.
///
/// # Errors
/// `AGENT_LISTEN`, `ATTEST_SOCKET`.
pub(crate) async fn serve(
    address: &ServerAddress,
    agent: &Arc<Agent>,
    mut stop: Stop,
) -> Result<(), AgentError> {
    let log = &agent.log;
    let listener = Listener::bind(address)?;
    log.info(SUBSYSTEM, "serving", &[(Key::Address, Value::shown(&address.to_string()))]);
    let (limits, places) = (Limits::default(), Arc::new(Semaphore::new(MAXIMUM_CONNECTIONS)));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok(Ok(stream)) => stream,
            Ok(Err(Stranger)) => {
                log.warn(SUBSYSTEM, "a peer that is not the host was not served", &[]);
                continue;
            }
            Err(error) => {
                // Out of descriptors, say: connections that end will free some.
                let fields = [(Key::Error, Value::shown(&error.to_string()))];
                log.say(Level::Error, SUBSYSTEM, "accept failed", &fields);
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            log.warn(SUBSYSTEM, "too many connections, one was not served", &[]);
            continue;
        };
        let (limits, services) = (limits.clone(), services(agent));
        connections.spawn(async move {
            serve_connection(Guarded::new(stream, limits), services).await;
            drop(place);
        });
    }
    listener.close();
    // Who asked for the end hears that it came.
    tokio::time::sleep(LAST_ANSWERS).await;
    connections.shutdown().await;
    Ok(())
}

/// What there is.
fn services(agent: &Arc<Agent>) -> HashMap<String, Service> {
    let mut services = create_health(Arc::new(Health));
    services.extend(create_agent_service(Arc::new(rpc::Service(Arc::clone(agent)))));
    services.extend(create_audit_service(Arc::new(AuditService(Arc::clone(agent)))));
    let own = Arc::clone(agent);
    let refused: Refused = Arc::new(move |endpoint, error| own.gate.refused_by_limits(endpoint, &error));
    admitted(services, &refused)
}

/// Not somebody to be served.
#[derive(Debug)]
struct Stranger;

/// A connection of either kind.
trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for S {}

enum Listener {
    Unix(UnixListener, String),
    Vsock(VsockListener),
}

impl Listener {
    fn bind(address: &ServerAddress) -> Result<Self, AgentError> {
        match address {
            ServerAddress::Unix(path) => {
                let listener = bind_socket(path, SOCKET_MODE)?;
                Ok(Self::Unix(listener, path.to_string_lossy().into_owned()))
            }
            ServerAddress::Vsock { port } => VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, *port))
                .map(Self::Vsock)
                .map_err(|source| AgentError::Listen { address: address.to_string(), source }),
        }
    }

    /// Nobody connects any more. A socket that was made is taken away.
    fn close(self) {
        if let Self::Unix(listener, path) = self {
            drop(listener);
            let _ = std::fs::remove_file(path);
        }
    }

    async fn accept(&self) -> io::Result<Result<Box<dyn Stream>, Stranger>> {
        match self {
            Self::Unix(listener, path) => {
                let (stream, _) = listener.accept().await?;
                Ok(may_connect_locally(&stream, path).map(|()| -> Box<dyn Stream> { Box::new(stream) }))
            }
            Self::Vsock(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok(is_host(peer).map(|()| -> Box<dyn Stream> { Box::new(Pieces(stream)) }))
            }
        }
    }
}

fn is_host(peer: VsockAddr) -> Result<(), Stranger> {
    // GUARD: vsock-host-only -> evil_container_connects_by_the_local_cid
    if peer.cid() != VMADDR_CID_HOST {
        return Err(Stranger);
    }
    Ok(())
}

fn may_connect_locally(stream: &UnixStream, path: &str) -> Result<(), Stranger> {
    let peer = Peer::of(stream, path).map_err(|_| Stranger)?;
    is_local(&peer, rustix::process::geteuid().as_raw())
}

fn is_local(peer: &Peer, own_uid: u32) -> Result<(), Stranger> {
    // GUARD: unix-own-user -> evil_user_connects_to_the_agent
    if peer.uid != own_uid && peer.uid != 0 {
        return Err(Stranger);
    }
    // GUARD: unix-never-a-container -> evil_container_connects_to_the_agent
    if peer.placement != Placement::Image {
        return Err(Stranger);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
