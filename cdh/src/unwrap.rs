//! Ciphers under which secrets and keys of layers are wrapped: AES-256-GCM (12-byte IV, tag behind, no AAD), AES-256-CTR (16-byte IV), and
//! AES-256 key wrap (RFC 3394).

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_256, DecryptingKey, DecryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::key_wrap::{AES_256 as KEY_WRAP, AesKek, KeyWrap as _};
use zeroize::Zeroizing;

use crate::hub_error::HubError;
use crate::modes::Modes;
use crate::plaintext::Plaintext;
use initdata::InsecureMode;

/// Bytes of every key here.
pub const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 16;

/// A cipher, by the name that it has on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrapType {
    /// `A256CTR`: whoever can change the ciphertext changes the plaintext with it.
    A256Ctr,
    /// `A256GCM`.
    A256Gcm,
}

impl WrapType {
    /// Reads a name.
    ///
    /// # Errors
    ///
    /// `WRAP_MALFORMED`.
    pub fn parse(what: &'static str, name: &str) -> Result<Self, HubError> {
        match name {
            "A256CTR" => Ok(Self::A256Ctr),
            "A256GCM" => Ok(Self::A256Gcm),
            _ => Err(HubError::WrapForm { what, expected: "wrap_type A256GCM" }),
        }
    }

    /// Opens `data` in place and moves it to where secrets lie. `what` is wrapped: for errors.
    ///
    /// # Errors
    ///
    /// `WRAP_UNAUTHENTICATED` for CTR where no bound mode permits it; `WRAP_MALFORMED` for another length of key or IV;
    /// `WRAP_AUTHENTICATION`; `CDH_MEMORY`.
    pub fn open(
        self,
        what: &'static str,
        key: &[u8],
        iv: &[u8],
        mut data: Zeroizing<Vec<u8>>,
        modes: &Modes,
    ) -> Result<Plaintext, HubError> {
        let permitted = self == Self::A256Gcm || modes.has(InsecureMode::UnauthenticatedSecrets);
        // GUARD: wrap-authenticated -> evil_registry_secret_under_ctr
        if !permitted {
            return Err(HubError::WrapUnauthenticated);
        }
        if key.len() != KEY_BYTES {
            return Err(HubError::WrapForm { what, expected: "a key of 32 bytes" });
        }
        match self {
            Self::A256Ctr => Plaintext::take_from(ctr(what, key, iv, &mut data)?),
            Self::A256Gcm => Plaintext::take_from(gcm(what, key, iv, &mut data)?),
        }
    }
}

fn gcm<'a>(what: &'static str, key: &[u8], iv: &[u8], data: &'a mut [u8]) -> Result<&'a mut [u8], HubError> {
    let form = |expected| HubError::WrapForm { what, expected };
    if data.len() < TAG_BYTES {
        return Err(form("at least the 16 bytes of a tag"));
    }
    let nonce = Nonce::try_assume_unique_for_key(iv).map_err(|_| form("an IV of 12 bytes"))?;
    let key = UnboundKey::new(&AES_256_GCM, key).map_err(|_| form("a key of 32 bytes"))?;
    let failed = |_| HubError::WrapAuthentication { what };
    LessSafeKey::new(key).open_in_place(nonce, Aad::empty(), data).map_err(failed)
}

fn ctr<'a>(what: &'static str, key: &[u8], iv: &[u8], data: &'a mut [u8]) -> Result<&'a mut [u8], HubError> {
    let form = |expected| HubError::WrapForm { what, expected };
    let iv = <[u8; 16]>::try_from(iv).map_err(|_| form("an IV of 16 bytes"))?;
    let key = UnboundCipherKey::new(&AES_256, key).and_then(DecryptingKey::ctr);
    let key = key.map_err(|_| form("a key of 32 bytes"))?;
    let context = DecryptionContext::Iv128(FixedLength::from(iv));
    key.decrypt(data, context).map_err(|_| HubError::WrapAuthentication { what })
}

