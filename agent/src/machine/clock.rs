//! The clock. In a confidential guest it is never earlier than what is known to be over: certificates and tokens that were
//! replaced must not become good again.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};

use rustix::io::Errno;
use rustix::time::{ClockId, Timespec, clock_settime};

use super::MachineError;

/// When this source was released, in seconds of Unix time: 2026-11-22. Raised with each release.
pub const RELEASED: i64 = 1_795_305_600;
const MICROSECONDS: i64 = 1_000_000;

type Setter = dyn Fn(Timespec) -> Result<(), Errno> + Send + Sync;

/// The clock of this machine.
pub struct Clock {
    /// `None`: the host is believed.
    floor: Option<AtomicI64>,
    set: Box<Setter>,
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").field("floor", &self.floor).finish_non_exhaustive()
    }
}

impl Clock {
    pub(super) fn system(tee_active: bool) -> Self {
        Self::new(tee_active, |time| clock_settime(ClockId::Realtime, time))
    }

    fn new(tee_active: bool, set: impl Fn(Timespec) -> Result<(), Errno> + Send + Sync + 'static) -> Self {
        Self { floor: tee_active.then(|| AtomicI64::new(RELEASED)), set: Box::new(set) }
    }

    /// Somebody who is believed, a key broker, dated something: it is no earlier than that.
    pub fn is_at_least(&self, seconds: i64) {
        if let Some(floor) = &self.floor {
            floor.fetch_max(seconds, Ordering::Relaxed);
        }
    }

    /// Sets it.
    ///
    /// # Errors
    /// `MACHINE_TIME`, `MACHINE_CLOCK_BACK`, `MACHINE_CLOCK`; it is as before then.
    pub fn set(&self, seconds: i64, microseconds: i64) -> Result<(), MachineError> {
        if seconds < 0 || !(0..MICROSECONDS).contains(&microseconds) {
            return Err(MachineError::Time);
        }
        let floor = self.floor.as_ref().map_or(0, |floor| floor.load(Ordering::Relaxed));
        // GUARD: clock-back -> evil_host_sets_the_clock_back
        if seconds < floor {
            return Err(MachineError::ClockBack { floor, found: seconds });
        }
        let time = Timespec { tv_sec: seconds, tv_nsec: microseconds * 1000 };
        (self.set)(time).map_err(MachineError::Clock)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    type Settings = Arc<Mutex<Vec<(i64, i64)>>>;

    fn recorded(tee_active: bool) -> (Clock, Settings) {
        let set = Arc::new(Mutex::new(Vec::new()));
        let own = Arc::clone(&set);
        let clock = Clock::new(tee_active, move |time| {
            own.lock().unwrap().push((time.tv_sec, time.tv_nsec));
            Ok(())
        });
        (clock, set)
    }

    // COMPAT: SetGuestDateTime stricter: in a confidential guest never earlier than this release, nor than what a broker dated
    #[test]
    fn evil_host_sets_the_clock_back() {
        let (clock, set) = recorded(true);
        for seconds in [0, 1, RELEASED - 1] {
            assert_eq!(clock.set(seconds, 0).unwrap_err().code(), "MACHINE_CLOCK_BACK");
        }
        clock.is_at_least(RELEASED + 500);
        clock.is_at_least(RELEASED + 100);
        assert_eq!(clock.set(RELEASED + 499, 999_999).unwrap_err().code(), "MACHINE_CLOCK_BACK");
        assert!(set.lock().unwrap().is_empty());
        clock.set(RELEASED + 500, 7).unwrap();
        assert_eq!(*set.lock().unwrap(), [(RELEASED + 500, 7000)]);
    }

    // COMPAT: SetGuestDateTime same: elsewhere any time from 1970 on
    #[test]
    fn outside_of_a_tee_the_clock_is_the_hosts() {
        let (clock, set) = recorded(false);
        clock.is_at_least(RELEASED + 500);
        clock.set(86_400, 999_999).unwrap();
        assert_eq!(*set.lock().unwrap(), [(86_400, 999_999_000)]);
        for (seconds, microseconds) in [(-1, 0), (i64::MIN, 0), (1, -1), (1, 1_000_000), (1, i64::MAX)] {
            assert_eq!(clock.set(seconds, microseconds).unwrap_err().code(), "MACHINE_TIME");
        }
        assert_eq!(set.lock().unwrap().len(), 1);
    }
}
