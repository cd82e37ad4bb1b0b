//! A released resource.
//!
//! Up to 64 KiB (every key) it lies in the pages that `protected-memory` keeps for secrets. Those pages are locked and
//! few, so that a longer resource (up to 2 MiB) lies in ordinary memory and is wiped when dropped; so is the empty
//! one, which needs no pages. Either way it is decrypted straight into its place.

use std::fmt;

use protected_memory::secret::{SECRET_MAX_BYTES, SecretBytes};
use zeroize::Zeroizing;

use super::error::{Cause, LocalFault};

/// The bytes of a resource. Nothing prints, clones or serialises them.
pub struct Secret {
    held: Held,
}

enum Held {
    Memory(Zeroizing<Box<[u8]>>),
    Pages(SecretBytes),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// Zeros, to be written.
    pub(super) fn zeroed(len: usize) -> Result<Self, LocalFault> {
        let held = if (1..=SECRET_MAX_BYTES).contains(&len) {
            let pages = SecretBytes::zeroed(len)
                .map_err(|source| LocalFault::Memory { source: Cause::new(source) })?;
            Held::Pages(pages)
        } else {
            Held::Memory(Zeroizing::new(vec![0; len].into_boxed_slice()))
        };
        Ok(Self { held })
    }

    /// The contents, for writing.
    pub(super) fn expose_mut(&mut self) -> &mut [u8] {
        match &mut self.held {
            Held::Memory(bytes) => bytes,
            Held::Pages(pages) => pages.expose_mut(),
        }
    }

    /// The contents. The caller keeps no copy.
    pub fn expose(&self) -> &[u8] {
        match &self.held {
            Held::Memory(bytes) => bytes,
            Held::Pages(pages) => pages.expose(),
        }
    }

    /// Whether it lies in the pages that are kept for secrets.
    pub fn is_in_protected_pages(&self) -> bool {
        matches!(self.held, Held::Pages(_))
    }
}
