//! Public keys of a TPM as SubjectPublicKeyInfo, and signatures by them.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

use super::TpmError;
use super::wire::{EccPoint, KeyKind, Public, Signature, WireError};

/// SubjectPublicKeyInfo of an uncompressed point on P-256 (RFC 5480), up to the point.
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// TPM 2.0's exponent 0.
const DEFAULT_EXPONENT: u32 = 65537;

/// DER of a key's SubjectPublicKeyInfo.
pub(super) fn spki(public: &Public) -> Result<Vec<u8>, TpmError> {
    const FAILED: TpmError =
        TpmError::Crypto { what: "public key of the TPM: expected an RSA key, found none" };
    match &public.kind {
        KeyKind::Data { .. } => Err(WireError::unexpected("type of a key", "RSA or ECC", 8_u8).into()),
        KeyKind::Ecc { point, .. } => Ok([&P256_PREFIX[..], &uncompressed(point)?].concat()),
        KeyKind::Rsa { modulus, exponent, .. } => {
            let e = if *exponent == 0 { DEFAULT_EXPONENT } else { *exponent };
            let e: Vec<u8> = e.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
            let key = PublicKeyComponents { n: modulus, e: &e };
            let der: PublicKeyX509Der<'_> = key.as_der().map_err(|_| FAILED)?;
            Ok(der.as_ref().to_vec())
        }
    }
}

/// A point as SEC 1 writes it: 4, x, y.
pub(super) fn uncompressed(point: &EccPoint) -> Result<[u8; 65], TpmError> {
    let mut bytes = [0; 65];
    let (head, coordinates) = bytes.split_at_mut(1);
    head.fill(4);
    let (x, y) = coordinates.split_at_mut(32);
    for (to, from) in [(x, &point.x), (y, &point.y)] {
        if from.len() > to.len() || from.is_empty() {
            return Err(TpmError::Crypto {
                what: "public key of the TPM: expected a point on P-256, found none",
            });
        }
        to.iter_mut().rev().zip(from.iter().rev()).for_each(|(to, from)| *to = *from);
    }
    Ok(bytes)
}

/// Whether `signature` is by the key with this SubjectPublicKeyInfo over `message`.
pub(super) fn signed(spki: &[u8], message: &[u8], signature: &Signature) -> bool {
    match signature {
        Signature::Ecdsa(signature) => spki.strip_prefix(&P256_PREFIX[..]).is_some_and(|point| {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature).is_ok()
        }),
        Signature::RsaSsa(signature) => {
            UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, spki).verify(message, signature).is_ok()
        }
    }
}
