//! The emulator's log: lines on standard error.

use std::io::Write as _;

/// One line. It is lost where nobody reads any more: the guest goes on.
pub(crate) fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "innerkeep-tee-emulator: {line}");
}
