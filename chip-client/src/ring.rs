//! Index arithmetic of the rings: no memory, no registers, no device.

/// Number of entries of a ring: a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingSize(u16);

impl RingSize {
    /// A power of two from 2 on.
    pub const fn new(entries: u16) -> Option<Self> {
        if entries >= 2 && entries.is_power_of_two() { Some(Self(entries)) } else { None }
    }

    /// The largest size of at most `wanted` and at most `limit` entries.
    pub fn fitting(wanted: u16, limit: u16) -> Option<Self> {
        let most = wanted.min(limit);
        Self::new(1u16.checked_shl(most.checked_ilog2()?)?)
    }

    /// Entries.
    pub const fn entries(self) -> u16 {
        self.0
    }

    const fn after(self, index: u16) -> u16 {
        index.wrapping_add(1) & (self.0 - 1)
    }
}

/// The driver's end of a submission ring. It holds at most one entry less than its size.
#[derive(Clone, Copy, Debug)]
pub struct SubmissionIndex {
    size: RingSize,
    tail: u16,
    in_flight: u16,
}

impl SubmissionIndex {
    /// An empty ring.
    pub const fn new(size: RingSize) -> Self {
        Self { size, tail: 0, in_flight: 0 }
    }

    /// The entry to write next, unless the ring is full. Tell the device [`Self::tail`] afterwards.
    pub const fn push(&mut self) -> Option<u16> {
        if self.in_flight >= self.size.0 - 1 {
            return None;
        }
        let slot = self.tail;
        self.tail = self.size.after(slot);
        self.in_flight += 1;
        Some(slot)
    }

    /// A submission was completed.
    pub const fn complete(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Value of the doorbell.
    pub const fn tail(&self) -> u16 {
        self.tail
    }

    /// Size of the ring.
    pub const fn size(&self) -> RingSize {
        self.size
    }
}

/// The driver's end of a completion ring.
#[derive(Clone, Copy, Debug)]
pub struct CompletionIndex {
    size: RingSize,
    head: u16,
    phase: bool,
}

impl CompletionIndex {
    /// A ring of which the device has written nothing.
    pub const fn new(size: RingSize) -> Self {
        Self { size, head: 0, phase: true }
    }

    /// The entry to look at; also the value of the doorbell.
    pub const fn head(&self) -> u16 {
        self.head
    }

    /// Whether an entry with this phase bit at [`Self::head`] is new.
    pub const fn is_new(&self, phase: bool) -> bool {
        phase == self.phase
    }

    /// The entry was taken.
    pub const fn advance(&mut self) {
        self.head = self.size.after(self.head);
        if self.head == 0 {
            self.phase = !self.phase;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(RingSize::new(1), None);
        assert_eq!(RingSize::new(3), None);
        assert_eq!(RingSize::new(0), None);
        assert_eq!(RingSize::fitting(64, 100), RingSize::new(64));
        assert_eq!(RingSize::fitting(64, 33), RingSize::new(32));
        assert_eq!(RingSize::fitting(64, 1), None);
        assert_eq!(RingSize::fitting(64, 0), None);
        assert_eq!(RingSize::fitting(64, u16::MAX), RingSize::new(64));
    }

    proptest! {
        /// A device that completes some of what is in flight, in any amounts: each completion is seen once, in
        /// order; nothing old is ever taken for new; the submission ring never overtakes itself.
        #[test]
        fn every_completion_is_seen_once(log in 1u32..6, steps in prop::collection::vec((0u16..9, 0u16..9), 1..200)) {
            let size = RingSize::new(1 << log).unwrap();
            let n = usize::from(size.entries());
            let (mut sq, mut cq) = (SubmissionIndex::new(size), CompletionIndex::new(size));
            let mut memory = vec![(0u32, false); n];
            let (mut posted, mut seen, mut submitted) = (0u32, 0u32, 0u32);
            let mut device = (0usize, true);
            for (submit, complete) in steps {
                for _ in 0..submit {
                    let before = sq.tail();
                    match sq.push() {
                        Some(slot) => {
                            prop_assert_eq!(slot, before);
                            prop_assert_eq!(u32::from(slot), submitted % u32::from(size.entries()));
                            submitted += 1;
                        }
                        None => prop_assert_eq!(submitted - seen, u32::from(size.entries()) - 1),
                    }
                    prop_assert!(sq.tail() < size.entries());
                }
                for _ in 0..complete.min(u16::try_from(submitted - posted).unwrap()) {
                    memory[device.0] = (posted, device.1);
                    posted += 1;
                    device.0 += 1;
                    if device.0 == n {
                        device = (0, !device.1);
                    }
                }
                while cq.is_new(memory[usize::from(cq.head())].1) {
                    prop_assert_eq!(memory[usize::from(cq.head())].0, seen);
                    seen += 1;
                    cq.advance();
                    sq.complete();
                }
                prop_assert_eq!(seen, posted);
            }
        }
    }
}
