//! The way to a TPM: a character device, or below an insecure root a UNIX socket with the same bytes.
//!
//! The device without a resource manager is used: the kernel lets it be open once, so that no one else's
//! commands come between ours, and a context that is still there when it is opened belongs to nobody any more.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, OFlags, fstat};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, send, socket_with,
};
use zeroize::Zeroizing;

use super::wire::{MESSAGE_MAX_BYTES, Reader, WireError};

/// How long to wait before a device that somebody else has open is tried again.
const AGAIN: Duration = Duration::from_millis(5);
/// Tag and size of a message.
const PREFIX_BYTES: usize = 6;
const HEADER_BYTES: usize = 10;

/// The way to the TPM failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The operating system reports a failure.
    #[error("TPM {}: {what} failed", path.display())]
    Io {
        /// The device.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
    /// There is no TPM.
    #[error("TPM: expected one of tpm0, tpm1, tpm2 in {}, found none", path.display())]
    NotFound {
        /// The directory.
        path: PathBuf,
    },
    /// Something else lies at the path of a TPM.
    #[error("TPM {}: expected {expected}, found another kind of file", path.display())]
    NotATpm {
        /// The path.
        path: PathBuf,
        /// The kind of file.
        expected: &'static str,
    },
    /// No answer in time.
    #[error("TPM {}: expected an answer before the deadline, found none to {what}", path.display())]
    Timeout {
        /// The device.
        path: PathBuf,
        /// What was waited for.
        what: &'static str,
    },
}

impl DeviceError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "TPM_DEVICE",
            Self::NotATpm { .. } => "TPM_NOT_A_DEVICE",
            Self::NotFound { .. } => "TPM_NOT_FOUND",
            Self::Timeout { .. } => "TPM_TIMEOUT",
        }
    }
}

/// What kind of file a TPM is spoken to by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Character,
    Socket,
}

/// Where a TPM is. Nothing is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TpmLocation {
    path: PathBuf,
    kind: Kind,
}

impl TpmLocation {
    /// The character device at `path`.
    pub fn device(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), kind: Kind::Character }
    }

    /// A UNIX stream socket that speaks as a TPM: whoever listens there is believed to be one. For emulators only.
    pub fn danger_socket(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), kind: Kind::Socket }
    }

    /// The first of `/dev/tpm0` to `/dev/tpm2`.
    ///
    /// # Errors
    ///
    /// `TPM_NOT_FOUND`.
    pub fn find() -> Result<Self, DeviceError> {
        first_in(Path::new("/dev")).map(Self::device)
    }

    /// The first of `dev/tpm0` to `dev/tpm2` below an insecure root: sockets.
    ///
    /// # Errors
    ///
    /// `TPM_NOT_FOUND`.
    pub fn danger_find_below(root: &Path) -> Result<Self, DeviceError> {
        first_in(&root.join("dev")).map(Self::danger_socket)
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens it; waits until `deadline` while somebody else has it open.
    pub(super) fn open(&self, deadline: Instant) -> Result<Device, DeviceError> {
        loop {
            let opened = match self.kind {
                Kind::Character => self.open_character(),
                Kind::Socket => self.open_socket(),
            };
            match opened {
                Err(DeviceError::Io { source, .. })
                    if source.raw_os_error() == Some(Errno::BUSY.raw_os_error())
                        || source.kind() == io::ErrorKind::WouldBlock => {}
                opened => return opened,
            }
            if Instant::now() + AGAIN >= deadline {
                return Err(DeviceError::Timeout { path: self.path.clone(), what: "open" });
            }
            sleep(AGAIN);
        }
    }

    fn open_character(&self) -> Result<Device, DeviceError> {
        let flags =
            i32::try_from((OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC).bits()).unwrap_or(0);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags)
            .open(&self.path)
            .map_err(|source| self.failed("open", source))?;
        let mode = fstat(&file).map_err(|errno| self.failed("fstat", errno.into()))?.st_mode;
        // GUARD: tpm-is-a-device -> evil_host_tpm_is_a_file
        if FileType::from_raw_mode(mode) != FileType::CharacterDevice {
            return Err(DeviceError::NotATpm { path: self.path.clone(), expected: "a character device" });
        }
        Ok(Device { location: self.clone(), fd: file.into() })
    }

    fn open_socket(&self) -> Result<Device, DeviceError> {
        let kind = self.path.symlink_metadata().map_err(|source| self.failed("stat", source))?.file_type();
        if !kind.is_socket() {
            return Err(DeviceError::NotATpm { path: self.path.clone(), expected: "a socket" });
        }
        let failed = |what| move |errno: Errno| self.failed(what, errno.into());
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd =
            socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(failed("socket"))?;
        let address = SocketAddrUnix::new(&self.path).map_err(failed("connect"))?;
        connect(&fd, &address).map_err(failed("connect"))?;
        Ok(Device { location: self.clone(), fd })
    }

    fn failed(&self, what: &'static str, source: io::Error) -> DeviceError {
        DeviceError::Io { path: self.path.clone(), what, source }
    }
}

