//! Nonce and associated data of a segment, and the one AEAD call on each side.

use aws_lc_rs::aead::{Aad, Nonce};
use zeroize::Zeroize as _;

use crate::error::{ArtifactError, length};
use crate::keys::PayloadKeys;
use crate::layout::{Layout, Span};
use crate::names::SegmentIndex;
use crate::tags::Tag;

const AAD_LABEL: &[u8; 8] = b"IKSEGv1\0";

/// `N_p XOR (0^4 ‖ u64(s))`.
pub(crate) fn nonce(base: [u8; 12], segment: SegmentIndex) -> [u8; 12] {
    let mut nonce = base;
    for (byte, counter) in nonce.iter_mut().skip(4).zip(u64::from(segment.value()).to_be_bytes()) {
        *byte ^= counter;
    }
    nonce
}

/// `"IKSEGv1" ‖ 0 ‖ u32(p) ‖ u8(last) ‖ 0^3 ‖ u64(s) ‖ u64(size)`.
pub(crate) fn aad(layout: &Layout, span: &Span) -> [u8; 32] {
    let payload = layout.payload().value().to_be_bytes();
    let last = [u8::from(span.last), 0, 0, 0];
    let segment = u64::from(span.segment.value()).to_be_bytes();
    let size = layout.size().to_be_bytes();
    let parts = AAD_LABEL.iter().chain(&payload).chain(&last).chain(&segment).chain(&size);
    let mut aad = [0; 32];
    for (byte, part) in aad.iter_mut().zip(parts) {
        *byte = *part;
    }
    aad
}

/// Encrypts `buffer` in place and returns its tag. The caller sees to it that each segment is encrypted once.
pub(crate) fn seal_in_place(
    keys: &PayloadKeys,
    layout: &Layout,
    span: &Span,
    buffer: &mut [u8],
) -> Result<Tag, ArtifactError> {
    let nonce = Nonce::assume_unique_for_key(nonce(keys.nonce_base, span.segment));
    let sealed = keys.aead.seal_in_place_separate_tag(nonce, Aad::from(aad(layout, span)), buffer);
    let tag = sealed.ok().and_then(|tag| Tag::try_from(tag.as_ref()).ok());
    tag.ok_or(ArtifactError::SegmentAuthFailed {
        payload: layout.payload().value(),
        segment: span.segment.value(),
    })
}

/// Decrypts `ciphertext` into `destination` in one pass. On failure the destination is zeroed.
pub(crate) fn open_into(
    keys: &PayloadKeys,
    layout: &Layout,
    span: &Span,
    ciphertext: &[u8],
    tag: &Tag,
    destination: &mut [u8],
) -> Result<(), ArtifactError> {
    require_segment_length(layout, span, "ciphertext segment", ciphertext)?;
    require_segment_length(layout, span, "destination", destination)?;
    let nonce = Nonce::assume_unique_for_key(nonce(keys.nonce_base, span.segment));
    let aad = Aad::from(aad(layout, span));
    let opened = keys.aead.open_separate_gather(nonce, aad, ciphertext, tag, destination);
    finish_open(layout, span, opened.is_ok(), destination)
}

/// Decrypts `buffer` in place. On failure the buffer is zeroed.
pub(crate) fn open_in_place(
    keys: &PayloadKeys,
    layout: &Layout,
    span: &Span,
    tag: &Tag,
    buffer: &mut [u8],
) -> Result<(), ArtifactError> {
    require_segment_length(layout, span, "segment", buffer)?;
    let nonce = Nonce::assume_unique_for_key(nonce(keys.nonce_base, span.segment));
    let aad = Aad::from(aad(layout, span));
    let opened = keys.aead.open_in_place_separate_tag(nonce, aad, tag, buffer).is_ok();
    finish_open(layout, span, opened, buffer)
}

/// The one place where a segment is released or wiped.
fn finish_open(
    layout: &Layout,
    span: &Span,
    verified: bool,
    plaintext: &mut [u8],
) -> Result<(), ArtifactError> {
    // GUARD: segment-tag -> evil_flipped_ciphertext_bit_releases_nothing, evil_reordered_segments_are_refused
    if !verified {
        plaintext.zeroize();
        return Err(ArtifactError::SegmentAuthFailed {
            payload: layout.payload().value(),
            segment: span.segment.value(),
        });
    }
    Ok(())
}

/// Refuses a slice of another length than the segment has.
pub(crate) fn require_segment_length(
    layout: &Layout,
    span: &Span,
    what: &'static str,
    bytes: &[u8],
) -> Result<(), ArtifactError> {
    // GUARD: segment-length -> evil_segment_of_another_length_is_refused
    if bytes.len() != span.length {
        return Err(ArtifactError::LengthMismatch {
            payload: layout.payload().value(),
            what,
            expected: u64::try_from(span.length).unwrap_or(u64::MAX),
            found: length(bytes),
        });
    }
    Ok(())
}
