//! Headers of LUKS2, in one form only (LUKS2 On-Disk Format Specification 1.1): what `cryptsetup` writes for
//! `--cipher aes-xts-plain64 --key-size 768 --integrity hmac-sha256 --sector-size 4096 --pbkdf pbkdf2`, with one key slot and no token.
//!
//! ```text
//!  0        16 KiB     32 KiB                                1 MiB - 4 KiB   1 MiB
//!  │ header │ its copy │ key slots                           │ seal          │ superblock of dm-integrity, tags, data ...
//! ```
//! The seal lies behind what the header itself calls its key slots: `cryptsetup` leaves it alone.

mod metadata;

use std::num::NonZeroU32;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use metadata::{Area, Config, Digest, Integrity, Metadata, Nothing, Only, Pbkdf2, Segment, Slot, Split};

use super::VolumeError;
use super::keyslot::{self, AREA_BYTES, DIGEST_BYTES, SALT_BYTES, SLOT_KEY_BYTES, STRIPES, VolumeKey};
use crate::dm::{AUTHENTICATED_KEY_BYTES, INTEGRITY_BLOCK_BYTES, random_bytes};

/// Bytes before the data.
pub(super) const DATA_OFFSET: usize = 1 << 20;
/// What is before the seal: both headers and the key slots.
pub(super) const HEADER_BYTES: usize = DATA_OFFSET - 4096;
/// Of one header, binary part and text.
const ONE_BYTES: usize = 16_384;
const BINARY_BYTES: usize = 4096;
const SLOTS_AT: usize = 2 * ONE_BYTES;
const CIPHER: &str = "aes-xts-plain64";
const MAGIC: &[u8; 6] = b"LUKS\xba\xbe";
const MAGIC_OF_THE_COPY: &[u8; 6] = b"SKUL\xba\xbe";
/// `cryptsetup` takes no fewer. More would protect a password that can be guessed; keys of less than 32 bytes are refused here.
const ITERATIONS: u32 = 1000;
/// No header makes a guest count for ever.
const MAXIMUM_ITERATIONS: u32 = 10_000_000;
/// Where fields of the binary part are.
const CHECKSUM_AT: usize = 448;
const CHECKSUM_BYTES: usize = 64;

fn wrong(field: &'static str, expected: &'static str) -> VolumeError {
    VolumeError::HeaderProfile { field, expected }
}

/// A new header for a passphrase, and the key that its one slot holds.
pub(super) fn create(passphrase: &[u8]) -> Result<(Vec<u8>, VolumeKey), VolumeError> {
    let mut key = Zeroizing::new([0; AUTHENTICATED_KEY_BYTES]);
    let (mut slot_salt, mut digest_salt, mut salts) = ([0; SALT_BYTES], [0; SALT_BYTES], [[0; 64]; 2]);
    let mut uuid = [0; 16];
    let [first, second] = &mut salts;
    for bytes in [&mut *key, &mut slot_salt[..], &mut digest_salt, first, second, &mut uuid] {
        let failed = VolumeError::io("make random bytes for", std::path::Path::new("a header"));
        random_bytes(bytes).map_err(failed)?;
    }
    let iterations = NonZeroU32::MIN.saturating_add(ITERATIONS - 1);
    let area = keyslot::seal(&key, &keyslot::derive(passphrase, &slot_salt, iterations))?;
    let digest = keyslot::derive::<DIGEST_BYTES>(&*key, &digest_salt, iterations);
    let text = |text: &str| text.to_owned();
    let metadata = Metadata {
        keyslots: Only {
            first: Slot {
                kind: text("luks2"),
                key_size: AUTHENTICATED_KEY_BYTES,
                af: Split { kind: text("luks1"), stripes: STRIPES, hash: text("sha256") },
                area: Area {
                    kind: text("raw"),
                    offset: SLOTS_AT.to_string(),
                    size: AREA_BYTES.to_string(),
                    encryption: text(CIPHER),
                    key_size: SLOT_KEY_BYTES,
                },
                kdf: Pbkdf2 {
                    kind: text("pbkdf2"),
                    hash: text("sha256"),
                    iterations: ITERATIONS,
                    salt: STANDARD.encode(slot_salt),
                },
            },
        },
        tokens: Nothing {},
        segments: Only {
            first: Segment {
                kind: text("crypt"),
                offset: DATA_OFFSET.to_string(),
                size: text("dynamic"),
                iv_tweak: text("0"),
                encryption: text(CIPHER),
                sector_size: INTEGRITY_BLOCK_BYTES,
                integrity: Integrity {
                    kind: text("hmac(sha256)"),
                    journal_encryption: text("none"),
                    journal_integrity: text("none"),
                },
            },
        },
        digests: Only {
            first: Digest {
                kind: text("pbkdf2"),
                keyslots: vec![text("0")],
                segments: vec![text("0")],
                hash: text("sha256"),
                iterations: ITERATIONS,
                salt: STANDARD.encode(digest_salt),
                digest: STANDARD.encode(*digest),
            },
        },
        config: Config {
            json_size: (ONE_BYTES - BINARY_BYTES).to_string(),
            keyslots_size: (HEADER_BYTES - SLOTS_AT).to_string(),
        },
    };
    let json = serde_json::to_vec(&metadata).map_err(|_| wrong("JSON", "what can be written"))?;
    let mut header = one(MAGIC, 0, first, uuid, &json);
    header.extend(one(MAGIC_OF_THE_COPY, ONE_BYTES, second, uuid, &json));
    header.extend(area);
    header.resize(HEADER_BYTES, 0);
    Ok((header, key))
}

