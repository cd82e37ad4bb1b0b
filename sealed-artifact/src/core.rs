//! The core: parameters, key commitments, digests of the tag tables and of the payloads. Its digest names the artifact.

use std::fmt;

use crate::digest::{CoreDigest, ParametersDigest, TagTableDigest};
use crate::error::{ArtifactError, Found, limit};
use crate::json::Value;
use crate::names::PayloadIndex;
use crate::parameters::{Parameters, count};

#[cfg(test)]
mod tests;

pub(crate) const TYPE: &str = "innerkeep core v1";
/// Largest core in bytes.
pub const MAXIMUM_CORE: u64 = 262_144;

/// Key commitment of one payload.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Commitment(pub(crate) [u8; 32]);

impl fmt::Debug for Commitment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// BLAKE3 of the whole plaintext of a payload: what `b3sum` prints.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PayloadDigest(pub(crate) [u8; 32]);

impl PayloadDigest {
    /// The raw bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for PayloadDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for PayloadDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the core says about one payload beyond its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadSeal {
    /// Digest of the plaintext; for all payloads or for none.
    pub blake3: Option<PayloadDigest>,
    /// Key commitment.
    pub commitment: Commitment,
    /// Digest of the tag table.
    pub tags: TagTableDigest,
}

/// A parsed core. Parsing proves its form, not its origin: see [`verify_origin`](crate::signature::verify_origin).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Core {
    parameters: Parameters,
    payloads: Vec<PayloadSeal>,
    bytes: Vec<u8>,
    digest: CoreDigest,
    parameters_digest: ParametersDigest,
}

impl Core {
    /// Parses untrusted bytes.
    ///
    /// # Errors
    /// `LIMIT_EXCEEDED`, `MALFORMED` or `NOT_CANONICAL`.
    pub fn parse(bytes: &[u8]) -> Result<Self, ArtifactError> {
        let mut members = Value::parse("core", bytes, MAXIMUM_CORE)?.into_members("core")?;
        members.take_type(TYPE)?;
        let parameters = Parameters::from_value(members.take("parameters")?)?;
        let payloads = members.take("payloads")?.into_array("core.payloads")?;
        members.finish()?;
        let payloads = payloads.into_iter().map(seal_from_value).collect::<Result<Vec<_>, _>>()?;
        Self::assemble(parameters, payloads, bytes.to_vec())
    }

    /// The core of parameters and what sealing produced.
    pub(crate) fn new(parameters: Parameters, payloads: Vec<PayloadSeal>) -> Result<Self, ArtifactError> {
        let bytes = Value::object([
            ("@type", Value::text(TYPE)),
            ("parameters", parameters.to_value()),
            ("payloads", Value::Array(payloads.iter().map(seal_to_value).collect())),
        ])
        .encode();
        limit("core", 0, MAXIMUM_CORE, crate::error::length(&bytes))?;
        Self::assemble(parameters, payloads, bytes)
    }

    fn assemble(
        parameters: Parameters,
        payloads: Vec<PayloadSeal>,
        bytes: Vec<u8>,
    ) -> Result<Self, ArtifactError> {
        // GUARD: payload-count -> evil_core_with_another_number_of_seals_is_refused
        if payloads.len() != parameters.payloads().len() {
            return Err(ArtifactError::Malformed {
                what: "core.payloads",
                expected: "as many entries as parameters.payloads",
                found: Found::value(format_args!("{}", count(&payloads))),
            });
        }
        let digests = payloads.iter().filter(|payload| payload.blake3.is_some()).count();
        // GUARD: payload-digest-all-or-none -> evil_core_with_some_payload_digests_is_refused
        if digests != 0 && digests != payloads.len() {
            return Err(ArtifactError::Malformed {
                what: "core.payloads",
                expected: "blake3 for all payloads or for none",
                found: Found::value(format_args!("{digests} of {}", payloads.len())),
            });
        }
        let digest = CoreDigest::of(&bytes);
        let parameters_digest = parameters.digest();
        Ok(Self { parameters, payloads, bytes, digest, parameters_digest })
    }

    /// The parameters.
    #[must_use]
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// What the core says about each payload, in order.
    #[must_use]
    pub fn payloads(&self) -> &[PayloadSeal] {
        &self.payloads
    }

    /// The canonical bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// SHA-256 of the bytes: the name of the artifact.
    #[must_use]
    pub fn digest(&self) -> CoreDigest {
        self.digest
    }

    /// Whether the core states payload digests, so that no holder of the content key can forge payloads.
    #[must_use]
    pub fn has_payload_digests(&self) -> bool {
        self.payloads.iter().all(|payload| payload.blake3.is_some())
    }

    /// SHA-256 of the parameters.
    #[must_use]
    pub fn parameters_digest(&self) -> ParametersDigest {
        self.parameters_digest
    }

    /// Index of the payload called `name`.
    #[must_use]
    pub fn payload_named(&self, name: &str) -> Option<PayloadIndex> {
        let position = self.parameters.payloads().iter().position(|payload| payload.name.as_str() == name)?;
        Some(PayloadIndex::new(u32::try_from(position).ok()?))
    }
}

fn seal_to_value(seal: &PayloadSeal) -> Value {
    Value::object_of([
        ("blake3", seal.blake3.map(|digest| Value::hex(&digest.0))),
        ("commitment", Some(Value::hex(&seal.commitment.0))),
        ("tags", Some(Value::text(seal.tags.to_string()))),
    ])
}

fn seal_from_value(value: Value) -> Result<PayloadSeal, ArtifactError> {
    let mut members = value.into_members("core.payloads")?;
    let blake3 = match members.take_optional("blake3") {
        Some(value) => Some(PayloadDigest(value.into_hex("blake3")?)),
        None => None,
    };
    let commitment = Commitment(members.take("commitment")?.into_hex("commitment")?);
    let tags = TagTableDigest::parse(&members.take("tags")?.into_text("tags")?)?;
    members.finish()?;
    Ok(PayloadSeal { blake3, commitment, tags })
}
