//! Which failure is worth another attempt, and when.

use std::time::Duration;

use tokio::time::Instant;

use super::error::{Class, Fault, Hop, KbsError, TransportFault};

/// New handshakes after the broker forgot a session, per call.
const REATTEST_MAX: u32 = 1;
/// Further attempts after transient failures, per call.
const TRANSIENT_MAX: u32 = 8;
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(5);

/// The attempts of one call.
#[derive(Debug)]
pub(super) struct Retry {
    deadline: Instant,
    reattests: u32,
    transients: u32,
    last: Option<Box<KbsError>>,
}

/// What to do before the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Without the session that was used.
    Reattest,
    /// After this time.
    Wait(Duration),
}

impl Retry {
    pub(super) fn new(deadline: Instant) -> Self {
        Self { deadline, reattests: 0, transients: 0, last: None }
    }

    /// What follows after `error`; `random` spreads the attempts of many guests.
    ///
    /// # Errors
    ///
    /// The error itself, if it is final or there is no time.
    pub(super) fn after(&mut self, error: KbsError, now: Instant, random: u32) -> Result<Next, KbsError> {
        match error.class() {
            Class::Reattest if self.reattests < REATTEST_MAX => {
                self.reattests += 1;
                Ok(Next::Reattest)
            }
            Class::Transient if self.transients < TRANSIENT_MAX => {
                let wait = delay(self.transients, random);
                if now + wait >= self.deadline {
                    return Err(error);
                }
                self.transients += 1;
                self.last = Some(Box::new(error));
                Ok(Next::Wait(wait))
            }
            _ => Err(self.explained(error)),
        }
    }

    /// A deadline says what failed before it.
    fn explained(&mut self, error: KbsError) -> KbsError {
        match error.fault() {
            Fault::Transport(TransportFault::Deadline { last: None }) => {
                KbsError::new(error.hop(), TransportFault::Deadline { last: self.last.take() })
            }
            _ => error,
        }
    }
}

/// Doubles up to its cap; the upper half of it is random.
fn delay(attempt: u32, random: u32) -> Duration {
    let full = FIRST_DELAY.saturating_mul(1 << attempt.min(16)).min(LONGEST_DELAY);
    let half = full / 2;
    half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// A random number; without randomness the longest delay.
pub(super) fn random() -> u32 {
    let mut bytes = [0xff; 4];
    // Only the spread of attempts depends on it.
    let _ = getrandom::fill(&mut bytes);
    u32::from_le_bytes(bytes)
}

/// The time of the caller is over.
pub(super) fn deadline_over(hop: Hop) -> KbsError {
    KbsError::new(hop, TransportFault::Deadline { last: None })
}

#[cfg(test)]
mod tests;
