//! The two key derivations of the protocol.

use aws_lc_rs::digest;
use cshake::CShake256;
use cshake::digest::{ExtendableOutput, Update, XofReader};
use zeroize::{Zeroize, Zeroizing};

use super::jwk::{ECDH, MLKEM};

/// The Concat KDF of RFC 7518 §4.6 for `ECDH-ES+A256KW`, without party information: one round of SHA-256.
pub(super) fn concat_kdf(shared_secret: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&1_u32.to_be_bytes());
    context.update(shared_secret);
    context.update(&length_of(ECDH));
    context.update(ECDH.as_bytes());
    // apu and apv, empty.
    context.update(&[0; 8]);
    context.update(&256_u32.to_be_bytes());
    let mut key = Zeroizing::new([0; 32]);
    // The context of the library is wiped by the library.
    for (to, from) in key.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    key
}

/// The key of `ML-KEM-768+A192KW`: KMAC256 of algorithm and length under the shared secret.
pub(super) fn ml_kem_kdf(shared_secret: &[u8]) -> Zeroizing<[u8; 24]> {
    let other = [&length_of(MLKEM)[..], MLKEM.as_bytes(), &192_u32.to_be_bytes()].concat();
    let mut key = Zeroizing::new([0; 24]);
    kmac256(shared_secret, &other, &mut key[..]);
    key
}

fn length_of(algorithm: &str) -> [u8; 4] {
    // Both names are constants of less than 20 bytes.
    u32::try_from(algorithm.len()).unwrap_or_default().to_be_bytes()
}

/// KMAC256 of NIST SP 800-185 with an empty customisation; the output length is that of `out`.
fn kmac256(key: &[u8], message: &[u8], out: &mut [u8]) {
    const RATE: usize = 136;
    let mut hash = CShake256::new_with_function_name(b"KMAC", b"");
    let mut padded = encode_number(RATE, Side::Left);
    padded.extend(encode_number(8 * key.len(), Side::Left));
    padded.extend_from_slice(key);
    padded.resize(padded.len().next_multiple_of(RATE), 0);
    hash.update(&padded);
    padded.zeroize();
    hash.update(message);
    hash.update(&encode_number(8 * out.len(), Side::Right));
    hash.finalize_xof().read(out);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// `left_encode` and `right_encode`.
fn encode_number(number: usize, side: Side) -> Vec<u8> {
    let bytes = number.to_be_bytes();
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count().min(bytes.len() - 1);
    let digits = bytes.iter().skip(zeros).copied();
    let count = u8::try_from(bytes.len() - zeros).unwrap_or_default();
    // Room for what is appended, so that key bytes are never left behind by a growing vector.
    let mut encoded = Vec::with_capacity(1024);
    if side == Side::Left {
        encoded.push(count);
    }
    encoded.extend(digits);
    if side == Side::Right {
        encoded.push(count);
    }
    encoded
}

#[cfg(test)]
mod tests;
