//! The primitive narrow-sense binary BCH code (255, 63, t = 30).
//!
//! A word of 255 bits is a polynomial over GF(2): bit i is the coefficient of x^i. Decoding: syndromes (odd ones from a table of
//! byte contributions, even ones as squares), Berlekamp–Massey for the error locator, Chien search for its roots.

use super::gf256::{Field, ORDER};

/// Code length in bits.
pub(crate) const LENGTH: usize = 255;
/// Message length in bits.
pub(crate) const MESSAGE: usize = 63;
/// Errors corrected.
pub(crate) const ERRORS: usize = 30;

const PARITY: usize = LENGTH - MESSAGE;

/// 255 bits, bit i at `0[i / 64] >> (i % 64)`; the top bit is always zero.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Word(pub(crate) [u64; 4]);

impl Word {
    pub(crate) fn bit(&self, i: usize) -> bool {
        self.0[i / 64] >> (i % 64) & 1 == 1
    }

    pub(crate) fn flip(&mut self, i: usize) {
        self.0[i / 64] ^= 1 << (i % 64);
    }

    pub(crate) fn xor(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] ^ other.0[i]))
    }

    fn shift_left_one(&mut self) {
        for i in (1..4).rev() {
            self.0[i] = self.0[i] << 1 | self.0[i - 1] >> 63;
        }
        self.0[0] <<= 1;
    }
}

impl std::fmt::Debug for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Word(..)")
    }
}

/// More than [`ERRORS`] errors, as far as the decoder can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Uncorrectable;

/// Encoder and decoder with their tables.
pub(crate) struct Bch {
    field: Field,
    /// Generator polynomial, degree 192.
    generator: Word,
    /// `[byte position][byte value]` → contribution to S_1, S_3, …, S_59, in the low 30 bytes.
    contributions: Vec<[[u64; 4]; 256]>,
}

impl std::fmt::Debug for Bch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bch(255, 63, 30)")
    }
}

impl Bch {
    pub(crate) fn new() -> Self {
        let field = Field::new();
        let generator = generator(&field);
        let contributions = (0..32).map(|position| byte_contributions(&field, position)).collect();
        Self { field, generator, contributions }
    }

    /// The codeword of a 63-bit message: message in the high coefficients, parity in the low ones.
    pub(crate) fn encode(&self, message: u64) -> Word {
        let mut remainder = Word::default();
        for i in (0..MESSAGE).rev() {
            let feedback = remainder.bit(PARITY - 1) ^ (message >> i & 1 == 1);
            remainder.shift_left_one();
            // The generator's leading coefficient (x^192) cancels the bit that was shifted out.
            if remainder.bit(PARITY) {
                remainder.flip(PARITY);
            }
            if feedback {
                let mut low = self.generator;
                low.flip(PARITY);
                remainder = remainder.xor(&low);
            }
        }
        let mut word = remainder;
        for i in 0..MESSAGE {
            if message >> i & 1 == 1 {
                word.flip(PARITY + i);
            }
        }
        word
    }

    /// The codeword within distance 30 of `received`.
    pub(crate) fn decode(&self, received: &Word) -> Result<Word, Uncorrectable> {
        let syndromes = self.syndromes(received);
        if syndromes.iter().all(|s| *s == 0) {
            return Ok(*received);
        }
        let (locator, degree) = self.error_locator(&syndromes)?;
        let mut corrected = *received;
        let mut roots = 0;
        // x = α^-i is a root of the locator exactly when bit i is wrong.
        let mut terms = [0usize; ERRORS + 1];
        let mut steps = [0usize; ERRORS + 1];
        let mut live = 0;
        for (exponent, coefficient) in locator[..=degree].iter().enumerate().skip(1) {
            if *coefficient != 0 {
                terms[live] = self.field.logarithm(*coefficient);
                steps[live] = ORDER - exponent;
                live += 1;
            }
        }
        for i in 0..LENGTH {
            let mut sum = 1;
            for (term, step) in terms[..live].iter_mut().zip(&steps[..live]) {
                sum ^= self.field.power(*term);
                *term += *step;
                if *term >= ORDER {
                    *term -= ORDER;
                }
            }
            if sum == 0 {
                corrected.flip(i);
                roots += 1;
            }
        }
        if roots == degree { Ok(corrected) } else { Err(Uncorrectable) }
    }

