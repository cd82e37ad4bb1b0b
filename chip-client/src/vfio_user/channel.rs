//! Requests and replies, one at a time.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::socket::{Deadline, Socket};
use super::wire::{
    Command, FLAG_COMMAND, FLAG_ERROR, FLAG_REPLY, FLAG_TYPE_MASK, HEADER_LEN, Header, MAJOR, MAX_DATA_XFER,
    MAX_VERSION_JSON, MINOR, VersionHeader,
};
use crate::abi::{Reader, WireError};
use crate::error::{ChipError, DeviceError, TransportError};

/// A connection after version negotiation.
#[derive(Debug)]
pub(super) struct Channel {
    socket: Socket,
    next_id: u16,
    // After a broken exchange nobody knows where the next message begins.
    broken: bool,
    timeout: Duration,
    max_transfer: u32,
}

impl Channel {
    pub(super) fn negotiate(socket: Socket, timeout: Duration) -> Result<Self, ChipError> {
        let mut channel = Self { socket, next_id: 0, broken: false, timeout, max_transfer: MAX_DATA_XFER };
        let mut body = VersionHeader { major: MAJOR, minor: MINOR }.encode();
        let capabilities = serde_json::json!({
            "capabilities": { "max_msg_fds": 1, "max_data_xfer_size": MAX_DATA_XFER }
        });
        body.extend_from_slice(capabilities.to_string().as_bytes());
        body.push(0);
        let reply = channel.call(Command::Version, &body, None, VersionHeader::LEN + MAX_VERSION_JSON)?;
        let mut reader = Reader::new(&reply);
        let version = VersionHeader::take(&mut reader).map_err(malformed("VERSION"))?;
        // GUARD: transport-version -> evil_transport_version_is_refused
        if version.major != MAJOR || version.minor > MINOR {
            return Err(protocol("version", pair(MAJOR, MINOR), pair(version.major, version.minor)));
        }
        let rest = reader.remaining();
        let json = reader.bytes("version data", rest).map_err(malformed("VERSION"))?;
        channel.max_transfer = max_transfer(json)?;
        Ok(channel)
    }

    /// Sends a request and waits for its reply: the body, of at most `cap` bytes.
    pub(super) fn call(
        &mut self,
        command: Command,
        body: &[u8],
        fd: Option<BorrowedFd<'_>>,
        cap: usize,
    ) -> Result<Vec<u8>, ChipError> {
        if self.broken {
            return Err(DeviceError::Gone { what: "the connection broke before" }.into());
        }
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        self.broken = true;
        let reply = self.exchange(id, command, body, fd, cap)?;
        self.broken = false;
        match reply {
            Reply::Done(body) => Ok(body),
            Reply::Refused(errno) => {
                let errno = i32::try_from(errno).ok().filter(|e| (1..4_096).contains(e)).unwrap_or(libc::EIO);
                let source = io::Error::from_raw_os_error(errno);
                Err(TransportError::Refused { command, source }.into())
            }
        }
    }

    /// The largest number of bytes in one access to a region.
    pub(super) fn max_transfer(&self) -> u32 {
        self.max_transfer
    }

    fn exchange(
        &self,
        id: u16,
        command: Command,
        body: &[u8],
        fd: Option<BorrowedFd<'_>>,
        cap: usize,
    ) -> Result<Reply, ChipError> {
        let deadline = Deadline::after(self.timeout, "reply to a transport request");
        let size = HEADER_LEN.saturating_add(body.len());
        let header = Header {
            message_id: id,
            command: command.as_u16(),
            message_size: u32::try_from(size).unwrap_or(u32::MAX),
            flags: FLAG_COMMAND,
            error: 0,
        };
        let message = [header.encode().as_slice(), body].concat();
        self.socket.send(&message, fd, deadline)?;
        let mut bytes = [0; HEADER_LEN];
        self.socket.receive(&mut bytes, deadline)?;
        let reply = Header::parse(&bytes).map_err(malformed("a transport request"))?;
        let expected = (id, command.as_u16(), FLAG_REPLY);
        let found = (reply.message_id, reply.command, reply.flags & FLAG_TYPE_MASK);
        // GUARD: transport-reply-matches -> evil_transport_reply_to_another_request
        if found != expected {
            return Err(protocol("message id of the reply", id.into(), reply.message_id.into()));
        }
        let length = reply.body_len();
        // GUARD: transport-reply-cap -> evil_transport_reply_above_cap
        if length > cap {
            return Err(protocol("length of the reply", cap as u64, length as u64));
        }
        let mut body = vec![0; length];
        self.socket.receive(&mut body, deadline)?;
        // GUARD: transport-error-reply -> evil_transport_refusal_is_not_success
        if reply.flags & FLAG_ERROR != 0 {
            return Ok(Reply::Refused(reply.error));
        }
        Ok(Reply::Done(body))
    }
}

enum Reply {
    Done(Vec<u8>),
    Refused(u32),
}

/// The server's limit on one access; a smaller one than 8 is refused.
fn max_transfer(json: &[u8]) -> Result<u32, ChipError> {
    let Some((0, text)) = json.split_last() else {
        if json.is_empty() {
            return Ok(MAX_DATA_XFER);
        }
        return Err(protocol("last byte of the version data", 0, json.last().copied().unwrap_or(0).into()));
    };
    let value: serde_json::Value =
        serde_json::from_slice(text).map_err(|_| protocol("version data that is JSON", 1, 0))?;
    let stated = value.get("capabilities").and_then(|c| c.get("max_data_xfer_size"));
    let limit = stated.and_then(serde_json::Value::as_u64).unwrap_or(MAX_DATA_XFER.into());
    if limit < 8 {
        return Err(protocol("max_data_xfer_size", 8, limit));
    }
    Ok(u32::try_from(limit).unwrap_or(MAX_DATA_XFER).min(MAX_DATA_XFER))
}

pub(super) fn protocol(what: &'static str, expected: u64, found: u64) -> ChipError {
    TransportError::Protocol { what, expected, found }.into()
}

pub(super) fn malformed(what: &'static str) -> impl FnOnce(WireError) -> ChipError {
    move |source| DeviceError::Malformed { what, source }.into()
}

fn pair(major: u16, minor: u16) -> u64 {
    u64::from(major) << 16 | u64::from(minor)
}
