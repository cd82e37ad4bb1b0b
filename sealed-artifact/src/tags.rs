//! The tag table of a payload: one AES-GCM tag per segment, verified as a whole before the first segment is opened.

use crate::digest::TagTableDigest;
use crate::error::{ArtifactError, Found, length};
use crate::layout::Layout;
use crate::names::SegmentIndex;

/// The 16-byte authentication tag of one segment.
pub type Tag = [u8; 16];

/// A tag table whose length and digest match the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagTable(Vec<u8>);

impl TagTable {
    /// Verifies untrusted bytes against the layout and the digest that the core states.
    ///
    /// # Errors
    /// `LENGTH_MISMATCH`, `TAG_TABLE_MISMATCH`.
    pub fn verify(bytes: &[u8], layout: &Layout, stated: TagTableDigest) -> Result<Self, ArtifactError> {
        let payload = layout.payload().value();
        let (expected, found) = (layout.tag_table_length(), length(bytes));
        // GUARD: tag-table-length -> evil_tag_table_of_another_length_is_refused
        if expected != found {
            return Err(ArtifactError::LengthMismatch { payload, what: "tag table", expected, found });
        }
        let digest = TagTableDigest::of(bytes);
        // GUARD: tag-table-digest -> evil_forged_tag_is_refused_before_any_segment
        if digest != stated {
            let (expected, found) = (Found::value(stated), Found::value(digest));
            return Err(ArtifactError::TagTableMismatch { payload, expected, found });
        }
        Ok(Self(bytes.to_vec()))
    }

    /// A table that a sealer filled itself.
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// All tags in segment order.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// SHA-256 of the table.
    #[must_use]
    pub fn digest(&self) -> TagTableDigest {
        TagTableDigest::of(&self.0)
    }

    /// The tag of one segment.
    pub(crate) fn tag(&self, segment: SegmentIndex) -> Option<Tag> {
        let start = segment.as_usize().checked_mul(16)?;
        self.0.get(start..)?.first_chunk().copied()
    }
}
