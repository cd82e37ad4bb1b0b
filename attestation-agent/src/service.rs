//! The ttrpc service of the attestation agent: who asks, what they may, and the answers of the protocol.
//!
//! ```text
//!  socket ─accept─▶ Peer (uid, cgroup, namespaces: the kernel's word) ─▶ ttrpc on this one connection
//!                                                    request ─▶ AccessRules ─▶ Queue ─▶ thread: Attester
//! ```
//! Every connection is served by an object of its own that knows its peer: no request can speak for another.

mod access;
mod answer;
mod connection;
mod error;
mod listener;
mod peer;
mod queue;
mod token;

pub use access::{AccessRules, ListedPeer, RawPermission};
pub use connection::serve_connection;
pub use error::ServiceError;
pub use listener::bind as bind_socket;
pub use peer::{Peer, Placement};
pub use queue::{Queue, QueueLimits, Queues, Turn};
pub use token::AttestationSource;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::attester::Attester;
use crate::binding::Binding;
use crate::kbs::TokenExporter;

/// Connections at one time.
const MAXIMUM_CONNECTIONS: usize = 64;
/// Requests that are worked on at one time; others wait in the queues of their peers.
const MAXIMUM_WORKING: usize = 4;

/// The service of one guest.
#[derive(Debug)]
pub struct AttestationService {
    pub(crate) attester: Arc<Attester>,
    pub(crate) rules: AccessRules,
    pub(crate) measure: bool,
    pub(crate) default_pcr: u64,
    pub(crate) tokens: Option<token::Tokens>,
    pub(crate) queues: Queues,
    pub(crate) working: Arc<Semaphore>,
}

impl AttestationService {
    /// The service under a configuration that the platform vouches for.
    ///
    /// # Errors
    /// Those of the key broker's configuration.
    pub fn new(attester: Arc<Attester>, binding: &Binding) -> Result<Self, ServiceError> {
        let config = &binding.config;
        let tokens = match config.kbs_options()? {
            Some((options, kind)) => {
                let initdata = binding.initdata.clone();
                let source = Arc::new(AttestationSource::new(Arc::clone(&attester), initdata));
                Some(token::Tokens { exporter: TokenExporter::new(&options, source)?, kind })
            }
            None => None,
        };
        Ok(Self {
            attester,
            rules: config.access_rules(),
            measure: config.eventlog_config.enable_eventlog,
            default_pcr: config.eventlog_config.init_pcr,
            tokens,
            queues: Queues::default(),
            working: Arc::new(Semaphore::new(MAXIMUM_WORKING)),
        })
    }

    /// Serves a socket until `stop` is done; `ready` is called when peers can connect.
    ///
    /// # Errors
    /// `ATTEST_SOCKET` if the socket cannot be made, or another agent serves it.
    pub async fn serve(
        self,
        socket: &Path,
        ready: impl FnOnce(),
        stop: impl Future<Output = ()>,
    ) -> Result<(), ServiceError> {
        let listener = listener::bind(socket, self.rules.socket_mode())?;
        let _cleanup = Cleanup(socket.to_owned());
        let service = Arc::new(self);
        let places = Arc::new(Semaphore::new(MAXIMUM_CONNECTIONS));
        ready();
        tokio::pin!(stop);
        loop {
            let accepted = tokio::select! {
                () = &mut stop => return Ok(()),
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                // Out of descriptors, say: connections that end will free some.
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let service = Arc::clone(&service);
            let name = socket.to_string_lossy().into_owned();
            tokio::spawn(async move {
                connection::serve(service, stream, &name).await;
                drop(place);
            });
        }
    }
}

/// Takes the socket's file away.
struct Cleanup(PathBuf);

impl Drop for Cleanup {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests;
