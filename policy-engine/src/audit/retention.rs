//! What the guest keeps of an audit: bounded memory, distinct denials longest, and for everything that went a gap.

use std::collections::{BTreeMap, VecDeque};

use super::error::AuditError;
use super::frame::{Gap, GapReason, ORIGIN, Tally};
use super::record::Hash;
use super::sign::{AuditKey, SIGNATURE_BYTES};

/// What a record costs beside its bytes.
const OVERHEAD: usize = 256;
/// Gaps that are signed for one answer at most.
const MAX_SIGNATURES: usize = 16;

/// How long a record is kept; the lowest goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Keep {
    /// Counts, checkpoints, what moves bytes.
    Shortly,
    /// Effects and their outcomes.
    Longer,
    /// Distinct denials, policies.
    Longest,
    /// Genesis, evidence, keys of epochs: what the others are read by.
    Always,
}

#[derive(Debug)]
enum Item {
    Record { frame: Box<[u8]>, keep: Keep, tally: Tally },
    Gap { last: u64, reason: GapReason, tally: Tally, signed: Option<Box<[u8; SIGNATURE_BYTES]>> },
}

/// The records that are there.
#[derive(Debug)]
pub(super) struct Retention {
    /// By the first sequence number.
    items: BTreeMap<u64, (Item, Hash)>,
    /// What may go, oldest first, for each class but the last.
    queues: [VecDeque<u64>; 3],
    bytes: usize,
    capacity: usize,
}

/// What an answer holds.
pub(super) struct Page {
    pub(super) frames: Vec<u8>,
    pub(super) next: u64,
}

impl Retention {
    pub(super) fn new(capacity: usize) -> Self {
        Self { items: BTreeMap::new(), queues: Default::default(), bytes: 0, capacity }
    }

    /// Adds the newest record. `frame` is `None` where it cannot be kept.
    pub(super) fn push(
        &mut self,
        sequence: u64,
        frame: Option<Vec<u8>>,
        keep: Keep,
        tally: Tally,
        hash: Hash,
    ) {
        let frame = frame.unwrap_or_default().into_boxed_slice();
        let is_kept = !frame.is_empty();
        self.bytes += frame.len() + OVERHEAD;
        if let Some(queue) = self.queue(keep) {
            queue.push_back(sequence);
        }
        self.items.insert(sequence, (Item::Record { frame, keep, tally }, hash));
        if !is_kept {
            self.remove(sequence, GapReason::Lost);
        }
        self.make_room();
    }

    fn queue(&mut self, keep: Keep) -> Option<&mut VecDeque<u64>> {
        let [shortly, longer, longest] = &mut self.queues;
        match keep {
            Keep::Shortly => Some(shortly),
            Keep::Longer => Some(longer),
            Keep::Longest => Some(longest),
            Keep::Always => None,
        }
    }

    fn make_room(&mut self) {
        while self.bytes > self.capacity {
            let Some(oldest) = self.queues.iter_mut().find_map(VecDeque::pop_front) else { return };
            self.remove(oldest, GapReason::Lost);
        }
    }

    /// A record becomes a gap, or a part of the gap beside it. What is no record any more stays.
    fn remove(&mut self, sequence: u64, reason: GapReason) {
        let Some((Item::Record { frame, tally, .. }, after)) = self.items.get(&sequence) else { return };
        self.bytes -= frame.len() + OVERHEAD;
        let gap = (sequence, sequence, reason, *tally, *after);
        self.items.remove(&sequence);
        self.insert_gap(gap);
    }

    fn insert_gap(
        &mut self,
        (mut first, mut last, mut reason, mut tally, mut after): (u64, u64, GapReason, Tally, Hash),
    ) {
        let before = self.items.range(..first).next_back().map(|(key, _)| *key);
        for neighbour in [before, last.checked_add(1)].into_iter().flatten() {
            let Some((Item::Gap { last: end, reason: why, tally: more, .. }, hash)) =
                self.items.get(&neighbour)
            else {
                continue;
            };
            if neighbour < first && end.checked_add(1) != Some(first) {
                continue;
            }
            // A loss stays a loss only as long as nobody was given the rest.
            if *why == GapReason::Acknowledged {
                reason = GapReason::Acknowledged;
            }
            tally.add(*more);
            if *end > last {
                (last, after) = (*end, *hash);
            }
            first = first.min(neighbour);
            self.items.remove(&neighbour);
            self.bytes -= OVERHEAD;
        }
        self.bytes += OVERHEAD;
        self.items.insert(first, (Item::Gap { last, reason, tally, signed: None }, after));
    }

    /// Gives up what was acknowledged: everything before `to` but what is always kept.
    pub(super) fn acknowledge(&mut self, to: u64) {
        let going: Vec<u64> = self
            .items
            .range(..to)
            .filter(|(_, (item, _))| matches!(item, Item::Record { keep, .. } if *keep != Keep::Always))
            .map(|(sequence, _)| *sequence)
            .collect();
        for sequence in going {
            self.remove(sequence, GapReason::Acknowledged);
        }
        for queue in &mut self.queues {
            queue.retain(|sequence| *sequence >= to);
        }
    }

    /// Lets a record that was always kept go with the others.
    pub(super) fn release(&mut self, sequence: u64) {
        self.remove(sequence, GapReason::Acknowledged);
    }

    /// The hash after the record before `sequence`.
    fn before(&self, sequence: u64) -> Hash {
        self.items.range(..sequence).next_back().map_or(ORIGIN, |(_, (_, hash))| *hash)
    }

    /// Frames from `from` on, at most `most` bytes of them, but at least one.
    pub(super) fn page(
        &mut self,
        from: u64,
        most: usize,
        key: &AuditKey,
        genesis: &Hash,
    ) -> Result<Page, AuditError> {
        let start = match self.items.range(..=from).next_back() {
            Some((first, (Item::Gap { last, .. }, _))) if *last >= from => *first,
            _ => from,
        };
        let mut page = Page { frames: Vec::new(), next: from };
        let mut before = self.before(start);
        let mut signatures = 0;
        for (first, (item, hash)) in self.items.range_mut(start..) {
            let (bytes, last) = match item {
                Item::Record { frame, .. } => (frame.to_vec(), *first),
                Item::Gap { last, reason, tally, signed } => {
                    let mut gap = Gap {
                        first: *first,
                        last: *last,
                        reason: *reason,
                        after: *hash,
                        tally: *tally,
                        signature: [0; SIGNATURE_BYTES],
                    };
                    if signed.is_none() {
                        if signatures == MAX_SIGNATURES {
                            break;
                        }
                        signatures += 1;
                        *signed = Some(Box::new(key.sign(&gap.signed(genesis, &before))?));
                    }
                    gap.signature = signed.as_deref().copied().unwrap_or(gap.signature);
                    (super::Frame::Gap(gap).encode(), *last)
                }
            };
            if !page.frames.is_empty() && page.frames.len() + bytes.len() > most {
                break;
            }
            page.frames.extend_from_slice(&bytes);
            page.next = last.saturating_add(1);
            before = *hash;
        }
        Ok(page)
    }

    /// Bytes that count against the capacity.
    #[cfg(test)]
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}
