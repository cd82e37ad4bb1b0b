//! Reading and writing little-endian fields with caps.

/// Bytes that do not have the form the interface demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// Fewer or more bytes than the field or object needs.
    #[error("{what}: expected {expected} bytes, found {found}")]
    Length {
        /// The field or object.
        what: &'static str,
        /// The length or the largest length that is allowed.
        expected: usize,
        /// The length found.
        found: usize,
    },
    /// A field whose value is not allowed.
    #[error("{what}: value {found:#x} is not allowed")]
    Field {
        /// The field.
        what: &'static str,
        /// The value found.
        found: u64,
    },
}

/// Takes fields off the front of a byte string.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Number of bytes not yet taken.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Takes `n` bytes.
    pub fn bytes(&mut self, what: &'static str, n: usize) -> Result<&'a [u8], WireError> {
        let (head, tail) = self.rest.split_at_checked(n).ok_or(WireError::Length {
            what,
            expected: n,
            found: self.rest.len(),
        })?;
        self.rest = tail;
        Ok(head)
    }

    /// Takes a fixed number of bytes.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], WireError> {
        let found = self.rest.len();
        let (head, tail) =
            self.rest.split_first_chunk::<N>().ok_or(WireError::Length { what, expected: N, found })?;
        self.rest = tail;
        Ok(*head)
    }

    /// Takes a byte.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, WireError> {
        self.array::<1>(what).map(|[b]| b)
    }

    /// Takes a 16-bit integer.
    pub fn u16(&mut self, what: &'static str) -> Result<u16, WireError> {
        self.array(what).map(u16::from_le_bytes)
    }

    /// Takes a 32-bit integer.
    pub fn u32(&mut self, what: &'static str) -> Result<u32, WireError> {
        self.array(what).map(u32::from_le_bytes)
    }

    /// Takes a 64-bit integer.
    pub fn u64(&mut self, what: &'static str) -> Result<u64, WireError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// Takes `LP(x)` with x of at most `cap` bytes.
    pub fn lp(&mut self, what: &'static str, cap: usize) -> Result<&'a [u8], WireError> {
        let length = usize::try_from(self.u32(what)?).unwrap_or(usize::MAX);
        if length > cap {
            return Err(WireError::Length { what, expected: cap, found: length });
        }
        self.bytes(what, length)
    }

    /// Takes bytes that must be zero.
    pub fn reserved<const N: usize>(&mut self, what: &'static str) -> Result<(), WireError> {
        let bytes = self.array::<N>(what)?;
        match bytes.iter().find(|b| **b != 0) {
            None => Ok(()),
            Some(b) => Err(WireError::Field { what, found: u64::from(*b) }),
        }
    }

    /// Ends: no byte may be left.
    pub fn finish(self, what: &'static str) -> Result<(), WireError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(WireError::Length { what, expected: 0, found: self.rest.len() })
        }
    }
}

impl std::fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("remaining", &self.rest.len()).finish()
    }
}

/// Appends a 16-bit integer.
pub fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a 32-bit integer.
pub fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a 64-bit integer.
pub fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends `LP(bytes)`. A length above 2^32−1 is written as 2^32−1, which every reader refuses.
pub fn put_lp(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u32(out, u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    out.extend_from_slice(bytes);
}
