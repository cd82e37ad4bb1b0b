//! What a request may hold, checked on its bytes before anything is decoded.
//!
//! An empty element of a list is two bytes on the wire and some hundred in memory: a payload of 4 MiB would become
//! gigabytes. `Shape::check` walks the bytes without allocating, counts what they would become, and knows each list.

pub(crate) mod hub;
pub(crate) mod shapes;
#[cfg(test)]
mod tests;

use crate::frame::MAXIMUM_PAYLOAD_BYTES;

/// Members of a request at all levels, known or not. What is decoded holds less than 400 bytes for each.
pub const MAXIMUM_MEMBERS: usize = 32_768;
/// A text that no other limit is known for; the kernel takes no longer argument or variable.
pub const TEXT_BYTES: usize = 128 << 10;
/// Key and value of an annotation: Kubernetes takes 256 KiB for all of an object.
pub const ANNOTATION_BYTES: usize = 256 << 10;
/// Entropy at a time; runtimes send 512 bytes.
pub const ENTROPY_BYTES: usize = 64 << 10;
/// What a member may have that is the reason for its request: as much as a frame.
const FRAME_BYTES: usize = MAXIMUM_PAYLOAD_BYTES as usize;

/// Why a payload was not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// No message of protobuf.
    #[error("expected a message, found bytes that are none")]
    Malformed,
    /// The decoder did not take it.
    #[error("expected the members of the request, found others or text that is not UTF-8")]
    Undecodable,
    /// More members than a request may have.
    #[error("expected at most {MAXIMUM_MEMBERS} members")]
    Members,
    /// More elements than a list may have, or a single member twice.
    #[error("{member}: expected at most {most} of them")]
    Count {
        /// Its name on the wire.
        member: &'static str,
        /// How many are taken.
        most: usize,
    },
    /// A text, or bytes, that are too long.
    #[error("{member}: expected at most {most} bytes, found {found}")]
    Bytes {
        /// Its name on the wire, or what it is.
        member: &'static str,
        /// Bytes that are taken.
        most: usize,
        /// Bytes that came.
        found: usize,
    },
}

impl LimitError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed | Self::Undecodable => "REQUEST_MALFORMED",
            Self::Members => "REQUEST_MEMBERS",
            Self::Count { .. } => "REQUEST_COUNT",
            Self::Bytes { .. } => "REQUEST_BYTES",
        }
    }
}

/// The members of a message that a limit is known for.
#[derive(Debug)]
pub(crate) struct Shape(&'static [Member]);

#[derive(Debug)]
struct Member {
    number: u32,
    name: &'static str,
    most: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// Text, bytes, or an entry of a map: at most so many bytes each.
    Bytes(usize),
    /// A list of numbers, packed or not.
    Numbers,
    Message(&'static Shape),
}

/// A message of texts and numbers alone.
pub(crate) static FLAT: Shape = Shape(&[]);

const fn one(number: u32, name: &'static str, shape: &'static Shape) -> Member {
    Member { number, name, most: 1, kind: Kind::Message(shape) }
}

const fn many(number: u32, name: &'static str, most: usize, shape: &'static Shape) -> Member {
    Member { number, name, most, kind: Kind::Message(shape) }
}

const fn texts(number: u32, name: &'static str, most: usize) -> Member {
    Member { number, name, most, kind: Kind::Bytes(TEXT_BYTES) }
}

const fn entries(number: u32, name: &'static str, most: usize, bytes: usize) -> Member {
    Member { number, name, most, kind: Kind::Bytes(bytes) }
}

const fn numbers(number: u32, name: &'static str, most: usize) -> Member {
    Member { number, name, most, kind: Kind::Numbers }
}

const fn sized(number: u32, name: &'static str, bytes: usize) -> Member {
    Member { number, name, most: 1, kind: Kind::Bytes(bytes) }
}

impl Shape {
    /// Whether a payload is a message within its limits. Takes time linear in the payload and no memory.
    ///
    /// # Errors
    /// All of [`LimitError`] but `Undecodable`.
    pub(crate) fn check(&self, payload: &[u8]) -> Result<(), LimitError> {
        let mut members = 0;
        self.walk(payload, &mut members)
    }

    fn walk(&self, payload: &[u8], members: &mut usize) -> Result<(), LimitError> {
        let mut counts = [0_usize; MOST_MEMBERS];
        let mut reader = Reader(payload);
        while let Some((number, value)) = reader.next()? {
            *members += 1;
            // GUARD: request-members -> evil_host_many_empty_members
            if *members > MAXIMUM_MEMBERS {
                return Err(LimitError::Members);
            }
            let known = self.0.iter().zip(&mut counts).find(|(member, _)| member.number == number);
            let Some((member, count)) = known else {
                let found = value.map_or(0, <[u8]>::len);
                // GUARD: request-text -> evil_host_endless_text
                if found > TEXT_BYTES {
                    return Err(LimitError::Bytes { member: "text", most: TEXT_BYTES, found });
                }
                continue;
            };
            *count += member.elements(value);
            // GUARD: request-count -> evil_host_more_elements_than_a_list_takes
            if *count > member.most {
                return Err(LimitError::Count { member: member.name, most: member.most });
            }
            member.check(value.unwrap_or_default(), members)?;
        }
        Ok(())
    }
}

/// Members of the largest shape, `grpc.Linux`.
const MOST_MEMBERS: usize = 10;

impl Member {
    fn elements(&self, value: Option<&[u8]>) -> usize {
        match (&self.kind, value) {
            // Packed numbers end with the byte whose top bit is clear.
            (Kind::Numbers, Some(packed)) => packed.iter().filter(|byte| **byte < 0x80).count(),
            _ => 1,
        }
    }

    fn check(&self, value: &[u8], members: &mut usize) -> Result<(), LimitError> {
        match self.kind {
            Kind::Bytes(most) => {
                // GUARD: request-bytes -> evil_host_more_bytes_than_a_member_takes
                if value.len() > most {
                    return Err(LimitError::Bytes { member: self.name, most, found: value.len() });
                }
                Ok(())
            }
            Kind::Numbers => Ok(()),
            Kind::Message(shape) => shape.walk(value, members),
        }
    }
}

/// A member: its number, and its bytes if it has a length.
type Found<'a> = (u32, Option<&'a [u8]>);

/// Reads the members of a message.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The next member. Groups are refused: no message here has one.
    fn next(&mut self) -> Result<Option<Found<'a>>, LimitError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = u32::try_from(self.varint()?).map_err(|_| LimitError::Malformed)?;
        let number = tag >> 3;
        if number == 0 {
            return Err(LimitError::Malformed);
        }
        let value = match tag & 7 {
            0 => self.varint().map(|_| None)?,
            1 => self.bytes(8).map(|_| None)?,
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| LimitError::Malformed)?;
                Some(self.bytes(length)?)
            }
            5 => self.bytes(4).map(|_| None)?,
            _ => return Err(LimitError::Malformed),
        };
        Ok(Some((number, value)))
    }

    fn varint(&mut self) -> Result<u64, LimitError> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(LimitError::Malformed)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or_default();
            if *byte < 0x80 {
                return Ok(value);
            }
        }
        Err(LimitError::Malformed)
    }

    fn bytes(&mut self, length: usize) -> Result<&'a [u8], LimitError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(LimitError::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }
}
