//! The client's side: a child that is started when it is needed, and what is believed of it.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout, timeout_at};

use super::frame::{self, Answer, Begun, Head, Request};
use super::{Job, READY};
use crate::composefs::mount::PrivateMemory;
use crate::image::policy::Cause;
use crate::registry::Patience;
use crate::registry::error::RegistryError;
use crate::registry::http::Ask;
use crate::registry::proxy::Proxy;
use crate::registry::trust::RegistryTrust;
use crate::worker::channel::{Mark, job_file, pair, send, send_now};
use crate::worker::{Process, Trade, Workers};

/// By which names are looked up: a child has copies of these, as they are when it is started.
const NAMES: [&str; 2] = ["hosts", "resolv.conf"];
const NAMES_BYTES_MAX: u64 = 1 << 20;
/// Where the C library of most systems looks, and nowhere else.
const SWITCH: &[u8] = b"hosts: files dns\n";
/// What a child's root holds, at most.
const ROOT_BYTES: u64 = 4 << 20;
const ROOT_FILES: u64 = 16;
/// How long a child may take to be confined.
const START: Duration = Duration::from_secs(30);
/// How much longer than all that a child waits for it is waited for itself.
const GRACE: Duration = Duration::from_secs(3);
/// Longest word of a child that could not be confined.
const WORD_MAX: u64 = 1024;
/// What is read of a body at once, at least.
const BUFFER: usize = 64 << 10;

/// A child, or the means to start one.
pub(in crate::registry) struct Fetcher {
    workers: Arc<dyn Workers>,
    job: Job,
    patience: Patience,
    running: Mutex<Option<Running>>,
}

/// A child that was confined. Dropped, it is killed.
struct Running {
    socket: OwnedFd,
    /// Which one it is: one that failed is not taken for the next.
    number: u64,
    process: Box<dyn Process>,
    _root: PrivateMemory,
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fetcher(..)")
    }
}

impl Fetcher {
    pub(in crate::registry) fn new(
        workers: Arc<dyn Workers>,
        trust: Option<RegistryTrust>,
        patience: Patience,
    ) -> Self {
        let job = Job::new(trust.as_ref(), patience);
        Self { workers, job, patience, running: Mutex::new(None) }
    }

    /// Has a request sent, and waits for the head of its answer.
    pub(in crate::registry) async fn send(
        &self,
        ask: Ask,
        proxy: Option<&Proxy>,
        deadline: Instant,
    ) -> Result<(Head, Pieces), RegistryError> {
        let to = ask.url.origin.to_string();
        let request = Request::of(&ask, proxy).ok_or(RegistryError::Config {
            what: "request of a fetcher",
            expected: "GET or HEAD without a body",
            found: ask.method.to_string(),
        })?;
        let (mut socket, number) = match timeout_at(deadline, self.hand_over()).await {
            Ok(socket) => socket?,
            Err(_) => return Err(RegistryError::Deadline { doing: "a process that fetches was started" }),
        };
        let end = deadline.min(Instant::now() + self.patience.connect + self.patience.answer + GRACE);
        let exchange = async {
            request.write(&mut socket).await?;
            Answer::read(&mut socket).await
        };
        match timeout_at(end, exchange).await {
            Ok(Ok(Answer::Head(told))) => {
                let head = told.head().ok_or_else(|| broken(&to, "the head of an answer"))?;
                Ok((head, Pieces { socket, buffer: BytesMut::new(), left: 0, patience: self.patience }))
            }
            Ok(Ok(Answer::Fault(fault))) => Err(fault.error(&to, &self.patience)),
            Ok(Err(error)) => Err(RegistryError::broken(&to, error)),
            Err(_) if end == deadline => Err(RegistryError::Deadline { doing: "an answer was awaited" }),
            Err(_) => {
                // An honest one says so itself.
                self.give_up(number).await;
                Err(self.patience.no_answer(to))
            }
        }
    }

    /// A socket for one request, whose other end a child has.
    async fn hand_over(&self) -> Result<(UnixStream, u64), RegistryError> {
        let (ours, theirs) = UnixStream::pair().map_err(fetcher("make a socket for"))?;
        let theirs = theirs.into_std().map_err(fetcher("make a socket for"))?;
        let mut running = self.running.lock().await;
        let mut number = 0;
        if let Some(child) = running.as_ref() {
            match send_now(&child.socket, Mark::Next, &[theirs.as_fd()]) {
                Ok(()) => return Ok((ours, child.number)),
                // It is gone, or does nothing any more.
                Err(_) => number = child.number + 1,
            }
        }
        if let Some(child) = running.take() {
            child.process.end().await.map_err(fetcher("end"))?;
        }
        let child = running.insert(self.start(number).await?);
        send_now(&child.socket, Mark::Next, &[theirs.as_fd()]).map_err(fetcher("send a request to"))?;
        Ok((ours, number))
    }

