//! Signals as a descriptor that can be polled.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// Becomes readable when one of its signals came.
#[derive(Debug)]
pub(crate) struct Signals(OwnedFd);

impl Signals {
    /// SIGTERM and SIGINT: the process is to end.
    pub(crate) fn block_termination() -> io::Result<Self> {
        Self::block([libc::SIGTERM, libc::SIGINT])
    }

    /// SIGHUP.
    pub(crate) fn block_hangup() -> io::Result<Self> {
        Self::block([libc::SIGHUP])
    }

    /// Waits for a signal and takes it.
    pub(crate) fn wait(&self) -> io::Result<()> {
        let mut information = [0; size_of::<libc::signalfd_siginfo>()];
        rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut information))?;
        Ok(())
    }

    /// Blocks the signals. To be called before any thread is started: threads inherit the mask.
    fn block<const N: usize>(signals: [libc::c_int; N]) -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initialises the whole set; the sigaddset calls act on the initialised set.
        let set = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in signals {
                libc::sigaddset(set.as_mut_ptr(), signal);
            }
            set.assume_init()
        };
        // SAFETY: `set` is initialised and the old mask is not asked for.
        let error = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        // SAFETY: `set` is initialised; -1 asks for a new descriptor.
        let descriptor = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: signalfd returned a new descriptor that nothing else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(descriptor) }))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
