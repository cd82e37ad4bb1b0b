//! Digests as OCI writes them: `sha256:…`, `sha512:…`.

use std::fmt;

use sha2::{Digest as _, Sha256, Sha512};

use super::error::{RegistryError, shown};

/// The digest of a blob. Two algorithms are registered by the OCI image specification and accepted here.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Digest {
    /// SHA-256.
    Sha256([u8; 32]),
    /// SHA-512.
    Sha512([u8; 64]),
}

impl Digest {
    /// Reads `algorithm:hex`, the hex in lower case and of exact length.
    ///
    /// # Errors
    ///
    /// `REGISTRY_REFERENCE`.
    pub fn parse(text: &str) -> Result<Self, RegistryError> {
        Self::read(text).ok_or_else(|| RegistryError::Reference { expected: Self::FORM, found: shown(text) })
    }

    pub(super) const FORM: &str = "sha256: and 64, or sha512: and 128 hexadecimal digits in lower case";

    /// As [`Digest::parse`], for whoever says otherwise what is wrong.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (algorithm, hex) = text.split_once(':')?;
        if !hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)) {
            return None;
        }
        match algorithm {
            "sha256" => {
                let mut bytes = [0; 32];
                hex::decode_to_slice(hex, &mut bytes).ok()?;
                Some(Self::Sha256(bytes))
            }
            "sha512" => {
                let mut bytes = [0; 64];
                hex::decode_to_slice(hex, &mut bytes).ok()?;
                Some(Self::Sha512(bytes))
            }
            _ => None,
        }
    }

    /// The SHA-256 of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::Sha256(Sha256::digest(bytes).into())
    }

    /// The digest of some bytes by this digest's own algorithm.
    #[must_use]
    pub fn same_of(&self, bytes: &[u8]) -> Self {
        let mut hasher = self.hasher();
        hasher.update(bytes);
        hasher.finish()
    }

    /// A hash by this digest's own algorithm.
    #[must_use]
    pub fn hasher(&self) -> Hasher {
        match self {
            Self::Sha256(_) => Hasher::Sha256(Sha256::new()),
            Self::Sha512(_) => Hasher::Sha512(Box::new(Sha512::new())),
        }
    }

    /// `sha256` or `sha512`.
    #[must_use]
    pub const fn algorithm(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "sha256",
            Self::Sha512(_) => "sha512",
        }
    }

    /// The hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> String {
        match self {
            Self::Sha256(bytes) => hex::encode(bytes),
            Self::Sha512(bytes) => hex::encode(bytes),
        }
    }

    /// Refuses bytes that have another digest.
    ///
    /// # Errors
    ///
    /// `REGISTRY_DIGEST`.
    pub fn verify(&self, what: &'static str, bytes: &[u8]) -> Result<(), RegistryError> {
        self.require(what, &self.same_of(bytes))
    }

    /// Refuses bytes that are not those that `from` says they are.
    pub(super) fn verify_stated(from: &str, stated: &str, bytes: &[u8]) -> Result<(), RegistryError> {
        let digest = Self::read(stated).ok_or_else(|| RegistryError::Answer {
            from: from.to_owned(),
            expected: Self::FORM,
            found: shown(stated),
        })?;
        digest.verify("manifest with the digest that the registry states", bytes)
    }

    pub(super) fn require(&self, what: &'static str, found: &Self) -> Result<(), RegistryError> {
        // GUARD: registry-digest -> evil_registry_serves_other_bytes
        if found != self {
            return Err(RegistryError::Digest { what, expected: Box::new(*self), found: Box::new(*found) });
        }
        Ok(())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A hash that is being computed.
#[derive(Clone)]
pub enum Hasher {
    /// SHA-256.
    Sha256(Sha256),
    /// SHA-512.
    Sha512(Box<Sha512>),
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

impl Hasher {
    /// Takes some bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    /// The digest of all bytes.
    #[must_use]
    pub fn finish(self) -> Digest {
        match self {
            Self::Sha256(hash) => Digest::Sha256(hash.finalize().into()),
            Self::Sha512(hash) => Digest::Sha512(hash.finalize().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_have_one_text() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").to_string(), empty);
        assert_eq!(Digest::parse(empty).unwrap(), Digest::of(b""));
        let long = format!("sha512:{}", "ab".repeat(64));
        assert_eq!(Digest::parse(&long).unwrap().to_string(), long);
        assert_ne!(Digest::parse(&long).unwrap().same_of(b""), Digest::of(b""));
    }

    #[test]
    fn evil_digest_of_another_form_is_refused() {
        let good = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for refused in [
            String::new(),
            good.to_owned(),
            format!("sha256:{}", good.to_uppercase()),
            format!("sha256:{}", &good[1..]),
            format!("sha256:{good}0"),
            format!("sha512:{good}"),
            format!("md5:{good}"),
            format!("sha256:../{}", &good[3..]),
        ] {
            assert_eq!(Digest::parse(&refused).unwrap_err().code(), "REGISTRY_REFERENCE", "{refused}");
        }
    }
}
