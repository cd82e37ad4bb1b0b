//! Frames of ttrpc: where they begin and end in a stream of bytes, without keeping any of it.
//!
//! A frame is a header of 10 bytes, big-endian (length of the payload: 4, stream id: 4, type: 1, flags: 1), and the
//! payload (ttrpc `PROTOCOL.md`). Whoever owns a connection feeds [`Frames`] what passes, and learns from it what the
//! other side has announced, is in the middle of, or has finished.

use std::fmt;

/// Bytes of a header.
pub const HEADER_BYTES: usize = 10;
/// Longest payload that is taken: 4 MiB. A longer one is read, thrown away, and answered with an error.
pub const MAXIMUM_PAYLOAD_BYTES: u32 = 4 << 20;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// A call.
    Request,
    /// Its answer.
    Response,
    /// A part of a stream.
    Data,
    /// No type that ttrpc knows.
    Unknown(u8),
}

/// What a frame says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes of payload that it announces.
    pub payload_bytes: u32,
    /// The call that it belongs to.
    pub stream: u32,
    /// What it is.
    pub kind: FrameKind,
}

impl FrameHeader {
    /// Reads a header. Every one is well-formed: what it announces is another question.
    #[must_use]
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h, kind, _flags] = *bytes;
        let kind = match kind {
            1 => FrameKind::Request,
            2 => FrameKind::Response,
            3 => FrameKind::Data,
            other => FrameKind::Unknown(other),
        };
        Self {
            payload_bytes: u32::from_be_bytes([a, b, c, d]),
            stream: u32::from_be_bytes([e, f, g, h]),
            kind,
        }
    }

    /// Whether its payload is longer than what is taken.
    #[must_use]
    pub const fn is_oversize(&self) -> bool {
        self.payload_bytes > MAXIMUM_PAYLOAD_BYTES
    }
}

/// Something that happened in a stream of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameEvent {
    /// A header is complete; its payload follows.
    Begins(FrameHeader),
    /// The last byte of this frame was seen.
    Ends(FrameHeader),
}

/// Follows one direction of a connection. It holds one header, whatever passes.
#[derive(Clone, Default)]
pub struct Frames {
    header: [u8; HEADER_BYTES],
    /// Bytes of the header that were seen.
    filled: usize,
    /// The frame whose payload passes, and how much of it is missing.
    payload: Option<(FrameHeader, u32)>,
}

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frames").field("filled", &self.filled).field("payload", &self.payload).finish()
    }
}

impl Frames {
    /// At the beginning of a connection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a frame has begun and not ended.
    #[must_use]
    pub const fn is_within(&self) -> bool {
        self.filled > 0 || self.payload.is_some()
    }

    /// Follows bytes that passed, in any pieces; `seen` is told of each header and each end, in order.
    pub fn follow(&mut self, bytes: &[u8], seen: impl FnMut(FrameEvent)) {
        self.follow_payloads(bytes, seen, |_, _, _| ());
    }

    /// As [`Self::follow`]; `payload` is handed the pieces of each payload, each with its offset.
    pub fn follow_payloads(
        &mut self,
        mut bytes: &[u8],
        mut seen: impl FnMut(FrameEvent),
        mut payload: impl FnMut(FrameHeader, u32, &[u8]),
    ) {
        while !bytes.is_empty() {
            if let Some((header, missing)) = self.payload {
                let passed = u32::try_from(bytes.len()).unwrap_or(u32::MAX).min(missing);
                let (piece, rest) = bytes
                    .split_at_checked(usize::try_from(passed).unwrap_or(usize::MAX))
                    .unwrap_or((bytes, b""));
                payload(header, header.payload_bytes - missing, piece);
                bytes = rest;
                self.pass(header, missing - passed, &mut seen);
                continue;
            }
            let Some((first, rest)) = bytes.split_first() else { return };
            bytes = rest;
            if let Some(place) = self.header.get_mut(self.filled) {
                *place = *first;
                self.filled += 1;
            }
            if self.filled == HEADER_BYTES {
                self.filled = 0;
                let header = FrameHeader::parse(&self.header);
                seen(FrameEvent::Begins(header));
                self.pass(header, header.payload_bytes, &mut seen);
            }
        }
    }

    fn pass(&mut self, header: FrameHeader, missing: u32, seen: &mut impl FnMut(FrameEvent)) {
        if missing == 0 {
            self.payload = None;
            seen(FrameEvent::Ends(header));
        } else {
            self.payload = Some((header, missing));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap();
        [&length.to_be_bytes()[..], &stream.to_be_bytes(), &[kind, 0], payload].concat()
    }

    fn events(pieces: &[&[u8]]) -> (Vec<FrameEvent>, Frames) {
        let mut frames = Frames::new();
        let mut events = Vec::new();
        for piece in pieces {
            frames.follow(piece, |event| events.push(event));
        }
        (events, frames)
    }

    #[test]
    fn a_frame_begins_and_ends() {
        let bytes = frame(1, 3, b"abc");
        let header = FrameHeader { payload_bytes: 3, stream: 3, kind: FrameKind::Request };
        let (seen, frames) = events(&[&bytes]);
        assert_eq!(seen, [FrameEvent::Begins(header), FrameEvent::Ends(header)]);
        assert!(!frames.is_within());
        for cut in 1..bytes.len() {
            let (seen, frames) = events(&[&bytes[..cut]]);
            assert!(frames.is_within(), "{cut}");
            assert_eq!(seen.len(), usize::from(cut >= HEADER_BYTES), "{cut}");
        }
    }

    #[test]
    fn a_frame_without_payload_ends_with_its_header() {
        let (seen, frames) = events(&[&frame(2, 1, b"")]);
        assert_eq!(seen.len(), 2);
        assert!(!frames.is_within());
    }

    #[test]
    fn lengths_up_to_4_mib_are_taken() {
        let header = |payload_bytes| FrameHeader { payload_bytes, stream: 1, kind: FrameKind::Request };
        assert!(!header(4 << 20).is_oversize());
        assert!(header((4 << 20) + 1).is_oversize());
        assert!(header(u32::MAX).is_oversize());
    }

    proptest! {
        /// However the bytes are cut, the same is seen.
        #[test]
        fn pieces_do_not_matter(
            payloads in prop::collection::vec((any::<u8>(), any::<u32>(), prop::collection::vec(any::<u8>(), 0..40)), 0..6),
            cuts in prop::collection::vec(0_usize..200, 0..12),
        ) {
            let bytes: Vec<u8> = payloads.iter().flat_map(|(kind, stream, payload)| frame(*kind, *stream, payload)).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.push(0);
            cuts.push(bytes.len());
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            let (seen, frames) = events(&pieces);
            prop_assert_eq!(&seen, &events(&[&bytes]).0);
            prop_assert_eq!(seen.len(), payloads.len() * 2);
            prop_assert!(!frames.is_within());
            let ends: Vec<u32> = seen.iter().filter_map(|event| match event {
                FrameEvent::Ends(header) => Some(header.stream),
                FrameEvent::Begins(_) => None,
            }).collect();
            prop_assert_eq!(ends, payloads.iter().map(|(_, stream, _)| *stream).collect::<Vec<_>>());
        }
    }
}
