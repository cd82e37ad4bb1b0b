//! The seal of a volume: 4096 bytes behind its header, authenticated by its key. Who has not the key has no say about the header, nor about
//! how long the data are.
//!
//! It also says whether somebody has the volume open to write. That is for two guests of one operator, whose host is honest: a host that copies
//! the disk, or puts an earlier one in its place, shows each guest what it likes, and nothing on the disk can tell.

use aws_lc_rs::{digest, hmac};

use super::VolumeError;

pub(super) const SEAL_BYTES: usize = 4096;
const MAGIC: &[u8; 16] = b"innerkeep-volume";
const VERSION: u32 = 1;
/// What the key of the seal is derived for. No other use of the volume's key authenticates a text of this length.
const LABEL: &[u8] = b"innerkeep volume seal v1";
const BODY_BYTES: usize = 96;
const DIGEST_BYTES: usize = 32;

/// Who opened it.
pub(super) type Opener = [u8; 16];

/// What is sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seal {
    /// SHA-256 of all that is before the seal.
    pub(super) header: [u8; DIGEST_BYTES],
    /// Sectors of data.
    pub(super) sectors: u64,
    /// How often it was opened to write.
    pub(super) generation: u64,
    /// Who has it open to write.
    pub(super) opener: Option<Opener>,
}

/// The key of seals.
pub(super) struct SealKey(hmac::Key);

impl SealKey {
    /// Out of the key of a volume.
    pub(super) fn of(passphrase: &[u8]) -> Self {
        let key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, passphrase), LABEL);
        Self(hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()))
    }
}

/// The digest of a header.
pub(super) fn digest_of(header: &[u8]) -> [u8; DIGEST_BYTES] {
    let digest = digest::digest(&digest::SHA256, header);
    digest.as_ref().try_into().unwrap_or_default()
}

impl Seal {
    /// As bytes.
    pub(super) fn encode(&self, key: &SealKey) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(u32::from(self.opener.is_some()).to_le_bytes());
        bytes.extend(self.opener.unwrap_or_default());
        bytes.extend(self.generation.to_le_bytes());
        bytes.extend(self.sectors.to_le_bytes());
        bytes.extend(self.header);
        bytes.resize(BODY_BYTES, 0);
        let tag = hmac::sign(&key.0, &bytes);
        bytes.extend_from_slice(tag.as_ref());
        bytes.resize(SEAL_BYTES, 0);
        bytes
    }

    /// Takes one that a holder of the key wrote, for this header.
    pub(super) fn decode(bytes: &[u8], header: &[u8], key: &SealKey) -> Result<Self, VolumeError> {
        let (body, rest) = bytes.split_at_checked(BODY_BYTES).ok_or(VolumeError::HeaderAuthentication)?;
        let (tag, _) = rest.split_at_checked(DIGEST_BYTES).ok_or(VolumeError::HeaderAuthentication)?;
        // GUARD: volume-seal -> evil_host_seal_of_its_own
        hmac::verify(&key.0, body, tag).map_err(|_| VolumeError::HeaderAuthentication)?;
        let field = |at: usize, length: usize| body.get(at..at + length).unwrap_or_default();
        let number = |at: usize| field(at, 4).try_into().map_or(0, u32::from_le_bytes);
        let long = |at: usize| field(at, 8).try_into().map_or(0, u64::from_le_bytes);
        if field(0, 16) != MAGIC || number(16) != VERSION || number(20) > 1 {
            return Err(VolumeError::HeaderProfile { field: "seal", expected: "one of version 1" });
        }
        let seal = Self {
            header: field(56, DIGEST_BYTES).try_into().unwrap_or_default(),
            sectors: long(48),
            generation: long(40),
            opener: (number(20) == 1).then(|| field(24, 16).try_into().unwrap_or_default()),
        };
        // GUARD: volume-header-digest -> evil_host_header_of_its_own
        if seal.header != digest_of(header) {
            return Err(VolumeError::HeaderAuthentication);
        }
        Ok(seal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &[u8] = b"header";

    fn seal() -> Seal {
        Seal { header: digest_of(HEADER), sectors: 1 << 40, generation: 7, opener: Some([9; 16]) }
    }

    fn code(bytes: &[u8], header: &[u8], key: &[u8]) -> &'static str {
        Seal::decode(bytes, header, &SealKey::of(key)).map_or_else(|error| error.code(), |_| "OK")
    }

    #[test]
    fn seals_are_read_as_they_were_written() {
        let key = SealKey::of(b"key");
        for seal in [seal(), Seal { opener: None, ..seal() }] {
            let bytes = seal.encode(&key);
            assert_eq!(bytes.len(), SEAL_BYTES);
            assert_eq!(Seal::decode(&bytes, HEADER, &key).unwrap(), seal);
        }
    }

    #[test]
    fn evil_host_seal_of_its_own() {
        let bytes = seal().encode(&SealKey::of(b"key"));
        assert_eq!(code(&bytes, HEADER, b"key"), "OK");
        assert_eq!(code(&bytes, HEADER, b"kez"), "VOLUME_HEADER_AUTHENTICATION");
        for at in 0..BODY_BYTES + DIGEST_BYTES {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert_eq!(code(&other, HEADER, b"key"), "VOLUME_HEADER_AUTHENTICATION", "{at}");
        }
        for other in [&[][..], &bytes[..100], &[0; SEAL_BYTES]] {
            assert_eq!(code(other, HEADER, b"key"), "VOLUME_HEADER_AUTHENTICATION");
        }
    }

    #[test]
    fn evil_host_header_of_its_own() {
        let bytes = seal().encode(&SealKey::of(b"key"));
        assert_eq!(code(&bytes, b"headex", b"key"), "VOLUME_HEADER_AUTHENTICATION");
    }
}
