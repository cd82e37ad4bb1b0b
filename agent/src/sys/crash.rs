//! When this process is about to be killed by a fault of its own, it ends the machine in time, and says why.
//!
//! Without this the kernel would panic when process 1 dies. What cannot be caught (the stack of another thread than the first
//! overflows, a fault inside the handler) still ends that way: `kernel.panic` says that the machine ends then.
#![expect(
    unsafe_code,
    reason = "handlers of signals are installed by libc, and run where nothing may be allocated"
)]

use std::ffi::c_int;
use std::mem::zeroed;
use std::ptr;

use rustix::system::{RebootCommand, reboot};

/// Of the stack on which the handler runs: an overflow of the first thread's own is a fault, too.
const STACK_BYTES: usize = 64 * 1024;

/// The line for a signal, written before the machine ends. It has no time: formatting one is too much for a handler.
macro_rules! line {
    ($signal:literal) => {
        concat!(
            r#"{"msg":"crash, the machine is powered off","level":"CRIT","pid":"1","name":"kata-agent","source":"agent","#,
            r#""subsystem":"pid1","code":"AGENT_CRASH","signal":""#,
            $signal,
            "\"}\n"
        )
    };
}

const LINES: [(c_int, &str); 7] = [
    (libc::SIGABRT, line!("SIGABRT")),
    (libc::SIGBUS, line!("SIGBUS")),
    (libc::SIGFPE, line!("SIGFPE")),
    (libc::SIGILL, line!("SIGILL")),
    (libc::SIGSEGV, line!("SIGSEGV")),
    (libc::SIGSYS, line!("SIGSYS")),
    (libc::SIGTRAP, line!("SIGTRAP")),
];

/// Installs the handler for every signal of a fault. Call it once, in process 1, on its first thread.
pub(crate) fn end_the_machine() {
    // For the rest of the process's life.
    let stack = Box::leak(vec![0_u8; STACK_BYTES].into_boxed_slice());
    let stack = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: STACK_BYTES };
    // SAFETY: the stack is never freed, and nobody else uses it.
    unsafe {
        libc::sigaltstack(&raw const stack, ptr::null_mut());
    }
    for (signal, _) in LINES {
        // SAFETY: zeros are a valid value of this struct of the C library: no flags, no signals.
        let mut action: libc::sigaction = unsafe { zeroed() };
        let handler: extern "C" fn(c_int) = crashed;
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_ONSTACK | libc::SA_RESETHAND;
        // SAFETY: the action is initialised; the handler makes two system calls and touches no state of this process.
        unsafe {
            libc::sigaction(signal, &raw const action, ptr::null_mut());
        }
    }
}

extern "C" fn crashed(signal: c_int) {
    if let Some((_, line)) = LINES.iter().find(|(number, _)| *number == signal) {
        let _ = rustix::io::write(rustix::stdio::stdout(), line.as_bytes());
    }
    let _ = reboot(RebootCommand::PowerOff);
    let _ = reboot(RebootCommand::Restart);
}

#[cfg(test)]
mod tests {
    use super::LINES;

    #[test]
    fn the_lines_are_json() {
        for (_, line) in LINES {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(value["code"], "AGENT_CRASH");
            assert!(value["signal"].as_str().unwrap().starts_with("SIG") && line.ends_with('\n'));
        }
    }
}
