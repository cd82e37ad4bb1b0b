//! A secret that this guest was given: a resource, or what was unwrapped.

use std::fmt;

use attestation_agent::kbs::Secret;
use protected_memory::secret::{SECRET_MAX_BYTES, SecretBytes};
use zeroize::{Zeroize as _, Zeroizing};

use crate::hub_error::HubError;

/// Bytes of a secret. Up to 64 KiB lie in the pages that are kept for secrets, more in ordinary memory; both are wiped when dropped. Nothing
/// prints, clones or serialises them.
pub struct Plaintext {
    held: Held,
}

enum Held {
    Broker(Secret),
    Memory(Zeroizing<Box<[u8]>>),
    Pages(SecretBytes),
}

impl fmt::Debug for Plaintext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Plaintext(..)")
    }
}

impl From<Secret> for Plaintext {
    fn from(secret: Secret) -> Self {
        Self { held: Held::Broker(secret) }
    }
}

impl Plaintext {
    /// Moves bytes to where secrets lie, and wipes where they came from.
    ///
    /// # Errors
    ///
    /// `CDH_MEMORY`; the source is wiped even then.
    pub fn take_from(source: &mut [u8]) -> Result<Self, HubError> {
        if (1..=SECRET_MAX_BYTES).contains(&source.len()) {
            return Ok(Self { held: Held::Pages(SecretBytes::take_from(source)?) });
        }
        let held = Held::Memory(Zeroizing::new(source.to_vec().into_boxed_slice()));
        source.zeroize();
        Ok(Self { held })
    }

    /// The contents. The caller keeps no copy that it does not wipe.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        match &self.held {
            Held::Broker(secret) => secret.expose(),
            Held::Memory(bytes) => bytes,
            Held::Pages(pages) => pages.expose(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_held_and_its_source_wiped() {
        for length in [0, 1, 32, SECRET_MAX_BYTES, SECRET_MAX_BYTES + 1] {
            let mut source = vec![7; length];
            let held = Plaintext::take_from(&mut source).unwrap();
            assert_eq!(held.expose(), vec![7; length]);
            assert!(source.iter().all(|byte| *byte == 0), "{length}");
            assert_eq!(format!("{held:?}"), "Plaintext(..)");
        }
    }
}
