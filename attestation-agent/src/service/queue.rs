//! So many requests of a peer at a time, a bounded queue of others behind them, and a bounded number of its connections.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::report_data::WorkloadIdentity;
use crate::service::error::ServiceError;

/// Requests of one peer, the one that is worked on included.
pub(crate) const MAXIMUM_QUEUED: usize = 8;
/// Connections of one peer: so few that no peer can take the places of all others.
pub(crate) const MAXIMUM_PEER_CONNECTIONS: usize = 16;

/// How much one peer may ask for at a time.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// Requests that are worked on.
    pub at_once: usize,
    /// Requests, those that are worked on included.
    pub queued: usize,
    /// Connections.
    pub connections: usize,
}

impl Default for QueueLimits {
    /// One request after the other.
    fn default() -> Self {
        Self { at_once: 1, queued: MAXIMUM_QUEUED, connections: MAXIMUM_PEER_CONNECTIONS }
    }
}

/// The queues of all peers that are connected.
#[derive(Debug, Default)]
pub struct Queues {
    limits: QueueLimits,
    of_peers: Mutex<HashMap<WorkloadIdentity, Weak<Queue>>>,
}

impl Queues {
    /// With these limits for each peer.
    #[must_use]
    pub fn new(limits: QueueLimits) -> Self {
        Self { limits, of_peers: Mutex::default() }
    }

    /// The queue of a peer: all its connections share one.
    pub fn of(&self, identity: WorkloadIdentity) -> Arc<Queue> {
        let mut queues = self.of_peers.lock().unwrap_or_else(PoisonError::into_inner);
        queues.retain(|_, queue| queue.strong_count() > 0);
        if let Some(queue) = queues.get(&identity).and_then(Weak::upgrade) {
            return queue;
        }
        let queue = Arc::new(Queue {
            connections: Arc::new(Semaphore::new(self.limits.connections)),
            places: Arc::new(Semaphore::new(self.limits.queued)),
            turn: Arc::new(Semaphore::new(self.limits.at_once)),
        });
        queues.insert(identity, Arc::downgrade(&queue));
        queue
    }
}

/// The requests of one peer.
#[derive(Debug)]
pub struct Queue {
    connections: Arc<Semaphore>,
    places: Arc<Semaphore>,
    turn: Arc<Semaphore>,
}

/// The peer's turn; the next one waits until this is gone.
#[derive(Debug)]
pub struct Turn {
    _turn: OwnedSemaphorePermit,
    _place: OwnedSemaphorePermit,
}

impl Queue {
    /// A place for one more connection of the peer, if it has not too many already.
    #[must_use]
    pub fn connection(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.connections).try_acquire_owned().ok()
    }

    /// Waits for the peer's turn.
    ///
    /// # Errors
    /// `ATTEST_BUSY` if too many requests wait already.
    pub async fn turn(&self) -> Result<Turn, ServiceError> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| ServiceError::Busy)?;
        let turn = Arc::clone(&self.turn).acquire_owned().await.map_err(|_| ServiceError::Busy)?;
        Ok(Turn { _turn: turn, _place: place })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn evil_peer_floods_its_queue() {
        let queues = Queues::default();
        let identity = WorkloadIdentity::of("/run/aa.sock", 1, "/a");
        let queue = queues.of(identity);
        let first = queue.turn().await.unwrap();
        let mut waiting: Vec<_> = (1..MAXIMUM_QUEUED)
            .map(|_| Box::pin(tokio::time::timeout(std::time::Duration::from_secs(60), queue.turn())))
            .collect();
        for waiter in &mut waiting {
            let pending = std::future::poll_fn(|context| {
                std::task::Poll::Ready(waiter.as_mut().poll(context).is_pending())
            });
            assert!(pending.await, "one at a time");
        }
        let same = queues.of(identity);
        assert_eq!(
            same.turn().await.unwrap_err().code(),
            "ATTEST_BUSY",
            "another connection of the same peer"
        );
        let other = queues.of(WorkloadIdentity::of("/run/aa.sock", 2, "/a"));
        other.turn().await.unwrap();
        drop(waiting);
        drop(first);
        same.turn().await.unwrap();
    }
}
