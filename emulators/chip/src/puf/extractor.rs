//! Code-offset fuzzy extractor: `w = r XOR c`, root from r, helper data authenticated under the root.

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha512;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::bch::{Bch, MESSAGE, Word};
use super::{BLOCKS, RESPONSE_BYTES, Response};

const ROOT_SALT: &[u8] = b"innerkeep chip puf v1";
const HELPER_INFO: &[u8] = b"innerkeep chip helper v1";
const MAC_BYTES: usize = 64;

/// Length of stored helper data: packed w, then its MAC.
pub(crate) const HELPER_BYTES: usize = RESPONSE_BYTES + MAC_BYTES;

/// The chip's root secret: HKDF-Extract output. Exists only while the controller is enabled.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct Root([u8; 64]);

impl Root {
    /// HKDF-Expand(SHA-512, root, info).
    pub(crate) fn expand(&self, info: &[&[u8]], out: &mut [u8]) {
        if let Ok(kdf) = Hkdf::<Sha512>::from_prk(&self.0) {
            // Cannot fail: every caller asks for far less than 255 · 64 bytes.
            let _ = kdf.expand_multi_info(info, out);
        }
    }
}

impl std::fmt::Debug for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Root(..)")
    }
}

/// Public helper data: w and its MAC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HelperData {
    w: [u8; RESPONSE_BYTES],
    mac: [u8; MAC_BYTES],
}

impl HelperData {
    pub(crate) fn to_bytes(&self) -> [u8; HELPER_BYTES] {
        let mut bytes = [0; HELPER_BYTES];
        bytes[..RESPONSE_BYTES].copy_from_slice(&self.w);
        bytes[RESPONSE_BYTES..].copy_from_slice(&self.mac);
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8; HELPER_BYTES]) -> Self {
        let mut helper = Self { w: [0; RESPONSE_BYTES], mac: [0; MAC_BYTES] };
        helper.w.copy_from_slice(&bytes[..RESPONSE_BYTES]);
        helper.mac.copy_from_slice(&bytes[RESPONSE_BYTES..]);
        helper
    }
}

/// The root could not be reconstructed: too much noise, or helper data that is not this chip's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the PUF reading could not be corrected to the enrolled response")]
pub struct PufFailed;

/// Enrolment and reconstruction.
#[derive(Debug)]
pub(crate) struct Extractor {
    code: Bch,
}

impl Extractor {
    pub(crate) fn new() -> Self {
        Self { code: Bch::new() }
    }

    /// Helper data and root for a first reading. `messages` are seven uniformly random 63-bit values.
    pub(crate) fn enrol(&self, reading: &Response, messages: &[u64; BLOCKS]) -> (HelperData, Root) {
        let mut offset = Response::default();
        for (block, message) in messages.iter().enumerate() {
            let codeword = self.code.encode(message & ((1 << MESSAGE) - 1));
            offset.0[block] = reading.0[block].xor(&codeword);
        }
        let root = root_of(reading);
        let w = *offset.pack();
        (HelperData { mac: helper_mac(&root, &w), w }, root)
    }

    /// The root from another reading of the same silicon.
    pub(crate) fn reconstruct(&self, reading: &Response, helper: &HelperData) -> Result<Root, PufFailed> {
        let offset = Response::unpack(&helper.w);
        let mut corrected = Response::default();
        for block in 0..BLOCKS {
            let noisy: Word = reading.0[block].xor(&offset.0[block]);
            let codeword = self.code.decode(&noisy).map_err(|_uncorrectable| PufFailed)?;
            corrected.0[block] = offset.0[block].xor(&codeword);
        }
        let root = root_of(&corrected);
        // GUARD: puf-helper-mac -> evil_altered_helper_data_is_refused
        if !bool::from(helper_mac(&root, &helper.w).ct_eq(&helper.mac)) {
            return Err(PufFailed);
        }
        Ok(root)
    }
}