    /// S_1 … S_60; index 0 is unused.
    fn syndromes(&self, word: &Word) -> [u8; 2 * ERRORS + 1] {
        let mut sums = [0u64; 4];
        for (position, table) in self.contributions.iter().enumerate() {
            let byte = (word.0[position / 8] >> (8 * (position % 8))) as u8;
            for (sum, contribution) in sums.iter_mut().zip(&table[usize::from(byte)]) {
                *sum ^= contribution;
            }
        }
        let mut syndromes = [0; 2 * ERRORS + 1];
        for k in 0..ERRORS {
            syndromes[2 * k + 1] = (sums[k / 8] >> (8 * (k % 8))) as u8;
        }
        for j in 1..=ERRORS {
            syndromes[2 * j] = self.field.multiply(syndromes[j], syndromes[j]);
        }
        syndromes
    }

    /// Berlekamp–Massey for a binary code: every second discrepancy is zero, so only the odd steps are made.
    fn error_locator(
        &self,
        syndromes: &[u8; 2 * ERRORS + 1],
    ) -> Result<([u8; ERRORS + 2], usize), Uncorrectable> {
        const SIZE: usize = 2 * ERRORS + 4;
        let mut locator = [0u8; SIZE];
        let mut previous = [0u8; SIZE];
        locator[0] = 1;
        previous[0] = 1;
        let mut length = 0;
        let mut shift = 1;
        let mut previous_discrepancy = 1;
        for n in (0..2 * ERRORS).step_by(2) {
            let mut discrepancy = 0;
            for i in 0..=length.min(n) {
                discrepancy ^= self.field.multiply(locator[i], syndromes[n + 1 - i]);
            }
            if discrepancy == 0 {
                shift += 2;
                continue;
            }
            let before = locator;
            let scale = self.field.divide(discrepancy, previous_discrepancy);
            for i in 0..SIZE.saturating_sub(shift) {
                locator[i + shift] ^= self.field.multiply(scale, previous[i]);
            }
            if 2 * length <= n {
                length = n + 1 - length;
                previous = before;
                previous_discrepancy = discrepancy;
                shift = 2;
            } else {
                shift += 2;
            }
        }
        if length > ERRORS || locator[length] == 0 || locator[length + 1..].iter().any(|c| *c != 0) {
            return Err(Uncorrectable);
        }
        let mut result = [0; ERRORS + 2];
        result[..=length].copy_from_slice(&locator[..=length]);
        Ok((result, length))
    }
}

/// The product of the distinct minimal polynomials of α^1 … α^60.
fn generator(field: &Field) -> Word {
    let mut covered = [false; ORDER];
    let mut generator = Word::default();
    generator.flip(0);
    for i in 1..=2 * ERRORS {
        if covered[i] {
            continue;
        }
        // The minimal polynomial of α^i is the product of (x − α^j) over the conjugates j = i, 2i, 4i, ….
        let mut minimal = vec![1u8];
        let mut j = i;
        loop {
            covered[j] = true;
            let root = field.power(j);
            let mut product = vec![0u8; minimal.len() + 1];
            for (k, coefficient) in minimal.iter().enumerate() {
                product[k + 1] ^= coefficient;
                product[k] ^= field.multiply(*coefficient, root);
            }
            minimal = product;
            j = 2 * j % ORDER;
            if j == i {
                break;
            }
        }
        let mut product = Word::default();
        for (k, coefficient) in minimal.iter().enumerate() {
            debug_assert!(*coefficient <= 1, "a minimal polynomial over GF(2) has coefficients in GF(2)");
            if *coefficient == 1 {
                let mut shifted = generator;
                for _ in 0..k {
                    shifted.shift_left_one();
                }
                product = product.xor(&shifted);
            }
        }
        generator = product;
    }
    generator
}

fn byte_contributions(field: &Field, position: usize) -> [[u64; 4]; 256] {
    let mut table = [[0u64; 4]; 256];
    for (value, entry) in table.iter_mut().enumerate() {
        for bit in (0..8).filter(|bit| value >> bit & 1 == 1) {
            for k in 0..ERRORS {
                let syndrome = field.power((8 * position + bit) * (2 * k + 1));
                entry[k / 8] ^= u64::from(syndrome) << (8 * (k % 8));
            }
        }
    }
    table
}

#[cfg(test)]
mod tests;
