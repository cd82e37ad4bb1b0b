//! Segments and tag tables under a right key. Whatever was altered, what is released is the plaintext that was sealed.

#![no_main]

use fuzz::fixed::ARTIFACT;
use fuzz::stream::Choices;
use libfuzzer_sys::fuzz_target;
use sealed_artifact::names::{PayloadIndex, SegmentIndex};

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices::new(data);
    let which = usize::from(choices.u8() & 1);
    let mut blob = ARTIFACT.ciphertexts[which].clone();
    let mut tags = ARTIFACT.tags[which].bytes().to_vec();
    let plaintext = &ARTIFACT.plaintexts[which];
    let unlocked = ARTIFACT.core.unlock(&ARTIFACT.key).expect("the right key");
    match choices.u8() % 4 {
        0 => alter(&mut tags, &mut choices),
        1 => alter(&mut blob, &mut choices),
        2 => blob.truncate(choices.u32() as usize % (blob.len() + 1)),
        _ => {}
    }
    let index = PayloadIndex::new(u32::from(choices.u8() % 3));
    let opener = match unlocked.opener(index, &tags) {
        Ok(opener) => opener,
        Err(error) => {
            let changed = tags != ARTIFACT.tags[which].bytes() || index.as_usize() != which;
            assert!(changed, "refused without a reason: {error}");
            return;
        }
    };
    assert_eq!(index.as_usize(), which);
    let layout = *opener.layout();
    let mut progress = opener.progress();
    let mut verified = 0;
    for _ in 0..4 {
        let segment = SegmentIndex::new(u32::from(choices.u8()) % (layout.segments() + 1));
        let Ok(span) = layout.span(segment) else { continue };
        let start = span.offset as usize;
        let source = blob.get(start..).unwrap_or_default();
        let source = &source[..source.len().min(span.length)];
        let mut out = vec![0xEE; span.length];
        match opener.open_into(segment, source, &mut out) {
            Ok(proof) => {
                assert_eq!(out, plaintext[start..start + span.length]);
                progress.record(proof, &out).expect("the segment that was opened");
                verified += 1;
            }
            Err(error) if error.code() == "SEGMENT_AUTH_FAILED" => assert!(out.iter().all(|b| *b == 0)),
            Err(_) => assert!(out.iter().all(|b| *b == 0xEE)),
        }
    }
    if progress.finish().is_ok() {
        assert!(verified >= layout.segments());
    }
});

fn alter(bytes: &mut [u8], choices: &mut Choices<'_>) {
    let at = choices.u32() as usize % bytes.len();
    for (byte, change) in bytes[at..].iter_mut().zip(choices.bytes(8)) {
        *byte ^= change;
    }
}
