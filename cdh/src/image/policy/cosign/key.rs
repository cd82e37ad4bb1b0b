//! Public keys in PEM (RFC 7468, 13): ECDSA on P-256 and P-384, RSA of 2048 bits or more, Ed25519.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519,
    RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use x509_cert::der::asn1::{AnyRef, ObjectIdentifier, UintRef};
use x509_cert::der::{Decode, Reader, SliceReader, pem};
use x509_cert::spki::SubjectPublicKeyInfoRef;

use super::super::digest::Digest;
use super::CosignFault;

/// Longest text of a key, in bytes.
pub const COSIGN_KEY_MAX: usize = 8 << 10;

const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EDDSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// A public key that cosign signs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CosignKey {
    scheme: Scheme,
    key: Vec<u8>,
    id: Digest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Ed25519,
    P256,
    P384,
    Rsa,
}

impl Scheme {
    /// With P-384 older tools hash with SHA-256, newer ones with SHA-384.
    fn algorithms(self) -> &'static [&'static dyn VerificationAlgorithm] {
        match self {
            Self::Ed25519 => &[&ED25519],
            Self::P256 => &[&ECDSA_P256_SHA256_ASN1],
            Self::P384 => &[&ECDSA_P384_SHA384_ASN1, &ECDSA_P384_SHA256_ASN1],
            Self::Rsa => &[&RSA_PKCS1_2048_8192_SHA256],
        }
    }
}

impl CosignKey {
    /// Reads one `PUBLIC KEY` block, with nothing else in the text.
    ///
    /// # Errors
    ///
    /// `IMAGE_COSIGN_KEY_INVALID`, `IMAGE_COSIGN_PRIVATE_KEY`, `IMAGE_COSIGN_TOO_LARGE`, `IMAGE_COSIGN_WEAK_KEY`.
    pub fn parse(text: &[u8]) -> Result<Self, CosignFault> {
        // GUARD: cosign-key-size -> evil_cosign_keys
        if text.len() > COSIGN_KEY_MAX {
            return Err(CosignFault::TooLarge { most: COSIGN_KEY_MAX, what: "a key" });
        }
        let bad = CosignFault::Key { expected: "one public key in PEM" };
        let (label, der) = pem::decode_vec(text).map_err(|_| bad.clone())?;
        if label.ends_with("PRIVATE KEY") {
            return Err(CosignFault::PrivateKey);
        }
        // GUARD: cosign-key-label -> evil_cosign_keys
        if label != "PUBLIC KEY" {
            return Err(bad);
        }
        let info = SubjectPublicKeyInfoRef::from_der(&der).map_err(|_| bad.clone())?;
        let key = info.subject_public_key.as_bytes().ok_or(bad)?;
        let parameters = info.algorithm.parameters;
        let curve = || parameters.and_then(|parameters| parameters.decode_as::<ObjectIdentifier>().ok());
        let scheme = match info.algorithm.oid {
            EC => match (curve(), key) {
                (Some(P256), [4, rest @ ..]) if rest.len() == 64 => Scheme::P256,
                (Some(P384), [4, rest @ ..]) if rest.len() == 96 => Scheme::P384,
                _ => return Err(CosignFault::Key { expected: "an uncompressed point on P-256 or P-384" }),
            },
            RSA if parameters.is_none_or(|parameters| parameters == AnyRef::NULL) => {
                let bits = modulus_bits(key)
                    .ok_or(CosignFault::Key { expected: "modulus and exponent of an RSA key" })?;
                // GUARD: cosign-rsa-size -> evil_cosign_keys
                if !(2048..=8192).contains(&bits) {
                    return Err(CosignFault::WeakKey { bits });
                }
                Scheme::Rsa
            }
            EDDSA if parameters.is_none() && key.len() == 32 => Scheme::Ed25519,
            _ => return Err(CosignFault::Key { expected: "a key for ECDSA, RSA or Ed25519" }),
        };
        Ok(Self { scheme, key: key.to_vec(), id: Digest::sha256(&der) })
    }

    /// SHA-256 of its SubjectPublicKeyInfo (DER).
    #[must_use]
    pub const fn id(&self) -> &Digest {
        &self.id
    }

    pub(super) fn verifies(&self, payload: &[u8], signature: &[u8]) -> bool {
        let verifies = |algorithm: &&'static dyn VerificationAlgorithm| {
            UnparsedPublicKey::new(*algorithm, &self.key).verify(payload, signature).is_ok()
        };
        self.scheme.algorithms().iter().any(verifies)
    }
}

/// Bits of the modulus of an `RSAPublicKey` (RFC 8017, A.1.1).
fn modulus_bits(key: &[u8]) -> Option<usize> {
    let mut reader = SliceReader::new(key).ok()?;
    let modulus = reader
        .sequence(|inner| {
            let modulus = UintRef::decode(inner)?;
            UintRef::decode(inner)?;
            Ok::<_, x509_cert::der::Error>(modulus)
        })
        .ok()?;
    if !reader.is_finished() {
        return None;
    }
    let bytes = modulus.as_bytes();
    let zeros = usize::try_from(bytes.first()?.leading_zeros()).ok()?;
    (bytes.len() * 8).checked_sub(zeros)
}
