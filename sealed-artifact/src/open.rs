//! Opening: core and content key, then commitments, then the tag table, then segments in any order. The types enforce the order.

use std::sync::Arc;

use crate::completion::{Completion, hash_segment};
use crate::core::{Core, PayloadSeal};
use crate::error::ArtifactError;
use crate::keys::{ContentKey, KeySchedule, PayloadKeys};
use crate::layout::Layout;
use crate::names::{PayloadIndex, SegmentIndex};
use crate::seal::{no_such_payload, require_whole};
use crate::segment;
use crate::tags::TagTable;

#[cfg(test)]
mod tests;

/// A core whose key commitments all match a content key. It says nothing about the core's origin.
#[derive(Clone)]
#[expect(missing_debug_implementations, reason = "holds key material")]
pub struct Unlocked {
    payloads: Vec<(Arc<PayloadKeys>, Layout, PayloadSeal)>,
}

impl Core {
    /// Verifies every key commitment against `key`.
    ///
    /// # Errors
    /// `COMMITMENT_MISMATCH` with the first payload that does not match.
    pub fn unlock(&self, key: &ContentKey) -> Result<Unlocked, ArtifactError> {
        let schedule = KeySchedule::new(key, self.parameters_digest());
        let described = self.parameters().payloads().iter().zip(self.payloads());
        let payloads = described.map(|(parameters, seal)| {
            let keys = schedule.payload(parameters.layout.payload())?;
            keys.verify_commitment(parameters.layout.payload(), &seal.commitment)?;
            Ok((Arc::new(keys), parameters.layout, *seal))
        });
        Ok(Unlocked { payloads: payloads.collect::<Result<_, ArtifactError>>()? })
    }
}

impl Unlocked {
    /// An opener for one payload: verifies the tag table.
    ///
    /// # Errors
    /// `LENGTH_MISMATCH`, `TAG_TABLE_MISMATCH`, `NOT_FOUND`.
    pub fn opener(&self, payload: PayloadIndex, tag_table: &[u8]) -> Result<PayloadOpener, ArtifactError> {
        let (keys, layout, seal) =
            self.payloads.get(payload.as_usize()).ok_or_else(|| no_such_payload(payload))?;
        let tags = TagTable::verify(tag_table, layout, seal.tags)?;
        Ok(PayloadOpener { keys: Arc::clone(keys), layout: *layout, seal: *seal, tags })
    }
}

/// Opens segments of one payload, from any number of threads, in any order.
#[expect(missing_debug_implementations, reason = "holds key material")]
pub struct PayloadOpener {
    keys: Arc<PayloadKeys>,
    layout: Layout,
    seal: PayloadSeal,
    tags: TagTable,
}

/// Proof that a segment's tag verified.
#[derive(Debug)]
#[must_use]
pub struct VerifiedSegment {
    layout: Layout,
    segment: SegmentIndex,
}

impl VerifiedSegment {
    /// Zero-based index of the segment.
    #[must_use]
    pub fn segment(&self) -> SegmentIndex {
        self.segment
    }

    /// The part of [`Progress::record`] that takes time: the hash of the segment where `wanted`.
    pub(crate) fn hash(&self, wanted: bool, plaintext: &[u8]) -> Result<Option<[u8; 32]>, ArtifactError> {
        let span = self.layout.span(self.segment)?;
        segment::require_segment_length(&self.layout, &span, "plaintext segment", plaintext)?;
        Ok(wanted.then(|| hash_segment(&self.layout, &span, plaintext)))
    }
}

impl PayloadOpener {
    /// How the payload is cut.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What the core says about the payload.
    #[must_use]
    pub fn seal(&self) -> &PayloadSeal {
        &self.seal
    }

    /// Whether [`Progress::record`] needs to see the plaintext.
    #[must_use]
    pub fn has_payload_digest(&self) -> bool {
        self.seal.blake3.is_some()
    }

    /// Decrypts one segment in one pass from `ciphertext` into `destination`, both of the segment's length.
    ///
    /// The destination is written before the verdict is known and zeroed on failure: it must not be visible to others meanwhile.
    ///
    /// # Errors
    /// `SEGMENT_AUTH_FAILED`, `LENGTH_MISMATCH`, `LIMIT_EXCEEDED` for an index outside the payload.
    pub fn open_into(
        &self,
        segment: SegmentIndex,
        ciphertext: &[u8],
        destination: &mut [u8],
    ) -> Result<VerifiedSegment, ArtifactError> {
        let span = self.layout.span(segment)?;
        let tag = self.tags.tag(segment).ok_or_else(|| self.no_tag(segment))?;
        segment::open_into(&self.keys, &self.layout, &span, ciphertext, &tag, destination)?;
        Ok(VerifiedSegment { layout: self.layout, segment })
    }

    /// Decrypts one segment in place; as [`PayloadOpener::open_into`].
    ///
    /// # Errors
    /// As [`PayloadOpener::open_into`].
    pub fn open_in_place(
        &self,
        segment: SegmentIndex,
        buffer: &mut [u8],
    ) -> Result<VerifiedSegment, ArtifactError> {
        let span = self.layout.span(segment)?;
        let tag = self.tags.tag(segment).ok_or_else(|| self.no_tag(segment))?;
        segment::open_in_place(&self.keys, &self.layout, &span, &tag, buffer)?;
        Ok(VerifiedSegment { layout: self.layout, segment })
    }

    fn no_tag(&self, segment: SegmentIndex) -> ArtifactError {
        ArtifactError::SegmentAuthFailed { payload: self.layout.payload().value(), segment: segment.value() }
    }

    /// A record of what was verified, empty.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress { completion: Completion::new(self.layout, self.has_payload_digest()), seal: self.seal }
    }

    /// Refuses a blob whose length is not the size of the payload.
    ///
    /// # Errors
    /// `LENGTH_MISMATCH`.
    pub fn require_blob_length(&self, length: u64) -> Result<(), ArtifactError> {
        require_whole(&self.layout, "ciphertext", length)
    }
}

/// Which segments of a payload verified: the payload is complete only when [`Progress::finish`] says so.
#[derive(Debug)]
pub struct Progress {
    completion: Completion,
    seal: PayloadSeal,
}

impl Progress {
    /// Records a verified segment and its plaintext, hashing it when the core states a payload digest.
    ///
    /// # Errors
    /// `LENGTH_MISMATCH` when `plaintext` is not that segment.
    pub fn record(&mut self, verified: VerifiedSegment, plaintext: &[u8]) -> Result<(), ArtifactError> {
        let hash = verified.hash(self.seal.blake3.is_some(), plaintext)?;
        self.record_hashed(verified, hash);
        Ok(())
    }

    pub(crate) fn record_hashed(&mut self, verified: VerifiedSegment, hash: Option<[u8; 32]>) {
        let VerifiedSegment { segment, .. } = verified;
        self.completion.record(segment, hash);
    }

    /// Whether the payload is complete: all segments verified, and the payload digest where the core states one.
    ///
    /// # Errors
    /// `PAYLOAD_INCOMPLETE`, `PAYLOAD_DIGEST_MISMATCH`.
    pub fn finish(&self) -> Result<(), ArtifactError> {
        self.completion.verify(self.seal.blake3)
    }
}
