//! The REST front for containers in this process: upstream's loopback address, where bound configuration lists a route for somebody.
//!
//! ```text
//!  container ─127.0.0.1:8006─▶ agent accepts, and asks the kernel who it is ─▶ a helper without rights reads one request
//!            ◀── answer, written by the agent ── hub, attester ◀─ listed? Askers ◀──────────────────┘
//! ```
//! The listening socket is the agent's for as long as it lives, so that no container takes the port.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use async_trait::async_trait;
use cdh::rest::peers::{Peers, ProcPeers};
use cdh::rest::{Asked, Features, Front, Reader, RestError, ThisGuest};

use crate::context::Agent;
use crate::error::AgentError;
use crate::hub::DataHub;
use crate::log::{Key, Value};
use crate::sealed::Askers;

const SUBSYSTEM: &str = "rest";
/// Where upstream's clients look for it.
const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8006);

/// Serves containers, if bound configuration lists anything for one.
///
/// # Errors
/// `REST_BIND`: an agent that went on would do without what its operator configured.
pub(crate) async fn begin(agent: &Arc<Agent>) -> Result<(), AgentError> {
    let peers = ProcPeers::new(&agent.roots.proc, Arc::clone(agent.askers.known()) as _);
    let Some(front) = front(agent.secrets.hub(), &agent.askers, Arc::new(peers)) else { return Ok(()) };
    // Without helpers there are no containers, and nobody who reads what they ask.
    if !agent.engine.is_available() {
        return Ok(());
    }
    let front = front.with_reader(Arc::new(Helpers(Arc::clone(agent))));
    let bound = serve(front, ADDRESS).await?;
    let fields = [(Key::Address, Value::shown(&bound.to_string()))];
    agent.log.info(SUBSYSTEM, "serving what bound configuration lists for containers", &fields);
    Ok(())
}

/// Requests are read by helpers, one for each connection.
struct Helpers(Arc<Agent>);

#[async_trait]
impl Reader for Helpers {
    async fn read(&self, connection: OwnedFd) -> Option<Asked> {
        // What is wrong with a connection is its peer's to know.
        self.0.engine.read_request(connection).await.ok()
    }
}

/// The front of this guest, if there is anything to serve.
fn front(hub: &DataHub, askers: &Askers, peers: Arc<dyn Peers>) -> Option<Front> {
    let parts = hub.for_containers()?;
    let back_end = Arc::new(ThisGuest::new(parts.hub, parts.attester, parts.register));
    // What is listed is served: nobody else says which features there are.
    let front = Front::new(parts.allow, Features::All, back_end, peers);
    Some(front.with_rule(Arc::new(askers.clone())))
}

/// Listens, and serves until the runtime ends.
async fn serve(front: Front, address: SocketAddr) -> Result<SocketAddr, RestError> {
    let listener = Front::listen(address).await?;
    let bound = listener.local_addr().unwrap_or(address);
    tokio::spawn(Arc::new(front).serve(listener, std::future::pending()));
    Ok(bound)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Serves on a port of its own.
    pub(crate) async fn serve_for_test(hub: &DataHub, askers: &Askers, peers: Arc<dyn Peers>) -> SocketAddr {
        let address = SocketAddr::new(ADDRESS.ip(), 0);
        serve(front(hub, askers, peers).expect("something is listed"), address).await.unwrap()
    }

    #[tokio::test]
    async fn evil_host_front_for_whom_nothing_is_listed() {
        let directory = tempfile::tempdir().unwrap();
        let agent = Arc::new(Agent::for_test(directory.path(), false));
        let peers = ProcPeers::new("/proc", Arc::clone(agent.askers.known()) as _);
        assert!(front(agent.secrets.hub(), &agent.askers, Arc::new(peers)).is_none());
        begin(&agent).await.unwrap();
        let hub = crate::hub::tests::offline(directory.path(), b"x", true);
        assert!(hub.for_containers().is_none() && !hub.is_asked_by_containers());
    }
}
