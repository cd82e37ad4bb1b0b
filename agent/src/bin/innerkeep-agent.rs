//! `innerkeep-agent`.
//!
//! There is no Rust `main`: what the standard library does before one would end this process, and with it the machine, if the
//! kernel could open neither a console nor `/dev/null` for it. The first thing that happens is
//! [`agent::run`].
#![no_main]
#![expect(unsafe_code, reason = "the name `main` is what the C start-up code calls")]

use std::ffi::{c_char, c_int};

/// Called by the C start-up code. Arguments are read by whoever may read them, from the standard library.
// SAFETY: no other function of this program has this name, and the signature is that of C.
#[unsafe(no_mangle)]
pub extern "C" fn main(_count: c_int, _arguments: *const *const c_char) -> c_int {
    agent::run()
}
