//! Broken pipes are errors of a write, not the end of the process: what the standard library sees to before a Rust `main`.
#![expect(unsafe_code, reason = "the disposition of a signal is set by libc")]

/// From now on `SIGPIPE` is ignored.
pub(crate) fn ignore_broken() {
    // SAFETY: ignoring runs no code in a handler, and the number is one of a signal that may be ignored.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    }
}
