//! The two passes over a blob: verify all of it, then give its plaintext.

use std::fmt;
use std::io::{self, Read, Seek};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_256, DecryptionContext, StreamingDecryptingKey, UnboundCipherKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::{digest, hmac, rand};
use zeroize::Zeroizing;

use super::error::OcicryptError;
use super::options::LayerKey;
use crate::image::policy::Digest;

/// Longest encrypted layer, in bytes: 64 GiB, of which 1 MiB of tags is kept.
pub const LAYER_MAX: u64 = 64 << 30;

/// How much is read and verified at once.
const CHUNK: usize = 1 << 20;
/// What the cryptographic library wants behind the output.
const SLACK: usize = 16;

type Tag = [u8; 16];

impl LayerKey {
    /// Reads the blob from its start to its end and verifies that it is `length` bytes long, that it is what was encrypted, and that its
    /// plaintext is the one for which the key was given. Only then there is something to read from.
    ///
    /// # Errors
    ///
    /// `OCICRYPT_AUTHENTICATION`, `OCICRYPT_DIGEST`, `OCICRYPT_IO`, `OCICRYPT_LENGTH`, `OCICRYPT_TOO_LARGE`.
    pub fn verify<B: Read + Seek>(self, mut blob: B, length: u64) -> Result<VerifiedLayer<B>, OcicryptError> {
        // GUARD: ocicrypt-layer-size -> evil_layer_of_a_huge_length
        if length > LAYER_MAX {
            return Err(OcicryptError::TooLarge { most: LAYER_MAX, what: "bytes" });
        }
        blob.rewind()?;
        let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, self.key.expose()));
        let mut plaintext = digest::Context::new(self.digest.algorithm().function());
        let mut cipher = self.cipher()?;
        let tagger = Tagger::new()?;
        let mut buffers = Buffers::default();
        let mut tags = Vec::new();
        let mut left = length;
        while left > 0 {
            let ciphertext = buffers.read(&mut blob, left)?;
            let found = u64::try_from(ciphertext.len()).unwrap_or(u64::MAX);
            // GUARD: ocicrypt-truncated -> evil_truncated_layer
            if found < left.min(CHUNK_BYTES) {
                return Err(OcicryptError::Length { expected: length, found: length - left + found });
            }
            mac.update(ciphertext);
            tags.push(tagger.tag(tags.len(), ciphertext)?);
            plaintext.update(buffers.decrypt(&mut cipher)?);
            left = left.saturating_sub(CHUNK_BYTES);
        }
        // GUARD: ocicrypt-extended -> evil_extended_layer
        if blob.read(&mut [0])? != 0 {
            return Err(OcicryptError::Length { expected: length, found: length + 1 });
        }
        // GUARD: ocicrypt-mac -> evil_altered_layer
        if verify_slices_are_equal(mac.sign().as_ref(), &self.mac).is_err() {
            return Err(OcicryptError::Authentication);
        }
        let plaintext = Digest::from_value(self.digest.algorithm(), plaintext.finish().as_ref());
        // GUARD: ocicrypt-digest -> evil_nonce_of_somebody_else
        if plaintext != self.digest {
            return Err(OcicryptError::Digest);
        }
        blob.rewind()?;
        let cipher = self.cipher()?;
        buffers.wipe();
        Ok(VerifiedLayer {
            blob,
            cipher,
            tagger,
            tags,
            buffers,
            left: length,
            chunk: 0,
            given: 0,
            failed: false,
        })
    }

    fn cipher(&self) -> Result<StreamingDecryptingKey, OcicryptError> {
        let failed = |_| OcicryptError::Crypto("start to decrypt");
        let key = UnboundCipherKey::new(&AES_256, self.key.expose()).map_err(failed)?;
        let context = DecryptionContext::Iv128(FixedLength::from(self.nonce));
        StreamingDecryptingKey::ctr(key, context).map_err(failed)
    }
}

const CHUNK_BYTES: u64 = CHUNK as u64;

/// The plaintext of a layer that was verified as a whole.
///
/// A read fails with [`io::ErrorKind::InvalidData`] and an [`OcicryptError`] when the blob is not the one any more that was verified; then
/// no read succeeds again.
pub struct VerifiedLayer<B> {
    blob: B,
    cipher: StreamingDecryptingKey,
    tagger: Tagger,
    tags: Vec<Tag>,
    buffers: Buffers,
    /// Ciphertext that is not read yet.
    left: u64,
    chunk: usize,
    /// How much of the plaintext in the buffer was given.
    given: usize,
    failed: bool,
}

