//! Keys and small secrets, in pages that stay out of swap, core dumps and forked processes.
//!
//! Where the kernel has `memfd_secret`, not even the kernel maps the pages. Otherwise they are locked. Either way they
//! lie between inaccessible pages, end exactly at the second of these, and are wiped when dropped. Nothing prints,
//! clones or serialises the contents.
//!
//! A forked child does not have the pages: touching a secret there is a fault, never a silent zero key.

mod error;

use std::fmt;

use subtle::ConstantTimeEq;

pub use error::SecretError;

use crate::sys::secret_pages::SecretPages;

/// The longest secret: 64 KiB.
pub const SECRET_MAX_BYTES: usize = 64 << 10;

/// What holds a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backing {
    /// Anonymous pages, locked in memory.
    LockedPages,
    /// `memfd_secret`: pages that are not in the kernel's own map.
    SecretMemory,
}

impl fmt::Display for Backing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LockedPages => "locked pages",
            Self::SecretMemory => "memfd_secret",
        })
    }
}

/// A secret of any length up to [`SECRET_MAX_BYTES`].
pub struct SecretBytes {
    pages: SecretPages,
}

impl SecretBytes {
    /// A secret of zeros, to be filled.
    ///
    /// # Errors
    ///
    /// The length is zero or above the cap, or no protected pages can be had.
    pub fn zeroed(len: usize) -> Result<Self, SecretError> {
        // GUARD: secret-length -> evil_secret_length_is_refused
        if len == 0 || len > SECRET_MAX_BYTES {
            return Err(SecretError::Length { len, max: SECRET_MAX_BYTES });
        }
        match SecretPages::secret_memory(len) {
            Ok(pages) => Ok(Self { pages }),
            Err(_) => Self::locked(len),
        }
    }

    /// A secret in locked pages, although the kernel may have better.
    pub(crate) fn locked(len: usize) -> Result<Self, SecretError> {
        let pages = SecretPages::locked(len).map_err(|source| SecretError::NoPages { source })?;
        Ok(Self { pages })
    }

    /// Moves bytes into protected pages and wipes where they came from.
    ///
    /// # Errors
    ///
    /// As [`Self::zeroed`]; the source is wiped even then.
    pub fn take_from(source: &mut [u8]) -> Result<Self, SecretError> {
        let secret = Self::zeroed(source.len()).map(|mut secret| {
            secret.expose_mut().copy_from_slice(source);
            secret
        });
        // GUARD: wipe-source -> source_of_a_secret_is_wiped
        crate::sys::secret_pages::wipe(source);
        secret
    }

    /// Random bytes from the kernel.
    ///
    /// # Errors
    ///
    /// As [`Self::zeroed`], and if the kernel gives no random bytes.
    pub fn random(len: usize) -> Result<Self, SecretError> {
        let mut secret = Self::zeroed(len)?;
        let mut rest = secret.expose_mut();
        while !rest.is_empty() {
            let filled = match rustix::rand::getrandom(&mut *rest, rustix::rand::GetRandomFlags::empty()) {
                Err(rustix::io::Errno::INTR) => 0,
                Err(error) => return Err(SecretError::NoRandom { source: error.into() }),
                Ok(filled) => filled,
            };
            rest = rest.get_mut(filled..).unwrap_or_default();
        }
        Ok(secret)
    }

    /// The contents. The caller keeps no copy.
    pub fn expose(&self) -> &[u8] {
        self.pages.bytes()
    }

    /// The contents, for writing.
    pub fn expose_mut(&mut self) -> &mut [u8] {
        self.pages.bytes_mut()
    }

    /// Length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a secret is never empty")]
    pub fn len(&self) -> usize {
        self.expose().len()
    }

    /// What holds the secret.
    pub fn backing(&self) -> Backing {
        self.pages.backing()
    }
}

impl ConstantTimeEq for SecretBytes {
    fn ct_eq(&self, other: &Self) -> subtle::Choice {
        self.expose().ct_eq(other.expose())
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(..)")
    }
}

/// A key of `N` bytes.
pub struct SecretKey<const N: usize> {
    bytes: SecretBytes,
}

impl<const N: usize> SecretKey<N> {
    /// A key of zeros, to be filled.
    ///
    /// # Errors
    ///
    /// As [`SecretBytes::zeroed`].
    pub fn zeroed() -> Result<Self, SecretError> {
        Ok(Self { bytes: SecretBytes::zeroed(N)? })
    }

    /// Moves a key into protected pages and wipes where it came from.
    ///
    /// # Errors
    ///
    /// As [`SecretBytes::take_from`].
    pub fn take_from(source: &mut [u8; N]) -> Result<Self, SecretError> {
        Ok(Self { bytes: SecretBytes::take_from(source)? })
    }

    /// A random key from the kernel.
    ///
    /// # Errors
    ///
    /// As [`SecretBytes::random`].
    pub fn random() -> Result<Self, SecretError> {
        Ok(Self { bytes: SecretBytes::random(N)? })
    }

    /// The key. The caller keeps no copy.
    pub fn expose(&self) -> &[u8; N] {
        let Some(key) = self.bytes.expose().first_chunk() else {
            // INVARIANT: every constructor makes N bytes, and the length never changes.
            unreachable!("a key of {N} bytes has {N} bytes")
        };
        key
    }

    /// The key, for writing.
    pub fn expose_mut(&mut self) -> &mut [u8; N] {
        let Some(key) = self.bytes.expose_mut().first_chunk_mut() else {
            // INVARIANT: every constructor makes N bytes, and the length never changes.
            unreachable!("a key of {N} bytes has {N} bytes")
        };
        key
    }

    /// What holds the key.
    pub fn backing(&self) -> Backing {
        self.bytes.backing()
    }
}

impl<const N: usize> ConstantTimeEq for SecretKey<N> {
    fn ct_eq(&self, other: &Self) -> subtle::Choice {
        self.bytes.ct_eq(&other.bytes)
    }
}

impl<const N: usize> fmt::Debug for SecretKey<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

#[cfg(test)]
mod tests;
