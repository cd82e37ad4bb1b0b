//! Reading and writing of fixed binary structures.

use std::fmt;

use crate::error::{EvidenceError, Found};

/// `N` bytes, shown in lower-case hex.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Octets<const N: usize>(pub [u8; N]);

impl<const N: usize> Octets<N> {
    /// Whether all bytes are zero.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// `bytes` cut to `N`, or followed by zeros, as registers take longer and shorter digests.
    #[must_use]
    pub fn fitted(bytes: &[u8]) -> Self {
        let mut fitted = [0; N];
        fitted.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        Self(fitted)
    }
}

impl<const N: usize> Default for Octets<N> {
    fn default() -> Self {
        Self([0; N])
    }
}

impl<const N: usize> fmt::Display for Octets<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl<const N: usize> fmt::Debug for Octets<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Takes a structure apart, front to back; never reads beyond its bytes.
pub(crate) struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, rest: bytes, offset: 0 }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], EvidenceError> {
        let Some((taken, rest)) = self.rest.split_at_checked(length) else {
            return Err(EvidenceError::Malformed {
                what: self.what,
                expected: "the whole structure",
                found: Found::value(format_args!(
                    "an end after {} bytes of the {length} at byte {}",
                    self.rest.len(),
                    self.offset
                )),
            });
        };
        self.rest = rest;
        self.offset += length;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], EvidenceError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(crate) fn octets<const N: usize>(&mut self) -> Result<Octets<N>, EvidenceError> {
        self.array().map(Octets)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, EvidenceError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, EvidenceError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, EvidenceError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, EvidenceError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A 32-bit length that has to stay within `maximum`.
    pub(crate) fn length(&mut self, what: &'static str, maximum: usize) -> Result<usize, EvidenceError> {
        let length = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        limit(what, maximum, length)?;
        Ok(length)
    }

    /// Bytes that the format reserves.
    pub(crate) fn reserved(&mut self, length: usize) -> Result<(), EvidenceError> {
        let start = self.offset;
        let bytes = self.take(length)?;
        let set = bytes.iter().enumerate().find(|(_, byte)| **byte != 0);
        // GUARD: reserved-bytes-zero -> evil_reserved_bytes_are_refused, evil_report_reserved_bytes_are_refused
        if let Some((index, found)) = set {
            return Err(EvidenceError::ReservedNotZero {
                what: self.what,
                offset: start + index,
                found: *found,
            });
        }
        Ok(())
    }

    /// The structure ends here.
    pub(crate) fn finish(self) -> Result<(), EvidenceError> {
        // GUARD: no-trailing-bytes -> evil_bytes_after_a_structure_are_refused
        if !self.rest.is_empty() {
            return Err(EvidenceError::TrailingBytes {
                what: self.what,
                expected: self.offset,
                found: self.rest.len(),
            });
        }
        Ok(())
    }
}

/// Refuses more than `maximum` of something.
pub(crate) fn limit(what: &'static str, maximum: usize, found: usize) -> Result<(), EvidenceError> {
    // GUARD: size-caps -> evil_oversize_inputs_are_refused
    if found > maximum {
        return Err(EvidenceError::TooLarge { what, maximum, found });
    }
    Ok(())
}

/// A length as a 32-bit field carries it. Encoders stay far below the bound.
pub(crate) fn length_u32(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes()
}
