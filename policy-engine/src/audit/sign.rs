//! The audit's key: ECDSA on P-384, made at the start and never written down. Checkpoints, gaps and heads are signed.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P384_SHA384_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};

use super::bytes::{Reader, Writer};
use super::error::AuditError;
use super::record::Hash;

/// An uncompressed point on P-384.
pub(super) const POINT_BYTES: usize = 97;
/// `r ‖ s`.
pub(super) const SIGNATURE_BYTES: usize = 96;

pub(super) struct AuditKey(EcdsaKeyPair);

impl std::fmt::Debug for AuditKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AuditKey(..)")
    }
}

impl AuditKey {
    pub(super) fn generate() -> Result<Self, AuditError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING);
        pair.map(Self).map_err(|_| AuditError::Random)
    }

    pub(super) fn public(&self) -> Result<[u8; POINT_BYTES], AuditError> {
        self.0.public_key().as_ref().try_into().map_err(|_| AuditError::Random)
    }

    pub(super) fn sign(&self, message: &[u8]) -> Result<[u8; SIGNATURE_BYTES], AuditError> {
        let signature = self.0.sign(&SystemRandom::new(), message).map_err(|_| AuditError::Random)?;
        signature.as_ref().try_into().map_err(|_| AuditError::Random)
    }
}

/// Whether the key of a genesis signed a message.
pub(super) fn verifies(key: &[u8; POINT_BYTES], message: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
    UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, key).verify(message, signature).is_ok()
}

/// What a checkpoint's signature is over: everything before it, and what it says.
pub(super) fn checkpoint_message(
    genesis: &Hash,
    sequence: u64,
    before: &Hash,
    [allowed, denied, time_ms]: [u64; 3],
) -> Vec<u8> {
    let mut out = Writer::default();
    out.bytes(b"innerkeep audit checkpoint v1").bytes(genesis).u64(sequence).bytes(before);
    out.u64(allowed).u64(denied).u64(time_ms);
    out.0
}

/// Where an audit is, signed for whoever asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Hash of the genesis.
    pub genesis: Hash,
    /// What the asker chose.
    pub nonce: Vec<u8>,
    /// The last record.
    pub sequence: u64,
    /// The chain's hash after it.
    pub hash: Hash,
    /// Decisions that allowed, each one counted.
    pub allowed: u64,
    /// The same for denials.
    pub denied: u64,
    /// Whether evidence commits to the genesis.
    pub attested: bool,
    /// Claimed.
    pub time_ms: u64,
    pub(super) signature: [u8; SIGNATURE_BYTES],
}

/// Shortest and longest nonce.
pub(super) const NONCE_BYTES: std::ops::RangeInclusive<usize> = 16..=64;

impl Head {
    fn write(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u8(1).bytes(&self.genesis).sized(&self.nonce).u64(self.sequence).bytes(&self.hash);
        out.u64(self.allowed).u64(self.denied).u8(u8::from(self.attested)).u64(self.time_ms);
        out.0
    }

    fn message(&self) -> Vec<u8> {
        [b"innerkeep audit head v1".as_slice(), &self.write()].concat()
    }

    pub(super) fn sign(mut self, key: &AuditKey) -> Result<Self, AuditError> {
        self.signature = key.sign(&self.message())?;
        Ok(self)
    }

    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.write();
        out.extend_from_slice(&self.signature);
        out
    }

    /// Reads untrusted bytes.
    ///
    /// # Errors
    /// `AUDIT_MALFORMED`.
    pub fn parse(bytes: &[u8]) -> Result<Self, AuditError> {
        let mut from = Reader::new("head", bytes);
        if from.u8()? != 1 {
            return Err(from.malformed());
        }
        let (genesis, nonce) = (from.array()?, from.sized(*NONCE_BYTES.end())?.to_vec());
        if !NONCE_BYTES.contains(&nonce.len()) {
            return Err(from.malformed());
        }
        let head = Self {
            genesis,
            nonce,
            sequence: from.u64()?,
            hash: from.array()?,
            allowed: from.u64()?,
            denied: from.u64()?,
            attested: from.flag()?,
            time_ms: from.u64()?,
            signature: from.array()?,
        };
        from.end()?;
        Ok(head)
    }

    /// Verifies that the key of a genesis signed it.
    ///
    /// # Errors
    /// `AUDIT_FORGED`.
    pub(super) fn verify(&self, key: &[u8; POINT_BYTES]) -> Result<(), AuditError> {
        // GUARD: audit-head-signature -> evil_host_forges_the_audit
        if !verifies(key, &self.message(), &self.signature) {
            return Err(AuditError::Forged { what: "the head" });
        }
        Ok(())
    }
}
