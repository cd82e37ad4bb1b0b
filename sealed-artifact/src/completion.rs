//! Which segments of a payload are done, and its BLAKE3 digest from segments in any order: 32 bytes a segment, one bit more.

use blake3::hazmat::{HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root};
use subtle::ConstantTimeEq as _;

use crate::core::PayloadDigest;
use crate::error::ArtifactError;
use crate::layout::{Layout, Span};
use crate::names::SegmentIndex;

/// BLAKE3 of one segment: its subtree's chaining value, or the root hash when it is the only segment.
pub(crate) type SegmentHash = [u8; 32];

/// Hashes one segment as the part of its payload that it is.
pub(crate) fn hash_segment(layout: &Layout, span: &Span, plaintext: &[u8]) -> SegmentHash {
    if layout.segments() == 1 {
        return blake3::hash(plaintext).into();
    }
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(span.offset).update(plaintext);
    hasher.finalize_non_root()
}

/// The root of a tree over the hashes of two or more segments; of the hash itself when there is one.
fn root(hashes: &[SegmentHash]) -> SegmentHash {
    match hashes {
        [] => blake3::hash(&[]).into(),
        [only] => *only,
        several => {
            let (left, right) = several.split_at(left_length(several.len()));
            merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash).into()
        }
    }
}

fn subtree(hashes: &[SegmentHash]) -> SegmentHash {
    match hashes {
        [] => [0; 32],
        [only] => *only,
        several => {
            let (left, right) = several.split_at(left_length(several.len()));
            merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
        }
    }
}

/// The largest power of two below `segments`: BLAKE3's left subtree is as large as can be.
fn left_length(segments: usize) -> usize {
    (segments / 2 + segments % 2).next_power_of_two()
}

/// Segments of one payload that are done.
#[derive(Debug)]
pub(crate) struct Completion {
    layout: Layout,
    done: Vec<u64>,
    count: u32,
    hashes: Option<Vec<SegmentHash>>,
}

impl Completion {
    /// Nothing is done yet; `with_digest` keeps a hash per segment.
    pub(crate) fn new(layout: Layout, with_digest: bool) -> Self {
        let segments = SegmentIndex::new(layout.segments()).as_usize();
        Self {
            layout,
            done: vec![0; segments.div_ceil(64)],
            count: 0,
            hashes: with_digest.then(|| vec![[0; 32]; segments]),
        }
    }

    /// Whether `segment` is done.
    pub(crate) fn contains(&self, segment: SegmentIndex) -> bool {
        let word = self.done.get(segment.as_usize() / 64).copied().unwrap_or(u64::MAX);
        word & (1 << (segment.value() % 64)) != 0
    }

    /// Marks `segment` as done; a second time changes nothing but the hash.
    pub(crate) fn record(&mut self, segment: SegmentIndex, hash: Option<SegmentHash>) {
        if !self.contains(segment) {
            self.count += 1;
        }
        if let Some(word) = self.done.get_mut(segment.as_usize() / 64) {
            *word |= 1 << (segment.value() % 64);
        }
        let slot = self.hashes.as_mut().and_then(|hashes| hashes.get_mut(segment.as_usize()));
        if let (Some(slot), Some(hash)) = (slot, hash) {
            *slot = hash;
        }
    }

    /// The payload digest, if it was asked for; refused unless all segments are done.
    pub(crate) fn finish(&self) -> Result<Option<PayloadDigest>, ArtifactError> {
        // GUARD: completeness -> evil_missing_segment_is_not_complete
        if self.count != self.layout.segments() {
            return Err(ArtifactError::PayloadIncomplete {
                payload: self.layout.payload().value(),
                expected: u64::from(self.layout.segments()),
                found: u64::from(self.count),
            });
        }
        Ok(self.hashes.as_deref().map(|hashes| PayloadDigest(root(hashes))))
    }

    /// Refuses a payload that is not complete or does not have the digest `stated` in the core.
    pub(crate) fn verify(&self, stated: Option<PayloadDigest>) -> Result<(), ArtifactError> {
        let found = self.finish()?;
        let equal = match (stated, found) {
            (Some(stated), Some(found)) => bool::from(stated.0.ct_eq(&found.0)),
            (None, _) => true,
            (Some(_), None) => false,
        };
        // GUARD: payload-digest -> evil_holder_forged_payload_is_not_complete
        if !equal {
            return Err(ArtifactError::PayloadDigestMismatch { payload: self.layout.payload().value() });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::names::{PayloadIndex, SegmentSize};

    fn layout(size: u64) -> Layout {
        Layout::new(PayloadIndex::new(0), size, SegmentSize::MINIMUM).unwrap()
    }

    #[test]
    fn left_length_is_the_largest_power_of_two_below() {
        for (segments, left) in
            [(2, 1), (3, 2), (4, 2), (5, 4), (8, 4), (9, 8), (16, 8), (17, 16), (262_144, 131_072)]
        {
            assert_eq!(left_length(segments), left, "of {segments}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn digest_by_segments_in_any_order_is_plain_blake3(size in 0usize..700_000, step in 1u32..97) {
            let data: Vec<u8> = (0..size).map(|i| u8::try_from(i * 31 % 251).unwrap()).collect();
            let layout = layout(u64::try_from(size).unwrap());
            let mut completion = Completion::new(layout, true);
            let segments = layout.segments();
            // A permutation: multiples of a step coprime to a prime above the count.
            let order = (1..983u32).map(|i| i * step % 983).filter(|i| *i <= segments && *i > 0).map(|i| i - 1);
            for segment in order {
                let span = layout.span(SegmentIndex::new(segment)).unwrap();
                let start = usize::try_from(span.offset).unwrap();
                let plaintext = &data[start..start + span.length];
                completion.record(span.segment, Some(hash_segment(&layout, &span, plaintext)));
            }
            let digest = completion.finish().unwrap().unwrap();
            let plain: [u8; 32] = blake3::hash(&data).into();
            prop_assert_eq!(digest.as_bytes(), &plain);
        }
    }

    #[test]
    fn evil_missing_segment_is_not_complete() {
        let layout = layout(200_000);
        let mut completion = Completion::new(layout, false);
        for segment in [0, 1, 1, 2] {
            completion.record(SegmentIndex::new(segment), None);
        }
        let error = completion.finish().unwrap_err();
        assert_eq!(error, ArtifactError::PayloadIncomplete { payload: 0, expected: 4, found: 3 });
        assert_eq!(error.code(), "PAYLOAD_INCOMPLETE");
        completion.record(SegmentIndex::new(3), None);
        assert_eq!(completion.finish(), Ok(None));
    }
}
