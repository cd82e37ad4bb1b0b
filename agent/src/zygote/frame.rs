//! Messages between compartments: bytes and descriptors, both of a number that the receiver states.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::process::Pid;

/// Most descriptors of a message.
pub(crate) const MAXIMUM_DESCRIPTORS: usize = 6;

/// A message.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) bytes: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
    /// Who sent it, by the kernel's word, where the socket asks for that.
    pub(crate) sender: Option<Pid>,
}

/// Why there is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameError {
    /// The peer is gone.
    Ended,
    /// More bytes than it may have.
    TooLong,
    /// More descriptors than it may have, or fewer than it has to.
    Descriptors,
    /// A system call.
    System(Errno),
}

impl From<FrameError> for io::Error {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::System(errno) => errno.into(),
            FrameError::Ended => io::ErrorKind::UnexpectedEof.into(),
            FrameError::TooLong | FrameError::Descriptors => io::ErrorKind::InvalidData.into(),
        }
    }
}

/// Sends a message as a whole.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAXIMUM_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::TOOBIG);
    }
    let sent = sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    if sent == bytes.len() { Ok(()) } else { Err(Errno::MSGSIZE) }
}

/// Receives a message of at most `most` bytes and exactly `descriptors` descriptors. Whatever else came is closed.
pub(crate) fn receive(socket: BorrowedFd<'_>, most: usize, descriptors: usize) -> Result<Frame, FrameError> {
    let frame = receive_any(socket, most)?;
    // GUARD: frame-descriptors -> evil_helper_sends_descriptors
    if frame.descriptors.len() != descriptors {
        return Err(FrameError::Descriptors);
    }
    Ok(frame)
}

/// Receives a message of at most `most` bytes and any number of descriptors up to [`MAXIMUM_DESCRIPTORS`].
pub(crate) fn receive_any(socket: BorrowedFd<'_>, most: usize) -> Result<Frame, FrameError> {
    let mut bytes = vec![0; most];
    let mut space =
        [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAXIMUM_DESCRIPTORS), ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
        .map_err(FrameError::System)?;
    let (flags, length) = (message.flags, message.bytes);
    let (mut received, mut sender) = (Vec::new(), None);
    for part in control.drain() {
        match part {
            RecvAncillaryMessage::ScmRights(descriptors) => received.extend(descriptors),
            RecvAncillaryMessage::ScmCredentials(credentials) => sender = Some(credentials.pid),
            _ => {}
        }
    }
    // GUARD: frame-length -> evil_helper_sends_too_much
    if flags.contains(ReturnFlags::TRUNC) {
        return Err(FrameError::TooLong);
    }
    // GUARD: frame-descriptors-cut -> evil_helper_sends_more_descriptors_than_fit
    if flags.contains(ReturnFlags::CTRUNC) {
        return Err(FrameError::Descriptors);
    }
    if length == 0 {
        return Err(FrameError::Ended);
    }
    bytes.truncate(length);
    Ok(Frame { bytes, descriptors: received, sender })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;
    use crate::zygote::pair;

    fn null() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn bytes_and_descriptors_arrive() {
        let (ours, theirs) = pair().unwrap();
        let null = null();
        send(theirs.as_fd(), b"abc", &[null.as_fd(), null.as_fd()]).unwrap();
        send(theirs.as_fd(), b"de", &[]).unwrap();
        let frame = receive(ours.as_fd(), 3, 2).unwrap();
        assert_eq!((frame.bytes.as_slice(), frame.descriptors.len(), frame.sender), (&b"abc"[..], 2, None));
        for descriptor in &frame.descriptors {
            let flags = rustix::io::fcntl_getfd(descriptor).unwrap();
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        }
        assert_eq!(receive(ours.as_fd(), 3, 0).unwrap().bytes, b"de");
        assert_eq!(receive(ours.as_fd(), 3, 0).unwrap_err(), FrameError::System(Errno::AGAIN));
        drop(theirs);
        assert_eq!(receive(ours.as_fd(), 3, 0).unwrap_err(), FrameError::Ended);
    }

    #[test]
    fn evil_helper_sends_too_much() {
        let (ours, theirs) = pair().unwrap();
        send(theirs.as_fd(), b"abcd", &[]).unwrap();
        assert_eq!(receive(ours.as_fd(), 3, 0).unwrap_err(), FrameError::TooLong);
    }

    #[test]
    fn evil_helper_sends_descriptors() {
        let (ours, theirs) = pair().unwrap();
        let null = null();
        send(theirs.as_fd(), b"a", &[null.as_fd()]).unwrap();
        assert_eq!(receive(ours.as_fd(), 3, 0).unwrap_err(), FrameError::Descriptors);
        send(theirs.as_fd(), b"a", &[]).unwrap();
        assert_eq!(receive(ours.as_fd(), 3, 1).unwrap_err(), FrameError::Descriptors);
    }

    #[test]
    fn evil_helper_sends_more_descriptors_than_fit() {
        let (ours, theirs) = pair().unwrap();
        let null = null();
        let many = vec![null.as_fd(); 40];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(40))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&many)));
        sendmsg(theirs.as_fd(), &[IoSlice::new(b"a")], &mut control, SendFlags::empty()).unwrap();
        assert_eq!(receive_any(ours.as_fd(), 3).unwrap_err(), FrameError::Descriptors);
    }

    #[test]
    fn the_kernel_names_the_sender() {
        let (ours, theirs) = pair().unwrap();
        rustix::net::sockopt::set_socket_passcred(&ours, true).unwrap();
        rustix::io::write(&theirs, b"a").unwrap();
        assert_eq!(receive(ours.as_fd(), 3, 0).unwrap().sender, Some(rustix::process::getpid()));
    }
}
