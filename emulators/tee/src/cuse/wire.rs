//! Messages of `/dev/cuse` (`linux/fuse.h`), in the byte order of the machine.

use anyhow::{Context, ensure};
use rustix::io::Errno;

use super::{Answer, Call};

pub(crate) const FORGET: u32 = 2;
pub(crate) const OPEN: u32 = 14;
pub(crate) const READ: u32 = 15;
pub(crate) const WRITE: u32 = 16;
pub(crate) const RELEASE: u32 = 18;
pub(crate) const FLUSH: u32 = 25;
pub(crate) const INTERRUPT: u32 = 36;
pub(crate) const IOCTL: u32 = 39;
const CUSE_INIT: u32 = 4096;

/// The protocol of the kernel must be 7; this is what of it is spoken here. From 16 on, spans have 64 bits.
const MAJOR: u32 = 7;
const MINOR: u32 = 31;
const UNRESTRICTED_IOCTL: u32 = 1 << 0;
/// An ioctl of a 32-bit process.
const IOCTL_COMPAT: u32 = 1 << 0;
const IOCTL_RETRY: u32 = 1 << 2;
const IN_HEADER_BYTES: usize = 40;
const OUT_HEADER_BYTES: usize = 16;
const MAXIMUM_TRANSFER: u32 = 4096;

/// A part of the caller's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) address: u64,
    pub(crate) length: u64,
}

/// A message of the kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) operation: u32,
    unique: u64,
    body: &'a [u8],
}

impl<'a> Request<'a> {
    /// Parses one message.
    pub(crate) fn parse(bytes: &'a [u8]) -> anyhow::Result<Self> {
        let (length, rest) = number(bytes).context("a message of the kernel without a length")?;
        let (operation, rest) = number(rest).context("a message of the kernel without an operation")?;
        let (unique, _) = rest.split_first_chunk().context("a message of the kernel without a number")?;
        let body = bytes.get(IN_HEADER_BYTES..).context("a message of the kernel that is cut")?;
        ensure!(usize::try_from(length) == Ok(bytes.len()), "a message of the kernel of another length");
        Ok(Self { operation, unique: u64::from_ne_bytes(*unique), body })
    }

    /// The call of an ioctl; `None` for one of a 32-bit process, which no driver here has.
    pub(crate) fn ioctl(&self) -> Option<Call<'a>> {
        let (_handle, rest) = self.body.split_first_chunk::<8>()?;
        let (flags, rest) = number(rest)?;
        let (command, rest) = number(rest)?;
        let (argument, rest) = rest.split_first_chunk()?;
        let (length, rest) = number(rest)?;
        let (room, input) = number(rest)?;
        let whole = usize::try_from(length) == Ok(input.len());
        (whole && flags & IOCTL_COMPAT == 0).then_some(Call {
            command,
            argument: u64::from_ne_bytes(*argument),
            input,
            room: usize::try_from(room).ok()?,
        })
    }
}

/// The answer to the first message: name and abilities of the device.
pub(crate) fn introduction(request: &Request<'_>, name: &str) -> anyhow::Result<Vec<u8>> {
    ensure!(request.operation == CUSE_INIT, "expected the kernel to introduce itself");
    let (major, _) = number(request.body).context("an introduction without a version")?;
    ensure!(major == MAJOR, "expected version {MAJOR} of the protocol, found {major}");
    let mut body = Vec::new();
    // Version, unused, flags, most bytes to read and to write, major and minor number of the device (any), spare.
    for field in [MAJOR, MINOR, 0, UNRESTRICTED_IOCTL, MAXIMUM_TRANSFER, MAXIMUM_TRANSFER] {
        body.extend(field.to_ne_bytes());
    }
    body.extend([0; 12 * 4]);
    body.extend(format!("DEVNAME={name}\0").bytes());
    Ok(message(request, 0, &body))
}

/// An open file; it has no number.
pub(crate) fn opened(request: &Request<'_>) -> Vec<u8> {
    message(request, 0, &[0; 16])
}

/// Success, with nothing to say.
pub(crate) fn done(request: &Request<'_>) -> Vec<u8> {
    message(request, 0, &[])
}

/// An error.
pub(crate) fn failed(request: &Request<'_>, error: Errno) -> Vec<u8> {
    message(request, -error.raw_os_error(), &[])
}

