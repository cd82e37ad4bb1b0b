//! AES key wrap (RFC 3394) of a 32-byte key, with a key of 24 or 32 bytes.

use aws_lc_rs::cipher::{AES_192, AES_256, EncryptingKey, UnboundCipherKey};
use aws_lc_rs::error::Unspecified;
use zeroize::Zeroizing;

const INITIAL: [u8; 8] = [0xa6; 8];
const ROUNDS: u64 = 6;

/// Wraps `key`.
pub(super) fn aes_key_wrap(wrapping_key: &[u8], key: &[u8; 32]) -> Result<[u8; 40], Unspecified> {
    let algorithm = if wrapping_key.len() == 24 { &AES_192 } else { &AES_256 };
    let cipher = EncryptingKey::ecb(UnboundCipherKey::new(algorithm, wrapping_key)?)?;
    let mut registers = Zeroizing::new([[0; 8]; 4]);
    for (register, part) in registers.iter_mut().zip(key.chunks(8)) {
        register.copy_from_slice(part);
    }
    let mut integrity = INITIAL;
    let mut step = 0u64;
    let mut block = Zeroizing::new([0; 16]);
    for _ in 0..ROUNDS {
        for register in registers.iter_mut() {
            step += 1;
            let (front, back) = block.split_at_mut(8);
            front.copy_from_slice(&integrity);
            back.copy_from_slice(register);
            cipher.encrypt(block.as_mut_slice())?;
            let (front, back) = block.split_at(8);
            let counter = step.to_be_bytes();
            for ((to, from), counter) in integrity.iter_mut().zip(front).zip(counter) {
                *to = *from ^ counter;
            }
            register.copy_from_slice(back);
        }
    }
    let mut wrapped = [0; 40];
    for (to, from) in wrapped.chunks_mut(8).zip(std::iter::once(&integrity).chain(registers.iter())) {
        to.copy_from_slice(from);
    }
    Ok(wrapped)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3394, 4.6: 256 bits of key data with a 256-bit key.
    #[test]
    fn wraps_as_the_rfc_says() {
        let kek: Vec<u8> = (0..32).collect();
        let key = hex::decode("00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f").unwrap();
        let wrapped = aes_key_wrap(&kek, key.as_slice().try_into().unwrap()).unwrap();
        assert_eq!(
            hex::encode(wrapped),
            "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21"
        );
        assert!(aes_key_wrap(&kek[..31], &[0; 32]).is_err());
    }

    /// With 192 bits the RFC has answers for shorter keys alone: the answer is undone here with RustCrypto's AES.
    #[test]
    fn a_192_bit_key_wraps_so_that_another_implementation_unwraps() {
        let key = [0x5a; 32];
        let wrapped = aes_key_wrap(&[7; 24], &key).unwrap();
        assert_eq!(super::super::tests::unwrap(&[7; 24], &wrapped), Some(key.to_vec()));
        assert_eq!(super::super::tests::unwrap(&[8; 24], &wrapped), None);
    }
}
