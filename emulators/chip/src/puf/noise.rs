//! Measurement noise of the silicon model: a fast generator and sparse bit flips.

/// xoshiro256++: statistical noise only, never key material.
#[derive(Clone, Debug)]
pub(crate) struct Xoshiro([u64; 4]);

impl Xoshiro {
    pub(crate) fn new(seed: u64) -> Self {
        // SplitMix64 fills the state.
        let mut x = seed;
        Self(std::array::from_fn(|_| {
            x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = x;
            z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ z >> 31
        }))
    }

    pub(crate) fn draw(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// True with the given probability, in units of 2^-32.
    pub(crate) fn happens(&mut self, probability: Probability) -> [bool; 2] {
        let x = self.draw();
        [((x >> 32) as u32) < probability.0, (x as u32) < probability.0]
    }
}

/// A probability as a fraction of 2^32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Probability(u32);

impl Probability {
    /// `None` outside 0 … 0.5.
    pub(crate) fn new(p: f64) -> Option<Self> {
        (0.0..=0.5).contains(&p).then_some(Self((p * 4_294_967_296.0) as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_noise_has_the_stated_rate() {
        let mut random = Xoshiro::new(7);
        let probability = Probability::new(0.03).unwrap();
        let trials = 2_000_000;
        let hits: u32 = (0..trials / 2)
            .map(|_| random.happens(probability).iter().map(|b| u32::from(*b)).sum::<u32>())
            .sum();
        let rate = f64::from(hits) / f64::from(trials);
        assert!((0.0290..0.0310).contains(&rate), "{rate}");
    }

    #[test]
    fn probabilities_outside_the_range_are_refused() {
        assert!(Probability::new(-0.1).is_none());
        assert!(Probability::new(0.51).is_none());
        assert!(Probability::new(f64::NAN).is_none());
    }
}
