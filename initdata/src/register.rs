//! Digests, and the registers that hold them.

use std::fmt;

use sha2::{Digest as _, Sha256, Sha384, Sha512};

use crate::error::{InitdataError, shown};

/// Shortest register that is believed, in bytes: 128 bits against collisions.
const SHORTEST_REGISTER: usize = 32;
/// Longest, in bytes.
const LONGEST_REGISTER: usize = 64;

/// The digest algorithms of initdata.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Sha256, Self::Sha384, Self::Sha512];

    /// The algorithm of this name, lower case.
    ///
    /// # Errors
    /// `INITDATA_ALGORITHM`.
    pub fn parse(name: &str) -> Result<Self, InitdataError> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name).ok_or_else(|| {
            InitdataError::Algorithm { expected: "sha256, sha384 or sha512", found: shown(name) }
        })
    }

    /// Its name in documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    /// The digest of these bytes.
    #[must_use]
    pub fn digest(self, bytes: &[u8]) -> Digest {
        let bytes = match self {
            Self::Sha256 => Sha256::digest(bytes).to_vec(),
            Self::Sha384 => Sha384::digest(bytes).to_vec(),
            Self::Sha512 => Sha512::digest(bytes).to_vec(),
        };
        Digest { algorithm: self, bytes }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A digest of the exact bytes of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    algorithm: Algorithm,
    bytes: Vec<u8>,
}

impl Digest {
    /// By which algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// All its bytes: 32, 48 or 64.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// As a register of `length` bytes takes it: the first bytes of a longer digest, a shorter one followed by zeros.
    #[must_use]
    pub fn fitted(&self, length: usize) -> Vec<u8> {
        let mut fitted = self.bytes.clone();
        fitted.resize(length, 0);
        fitted
    }

    /// PCR 8 of a TPM after it was extended by this digest, once since the machine was started; `None` unless it is SHA-256.
    #[must_use]
    pub fn pcr8(&self) -> Option<[u8; 32]> {
        let extended = || Sha256::new().chain_update([0; 32]).chain_update(&self.bytes).finalize().into();
        (self.algorithm == Algorithm::Sha256).then(extended)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm, hex::encode(&self.bytes))
    }
}

/// Registers of the platforms that bind initdata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegisterKind {
    /// SEV-SNP.
    HostData,
    /// TDX.
    MrConfigId,
    /// Arm CCA: the realm's personalization value.
    Realm,
}

impl RegisterKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::HostData, Self::MrConfigId, Self::Realm];

    /// Its length in bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::HostData => 32,
            Self::MrConfigId => 48,
            Self::Realm => 64,
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HostData => "HOST_DATA",
            Self::MrConfigId => "MRCONFIGID",
            Self::Realm => "REALM_PERSONALIZATION",
        }
    }

    /// The algorithm whose digest fills it: nothing is cut off and nothing is padded.
    #[must_use]
    pub const fn algorithm(self) -> Algorithm {
        match self {
            Self::HostData => Algorithm::Sha256,
            Self::MrConfigId => Algorithm::Sha384,
            Self::Realm => Algorithm::Sha512,
        }
    }
}

/// A register as firmware or kernel gave it. Never one from a quote: that blob is the host's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Register {
    name: String,
    value: Vec<u8>,
}

impl Register {
    /// A register of this name and value.
    ///
    /// # Errors
    /// `INITDATA_REGISTER` unless it has 32 to 64 bytes.
    pub fn new(name: &str, value: &[u8]) -> Result<Self, InitdataError> {
        // GUARD: initdata-register-length -> a_short_register_is_not_believed
        if !(SHORTEST_REGISTER..=LONGEST_REGISTER).contains(&value.len()) {
            return Err(InitdataError::Register { register: name.to_owned(), found: value.len() });
        }
        Ok(Self { name: name.to_owned(), value: value.to_vec() })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its value.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// Whether the guest was launched without initdata.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.value.iter().all(|byte| *byte == 0)
    }

    /// Whether it holds this digest, every byte of the register compared.
    #[must_use]
    pub fn holds(&self, digest: &Digest) -> bool {
        digest.fitted(self.value.len()) == self.value
    }

    /// The digest of `bytes` that it holds: of exactly one algorithm.
    pub(crate) fn matching(&self, bytes: &[u8]) -> Result<Digest, InitdataError> {
        let mut held = Algorithm::ALL.map(|algorithm| algorithm.digest(bytes)).into_iter();
        let mut held = held.by_ref().filter(|digest| self.holds(digest));
        match (held.next(), held.next()) {
            (Some(digest), None) => Ok(digest),
            _ => Err(InitdataError::Mismatch {
                register: self.name.clone(),
                expected: hex::encode(&self.value),
                found: format!("SHA-256 {}", hex::encode(Algorithm::Sha256.digest(bytes).as_bytes())),
            }),
        }
    }
}

#[cfg(test)]
mod tests;
