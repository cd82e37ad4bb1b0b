//! The second implementation: HKDF, SHA-2 and AES-GCM from other libraries, BLAKE3 over the whole, straight from the specification.

use aes_gcm::aead::{Aead as _, Payload};
use aes_gcm::{Aes256Gcm, KeyInit as _, Nonce};
use hkdf::Hkdf;
use sha2::{Digest as _, Sha256, Sha512};

use crate::core::Core;

/// Key material of one payload.
pub(super) struct PayloadKey {
    pub(super) aead: Aes256Gcm,
    pub(super) nonce_base: [u8; 12],
    pub(super) commitment: [u8; 32],
}

pub(super) fn payload_key(core: &Core, content_key: &[u8], payload: u32) -> PayloadKey {
    let parameters = Sha256::digest(core.parameters().to_value().encode());
    let hkdf = Hkdf::<Sha512>::new(Some(b"innerkeep sealed artifact v1"), content_key);
    let info = [b"innerkeep payload v1".as_slice(), &parameters, &payload.to_be_bytes()].concat();
    let mut okm = [0; 76];
    hkdf.expand(&info, &mut okm).unwrap();
    PayloadKey {
        aead: Aes256Gcm::new_from_slice(&okm[..32]).unwrap(),
        nonce_base: okm[32..44].try_into().unwrap(),
        commitment: okm[44..].try_into().unwrap(),
    }
}

/// What a segment is bound to.
#[derive(Clone, Copy)]
pub(super) struct Binding {
    pub(super) payload: u32,
    pub(super) segment: u64,
    pub(super) last: bool,
    pub(super) size: u64,
}

impl PayloadKey {
    fn nonce(&self, segment: u64) -> [u8; 12] {
        let counter = [[0; 4].as_slice(), &segment.to_be_bytes()].concat();
        std::array::from_fn(|index| self.nonce_base[index] ^ counter[index])
    }

    pub(super) fn open(&self, binding: Binding, ciphertext: &[u8], tag: &[u8]) -> Option<Vec<u8>> {
        let message = [ciphertext, tag].concat();
        let payload = Payload { msg: &message, aad: &aad(binding) };
        self.aead.decrypt(&Nonce::from(self.nonce(binding.segment)), payload).ok()
    }

    /// Ciphertext and tag; also for bindings that no honest sealer makes.
    pub(super) fn seal(&self, binding: Binding, plaintext: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let payload = Payload { msg: plaintext, aad: &aad(binding) };
        let mut sealed = self.aead.encrypt(&Nonce::from(self.nonce(binding.segment)), payload).unwrap();
        let tag = sealed.split_off(plaintext.len());
        (sealed, tag)
    }
}

fn aad(binding: Binding) -> Vec<u8> {
    let mut aad = b"IKSEGv1\0".to_vec();
    aad.extend(binding.payload.to_be_bytes());
    aad.extend([u8::from(binding.last), 0, 0, 0]);
    aad.extend(binding.segment.to_be_bytes());
    aad.extend(binding.size.to_be_bytes());
    aad
}
