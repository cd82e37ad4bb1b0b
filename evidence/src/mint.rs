//! Emulated platforms: certificates, collateral, quotes and reports in the real formats, signed by keys that anybody
//! can derive. For tests and emulators. Nothing here is believed by [`verify`](crate::verify) unless the caller names
//! the emulated root itself, by a constructor that says `danger`.

pub mod der;
pub mod snp;
pub mod tdx;

use std::fmt;

use sha2::{Digest, Sha256, Sha384};

/// A part of an emulated platform could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("emulated platform: expected {0}")]
pub struct MintError(&'static str);

pub(crate) fn failed<E>(what: &'static str) -> impl FnOnce(E) -> MintError {
    move |_| MintError(what)
}

/// A P-256 key that follows from a seed and a label.
pub struct P256Key(p256::ecdsa::SigningKey);

/// A P-384 key that follows from a seed and a label.
pub struct P384Key(p384::ecdsa::SigningKey);

impl P256Key {
    /// The key of `seed` and `label`.
    ///
    /// # Errors
    /// If the hash is no scalar of the curve.
    pub fn derive(seed: &str, label: &str) -> Result<Self, MintError> {
        let scalar = Sha256::digest(format!("innerkeep emulated key\0{seed}\0{label}"));
        p256::ecdsa::SigningKey::from_slice(&scalar).map(Self).map_err(failed("a P-256 scalar"))
    }

    /// The public point: x and y.
    #[must_use]
    pub fn point(&self) -> [u8; 64] {
        let point = self.0.verifying_key().to_sec1_point(false);
        let mut out = [0; 64];
        out.iter_mut().zip(point.as_bytes().iter().skip(1)).for_each(|(to, from)| *to = *from);
        out
    }

    /// Signature with SHA-256: r and s.
    ///
    /// # Errors
    /// If the library refuses.
    pub fn sign(&self, message: &[u8]) -> Result<[u8; 64], MintError> {
        use p256::ecdsa::signature::Signer as _;
        let signature: p256::ecdsa::Signature = self.0.try_sign(message).map_err(failed("a signature"))?;
        Ok(signature.to_bytes().into())
    }
}

impl P384Key {
    /// The key of `seed` and `label`.
    ///
    /// # Errors
    /// If the hash is no scalar of the curve.
    pub fn derive(seed: &str, label: &str) -> Result<Self, MintError> {
        let scalar = Sha384::digest(format!("innerkeep emulated key\0{seed}\0{label}"));
        p384::ecdsa::SigningKey::from_slice(&scalar).map(Self).map_err(failed("a P-384 scalar"))
    }

    /// The public point, uncompressed with its tag.
    #[must_use]
    pub fn sec1(&self) -> Vec<u8> {
        self.0.verifying_key().to_sec1_point(false).as_bytes().to_vec()
    }

    /// Signature with SHA-384: r and s, big-endian.
    ///
    /// # Errors
    /// If the library refuses.
    pub fn sign(&self, message: &[u8]) -> Result<[u8; 96], MintError> {
        use p384::ecdsa::signature::Signer as _;
        let signature: p384::ecdsa::Signature = self.0.try_sign(message).map_err(failed("a signature"))?;
        Ok(signature.to_bytes().into())
    }
}

impl fmt::Debug for P256Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("P256Key")
    }
}

impl fmt::Debug for P384Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("P384Key")
    }
}