/// One of the two headers.
fn one(magic: &[u8; 6], at: usize, salt: &[u8; 64], uuid: [u8; 16], json: &[u8]) -> Vec<u8> {
    let number = |number: usize| u64::try_from(number).unwrap_or_default().to_be_bytes();
    let mut bytes = magic.to_vec();
    let put = |bytes: &mut Vec<u8>, field: &[u8], length: usize| {
        let end = bytes.len() + length;
        bytes.extend_from_slice(field);
        bytes.resize(end, 0);
    };
    put(&mut bytes, &2_u16.to_be_bytes(), 2);
    put(&mut bytes, &number(ONE_BYTES), 8);
    put(&mut bytes, &1_u64.to_be_bytes(), 8); // sequence
    put(&mut bytes, b"", 48); // label
    put(&mut bytes, b"sha256", 32);
    put(&mut bytes, salt, 64);
    put(&mut bytes, uuid_text(uuid).as_bytes(), 40);
    put(&mut bytes, b"innerkeep", 48);
    put(&mut bytes, &number(at), 8);
    let rest = BINARY_BYTES.saturating_sub(bytes.len());
    put(&mut bytes, b"", rest);
    put(&mut bytes, json, ONE_BYTES - BINARY_BYTES);
    let checksum = digest::digest(&digest::SHA256, &bytes);
    if let Some(place) = bytes.get_mut(CHECKSUM_AT..CHECKSUM_AT + DIGEST_BYTES) {
        place.copy_from_slice(checksum.as_ref());
    }
    bytes
}

fn uuid_text(mut bytes: [u8; 16]) -> String {
    let [_, _, _, _, _, _, version, _, variant, ..] = &mut bytes;
    *version = *version & 0x0f | 0x40;
    *variant = *variant & 0x3f | 0x80;
    let digits = hex::encode(bytes);
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| digits.get(part).unwrap_or_default());
    parts.join("-")
}

/// The key that a header holds, if the header is of the one form and the passphrase is its own. To be called with a header whose seal was
/// verified, which is its holder's: nothing of it is believed beyond that, all the same.
pub(super) fn open(header: &[u8], passphrase: &[u8]) -> Result<VolumeKey, VolumeError> {
    let metadata = parse(header)?;
    let Slot { kdf, .. } = &metadata.keyslots.first;
    let slot_key =
        keyslot::derive(passphrase, &salt("keyslots.kdf.salt", &kdf.salt)?, counted(kdf.iterations)?);
    let area = header.get(SLOTS_AT..SLOTS_AT + AREA_BYTES).unwrap_or_default();
    let key = keyslot::open(area, &slot_key)?;
    let digest = &metadata.digests.first;
    let salt = salt("digests.salt", &digest.salt)?;
    let found = keyslot::derive::<DIGEST_BYTES>(&*key, &salt, counted(digest.iterations)?);
    let expected = STANDARD.decode(&digest.digest).map_err(|_| wrong("digests.digest", "base64"))?;
    // GUARD: volume-key-digest -> evil_holder_slot_of_another_key
    verify_slices_are_equal(&*found, &expected).map_err(|_| wrong("keyslots", "the key of the digest"))?;
    Ok(key)
}

fn salt(field: &'static str, text: &str) -> Result<[u8; SALT_BYTES], VolumeError> {
    let bytes = STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or(wrong(field, "32 bytes in base64"))
}

