//! KMAC256 (NIST SP 800-185), for answers to ML-KEM keys.

use keccak::{Keccak, State1600};
use zeroize::{Zeroize as _, Zeroizing};

const RATE: usize = 136;

/// The key that wraps the content key: 24 bytes from the shared secret.
pub(super) fn ml_kem_wrapping_key(secret: &[u8]) -> Zeroizing<[u8; 24]> {
    kmac256(secret, &super::ml_kem_context(), b"")
}

/// KMAC256 with `N` bytes of output, at most one block of the sponge.
fn kmac256<const N: usize>(key: &[u8], data: &[u8], customization: &[u8]) -> Zeroizing<[u8; N]> {
    let mut message = Zeroizing::new(Vec::with_capacity(4 * RATE + data.len()));
    byte_padded(&mut message, &[b"KMAC", customization]);
    byte_padded(&mut message, &[key]);
    message.extend_from_slice(data);
    let (bits, length) = encoded(8 * N);
    message.extend_from_slice(bits.get(8 - length..).unwrap_or_default());
    message.push(u8::try_from(length).unwrap_or(u8::MAX));
    sponge(message)
}

/// cSHAKE's padding, then squeezing one block.
fn sponge<const N: usize>(mut message: Zeroizing<Vec<u8>>) -> Zeroizing<[u8; N]> {
    message.push(0x04);
    let padded = message.len().next_multiple_of(RATE);
    message.resize(padded, 0);
    if let Some(last) = message.last_mut() {
        *last ^= 0x80;
    }
    let mut state: State1600 = [0; 25];
    let keccak = Keccak::new();
    for block in message.chunks(RATE) {
        for (lane, bytes) in state.iter_mut().zip(block.chunks(8)) {
            let mut word = [0; 8];
            word.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
            *lane ^= u64::from_le_bytes(word);
        }
        keccak.with_f1600(|permute| permute(&mut state));
    }
    let mut out = Zeroizing::new([0; N]);
    let squeezed = state.iter().flat_map(|lane| lane.to_le_bytes()).take(RATE);
    out.iter_mut().zip(squeezed).for_each(|(to, from)| *to = from);
    state.zeroize();
    out
}

/// `bytepad(encode_string(…) ‖ …, rate)`.
fn byte_padded(message: &mut Vec<u8>, strings: &[&[u8]]) {
    let start = message.len();
    left_encode(message, RATE);
    for string in strings {
        left_encode(message, 8 * string.len());
        message.extend_from_slice(string);
    }
    let length = (message.len() - start).next_multiple_of(RATE);
    message.resize(start + length, 0);
}

fn left_encode(message: &mut Vec<u8>, value: usize) {
    let (bytes, length) = encoded(value);
    message.push(u8::try_from(length).unwrap_or(u8::MAX));
    message.extend_from_slice(bytes.get(8 - length..).unwrap_or_default());
}

/// The number big-endian, and in how many bytes it fits, at least one.
fn encoded(value: usize) -> ([u8; 8], usize) {
    let bytes = u64::try_from(value).unwrap_or(u64::MAX).to_be_bytes();
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    (bytes, (8 - zeros).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sample 4 of NIST's KMAC256 examples, and OpenSSL's answer for 24 bytes without customization.
    #[test]
    fn answers_are_the_published_ones() {
        let key: Vec<u8> = (0x40..0x60).collect();
        let data = [0, 1, 2, 3];
        assert_eq!(
            hex::encode(kmac256::<64>(&key, &data, b"My Tagged Application").as_slice()),
            "20c570c31346f703c9ac36c61c03cb64c3970d0cfc787e9b79599d273a68d2f7\
             f69d4cc3de9d104a351689f27cf6f5951f0103f33f4f24871024d9c27773a8dd"
        );
        let short = kmac256::<24>(&key, &data, b"");
        assert_eq!(hex::encode(short.as_slice()), "e2f127733e21716ac9a2464342d37078a5356034bafa4951");
    }
}
