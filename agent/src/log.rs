//! Log lines as upstream writes them: one JSON object a line, with its keys and its names of levels.
//!
//! Everything here is the host's to read. So a line consists of a fixed text, the names in [`Key`], and values of the forms
//! that [`Value`] has: no request, no environment, no argument of a program has a way in.

mod level;
mod sink;
mod timestamp;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, SystemTime};

pub use level::Level;
use serde_json::{Map, Value as Json};

use crate::error::{AgentError, chain};
use crate::log::sink::Sink;

/// Longest text of a value, in bytes; the rest is cut off.
const MAXIMUM_TEXT_BYTES: usize = 512;
/// `name` in upstream's lines, which log collectors select by.
const NAME: &str = "kata-agent";

/// What a line may say beside its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Key {
    /// Where the agent listens.
    Address,
    /// A sealed artifact, by its name in bound configuration.
    Artifact,
    /// A size.
    Bytes,
    /// The stable code of an error.
    Code,
    /// Control group controllers.
    Controllers,
    /// How many.
    Count,
    /// A device of the guest.
    Device,
    /// A digest of something that the host gave us.
    Digest,
    /// What went wrong.
    Error,
    /// Keys of the kernel command line that are not taken.
    Ignored,
    /// An image, as the host asked for it.
    Image,
    /// `init_on_free` of the kernel.
    InitOnFree,
    /// Insecure modes that are on.
    Insecure,
    /// Keys of the kernel command line whose value is not one of those that they take.
    Malformed,
    /// A method of the served port.
    Method,
    /// Where something comes from.
    Origin,
    /// A time.
    Milliseconds,
    /// How far something is.
    Percent,
    /// Why there is no platform.
    Probes,
    /// The register that vouches for initdata.
    Register,
    /// A signal.
    Signal,
    /// A step of making a container.
    Step,
    /// Areas of swap.
    Swap,
    /// The platform.
    Tee,
    /// Version of the interface.
    Interface,
    /// The number of a call, which a denial names.
    Trace,
}

impl Key {
    const fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Artifact => "artifact",
            Self::Bytes => "bytes",
            Self::Code => "code",
            Self::Controllers => "controllers",
            Self::Count => "count",
            Self::Device => "device",
            Self::Digest => "digest",
            Self::Error => "error",
            Self::Ignored => "ignored",
            Self::Image => "image",
            Self::InitOnFree => "init_on_free",
            Self::Insecure => "insecure",
            Self::Interface => "interface",
            Self::Malformed => "malformed",
            Self::Method => "method",
            Self::Origin => "origin",
            Self::Milliseconds => "ms",
            Self::Percent => "percent",
            Self::Probes => "probes",
            Self::Register => "register",
            Self::Signal => "signal",
            Self::Step => "step",
            Self::Swap => "swap",
            Self::Tee => "tee",
            Self::Trace => "trace",
        }
    }
}

/// A value of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value(Json);

impl Value {
    /// A text from outside: printable ASCII is kept, everything else becomes `?`, and it is cut at 512 bytes.
    #[must_use]
    pub fn shown(text: &str) -> Self {
        let kept = text.chars().take(MAXIMUM_TEXT_BYTES);
        let kept = kept.map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' });
        Self(Json::String(kept.collect()))
    }
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self(Json::from(text))
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self(Json::from(number))
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self(Json::from(number))
    }
}

/// Where lines go. Clones write to the same place.
#[derive(Clone)]
pub struct Log {
    inner: Arc<Inner>,
}

struct Inner {
    level: AtomicU8,
    sink: Sink,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("level", &self.level()).finish_non_exhaustive()
    }
}

impl Log {
    /// To standard output, each line at once.
    #[must_use]
    pub fn console() -> Self {
        Self::to(Sink::console())
    }

    fn to(sink: Sink) -> Self {
        let level = AtomicU8::new(Level::Info.rank());
        Self { inner: Arc::new(Inner { level, sink }) }
    }

    /// The lowest level that is written.
    #[must_use]
    pub fn level(&self) -> Level {
        Level::of_rank(self.inner.level.load(Ordering::Relaxed))
    }

    /// Lines below this are no longer written.
    pub fn set_level(&self, level: Level) {
        self.inner.level.store(level.rank(), Ordering::Relaxed);
    }

    /// From now on a thread writes, so that nobody waits for a console that does not take its bytes. When it lags by too
    /// many lines, lines are lost, and the next one says how many.
    ///
    /// # Errors
    /// `AGENT_SYSTEM` if there can be no more threads.
    pub fn write_behind(&self) -> Result<(), AgentError> {
        self.inner.sink.write_behind().map_err(AgentError::system("start the thread of the log"))
    }

    /// Waits until what was logged is written, but no longer than this.
    pub fn flush(&self, limit: Duration) {
        self.inner.sink.flush(limit);
    }

    /// A line past everything that waits, from a thread that panicked and may itself hold what writes the others. Waits for
    /// the console no longer than this.
    pub fn last_words(
        &self,
        subsystem: &'static str,
        text: &'static str,
        fields: &[(Key, Value)],
        limit: Duration,
    ) {
        self.flush(limit);
        let line = line(SystemTime::now(), Level::Critical, subsystem, text, fields, 0);
        sink::last_words(line, limit);
    }

    /// A line. `subsystem` is upstream's key for the part of the agent that speaks.
    pub fn say(&self, level: Level, subsystem: &'static str, text: &'static str, fields: &[(Key, Value)]) {
        if level.rank() > self.inner.level.load(Ordering::Relaxed) {
            return;
        }
        self.inner.sink.put(|lost| line(SystemTime::now(), level, subsystem, text, fields, lost));
    }

    /// A line at [`Level::Info`].
    pub fn info(&self, subsystem: &'static str, text: &'static str, fields: &[(Key, Value)]) {
        self.say(Level::Info, subsystem, text, fields);
    }

    /// A line at [`Level::Warning`].
    pub fn warn(&self, subsystem: &'static str, text: &'static str, fields: &[(Key, Value)]) {
        self.say(Level::Warning, subsystem, text, fields);
    }

    /// A line about an error, with code and causes.
    pub fn fail(&self, level: Level, subsystem: &'static str, text: &'static str, error: &AgentError) {
        let fields = [(Key::Code, error.code().into()), (Key::Error, Value::shown(&chain(error)))];
        self.say(level, subsystem, text, &fields);
    }
}

fn line(
    now: SystemTime,
    level: Level,
    subsystem: &'static str,
    text: &'static str,
    fields: &[(Key, Value)],
    lost: u64,
) -> String {
    let mut object = Map::new();
    let mut put = |name: &str, value: Json| {
        object.insert(name.to_owned(), value);
    };
    put("msg", text.into());
    put("level", level.name().into());
    put("ts", timestamp::rfc3339(now).into());
    put("version", crate::VERSION.into());
    put("pid", std::process::id().to_string().into());
    put("name", NAME.into());
    put("source", "agent".into());
    put("subsystem", subsystem.into());
    for (key, value) in fields {
        put(key.name(), value.0.clone());
    }
    if lost > 0 {
        put("lost", lost.into());
    }
    let mut line = Json::Object(object).to_string();
    line.push('\n');
    line
}

#[cfg(test)]
pub(crate) mod tests;
