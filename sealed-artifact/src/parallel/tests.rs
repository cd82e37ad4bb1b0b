use std::sync::atomic::AtomicU64;

use proptest::prelude::*;

use super::*;
use crate::fixture::{Artifact, Recipe, plaintext};
use crate::names::PayloadIndex;

#[derive(Default)]
struct Count {
    bytes: AtomicU64,
    segments: AtomicU64,
    cancel_after: Option<u64>,
}

impl Observer for Count {
    fn advanced(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.segments.fetch_add(1, Ordering::Relaxed);
    }

    fn is_cancelled(&self) -> bool {
        self.cancel_after.is_some_and(|limit| self.segments.load(Ordering::Relaxed) >= limit)
    }
}

fn threads(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap()
}

fn opener_of(artifact: &Artifact) -> PayloadOpener {
    let unlocked = artifact.core.unlock(&artifact.content_key()).unwrap();
    unlocked.opener(PayloadIndex::new(0), &artifact.tags[0]).unwrap()
}

fn range(span: &Span) -> std::ops::Range<usize> {
    let start = usize::try_from(span.offset).unwrap();
    start..start + span.length
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn every_way_to_open_gives_the_plaintext(size in 0usize..500_000, count in 1usize..5) {
        let artifact = Recipe::new(9, &[size]).seal();
        let (opener, blob, text) = (opener_of(&artifact), &artifact.payloads[0], plaintext(9_000, size));
        let seen = Count::default();
        let mut out = vec![0; size];
        open_slices(&opener, threads(count), blob, &mut out, &seen).unwrap();
        prop_assert_eq!(&out, &text);
        prop_assert_eq!(seen.bytes.load(Ordering::Relaxed), u64::try_from(size).unwrap());
        let read = |span: &Span, buffer: &mut [u8]| -> Result<(), ArtifactError> {
            buffer.copy_from_slice(&blob[range(span)]);
            Ok(())
        };
        let mut out = vec![0; size];
        open_reading(&opener, threads(count), read, &mut out, &()).unwrap();
        prop_assert_eq!(&out, &text);
        let out = Mutex::new(vec![0; size]);
        let write = |span: &Span, plaintext: &[u8]| -> Result<(), ArtifactError> {
            lock(&out)[range(span)].copy_from_slice(plaintext);
            Ok(())
        };
        open_streaming(&opener, threads(count), read, write, &()).unwrap();
        prop_assert_eq!(&*lock(&out), &text);
    }

    #[test]
    fn sealing_by_threads_opens(size in 0usize..400_000, count in 1usize..5, mapped: bool) {
        let request = Recipe::new(9, &[size]).request();
        let sealer = crate::seal::Sealer::new(&request).unwrap();
        let (payload, text) = (&sealer.payloads()[0], plaintext(1, size));
        let mut blob = vec![0; size];
        if mapped {
            seal_slices(payload, threads(count), &text, &mut blob, &()).unwrap();
        } else {
            let shared = Mutex::new(&mut blob);
            let read = |span: &Span, buffer: &mut [u8]| -> Result<(), ArtifactError> {
                buffer.copy_from_slice(&text[range(span)]);
                Ok(())
            };
            let write = |span: &Span, ciphertext: &[u8]| -> Result<(), ArtifactError> {
                lock(&shared)[range(span)].copy_from_slice(ciphertext);
                Ok(())
            };
            seal_streaming(payload, threads(count), read, write, &()).unwrap();
        }
        let sealed = sealer.finish().unwrap();
        prop_assert_eq!(sealed.core.payloads()[0].blake3.unwrap().to_string(), blake3::hash(&text).to_string());
        let unlocked = sealed.core.unlock(&sealed.content_key).unwrap();
        let opener = unlocked.opener(PayloadIndex::new(0), sealed.tag_tables[0].bytes()).unwrap();
        let mut out = vec![0; size];
        open_slices(&opener, threads(1), &blob, &mut out, &()).unwrap();
        prop_assert_eq!(out, text);
    }
}

#[test]
fn evil_truncated_blob_is_refused() {
    let artifact = Recipe::new(1, &[200_000]).seal();
    let opener = opener_of(&artifact);
    for length in [0, 65_536, 199_999] {
        let seen = Count::default();
        let mut out = vec![0xa5; 200_000];
        let refused =
            open_slices(&opener, threads(2), &artifact.payloads[0][..length], &mut out, &seen).unwrap_err();
        assert_eq!(refused.code(), "LENGTH_MISMATCH");
        assert_eq!(seen.segments.load(Ordering::Relaxed), 0, "no segment was opened");
        assert!(out.iter().all(|byte| *byte == 0xa5));
    }
}

