//! Sealing to the operator: one HPKE context for an epoch, whose exported key seals each record under its own number.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use sealed_artifact::digest::RecipientKeyDigest;
use sealed_artifact::grant::{GrantSuite, RecipientPublicKey, RecipientSecretKey};

use super::bytes::Writer;
use super::error::AuditError;
use super::record::{Hash, OperatorId, OperatorSuite};

const EXPORTER: &[u8] = b"innerkeep audit records v1";

impl From<OperatorSuite> for GrantSuite {
    fn from(suite: OperatorSuite) -> Self {
        match suite {
            OperatorSuite::P384 => Self::P384,
            OperatorSuite::XWing => Self::XWing,
        }
    }
}

impl OperatorId {
    /// HPKE `info`: parts behind their lengths, in the manner of grants, with a label of their own.
    fn info(&self, genesis: &Hash, epoch: u32) -> Vec<u8> {
        let epoch = epoch.to_be_bytes();
        let parts: [&[u8]; 8] = [
            b"innerkeep audit",
            b"v1",
            b"operator",
            GrantSuite::from(self.suite).as_str().as_bytes(),
            b"audit",
            genesis,
            &self.key,
            &epoch,
        ];
        let mut info = Writer::default();
        for part in parts {
            info.u32(u32::try_from(part.len()).unwrap_or(u32::MAX)).bytes(part);
        }
        info.0
    }
}

/// The operator's public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorKey {
    key: RecipientPublicKey,
    id: OperatorId,
}

impl OperatorKey {
    /// Parses the HPKE serialisation (P-384: 97 bytes, X-Wing: 1,216).
    ///
    /// # Errors
    /// `AUDIT_KEY`.
    pub fn parse(suite: OperatorSuite, bytes: &[u8]) -> Result<Self, AuditError> {
        let key = RecipientPublicKey::parse(suite.into(), bytes)
            .map_err(|_| AuditError::Key { expected: "an operator's public key of its suite" })?;
        let id = OperatorId { suite, key: *RecipientKeyDigest::of(bytes).as_bytes() };
        Ok(Self { key, id })
    }

    /// What the genesis names it by.
    #[must_use]
    pub const fn id(&self) -> &OperatorId {
        &self.id
    }

    /// A new epoch: what goes to the operator, and the key.
    pub(super) fn begin(&self, genesis: &Hash, epoch: u32) -> Result<(Vec<u8>, EpochKey), AuditError> {
        let (encapsulated, secret) =
            self.key.share(&self.id.info(genesis, epoch), EXPORTER).map_err(|_| AuditError::Random)?;
        Ok((encapsulated, EpochKey::new(epoch, &secret)?))
    }
}

/// The operator's secret key.
#[expect(missing_debug_implementations, reason = "key material is never printed")]
pub struct OperatorSecret {
    key: RecipientSecretKey,
    id: OperatorId,
}

impl OperatorSecret {
    /// A fresh one.
    ///
    /// # Errors
    /// `AUDIT_RANDOM`.
    pub fn generate(suite: OperatorSuite) -> Result<Self, AuditError> {
        RecipientSecretKey::generate(suite.into())
            .map(|key| Self::of(suite, key))
            .map_err(|_| AuditError::Random)
    }

    /// Parses the HPKE serialisation (P-384: 48-byte scalar, X-Wing: 32-byte seed).
    ///
    /// # Errors
    /// `AUDIT_KEY`.
    pub fn parse(suite: OperatorSuite, bytes: &[u8]) -> Result<Self, AuditError> {
        RecipientSecretKey::parse(suite.into(), bytes)
            .map(|key| Self::of(suite, key))
            .map_err(|_| AuditError::Key { expected: "an operator's secret key of its suite" })
    }

    fn of(suite: OperatorSuite, key: RecipientSecretKey) -> Self {
        let id = OperatorId { suite, key: *key.public_key().digest().as_bytes() };
        Self { key, id }
    }

    /// The HPKE serialisation, for storage.
    #[must_use]
    pub fn expose_bytes(&self) -> zeroize::Zeroizing<Vec<u8>> {
        self.key.expose_bytes()
    }

    /// The HPKE serialisation of the public key.
    #[must_use]
    pub fn public_bytes(&self) -> Vec<u8> {
        self.key.public_key().bytes().to_vec()
    }

    /// What a genesis that is sealed to it names.
    #[must_use]
    pub const fn id(&self) -> &OperatorId {
        &self.id
    }

    /// The key of an epoch.
    pub(super) fn open(
        &self,
        genesis: &Hash,
        epoch: u32,
        encapsulated: &[u8],
    ) -> Result<EpochKey, AuditError> {
        let secret = self
            .key
            .shared(encapsulated, &self.id.info(genesis, epoch), EXPORTER)
            .map_err(|_| AuditError::Malformed { what: "epoch" })?;
        EpochKey::new(epoch, &secret)
    }
}

/// The key of an epoch. A sequence number is sealed once, so nonces do not repeat.
pub(super) struct EpochKey {
    epoch: u32,
    key: LessSafeKey,
}

impl std::fmt::Debug for EpochKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EpochKey").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl EpochKey {
    pub(super) fn new(epoch: u32, secret: &[u8; 32]) -> Result<Self, AuditError> {
        let key = UnboundKey::new(&AES_256_GCM, secret).map_err(|_| AuditError::Random)?;
        Ok(Self { epoch, key: LessSafeKey::new(key) })
    }

    pub(super) const fn epoch(&self) -> u32 {
        self.epoch
    }

    fn bound(&self, genesis: &Hash, sequence: u64) -> (Nonce, Vec<u8>) {
        let mut nonce = [0; 12];
        nonce.iter_mut().skip(4).zip(sequence.to_be_bytes()).for_each(|(to, from)| *to = from);
        let mut data = Writer::default();
        data.bytes(b"innerkeep audit record v1").bytes(genesis).u64(sequence).u32(self.epoch);
        (Nonce::assume_unique_for_key(nonce), data.0)
    }

    /// Ciphertext and tag of a record. `None`: the library failed.
    pub(super) fn seal(&self, genesis: &Hash, sequence: u64, mut record: Vec<u8>) -> Option<Vec<u8>> {
        let (nonce, data) = self.bound(genesis, sequence);
        self.key.seal_in_place_append_tag(nonce, Aad::from(data), &mut record).ok()?;
        Some(record)
    }

    /// The record.
    pub(super) fn open(
        &self,
        genesis: &Hash,
        sequence: u64,
        ciphertext: &[u8],
    ) -> Result<Vec<u8>, AuditError> {
        let (nonce, data) = self.bound(genesis, sequence);
        let mut bytes = ciphertext.to_vec();
        let length = self
            .key
            .open_in_place(nonce, Aad::from(data), &mut bytes)
            .map_err(|_| AuditError::Edited { sequence })?
            .len();
        bytes.truncate(length);
        Ok(bytes)
    }
}
