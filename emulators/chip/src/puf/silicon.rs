//! The silicon model: a reference response that every reading repeats with independent bit errors.

use zeroize::Zeroizing;

use super::noise::{Probability, Xoshiro};
use super::{RESPONSE_BITS, RESPONSE_BYTES, Response, bch};

/// One piece of silicon. The reference response stands for what the transistors are; hardware stores it nowhere.
#[derive(Debug)]
pub(crate) struct Silicon {
    reference: Response,
    noise: Probability,
    random: Xoshiro,
}

impl Silicon {
    /// New silicon from 224 uniformly random bytes (the last seven bits are not used).
    pub(crate) fn manufacture(random: &[u8; RESPONSE_BYTES]) -> Zeroizing<[u8; RESPONSE_BYTES]> {
        Response::unpack(random).pack()
    }

    /// `seed` decides only the noise.
    pub(crate) fn new(reference: &[u8; RESPONSE_BYTES], noise: Probability, seed: u64) -> Self {
        Self { reference: Response::unpack(reference), noise, random: Xoshiro::new(seed) }
    }

    /// Power-up: the reference with fresh noise.
    pub(crate) fn read(&mut self) -> Response {
        let mut response = self.reference.clone();
        for i in (0..RESPONSE_BITS).step_by(2) {
            let flips = self.random.happens(self.noise);
            for (offset, flip) in flips.into_iter().enumerate() {
                let bit = i + offset;
                if flip && bit < RESPONSE_BITS {
                    response.0[bit / bch::LENGTH].flip(bit % bch::LENGTH);
                }
            }
        }
        response
    }

    /// A reading with one error more in its first block than the code corrects.
    pub(crate) fn read_beyond_correction(&self) -> Response {
        let mut response = self.reference.clone();
        for bit in 0..=bch::ERRORS {
            response.0[0].flip(bit * 8);
        }
        response
    }
}
