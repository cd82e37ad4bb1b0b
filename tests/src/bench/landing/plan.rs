//! What to measure: the command line, and the cases that it stands for.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;

use super::worker::Work;

/// Time landings: from a stored artifact to a visible file, against memcpy and against what users do today.
#[derive(Debug, Parser)]
#[command(name = "bench-landing")]
pub(crate) struct Arguments {
    /// Directory for results.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Sizes of the payload: bytes with K, M or G (powers of 1024).
    #[arg(long, value_delimiter = ',', default_value = "64M,1G,4G", value_parser = parse_size)]
    pub(crate) sizes: Vec<u64>,
    /// Threads that decrypt.
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    pub(crate) threads: Vec<NonZeroUsize>,
    /// How often each case is measured.
    #[arg(long, default_value_t = 9)]
    pub(crate) rounds: usize,
    /// Leave out the rows with a payload digest.
    #[arg(long)]
    pub(crate) no_digest: bool,
    /// Leave out age, openssl, gpg and cp.
    #[arg(long)]
    pub(crate) no_tools: bool,
    /// Leave out the rows through the chip emulator (`innerkeep unseal`, data paths key-release, dma-sealed, dma-direct).
    #[arg(long)]
    pub(crate) no_chip: bool,
    /// Also measure a destination of 4 KiB pages. Needs root: it sets `shmem_enabled` of the whole machine to `deny` meanwhile.
    #[arg(long)]
    pub(crate) base_pages: bool,
    /// Where artifacts are made, on a local disk; removed afterwards [default: in the directory for results].
    #[arg(long)]
    pub(crate) store_dir: Option<PathBuf>,
    /// One measurement, as JSON: what the program starts itself with.
    #[arg(long, hide = true)]
    pub(crate) worker: Option<String>,
}

/// Payload size at which other tools are compared.
pub(crate) const TOOL_SIZE: u64 = 1 << 30;

fn parse_size(text: &str) -> anyhow::Result<u64> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K') => (text.trim_end_matches('K'), 10),
        Some(b'M') => (text.trim_end_matches('M'), 20),
        Some(b'G') => (text.trim_end_matches('G'), 30),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().with_context(|| format!("expected a size such as 64M, found {text}"))?;
    number.checked_mul(1 << shift).filter(|size| *size > 0).context("the size is zero or too large")
}

/// How a case is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A worker of this program.
    Work {
        /// What it does.
        work: Work,
        /// On an artifact with a payload digest.
        digest: bool,
        /// Into 4 KiB pages.
        base_pages: bool,
    },
    /// `innerkeep unseal`, as it says itself.
    Chip {
        /// Data path.
        path: &'static str,
    },
    /// `innerkeep unseal`, the whole process by the wall clock.
    Command,
    /// Another program.
    Tool {
        /// Its name.
        name: &'static str,
    },
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) kind: Kind,
    pub(crate) size: u64,
    pub(crate) threads: NonZeroUsize,
}

impl Case {
    /// Name of the row.
    pub(crate) fn name(&self) -> String {
        match self.kind {
            Kind::Work { work, digest, base_pages } => {
                let name = match work {
                    Work::Copy => "memcpy",
                    Work::RawAead => "raw AES-256-GCM",
                    Work::KeyRelease => "key-release",
                    Work::Warm => "warm",
                };
                let digest = if digest { ", payload digest" } else { "" };
                let pages = if base_pages { ", 4 KiB pages" } else { "" };
                format!("{name}{digest}{pages}")
            }
            Kind::Chip { path } => format!("{path} through the emulated chip"),
            Kind::Command => "innerkeep unseal, whole process".to_owned(),
            Kind::Tool { name } => name.to_owned(),
        }
    }

    /// All cases of the command line but the other programs.
    pub(crate) fn of(arguments: &Arguments, chip: bool, base_pages: bool) -> Vec<Self> {
        let mut cases = Vec::new();
        for &size in &arguments.sizes {
            for &threads in &arguments.threads {
                let mut add = |kind| cases.push(Self { kind, size, threads });
                let work = |work, digest, base_pages| Kind::Work { work, digest, base_pages };
                add(work(Work::Copy, false, false));
                add(work(Work::KeyRelease, false, false));
                add(work(Work::RawAead, false, false));
                if !arguments.no_digest {
                    add(work(Work::KeyRelease, true, false));
                }
                if base_pages {
                    add(work(Work::Copy, false, true));
                    add(work(Work::KeyRelease, false, true));
                }
                if chip {
                    add(Kind::Chip { path: "key-release" });
                    add(Kind::Chip { path: "dma-sealed" });
                    add(Kind::Chip { path: "dma-direct" });
                }
            }
        }
        cases
    }
}

/// A size for people.
pub(crate) fn shown_size(bytes: u64) -> String {
    for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes >= 1 << shift && bytes.is_multiple_of(1 << shift) {
            return format!("{} {unit}", bytes >> shift);
        }
    }
    format!("{bytes} B")
}
