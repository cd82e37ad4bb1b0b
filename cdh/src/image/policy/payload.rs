//! The signed text of a signature: simple signing (containers-signature(5), "JSON data format"). cosign signs the same form.
//!
//! It is read only after its signature verified.

use super::digest::Digest;
use super::json::{self, JsonFault, Members};
use super::name::ImageName;

/// Longest payload, in bytes.
pub const PAYLOAD_MAX: usize = 64 << 10;

/// By whom such a text is written, which its `critical.type` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PayloadKind {
    /// An OpenPGP signature.
    Atomic,
    /// A cosign signature.
    Cosign,
}

impl PayloadKind {
    const fn name(self) -> &'static str {
        match self {
            Self::Atomic => "atomic container signature",
            Self::Cosign => "cosign container image signature",
        }
    }
}

/// What a signer said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The digest of the manifest that was signed.
    pub digest: Digest,
    /// The name that the signer gave to it.
    pub identity: ImageName,
}

impl Payload {
    /// Reads a payload of this kind. Members of `optional` are the signer's own and are not looked at.
    ///
    /// # Errors
    ///
    /// A text that is too long, of another form or kind, or with members that are unknown or there twice.
    pub fn parse(kind: PayloadKind, bytes: &[u8]) -> Result<Self, JsonFault> {
        let mut members = Members::of(json::parse(bytes, PAYLOAD_MAX)?, "an object")?;
        let mut critical = Members::of(members.take("critical")?, "object `critical`")?;
        // Written as null by cosign when there is nothing.
        match members.optional("optional") {
            None | Some(serde_json::Value::Null | serde_json::Value::Object(_)) => {}
            Some(_) => return Err(JsonFault::new("object `optional`", "another value")),
        }
        members.finish()?;
        let found = critical.text("type")?;
        // GUARD: payload-type -> evil_signature_of_another_type
        if found != kind.name() {
            return Err(JsonFault::new(kind.name(), json::quoted(&found)));
        }
        let mut image = Members::of(critical.take("image")?, "object `critical.image`")?;
        let mut identity = Members::of(critical.take("identity")?, "object `critical.identity`")?;
        critical.finish()?;
        let digest = image.text("docker-manifest-digest")?;
        image.finish()?;
        let reference = identity.text("docker-reference")?;
        identity.finish()?;
        let digest = Digest::parse(&digest)
            .ok_or_else(|| JsonFault::new("a digest in `docker-manifest-digest`", "another text"))?;
        let identity = ImageName::parse(&reference)
            .map_err(|_| JsonFault::new("the name of an image in `docker-reference`", "another text"))?;
        Ok(Self { digest, identity })
    }
}

#[cfg(test)]
mod tests;
