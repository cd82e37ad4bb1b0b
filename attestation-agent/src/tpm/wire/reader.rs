//! Takes structures apart, front to back; never reads beyond their bytes.

/// Bytes that do not have the form that Part 2 gives them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// More than there may be of something.
    #[error("TPM: {what}: expected at most {maximum}, found {found}")]
    TooLarge {
        /// Which structure.
        what: &'static str,
        /// The cap.
        maximum: usize,
        /// What the bytes claim.
        found: usize,
    },
    /// Bytes behind the end of a structure.
    #[error("TPM: {what}: expected the end, found {found} more bytes")]
    Trailing {
        /// Which structure.
        what: &'static str,
        /// How many follow.
        found: usize,
    },
    /// An end inside a structure.
    #[error("TPM: {what}: expected {expected} more bytes, found {found}")]
    Truncated {
        /// Which structure.
        what: &'static str,
        /// How many were needed.
        expected: usize,
        /// How many there were.
        found: usize,
    },
    /// A field whose value is not acceptable.
    #[error("TPM: {what}: expected {expected}, found {found:#x}")]
    Unexpected {
        /// Which field.
        what: &'static str,
        /// What it has to be.
        expected: &'static str,
        /// What it is.
        found: u64,
    },
}

impl WireError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "TPM_TOO_LARGE",
            Self::Trailing { .. } => "TPM_TRAILING",
            Self::Truncated { .. } => "TPM_TRUNCATED",
            Self::Unexpected { .. } => "TPM_UNEXPECTED",
        }
    }

    pub(crate) fn unexpected(what: &'static str, expected: &'static str, found: impl Into<u64>) -> Self {
        Self::Unexpected { what, expected, found: found.into() }
    }
}

/// A structure that is being read.
#[derive(Debug)]
pub struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Begins to read `what`.
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, rest: bytes }
    }

    /// What was not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `length` bytes.
    ///
    /// # Errors
    ///
    /// There are fewer.
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let Some((taken, rest)) = self.rest.split_at_checked(length) else {
            return Err(WireError::Truncated { what: self.what, expected: length, found: self.rest.len() });
        };
        self.rest = rest;
        Ok(taken)
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    ///
    /// As [`Self::take`].
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// The next byte.
    ///
    /// # Errors
    ///
    /// As [`Self::take`].
    pub fn u8(&mut self) -> Result<u8, WireError> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// The next 16-bit number.
    ///
    /// # Errors
    ///
    /// As [`Self::take`].
    pub fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    /// The next 32-bit number.
    ///
    /// # Errors
    ///
    /// As [`Self::take`].
    pub fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    /// The next 64-bit number.
    ///
    /// # Errors
    ///
    /// As [`Self::take`].
    pub fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_be_bytes)
    }

    /// A TPM2B: a 16-bit length of at most `maximum`, then that many bytes.
    ///
    /// # Errors
    ///
    /// As [`Self::take`], and a length above the cap.
    pub fn sized(&mut self, maximum: usize) -> Result<&'a [u8], WireError> {
        let length = usize::from(self.u16()?);
        self.limit(maximum, length)?;
        self.take(length)
    }

    /// The 32-bit count of a TPML, at most `maximum`.
    ///
    /// # Errors
    ///
    /// As [`Self::sized`].
    pub fn count(&mut self, maximum: usize) -> Result<usize, WireError> {
        let count = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        self.limit(maximum, count)?;
        Ok(count)
    }

    /// The structure ends here.
    ///
    /// # Errors
    ///
    /// It does not.
    pub fn finish(self) -> Result<(), WireError> {
        // GUARD: tpm-trailing -> evil_bytes_behind_tpm_structures
        if !self.rest.is_empty() {
            return Err(WireError::Trailing { what: self.what, found: self.rest.len() });
        }
        Ok(())
    }

    /// The next 16-bit number has to be `expected`.
    pub(crate) fn expect_u16(
        &mut self,
        what: &'static str,
        expected: &'static str,
        value: u16,
    ) -> Result<(), WireError> {
        let found = self.u16()?;
        // GUARD: tpm-fixed-field -> evil_tpm_fields_of_another_form
        if found != value {
            return Err(WireError::unexpected(what, expected, found));
        }
        Ok(())
    }

    fn limit(&self, maximum: usize, found: usize) -> Result<(), WireError> {
        // GUARD: tpm-caps -> evil_tpm_lengths_beyond_caps
        if found > maximum {
            return Err(WireError::TooLarge { what: self.what, maximum, found });
        }
        Ok(())
    }
}