#[test]
fn evil_extended_blob_is_refused() {
    let mut artifact = Recipe::new(1, &[100_000]).seal();
    artifact.payloads[0].push(0);
    let opener = opener_of(&artifact);
    let mut out = vec![0; 100_000];
    let refused = open_slices(&opener, threads(1), &artifact.payloads[0], &mut out, &()).unwrap_err();
    assert_eq!(refused.code(), "LENGTH_MISMATCH");
    let refused =
        open_slices(&opener, threads(1), &artifact.payloads[0][..100_000], &mut vec![0; 100_001], &())
            .unwrap_err();
    assert_eq!(refused.code(), "LENGTH_MISMATCH");
    assert!(out.iter().all(|byte| *byte == 0));
}

#[test]
fn evil_flipped_bit_stops_all_threads_and_is_never_written() {
    let mut artifact = Recipe::new(1, &[10 * 65_536]).seal();
    artifact.payloads[0][3 * 65_536 + 7] ^= 1;
    let opener = opener_of(&artifact);
    let read = |span: &Span, buffer: &mut [u8]| -> Result<(), ArtifactError> {
        buffer.copy_from_slice(&artifact.payloads[0][range(span)]);
        Ok(())
    };
    let text = plaintext(1_000, 10 * 65_536);
    let written = Mutex::new(Vec::new());
    let write = |span: &Span, plaintext: &[u8]| -> Result<(), ArtifactError> {
        assert_eq!(plaintext, &text[range(span)]);
        lock(&written).push(span.segment.value());
        Ok(())
    };
    let refused = open_streaming(&opener, threads(3), read, write, &()).unwrap_err();
    assert_eq!(refused, ArtifactError::SegmentAuthFailed { payload: 0, segment: 3 });
    assert!(!lock(&written).contains(&3));
    let mut out = vec![0xa5; 10 * 65_536];
    assert!(open_slices(&opener, threads(3), &artifact.payloads[0], &mut out, &()).is_err());
    assert!(out[3 * 65_536..4 * 65_536].iter().all(|byte| *byte == 0));
}

#[test]
fn cancelling_stops_the_work() {
    let artifact = Recipe::new(1, &[10 * 65_536]).seal();
    let observer = Count { cancel_after: Some(2), ..Count::default() };
    let mut out = vec![0; 10 * 65_536];
    let stopped = open_slices(&opener_of(&artifact), threads(2), &artifact.payloads[0], &mut out, &observer);
    assert_eq!(stopped.unwrap_err(), ArtifactError::Cancelled);
    assert!(observer.segments.load(Ordering::Relaxed) <= 4);
}

#[test]
fn errors_of_the_source_come_back() {
    #[derive(Debug)]
    enum Broken {
        Artifact,
        Source,
    }
    impl From<ArtifactError> for Broken {
        fn from(_: ArtifactError) -> Self {
            Self::Artifact
        }
    }
    let artifact = Recipe::new(1, &[100]).seal();
    let failed =
        open_reading(&opener_of(&artifact), threads(1), |_, _| Err(Broken::Source), &mut [0; 100], &());
    assert!(matches!(failed, Err(Broken::Source)));
    let failed = open_reading(&opener_of(&artifact), threads(1), |_, _| Ok(()), &mut [0; 100], &());
    assert!(matches!(failed, Err(Broken::Artifact)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// Two threads in any interleaving: every byte is handed out once, and no huge page to both.
    #[test]
    fn windows_are_disjoint_and_whole_and_share_no_huge_page(
        size in 0usize..9_000_000,
        doubled in 0u32..7,
        turns in prop::collection::vec(any::<bool>(), 200),
    ) {
        let segment = crate::names::SegmentSize::parse(65_536 << doubled).unwrap();
        let layout = Layout::new(PayloadIndex::new(0), u64::try_from(size).unwrap(), segment).unwrap();
        let mut bytes = vec![0; size];
        let windows = Windows::new(&layout, &mut bytes);
        let mut taken = [Taken::default(), Taken::default()];
        let mut owners = std::collections::BTreeMap::new();
        let mut segments = 0;
        for thread in turns.into_iter().map(usize::from).chain([0, 1].repeat(200)) {
            let Some((span, window)) = windows.next(&mut taken[thread]) else { continue };
            prop_assert_eq!(window.len(), span.length);
            prop_assert!(window.iter().all(|byte| *byte == 0));
            window.fill(1);
            segments += 1;
            if span.length > 0 {
                let owner = owners.entry(span.offset / TAKE_BYTES).or_insert(thread);
                prop_assert_eq!(*owner, thread);
            }
        }
        prop_assert_eq!(segments, layout.segments());
        prop_assert!(bytes.iter().all(|byte| *byte == 1));
    }
}
