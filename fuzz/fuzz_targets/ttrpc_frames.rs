//! Frames of a connection: however the bytes are cut, the same frames are seen, each begins before it ends, none is lost.

#![no_main]

use fuzz::bounded;
use libfuzzer_sys::fuzz_target;
use protocol::frame::{FrameEvent, Frames, HEADER_BYTES};

fn follow(pieces: &[&[u8]]) -> (Vec<FrameEvent>, bool) {
    let mut frames = Frames::new();
    let mut events = Vec::new();
    for piece in pieces {
        frames.follow(piece, |event| events.push(event));
    }
    (events, frames.is_within())
}

fuzz_target!(|data: &[u8]| {
    let [cut, bytes @ ..] = data else { return };
    let (events, within) = bounded(data.len(), || follow(&[bytes]));
    let at = usize::from(*cut).min(bytes.len());
    let (head, tail) = bytes.split_at(at);
    let single: Vec<&[u8]> = tail.chunks(1).collect();
    assert_eq!(follow(&[&[head], single.as_slice()].concat()), (events.clone(), within));

    // The same by a reader that has all bytes.
    let mut rest = bytes;
    let mut seen = events.iter();
    while let Some((header, behind)) = rest.split_first_chunk::<HEADER_BYTES>() {
        let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
        let Some(FrameEvent::Begins(begun)) = seen.next() else { panic!("a header was not seen") };
        assert_eq!(begun.payload_bytes, length);
        let Some(next) = behind.get(usize::try_from(length).expect("64 bits")..) else {
            assert!(within);
            rest = &[];
            break;
        };
        assert_eq!(seen.next(), Some(&FrameEvent::Ends(*begun)));
        rest = next;
    }
    assert_eq!(seen.next(), None);
    assert!(rest.is_empty() || within);
});
