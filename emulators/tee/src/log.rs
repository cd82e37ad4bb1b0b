//! The emulator's log: lines on standard error.
#![expect(clippy::print_stderr, reason = "the log of a command-line program")]

/// One line.
pub(crate) fn note(line: &str) {
    eprintln!("innerkeep-tee-emulator: {line}");
}