/// The answer of a driver.
pub(crate) fn answered(request: &Request<'_>, answer: &Answer) -> Vec<u8> {
    let mut body = Vec::new();
    let count = |spans: &[Span]| u32::try_from(spans.len()).unwrap_or(u32::MAX).to_ne_bytes();
    match answer {
        Answer::Again { input, output } => {
            body.extend(0_i32.to_ne_bytes());
            body.extend(IOCTL_RETRY.to_ne_bytes());
            body.extend([count(input), count(output)].concat());
            for span in input.iter().chain(output) {
                body.extend(span.address.to_ne_bytes());
                body.extend(span.length.to_ne_bytes());
            }
        }
        Answer::Done { result, output } => {
            body.extend(result.to_ne_bytes());
            body.extend([0; 12]);
            body.extend(output);
        }
    }
    message(request, 0, &body)
}

fn message(request: &Request<'_>, error: i32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(OUT_HEADER_BYTES + body.len()).unwrap_or(u32::MAX);
    let mut out = Vec::from(length.to_ne_bytes());
    out.extend(error.to_ne_bytes());
    out.extend(request.unique.to_ne_bytes());
    out.extend(body);
    out
}

fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    bytes.split_first_chunk().map(|(number, rest)| (u32::from_ne_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(operation: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(IN_HEADER_BYTES + body.len()).unwrap();
        let header = [&length.to_ne_bytes()[..], &operation.to_ne_bytes(), &7_u64.to_ne_bytes(), &[0; 24]];
        [&header.concat(), body].concat()
    }

    fn call(flags: u32, input: &[u8], claimed: u32) -> Vec<u8> {
        let mut body = Vec::from([9; 8]);
        body.extend([flags, 0xc020_5300].map(u32::to_ne_bytes).concat());
        body.extend(0x7fff_0000_1000_u64.to_ne_bytes());
        body.extend([claimed, 4032].map(u32::to_ne_bytes).concat());
        body.extend(input);
        bytes(IOCTL, &body)
    }

    #[test]
    fn a_device_introduces_itself() {
        let init = bytes(CUSE_INIT, &[7, 45, 0, 1].map(u32::to_ne_bytes).concat());
        let reply = introduction(&Request::parse(&init).unwrap(), "sev-guest").unwrap();
        assert_eq!(reply.len(), 16 + 72 + 18);
        assert_eq!(reply.get(..4).unwrap(), 106_u32.to_ne_bytes());
        assert_eq!(reply.get(8..16).unwrap(), 7_u64.to_ne_bytes());
        assert_eq!(reply.get(28..32).unwrap(), [1, 0, 0, 0], "unrestricted ioctls");
        assert_eq!(reply.get(88..).unwrap(), b"DEVNAME=sev-guest\0");
        let newer = bytes(CUSE_INIT, &[8, 0, 0, 1].map(u32::to_ne_bytes).concat());
        assert!(introduction(&Request::parse(&newer).unwrap(), "x").is_err());
        assert!(introduction(&Request::parse(&bytes(OPEN, &[])).unwrap(), "x").is_err());
    }

    #[test]
    fn calls_are_parsed_whole_or_not_at_all() {
        let message = call(2, &[5; 32], 32);
        let request = Request::parse(&message).unwrap();
        let found = request.ioctl().unwrap();
        assert_eq!((found.command, found.argument), (0xc020_5300, 0x7fff_0000_1000));
        assert_eq!((found.input, found.room), (&[5; 32][..], 4032));
        for refused in [call(2, &[5; 32], 31), call(3, &[5; 32], 32), bytes(IOCTL, &[0; 31])] {
            assert!(Request::parse(&refused).unwrap().ioctl().is_none());
        }
        for cut in [0, 3, 15, 39, message.len() - 1] {
            assert!(Request::parse(message.get(..cut).unwrap()).is_err());
        }
    }

    #[test]
    fn answers_are_byte_exact() {
        let message = call(2, &[], 0);
        let request = Request::parse(&message).unwrap();
        let span = |address, length| Span { address, length };
        let again = Answer::Again { input: vec![span(1, 2)], output: vec![span(3, 4), span(5, 6)] };
        let reply = answered(&request, &again);
        assert_eq!(reply.get(16..32).unwrap(), [0, 4, 1, 2].map(u32::to_ne_bytes).concat());
        assert_eq!(reply.get(32..).unwrap(), [1_u64, 2, 3, 4, 5, 6].map(u64::to_ne_bytes).concat());
        let done = answered(&request, &Answer::Done { result: -5, output: vec![1, 2, 3] });
        assert_eq!(done.get(16..20).unwrap(), (-5_i32).to_ne_bytes());
        assert_eq!(done.get(32..).unwrap(), [1, 2, 3]);
        assert_eq!(failed(&request, Errno::NOTTY).get(4..8).unwrap(), (-25_i32).to_ne_bytes());
    }
}
