//! What is sealed: bytes without any pattern, the same for the same seed.

use sha2::{Digest, Sha256};
use std::path::Path;

/// Reproducible bytes that no compressor and no chance brings forth a second time.
#[derive(Clone, Debug)]
pub struct Payload {
    bytes: Vec<u8>,
}

impl Payload {
    /// So many bytes for a seed; other seeds share nothing with them.
    pub fn random(seed: u64, length: usize) -> Self {
        let mut random = Random::new(seed);
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&random.draw().to_le_bytes());
        }
        bytes.truncate(length);
        Self { bytes }
    }

    /// These bytes.
    pub fn of(bytes: Vec<u8>) -> Self {
        Self { bytes }
    }

    /// A SafeTensors file with two tensors.
    pub fn safetensors(seed: u64) -> Self {
        use safetensors::tensor::{Dtype, TensorView};
        let weight = Self::random(seed, 384 * 257 * 4);
        let bias = Self::random(seed + 1, 384 * 4);
        let views = [
            ("encoder.weight", TensorView::new(Dtype::F32, vec![257, 384], weight.bytes())),
            ("encoder.bias", TensorView::new(Dtype::F32, vec![384], bias.bytes())),
        ];
        let views = views.map(|(name, view)| (name, view.expect("a tensor")));
        Self { bytes: safetensors::serialize(views, None).expect("a SafeTensors file") }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Their SHA-256, hex.
    pub fn sha256(&self) -> String {
        hex::encode(Sha256::digest(&self.bytes))
    }

    /// Writes them.
    pub fn write(&self, path: &Path) {
        std::fs::write(path, &self.bytes).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
    }

    /// `count` windows of 32 bytes: the payload is cut into as many pieces, and one window lies in each at random. Whoever copied a
    /// whole piece, and 31 bytes on either side, copied a window.
    pub fn windows(&self, random: &mut Random, count: usize) -> Vec<[u8; 32]> {
        if count == 0 {
            return Vec::new();
        }
        let piece = self.bytes.len() / count;
        assert!(piece >= 32, "expected pieces of at least 32 bytes, found {piece}");
        (0..count)
            .map(|index| {
                let offset = index * piece + random.below(piece - 31);
                self.bytes[offset..offset + 32].try_into().expect("32 bytes")
            })
            .collect()
    }
}

/// A reproducible source of numbers (SplitMix64). Not for keys.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The source of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A source with a seed that nobody chose, and the seed for the log.
    pub fn fresh() -> (Self, u64) {
        let mut seed = [0; 8];
        rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty()).expect("random bytes");
        let seed = u64::from_le_bytes(seed);
        (Self(seed), seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below a bound.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound.max(1)).expect("a bound of 64 bits");
        usize::try_from(self.draw() % bound).expect("below a usize")
    }
}
