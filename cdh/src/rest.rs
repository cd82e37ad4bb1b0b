//! The REST front: upstream's routes for containers, on loopback. Each route is off for each container unless bound configuration lists it.
//!
//! ```text
//!  127.0.0.1:8006 ─accept─▶ Peers: which container (the kernel's word) ─▶ one request ─▶ listed for it? Rule? ─▶ BackEnd: hub, attester
//!  socket of one container ─┘
//! ```
//! A request is one connection: who asks is looked up when it is accepted and again before it is answered, and nothing else says who it is.
//! No private key is ever an answer, and evidence is about report data of the container that asks, never about bytes of its choice:
//! `SHA-512("innerkeep workload evidence v1" ‖ identity of the container (32 bytes) ‖ SHA-512(runtime data))`.
//!
//! | request | 200 |
//! |---|---|
//! | `GET /info` | JSON `{"version","tee"?,"additional_tees"?,"feature"}` |
//! | `GET /aa/evidence?runtime_data=…[&encoding=base64]` | evidence, JSON as octets |
//! | `GET /aa/additional-evidence?runtime_data=…[&encoding=base64]` | evidence of devices, JSON as octets, empty without any |
//! | `POST /aa/aael` with `{"domain","operation","content"}` | JSON `{"success":"true"}`, or `"false"` and a message |
//! | `GET /cdh/resource/REPOSITORY/TYPE/TAG` | the secret |
//! | `GET /aa/token` | never: 403 `REST_TOKEN_KEY` |
//!
//! Everything else is JSON `{"error":CODE,"message":TEXT}`; see [`RestError::status`].

mod answer;
mod backend;
mod error;
mod intake;
pub mod peers;
pub mod program;
pub mod query;
mod reply;
mod route;
mod rule;

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use attestation_agent::report_data::WorkloadIdentity;
use attestation_agent::service::{QueueLimits, Queues, bind_socket};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;

use crate::config::RestAllow;
use crate::hub_error::HubError;
pub use backend::{BackEnd, Event, Measured, ThisGuest, event_register};
pub use error::RestError;
pub use intake::{Asked, BODY_DEADLINE, HEAD_DEADLINE, Reader, read_one};
use peers::{ContainerId, Peers};
pub use route::{Feature, Route};
pub use rule::{ListAlone, Rule};

/// Where it listens unless asked otherwise.
pub const DEFAULT_ADDRESS: &str = "127.0.0.1:8006";
/// Connections at one time.
const MAXIMUM_CONNECTIONS: usize = 64;
/// Processes are looked through for so many connections at a time.
const MAXIMUM_LOOKUPS: usize = 2;
/// What one container may ask for; those that nobody knows are one.
const LIMITS: QueueLimits = QueueLimits { at_once: 4, queued: 8, connections: 16 };
/// How long a request may take. Upstream waits 50 seconds.
const DEADLINE: Duration = Duration::from_secs(45);
/// How long a connection may take, the reading of its answer included.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(75);

/// What the process was started with. It never permits what bound configuration does not list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Features {
    /// `/cdh/…` and `/info`.
    #[default]
    Resource,
    /// `/aa/…` and `/info`.
    Attestation,
    /// Both.
    All,
}

impl Features {
    /// Upstream's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Resource => "resource",
            Self::Attestation => "attestation",
            Self::All => "all",
        }
    }

    const fn attests(self) -> bool {
        !matches!(self, Self::Resource)
    }

    fn require(self, route: &Route) -> Result<(), RestError> {
        match route.feature() {
            Some(Feature::Attestation) if !self.attests() => {
                Err(RestError::Feature { expected: "attestation" })
            }
            Some(Feature::Resource) if self == Self::Attestation => {
                Err(RestError::Feature { expected: "resource" })
            }
            _ => Ok(()),
        }
    }
}

/// How a connection came.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    /// By TCP.
    Tcp {
        /// The other end.
        peer: SocketAddr,
        /// This end.
        local: SocketAddr,
    },
    /// By the socket of one container.
    Socket(ContainerId),
}

impl Way {
    const fn local(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp { local, .. } => Some(*local),
            Self::Socket(_) => None,
        }
    }

    fn require_loopback(&self) -> Result<(), RestError> {
        match self {
            Self::Tcp { peer, local } if ![peer, local].into_iter().all(is_loopback) => {
                Err(RestError::PeerRemote)
            }
            _ => Ok(()),
        }
    }
}

fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// The front of one guest.
pub struct Front {
    allow: Vec<RestAllow>,
    features: Features,
    back_end: Arc<dyn BackEnd>,
    peers: Arc<dyn Peers>,
    rule: Arc<dyn Rule>,
    queues: Queues,
    places: Arc<Semaphore>,
    lookups: Arc<Semaphore>,
    reader: Option<Arc<dyn Reader>>,
    head: Duration,
}

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Front")
            .field("allow", &self.allow)
            .field("features", &self.features)
            .finish_non_exhaustive()
    }
}

