//! Numbers, texts and byte strings as the specification writes them: big-endian, lengths in front, one encoding of everything.

use super::error::AuditError;
use crate::error::shortened;

/// Longest text of a record in bytes; the writer shortens.
pub(super) const MAX_TEXT: usize = 128;

/// Appends parts.
#[derive(Debug, Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    pub(super) fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(super) fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    /// Bytes of a length that is known.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Bytes behind their length in two bytes. Callers have none that are longer.
    pub(super) fn sized(&mut self, bytes: &[u8]) -> &mut Self {
        let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        self.bytes(&length.to_be_bytes()).bytes(bytes.get(..usize::from(length)).unwrap_or_default())
    }

    /// A text, shortened to [`MAX_TEXT`].
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.sized(shortened(text, MAX_TEXT).as_bytes())
    }

    /// How many, for a list that is at most so long.
    pub(super) fn count(&mut self, count: usize) -> &mut Self {
        self.u8(u8::try_from(count).unwrap_or(u8::MAX))
    }
}

/// Takes parts from untrusted bytes; none is copied before its length is known to be there.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { bytes, what }
    }

    pub(super) const fn malformed(&self) -> AuditError {
        AuditError::Malformed { what: self.what }
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], AuditError> {
        let (taken, rest) = self.bytes.split_at_checked(length).ok_or(self.malformed())?;
        self.bytes = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], AuditError> {
        self.take(N)?.try_into().map_err(|_| self.malformed())
    }

    pub(super) fn u8(&mut self) -> Result<u8, AuditError> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, AuditError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, AuditError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub(super) fn sized(&mut self, most: usize) -> Result<&'a [u8], AuditError> {
        let length = usize::from(u16::from_be_bytes(self.array()?));
        // GUARD: audit-length-cap -> evil_host_lengths_in_a_record
        if length > most {
            return Err(self.malformed());
        }
        self.take(length)
    }

    pub(super) fn text(&mut self) -> Result<String, AuditError> {
        let bytes = self.sized(MAX_TEXT)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| self.malformed())
    }

    pub(super) fn flag(&mut self) -> Result<bool, AuditError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.malformed()),
        }
    }

    /// All that is left.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.bytes)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Nothing may follow.
    pub(super) fn end(self) -> Result<(), AuditError> {
        // GUARD: audit-trailing-bytes -> evil_host_appends_to_a_record
        if !self.bytes.is_empty() {
            return Err(AuditError::Malformed { what: self.what });
        }
        Ok(())
    }
}
