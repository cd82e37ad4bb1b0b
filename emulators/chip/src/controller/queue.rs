//! Ring arithmetic of one queue pair.

use std::sync::Arc;

use chip_client::abi::{COMPLETION_LEN, SUBMISSION_LEN};

use crate::firmware::Cancel;

/// Largest number of entries of a ring.
pub(super) const MAX_ENTRIES: u16 = 1_024;
const PAGE: u64 = 4_096;

/// The command that the worker of a queue executes.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) cid: Option<u16>,
    pub(super) cancel: Arc<Cancel>,
}

/// Registers and positions of a queue pair.
#[derive(Debug, Default)]
pub(super) struct QueuePair {
    pub(super) sq_base: u64,
    pub(super) cq_base: u64,
    pub(super) sq_size: u32,
    pub(super) cq_size: u32,
    sq_head: u32,
    sq_tail: u32,
    cq_head: u32,
    cq_tail: u32,
    /// Completions since the rings began, for the phase.
    wrapped: bool,
    pub(super) running: Option<Running>,
    /// Commands to be aborted that were not fetched yet.
    pub(super) aborts: Vec<u16>,
}

/// A doorbell value that no driver writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadDoorbell;

/// Where the next completion goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CompletionSlot {
    pub(super) iova: u64,
    pub(super) phase: u16,
    pub(super) sq_head: u16,
}

impl QueuePair {
    /// Whether the registers describe rings, or none at all.
    pub(super) fn is_valid(&self) -> bool {
        if self.sq_size == 0 && self.cq_size == 0 {
            return true;
        }
        let size = |size: u32| size.is_power_of_two() && (2..=u32::from(MAX_ENTRIES)).contains(&size);
        let ring = |base: u64, entries: u32, length: usize| {
            base.is_multiple_of(PAGE) && base.checked_add(u64::from(entries) * length as u64).is_some()
        };
        size(self.sq_size)
            && size(self.cq_size)
            && ring(self.sq_base, self.sq_size, SUBMISSION_LEN)
            && ring(self.cq_base, self.cq_size, COMPLETION_LEN)
    }

    pub(super) fn forget_rings(&mut self) {
        if let Some(running) = self.running.take() {
            running.cancel.cancel();
        }
        *self = Self {
            sq_base: self.sq_base,
            cq_base: self.cq_base,
            sq_size: self.sq_size,
            cq_size: self.cq_size,
            ..Self::default()
        };
    }

    fn distance(from: u32, to: u32, size: u32) -> u32 {
        to.wrapping_sub(from) & size.wrapping_sub(1)
    }

    /// The driver added entries up to `tail`.
    pub(super) fn submit(&mut self, tail: u32) -> Result<(), BadDoorbell> {
        let size = self.sq_size;
        if tail >= size {
            return Err(BadDoorbell);
        }
        let added = Self::distance(self.sq_tail, tail, size);
        let waiting = Self::distance(self.sq_head, self.sq_tail, size);
        if added.saturating_add(waiting) >= size {
            return Err(BadDoorbell);
        }
        self.sq_tail = tail;
        Ok(())
    }

    /// The driver has seen completions up to `head`.
    pub(super) fn consume(&mut self, head: u32) -> Result<(), BadDoorbell> {
        let size = self.cq_size;
        let posted = Self::distance(self.cq_head, self.cq_tail, size);
        if head >= size || Self::distance(self.cq_head, head, size) > posted {
            return Err(BadDoorbell);
        }
        self.cq_head = head;
        Ok(())
    }

    pub(super) fn is_idle(&self) -> bool {
        self.sq_head == self.sq_tail && self.running.is_none()
    }

    /// Takes the next entry when there is one and its completion will have room: its address.
    pub(super) fn fetch(&mut self) -> Option<u64> {
        if self.sq_head == self.sq_tail || !self.completion_fits() {
            return None;
        }
        let iova = self.sq_base.saturating_add(u64::from(self.sq_head) * SUBMISSION_LEN as u64);
        self.sq_head = self.sq_head.wrapping_add(1) & self.sq_size.wrapping_sub(1);
        Some(iova)
    }

    pub(super) fn completion_fits(&self) -> bool {
        self.cq_size != 0 && Self::distance(self.cq_head, self.cq_tail, self.cq_size) + 1 < self.cq_size
    }

    /// Takes the place of the next completion.
    pub(super) fn complete(&mut self) -> CompletionSlot {
        let slot = CompletionSlot {
            iova: self.cq_base.saturating_add(u64::from(self.cq_tail) * COMPLETION_LEN as u64),
            phase: u16::from(!self.wrapped),
            sq_head: u16::try_from(self.sq_head).unwrap_or(0),
        };
        self.cq_tail = self.cq_tail.wrapping_add(1);
        if self.cq_tail >= self.cq_size {
            self.cq_tail = 0;
            self.wrapped = !self.wrapped;
        }
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> QueuePair {
        QueuePair { sq_base: 0x1000, cq_base: 0x2000, sq_size: 4, cq_size: 4, ..QueuePair::default() }
    }

    #[test]
    fn registers_that_describe_no_ring_are_invalid() {
        assert!(pair().is_valid());
        assert!(QueuePair::default().is_valid());
        for bad in [
            QueuePair { sq_size: 0, ..pair() },
            QueuePair { cq_size: 3, ..pair() },
            QueuePair { sq_size: 1, ..pair() },
            QueuePair { sq_size: 2_048, ..pair() },
            QueuePair { sq_base: 0x1040, ..pair() },
            QueuePair { cq_base: !0xfff, cq_size: 1_024, ..pair() },
        ] {
            assert!(!bad.is_valid(), "{bad:?}");
        }
    }

    #[test]
    fn a_full_ring_takes_no_more() {
        let mut pair = pair();
        assert_eq!(pair.submit(3), Ok(()));
        assert_eq!(pair.submit(0), Err(BadDoorbell));
        assert_eq!(pair.submit(4), Err(BadDoorbell));
        assert_eq!(pair.fetch(), Some(0x1000));
        assert_eq!(pair.submit(0), Ok(()));
        assert_eq!(pair.fetch(), Some(0x1040));
        assert_eq!(pair.fetch(), Some(0x1080));
        assert_eq!(pair.fetch(), Some(0x10c0));
        assert_eq!(pair.fetch(), None);
    }

    #[test]
    fn completions_stop_at_a_full_ring_and_flip_the_phase() {
        let mut pair = pair();
        pair.submit(3).unwrap();
        let phases: Vec<u16> = (0..3).map(|_| pair.complete().phase).collect();
        assert_eq!(phases, [1, 1, 1]);
        assert!(!pair.completion_fits());
        assert_eq!(pair.fetch(), None);
        assert_eq!(pair.consume(4), Err(BadDoorbell));
        pair.consume(3).unwrap();
        assert_eq!(pair.consume(0), Err(BadDoorbell), "more than was posted");
        assert_eq!(pair.complete(), CompletionSlot { iova: 0x2060, phase: 1, sq_head: 0 });
        assert_eq!(pair.complete(), CompletionSlot { iova: 0x2000, phase: 0, sq_head: 0 });
    }

    #[test]
    fn doorbells_of_unused_queues_are_refused() {
        let mut unused = QueuePair::default();
        assert_eq!(unused.submit(0), Err(BadDoorbell));
        assert_eq!(unused.consume(0), Err(BadDoorbell));
        assert!(!unused.completion_fits());
    }
}