impl Front {
    /// The front with `innerkeep.rest` of bound configuration.
    #[must_use]
    pub fn new(
        allow: Vec<RestAllow>,
        features: Features,
        back_end: Arc<dyn BackEnd>,
        peers: Arc<dyn Peers>,
    ) -> Self {
        Self {
            allow,
            features,
            back_end,
            peers,
            rule: Arc::new(ListAlone),
            queues: Queues::new(LIMITS),
            places: Arc::new(Semaphore::new(MAXIMUM_CONNECTIONS)),
            lookups: Arc::new(Semaphore::new(MAXIMUM_LOOKUPS)),
            reader: None,
            head: HEAD_DEADLINE,
        }
    }

    /// With this rule beside the list.
    #[must_use]
    pub fn with_rule(self, rule: Arc<dyn Rule>) -> Self {
        Self { rule, ..self }
    }

    /// With this to read requests, in the place of this process.
    #[must_use]
    pub fn with_reader(self, reader: Arc<dyn Reader>) -> Self {
        Self { reader: Some(reader), ..self }
    }

    /// Listens on a loopback address.
    ///
    /// # Errors
    ///
    /// `REST_BIND_PLACE`, `REST_BIND`.
    pub async fn listen(address: SocketAddr) -> Result<TcpListener, RestError> {
        // GUARD: rest-bind-loopback -> evil_host_opens_the_front_to_the_network
        if !is_loopback(&address) {
            return Err(RestError::BindPlace { found: address.to_string() });
        }
        let bound = TcpListener::bind(address).await;
        bound.map_err(|source| RestError::Bind { address: address.to_string(), source })
    }

    /// Serves connections of TCP until `stop` is done.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        loop {
            let accepted = tokio::select! {
                () = &mut stop => return,
                accepted = listener.accept() => accepted,
            };
            let way = accepted
                .and_then(|(stream, peer)| Ok((Way::Tcp { peer, local: stream.local_addr()? }, stream)));
            match way {
                Ok((way, stream)) => Arc::clone(&self).begin(stream, way),
                // Out of descriptors, say: connections that end will free some.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Makes the socket of one container, for everybody who sees its path: mount it into that container alone.
    ///
    /// # Errors
    ///
    /// `CDH_SOCKET`.
    pub fn socket(path: &Path) -> Result<UnixListener, RestError> {
        Ok(bind_socket(path, 0o666).map_err(HubError::from)?)
    }

    /// Serves the socket of one container until `stop` is done: who comes by it is that container.
    pub async fn serve_socket(
        self: Arc<Self>,
        listener: UnixListener,
        container: ContainerId,
        stop: impl Future<Output = ()>,
    ) {
        tokio::pin!(stop);
        loop {
            let accepted = tokio::select! {
                () = &mut stop => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => Arc::clone(&self).begin(stream, Way::Socket(container.clone())),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// One connection, in a task of its own, if there is a place for it.
    fn begin<S>(self: Arc<Self>, stream: S, way: Way)
    where
        S: AsyncRead + AsyncWrite + AsFd + Send + Unpin + 'static,
    {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { return };
        tokio::spawn(async move {
            let _ = tokio::time::timeout(CONNECTION_DEADLINE, self.connection(stream, way)).await;
            drop(place);
        });
    }

    async fn connection<S>(self: Arc<Self>, mut stream: S, way: Way)
    where
        S: AsyncRead + AsyncWrite + AsFd + Send + Unpin + 'static,
    {
        let container = self.who(&way).await;
        let nobody = || WorkloadIdentity::of("nobody", 0, "");
        let queue = self.queues.of(container.as_ref().map_or_else(nobody, ContainerId::identity));
        let connection = queue.connection();
        // GUARD: rest-connections -> evil_container_takes_every_connection
        if connection.is_none() {
            return;
        }
        // One request: the next one may be another's.
        let asked = match &self.reader {
            None => read_one(&mut stream, self.head).await,
            Some(reader) => match stream.as_fd().try_clone_to_owned() {
                Ok(own) => reader.read(own).await,
                Err(_) => None,
            },
        };
        if let Some(asked) = asked {
            let reply = self.answer(&asked, &way, container.as_ref()).await;
            reply.send(&mut stream, &asked.method).await;
        }
        drop(connection);
    }

    /// Who is at the other end.
    async fn who(&self, way: &Way) -> Option<ContainerId> {
        let (peer, local) = match way {
            Way::Socket(container) => return Some(container.clone()),
            Way::Tcp { peer, local } => (*peer, *local),
        };
        let place = Arc::clone(&self.lookups).acquire_owned().await.ok()?;
        let peers = Arc::clone(&self.peers);
        let lookup = move || {
            let found = peers.container_of(peer, local);
            drop(place);
            found
        };
        tokio::task::spawn_blocking(lookup).await.ok()?
    }
}

/// What a request line asks for, for whoever wants to feed the readers: the route, and its runtime data if it takes any.
///
/// # Errors
///
/// As [`Route::parse`], [`Route::require_method`], [`query::Query::parse`].
pub fn read_request(
    method: &str,
    path: &str,
    query: Option<&str>,
) -> Result<(Route, Option<Vec<u8>>), RestError> {
    let route = Route::parse(path)?;
    route.require_method(method)?;
    let query = query::Query::parse(query)?;
    let takes_data = matches!(route, Route::Evidence | Route::AdditionalEvidence);
    let data = takes_data.then(|| query.runtime_data()).transpose()?;
    Ok((route, data))
}

#[cfg(test)]
mod tests;
