//! The kernel command line: the host's words, of which few are taken.
//!
//! Security configuration never comes from here. [`KEYS`] is everything that has an effect; every other word that is meant
//! for an agent is counted and named in the log, its value is not.

use crate::log::Level;
use crate::streams::PipeSize;

/// The keys that are taken, and what they can do.
pub const KEYS: &[(&str, &str)] = &[
    ("agent.log", "level of the log, whose lines the host may read at any level"),
    (
        "agent.passfd_listener_port",
        "port where the host, and nobody else, connects streams that policy permits it",
    ),
    ("agent.container_pipe_size", "bytes that a pipe of a process holds, within fixed bounds"),
];

/// Longest command line that is read, in bytes. The kernel's own limit on x86 is 2048.
pub const MAXIMUM_BYTES: usize = 4096;
/// Words that are looked at; the rest is counted as unread.
pub const MAXIMUM_WORDS: usize = 512;
/// Names that are kept of keys that are not taken.
pub const MAXIMUM_NAMES: usize = 32;
/// Longest such name in bytes; the rest is cut off.
pub const MAXIMUM_NAME_BYTES: usize = 64;

/// Beginnings of the keys that address an agent.
const OURS: [&str; 3] = ["agent.", "innerkeep.", "kata."];
/// Behind this word the kernel passes everything on as arguments of its first program.
const ARGUMENTS: &str = "--";

/// What a command line says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommandLine {
    /// `agent.log`; the last one counts.
    pub log_level: Option<Level>,
    /// `agent.passfd_listener_port`; the last one counts, 0 is none.
    pub passfd_port: Option<u32>,
    /// `agent.container_pipe_size`; the last one counts, 0 is the kernel's.
    pub pipe_size: Option<PipeSize>,
    /// Keys that address an agent and are not taken, or whose value is none of theirs.
    ignored: Vec<String>,
    /// How many there were.
    pub ignored_count: usize,
    /// Of these, values that a key does not take.
    pub malformed: Vec<&'static str>,
    /// Words behind `--`: arguments, which nobody reads.
    pub arguments: usize,
    /// Whether the line had more bytes or words than are looked at.
    pub is_cut: bool,
}

impl CommandLine {
    /// Reads a command line. Nothing in it is an error: what is not understood has no effect.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        let mut line = Self { is_cut: bytes.len() > MAXIMUM_BYTES, ..Self::default() };
        let text = String::from_utf8_lossy(bytes.get(..MAXIMUM_BYTES).unwrap_or(bytes));
        let mut words = text.split(|c: char| c.is_ascii_whitespace()).filter(|word| !word.is_empty());
        let mut are_arguments = false;
        for word in words.by_ref().take(MAXIMUM_WORDS) {
            if are_arguments {
                line.arguments += 1;
            } else if word == ARGUMENTS {
                are_arguments = true;
            } else {
                line.take(word);
            }
        }
        line.is_cut |= words.next().is_some();
        line
    }

    /// Names of keys that address an agent and have no effect: printable, in order, each once, at most
    /// [`MAXIMUM_NAMES`].
    #[must_use]
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    fn take(&mut self, word: &str) {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        if let Some((name, _)) = KEYS.iter().find(|(name, _)| *name == key) {
            if !self.set(name, value) && !self.malformed.contains(name) {
                self.malformed.push(name);
            }
            return;
        }
        // GUARD: command-line-keys -> evil_cmdline_keys_of_upstream
        if OURS.iter().any(|beginning| key.starts_with(beginning)) {
            self.ignore(key);
        }
    }

    /// Whether the key takes the value.
    fn set(&mut self, name: &str, value: &str) -> bool {
        match name {
            "agent.passfd_listener_port" => take(&mut self.passfd_port, number(value)),
            "agent.container_pipe_size" => {
                let size = number(value).and_then(|size: usize| PipeSize::bytes(size).ok());
                take(&mut self.pipe_size, size)
            }
            _ => take(&mut self.log_level, Level::parse(value)),
        }
    }

    fn ignore(&mut self, key: &str) {
        self.ignored_count += 1;
        let name: String = key
            .chars()
            .map(|c| if c.is_ascii_graphic() { c } else { '?' })
            .take(MAXIMUM_NAME_BYTES)
            .collect();
        if self.ignored.len() < MAXIMUM_NAMES && !self.ignored.contains(&name) {
            self.ignored.push(name);
        }
    }
}

fn take<T>(place: &mut Option<T>, value: Option<T>) -> bool {
    let is_there = value.is_some();
    if is_there {
        *place = value;
    }
    is_there
}

/// Digits alone.
fn number<N: std::str::FromStr>(value: &str) -> Option<N> {
    value.parse().ok().filter(|_| value.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests;