impl<B> fmt::Debug for VerifiedLayer<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifiedLayer({} bytes left)", self.left)
    }
}

impl<B: Read> VerifiedLayer<B> {
    /// Reads, verifies and decrypts the next chunk.
    fn advance(&mut self) -> Result<(), OcicryptError> {
        let ciphertext = self.buffers.read(&mut self.blob, self.left)?;
        let expected = self.tags.get(self.chunk).ok_or(OcicryptError::Authentication)?;
        let found = self.tagger.tag(self.chunk, ciphertext)?;
        // GUARD: ocicrypt-second-pass -> evil_host_flips_after_the_first_pass
        if verify_slices_are_equal(&found, expected).is_err() {
            return Err(OcicryptError::Authentication);
        }
        self.buffers.decrypt(&mut self.cipher)?;
        self.left = self.left.saturating_sub(CHUNK_BYTES);
        (self.chunk, self.given) = (self.chunk + 1, 0);
        Ok(())
    }
}

impl<B: Read> Read for VerifiedLayer<B> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.failed {
            return Err(io::Error::new(io::ErrorKind::InvalidData, OcicryptError::Authentication));
        }
        if self.given == self.buffers.len && self.left > 0 && !out.is_empty() {
            self.advance().map_err(|error| {
                self.failed = true;
                self.buffers.wipe();
                io::Error::new(io::ErrorKind::InvalidData, error)
            })?;
        }
        let rest = self.buffers.plaintext().get(self.given..).unwrap_or_default();
        let length = rest.len().min(out.len());
        if let (Some(from), Some(to)) = (rest.get(..length), out.get_mut(..length)) {
            to.copy_from_slice(from);
        }
        self.given += length;
        Ok(length)
    }
}

/// Ciphertext and plaintext of one chunk; the latter is wiped.
#[derive(Default)]
struct Buffers {
    ciphertext: Vec<u8>,
    plaintext: Zeroizing<Vec<u8>>,
    /// How much of the plaintext's buffer is plaintext.
    len: usize,
}

impl Buffers {
    /// Reads one chunk, or what is left; less when the blob ends.
    fn read(&mut self, blob: &mut impl Read, left: u64) -> io::Result<&[u8]> {
        self.ciphertext.clear();
        blob.take(left.min(CHUNK_BYTES)).read_to_end(&mut self.ciphertext)?;
        Ok(&self.ciphertext)
    }

    fn decrypt(&mut self, cipher: &mut StreamingDecryptingKey) -> Result<&[u8], OcicryptError> {
        self.plaintext.resize(CHUNK + SLACK, 0);
        let update = cipher.update(&self.ciphertext, &mut self.plaintext);
        self.len = update.map_err(|_| OcicryptError::Crypto("decrypt"))?.written().len();
        Ok(self.plaintext())
    }

    fn plaintext(&self) -> &[u8] {
        self.plaintext.get(..self.len).unwrap_or_default()
    }

    fn wipe(&mut self) {
        self.plaintext = Zeroizing::default();
        self.len = 0;
    }
}

/// Tags of chunks by a random key that lives as long as the layer is read: AES-256-GCM over nothing but additional data.
///
/// The second pass computes a tag under the nonce of the first. It is compared and never given out, and the first difference ends the
/// reading, so that nobody gets two tags of one nonce.
struct Tagger(LessSafeKey);

impl Tagger {
    fn new() -> Result<Self, OcicryptError> {
        let failed = |_| OcicryptError::Crypto("make a key");
        let mut key = Zeroizing::new([0; 32]);
        rand::fill(key.as_mut_slice()).map_err(failed)?;
        UnboundKey::new(&AES_256_GCM, key.as_slice()).map(LessSafeKey::new).map(Self).map_err(failed)
    }

    fn tag(&self, chunk: usize, bytes: &[u8]) -> Result<Tag, OcicryptError> {
        let mut nonce = [0; 12];
        let number = u64::try_from(chunk).unwrap_or(u64::MAX).to_be_bytes();
        for (to, from) in nonce.iter_mut().zip(number) {
            *to = from;
        }
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(bytes), &mut []);
        let tag = tag.ok().and_then(|tag| tag.as_ref().try_into().ok());
        tag.ok_or(OcicryptError::Crypto("authenticate"))
    }
}
