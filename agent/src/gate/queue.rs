//! Who is decided when, where the policy's state is involved.
//!
//! ```text
//!  changes the state  one after the other, each from its decision to the end of its effect, and its change is the last step
//!  reads the state    beside each other, and beside an effect that is under way: a change waits until they are done
//!  another policy     alone
//! ```
//! So a slow CreateContainer holds up others of its kind, whose decisions need to know what came of it, and nobody else; and what was permitted by a
//! state has happened before that state is another one. Whoever waits has an end: its own deadline, or ours.

use std::time::Duration;

use policy_engine::StateUse;
use protocol::endpoint::PolicyPoint;
use protocol::status::RpcError;
use tokio::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, Semaphore};
use tokio::time::{Instant, timeout_at};

/// Calls that may wait.
pub(super) const MAXIMUM_QUEUED: usize = 256;
/// How long a call waits that names no deadline: longer than runtimes wait for a container.
const PATIENCE: Duration = Duration::from_secs(600);

/// The queue.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) places: Semaphore,
    /// Held by whoever changes the state.
    pub(super) changes: Mutex<()>,
    /// Read by whoever was permitted something by the state, written at the moment of its change.
    state: RwLock<()>,
}

/// What a call does with the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Nothing,
    Reads,
    Changes,
    Replaces,
}

impl Use {
    pub(super) fn of(uses: StateUse, point: PolicyPoint) -> Self {
        match (point, uses.writes, uses.reads) {
            (PolicyPoint::OldPolicy, ..) => Self::Replaces,
            (_, true, _) => Self::Changes,
            (_, false, true) => Self::Reads,
            (_, false, false) => Self::Nothing,
        }
    }
}

/// The right to be decided, and to have an effect.
#[derive(Debug)]
#[must_use]
pub(super) enum Turn<'queue> {
    /// At any time.
    Free,
    /// Beside others.
    Reads { _state: RwLockReadGuard<'queue, ()> },
    /// Alone among those that change something.
    Changes { _turn: MutexGuard<'queue, ()>, state: &'queue RwLock<()> },
    /// Alone.
    Alone { _turn: MutexGuard<'queue, ()>, _state: RwLockWriteGuard<'queue, ()> },
}

impl Queue {
    pub(super) fn new() -> Self {
        Self { places: Semaphore::new(MAXIMUM_QUEUED), changes: Mutex::new(()), state: RwLock::new(()) }
    }

    /// Waits for a turn, in the order of asking.
    ///
    /// # Errors
    /// `Busy`; `Deadline` when the time is over.
    pub(super) async fn turn(&self, uses: Use, deadline: Option<Instant>) -> Result<Turn<'_>, RpcError> {
        if uses == Use::Nothing {
            return Ok(Turn::Free);
        }
        // Held until its turn has come.
        let place = self.places.try_acquire().ok();
        // GUARD: queue-bound -> evil_host_floods_the_queue
        if place.is_none() {
            return Err(RpcError::Busy);
        }
        let most = Instant::now() + PATIENCE;
        let until = deadline.map_or(most, |deadline| deadline.min(most));
        let turn = timeout_at(until, self.wait(uses)).await;
        drop(place);
        turn.map_err(|_| RpcError::Deadline)
    }

    async fn wait(&self, uses: Use) -> Turn<'_> {
        match uses {
            Use::Nothing => Turn::Free,
            Use::Reads => Turn::Reads { _state: self.state.read().await },
            Use::Changes => Turn::Changes { _turn: self.changes.lock().await, state: &self.state },
            Use::Replaces => {
                let turn = self.changes.lock().await;
                Turn::Alone { _turn: turn, _state: self.state.write().await }
            }
        }
    }
}

impl Turn<'_> {
    /// Ends it with its change of the state, which nobody sees who was permitted something by the state before.
    pub(super) async fn settle(self, change: impl FnOnce()) {
        let state = match &self {
            Turn::Changes { state, .. } => Some(state.write().await),
            Turn::Free | Turn::Reads { .. } | Turn::Alone { .. } => None,
        };
        change();
        drop(state);
    }
}
