//! Packet filters: text to and from programs of the guest's image.
//!
//! A program is found at a fixed place, has no environment, no input but the text, an end to its answer and to its time, and its status
//! counts. A filter that cannot be set as a whole is not set: what was there before is written back.

mod floor;

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::time::timeout;

use super::error::NetworkError;
use crate::reaper::{Ended, Reaper};

/// Where the image has them, in this order.
const DIRECTORIES: [&str; 2] = ["/usr/sbin", "/sbin"];
/// How long a program may take. It waits 5 s for others that change the same.
const LIMIT: Duration = Duration::from_secs(15);
/// The longest answer, in bytes.
const MAXIMUM_BYTES: usize = 2 << 20;
/// The tables that there are.
const TABLES: [&str; 5] = ["filter", "nat", "mangle", "raw", "security"];

/// Which filters: IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filters {
    /// Those of IPv6.
    pub is_ipv6: bool,
}

impl Filters {
    const fn save(self) -> &'static str {
        if self.is_ipv6 { "ip6tables-save" } else { "iptables-save" }
    }

    const fn restore(self) -> &'static str {
        if self.is_ipv6 { "ip6tables-restore" } else { "iptables-restore" }
    }
}

/// The programs of the image. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    root: PathBuf,
    limit: Duration,
}

/// The filters before a change, as text.
#[derive(Debug)]
pub struct FiltersBefore {
    filters: Filters,
    saved: Vec<u8>,
    /// Tables that the change named.
    named: BTreeSet<String>,
}

impl Programs {
    /// Those below the root directory of the image.
    pub(super) fn of(root: &Path) -> Self {
        Self { root: root.to_owned(), limit: LIMIT }
    }

    fn find(&self, program: &'static str) -> Result<PathBuf, NetworkError> {
        let root = std::fs::metadata(&self.root).map_err(failed(program, "look for it"))?;
        for directory in DIRECTORIES {
            let path = self.root.join(directory.trim_start_matches('/')).join(program);
            let Ok(found) = std::fs::metadata(&path) else { continue };
            let is_of_the_image = found.is_file() && found.dev() == root.dev() && found.uid() == root.uid();
            // GUARD: filter-program -> evil_host_filter_program_on_another_file_system
            if !is_of_the_image || found.mode() & 0o022 != 0 {
                continue;
            }
            return Ok(path);
        }
        Err(NetworkError::NoProgram { program })
    }

    /// The filters as text.
    pub(super) async fn save(&self, reaper: &Reaper, filters: Filters) -> Result<Vec<u8>, NetworkError> {
        self.run(reaper, filters.save(), &[], &[]).await
    }

    /// Sets filters: the tables that the text names become what it says. What they were is the answer, or there again.
    pub(super) async fn restore(
        &self,
        reaper: &Reaper,
        filters: Filters,
        text: &[u8],
    ) -> Result<(Vec<u8>, FiltersBefore), NetworkError> {
        // GUARD: filter-floor -> evil_host_filters_between_workload_and_guest_components
        floor::check(filters, text)?;
        self.find(filters.restore())?;
        let saved = self.save(reaper, filters).await?;
        let before = FiltersBefore { filters, saved, named: tables(text) };
        match self.run(reaper, filters.restore(), &["--wait", "5"], text).await {
            Ok(said) => Ok((said, before)),
            // Table by table: some may be set.
            Err(cause) => match self.put_back(reaper, &before).await {
                Ok(()) => Err(cause),
                Err(_) => Err(NetworkError::FiltersNotUndone { cause: Box::new(cause) }),
            },
        }
    }

    /// Writes back what was there. A table that was not there is emptied.
    pub(super) async fn put_back(&self, reaper: &Reaper, before: &FiltersBefore) -> Result<(), NetworkError> {
        let were = tables(&before.saved);
        let mut text = before.saved.clone();
        for table in before.named.difference(&were) {
            text.extend_from_slice(format!("\n*{table}\n-F\n-X\nCOMMIT\n").as_bytes());
        }
        self.run(reaper, before.filters.restore(), &["--wait", "5"], &text).await.map(drop)
    }

    async fn run(
        &self,
        reaper: &Reaper,
        program: &'static str,
        arguments: &[&str],
        input: &[u8],
    ) -> Result<Vec<u8>, NetworkError> {
        let path = self.find(program)?;
        let pipe =
            || pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(program, "make a pipe")(error.into()));
        let ((their_input, own_input), (own_output, their_output)) = (pipe()?, pipe()?);
        let start = failed(program, "start it");
        let ended = {
            let mut command = Command::new(path);
            command.env_clear().args(arguments).current_dir("/").process_group(0);
            command.stdin(their_input).stdout(their_output).stderr(Stdio::null());
            // The command keeps their ends of the pipes open as long as it lives.
            reaper.spawn(&mut command).map_err(|error| start(io::Error::other(error)))?
        };
        let handle = ended.handle();
        let whole = async {
            let (said, ()) = tokio::try_join!(listen(program, own_output), tell(program, own_input, input))?;
            Ok::<_, NetworkError>((said, ended.await))
        };
        let outcome = timeout(self.limit, whole).await;
        if !matches!(outcome, Ok(Ok(_))) {
            // Its end is taken by the reaper.
            let _ = handle.signal_group(Signal::KILL);
        }
        let seconds = self.limit.as_secs();
        let (said, ended) = outcome.map_err(|_| NetworkError::ProgramTimeout { program, seconds })??;
        match ended {
            Some(Ended::Exited(0)) => Ok(said),
            Some(ended) => Err(NetworkError::ProgramFailed { program, status: ended.code() }),
            None => Err(NetworkError::Lost),
        }
    }
}

fn failed(program: &'static str, what: &'static str) -> impl FnOnce(io::Error) -> NetworkError {
    move |source| NetworkError::Program { program, what, source }
}

async fn listen(program: &'static str, pipe: OwnedFd) -> Result<Vec<u8>, NetworkError> {
    let pipe = Receiver::from_owned_fd(pipe).map_err(failed(program, "listen to it"))?;
    let limit = u64::try_from(MAXIMUM_BYTES + 1).unwrap_or(u64::MAX);
    let mut said = Vec::new();
    pipe.take(limit).read_to_end(&mut said).await.map_err(failed(program, "listen to it"))?;
    // GUARD: filter-answer -> evil_guest_program_never_stops_to_speak
    if said.len() > MAXIMUM_BYTES {
        return Err(NetworkError::TooMany {
            what: "bytes of packet filters",
            most: MAXIMUM_BYTES,
            found: said.len(),
        });
    }
    Ok(said)
}

/// A program that does not listen to the end says with its status why.
async fn tell(program: &'static str, pipe: OwnedFd, text: &[u8]) -> Result<(), NetworkError> {
    let mut pipe = Sender::from_owned_fd(pipe).map_err(failed(program, "speak to it"))?;
    match pipe.write_all(text).await {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(failed(program, "speak to it")(error)),
        _ => Ok(()),
    }
}

/// Names of the tables of a text: `*filter`. Only names that tables have.
fn tables(text: &[u8]) -> BTreeSet<String> {
    let named = |name: &&&str| text.split(|byte| *byte == b'\n').any(|line| is_table(line, name));
    TABLES.iter().filter(named).map(ToString::to_string).collect()
}

fn is_table(line: &[u8], name: &str) -> bool {
    line.trim_ascii().strip_prefix(b"*").is_some_and(|found| found == name.as_bytes())
}

#[cfg(test)]
mod tests;
