//! Measured failure rate of the fuzzy extractor.

use std::time::{Duration, Instant};

use super::noise::{Probability, Xoshiro};
use super::{BLOCKS, Extractor, RESPONSE_BYTES, Silicon};

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct Measurement {
    /// Number of reconstructions in all threads together.
    pub reconstructions: u64,
    /// Bit error rate of each reading, 0 … 0.5.
    pub bit_error_rate: f64,
    /// Threads, at least one.
    pub threads: u32,
    /// Decides the silicon and the noise: the same seed repeats the measurement.
    pub seed: u64,
}

/// What came out.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Outcome {
    /// Reconstructions done.
    pub reconstructions: u64,
    /// Reconstructions that failed or gave another root.
    pub failures: u64,
    /// Bit error rate of each reading.
    pub bit_error_rate: f64,
    /// Wall time.
    pub seconds: f64,
}

/// The bit error rate was not within 0 … 0.5.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the bit error rate must be between 0 and 0.5")]
pub struct RateOutOfRange;

/// Enrols one piece of silicon a thread without noise and reconstructs from noisy readings. A new piece is made every 4,096 readings.
pub fn measure(what: Measurement) -> Result<Outcome, RateOutOfRange> {
    let noise = Probability::new(what.bit_error_rate).ok_or(RateOutOfRange)?;
    let threads = u64::from(what.threads.max(1));
    let extractor = Extractor::new();
    let started = Instant::now();
    let failures = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let share =
                    what.reconstructions / threads + u64::from(thread < what.reconstructions % threads);
                let extractor = &extractor;
                scope.spawn(move || {
                    failures(extractor, noise, share, what.seed.wrapping_mul(1 << 16).wrapping_add(thread))
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or(u64::MAX)).fold(0, u64::saturating_add)
    });
    let elapsed: Duration = started.elapsed();
    Ok(Outcome {
        reconstructions: what.reconstructions,
        failures,
        bit_error_rate: what.bit_error_rate,
        seconds: elapsed.as_secs_f64(),
    })
}

fn failures(extractor: &Extractor, noise: Probability, count: u64, seed: u64) -> u64 {
    const READINGS_PER_CHIP: u64 = 4_096;
    let mut random = Xoshiro::new(seed);
    let mut failures = 0;
    let mut left = count;
    while left > 0 {
        let mut bytes = [0; RESPONSE_BYTES];
        bytes.fill_with(|| random.draw() as u8);
        let reference = Silicon::manufacture(&bytes);
        let enrolment = super::Response::unpack(&reference);
        let (helper, _) =
            extractor.enrol(&enrolment, &std::array::from_fn::<u64, BLOCKS, _>(|_| random.draw()));
        let mut silicon = Silicon::new(&reference, noise, random.draw());
        for _ in 0..left.min(READINGS_PER_CHIP) {
            // The helper data's MAC makes "no failure" mean "the enrolled root".
            failures += u64::from(extractor.reconstruct(&silicon.read(), &helper).is_err());
        }
        left = left.saturating_sub(READINGS_PER_CHIP);
    }
    failures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stated_noise_does_not_fail_and_heavy_noise_does() {
        let rate = |bit_error_rate| {
            measure(Measurement { reconstructions: 3_000, bit_error_rate, threads: 2, seed: 1 })
                .unwrap()
                .failures
        };
        assert_eq!(rate(0.03), 0);
        assert!(rate(0.14) > 2_000);
    }
}
