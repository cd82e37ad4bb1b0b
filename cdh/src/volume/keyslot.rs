//! One key slot of LUKS2: a key, split over 4000 stripes so that a part of them says nothing, encrypted with AES-256-XTS under what PBKDF2
//! makes of the passphrase (LUKS2 On-Disk Format Specification, §2.3 and §3.2; LUKS1 specification, §2.4).

use std::num::NonZeroU32;

use aws_lc_rs::cipher::{AES_256, DecryptingKey, DecryptionContext, EncryptingKey, UnboundCipherKey};
use aws_lc_rs::{digest, pbkdf2};
use zeroize::Zeroizing;

use super::VolumeError;
use crate::dm::{AUTHENTICATED_KEY_BYTES as KEY_BYTES, random_bytes};

/// Of anti-forensic splitting.
pub(super) const STRIPES: usize = 4000;
/// Of the slot's own cipher.
pub(super) const SLOT_KEY_BYTES: usize = 64;
/// A slot's area in whole sectors of 4096 bytes.
pub(super) const AREA_BYTES: usize = (KEY_BYTES * STRIPES).next_multiple_of(4096);
pub(super) const SALT_BYTES: usize = 32;
pub(super) const DIGEST_BYTES: usize = 32;
const SECTOR: usize = 512;
const CIPHER_BLOCK: usize = 16;

/// A key of a volume.
pub(super) type VolumeKey = Zeroizing<[u8; KEY_BYTES]>;

/// What a library refuses that was given nothing wrong.
fn broken(_: impl Sized) -> VolumeError {
    VolumeError::Key { expected: "a working cipher" }
}

/// PBKDF2-HMAC-SHA-256.
pub(super) fn derive<const N: usize>(
    passphrase: &[u8],
    salt: &[u8],
    iterations: NonZeroU32,
) -> Zeroizing<[u8; N]> {
    let mut key = Zeroizing::new([0; N]);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, passphrase, &mut *key);
    key
}

/// The area of a slot that holds a key.
pub(super) fn seal(key: &VolumeKey, slot_key: &[u8; SLOT_KEY_BYTES]) -> Result<Vec<u8>, VolumeError> {
    let mut stripes = Zeroizing::new(vec![0; KEY_BYTES * STRIPES]);
    let random = VolumeError::io("make random bytes for", std::path::Path::new("a key slot"));
    let (split, last) = stripes.split_at_mut(KEY_BYTES * (STRIPES - 1));
    random_bytes(split).map_err(random)?;
    last.copy_from_slice(&*merged(split));
    last.iter_mut().zip(key.iter()).for_each(|(byte, key)| *byte ^= key);
    // Whole from the start: a vector that grows leaves a copy behind.
    let mut area = Zeroizing::new(vec![0; AREA_BYTES]);
    area.iter_mut().zip(stripes.iter()).for_each(|(to, from)| *to = *from);
    xts(&mut area, slot_key, Direction::Encrypt)?;
    Ok(std::mem::take(&mut *area))
}

/// The key that an area holds; another one where the slot's key is another.
pub(super) fn open(area: &[u8], slot_key: &[u8; SLOT_KEY_BYTES]) -> Result<VolumeKey, VolumeError> {
    let mut plain = Zeroizing::new(area.to_vec());
    xts(&mut plain, slot_key, Direction::Decrypt)?;
    let stripes = plain.get(..KEY_BYTES * STRIPES).ok_or(VolumeError::HeaderProfile {
        field: "keyslots.area.size",
        expected: "the stripes of one key",
    })?;
    let (split, last) = stripes.split_at(KEY_BYTES * (STRIPES - 1));
    let mut key = merged(split);
    key.iter_mut().zip(last).for_each(|(byte, last)| *byte ^= last);
    Ok(key)
}

/// All stripes but the last one, one upon the other.
fn merged(stripes: &[u8]) -> VolumeKey {
    let mut sum = Zeroizing::new([0; KEY_BYTES]);
    for stripe in stripes.chunks_exact(KEY_BYTES) {
        sum.iter_mut().zip(stripe).for_each(|(sum, byte)| *sum ^= byte);
        diffuse(&mut sum);
    }
    sum
}

