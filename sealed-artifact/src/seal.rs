//! Sealing: one fresh key and id, each segment encrypted once, from any number of threads, into a core.

use std::sync::{Mutex, PoisonError};

use aws_lc_rs::aead::{Aad, Nonce};

use crate::completion::{Completion, hash_segment};
use crate::core::{Core, PayloadSeal};
use crate::digest::SealerKeyDigest;
use crate::error::{ArtifactError, Found};
use crate::keys::{ContentKey, KeySchedule, PayloadKeys, fill_random};
use crate::layout::{Layout, Span, split};
use crate::names::{
    ArtifactId, Counter, EnvironmentTag, Family, MediaType, PayloadIndex, PayloadName, SegmentIndex,
    SegmentSize,
};
use crate::parameters::{Parameters, PayloadParameters};
use crate::segment;
use crate::tags::{Tag, TagTable};

#[cfg(test)]
mod tests;

/// One input to be sealed.
#[derive(Clone, Debug)]
pub struct SealInput {
    /// Media type of the plaintext.
    pub media_type: MediaType,
    /// File name.
    pub name: PayloadName,
    /// Size in bytes; the input must not change while it is sealed.
    pub size: u64,
}

/// What is to be sealed, and how. Key and id are never part of a request.
#[derive(Clone, Debug)]
pub struct SealRequest {
    /// Rollback counter.
    pub counter: Counter,
    /// Environment tag.
    pub environment: EnvironmentTag,
    /// Rollback family.
    pub family: Family,
    /// Inputs in order.
    pub inputs: Vec<SealInput>,
    /// Whether the core states payload digests; without them holders of the key can forge payloads.
    pub payload_digests: bool,
    /// Key that will sign the core, if one will.
    pub sealer: Option<SealerKeyDigest>,
    /// Smallest segment size; raised where a payload would have too many segments.
    pub segment_size: SegmentSize,
}

/// Which bytes of which input make up a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputRange {
    /// Position in [`SealRequest::inputs`].
    pub input: usize,
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
}

/// A seal in progress. Dropping it forgets key and id: an interrupted seal starts over with new ones.
#[expect(missing_debug_implementations, reason = "holds key material")]
pub struct Sealer {
    key: ContentKey,
    parameters: Parameters,
    payloads: Vec<PayloadSealer>,
}

impl Sealer {
    /// Starts a seal with a fresh content key and artifact id.
    ///
    /// # Errors
    /// `LIMIT_EXCEEDED` or `MALFORMED` for a request outside the limits, `RANDOM_UNAVAILABLE`.
    pub fn new(request: &SealRequest) -> Result<Self, ArtifactError> {
        let mut id = [0; 32];
        fill_random(&mut id)?;
        Self::with_material(request, ContentKey::generate()?, ArtifactId::new(id))
    }

    /// The seal under a given key and id: for vectors, which are made inside this crate.
    pub(crate) fn with_material(
        request: &SealRequest,
        key: ContentKey,
        id: ArtifactId,
    ) -> Result<Self, ArtifactError> {
        let mut ranges = Vec::new();
        let mut payloads = Vec::new();
        for (input_index, input) in request.inputs.iter().enumerate() {
            let (sizes, segment_size) = split(input.size, request.segment_size);
            let mut offset = 0;
            for (part, size) in sizes.iter().enumerate() {
                let index = PayloadIndex::new(u32::try_from(payloads.len()).unwrap_or(u32::MAX));
                let name = if sizes.len() == 1 {
                    input.name.clone()
                } else {
                    PayloadName::parse(&format!("{}.{part:05}", input.name))?
                };
                payloads.push(PayloadParameters {
                    media_type: input.media_type.clone(),
                    name,
                    layout: Layout::new(index, *size, segment_size)?,
                });
                ranges.push(InputRange { input: input_index, offset, length: *size });
                offset += size;
            }
        }
        let parameters = Parameters::new(
            id,
            request.family.clone(),
            request.counter,
            request.environment.clone(),
            request.sealer,
            payloads,
        )?;
        let schedule = KeySchedule::new(&key, parameters.digest());
        let payloads = parameters.payloads().iter().zip(ranges).map(|(payload, range)| {
            let layout = payload.layout;
            let keys = schedule.payload(layout.payload())?;
            Ok(PayloadSealer::new(keys, layout, range, request.payload_digests))
        });
        let payloads = payloads.collect::<Result<Vec<_>, ArtifactError>>()?;
        Ok(Self { key, parameters, payloads })
    }

    /// The parameters of the artifact.
    #[must_use]
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The payloads to be sealed, in order.
    #[must_use]
    pub fn payloads(&self) -> &[PayloadSealer] {
        &self.payloads
    }

    /// Ends the seal: the core, the tag tables and the content key.
    ///
    /// # Errors
    /// `PAYLOAD_INCOMPLETE` when a segment was not sealed, `LIMIT_EXCEEDED` for a core that is too large.
    pub fn finish(self) -> Result<Sealed, ArtifactError> {
        let mut seals = Vec::with_capacity(self.payloads.len());
        let mut tag_tables = Vec::with_capacity(self.payloads.len());
        for payload in self.payloads {
            let (seal, tags) = payload.finish()?;
            seals.push(seal);
            tag_tables.push(tags);
        }
        let core = Core::new(self.parameters, seals)?;
        Ok(Sealed { core, content_key: self.key, tag_tables })
    }
}

