use proptest::prelude::*;

use super::*;
use crate::fixture::{Artifact, Recipe, plaintext, segment};

const SEGMENT: usize = 65_536;

fn opener_of(artifact: &Artifact) -> PayloadOpener {
    let unlocked = artifact.core.unlock(&artifact.content_key()).unwrap();
    unlocked.opener(PayloadIndex::new(0), &artifact.tags[0]).unwrap()
}

/// Opens segments of payload 0 in the given order; what was released, and the progress.
fn open_in_order(artifact: &Artifact, order: impl Iterator<Item = u32>) -> (Vec<u8>, Progress) {
    let opener = opener_of(artifact);
    let mut out = vec![0; artifact.payloads[0].len()];
    let mut progress = opener.progress();
    for index in order {
        let span = opener.layout().span(segment(index)).unwrap();
        let range =
            usize::try_from(span.offset).unwrap()..usize::try_from(span.offset).unwrap() + span.length;
        let window = &mut out[range.clone()];
        let verified = opener.open_into(span.segment, &artifact.payloads[0][range], window).unwrap();
        progress.record(verified, window).unwrap();
    }
    (out, progress)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn seek_is_sequential(size in 1usize..400_000, turn in 0u32..7) {
        let artifact = Recipe::new(5, &[size]).seal();
        let count = u32::try_from(size.div_ceil(SEGMENT)).unwrap();
        let (sequential, progress) = open_in_order(&artifact, 0..count);
        prop_assert_eq!(progress.finish(), Ok(()));
        prop_assert_eq!(&sequential, &plaintext(5_000, size));
        let (seeking, progress) = open_in_order(&artifact, (0..count).rev().map(|index| (index + turn) % count));
        prop_assert_eq!(progress.finish(), Ok(()));
        prop_assert_eq!(seeking, sequential);
    }
}

#[test]
fn evil_wrong_content_key_releases_nothing() {
    let artifact = Recipe::new(1, &[10]).seal();
    let other = Recipe::new(2, &[10]).seal();
    let refused = artifact.core.unlock(&other.content_key()).err().unwrap();
    assert_eq!(refused, ArtifactError::CommitmentMismatch { payload: 0 });
    assert_eq!(refused.code(), "COMMITMENT_MISMATCH");
}

#[test]
fn evil_tag_table_of_another_length_is_refused() {
    let artifact = Recipe::new(1, &[SEGMENT + 1]).seal();
    let unlocked = artifact.core.unlock(&artifact.content_key()).unwrap();
    for table in [&artifact.tags[0][..16], &[artifact.tags[0].as_slice(), &[0; 16]].concat(), &[]] {
        let refused = unlocked.opener(PayloadIndex::new(0), table).err().unwrap();
        assert_eq!(refused.code(), "LENGTH_MISMATCH");
    }
    assert_eq!(unlocked.opener(PayloadIndex::new(1), &artifact.tags[0]).err().unwrap().code(), "NOT_FOUND");
}

#[test]
fn evil_forged_tag_is_refused_before_any_segment() {
    let artifact = Recipe::new(1, &[SEGMENT + 1]).seal();
    let unlocked = artifact.core.unlock(&artifact.content_key()).unwrap();
    let mut table = artifact.tags[0].clone();
    table[20] ^= 1;
    let refused = unlocked.opener(PayloadIndex::new(0), &table).err().unwrap();
    assert_eq!(refused.code(), "TAG_TABLE_MISMATCH");
}

#[test]
fn evil_flipped_ciphertext_bit_releases_nothing() {
    let artifact = Recipe::new(1, &[SEGMENT + 100]).seal();
    let opener = opener_of(&artifact);
    let mut ciphertext = artifact.payloads[0][SEGMENT..].to_vec();
    ciphertext[50] ^= 0x80;
    let mut destination = vec![0xa5; 100];
    let refused = opener.open_into(segment(1), &ciphertext, &mut destination).unwrap_err();
    assert_eq!(refused, ArtifactError::SegmentAuthFailed { payload: 0, segment: 1 });
    assert_eq!(destination, [0; 100]);
    let refused = opener.open_in_place(segment(1), &mut ciphertext).unwrap_err();
    assert_eq!(refused.code(), "SEGMENT_AUTH_FAILED");
    assert_eq!(ciphertext, [0; 100]);
}

#[test]
fn evil_reordered_segments_are_refused() {
    let artifact = Recipe::new(1, &[2 * SEGMENT]).seal();
    let opener = opener_of(&artifact);
    let mut destination = vec![0xa5; SEGMENT];
    let refused =
        opener.open_into(segment(0), &artifact.payloads[0][SEGMENT..], &mut destination).unwrap_err();
    assert_eq!(refused.code(), "SEGMENT_AUTH_FAILED");
    assert!(destination.iter().all(|byte| *byte == 0));
}

#[test]
fn evil_segment_of_another_length_is_refused() {
    let artifact = Recipe::new(1, &[SEGMENT + 100]).seal();
    let opener = opener_of(&artifact);
    let ciphertext = &artifact.payloads[0][SEGMENT..];
    let mut destination = vec![0xa5; 100];
    for short in [&ciphertext[..99], &artifact.payloads[0][SEGMENT - 1..], &[]] {
        let refused = opener.open_into(segment(1), short, &mut destination).unwrap_err();
        assert_eq!(refused.code(), "LENGTH_MISMATCH");
    }
    assert_eq!(
        opener.open_into(segment(1), ciphertext, &mut destination[..99]).unwrap_err().code(),
        "LENGTH_MISMATCH"
    );
    assert_eq!(opener.open_in_place(segment(2), &mut destination).unwrap_err().code(), "LIMIT_EXCEEDED");
    assert_eq!(destination, [0xa5; 100]);
}

#[test]
fn evil_holder_forged_payload_is_not_complete() {
    let artifact = Recipe::new(1, &[10]).seal();
    let core = artifact.forged_core(|seals| seals[0].blake3.as_mut().unwrap().0[0] ^= 1);
    let unlocked = core.unlock(&artifact.content_key()).unwrap();
    let opener = unlocked.opener(PayloadIndex::new(0), &artifact.tags[0]).unwrap();
    let mut progress = opener.progress();
    assert_eq!(progress.finish().unwrap_err().code(), "PAYLOAD_INCOMPLETE");
    let mut buffer = artifact.payloads[0].clone();
    let verified = opener.open_in_place(segment(0), &mut buffer).unwrap();
    progress.record(verified, &buffer).unwrap();
    assert_eq!(progress.finish().unwrap_err().code(), "PAYLOAD_DIGEST_MISMATCH");
}
