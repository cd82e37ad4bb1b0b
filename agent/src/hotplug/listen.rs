//! Hears the kernel, and tells whoever waits that there is something to look at.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tokio::sync::watch;

use super::memory;
use crate::error::AgentError;
use crate::log::{Key, Log};
use crate::uevent::{Action, News, UeventSocket};

const SUBSYSTEM: &str = "hotplug";
/// Events that are read before anybody is told.
const MAXIMUM_AT_ONCE: usize = 1024;
/// How long the end of the listener may go unseen.
const PAUSE: Duration = Duration::from_millis(500);

/// What a handful of events was about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Heard {
    anything: bool,
    memory: bool,
}

/// A thread that listens. Dropped, it ends.
#[derive(Debug)]
pub(super) struct Listener {
    is_over: Arc<AtomicBool>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

impl Listener {
    /// Starts to listen. What comes from now on is heard.
    pub(super) fn start(sys: &Path, news: &watch::Sender<u64>, log: &Log) -> Result<Self, AgentError> {
        let socket = UeventSocket::open()?;
        let is_over = Arc::new(AtomicBool::new(false));
        let own = Arc::clone(&is_over);
        let (sys, news, log) = (sys.to_owned(), news.clone(), log.clone());
        let thread = thread::Builder::new().name("hotplug".to_owned());
        let started = thread.spawn(move || listen(&socket, &sys, &news, &log, &own));
        started.map_err(AgentError::system("start the thread that listens for devices"))?;
        Ok(Self { is_over })
    }
}

fn listen(socket: &UeventSocket, sys: &Path, news: &watch::Sender<u64>, log: &Log, is_over: &AtomicBool) {
    // What was there before the socket was.
    online(sys, log);
    while !is_over.load(Ordering::Relaxed) {
        let heard = socket.wait(PAUSE).and_then(|()| read(socket)).unwrap_or_else(|_| {
            thread::sleep(PAUSE);
            Heard { anything: true, memory: true }
        });
        if heard.memory {
            online(sys, log);
        }
        if heard.anything {
            news.send_modify(|count| *count = count.wrapping_add(1));
        }
    }
}

/// Reads what is there.
fn read(socket: &UeventSocket) -> io::Result<Heard> {
    let mut heard = Heard::default();
    for _ in 0..MAXIMUM_AT_ONCE {
        let found = match socket.receive() {
            Ok(News::Event(event)) => {
                Heard { anything: true, memory: event.subsystem == "memory" && event.action == Action::Add }
            }
            Ok(News::Lost) => Heard { anything: true, memory: true },
            Ok(News::Nothing) => Heard::default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        };
        heard.anything |= found.anything;
        heard.memory |= found.memory;
    }
    Ok(heard)
}

fn online(sys: &Path, log: &Log) {
    let count = memory::online(sys);
    if count > 0 {
        log.info(SUBSYSTEM, "memory is online", &[(Key::Count, count.into())]);
    }
}
