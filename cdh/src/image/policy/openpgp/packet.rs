//! Packets (RFC 4880, 4.2) and the bytes in them.

use std::borrow::Cow;

use super::error::OpenPgpFault;

pub(super) const SIGNATURE: u8 = 2;
pub(super) const ONE_PASS: u8 = 4;
pub(super) const SECRET_KEY: u8 = 5;
pub(super) const PUBLIC_KEY: u8 = 6;
pub(super) const SECRET_SUBKEY: u8 = 7;
pub(super) const COMPRESSED: u8 = 8;
pub(super) const LITERAL: u8 = 11;
pub(super) const USER_ID: u8 = 13;
pub(super) const PUBLIC_SUBKEY: u8 = 14;
pub(super) const USER_ATTRIBUTE: u8 = 17;

/// Shortest first part of a packet in parts, in bytes (RFC 4880, 4.2.2.4).
const FIRST_PART_MIN: usize = 512;

/// One packet.
#[derive(Debug)]
pub(super) struct Packet<'a> {
    pub(super) tag: u8,
    pub(super) body: Cow<'a, [u8]>,
}

/// The packets that fill `bytes`, at most `most` of them.
pub(super) fn packets(bytes: &[u8], most: usize) -> Result<Vec<Packet<'_>>, OpenPgpFault> {
    let mut reader = Reader::new(bytes);
    let mut all = Vec::new();
    while !reader.is_empty() {
        // GUARD: pgp-packets -> evil_keyring_of_endless_packets
        if all.len() >= most {
            return Err(OpenPgpFault::TooLarge { most, unit: "packets" });
        }
        all.push(packet(&mut reader)?);
    }
    Ok(all)
}

fn packet<'a>(reader: &mut Reader<'a>) -> Result<Packet<'a>, OpenPgpFault> {
    let head = reader.byte()?;
    if head & 0x80 == 0 {
        return Err(OpenPgpFault::malformed("a packet"));
    }
    if head & 0x40 == 0 {
        let tag = head >> 2 & 0x0f;
        let length = match head & 3 {
            0 => usize::from(reader.byte()?),
            1 => usize::from(reader.u16()?),
            2 => length(reader.u32()?)?,
            // Until the end; only what holds data may be so.
            _ if is_data(tag) => reader.len(),
            _ => return Err(OpenPgpFault::malformed("a packet with a length")),
        };
        return Ok(Packet { tag, body: Cow::Borrowed(reader.take(length)?) });
    }
    let tag = head & 0x3f;
    let (mut part, mut last) = new_length(reader)?;
    if last {
        return Ok(Packet { tag, body: Cow::Borrowed(reader.take(part)?) });
    }
    // GUARD: pgp-partial -> evil_packets_in_parts
    if !is_data(tag) || part < FIRST_PART_MIN {
        return Err(OpenPgpFault::malformed("a packet in one part"));
    }
    let mut body = Vec::new();
    loop {
        body.extend_from_slice(reader.take(part)?);
        if last {
            return Ok(Packet { tag, body: Cow::Owned(body) });
        }
        (part, last) = new_length(reader)?;
    }
}

const fn is_data(tag: u8) -> bool {
    matches!(tag, COMPRESSED | LITERAL)
}

/// A length of the new form, and whether it is that of the last part.
fn new_length(reader: &mut Reader<'_>) -> Result<(usize, bool), OpenPgpFault> {
    let first = reader.byte()?;
    Ok(match first {
        0..=191 => (usize::from(first), true),
        192..=223 => (((usize::from(first) - 192) << 8) + usize::from(reader.byte()?) + 192, true),
        224..=254 => (1 << (first & 0x1f), false),
        255 => (length(reader.u32()?)?, true),
    })
}

/// The length of a subpacket (RFC 4880, 5.2.3.1).
pub(super) fn subpacket_length(reader: &mut Reader<'_>) -> Result<usize, OpenPgpFault> {
    let first = reader.byte()?;
    Ok(match first {
        0..=191 => usize::from(first),
        192..=254 => ((usize::from(first) - 192) << 8) + usize::from(reader.byte()?) + 192,
        255 => length(reader.u32()?)?,
    })
}

fn length(value: u32) -> Result<usize, OpenPgpFault> {
    usize::try_from(value).map_err(|_| OpenPgpFault::malformed("a length"))
}

/// Bytes, read from the front.
#[derive(Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], OpenPgpFault> {
        let (taken, rest) =
            self.0.split_at_checked(length).ok_or(OpenPgpFault::malformed("more bytes than there are"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], OpenPgpFault> {
        self.take(N)?.try_into().map_err(|_| OpenPgpFault::malformed("more bytes than there are"))
    }

    pub(super) fn byte(&mut self) -> Result<u8, OpenPgpFault> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, OpenPgpFault> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, OpenPgpFault> {
        self.array().map(u32::from_be_bytes)
    }

    /// A number (RFC 4880, 3.2) in its only form: no leading zero bits.
    pub(super) fn mpi(&mut self) -> Result<&'a [u8], OpenPgpFault> {
        let bits = usize::from(self.u16()?);
        let bytes = self.take(bits.div_ceil(8))?;
        // GUARD: pgp-number -> evil_numbers_of_two_forms
        if bit_length(bytes) != bits {
            return Err(OpenPgpFault::malformed("a number without leading zeros"));
        }
        Ok(bytes)
    }

    /// Nothing may be left.
    pub(super) fn finish(self) -> Result<(), OpenPgpFault> {
        // GUARD: pgp-trailing -> evil_bytes_behind_a_number
        if !self.0.is_empty() {
            return Err(OpenPgpFault::malformed("nothing behind the last field"));
        }
        Ok(())
    }
}

/// Bits of a number from its highest one.
pub(super) fn bit_length(bytes: &[u8]) -> usize {
    let Some(first) = bytes.first() else { return 0 };
    (bytes.len() * 8).saturating_sub(usize::try_from(first.leading_zeros()).unwrap_or(0))
}
