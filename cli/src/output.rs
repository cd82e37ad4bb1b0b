//! What a command says: one result, as text or JSON; failures; progress on a terminal.

use std::io::{IsTerminal, Write};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use crate::error::Failure;

/// How to speak.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// JSON instead of text.
    pub(crate) json: bool,
    /// No progress bars.
    pub(crate) quiet: bool,
}

/// A command's result: the same facts for programs and for people.
#[derive(Debug)]
pub(crate) struct Report {
    /// For programs.
    pub(crate) json: Value,
    /// For people, without the last line break.
    pub(crate) text: String,
}

impl Output {
    /// Prints a result on standard output.
    pub(crate) fn result(self, report: &Report) -> std::io::Result<()> {
        let mut stream = std::io::stdout().lock();
        self.write(&mut stream, report)
    }

    /// Prints a result on standard error: for commands whose standard output belongs to somebody else.
    pub(crate) fn aside(self, report: &Report) -> std::io::Result<()> {
        let mut stream = std::io::stderr().lock();
        self.write(&mut stream, report)
    }

    fn write(self, stream: &mut impl Write, report: &Report) -> std::io::Result<()> {
        if self.json { writeln!(stream, "{}", report.json) } else { writeln!(stream, "{}", report.text) }
    }

    /// Prints a failure on standard error, causes included.
    pub(crate) fn failure(self, failure: &Failure) {
        let mut message = failure.to_string();
        let mut cause = std::error::Error::source(failure);
        while let Some(error) = cause {
            let text = error.to_string();
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            cause = error.source();
        }
        let report = Report {
            json: json!({ "error": {
                "code": failure.code(), "class": failure.class(), "status": failure.exit_status(), "message": message,
            } }),
            text: format!("error: {message} [{}]", failure.code()),
        };
        // Nothing is left to be done when standard error is gone.
        let _ = self.aside(&report);
    }

    /// A warning that is never left out: an insecure mode.
    pub(crate) fn insecure(self, modes: &[&str]) {
        if !modes.is_empty() && !self.json {
            eprintln!("WARNING: insecure modes in effect: {}", modes.join(", "));
        }
    }

    /// A progress bar over bytes; silent when piped, quiet or JSON.
    pub(crate) fn progress(self, what: &'static str, bytes: u64) -> Progress {
        let shown = !self.quiet && !self.json && std::io::stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(
            Some(bytes),
            if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() },
        );
        if let Ok(style) =
            ProgressStyle::with_template("{msg:9} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
        {
            bar.set_style(style);
        }
        bar.set_message(what);
        Progress { bar, start: Instant::now(), bytes }
    }
}

/// Prints what is wrong with the command line (or the help that was asked for), as JSON if that was asked for; the exit status.
pub(crate) fn usage(error: &clap::Error) -> u8 {
    let json = std::env::args_os().any(|argument| argument == "--json");
    let status = u8::try_from(error.exit_code()).unwrap_or(1);
    if json && error.use_stderr() {
        let message = error.to_string();
        eprintln!(
            "{}",
            json!({ "error": { "code": "USAGE", "class": "usage", "status": status, "message": message.trim_end() } })
        );
    } else {
        // Nothing is left to be done when the streams are gone.
        let _ = error.print();
    }
    status
}

/// A stretch of work that is shown and timed.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    start: Instant,
    bytes: u64,
}

impl Progress {
    /// Some bytes are done.
    pub(crate) fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// This much of this much is done: for work whose size shows on the way.
    pub(crate) fn set(&self, done: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
    }

    /// All is done: how long it took.
    pub(crate) fn finish(self) -> Timing {
        self.bar.finish_and_clear();
        Timing { seconds: self.start.elapsed().as_secs_f64(), bytes: self.bytes }
    }
}

/// How long a stretch of work took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// Wall clock.
    pub(crate) seconds: f64,
    /// Work done.
    pub(crate) bytes: u64,
}

impl Timing {
    /// Gigabytes (10^9) per second.
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    pub(crate) fn gb_per_s(self) -> f64 {
        self.bytes as f64 / 1e9 / self.seconds.max(1e-9)
    }
}
