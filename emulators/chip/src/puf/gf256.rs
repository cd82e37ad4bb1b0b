//! Arithmetic in GF(2^8) with the primitive polynomial x^8 + x^4 + x^3 + x^2 + 1.

/// Order of the multiplicative group.
pub(crate) const ORDER: usize = 255;

const POLYNOMIAL: u16 = 0x11d;

/// Tables of powers and logarithms of the primitive element α = x.
#[derive(Clone)]
pub(crate) struct Field {
    /// α^i for i in 0 … 509, twice the period so that sums of two logarithms need no reduction.
    powers: [u8; 2 * ORDER],
    logarithms: [u8; 256],
}

impl std::fmt::Debug for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Field(GF(2^8))")
    }
}

impl Field {
    pub(crate) fn new() -> Self {
        let mut powers = [0; 2 * ORDER];
        let mut logarithms = [0; 256];
        let mut x: u16 = 1;
        for i in 0..ORDER {
            powers[i] = x as u8;
            powers[i + ORDER] = x as u8;
            logarithms[x as usize] = i as u8;
            x <<= 1;
            if x & 0x100 != 0 {
                x ^= POLYNOMIAL;
            }
        }
        Self { powers, logarithms }
    }

    /// α^exponent.
    pub(crate) fn power(&self, exponent: usize) -> u8 {
        self.powers[exponent % ORDER]
    }

    /// log_α of a non-zero element.
    pub(crate) fn logarithm(&self, x: u8) -> usize {
        debug_assert_ne!(x, 0);
        usize::from(self.logarithms[usize::from(x)])
    }

    pub(crate) fn multiply(&self, a: u8, b: u8) -> u8 {
        if a == 0 || b == 0 {
            return 0;
        }
        self.powers[self.logarithm(a) + self.logarithm(b)]
    }

    /// a / b for b ≠ 0.
    pub(crate) fn divide(&self, a: u8, b: u8) -> u8 {
        if a == 0 {
            return 0;
        }
        self.powers[self.logarithm(a) + ORDER - self.logarithm(b)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Carry-less multiplication followed by reduction, bit by bit.
    fn slow_product(a: u8, b: u8) -> u8 {
        let mut product: u16 = 0;
        for i in 0..8 {
            if b >> i & 1 == 1 {
                product ^= u16::from(a) << i;
            }
        }
        for i in (8..16).rev() {
            if product >> i & 1 == 1 {
                product ^= POLYNOMIAL << (i - 8);
            }
        }
        product as u8
    }

    #[test]
    fn products_and_quotients_agree_with_the_definition() {
        let field = Field::new();
        for a in 0..=255 {
            for b in 0..=255 {
                assert_eq!(field.multiply(a, b), slow_product(a, b));
                if b != 0 {
                    assert_eq!(field.multiply(field.divide(a, b), b), a);
                }
            }
        }
    }

    #[test]
    fn alpha_is_primitive() {
        let field = Field::new();
        let mut seen = [false; 256];
        for i in 0..ORDER {
            let x = field.power(i);
            assert_ne!(x, 0);
            assert!(!seen[usize::from(x)]);
            seen[usize::from(x)] = true;
        }
    }
}
