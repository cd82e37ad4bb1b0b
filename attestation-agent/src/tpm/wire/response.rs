//! The frame of a response (Part 1 §18).

use super::{MESSAGE_MAX_BYTES, Reader, ResponseCode, TAG_NO_SESSIONS, TAG_SESSIONS, WireError};

/// The longest nonce or HMAC: a SHA-512.
const DIGEST_MAX_BYTES: usize = 64;

/// What the response to a command has, if the TPM accepts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Whether it begins with a handle.
    pub handle: bool,
    /// Whether the command carried one session (or password): then so does the response.
    pub session: bool,
}

/// A response.
#[derive(Debug)]
pub enum Response<'a> {
    /// The TPM did what was asked.
    Accepted(Accepted<'a>),
    /// It did not.
    Refused(ResponseCode),
}

/// An accepted command's response.
#[derive(Debug)]
pub struct Accepted<'a> {
    /// The handle, if the shape has one.
    pub handle: Option<u32>,
    /// Parameters; the first may be encrypted.
    pub parameters: &'a [u8],
    /// The session's part, if the shape has one.
    pub auth: Option<AuthReply<'a>>,
}

/// TPMS_AUTH_RESPONSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthReply<'a> {
    /// nonceTPM.
    pub nonce: &'a [u8],
    /// TPMA_SESSION.
    pub attributes: u8,
    /// Acknowledgement.
    pub hmac: &'a [u8],
}

impl<'a> Response<'a> {
    /// Parses a whole response to a command of a known shape.
    ///
    /// # Errors
    ///
    /// A tag, size or part that Part 1 §18 does not give such a response.
    pub fn parse(bytes: &'a [u8], shape: Shape) -> Result<Self, WireError> {
        let mut reader = Reader::new("response", bytes);
        let tag = reader.u16()?;
        let size = usize::try_from(reader.u32()?).unwrap_or(usize::MAX);
        // GUARD: tpm-response-size -> evil_tpm_response_size_lies
        if size != bytes.len() || size > MESSAGE_MAX_BYTES {
            return Err(WireError::unexpected("size of the response", "its length", size as u64));
        }
        let code = ResponseCode::new(reader.u32()?);
        let expected = if shape.session && code.is_none() { TAG_SESSIONS } else { TAG_NO_SESSIONS };
        // GUARD: tpm-response-tag -> evil_host_tpm_wrong_tag, evil_tpm_response_tags
        if tag != expected {
            return Err(WireError::unexpected("tag of the response", "the tag of the command", tag));
        }
        if let Some(code) = code {
            reader.finish()?;
            return Ok(Self::Refused(code));
        }
        let handle = if shape.handle { Some(reader.u32()?) } else { None };
        if !shape.session {
            return Ok(Self::Accepted(Accepted { handle, parameters: reader.rest(), auth: None }));
        }
        let length = reader.count(MESSAGE_MAX_BYTES)?;
        let parameters = reader.take(length)?;
        let nonce = reader.sized(DIGEST_MAX_BYTES)?;
        let attributes = reader.u8()?;
        let hmac = reader.sized(DIGEST_MAX_BYTES)?;
        reader.finish()?;
        Ok(Self::Accepted(Accepted { handle, parameters, auth: Some(AuthReply { nonce, attributes, hmac }) }))
    }
}
