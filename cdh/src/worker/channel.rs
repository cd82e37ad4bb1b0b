//! What parent and child tell each other: one mark, and descriptors. The parent sends, the child receives.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Seek as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Most descriptors of a message.
const DESCRIPTORS_MAX: usize = 3;

/// Which message it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The first one. Job, root directory, where to answer.
    Job,
    /// The next thing to do: the bytes of a layer, or the socket of a request.
    Next,
}

impl Mark {
    const fn byte(self) -> u8 {
        match self {
            Self::Job => b'J',
            Self::Next => b'N',
        }
    }

    const fn descriptors(self) -> usize {
        match self {
            Self::Job => DESCRIPTORS_MAX,
            Self::Next => 1,
        }
    }
}

/// Two ends of a socket that keeps messages apart.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends a message; waits while the other side has too many. Whoever is gone is an error of kind `BrokenPipe`.
pub(crate) fn send(socket: impl AsFd, mark: Mark, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    send_with(socket, mark, descriptors, SendFlags::NOSIGNAL)
}

/// As [`send`], but does not wait: whoever has too many is an error of kind `WouldBlock`.
pub(crate) fn send_now(socket: impl AsFd, mark: Mark, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    send_with(socket, mark, descriptors, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
}

fn send_with(
    socket: impl AsFd,
    mark: Mark,
    descriptors: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(&[mark.byte()])], &mut control, flags)?;
    Ok(())
}

/// Receives this message, which has exactly so many descriptors. An end is an error of kind `UnexpectedEof`.
pub(crate) fn receive(socket: impl AsFd, mark: Mark) -> io::Result<Vec<OwnedFd>> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let buffer = &mut [IoSliceMut::new(&mut byte)];
    let message = rustix::net::recvmsg(socket, buffer, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let (length, flags) = (message.bytes, message.flags);
    let found: Vec<OwnedFd> = control
        .drain()
        .filter_map(|part| match part {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    if length == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let is_cut = flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
    if is_cut || byte != [mark.byte()] || found.len() != mark.descriptors() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(found)
}

/// A job as a file that nobody changes any more.
pub(crate) fn job_file(job: &impl Serialize) -> io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create(c"job", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = File::from(file);
    file.write_all(&serde_json::to_vec(job)?)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

/// The job in a file of at most so many bytes.
pub(crate) fn read_job<J: DeserializeOwned>(file: OwnedFd, most: u64) -> io::Result<J> {
    let mut file = File::from(file);
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}
