//! Messages to the kernel about its network, and its answers: rtnetlink(7) over one socket, no more of it than is used here.
//!
//! What comes in is bounded in number and size, and counts only if the kernel sent it: whoever has `CAP_NET_ADMIN`, a container
//! perhaps, may write to this socket, too.

use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrAny, SocketFlags, SocketType, recvfrom, sendto,
    socket_with,
};
use std::os::fd::OwnedFd;

const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP_INTERRUPTED: u16 = 0x10;
/// What is there is replaced.
pub(super) const NLM_F_REPLACE: u16 = 0x100;
/// What is not there is made.
pub(super) const NLM_F_CREATE: u16 = 0x400;
const NLM_F_DUMP: u16 = 0x300;
const HEADER: usize = 16;
/// Bit 15: attributes inside; bit 14: byte order of the network.
const NLA_TYPE_MASK: u16 = 0x3fff;
const NLA_F_NESTED: u16 = 0x8000;

/// The largest datagram that the kernel makes for a list.
const DATAGRAM_BYTES: usize = 64 << 10;
/// The most that a list has.
const MAXIMUM_LISTED: usize = 32_768;
/// How often a list is asked for that changed meanwhile.
const MAXIMUM_TRIES: usize = 5;
/// How long the kernel has for one question.
const ANSWER: Duration = Duration::from_secs(10);

/// A change, or an entry of a list: its type, and what follows the header.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Message {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) body: Body,
}

/// A fixed header, then attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Body(pub(super) Vec<u8>);

impl Body {
    pub(super) fn new(fixed: &[&[u8]]) -> Self {
        Self(fixed.concat())
    }

    /// With one attribute more. None here is longer than a name, an address, or a few of those.
    pub(super) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(4 + value.len()).unwrap_or(4);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// With attributes inside of an attribute.
    pub(super) fn with_nested(self, kind: u16, inner: &Self) -> Self {
        self.with(kind | NLA_F_NESTED, &inner.0)
    }

    pub(super) fn byte(&self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or_default()
    }

    pub(super) fn u16(&self, at: usize) -> u16 {
        self.0.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u16::from_ne_bytes(*bytes))
    }

    pub(super) fn u32(&self, at: usize) -> u32 {
        number(self.0.get(at..).unwrap_or_default())
    }

    /// The attributes behind a fixed header of this length.
    pub(super) fn attributes(&self, fixed: usize) -> Attributes<'_> {
        Attributes(self.0.get(fixed..).unwrap_or_default())
    }

    pub(super) fn attribute(&self, fixed: usize, kind: u16) -> Option<&[u8]> {
        self.attributes(fixed).find(|(found, _)| *found == kind).map(|(_, value)| value)
    }
}

/// A number of an attribute.
pub(super) fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

/// Attributes, one after the other, up to the first that is none.
#[derive(Debug)]
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (head, _) = self.0.split_first_chunk::<4>()?;
        let [a, b, c, d] = *head;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([c, d]) & NLA_TYPE_MASK, value))
    }
}

