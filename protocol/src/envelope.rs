//! The envelope of a call, `ttrpc.Request`, counted as its bytes pass and before anybody decodes them.
//!
//! ttrpc decodes the envelope by itself. A pair of its metadata takes two bytes on the wire and about seventy in memory, so
//! that a frame within its length could become a hundred megabytes. Members (service, method, payload, timeout, pairs of
//! metadata) are counted here; one more than [`MAXIMUM_MEMBERS`] is refused where it begins.

/// Most members of an envelope: the four that a call has, and metadata.
pub const MAXIMUM_MEMBERS: u32 = 128;
/// A varint of 64 bits has ten bytes at most.
const VARINT_BITS: u32 = 64;

/// An envelope that is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// Not the wire format of protobuf, or groups, which `ttrpc.Request` has none of.
    #[error("the envelope of a request is malformed")]
    Malformed,
    /// More members than there may be.
    #[error("the envelope of a request has more than {MAXIMUM_MEMBERS} members")]
    TooMany,
}

impl EnvelopeError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed => "PROTOCOL_ENVELOPE_MALFORMED",
            Self::TooMany => "PROTOCOL_ENVELOPE_MEMBERS",
        }
    }
}

/// Where in a member the next byte is.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// In its key, of which this much was seen.
    Key(Varint),
    /// In a number that nobody looks at.
    Number(Varint),
    /// In the length of what follows.
    Length(Varint),
    /// In bytes that nobody looks at; so many are missing.
    Bytes(u64),
}

#[derive(Clone, Copy, Debug, Default)]
struct Varint {
    value: u64,
    bits: u32,
}

impl Varint {
    /// Takes a byte; the value once it is whole.
    fn take(&mut self, byte: u8) -> Result<Option<u64>, EnvelopeError> {
        if self.bits >= VARINT_BITS {
            return Err(EnvelopeError::Malformed);
        }
        self.value |= u64::from(byte & 0x7f) << self.bits;
        self.bits += 7;
        Ok((byte & 0x80 == 0).then_some(self.value))
    }
}

/// Follows the payload of one request. It keeps a number, whatever passes.
#[derive(Clone, Debug)]
pub struct Envelope {
    place: Place,
    members: u32,
}

impl Default for Envelope {
    fn default() -> Self {
        Self { place: Place::Key(Varint::default()), members: 0 }
    }
}

impl Envelope {
    /// Follows bytes that passed, in any pieces.
    ///
    /// # Errors
    /// See [`EnvelopeError`]. Nothing of the request is to be used then.
    pub fn follow(&mut self, mut bytes: &[u8]) -> Result<(), EnvelopeError> {
        while let Some((first, rest)) = bytes.split_first() {
            self.place = match self.place {
                Place::Bytes(missing) => {
                    let passed = usize::try_from(missing).unwrap_or(usize::MAX).min(bytes.len());
                    bytes = bytes.get(passed..).unwrap_or_default();
                    Self::bytes(missing - passed as u64)
                }
                Place::Key(mut key) => {
                    bytes = rest;
                    match key.take(*first)? {
                        Some(key) => self.member(key)?,
                        None => Place::Key(key),
                    }
                }
                Place::Number(mut number) => {
                    bytes = rest;
                    match number.take(*first)? {
                        Some(_) => Place::Key(Varint::default()),
                        None => Place::Number(number),
                    }
                }
                Place::Length(mut length) => {
                    bytes = rest;
                    match length.take(*first)? {
                        Some(length) => Self::bytes(length),
                        None => Place::Length(length),
                    }
                }
            };
        }
        Ok(())
    }

    /// A key is whole: a member begins.
    fn member(&mut self, key: u64) -> Result<Place, EnvelopeError> {
        self.members += 1;
        // GUARD: envelope-members -> evil_host_many_pairs_of_metadata
        if self.members > MAXIMUM_MEMBERS {
            return Err(EnvelopeError::TooMany);
        }
        match key & 7 {
            0 => Ok(Place::Number(Varint::default())),
            1 => Ok(Place::Bytes(8)),
            2 => Ok(Place::Length(Varint::default())),
            5 => Ok(Place::Bytes(4)),
            _ => Err(EnvelopeError::Malformed),
        }
    }

    fn bytes(missing: u64) -> Place {
        if missing == 0 { Place::Key(Varint::default()) } else { Place::Bytes(missing) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use protobuf::Message as _;

    use super::*;

    fn follow(pieces: &[&[u8]]) -> Result<u32, EnvelopeError> {
        let mut envelope = Envelope::default();
        for piece in pieces {
            envelope.follow(piece)?;
        }
        Ok(envelope.members)
    }

    fn request(pairs: usize) -> Vec<u8> {
        let mut request = ttrpc::Request::new();
        request.service = "grpc.Health".to_owned();
        request.method = "Check".to_owned();
        request.payload = vec![0xff; 300];
        request.timeout_nano = i64::MAX;
        request.metadata = vec![ttrpc::proto::KeyValue::new(); pairs];
        request.write_to_bytes().unwrap()
    }

    #[test]
    fn what_clients_send_is_taken() {
        assert_eq!(follow(&[&request(0)]), Ok(4));
        assert_eq!(follow(&[&request(20)]), Ok(24));
        assert_eq!(follow(&[b""]), Ok(0));
    }

    #[test]
    fn evil_host_many_pairs_of_metadata() {
        let most = MAXIMUM_MEMBERS as usize - 4;
        assert_eq!(follow(&[&request(most)]), Ok(MAXIMUM_MEMBERS));
        assert_eq!(follow(&[&request(most + 1)]), Err(EnvelopeError::TooMany));
        // Two bytes each, of any field.
        assert_eq!(follow(&[&[0x2a, 0].repeat(2_000_000)]), Err(EnvelopeError::TooMany));
        assert_eq!(follow(&[&[0x38, 1].repeat(2_000_000)]), Err(EnvelopeError::TooMany));
        // What lies inside a payload is not the envelope's.
        let mut payload = vec![0x1a, 0x80, 0x80, 0x04];
        payload.extend([0x2a, 0].repeat(1 << 15));
        assert_eq!(follow(&[&payload]), Ok(1));
    }

    #[test]
    fn evil_host_envelope_of_another_form() {
        let endless = [&[0x0a][..], &[0xff; 11]].concat();
        for bytes in [&[0x2b][..], &[0x2c], &[0x2e], &[0x2f], &[0xff; 11], &endless] {
            assert_eq!(follow(&[bytes]), Err(EnvelopeError::Malformed), "{bytes:x?}");
        }
    }

    proptest! {
        /// However the bytes are cut, the verdict is the same.
        #[test]
        fn pieces_do_not_matter(pairs in 0_usize..200, cuts in prop::collection::vec(0_usize..900, 0..12), noise in any::<Option<(u16, u8)>>()) {
            let mut bytes = request(pairs);
            if let Some((at, value)) = noise {
                let at = usize::from(at) % bytes.len();
                bytes[at] = value;
            }
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(follow(&pieces), follow(&[&bytes]));
        }
    }
}
