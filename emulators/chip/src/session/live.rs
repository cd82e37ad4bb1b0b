//! A session after FINISH: sequence numbers, budgets, what the guest presented, registered and unwrapped.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chip_client::abi::limits::{MAX_BULK_BYTES, MAX_SUBMISSIONS};
use chip_client::abi::{DataPath, InsecureFlags, QUEUES, SUBMISSION_LEN, SessionSuite, Sgl, Status};
use evidence::verify::VerifiedEvidence;
use sealed_artifact::policy::PolicyDocument;
use zeroize::Zeroizing;

use super::HandleLimit;
use super::protect::{Protected, SessionKeys};
use crate::unseal::Handle;

/// What both sides agreed on in the handshake.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) suite: SessionSuite,
    pub(super) path: DataPath,
    pub(super) guest: InsecureFlags,
}

/// What a PRESENT brought: a policy, and evidence that was verified to be of this session.
#[derive(Clone, Debug)]
pub(crate) struct Presented {
    pub(crate) policy: PolicyDocument,
    pub(crate) evidence: Option<Arc<VerifiedEvidence>>,
}

/// What is left of a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left {
    pub(crate) bytes: u64,
    pub(crate) submissions: u64,
    pub(crate) handles: u32,
}

#[derive(Debug)]
struct State {
    next: [u64; QUEUES as usize],
    bytes_left: u64,
    bulk_counter: u64,
    presented: Option<Presented>,
    registered: Sgl,
    handles: BTreeMap<u32, (Arc<Handle>, HandleLimit)>,
    last_handle: u32,
}

/// A live session, shared by the workers of both queues.
#[derive(Debug)]
pub(crate) struct LiveSession {
    terms: Terms,
    keys: Arc<SessionKeys>,
    report_data: [u8; 64],
    ended: AtomicBool,
    state: Mutex<State>,
}

impl LiveSession {
    pub(super) fn new(terms: Terms, keys: SessionKeys, report_data: [u8; 64]) -> Self {
        let state = State {
            next: [1; QUEUES as usize],
            bytes_left: MAX_BULK_BYTES,
            bulk_counter: 0,
            presented: None,
            registered: Sgl::default(),
            handles: BTreeMap::new(),
            last_handle: 0,
        };
        Self {
            terms,
            keys: Arc::new(keys),
            report_data,
            ended: AtomicBool::new(false),
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn path(&self) -> DataPath {
        self.terms.path
    }

    pub(crate) fn suite(&self) -> SessionSuite {
        self.terms.suite
    }

    /// What evidence has to carry to be of this session.
    pub(crate) fn report_data(&self) -> &[u8; 64] {
        &self.report_data
    }

    pub(crate) fn guest(&self) -> InsecureFlags {
        self.terms.guest
    }

    /// Decides whether a submission is the next one and authentic, and opens it. An error ends the session.
    pub(crate) fn admit(
        &self,
        queue: u16,
        seq: u64,
        entry: &[u8; SUBMISSION_LEN],
        input: Vec<u8>,
    ) -> Result<(Zeroizing<Vec<u8>>, Protected), Status> {
        let mut state = self.state();
        let next = state.next.get_mut(usize::from(queue)).ok_or(Status::Internal)?;
        // GUARD: sequence -> evil_replayed_submission_is_refused
        if seq != *next {
            return Err(Status::Sequence);
        }
        // GUARD: submission-budget -> evil_submissions_beyond_the_budget_are_refused
        if seq > MAX_SUBMISSIONS {
            return Err(Status::Budget);
        }
        let protected = Protected::new(Arc::clone(&self.keys), queue, seq, entry, &input);
        let plaintext = self.keys.open_submission(queue, seq, entry, input).ok_or(Status::Auth)?;
        *next = next.saturating_add(1);
        Ok((plaintext, protected))
    }

    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.state().handles.clear();
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(crate) fn left(&self) -> Left {
        let state = self.state();
        let used = state.next.iter().copied().max().unwrap_or(1).saturating_sub(1);
        Left {
            bytes: state.bytes_left,
            submissions: MAX_SUBMISSIONS.saturating_sub(used),
            handles: u32::try_from(state.handles.len()).unwrap_or(u32::MAX),
        }
    }

    /// Takes `bytes` from the budget and `segments` bulk counters; returns the first counter.
    pub(crate) fn spend(&self, bytes: u64, segments: u32) -> Result<u64, Status> {
        let mut state = self.state();
        // GUARD: bulk-budget -> evil_bulk_bytes_beyond_the_budget_are_refused
        if bytes > state.bytes_left {
            return Err(Status::Budget);
        }
        state.bytes_left = state.bytes_left.saturating_sub(bytes);
        let first = state.bulk_counter;
        state.bulk_counter = first.saturating_add(segments.into());
        Ok(first)
    }

    pub(crate) fn present(&self, presented: Presented) {
        self.state().presented = Some(presented);
    }

    pub(crate) fn presented(&self) -> Option<Presented> {
        self.state().presented.clone()
    }

    pub(crate) fn register(&self, ranges: Sgl) {
        self.state().registered = ranges;
    }

    pub(crate) fn registered(&self) -> Sgl {
        self.state().registered.clone()
    }

    /// Keeps what UNWRAP opened; returns its number.
    pub(crate) fn keep(&self, handle: Handle, place: HandleLimit) -> u32 {
        let mut state = self.state();
        state.last_handle = state.last_handle.wrapping_add(1).max(1);
        let number = state.last_handle;
        state.handles.insert(number, (Arc::new(handle), place));
        number
    }

    pub(crate) fn handle(&self, number: u32) -> Option<Arc<Handle>> {
        self.state().handles.get(&number).map(|(handle, _)| Arc::clone(handle))
    }

    /// A session that has ended while a worker still holds it.
    #[cfg(test)]
    pub(crate) fn mark_ended_for_tests(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// Moves the session next to the end of its budgets.
    #[cfg(test)]
    pub(crate) fn exhaust(&self, queue: u16, next: u64, bytes_left: u64) {
        let mut state = self.state();
        state.next[usize::from(queue)] = next;
        state.bytes_left = bytes_left;
    }
}
