//! What is known of each artifact: waiting, landing, ready, failed.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cdh::artifact::Observer;
use protected_memory::landing::{Complete, Landing};
use tokio::sync::watch;

/// How often an artifact is tried without being asked for.
pub(super) const MAXIMUM_ATTEMPTS: u32 = 12;
/// Pause after the first failure; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// However often somebody asks, attempts are this far apart.
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);

/// One artifact.
enum State {
    /// To be tried at `next`, after so many failures; the last one's code.
    Waiting { failures: u32, next: Instant, code: Option<&'static str> },
    /// Being landed.
    Landing { failures: u32, count: Arc<Count> },
    /// Landed.
    Ready(Arc<Landing<Complete>>),
    /// Given up, until somebody needs it.
    Failed { code: &'static str, at: Instant },
}

/// Bytes of a landing.
pub(super) struct Count {
    done: AtomicU64,
    total: u64,
    quarter: Box<dyn Fn(u8) + Send + Sync>,
}

impl fmt::Debug for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Count").field("done", &self.done).field("total", &self.total).finish_non_exhaustive()
    }
}

impl Count {
    /// So many; `quarter` is told at 25, 50 and 75 percent, on whatever thread gets there.
    pub(super) fn new(total: u64, quarter: impl Fn(u8) + Send + Sync + 'static) -> Self {
        Self { done: AtomicU64::new(0), total, quarter: Box::new(quarter) }
    }

    fn percent_of(&self, done: u64) -> u8 {
        let percent = u128::from(done.min(self.total)) * 100 / u128::from(self.total.max(1));
        u8::try_from(percent).unwrap_or(100)
    }

    fn percent(&self) -> u8 {
        self.percent_of(self.done.load(Ordering::Relaxed))
    }
}

impl Observer for Count {
    fn advanced(&self, bytes: u64) {
        let before = self.done.fetch_add(bytes, Ordering::Relaxed);
        let (from, to) = (self.percent_of(before), self.percent_of(before.saturating_add(bytes)));
        if let Some(passed) = [75, 50, 25].into_iter().find(|quarter| from < *quarter && *quarter <= to) {
            (self.quarter)(passed);
        }
    }
}

/// How far one artifact is, for logs and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Its name in `sealed.toml`.
    pub(crate) name: String,
    /// What is being done about it.
    pub(crate) stage: Stage,
}

/// What is being done about an artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Not tried yet, or to be tried again; the code of the last failure.
    Waiting(Option<&'static str>),
    /// So many percent of its bytes are verified.
    Landing(u8),
    /// In protected memory, complete.
    Ready,
    /// Given up until a container needs it; the code of the last failure.
    Failed(&'static str),
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting(None) => f.write_str("waiting"),
            Self::Waiting(Some(code)) => write!(f, "waiting after {code}"),
            Self::Landing(percent) => write!(f, "landing, {percent} %"),
            Self::Ready => f.write_str("ready"),
            Self::Failed(code) => write!(f, "failed with {code}"),
        }
    }
}

/// What the landing thread does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Lands this one.
    Land(usize),
    /// Waits so long, or until it is woken.
    Wait(Duration),
    /// Waits until it is woken.
    Rest,
}

/// All artifacts.
pub(super) struct States {
    table: Mutex<Vec<State>>,
    /// How often each was refused for what it is.
    refusals: Mutex<Vec<u64>>,
    changes: watch::Sender<u64>,
}

impl fmt::Debug for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("States").field("stages", &self.stages()).finish()
    }
}

impl States {
    /// So many, all to be tried at once.
    pub(super) fn new(count: usize) -> Self {
        let now = Instant::now();
        let waiting = || State::Waiting { failures: 0, next: now, code: None };
        let table = std::iter::repeat_with(waiting).take(count).collect();
        Self {
            table: Mutex::new(table),
            refusals: Mutex::new(vec![0; count]),
            changes: watch::Sender::new(0),
        }
    }