/// What a seal produced beside the ciphertext.
#[expect(missing_debug_implementations, reason = "holds key material")]
pub struct Sealed {
    /// The key, to be granted and then dropped.
    pub content_key: ContentKey,
    /// The core.
    pub core: Core,
    /// One tag table per payload.
    pub tag_tables: Vec<TagTable>,
}

/// One payload being sealed; shared by threads.
#[expect(missing_debug_implementations, reason = "holds key material")]
pub struct PayloadSealer {
    keys: PayloadKeys,
    layout: Layout,
    range: InputRange,
    state: Mutex<SealState>,
}

struct SealState {
    claimed: Completion,
    sealed: Completion,
    tags: Vec<u8>,
    digest: bool,
}

impl PayloadSealer {
    fn new(keys: PayloadKeys, layout: Layout, range: InputRange, digest: bool) -> Self {
        let tags = vec![0; SegmentIndex::new(layout.segments()).as_usize() * 16];
        let state = SealState {
            claimed: Completion::new(layout, false),
            sealed: Completion::new(layout, digest),
            tags,
            digest,
        };
        Self { keys, layout, range, state: Mutex::new(state) }
    }

    /// How the payload is cut.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Which bytes of which input make up this payload.
    #[must_use]
    pub fn input_range(&self) -> InputRange {
        self.range
    }

    /// Encrypts one segment in place. Each segment is sealed once: a nonce is never used for two plaintexts.
    ///
    /// # Errors
    /// `SEGMENT_REUSED`, `LENGTH_MISMATCH`, `LIMIT_EXCEEDED` for an index outside the payload.
    pub fn seal_in_place(&self, segment: SegmentIndex, buffer: &mut [u8]) -> Result<(), ArtifactError> {
        let span = self.layout.span(segment)?;
        segment::require_segment_length(&self.layout, &span, "segment", buffer)?;
        let digest = self.claim(&span)?;
        let hash = digest.then(|| hash_segment(&self.layout, &span, buffer));
        let tag = segment::seal_in_place(&self.keys, &self.layout, &span, buffer)?;
        self.record(&span, tag, hash)
    }

    /// Encrypts one segment from `plaintext` into `ciphertext` in one pass; as [`PayloadSealer::seal_in_place`].
    ///
    /// # Errors
    /// As [`PayloadSealer::seal_in_place`].
    pub fn seal_into(
        &self,
        segment: SegmentIndex,
        plaintext: &[u8],
        ciphertext: &mut [u8],
    ) -> Result<(), ArtifactError> {
        let span = self.layout.span(segment)?;
        segment::require_segment_length(&self.layout, &span, "plaintext segment", plaintext)?;
        segment::require_segment_length(&self.layout, &span, "destination", ciphertext)?;
        let digest = self.claim(&span)?;
        let hash = digest.then(|| hash_segment(&self.layout, &span, plaintext));
        let nonce = Nonce::assume_unique_for_key(segment::nonce(self.keys.nonce_base, segment));
        let aad = Aad::from(segment::aad(&self.layout, &span));
        let mut tag: Tag = [0; 16];
        let sealed =
            self.keys.aead.seal_out_of_place_scatter(nonce, aad, plaintext, ciphertext, &[], &mut tag);
        sealed.map_err(|_| self.failed(segment))?;
        self.record(&span, tag, hash)
    }

    fn failed(&self, segment: SegmentIndex) -> ArtifactError {
        ArtifactError::SegmentAuthFailed { payload: self.layout.payload().value(), segment: segment.value() }
    }

    /// Claims a segment; tells whether a payload digest is wanted.
    fn claim(&self, span: &Span) -> Result<bool, ArtifactError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // GUARD: segment-sealed-once -> evil_sealing_a_segment_twice_is_refused
        if state.claimed.contains(span.segment) {
            return Err(ArtifactError::SegmentReused {
                payload: self.layout.payload().value(),
                segment: span.segment.value(),
            });
        }
        state.claimed.record(span.segment, None);
        Ok(state.digest)
    }

    fn record(&self, span: &Span, tag: Tag, hash: Option<[u8; 32]>) -> Result<(), ArtifactError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let start = span.segment.as_usize() * 16;
        let slot = state.tags.get_mut(start..start + 16).ok_or_else(|| self.failed(span.segment))?;
        slot.copy_from_slice(&tag);
        state.sealed.record(span.segment, hash);
        Ok(())
    }

    fn finish(self) -> Result<(PayloadSeal, TagTable), ArtifactError> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let blake3 = state.sealed.finish()?;
        let tags = TagTable::new(state.tags);
        Ok((PayloadSeal { blake3, commitment: self.keys.commitment, tags: tags.digest() }, tags))
    }
}

/// Refuses an input whose size is not the one that was announced.
pub(crate) fn require_whole(layout: &Layout, what: &'static str, found: u64) -> Result<(), ArtifactError> {
    // GUARD: blob-length -> evil_truncated_blob_is_refused, evil_extended_blob_is_refused
    if found != layout.size() {
        let payload = layout.payload().value();
        return Err(ArtifactError::LengthMismatch { payload, what, expected: layout.size(), found });
    }
    Ok(())
}

/// A payload index that the artifact does not have.
pub(crate) fn no_such_payload(payload: PayloadIndex) -> ArtifactError {
    ArtifactError::NotFound { what: Found::value(format_args!("payload {}", payload.value())) }
}