fn root_of(response: &Response) -> Root {
    let packed = response.pack();
    let (prk, _) = Hkdf::<Sha512>::extract(Some(ROOT_SALT), packed.as_slice());
    let mut root = Root([0; 64]);
    root.0.copy_from_slice(&prk);
    root
}

fn helper_mac(root: &Root, w: &[u8; RESPONSE_BYTES]) -> [u8; MAC_BYTES] {
    let mut key = Zeroizing::new([0; 64]);
    root.expand(&[HELPER_INFO], key.as_mut_slice());
    let Ok(mut mac) = <Hmac<Sha512> as KeyInit>::new_from_slice(key.as_slice()) else {
        unreachable!("HMAC takes keys of any length")
    };
    mac.update(w);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::super::noise::{Probability, Xoshiro};
    use super::super::silicon::Silicon;
    use super::*;

    fn enrolled(seed: u64, noise: f64) -> (Extractor, Silicon, HelperData, Root) {
        let mut random = Xoshiro::new(seed);
        let mut bytes = [0; RESPONSE_BYTES];
        bytes.fill_with(|| random.draw() as u8);
        let reference = Silicon::manufacture(&bytes);
        let mut silicon = Silicon::new(&reference, Probability::new(noise).unwrap(), seed);
        let extractor = Extractor::new();
        let reading = silicon.read();
        let (helper, root) = extractor.enrol(&reading, &std::array::from_fn(|_| random.draw()));
        (extractor, silicon, helper, root)
    }

    #[test]
    fn noisy_readings_give_the_same_root() {
        let (extractor, mut silicon, helper, root) = enrolled(11, 0.015);
        for _ in 0..500 {
            assert_eq!(extractor.reconstruct(&silicon.read(), &helper).unwrap().0, root.0);
        }
    }

    #[test]
    fn helper_data_survives_storage() {
        let (extractor, mut silicon, helper, root) = enrolled(12, 0.01);
        let stored = HelperData::from_bytes(&helper.to_bytes());
        assert_eq!(stored, helper);
        assert_eq!(extractor.reconstruct(&silicon.read(), &stored).unwrap().0, root.0);
    }

    #[test]
    fn too_much_noise_fails() {
        let (extractor, silicon, helper, _) = enrolled(13, 0.0);
        assert_eq!(extractor.reconstruct(&silicon.read_beyond_correction(), &helper).err(), Some(PufFailed));
    }

    #[test]
    fn another_chip_fails() {
        let (extractor, _, helper, _) = enrolled(14, 0.0);
        let (_, mut other, _, _) = enrolled(15, 0.0);
        assert_eq!(extractor.reconstruct(&other.read(), &helper).err(), Some(PufFailed));
    }

    /// Helper data shifted by a codeword decodes to the enrolled response, since the code is linear: only the MAC tells.
    #[test]
    fn evil_altered_helper_data_is_refused() {
        let (extractor, mut silicon, helper, _) = enrolled(16, 0.0);
        let mut shifted = Response::unpack(&helper.w);
        shifted.0[0] = shifted.0[0].xor(&extractor.code.encode(1));
        let evil = HelperData { w: *shifted.pack(), mac: helper.mac };
        assert_eq!(extractor.reconstruct(&silicon.read(), &evil).err(), Some(PufFailed));
    }

    #[test]
    fn the_root_is_the_specified_extraction() {
        let response = Response::unpack(&[0x5a; RESPONSE_BYTES]);
        let packed = response.pack();
        assert_eq!(packed[..223], [0x5a; 223]);
        assert_eq!(packed[223], 0x5a & 0x80, "1,785 = 223 · 8 + 1 bits");
        let key = <Hmac<Sha512> as KeyInit>::new_from_slice(b"innerkeep chip puf v1").unwrap();
        let expected = key.chain_update(packed.as_slice()).finalize().into_bytes();
        assert_eq!(root_of(&response).0.as_slice(), expected.as_slice());
    }
}
