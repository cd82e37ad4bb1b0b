//! The sealer's ECDSA P-384 key pair: PEM in and out, sign and verify.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P384_SHA384_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use zeroize::Zeroizing;

use crate::digest::SealerKeyDigest;
use crate::error::{ArtifactError, Found, length, limit};

/// `SubjectPublicKeyInfo` of a P-384 key up to the uncompressed point.
const SPKI_PREFIX: [u8; 23] = [
    0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81,
    0x04, 0x00, 0x22, 0x03, 0x62, 0x00,
];
const POINT_LENGTH: usize = 97;
const PUBLIC_LABEL: &str = "PUBLIC KEY";
const PRIVATE_LABEL: &str = "PRIVATE KEY";

/// A signature, fixed-width `r ‖ s`.
pub(crate) type SignatureBytes = [u8; 96];

/// A sealer's public key: a point on P-384.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealerPublicKey {
    spki: Vec<u8>,
}

impl SealerPublicKey {
    /// Parses a DER SubjectPublicKeyInfo; only the one encoding of an uncompressed P-384 point is accepted.
    ///
    /// # Errors
    /// `KEY_INVALID`.
    pub fn from_spki_der(der: &[u8]) -> Result<Self, ArtifactError> {
        let invalid = || ArtifactError::KeyInvalid {
            expected: "the SubjectPublicKeyInfo of an uncompressed P-384 point",
            found: Found::value(format_args!("{} bytes that are none", der.len())),
        };
        let point = der.strip_prefix(&SPKI_PREFIX).ok_or_else(invalid)?;
        // GUARD: sealer-key-form -> evil_sealer_key_of_another_form_is_refused
        if point.len() != POINT_LENGTH || point.first() != Some(&4) {
            return Err(invalid());
        }
        // A point off the curve is refused here rather than by each signature.
        aws_lc_rs::signature::ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).map_err(|_| invalid())?;
        Ok(Self { spki: der.to_vec() })
    }

    /// Parses PEM with the label `PUBLIC KEY`.
    ///
    /// # Errors
    /// `MALFORMED`, `KEY_INVALID`.
    pub fn from_pem(pem: &str) -> Result<Self, ArtifactError> {
        Self::from_spki_der(&decode_pem(pem, PUBLIC_LABEL)?)
    }

    /// PEM with the label `PUBLIC KEY`.
    #[must_use]
    pub fn to_pem(&self) -> String {
        encode_pem(&self.spki, PUBLIC_LABEL).to_string()
    }

    /// DER SubjectPublicKeyInfo.
    #[must_use]
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// SHA-256 of the SubjectPublicKeyInfo: what cores name and users pin.
    #[must_use]
    pub fn digest(&self) -> SealerKeyDigest {
        SealerKeyDigest::of(&self.spki)
    }

    /// Whether `signature` is this key's signature of `message`.
    pub(crate) fn verifies(&self, message: &[u8], signature: &SignatureBytes) -> bool {
        let point = self.spki.get(SPKI_PREFIX.len()..).unwrap_or_default();
        UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).verify(message, signature).is_ok()
    }
}

/// A sealer's private key; the library wipes it when dropped.
#[expect(missing_debug_implementations, reason = "key material is never printed")]
pub struct SealerSigningKey(EcdsaKeyPair);

impl SealerSigningKey {
    /// A fresh key.
    ///
    /// # Errors
    /// `RANDOM_UNAVAILABLE`.
    pub fn generate() -> Result<Self, ArtifactError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING);
        pair.map(Self).map_err(|_| ArtifactError::RandomUnavailable)
    }

    /// Parses PKCS#8 in PEM with the label `PRIVATE KEY`.
    ///
    /// # Errors
    /// `MALFORMED`, `KEY_INVALID`.
    pub fn from_pem(pem: &str) -> Result<Self, ArtifactError> {
        let der = decode_pem(pem, PRIVATE_LABEL)?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &der);
        pair.map(Self).map_err(|_| ArtifactError::KeyInvalid {
            expected: "a P-384 private key in PKCS#8",
            found: Found::value(format_args!("{} bytes that are none", der.len())),
        })
    }

    /// PKCS#8 in PEM with the label `PRIVATE KEY`.
    ///
    /// # Errors
    /// `KEY_INVALID` when the library cannot write the key.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, ArtifactError> {
        let document = self.0.to_pkcs8v1().map_err(|_| ArtifactError::KeyInvalid {
            expected: "a private key that can be written",
            found: Found::text("a failure of the library"),
        })?;
        Ok(encode_pem(document.as_ref(), PRIVATE_LABEL))
    }

    /// The public key.
    #[must_use]
    pub fn public_key(&self) -> SealerPublicKey {
        SealerPublicKey { spki: [SPKI_PREFIX.as_slice(), self.0.public_key().as_ref()].concat() }
    }

    /// Signs `message`.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<SignatureBytes, ArtifactError> {
        let signature =
            self.0.sign(&SystemRandom::new(), message).map_err(|_| ArtifactError::RandomUnavailable)?;
        signature.as_ref().try_into().map_err(|_| ArtifactError::RandomUnavailable)
    }
}

fn encode_pem(der: &[u8], label: &str) -> Zeroizing<String> {
    let body = Zeroizing::new(BASE64.encode(der));
    let mut pem = Zeroizing::new(String::with_capacity(body.len() * 2 + 128));
    pem.push_str("-----BEGIN ");
    pem.push_str(label);
    pem.push_str("-----\n");
    for (position, character) in body.chars().enumerate() {
        if position > 0 && position % 64 == 0 {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem.push_str("\n-----END ");
    pem.push_str(label);
    pem.push_str("-----\n");
    pem
}

fn decode_pem(pem: &str, label: &'static str) -> Result<Zeroizing<Vec<u8>>, ArtifactError> {
    limit("PEM text", 0, 16_384, length(pem.as_bytes()))?;
    // What was found is not quoted: it may be a key.
    let malformed = || ArtifactError::Malformed {
        what: "PEM text",
        expected: label,
        found: Found::text("another label or form"),
    };
    let body = pem
        .trim()
        .strip_prefix("-----BEGIN ")
        .and_then(|rest| rest.strip_prefix(label))
        .and_then(|rest| rest.strip_prefix("-----"))
        .and_then(|rest| rest.strip_suffix("-----"))
        .and_then(|rest| rest.strip_suffix(label))
        .and_then(|rest| rest.strip_suffix("-----END "))
        .ok_or_else(malformed)?;
    // Enough room from the start: growing would leave copies behind.
    let mut compact = Zeroizing::new(String::with_capacity(body.len()));
    body.chars()
        .filter(|character| !character.is_ascii_whitespace())
        .for_each(|character| compact.push(character));
    BASE64.decode(compact.as_bytes()).map(Zeroizing::new).map_err(|_| malformed())
}
