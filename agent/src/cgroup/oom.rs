//! Who ran out of memory: one event for each container, kept until somebody asks.
//!
//! ```text
//!  memory.events ─inotify─▶ task: oom_kill > 0? ─▶ queue of 100 ─▶ GetOOMEvent
//!                  also looked at when watching begins, and when it ends: what happened in between is not missed
//! ```

use std::collections::{HashMap, VecDeque};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::ids::ContainerId;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::cgroup::{Cgroup, CgroupError, number};
use crate::log::{Key, Level, Log, Value};
use crate::sys::readiness;

const SUBSYSTEM: &str = "oom";
const FILE: &str = "memory.events";
/// What stands for a watch when the kernel had no room for an event.
const LOST: i32 = -1;
/// Events that nobody asked for yet. Further ones are lost, and the log says so.
pub const MAXIMUM_EVENTS: usize = 100;

/// The events of the sandbox. Dropped, it watches no more.
#[derive(Debug)]
pub struct OomEvents {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// The sandbox ended: there will be no more events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no more events: the sandbox ended")]
pub struct EventsEnded;

struct Shared {
    inotify: AsyncFd<OwnedFd>,
    state: Mutex<State>,
    news: Notify,
    log: Log,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct State {
    watched: HashMap<i32, (ContainerId, Cgroup)>,
    queue: VecDeque<ContainerId>,
    has_ended: bool,
}

impl OomEvents {
    /// Starts, with nobody to watch. To be called inside a runtime.
    ///
    /// # Errors
    /// Those of inotify(7).
    pub fn start(log: &Log) -> io::Result<Self> {
        let inotify = readiness::watch(inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?)?;
        let state = Mutex::default();
        let shared = Arc::new(Shared { inotify, state, news: Notify::new(), log: log.clone() });
        let own = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            if let Err(error) = own.run().await {
                let fields = [(Key::Error, Value::shown(&error.to_string()))];
                own.log.say(Level::Error, SUBSYSTEM, "events of memory are not watched any more", &fields);
            }
        });
        Ok(Self { shared, task })
    }

    /// Watches a container from now on; what happened before counts. Of one container there is one event at most.
    ///
    /// # Errors
    /// `CGROUP_FILE`.
    pub fn watch(&self, container: &ContainerId, group: &Cgroup) -> Result<(), CgroupError> {
        let file = group.directory.file(FILE)?;
        // By its descriptor: this is the file of this group, whatever is at its path.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let mut state = self.shared.state();
        let watch = inotify::add_watch(&self.shared.inotify, path, WatchFlags::MODIFY)
            .map_err(CgroupError::file("watch", FILE))?;
        state.watched.insert(watch, (container.clone(), group.clone()));
        self.shared.look(&mut state, watch);
        Ok(())
    }

    /// Watches a container no longer, after a last look. To be called before its group is removed.
    pub fn forget(&self, container: &ContainerId) {
        let mut state = self.shared.state();
        let watches = state.watched.iter().filter(|(_, (found, _))| found == container);
        let watches: Vec<i32> = watches.map(|(watch, _)| *watch).collect();
        for watch in watches {
            self.shared.look(&mut state, watch);
            self.shared.unwatch(&mut state, watch);
        }
    }

    /// The next container that ran out of memory; waits for one. Dropped, it has taken no event.
    ///
    /// # Errors
    /// When the sandbox ends.
    pub async fn next(&self) -> Result<ContainerId, EventsEnded> {
        loop {
            let news = self.shared.news.notified();
            tokio::pin!(news);
            // Counted as a waiter before the look.
            news.as_mut().enable();
            {
                let mut state = self.shared.state();
                if let Some(container) = state.queue.pop_front() {
                    return Ok(container);
                }
                if state.has_ended {
                    return Err(EventsEnded);
                }
            }
            news.await;
        }
    }

    /// The sandbox ends: who waits is told so, once the queue is empty.
    pub fn end(&self) {
        self.shared.state().has_ended = true;
        self.shared.news.notify_waiters();
    }
}

impl Drop for OomEvents {
    fn drop(&mut self) {
        self.end();
        self.task.abort();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(&self) -> io::Result<()> {
        loop {
            let mut ready = self.inotify.readable().await?;
            match ready.try_io(|inotify| read_events(inotify.get_ref())) {
                Ok(watches) => {
                    let mut watches = watches?;
                    let mut state = self.state();
                    if watches.contains(&LOST) {
                        watches = state.watched.keys().copied().collect();
                    }
                    for watch in watches {
                        self.look(&mut state, watch);
                    }
                }
                Err(_) => continue,
            }
            tokio::task::yield_now().await;
        }
    }

    /// Tells of a container that ran out of memory, once.
    fn look(&self, state: &mut State, watch: i32) {
        let Some((_, group)) = state.watched.get(&watch) else { return };
        let Ok(Some(text)) = group.directory.read(FILE) else { return };
        if !number::pairs(&text).any(|(key, count)| key == "oom_kill" && count > 0) {
            return;
        }
        let Some((container, _)) = self.unwatch(state, watch) else { return };
        if state.queue.len() >= MAXIMUM_EVENTS {
            self.log.warn(SUBSYSTEM, "too many events that nobody asks for, one was lost", &[]);
            return;
        }
        state.queue.push_back(container);
        self.news.notify_one();
    }

    fn unwatch(&self, state: &mut State, watch: i32) -> Option<(ContainerId, Cgroup)> {
        let found = state.watched.remove(&watch);
        if found.is_some() {
            // A group that is gone has taken its watch with it.
            let _ = inotify::remove_watch(&self.inotify, watch);
        }
        found
    }
}

/// Watches of which there is something new.
fn read_events(inotify: &OwnedFd) -> io::Result<Vec<i32>> {
    let mut space = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(inotify, &mut space);
    let mut watches = vec![reader.next()?.wd()];
    while !reader.is_buffer_empty() {
        watches.push(reader.next()?.wd());
    }
    Ok(watches)
}
