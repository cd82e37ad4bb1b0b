//! Which failure is worth another attempt, and when.

use std::time::Duration;

use tokio::time::Instant;

use super::error::{RegistryClass, RegistryError};

/// Further attempts that bring nothing, in a row.
const FRUITLESS_MAX: u32 = 5;
/// Further attempts at all.
const ATTEMPTS_MAX: u32 = 10_000;
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(5);

/// The attempts at one source.
#[derive(Debug)]
pub(super) struct Retry {
    deadline: Instant,
    fruitless: u32,
    attempts: u32,
}

impl Retry {
    pub(super) fn new(deadline: Instant) -> Self {
        Self { deadline, fruitless: 0, attempts: 0 }
    }

    /// The last attempt brought something before it failed: patience begins anew.
    pub(super) fn advanced(&mut self) {
        self.fruitless = 0;
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    ///
    /// The error itself, if it is final or there is no time.
    pub(super) async fn after(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        let wait = delay(self.fruitless, random());
        let is_over = self.fruitless >= FRUITLESS_MAX || self.attempts >= ATTEMPTS_MAX;
        if error.class() != RegistryClass::Transient || is_over || Instant::now() + wait >= self.deadline {
            return Err(error);
        }
        self.fruitless += 1;
        self.attempts += 1;
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

/// Doubles up to its cap; the upper half of it is random.
fn delay(attempt: u32, random: u32) -> Duration {
    let full = FIRST_DELAY.saturating_mul(1 << attempt.min(16)).min(LONGEST_DELAY);
    let half = full / 2;
    half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// A random number; without randomness the longest delay.
fn random() -> u32 {
    let mut bytes = [0xff; 4];
    // Only the spread of attempts depends on it.
    let _ = getrandom::fill(&mut bytes);
    u32::from_le_bytes(bytes)
}
