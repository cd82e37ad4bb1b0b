//! The clock. In a confidential guest it is never earlier than what is known to be over: certificates and tokens that were
//! replaced must not become good again.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

use super::MachineError;

/// When this source was released, in seconds of Unix time: 2026-11-22. Raised with each release.
pub const RELEASED: i64 = 1_795_305_600;
const MICROSECONDS: i64 = 1_000_000;

type Setter = dyn Fn(Timespec) -> Result<(), Errno> + Send + Sync;
type Reader = dyn Fn() -> i64 + Send + Sync;

/// The clock of this machine.
pub struct Clock {
    /// `None`: the host is believed. Locked while the clock is set.
    floor: Option<Mutex<i64>>,
    now: Box<Reader>,
    set: Box<Setter>,
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").field("floor", &self.floor).finish_non_exhaustive()
    }
}

impl Clock {
    pub(super) fn system(tee_active: bool) -> Self {
        let now = || clock_gettime(ClockId::Realtime).tv_sec;
        Self::new(tee_active, now, |time| clock_settime(ClockId::Realtime, time))
    }

    pub(super) fn new(
        tee_active: bool,
        now: impl Fn() -> i64 + Send + Sync + 'static,
        set: impl Fn(Timespec) -> Result<(), Errno> + Send + Sync + 'static,
    ) -> Self {
        let floor = tee_active.then(|| Mutex::new(RELEASED));
        Self { floor, now: Box::new(now), set: Box::new(set) }
    }

    /// The machine began with the host's time: one that is over is not gone on with. Says whether it was.
    ///
    /// # Errors
    /// `MACHINE_CLOCK`.
    pub fn begin(&self) -> Result<bool, MachineError> {
        self.raise(RELEASED)
    }

    /// Somebody who is believed, a key broker, dated something: it is no earlier than that, now and from now on. Says whether it was.
    ///
    /// # Errors
    /// `MACHINE_CLOCK`: it could not be set, but is not set back either.
    pub fn is_at_least(&self, seconds: i64) -> Result<bool, MachineError> {
        self.raise(seconds)
    }

    fn raise(&self, seconds: i64) -> Result<bool, MachineError> {
        let Some(floor) = &self.floor else { return Ok(false) };
        let mut floor = floor.lock().unwrap_or_else(PoisonError::into_inner);
        *floor = seconds.max(*floor);
        let is_behind = (self.now)() < *floor;
        // GUARD: clock-begins -> evil_host_clock_that_begins_in_the_past
        if is_behind {
            self.store(*floor, 0)?;
        }
        Ok(is_behind)
    }

    /// Sets it.
    ///
    /// # Errors
    /// `MACHINE_TIME`, `MACHINE_CLOCK_BACK`, `MACHINE_CLOCK`; it is as before then.
    pub fn set(&self, seconds: i64, microseconds: i64) -> Result<(), MachineError> {
        if seconds < 0 || !(0..MICROSECONDS).contains(&microseconds) {
            return Err(MachineError::Time);
        }
        // Held until it is set: it does not rise in between.
        let floor = self.floor.as_ref().map(|floor| floor.lock().unwrap_or_else(PoisonError::into_inner));
        let earliest = floor.as_deref().copied().unwrap_or(0);
        // GUARD: clock-back -> evil_host_sets_the_clock_back
        if seconds < earliest {
            return Err(MachineError::ClockBack { floor: earliest, found: seconds });
        }
        self.store(seconds, microseconds)
    }

    fn store(&self, seconds: i64, microseconds: i64) -> Result<(), MachineError> {
        let time = Timespec { tv_sec: seconds, tv_nsec: microseconds * 1000 };
        (self.set)(time).map_err(MachineError::Clock)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    type Settings = Arc<Mutex<Vec<(i64, i64)>>>;

    /// A clock that begins at this time, and what it was set to.
    fn recorded(tee_active: bool, begins: i64) -> (Clock, Settings) {
        let (now, set) = (Arc::new(AtomicI64::new(begins)), Settings::default());
        let (shown, own) = (Arc::clone(&now), Arc::clone(&set));
        let setter = move |time: Timespec| {
            now.store(time.tv_sec, Ordering::Relaxed);
            own.lock().unwrap().push((time.tv_sec, time.tv_nsec));
            Ok(())
        };
        (Clock::new(tee_active, move || shown.load(Ordering::Relaxed), setter), set)
    }

    // COMPAT: SetGuestDateTime stricter: in a confidential guest never earlier than this release, nor than what a broker dated
    #[test]
    fn evil_host_sets_the_clock_back() {
        let (clock, set) = recorded(true, RELEASED + 1000);
        for seconds in [0, 1, RELEASED - 1] {
            assert_eq!(clock.set(seconds, 0).unwrap_err().code(), "MACHINE_CLOCK_BACK");
        }
        assert!(!clock.is_at_least(RELEASED + 500).unwrap());
        assert!(!clock.is_at_least(RELEASED + 100).unwrap());
        assert_eq!(clock.set(RELEASED + 499, 999_999).unwrap_err().code(), "MACHINE_CLOCK_BACK");
        assert!(set.lock().unwrap().is_empty());
        clock.set(RELEASED + 500, 7).unwrap();
        assert_eq!(*set.lock().unwrap(), [(RELEASED + 500, 7000)]);
    }

    #[test]
    fn evil_host_clock_that_begins_in_the_past() {
        let (clock, set) = recorded(true, 978_307_200);
        assert!(clock.begin().unwrap());
        assert_eq!(*set.lock().unwrap(), [(RELEASED, 0)]);
        assert!(!clock.begin().unwrap());
        // A broker's date is later than what the host says.
        assert!(clock.is_at_least(RELEASED + 9).unwrap());
        assert_eq!(*set.lock().unwrap(), [(RELEASED, 0), (RELEASED + 9, 0)]);
        assert_eq!(clock.set(RELEASED + 8, 0).unwrap_err().code(), "MACHINE_CLOCK_BACK");
    }

    #[test]
    fn a_clock_that_cannot_be_set_is_an_error_and_its_floor_holds() {
        let clock = Clock::new(true, || 0, |_| Err(Errno::PERM));
        assert_eq!(clock.begin().unwrap_err().code(), "MACHINE_CLOCK");
        assert_eq!(clock.is_at_least(RELEASED + 9).unwrap_err().code(), "MACHINE_CLOCK");
        assert_eq!(clock.set(RELEASED + 8, 0).unwrap_err().code(), "MACHINE_CLOCK_BACK");
    }

    // COMPAT: SetGuestDateTime same: elsewhere any time from 1970 on
    #[test]
    fn outside_of_a_tee_the_clock_is_the_hosts() {
        let (clock, set) = recorded(false, 0);
        assert!(!clock.begin().unwrap() && !clock.is_at_least(RELEASED + 500).unwrap());
        clock.set(86_400, 999_999).unwrap();
        assert_eq!(*set.lock().unwrap(), [(86_400, 999_999_000)]);
        for (seconds, microseconds) in [(-1, 0), (i64::MIN, 0), (1, -1), (1, 1_000_000), (1, i64::MAX)] {
            assert_eq!(clock.set(seconds, microseconds).unwrap_err().code(), "MACHINE_TIME");
        }
        assert_eq!(set.lock().unwrap().len(), 1);
    }
}