/// Each 32 bytes become their SHA-256, with their number in front.
fn diffuse(block: &mut [u8; KEY_BYTES]) {
    for (index, part) in (0_u32..).zip(block.chunks_mut(DIGEST_BYTES)) {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&index.to_be_bytes());
        context.update(part);
        let digest = context.finish();
        part.iter_mut().zip(digest.as_ref()).for_each(|(byte, digest)| *byte = *digest);
    }
}

#[derive(Clone, Copy)]
enum Direction {
    Decrypt,
    Encrypt,
}

/// AES-256-XTS with the number of the sector as tweak (`plain64`). The library has no XTS: it is its AES over blocks, between two masks
/// (IEEE 1619).
fn xts(area: &mut [u8], key: &[u8; SLOT_KEY_BYTES], direction: Direction) -> Result<(), VolumeError> {
    let (data_key, tweak_key) = key.split_at(SLOT_KEY_BYTES / 2);
    let bound = |key| UnboundCipherKey::new(&AES_256, key).map_err(broken);
    let tweaks = EncryptingKey::ecb(bound(tweak_key)?).map_err(broken)?;
    let mut masks = Zeroizing::new(Vec::with_capacity(area.len()));
    for (number, sector) in (0_u64..).zip(area.chunks(SECTOR)) {
        let mut tweak = [0; CIPHER_BLOCK];
        let (low, _) = tweak.split_at_mut(size_of::<u64>());
        low.copy_from_slice(&number.to_le_bytes());
        tweaks.encrypt(&mut tweak).map_err(broken)?;
        let mut tweak = u128::from_le_bytes(tweak);
        for _ in sector.chunks(CIPHER_BLOCK) {
            masks.extend_from_slice(&tweak.to_le_bytes());
            tweak = (tweak << 1) ^ (if tweak >> 127 == 1 { 0x87 } else { 0 });
        }
    }
    let mask = |area: &mut [u8]| area.iter_mut().zip(masks.iter()).for_each(|(byte, mask)| *byte ^= mask);
    mask(area);
    match direction {
        Direction::Encrypt => {
            EncryptingKey::ecb(bound(data_key)?).and_then(|key| key.encrypt(area)).map_err(broken)?;
        }
        Direction::Decrypt => {
            let key = DecryptingKey::ecb(bound(data_key)?).map_err(broken)?;
            key.decrypt(area, DecryptionContext::None).map_err(broken)?;
        }
    }
    mask(area);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_gives_its_key_to_its_own_key_only() {
        let key = Zeroizing::new(std::array::from_fn(|index| u8::try_from(index).unwrap()));
        let slot = [7; SLOT_KEY_BYTES];
        let area = seal(&key, &slot).unwrap();
        assert_eq!(area.len(), AREA_BYTES);
        assert_eq!(*open(&area, &slot).unwrap(), *key);
        assert_ne!(*open(&area, &[8; SLOT_KEY_BYTES]).unwrap(), *key);
        let mut flipped = area.clone();
        flipped[1000] ^= 1;
        assert_ne!(*open(&flipped, &slot).unwrap(), *key, "one bit of one stripe");
    }

    /// IEEE 1619-2007, vector 10: AES-256, sector 0xff, first block.
    #[test]
    fn sectors_are_those_of_the_standard() {
        let key = hex::decode(
            "27182818284590452353602874713526624977572470936999595749669676273141592653589793238462643383279502884197169399375105820974944592",
        )
        .unwrap();
        let mut area = vec![0; 512 * 256];
        area[512 * 255..]
            .iter_mut()
            .enumerate()
            .for_each(|(index, byte)| *byte = u8::try_from(index % 256).unwrap());
        xts(&mut area, &key.try_into().unwrap(), Direction::Encrypt).unwrap();
        assert_eq!(hex::encode(&area[512 * 255..][..16]), "1c3b3a102f770386e4836c99e370cf9b");
    }
}
