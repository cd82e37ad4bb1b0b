//! Segment arithmetic: how a payload is cut.

use crate::error::{ArtifactError, limit};
use crate::names::{PayloadIndex, SegmentIndex, SegmentSize};

/// Largest number of segments in one payload.
pub const MAXIMUM_SEGMENTS: u64 = 1 << 18;
/// Largest payload in bytes.
pub const MAXIMUM_PAYLOAD_SIZE: u64 = 1 << 40;

/// Where one segment lies in its payload; the same offset in plaintext and ciphertext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Zero-based index of the segment.
    pub segment: SegmentIndex,
    /// First byte.
    pub offset: u64,
    /// Number of bytes; zero only for the single segment of an empty payload.
    pub length: usize,
    /// Whether this is the last segment.
    pub last: bool,
}

/// How a payload of a given size is cut into segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    payload: PayloadIndex,
    size: u64,
    segment_size: SegmentSize,
    segments: u32,
}

impl Layout {
    /// The layout of payload `payload` with `size` bytes of plaintext.
    ///
    /// # Errors
    /// `LIMIT_EXCEEDED` when the payload is too large or has too many segments.
    pub fn new(payload: PayloadIndex, size: u64, segment_size: SegmentSize) -> Result<Self, ArtifactError> {
        limit("payload size", 0, MAXIMUM_PAYLOAD_SIZE, size)?;
        let segments = size.div_ceil(segment_size.bytes()).max(1);
        limit("segments in one payload", 1, MAXIMUM_SEGMENTS, segments)?;
        Ok(Self { payload, size, segment_size, segments: u32::try_from(segments).unwrap_or(u32::MAX) })
    }

    /// Zero-based index of the payload.
    #[must_use]
    pub fn payload(&self) -> PayloadIndex {
        self.payload
    }

    /// Bytes of plaintext, and of ciphertext.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of all segments but the last.
    #[must_use]
    pub fn segment_size(&self) -> SegmentSize {
        self.segment_size
    }

    /// Number of segments, at least one.
    #[must_use]
    pub fn segments(&self) -> u32 {
        self.segments
    }

    /// Length of the tag table in bytes.
    #[must_use]
    pub fn tag_table_length(&self) -> u64 {
        u64::from(self.segments) * 16
    }

    /// Where `segment` lies.
    ///
    /// # Errors
    /// `LIMIT_EXCEEDED` when the payload has no such segment.
    pub fn span(&self, segment: SegmentIndex) -> Result<Span, ArtifactError> {
        let last = self.segments - 1;
        limit("segment index", 0, u64::from(last), u64::from(segment.value()))?;
        let offset = u64::from(segment.value()) * self.segment_size.bytes();
        let length = (self.size - offset).min(self.segment_size.bytes());
        Ok(Span {
            segment,
            offset,
            length: usize::try_from(length).unwrap_or(usize::MAX),
            last: segment.value() == last,
        })
    }

    /// The segment that holds the byte at `offset`.
    ///
    /// # Errors
    /// `LIMIT_EXCEEDED` when the payload has no such byte.
    pub fn segment_at(&self, offset: u64) -> Result<SegmentIndex, ArtifactError> {
        limit("offset", 0, self.size.saturating_sub(1), offset)?;
        Ok(SegmentIndex::new(u32::try_from(offset / self.segment_size.bytes()).unwrap_or(u32::MAX)))
    }

    /// All segments in order.
    pub fn spans(&self) -> impl Iterator<Item = Span> + use<> {
        let layout = *self;
        (0..self.segments).filter_map(move |segment| layout.span(SegmentIndex::new(segment)).ok())
    }
}

/// The segment size for `size` bytes, starting from `preferred`: raised until the payload fits into the allowed number of segments.
///
/// `None` when even the largest size is too small: the input is to be split, see [`split`].
#[must_use]
pub fn choose_segment_size(size: u64, preferred: SegmentSize) -> Option<SegmentSize> {
    let mut chosen = preferred;
    while size.div_ceil(chosen.bytes()) > MAXIMUM_SEGMENTS {
        chosen = chosen.larger()?;
    }
    (size <= MAXIMUM_PAYLOAD_SIZE).then_some(chosen)
}

/// Sizes of the payloads into which an input of `size` bytes is split, with their segment size.
///
/// One payload unless the input exceeds the largest payload.
#[must_use]
pub fn split(size: u64, preferred: SegmentSize) -> (Vec<u64>, SegmentSize) {
    if let Some(segment_size) = choose_segment_size(size, preferred) {
        return (vec![size], segment_size);
    }
    let whole = size / MAXIMUM_PAYLOAD_SIZE;
    let rest = size % MAXIMUM_PAYLOAD_SIZE;
    let mut sizes: Vec<u64> = (0..whole).map(|_| MAXIMUM_PAYLOAD_SIZE).collect();
    if rest > 0 {
        sizes.push(rest);
    }
    (sizes, SegmentSize::MAXIMUM)
}