    #[cfg(test)]
    pub(super) async fn is_idle(&self) -> bool {
        self.running.lock().await.is_none()
    }

    async fn give_up(&self, number: u64) {
        let mut running = self.running.lock().await;
        if running.as_ref().is_some_and(|child| child.number == number) {
            *running = None;
        }
    }

    async fn start(&self, number: u64) -> Result<Running, RegistryError> {
        let root = PrivateMemory::create(ROOT_BYTES, ROOT_FILES).map_err(fetcher("make the root of"))?;
        let directory = root.directory().map_err(fetcher("make the root of"))?;
        names(&directory).map_err(fetcher("copy files of names for"))?;
        let (socket, theirs) = pair().map_err(fetcher("make a socket for"))?;
        let (answer, told) = pipe_with(PipeFlags::CLOEXEC).map_err(fetcher("make a pipe for"))?;
        let process = self.workers.start(Trade::Fetch, theirs).await.map_err(fetcher("start"))?;
        {
            let job = job_file(&self.job).map_err(fetcher("write the job of"))?;
            send(&socket, Mark::Job, &[job.as_fd(), directory.as_fd(), told.as_fd()])
                .map_err(fetcher("send a job to"))?;
        }
        drop((directory, told));
        let word = tokio::task::spawn_blocking(move || {
            let mut word = Vec::new();
            File::from(answer).take(WORD_MAX).read_to_end(&mut word).map(|_| word)
        });
        let late = |_| fetcher("wait for")(io::Error::from(io::ErrorKind::TimedOut));
        let word = timeout(START, word).await.map_err(late)?;
        let word = word.map_err(fetcher("wait for"))?.map_err(fetcher("wait for"))?;
        // GUARD: fetcher-ready -> evil_fetcher_that_is_not_confined
        if word != [READY] {
            let text = match word.split_first() {
                Some((0, text)) => String::from_utf8_lossy(text).into_owned(),
                _ => "it ended".to_owned(),
            };
            return Err(fetcher("confine")(text));
        }
        Ok(Running { socket, number, process, _root: root })
    }
}

/// What a child may read.
fn names(root: &OwnedFd) -> io::Result<()> {
    rustix::fs::mkdirat(root, "etc", Mode::from_raw_mode(0o755))?;
    let write = |name: &str, bytes: &[u8]| {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(root, format!("etc/{name}"), flags, Mode::from_raw_mode(0o644))?;
        File::from(file).write_all(bytes)
    };
    write("nsswitch.conf", SWITCH)?;
    for name in NAMES {
        let mut bytes = Vec::new();
        match File::open(format!("/etc/{name}")) {
            Ok(file) => file.take(NAMES_BYTES_MAX).read_to_end(&mut bytes)?,
            // Who has none looks up nothing.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        write(name, &bytes)?;
    }
    Ok(())
}

/// A body as the child says it is.
#[derive(Debug)]
pub(in crate::registry) struct Pieces {
    socket: UnixStream,
    /// What was read and not given on.
    buffer: BytesMut,
    /// Of the piece that is being read.
    left: usize,
    patience: Patience,
}

impl Pieces {
    /// The next bytes; none at the end. May be waited for again after it was given up.
    pub(in crate::registry) async fn next(&mut self, from: &str) -> Result<Option<Bytes>, RegistryError> {
        loop {
            if self.left > 0 && !self.buffer.is_empty() {
                let piece = self.buffer.split_to(self.left.min(self.buffer.len())).freeze();
                self.left -= piece.len();
                return Ok(Some(piece));
            }
            if self.left == 0 {
                match frame::begun(&self.buffer) {
                    Begun::End => return Ok(None),
                    Begun::Piece(length) => {
                        self.buffer.advance(frame::LENGTH);
                        self.left = length;
                        continue;
                    }
                    Begun::Fault(fault) => return Err(fault.error(from, &self.patience)),
                    Begun::Nothing => return Err(broken(from, "pieces of a body")),
                    Begun::More => {}
                }
            }
            self.buffer.reserve(BUFFER);
            let read = self.socket.read_buf(&mut self.buffer).await;
            if read.map_err(|error| RegistryError::broken(from, error))? == 0 {
                return Err(RegistryError::broken(from, io::Error::from(io::ErrorKind::UnexpectedEof)));
            }
        }
    }
}

fn broken(from: &str, expected: &str) -> RegistryError {
    RegistryError::broken(
        from,
        format!("expected {expected} of the process that fetches, found something else"),
    )
}

fn fetcher<E: Into<Cause>>(action: &'static str) -> impl FnOnce(E) -> RegistryError {
    move |source| RegistryError::Fetcher { action, source: source.into() }
}