/// The socket.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// Opens it in the network namespace of the calling thread.
    pub(super) fn open() -> Result<Self, Errno> {
        // Protocol 0 is NETLINK_ROUTE.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Has the kernel change something, and waits until it has.
    pub(super) fn change(&mut self, message: &Message) -> Result<(), Errno> {
        self.send(message, NLM_F_ACK)?;
        let mut answer = Err(Errno::BADMSG);
        self.receive(|part| match part.kind {
            NLMSG_ERROR => {
                answer = status(&part);
                Ok(true)
            }
            _ => Ok(false),
        })?;
        answer
    }

    /// Everything of a kind: `kind` asks for it, `family` may be 0 for all.
    pub(super) fn list(&mut self, kind: u16, family: u8, fixed: usize) -> Result<Vec<Message>, Errno> {
        for _ in 0..MAXIMUM_TRIES {
            let mut body = vec![family];
            body.resize(fixed, 0);
            self.send(&Message { kind, flags: 0, body: Body(body) }, NLM_F_DUMP)?;
            let (mut found, mut is_whole) = (Vec::new(), true);
            self.receive(|part| {
                is_whole &= part.flags & NLM_F_DUMP_INTERRUPTED == 0;
                match part.kind {
                    NLMSG_DONE => Ok(true),
                    NLMSG_ERROR => status(&part).map(|()| true),
                    NLMSG_NOOP => Ok(false),
                    _ => {
                        if found.len() >= MAXIMUM_LISTED {
                            return Err(Errno::OVERFLOW);
                        }
                        found.push(part);
                        Ok(false)
                    }
                }
            })?;
            if is_whole {
                return Ok(found);
            }
        }
        Err(Errno::AGAIN)
    }

    fn send(&mut self, message: &Message, flags: u16) -> Result<(), Errno> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = u32::try_from(HEADER + message.body.0.len()).map_err(|_| Errno::MSGSIZE)?;
        let mut bytes = Vec::with_capacity(HEADER + message.body.0.len());
        bytes.extend_from_slice(&length.to_ne_bytes());
        bytes.extend_from_slice(&message.kind.to_ne_bytes());
        bytes.extend_from_slice(&(message.flags | flags | NLM_F_REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&self.sequence.to_ne_bytes());
        bytes.extend_from_slice(&0_u32.to_ne_bytes());
        bytes.extend_from_slice(&message.body.0);
        sendto(&self.socket, &bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0)).map(drop)
    }

    /// Hands the answers to the last question on, until one of them is the last.
    fn receive(&self, mut take: impl FnMut(Message) -> Result<bool, Errno>) -> Result<(), Errno> {
        let begun = Instant::now();
        let mut buffer = vec![0; DATAGRAM_BYTES];
        while begun.elapsed() < ANSWER {
            let (_, length, sender) = match recvfrom(&self.socket, &mut buffer[..], RecvFlags::TRUNC) {
                Err(Errno::INTR) => continue,
                found => found?,
            };
            // GUARD: netlink-from-the-kernel -> evil_container_answers_for_the_kernel
            if !is_kernel(sender) {
                continue;
            }
            // A datagram that was cut is longer than what is here of it.
            let datagram = buffer.get(..length).ok_or(Errno::MSGSIZE)?;
            for part in Parts(datagram) {
                let (sequence, message) = part?;
                // What is left of an answer that nobody took to its end.
                if sequence == self.sequence && take(message)? {
                    return Ok(());
                }
            }
        }
        Err(Errno::TIMEDOUT)
    }
}

fn is_kernel(sender: Option<SocketAddrAny>) -> bool {
    let sender = sender.and_then(|sender| SocketAddrNetlink::try_from(sender).ok());
    sender.is_some_and(|sender| sender.pid() == 0)
}

/// Messages of a datagram, each with its sequence number.
struct Parts<'a>(&'a [u8]);

impl Iterator for Parts<'_> {
    type Item = Result<(u32, Message), Errno>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let part = self.part();
        if part.is_none() {
            self.0 = &[];
        }
        Some(part.ok_or(Errno::BADMSG))
    }
}

impl Parts<'_> {
    fn part(&mut self) -> Option<(u32, Message)> {
        let head = Body(self.0.get(..HEADER)?.to_vec());
        let length = usize::try_from(head.u32(0)).ok()?;
        let body = Body(self.0.get(HEADER..length)?.to_vec());
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((head.u32(8), Message { kind: head.u16(4), flags: head.u16(6), body }))
    }
}

/// `nlmsgerr`: a negative number of an error, or 0.
fn status(message: &Message) -> Result<(), Errno> {
    let code = message.body.0.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes)).ok_or(Errno::BADMSG)?;
    if code == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(code.saturating_neg())) }
}

#[cfg(test)]
mod tests;
