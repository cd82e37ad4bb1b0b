//! Policy documents: what a recipient demands before it releases a key. One parser for those who write, grant and enforce.
//!
//! The **preimage** is the canonical JSON; the digest is SHA3-512 of it. A recipient hashes the bytes it was given and
//! evaluates those same bytes: [`PolicyDocument::parse`] keeps them together.

use std::fmt;

use sha3::{Digest as _, Sha3_512};

use crate::error::{ArtifactError, length, limit};
use crate::json::Value;
use crate::names::{Counter, EnvironmentTag, Family};

mod choice;
mod evaluate;
mod evidence;
mod generation;
mod lint;
mod source;

#[cfg(test)]
mod tests;

pub use choice::{Choice, Hex, InitdataDigest, LinkMode};
pub use evaluate::StaticFacts;
pub use evidence::{DebugRule, EvidenceRules, SnpRules, TdxRules};
pub use generation::{Generation, TcbLayout};
pub use lint::Weakness;
pub use source::TEMPLATE;

const TYPE: &str = "innerkeep policy v1";
const OPAQUE_TYPE: &str = "innerkeep opaque policy v1";
/// Largest preimage in bytes.
pub const MAXIMUM_PREIMAGE: u64 = 65_536;

/// SHA3-512 of a preimage.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PolicyDigest([u8; 64]);

impl PolicyDigest {
    /// Hashes a preimage.
    #[must_use]
    pub fn of(preimage: &[u8]) -> Self {
        Self(Sha3_512::digest(preimage).into())
    }

    /// The raw bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl fmt::Display for PolicyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for PolicyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a policy demands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRules {
    /// Allowed environment: of the core, and of the recipient's tier.
    pub environment: Choice<EnvironmentTag>,
    /// What is demanded of the guest; `None` demands nothing.
    pub evidence: Option<EvidenceRules>,
    /// Allowed rollback family of the core.
    pub family: Choice<Family>,
    /// Allowed ways for plaintext or key to reach the guest.
    pub link_mode: Choice<LinkMode>,
    /// Lowest counter of the core.
    pub min_counter: Counter,
}

/// A policy: rules, or bytes that bind by digest only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Bytes of another policy language; always weak.
    Opaque(Vec<u8>),
    /// Rules of this version.
    Rules(Box<PolicyRules>),
}

/// A policy with its preimage and digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyDocument {
    policy: Policy,
    preimage: Vec<u8>,
    digest: PolicyDigest,
}

impl PolicyDocument {
    /// Parses an untrusted preimage.
    ///
    /// # Errors
    /// `LIMIT_EXCEEDED`, `MALFORMED`, `NOT_CANONICAL`.
    pub fn parse(preimage: &[u8]) -> Result<Self, ArtifactError> {
        let value = Value::parse("policy", preimage, MAXIMUM_PREIMAGE)?;
        let policy = Policy::from_value(value)?;
        Ok(Self { policy, preimage: preimage.to_vec(), digest: PolicyDigest::of(preimage) })
    }

    /// Converts a TOML source, see [`TEMPLATE`].
    ///
    /// # Errors
    /// `LIMIT_EXCEEDED`, `MALFORMED`.
    pub fn from_toml(source: &str) -> Result<Self, ArtifactError> {
        Self::parse(&source::to_value(source)?.encode())
    }

