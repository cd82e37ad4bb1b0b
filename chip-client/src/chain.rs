//! Who a chip is: certificates from the pinned root to the chip (spec §6.3).

mod authority;
mod certificate;
mod encode;
mod extension;

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use sealed_artifact::grant::{GrantSuite, KeyEpoch, Recipient, RecipientId, RecipientPublicKey};

use crate::abi::identity_const::LABEL_CHIP_ID;
use crate::abi::{CertificateList, IdentityRecord};
use crate::error::{ChainError, ChipError};

pub use authority::{Authority, PrivateKey};
pub use certificate::{certificate_from_pem_or_der, certificate_to_pem};

#[cfg(test)]
pub(crate) use authority::spki_of_point;

use certificate::{Certificate, Role};
use extension::ChipExtension;

/// Identity of a chip: a digest of its signing key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChipId([u8; 32]);

impl ChipId {
    /// The id with these bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Parses 64 lower-case hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes)).filter(|id| id.to_string() == text)
    }

    /// The id of the chip with this signing key (SubjectPublicKeyInfo, DER).
    pub fn of_signing_key(spki: &[u8]) -> Self {
        Self(sha256(&[LABEL_CHIP_ID, spki].concat()))
    }

    /// The raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ChipId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ChipId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChipId({self})")
    }
}

/// The root certificate that a verifier trusts. It never comes from a chip.
#[derive(Clone)]
pub struct TrustRoot {
    certificate: Certificate,
}

impl TrustRoot {
    /// A root that comes from a trusted place: PEM or DER.
    ///
    /// # Errors
    ///
    /// Not a certificate, or not one of a root CA.
    pub fn from_trusted(bytes: &[u8]) -> Result<Self, ChainError> {
        let der = certificate_from_pem_or_der(bytes, "root")?;
        let certificate = Certificate::parse(&der, Role::Root)?;
        certificate.verify_issued_by(&certificate)?;
        Ok(Self { certificate })
    }

    /// A root from an untrusted place whose key has this SHA-256 (over the SubjectPublicKeyInfo).
    ///
    /// # Errors
    ///
    /// As [`Self::from_trusted`]; another key.
    pub fn from_pinned(bytes: &[u8], spki_sha256: &[u8; 32]) -> Result<Self, ChainError> {
        let root = Self::from_trusted(bytes)?;
        let found = root.spki_sha256();
        // GUARD: root-pin -> evil_unpinned_root
        if found != *spki_sha256 {
            return Err(ChainError::RootMismatch {
                expected: hex::encode(spki_sha256),
                found: hex::encode(found),
            });
        }
        Ok(root)
    }

    /// SHA-256 over the SubjectPublicKeyInfo: what a pin names.
    pub fn spki_sha256(&self) -> [u8; 32] {
        sha256(&self.certificate.spki)
    }

    /// The certificate, DER.
    pub fn der(&self) -> &[u8] {
        &self.certificate.der
    }
}

impl fmt::Debug for TrustRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustRoot").field("spki_sha256", &hex::encode(self.spki_sha256())).finish()
    }
}

/// A chip whose certificates were verified up to a trusted root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChipIdentity {
    id: ChipId,
    signing_point: Vec<u8>,
    claims: ChipExtension,
}

impl ChipIdentity {
    /// Verifies model CA and chip up to the root.
    ///
    /// # Errors
    ///
    /// `CHIP_CERTIFICATE_MALFORMED`, `CHIP_CHAIN_UNTRUSTED`.
    pub fn verify(root: &TrustRoot, presented: &CertificateList) -> Result<Self, ChainError> {
        let model = Certificate::parse(&presented.model, Role::Model)?;
        let chip = Certificate::parse(&presented.chip, Role::Chip)?;
        // GUARD: chain-model-issuer -> evil_wrong_root, evil_wrong_root_session_is_refused
        model.verify_issued_by(&root.certificate)?;
        // GUARD: chain-chip-issuer -> evil_chip_of_another_model_ca
        chip.verify_issued_by(&model)?;
        let claims = chip.chip_extension()?;
        let id = ChipId::of_signing_key(&chip.spki);
        // GUARD: chain-chip-id -> evil_certificate_claims_another_id
        if claims.id != id.0 || chip.common_name.as_deref() != Some(id.to_string().as_str()) {
            return Err(ChainError::Untrusted { which: "chip", expected: "the id of its own signing key" });
        }
        Ok(Self { id, signing_point: chip.point().to_vec(), claims })
    }

    /// The chip's id.
    pub fn id(&self) -> ChipId {
        self.id
    }

    /// The tier that the chip was provisioned for.
    pub fn environment(&self) -> &str {
        &self.claims.environment
    }

    /// Name of the chip's model.
    pub fn model(&self) -> &str {
        &self.claims.model
    }

    /// Epoch of the grant keys.
    pub fn key_epoch(&self) -> u64 {
        self.claims.key_epoch
    }

    /// Noise static public key.
    pub fn noise_public(&self) -> &[u8; 32] {
        &self.claims.noise
    }

    /// Uncompressed point of the signing key.
    pub fn signing_point(&self) -> &[u8] {
        &self.signing_point
    }

    /// To whom a grant of this suite is sealed.
    ///
    /// # Errors
    ///
    /// The certified key is not one of the suite.
    pub fn recipient(&self, suite: GrantSuite) -> Result<Recipient, ChipError> {
        let bytes: &[u8] = match suite {
            GrantSuite::P384 => &self.claims.p384,
            GrantSuite::XWing => self.claims.x_wing.as_slice(),
        };
        Ok(Recipient {
            id: RecipientId::new(self.id.0),
            key: RecipientPublicKey::parse(suite, bytes)?,
            key_epoch: KeyEpoch::new(self.claims.key_epoch),
        })
    }

    /// Whether the unauthenticated identity record says the same as the certificate.
    pub fn agrees_with(&self, record: &IdentityRecord) -> bool {
        record.id == self.id.0
            && record.key_epoch == self.claims.key_epoch
            && record.environment == self.claims.environment
            && record.noise == self.claims.noise
            && record.p384 == self.claims.p384
            && record.x_wing == self.claims.x_wing
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

#[cfg(test)]
mod tests;
