//! Commands inside a session: present, release, state, close.

use std::marker::PhantomData;

use sealed_artifact::core::Core;
use sealed_artifact::grant::{Grant, GrantSuite};
use sealed_artifact::keys::ContentKey;
use sealed_artifact::policy::PolicyDigest;
use sealed_artifact::signature::Signature;

use super::{Inner, Presented, ReportData, Session};
use crate::abi::limits::{CONTENT_KEY, MAX_EVIDENCE, MAX_PREIMAGE, POLICY_DIGEST};
use crate::abi::{DataPath, Floors, InsecureFlags, Opcode, Present, SessionStatus, Unwrap, WireError};
use crate::error::{ChipError, SessionError};

/// Why evidence could not be made.
pub type EvidenceFailure = Box<dyn std::error::Error + Send + Sync>;

const STATUS_CAP: u32 = 32;
const FLOORS_CAP: u32 = 256 << 10;

/// A sealer's signature over a core.
#[derive(Clone, Debug)]
pub struct SealerProof {
    /// SubjectPublicKeyInfo, DER.
    pub spki: Vec<u8>,
    /// `r ‖ s`.
    pub signature: Vec<u8>,
}

/// What a chip needs to open a grant.
#[derive(Clone, Debug)]
pub struct UnwrapRequest<'a> {
    /// Suite of the grant.
    pub suite: GrantSuite,
    /// Key epoch of the grant.
    pub key_epoch: u64,
    /// Bytes of the core.
    pub core: &'a [u8],
    /// HPKE encapsulated key.
    pub encapsulated: Vec<u8>,
    /// Wrapped content key.
    pub wrapped: Vec<u8>,
    /// Signature of the sealer; with it the chip raises its floor.
    pub sealer: Option<SealerProof>,
}

impl<'a> UnwrapRequest<'a> {
    /// The request for this grant of this core. A grant of another kind than `chip` has no encapsulated key: the chip
    /// refuses such a request by its length.
    pub fn new(core: &'a Core, grant: &Grant, signature: Option<&Signature>) -> Self {
        let (suite, encapsulated) = grant
            .chip_part()
            .map_or((GrantSuite::P384, Vec::new()), |part| (part.suite, part.encapsulated.to_vec()));
        Self {
            suite,
            key_epoch: grant.key_epoch().value(),
            core: core.bytes(),
            encapsulated,
            wrapped: grant.wrapped().to_vec(),
            sealer: signature.map(|signature| SealerProof {
                spki: signature.key().spki_der().to_vec(),
                signature: signature.bytes().to_vec(),
            }),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let suite = match self.suite {
            GrantSuite::P384 => Unwrap::SUITE_P384,
            GrantSuite::XWing => Unwrap::SUITE_X_WING,
        };
        let sealer = self.sealer.as_ref();
        Unwrap {
            suite,
            key_epoch: self.key_epoch,
            core: self.core,
            enc: &self.encapsulated,
            wrapped: &self.wrapped,
            sealer_spki: sealer.map_or(&[], |proof| &proof.spki),
            sealer_signature: sealer.map_or(&[], |proof| &proof.signature),
        }
        .encode()
    }
}

impl<'d, S> Session<'d, S> {
    /// Presents a policy preimage and evidence. `evidence` gets the bytes that evidence must carry.
    ///
    /// # Errors
    ///
    /// Evidence that fails or is missing; `POLICY_MALFORMED`; a chip that hashed something else.
    pub fn present(
        self,
        preimage: &[u8],
        evidence: impl FnOnce(&ReportData) -> Result<Vec<u8>, EvidenceFailure>,
    ) -> Result<Session<'d, Presented>, ChipError> {
        let mut inner = self.inner;
        let evidence =
            evidence(&inner.report_data).map_err(|source| SessionError::EvidenceFailed { source })?;
        // GUARD: evidence-missing -> missing_evidence_is_not_sent
        if evidence.is_empty() && !inner.agreement.guest_insecure.contains(InsecureFlags::NO_EVIDENCE) {
            return Err(SessionError::EvidenceMissing.into());
        }
        refuse_large("evidence", MAX_EVIDENCE, evidence.len())?;
        refuse_large("policy preimage", MAX_PREIMAGE, preimage.len())?;
        let body = Present { evidence: &evidence, preimage }.encode();
        let cap = u32::try_from(POLICY_DIGEST).unwrap_or(0);
        let answer = inner.call(Opcode::Present, &body, cap)?;
        // GUARD: policy-digest -> evil_policy_digest_of_another_preimage
        if answer.output.as_slice() != PolicyDigest::of(preimage).as_bytes() {
            return Err(inner.end(SessionError::PolicyDigest.into()));
        }
        Ok(Session { inner, state: PhantomData })
    }

    /// What is left of the session's budget.
    ///
    /// # Errors
    ///
    /// The chip refuses or breaks the interface.
    pub fn status(&mut self) -> Result<SessionStatus, ChipError> {
        let answer = self.inner.call(Opcode::Status, &[], STATUS_CAP)?;
        let parsed = SessionStatus::parse(&answer.output).map_err(ChipError::malformed(Opcode::Status));
        parsed.map_err(|e| self.inner.end(e))
    }

    /// The floors of rollback counters that the chip keeps.
    ///
    /// # Errors
    ///
    /// The chip refuses or breaks the interface.
    pub fn floors(&mut self) -> Result<Floors, ChipError> {
        let answer = self.inner.call(Opcode::Floors, &[], FLOORS_CAP)?;
        let parsed = Floors::parse(&answer.output).map_err(ChipError::malformed(Opcode::Floors));
        parsed.map_err(|e| self.inner.end(e))
    }

    /// Ends the session and waits for the chip to say so.
    ///
    /// # Errors
    ///
    /// The chip refuses or breaks the interface; the session is over all the same.
    pub fn close(mut self) -> Result<(), ChipError> {
        self.inner.call(Opcode::Close, &[], 0)?;
        self.inner.ended = true;
        Ok(())
    }
}

impl Session<'_, Presented> {
    /// Opens a grant and gets the content key, on path `key-release`.
    ///
    /// # Errors
    ///
    /// The session has another path; the chip denies, with the code of its status.
    pub fn release_key(&mut self, request: &UnwrapRequest<'_>) -> Result<ContentKey, ChipError> {
        self.inner.require_path("release of a content key", DataPath::KeyRelease)?;
        let cap = u32::try_from(CONTENT_KEY).unwrap_or(0);
        let answer = self.inner.call(Opcode::Unwrap, &request.encode(), cap)?;
        let found = answer.output.len();
        if found != CONTENT_KEY {
            let length = WireError::Length { what: "content key", expected: CONTENT_KEY, found };
            return Err(self.inner.end(ChipError::malformed(Opcode::Unwrap)(length)));
        }
        Ok(ContentKey::from_bytes(&answer.output)?)
    }
}

impl Inner<'_> {
    pub(crate) fn require_path(&self, what: &'static str, expected: DataPath) -> Result<(), ChipError> {
        let found = self.agreement.path;
        if found != expected {
            let (expected, found) = (expected.name(), found.name());
            return Err(SessionError::PathMisuse { what, expected, found }.into());
        }
        Ok(())
    }
}

fn refuse_large(what: &'static str, expected: usize, found: usize) -> Result<(), ChipError> {
    if found > expected {
        return Err(SessionError::TooLarge { what, expected, found }.into());
    }
    Ok(())
}