/// A key of 32 bytes out of 40 that AES-256 key wrap made.
///
/// # Errors
///
/// `WRAP_MALFORMED`, `WRAP_AUTHENTICATION`, `CDH_MEMORY`.
pub fn unwrap_key(what: &'static str, kek: &[u8], wrapped: &[u8]) -> Result<Plaintext, HubError> {
    let form = |expected| HubError::WrapForm { what, expected };
    if wrapped.len() != KEY_BYTES + 8 {
        return Err(form("40 bytes: a key of 32 under AES-256 key wrap"));
    }
    let kek = AesKek::new(&KEY_WRAP, kek).map_err(|_| form("a wrapping key of 32 bytes"))?;
    let mut room = Zeroizing::new([0; KEY_BYTES + 8]);
    let key = kek.unwrap(wrapped, &mut *room).map_err(|_| HubError::WrapAuthentication { what })?;
    Plaintext::take_from(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [9; 32];

    fn code(result: Result<Plaintext, HubError>) -> &'static str {
        result.map_or_else(|error| error.code(), |_| "OK")
    }

    #[test]
    fn ctr_opens_only_where_it_is_permitted() {
        // AES-256-CTR, NIST SP 800-38A F.5.6, first block.
        let key = hex::decode("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4").unwrap();
        let iv = hex::decode("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff").unwrap();
        let sealed = || Zeroizing::new(hex::decode("601ec313775789a5b7a7f504bbf3d228").unwrap());
        let permitted = Modes::of(&[InsecureMode::UnauthenticatedSecrets]);
        let opened = WrapType::A256Ctr.open("x", &key, &iv, sealed(), &permitted).unwrap();
        assert_eq!(hex::encode(opened.expose()), "6bc1bee22e409f96e93d7e117393172a");
        let opened = WrapType::A256Ctr.open("x", &key, &iv[..12], sealed(), &permitted);
        assert_eq!(code(opened), "WRAP_MALFORMED");
    }

    #[test]
    fn evil_registry_secret_under_ctr() {
        let sealed = Zeroizing::new(vec![0; 32]);
        assert_eq!(
            code(WrapType::A256Ctr.open("x", &KEY, &[0; 16], sealed, &Modes::none())),
            "WRAP_UNAUTHENTICATED"
        );
    }

    #[test]
    fn what_does_not_open_is_one_error() {
        for length in [16, 17, 4096] {
            let sealed = Zeroizing::new(vec![1; length]);
            let opened = WrapType::A256Gcm.open("x", &KEY, &[0; 12], sealed, &Modes::none());
            assert_eq!(code(opened), "WRAP_AUTHENTICATION");
        }
        for (key, iv, length) in [(&KEY[..31], 12, 32), (&KEY, 16, 32), (&KEY, 12, 15)] {
            let sealed = Zeroizing::new(vec![1; length]);
            let opened = WrapType::A256Gcm.open("x", key, &vec![0; iv], sealed, &Modes::none());
            assert_eq!(code(opened), "WRAP_MALFORMED");
        }
    }

    #[test]
    fn keys_are_unwrapped_as_rfc_3394_says() {
        // RFC 3394 §4.6.
        let kek = hex::decode("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f").unwrap();
        let mut wrapped =
            hex::decode("28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21")
                .unwrap();
        let key = unwrap_key("x", &kek, &wrapped).unwrap();
        let expected = "00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f";
        assert_eq!(hex::encode(key.expose()), expected);
        wrapped[0] ^= 1;
        assert_eq!(code(unwrap_key("x", &kek, &wrapped)), "WRAP_AUTHENTICATION");
        assert_eq!(code(unwrap_key("x", &kek, &wrapped[..32])), "WRAP_MALFORMED");
        assert_eq!(code(unwrap_key("x", &kek[..16], &wrapped)), "WRAP_MALFORMED");
    }
}