    fn table(&self) -> MutexGuard<'_, Vec<State>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, index: usize, state: State) {
        if let Some(place) = self.table().get_mut(index) {
            *place = state;
        }
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Told of every change.
    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// What is to be done now.
    pub(super) fn next(&self, now: Instant) -> Next {
        let table = self.table();
        let waiting = table.iter().enumerate().filter_map(|(index, state)| match state {
            State::Waiting { next, .. } => Some((*next, index)),
            _ => None,
        });
        match waiting.min() {
            None => Next::Rest,
            Some((next, index)) if next <= now => Next::Land(index),
            Some((next, _)) => Next::Wait(next.saturating_duration_since(now)),
        }
    }

    /// Its bytes are counted from now on.
    pub(super) fn begin(&self, index: usize, count: Arc<Count>) {
        let failures = match self.table().get(index) {
            Some(State::Waiting { failures, .. } | State::Landing { failures, .. }) => *failures,
            _ => 0,
        };
        self.set(index, State::Landing { failures, count });
    }

    /// It has landed.
    pub(super) fn ready(&self, index: usize, landing: Landing<Complete>) {
        self.set(index, State::Ready(Arc::new(landing)));
    }

    /// What there is under its name is refused, now and whenever it is offered. It is tried again all the same: there may be another one by then.
    pub(super) fn refused(&self, index: usize) {
        if let Some(count) = self.refusals.lock().unwrap_or_else(PoisonError::into_inner).get_mut(index) {
            *count += 1;
        }
    }