fn counted(iterations: u32) -> Result<NonZeroU32, VolumeError> {
    let allowed = (ITERATIONS..=MAXIMUM_ITERATIONS).contains(&iterations);
    NonZeroU32::new(iterations).filter(|_| allowed).ok_or(wrong("iterations", "1000 to 10000000"))
}

/// What a header says, where it is of the one form.
fn parse(header: &[u8]) -> Result<Metadata, VolumeError> {
    let first = header.get(..ONE_BYTES).ok_or(wrong("length", "1 MiB"))?;
    let field = |at: usize, length: usize| first.get(at..at + length).unwrap_or_default();
    let size = u64::try_from(ONE_BYTES).unwrap_or_default().to_be_bytes();
    for (name, found, expected, says) in [
        ("magic", field(0, 6), &MAGIC[..], "LUKS"),
        ("version", field(6, 2), &2_u16.to_be_bytes(), "2"),
        ("hdr_size", field(8, 8), &size, "16384"),
        ("hdr_offset", field(256, 8), &[0; 8], "0"),
        ("csum_alg", field(72, 8), b"sha256\0\0", "sha256"),
    ] {
        if found != expected {
            return Err(wrong(name, says));
        }
    }
    let mut plain = first.to_vec();
    if let Some(place) = plain.get_mut(CHECKSUM_AT..CHECKSUM_AT + CHECKSUM_BYTES) {
        place.fill(0);
    }
    if digest::digest(&digest::SHA256, &plain).as_ref() != field(CHECKSUM_AT, DIGEST_BYTES) {
        return Err(wrong("csum", "that of the header"));
    }
    let json =
        first.get(BINARY_BYTES..).unwrap_or_default().split(|byte| *byte == 0).next().unwrap_or_default();
    let metadata: Metadata = serde_json::from_slice(json)
        .map_err(|_| wrong("JSON", "the members of one key slot and one segment"))?;
    require_profile(&metadata)?;
    Ok(metadata)
}

/// One cipher, one way to the key, one place for the data.
fn require_profile(metadata: &Metadata) -> Result<(), VolumeError> {
    let Metadata { keyslots, segments, digests, config, .. } = metadata;
    let (slot, segment, digest) = (&keyslots.first, &segments.first, &digests.first);
    let texts = [
        ("keyslots.type", slot.kind.as_str(), "luks2"),
        ("keyslots.af.type", &slot.af.kind, "luks1"),
        ("keyslots.af.hash", &slot.af.hash, "sha256"),
        ("keyslots.area.type", &slot.area.kind, "raw"),
        ("keyslots.area.encryption", &slot.area.encryption, CIPHER),
        ("keyslots.area.offset", &slot.area.offset, "32768"),
        ("keyslots.area.size", &slot.area.size, "385024"),
        ("keyslots.kdf.type", &slot.kdf.kind, "pbkdf2"),
        ("keyslots.kdf.hash", &slot.kdf.hash, "sha256"),
        ("segments.type", &segment.kind, "crypt"),
        ("segments.offset", &segment.offset, "1048576"),
        ("segments.size", &segment.size, "dynamic"),
        ("segments.iv_tweak", &segment.iv_tweak, "0"),
        ("segments.encryption", &segment.encryption, CIPHER),
        ("segments.integrity.type", &segment.integrity.kind, "hmac(sha256)"),
        ("segments.integrity.journal_encryption", &segment.integrity.journal_encryption, "none"),
        ("segments.integrity.journal_integrity", &segment.integrity.journal_integrity, "none"),
        ("digests.type", &digest.kind, "pbkdf2"),
        ("digests.hash", &digest.hash, "sha256"),
        ("config.json_size", &config.json_size, "12288"),
        ("config.keyslots_size", &config.keyslots_size, "1011712"),
    ];
    for (field, found, expected) in texts {
        // GUARD: volume-profile -> evil_holder_null_cipher
        if found != expected {
            return Err(wrong(field, expected));
        }
    }
    let numbers = slot.key_size == AUTHENTICATED_KEY_BYTES
        && slot.af.stripes == STRIPES
        && slot.area.key_size == SLOT_KEY_BYTES
        && segment.sector_size == INTEGRITY_BLOCK_BYTES;
    if !numbers {
        return Err(wrong("sizes", "keys of 96 and 64 bytes, 4000 stripes, sectors of 4096 bytes"));
    }
    if digest.keyslots != ["0"] || digest.segments != ["0"] {
        return Err(wrong("digests", "slot 0 and segment 0"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