/// An open TPM. Closed when dropped.
#[derive(Debug)]
pub(super) struct Device {
    location: TpmLocation,
    fd: OwnedFd,
}

impl Device {
    /// Sends one command and takes one response, before `deadline`.
    pub(super) fn exchange(
        &self,
        command: &[u8],
        deadline: Instant,
    ) -> Result<Zeroizing<Vec<u8>>, super::TpmError> {
        if Instant::now() >= deadline {
            return Err(DeviceError::Timeout { path: self.location.path.clone(), what: "a command" }.into());
        }
        self.send(command, deadline)?;
        let mut response = Zeroizing::new(vec![0; MESSAGE_MAX_BYTES]);
        let length = match self.location.kind {
            Kind::Character => self.receive(&mut response, deadline)?,
            Kind::Socket => self.receive_framed(&mut response, deadline)?,
        };
        response.truncate(length);
        Ok(response)
    }

    /// A device takes a command by one write or not at all; a socket may take it in pieces.
    fn send(&self, command: &[u8], deadline: Instant) -> Result<(), DeviceError> {
        let mut rest = command;
        while !rest.is_empty() {
            self.wait(PollFlags::OUT, "a command", deadline)?;
            let sent = match self.location.kind {
                Kind::Character => rustix::io::write(&self.fd, rest),
                // No SIGPIPE from a peer that is gone.
                Kind::Socket => send(&self.fd, rest, SendFlags::NOSIGNAL),
            };
            match sent {
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(errno) => return Err(self.location.failed("write", errno.into())),
            }
        }
        Ok(())
    }

    /// A stream tells the end of a response by the size in it.
    fn receive_framed(&self, into: &mut [u8], deadline: Instant) -> Result<usize, super::TpmError> {
        self.receive_exactly(into, 0..HEADER_BYTES, deadline)?;
        let mut prefix = Reader::new("response", into);
        prefix.take(PREFIX_BYTES - 4)?;
        let size = usize::try_from(prefix.u32()?).unwrap_or(usize::MAX);
        // GUARD: tpm-response-cap -> evil_host_tpm_oversize_response
        if size > MESSAGE_MAX_BYTES {
            return Err(
                WireError::TooLarge { what: "response", maximum: MESSAGE_MAX_BYTES, found: size }.into()
            );
        }
        if size < HEADER_BYTES {
            return Err(
                WireError::unexpected("size of the response", "a header at least", size as u64).into()
            );
        }
        self.receive_exactly(into, HEADER_BYTES..size, deadline)?;
        Ok(size)
    }

    fn receive_exactly(
        &self,
        into: &mut [u8],
        range: std::ops::Range<usize>,
        deadline: Instant,
    ) -> Result<(), super::TpmError> {
        let mut rest = into.get_mut(range).unwrap_or_default();
        while !rest.is_empty() {
            let count = self.receive(rest, deadline)?;
            if count == 0 {
                return Err(WireError::Truncated { what: "response", expected: rest.len(), found: 0 }.into());
            }
            rest = rest.get_mut(count..).unwrap_or_default();
        }
        Ok(())
    }

    fn receive(&self, into: &mut [u8], deadline: Instant) -> Result<usize, DeviceError> {
        loop {
            self.wait(PollFlags::IN, "a response", deadline)?;
            match rustix::io::read(&self.fd, &mut *into) {
                Ok(count) => return Ok(count),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(errno) => return Err(self.location.failed("read", errno.into())),
            }
        }
    }

    fn wait(&self, events: PollFlags, what: &'static str, deadline: Instant) -> Result<(), DeviceError> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).ok();
            let mut fds = [PollFd::from_borrowed_fd(self.fd.as_fd(), events)];
            let ready = match poll(&mut fds, timeout.as_ref()) {
                Ok(ready) => ready,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(self.location.failed("poll", errno.into())),
            };
            if ready > 0 {
                return Ok(());
            }
            if left.is_zero() {
                return Err(DeviceError::Timeout { path: self.location.path.clone(), what });
            }
        }
    }
}

/// tpm0, tpm1 or tpm2. The path alone: what lies there is looked at when it is opened.
fn first_in(directory: &Path) -> Result<PathBuf, DeviceError> {
    let mut paths = (0..3).map(|n| directory.join(format!("tpm{n}")));
    paths
        .find(|path| path.symlink_metadata().is_ok())
        .ok_or_else(|| DeviceError::NotFound { path: directory.to_owned() })
}