    /// How often it was refused so far.
    pub(super) fn refusals(&self, index: usize) -> u64 {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).get(index).copied().unwrap_or(0)
    }

    /// It could not be landed. Whether it will be tried again without being asked for.
    pub(super) fn failed(&self, index: usize, code: &'static str, now: Instant) -> bool {
        let failures = match self.table().get(index) {
            Some(State::Waiting { failures, .. } | State::Landing { failures, .. }) => {
                failures.saturating_add(1)
            }
            _ => 1,
        };
        // GUARD: sealed-attempts -> evil_host_failures_are_not_tried_for_ever
        if failures >= MAXIMUM_ATTEMPTS {
            self.set(index, State::Failed { code, at: now });
            return false;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST_PAUSE);
        self.set(index, State::Waiting { failures, next: now + pause, code: Some(code) });
        true
    }

    /// It cannot be tried yet, for a reason that is not its own.
    pub(super) fn postponed(&self, index: usize, code: &'static str, now: Instant) {
        let failures = match self.table().get(index) {
            Some(State::Waiting { failures, .. }) => *failures,
            _ => 0,
        };
        self.set(index, State::Waiting { failures, next: now + LONGEST_PAUSE, code: Some(code) });
    }

    /// The reason with this code is gone: what waits for it is tried now.
    pub(super) fn due(&self, reason: &'static str, now: Instant) {
        for state in &mut *self.table() {
            if let State::Waiting { next, code, .. } = state
                && *code == Some(reason)
            {
                *next = now;
            }
        }
    }

    /// Somebody needs it: it is tried soon, once if it had been given up.
    pub(super) fn needed(&self, index: usize, now: Instant) {
        let state = match self.table().get(index) {
            Some(State::Failed { code, at }) => {
                let next = (*at + SHORTEST_PAUSE).max(now);
                State::Waiting { failures: MAXIMUM_ATTEMPTS - 1, next, code: Some(code) }
            }
            Some(State::Waiting { failures, next, code }) => {
                State::Waiting { failures: *failures, next: (*next).min(now + SHORTEST_PAUSE), code: *code }
            }
            _ => return,
        };
        self.set(index, state);
    }

    /// It, if it has landed.
    pub(super) fn landed(&self, index: usize) -> Option<Arc<Landing<Complete>>> {
        match self.table().get(index) {
            Some(State::Ready(landing)) => Some(Arc::clone(landing)),
            _ => None,
        }
    }

    /// How far one is.
    pub(super) fn stage(&self, index: usize) -> Stage {
        self.stages().get(index).copied().unwrap_or(Stage::Waiting(None))
    }

    /// How far all are.
    pub(super) fn stages(&self) -> Vec<Stage> {
        let stage = |state: &State| match state {
            State::Waiting { code, .. } => Stage::Waiting(*code),
            State::Landing { count, .. } => Stage::Landing(count.percent()),
            State::Ready(_) => Stage::Ready,
            State::Failed { code, .. } => Stage::Failed(code),
        };
        self.table().iter().map(stage).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evil_host_failures_are_not_tried_for_ever() {
        let states = States::new(2);
        let mut now = Instant::now();
        let mut attempts = 0;
        while states.stage(0) != Stage::Failed("X") {
            now += LONGEST_PAUSE;
            attempts += 1;
            assert!(attempts <= MAXIMUM_ATTEMPTS, "tried for ever");
            states.begin(0, Arc::new(Count::new(10, |_| {})));
            let again = states.failed(0, "X", now);
            assert_eq!(again, attempts < MAXIMUM_ATTEMPTS);
        }
        assert_eq!(attempts, MAXIMUM_ATTEMPTS);
        assert_eq!(states.next(now), Next::Land(1), "the other one is not held up");
        states.failed(1, "Y", now);
        assert!(matches!(states.next(now), Next::Wait(_)));
        // A container that needs it has it tried once more, not at once.
        states.needed(0, now);
        assert!(matches!(states.next(now), Next::Wait(pause) if pause <= SHORTEST_PAUSE));
        assert_eq!(states.next(now + SHORTEST_PAUSE), Next::Land(0));
        assert!(!states.failed(0, "X", now));
        assert_eq!(states.stage(0), Stage::Failed("X"));
    }

    #[test]
    fn pauses_grow_and_needs_shorten_them() {
        let states = States::new(1);
        let now = Instant::now();
        let pauses = (0..6).map(|_| {
            states.failed(0, "X", now);
            match states.next(now) {
                Next::Wait(pause) => pause.as_millis(),
                other => panic!("{other:?}"),
            }
        });
        assert_eq!(pauses.collect::<Vec<_>>(), [500, 1000, 2000, 4000, 8000, 16000]);
        states.needed(0, now);
        assert_eq!(states.next(now), Next::Wait(SHORTEST_PAUSE));
    }

    #[test]
    fn progress_is_counted_in_percent() {
        let states = States::new(1);
        let told = Arc::new(Mutex::new(Vec::new()));
        let own = Arc::clone(&told);
        let count = Arc::new(Count::new(200, move |percent| own.lock().unwrap().push(percent)));
        states.begin(0, Arc::clone(&count));
        count.advanced(49);
        assert_eq!(*told.lock().unwrap(), [0; 0]);
        count.advanced(1);
        assert_eq!(states.stage(0), Stage::Landing(25));
        count.advanced(20);
        count.advanced(90);
        count.advanced(1000);
        assert_eq!(*told.lock().unwrap(), [25, 75]);
        assert_eq!(states.stage(0).to_string(), "landing, 100 %");
        assert_eq!(Count::new(0, |_| {}).percent(), 0);
    }

    #[test]
    fn what_waits_for_somebody_else_has_not_failed() {
        let states = States::new(2);
        let now = Instant::now();
        for _ in 0..=MAXIMUM_ATTEMPTS {
            states.postponed(0, "LATER", now);
        }
        assert_eq!(states.stage(0), Stage::Waiting(Some("LATER")));
        states.failed(1, "X", now);
        assert_eq!(states.next(now), Next::Wait(FIRST_PAUSE));
        states.due("LATER", now);
        assert_eq!(states.next(now), Next::Land(0));
        states.begin(0, Arc::new(Count::new(1, |_| {})));
        assert!(states.failed(0, "X", now), "its first failure");
    }
}
