//! Bytes of `linux/sev-guest.h` and of the firmware's messages; numbers are little-endian.

use rustix::io::Errno;

use super::{KEY_RESPONSE, MESSAGE, REPORT_REQUEST, REPORT_RESPONSE};
use crate::cuse::Answer;

/// The firmware's status for a request that it does not take.
pub(super) const INVALID_PARAMETERS: u32 = 0x16;
const RESPONSE_HEADER: usize = 32;

/// `struct snp_guest_request_ioctl`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) version: u8,
    pub(super) request: u64,
    pub(super) response: u64,
}

impl<'a> Message<'a> {
    /// The message, and what follows it.
    pub(super) fn split(input: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (bytes, rest) = input.split_at_checked(MESSAGE)?;
        let version = *bytes.first()?;
        Some((Self { bytes, version, request: address(bytes, 8)?, response: address(bytes, 16)? }, rest))
    }

    /// The message with other exit information.
    pub(super) fn with_exit(&self, information: u64) -> Vec<u8> {
        let (kept, _) = self.bytes.split_at_checked(MESSAGE - 8).unwrap_or_default();
        [kept, &information.to_le_bytes()].concat()
    }

    /// An error, and what became of the request.
    pub(super) fn failed(&self, error: Errno, information: u64) -> Answer {
        Answer::Done { result: -error.raw_os_error(), output: self.with_exit(information) }
    }

    /// As [`Self::failed`].
    pub(super) fn ended(&self, (error, information): (Errno, u64)) -> Answer {
        self.failed(error, information)
    }
}

/// `struct snp_ext_report_req`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extended<'a> {
    pub(super) request: &'a [u8],
    pub(super) address: u64,
    length: u32,
}

impl<'a> Extended<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (request, rest) = bytes.split_at_checked(REPORT_REQUEST)?;
        let length = rest.get(8..)?.first_chunk()?;
        Some(Self { request, address: address(rest, 0)?, length: u32::from_le_bytes(*length) })
    }

    /// The room for certificates; none where the caller names no place or no length.
    pub(super) fn room(&self) -> usize {
        if self.address == 0 { 0 } else { usize::try_from(self.length).unwrap_or(usize::MAX) }
    }

    /// The request with the room that is needed.
    pub(super) fn with_room(&self, room: usize) -> Vec<u8> {
        let room = u32::try_from(room).unwrap_or(u32::MAX).to_le_bytes();
        [self.request, &self.address.to_le_bytes(), &room, &[0; 4]].concat()
    }
}

/// `struct snp_report_req`: report data and privilege level.
pub(super) fn report_request(bytes: &[u8]) -> Option<(&[u8], u32)> {
    let (data, rest) = bytes.split_at_checked(64)?;
    Some((data, u32::from_le_bytes(*rest.first_chunk()?)))
}

/// `MSG_REPORT_RSP`: status, size, the report.
pub(super) fn report_response(status: u32, report: &[u8]) -> Vec<u8> {
    let size = u32::try_from(report.len()).unwrap_or(u32::MAX);
    let mut out = [status.to_le_bytes(), size.to_le_bytes()].concat();
    out.resize(RESPONSE_HEADER, 0);
    out.extend(report);
    out.resize(REPORT_RESPONSE, 0);
    out
}

/// `MSG_KEY_RSP`: status, the key.
pub(super) fn key_response(key: &Result<[u8; 32], u32>) -> Vec<u8> {
    let (status, key) = match key {
        Ok(key) => (0, *key),
        Err(status) => (*status, [0; 32]),
    };
    let mut out = Vec::from(status.to_le_bytes());
    out.resize(KEY_RESPONSE - key.len(), 0);
    out.extend(key);
    out
}

fn address(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}
