//! Key derivation and parameter encryption of sessions (Part 1 §11.4.10, §21; SP 800-108 and SP 800-56A).

use aws_lc_rs::cipher::{
    AES_128, AES_CFB_IV_LEN, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext,
    UnboundCipherKey,
};
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::TpmError;

/// 32 bytes of KDFa with HMAC-SHA-256: one block, as `bits` is 256 in every use here.
pub(super) fn kdf_a(key: &[u8], label: &str, context_u: &[u8], context_v: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut hmac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    hmac.update(&1_u32.to_be_bytes());
    hmac.update(label.as_bytes());
    hmac.update(&[0]);
    hmac.update(context_u);
    hmac.update(context_v);
    hmac.update(&256_u32.to_be_bytes());
    let mut derived = Zeroizing::new([0; 32]);
    derived.iter_mut().zip(hmac.sign().as_ref()).for_each(|(to, from)| *to = *from);
    derived
}

/// 32 bytes of KDFe with SHA-256.
pub(super) fn kdf_e(z: &[u8], label: &str, party_u: &[u8], party_v: &[u8]) -> Zeroizing<[u8; 32]> {
    let hash = Sha256::new().chain_update(1_u32.to_be_bytes()).chain_update(z);
    let hash = hash.chain_update(label).chain_update([0]).chain_update(party_u).chain_update(party_v);
    Zeroizing::new(hash.finalize().into())
}

/// HMAC-SHA-256 over parts, compared in constant time.
pub(super) fn hmac_is(key: &[u8], parts: &[&[u8]], expected: &[u8]) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::verify(&key, &parts.concat(), expected).is_ok()
}

/// HMAC-SHA-256 over parts.
pub(super) fn hmac_of(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &parts.concat());
    let mut out = [0; 32];
    out.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
    out
}

/// Encrypts a parameter in place: AES-128-CFB, key and IV by KDFa from the session key and both nonces.
pub(super) fn encrypt(key: &[u8], newer: &[u8], older: &[u8], parameter: &mut [u8]) -> Result<(), TpmError> {
    let (key, iv) = cipher(key, newer, older)?;
    let cipher = EncryptingKey::cfb128(key).map_err(|_| FAILED)?;
    cipher.less_safe_encrypt(parameter, EncryptionContext::Iv128(iv)).map_err(|_| FAILED)?;
    Ok(())
}

/// Decrypts a parameter in place.
pub(super) fn decrypt(key: &[u8], newer: &[u8], older: &[u8], parameter: &mut [u8]) -> Result<(), TpmError> {
    let (key, iv) = cipher(key, newer, older)?;
    let cipher = DecryptingKey::cfb128(key).map_err(|_| FAILED)?;
    cipher.decrypt(parameter, DecryptionContext::Iv128(iv)).map_err(|_| FAILED)?;
    Ok(())
}

const FAILED: TpmError = TpmError::Crypto { what: "AES-128-CFB of a parameter failed" };

fn cipher(
    key: &[u8],
    newer: &[u8],
    older: &[u8],
) -> Result<(UnboundCipherKey, FixedLength<AES_CFB_IV_LEN>), TpmError> {
    let derived = kdf_a(key, "CFB", newer, older);
    let (key, iv) = derived.split_at(16);
    let key = UnboundCipherKey::new(&AES_128, key).map_err(|_| FAILED)?;
    let iv = FixedLength::<AES_CFB_IV_LEN>::try_from(iv).map_err(|_| FAILED)?;
    Ok((key, iv))
}

#[cfg(test)]
mod tests;
