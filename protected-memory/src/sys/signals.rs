//! Signals as descriptors, for a wait that forwards them.

#![expect(unsafe_code, reason = "signal sets and signalfd")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A set of signals.
#[derive(Clone, Copy)]
pub(crate) struct SignalSet(libc::sigset_t);

impl SignalSet {
    /// The signals by which users and service managers end a program.
    pub(crate) fn ending() -> Self {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset initialises the set before it is used; the signal numbers are valid.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
                libc::sigaddset(set.as_mut_ptr(), signal);
            }
            Self(set.assume_init())
        }
    }

    /// Blocks these signals in this thread and gives the mask that was in force.
    pub(crate) fn block(&self) -> io::Result<Self> {
        let mut before = MaybeUninit::uninit();
        // SAFETY: both pointers are valid; the call initialises `before` when it succeeds.
        match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const self.0, before.as_mut_ptr()) } {
            // SAFETY: the call succeeded.
            0 => Ok(Self(unsafe { before.assume_init() })),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// Makes this set the mask of this thread. Async-signal-safe.
    pub(crate) fn install(&self) -> io::Result<()> {
        // SAFETY: the set is initialised; the old mask is not asked for.
        match unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut()) } {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// A descriptor from which blocked signals of this set are read.
    pub(crate) fn descriptor(&self) -> io::Result<OwnedFd> {
        // SAFETY: the set is initialised; the new descriptor is ours alone.
        unsafe {
            match libc::signalfd(-1, &raw const self.0, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
                -1 => Err(io::Error::last_os_error()),
                fd => Ok(OwnedFd::from_raw_fd(fd)),
            }
        }
    }
}

/// A signal that was read from a descriptor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReceivedSignal {
    pub(crate) number: i32,
    /// Sent by a process. A terminal's signal comes from the kernel, and has reached the whole process group.
    pub(crate) sent_by_process: bool,
}

/// Reads one signal; `None` if there is none.
pub(crate) fn read_signal(descriptor: &OwnedFd) -> io::Result<Option<ReceivedSignal>> {
    let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
    let size = size_of::<libc::signalfd_siginfo>();
    // SAFETY: the buffer is as large as stated.
    let read = unsafe { libc::read(descriptor.as_raw_fd(), info.as_mut_ptr().cast(), size) };
    if usize::try_from(read) == Ok(size) {
        // SAFETY: the kernel filled the whole structure, which is plain data.
        let info = unsafe { info.assume_init() };
        let number = i32::try_from(info.ssi_signo).unwrap_or(libc::SIGTERM);
        return Ok(Some(ReceivedSignal { number, sent_by_process: info.ssi_code <= 0 }));
    }
    let error = io::Error::last_os_error();
    if read < 0 && error.kind() != io::ErrorKind::WouldBlock && error.kind() != io::ErrorKind::Interrupted {
        return Err(error);
    }
    Ok(None)
}

/// Sends a signal to the process behind a pidfd.
pub(crate) fn send_signal(pidfd: &OwnedFd, number: i32) -> io::Result<()> {
    // SAFETY: no pointer is passed but a null one, which asks for the default information.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            number,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