    /// The document of a policy made by a program.
    ///
    /// # Errors
    /// `LIMIT_EXCEEDED` or `MALFORMED` when the policy cannot be written, such as a choice of no values.
    pub fn new(policy: &Policy) -> Result<Self, ArtifactError> {
        let preimage = policy.to_value().encode();
        limit("policy", 0, MAXIMUM_PREIMAGE, length(&preimage))?;
        Self::parse(&preimage)
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The canonical bytes.
    #[must_use]
    pub fn preimage(&self) -> &[u8] {
        &self.preimage
    }

    /// SHA3-512 of the preimage.
    #[must_use]
    pub fn digest(&self) -> PolicyDigest {
        self.digest
    }

    /// All weaknesses of the policy, in a fixed order.
    #[must_use]
    pub fn weaknesses(&self) -> Vec<Weakness> {
        lint::weaknesses(&self.policy)
    }

    /// Refuses a weak policy.
    ///
    /// # Errors
    /// `POLICY_WEAK`.
    pub fn refuse_weak(&self) -> Result<(), ArtifactError> {
        let found = self.weaknesses();
        // GUARD: weak-policy -> evil_weak_policy_is_refused
        if let Some(first) = found.first() {
            return Err(ArtifactError::PolicyWeak { first: first.code(), more: found.len() - 1 });
        }
        Ok(())
    }

    /// Evaluates everything but evidence, then demands a judgement of evidence where the policy has rules for it.
    ///
    /// # Errors
    /// `POLICY_DENIED` with the rule, what it allows and what is; `EVIDENCE_REQUIRED`.
    pub fn evaluate(&self, facts: &StaticFacts) -> Result<(), ArtifactError> {
        self.evaluate_static(facts)?;
        // GUARD: evidence-required -> evil_policy_with_evidence_rules_is_not_satisfied_without_evidence
        if self.evidence().is_some() {
            return Err(ArtifactError::EvidenceRequired);
        }
        Ok(())
    }

    /// Evaluates everything but evidence, for recipients that judge [`PolicyDocument::evidence`] themselves.
    ///
    /// # Errors
    /// `POLICY_DENIED` with the rule, what it allows and what is.
    pub fn evaluate_static(&self, facts: &StaticFacts) -> Result<(), ArtifactError> {
        match &self.policy {
            Policy::Opaque(_) => Ok(()),
            Policy::Rules(rules) => evaluate::evaluate(rules, facts),
        }
    }

    /// The rules about the guest's evidence, if there are any.
    #[must_use]
    pub fn evidence(&self) -> Option<&EvidenceRules> {
        match &self.policy {
            Policy::Opaque(_) => None,
            Policy::Rules(rules) => rules.evidence.as_ref(),
        }
    }
}

impl Policy {
    fn from_value(value: Value) -> Result<Self, ArtifactError> {
        let mut members = value.into_members("policy")?;
        let object_type = members.take("@type")?;
        if object_type == Value::text(OPAQUE_TYPE) {
            let bytes = members.take("bytes")?.into_base64("policy.bytes")?;
            members.finish()?;
            return Ok(Self::Opaque(bytes));
        }
        // GUARD: policy-type -> evil_object_of_another_type_is_refused
        if object_type != Value::text(TYPE) {
            return Err(object_type.malformed("policy", TYPE));
        }
        let rules = PolicyRules {
            environment: Choice::from_value("environment", members.take("environment")?)?,
            evidence: members.take_optional("evidence").map(EvidenceRules::from_value).transpose()?,
            family: Choice::from_value("family", members.take("family")?)?,
            link_mode: Choice::from_value("link_mode", members.take("link_mode")?)?,
            min_counter: Counter::new(members.take("min_counter")?.into_integer("min_counter")?),
        };
        members.finish()?;
        Ok(Self::Rules(Box::new(rules)))
    }

    fn to_value(&self) -> Value {
        match self {
            Self::Opaque(bytes) => {
                Value::object([("@type", Value::text(OPAQUE_TYPE)), ("bytes", Value::base64(bytes))])
            }
            Self::Rules(rules) => Value::object_of([
                ("@type", Some(Value::text(TYPE))),
                ("environment", Some(rules.environment.to_value())),
                ("evidence", rules.evidence.as_ref().map(EvidenceRules::to_value)),
                ("family", Some(rules.family.to_value())),
                ("link_mode", Some(rules.link_mode.to_value())),
                ("min_counter", Some(Value::integer(rules.min_counter.value()))),
            ]),
        }
    }
}
