//! Messages on a UNIX socket, with descriptors beside them.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use chip_client::vfio_user::wire::{
    FLAG_COMMAND, FLAG_ERROR, FLAG_NO_REPLY, FLAG_REPLY, FLAG_TYPE_MASK, HEADER_LEN, Header, MAX_MSG_FDS,
};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendFlags,
    recvmsg, sendmsg,
};

/// The client is gone, broke the framing, or the process is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disconnected {
    Broken,
    Closed,
    Ending,
}

/// One command of the client.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) header: Header,
    pub(super) body: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
    /// More descriptors came than are taken.
    pub(super) too_many_descriptors: bool,
}

/// The socket of one client.
#[derive(Debug)]
pub(crate) struct Connection<'a> {
    socket: OwnedFd,
    /// Becomes readable when the process is to end.
    ending: Option<BorrowedFd<'a>>,
}

impl<'a> Connection<'a> {
    pub(crate) fn new(socket: OwnedFd, ending: Option<BorrowedFd<'a>>) -> Self {
        Self { socket, ending }
    }

    pub(crate) fn try_clone_socket(&self) -> std::io::Result<OwnedFd> {
        self.socket.try_clone()
    }

    /// The next command; replies, which a server never asked for, are skipped.
    pub(super) fn receive(&self) -> Result<Message, Disconnected> {
        loop {
            let mut descriptors = Vec::new();
            let mut truncated = false;
            let mut bytes = [0; HEADER_LEN];
            self.fill(&mut bytes, &mut descriptors, &mut truncated)?;
            // Without a size there is no next message.
            let Ok(header) = Header::parse(&bytes) else { return Err(Disconnected::Broken) };
            let mut body = vec![0; header.body_len()];
            self.fill(&mut body, &mut descriptors, &mut truncated)?;
            if header.flags & FLAG_TYPE_MASK == FLAG_COMMAND {
                let too_many_descriptors = truncated || descriptors.len() > MAX_MSG_FDS;
                return Ok(Message { header, body, descriptors, too_many_descriptors });
            }
        }
    }

    fn fill(
        &self,
        mut buffer: &mut [u8],
        descriptors: &mut Vec<OwnedFd>,
        truncated: &mut bool,
    ) -> Result<(), Disconnected> {
        while !buffer.is_empty() {
            self.wait(PollFlags::IN)?;
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_MSG_FDS))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut slices = [IoSliceMut::new(buffer)];
            let received = match recvmsg(&self.socket, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                Ok(received) => received,
                Err(Errno::INTR | Errno::AGAIN) => continue,
                Err(_) => return Err(Disconnected::Closed),
            };
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    // Beyond the cap they are counted, not kept: a slow sender of descriptors fills nothing.
                    for descriptor in rights {
                        if descriptors.len() <= MAX_MSG_FDS {
                            descriptors.push(descriptor);
                        }
                    }
                }
            }
            *truncated |= received.flags.contains(ReturnFlags::CTRUNC);
            if received.bytes == 0 {
                return Err(Disconnected::Closed);
            }
            buffer = buffer.get_mut(received.bytes..).unwrap_or_default();
        }
        Ok(())
    }

    /// Answers a command, unless it wants no answer.
    pub(super) fn reply(&self, command: &Header, result: Result<Vec<u8>, Errno>) -> Result<(), Disconnected> {
        if command.flags & FLAG_NO_REPLY != 0 {
            return Ok(());
        }
        let (body, flags, error) = match result {
            Ok(body) => (body, FLAG_REPLY, 0),
            Err(errno) => (Vec::new(), FLAG_REPLY | FLAG_ERROR, errno.raw_os_error().unsigned_abs()),
        };
        let message_size = u32::try_from(HEADER_LEN + body.len()).map_err(|_large| Disconnected::Broken)?;
        let header = Header { flags, error, message_size, ..*command };
        let message = [header.encode().as_slice(), &body].concat();
        let mut rest = message.as_slice();
        while !rest.is_empty() {
            self.wait(PollFlags::OUT)?;
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match sendmsg(&self.socket, &[IoSlice::new(rest)], &mut SendAncillaryBuffer::default(), flags) {
                Ok(sent) => rest = rest.get(sent..).unwrap_or_default(),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(_) => return Err(Disconnected::Closed),
            }
        }
        Ok(())
    }

    fn wait(&self, events: PollFlags) -> Result<(), Disconnected> {
        loop {
            let mut fds = vec![PollFd::new(&self.socket, events)];
            fds.extend(self.ending.as_ref().map(|ending| PollFd::new(ending, PollFlags::IN)));
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return Err(Disconnected::Closed),
            }
            if fds.get(1).is_some_and(|ending| !ending.revents().is_empty()) {
                return Err(Disconnected::Ending);
            }
            if fds.first().is_some_and(|socket| !socket.revents().is_empty()) {
                return Ok(());
            }
        }
    }
}

impl AsFd for Connection<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
