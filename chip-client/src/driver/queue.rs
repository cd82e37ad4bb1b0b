//! A queue pair: which commands are outstanding, and what a completion must be.

use super::Lengths;
use super::arena::{Place, completion_ring, submission_ring};
use crate::abi::{COMPLETION_LEN, Completion, SUBMISSION_LEN, Status};
use crate::error::{ChipError, DeviceError};
use crate::ring::{CompletionIndex, RingSize, SubmissionIndex};

/// Names one submitted command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) queue: u16,
    pub(crate) cid: u16,
    slot: usize,
}

/// A completion that fits an outstanding command, and the output, copied out once.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: Status,
    pub(crate) completion: Completion,
    pub(crate) output: Vec<u8>,
}

#[derive(Debug)]
enum State {
    Free,
    Outstanding { cid: u16, out_cap: u32 },
    Finished { cid: u16, finished: Finished },
}

#[derive(Debug)]
pub(super) struct Queue {
    number: u16,
    submission: SubmissionIndex,
    completion: CompletionIndex,
    slots: Vec<(Place, State)>,
    next_cid: u16,
}

impl Queue {
    pub(super) fn new(number: u16, size: RingSize, places: impl IntoIterator<Item = Place>) -> Self {
        Self {
            number,
            submission: SubmissionIndex::new(size),
            completion: CompletionIndex::new(size),
            slots: places.into_iter().map(|place| (place, State::Free)).collect(),
            next_cid: 0,
        }
    }

    /// Forgets ring state and commands, as the controller does at reset. Command ids go on.
    pub(super) fn clear(&mut self) {
        self.submission = SubmissionIndex::new(self.size());
        self.completion = CompletionIndex::new(self.size());
        self.slots.iter_mut().for_each(|(_, state)| *state = State::Free);
    }

    /// Commands that can be outstanding at once.
    pub(super) fn depth(&self) -> u16 {
        u16::try_from(self.slots.len()).unwrap_or(u16::MAX)
    }

    pub(super) fn size(&self) -> RingSize {
        self.submission.size()
    }

    pub(super) fn tail(&self) -> u16 {
        self.submission.tail()
    }

    /// Value of the completion doorbell.
    pub(super) fn head(&self) -> u16 {
        self.completion.head()
    }

    /// Whether any slot, free or not, has room for these.
    pub(super) fn has_room(&self, lengths: Lengths) -> bool {
        self.slots.iter().any(|(place, _)| place.holds(lengths))
    }

    /// A free slot with room for these.
    pub(super) fn reserve(&mut self, lengths: Lengths) -> Option<(Ticket, Place)> {
        let cid = self.next_cid;
        let found = self.slots.iter_mut().enumerate();
        let mut fitting = found.filter(|(_, (place, s))| matches!(s, State::Free) && place.holds(lengths));
        let (slot, (place, state)) = fitting.next()?;
        *state = State::Outstanding { cid, out_cap: lengths.output };
        // A wrap-around cannot meet an outstanding id: there are at most 16.
        self.next_cid = cid.wrapping_add(1);
        Some((Ticket { queue: self.number, cid, slot }, *place))
    }

    pub(super) fn give_back(&mut self, ticket: Ticket) {
        if let Some((_, state)) = self.slots.get_mut(ticket.slot) {
            *state = State::Free;
        }
    }

    /// Offset of the submission entry to write next.
    pub(super) fn push_entry(&mut self) -> Option<usize> {
        let index = self.submission.push()?;
        Some(submission_ring(self.number) + usize::from(index) * SUBMISSION_LEN)
    }

    /// Offset of the completion entry to look at.
    pub(super) fn completion_offset(&self) -> usize {
        completion_ring(self.number) + usize::from(self.completion.head()) * COMPLETION_LEN
    }

    pub(super) fn is_new(&self, entry: &Completion) -> bool {
        self.completion.is_new(entry.phase_bit())
    }

    /// Takes a new completion: which slot it ends, and where its output lies.
    pub(super) fn accept(&mut self, entry: &Completion) -> Result<Accepted, ChipError> {
        self.completion.advance();
        let size = self.size().entries();
        // GUARD: completion-ring-head -> evil_ring_head_outside_the_ring
        if entry.sq_head >= size {
            return Err(DeviceError::RingHead { expected: size, found: entry.sq_head }.into());
        }
        let outstanding = self.slots.iter().enumerate().find_map(|(slot, (place, state))| match state {
            State::Outstanding { cid, out_cap } if *cid == entry.cid => Some((slot, *place, *out_cap)),
            _ => None,
        });
        let Some((slot, place, out_cap)) = outstanding else {
            return Err(DeviceError::CompletionUnknown { queue: self.number, cid: entry.cid }.into());
        };
        // GUARD: completion-length -> evil_length_lie_is_refused
        if entry.out_len > out_cap {
            return Err(DeviceError::LengthLie { expected: out_cap, found: entry.out_len }.into());
        }
        let status =
            Status::from_u16(entry.status).ok_or(DeviceError::StatusUnknown { found: entry.status })?;
        Ok(Accepted { slot, status, output: place.output })
    }

    pub(super) fn finish(&mut self, accepted: &Accepted, completion: Completion, output: Vec<u8>) {
        self.submission.complete();
        if let Some((_, state)) = self.slots.get_mut(accepted.slot) {
            let finished = Finished { status: accepted.status, completion, output };
            *state = State::Finished { cid: completion.cid, finished };
        }
    }

    /// Takes what has finished: this command, or any.
    pub(super) fn take(&mut self, wanted: Option<Ticket>) -> Option<(Ticket, Finished)> {
        let number = self.number;
        let wanted = |slot: usize, cid: u16| wanted.is_none_or(|t| t.slot == slot && t.cid == cid);
        let found =
            self.slots.iter_mut().enumerate().find(
                |(slot, (_, state))| matches!(state, State::Finished { cid, .. } if wanted(*slot, *cid)),
            );
        let (slot, (_, state)) = found?;
        match std::mem::replace(state, State::Free) {
            State::Finished { cid, finished } => Some((Ticket { queue: number, cid, slot }, finished)),
            State::Free | State::Outstanding { .. } => None,
        }
    }
}

/// A completion that fits.
#[derive(Debug)]
pub(super) struct Accepted {
    slot: usize,
    status: Status,
    pub(super) output: usize,
}
