//! Records: what the audit says, in its only encoding.

use super::bytes::{Reader, Writer};
use super::error::AuditError;
use super::sign::{POINT_BYTES, SIGNATURE_BYTES};

/// Longest record in bytes.
pub const MAX_RECORD: usize = 8192;
/// Most reasons of a decision.
pub(super) const MAX_REASONS: usize = 4;
/// Most fields of a reason.
pub(super) const MAX_FIELDS: usize = 8;
/// Most insecure modes.
const MAX_MODES: usize = 32;
/// Longest encapsulated key: X-Wing's.
const MAX_ENCAPSULATED: usize = 1120;
/// What every genesis begins with.
const LABEL: &[u8; 18] = b"innerkeep audit v1";

/// SHA-512.
pub type Hash = [u8; 64];

/// What came of a request at the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ruling {
    /// It may go on.
    Allowed,
    /// It may go on although the policy denies it: an insecure mode.
    AllowedThoughDenied,
    /// It may not.
    Denied,
}

impl Ruling {
    const fn number(self) -> u8 {
        match self {
            Self::Allowed => 1,
            Self::AllowedThoughDenied => 2,
            Self::Denied => 3,
        }
    }

    const fn of_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Allowed),
            2 => Some(Self::AllowedThoughDenied),
            3 => Some(Self::Denied),
            _ => None,
        }
    }

    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::AllowedThoughDenied => "allowed-though-denied",
            Self::Denied => "denied",
        }
    }
}

/// HPKE suites, those of grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OperatorSuite {
    /// DHKEM(P-384), HKDF-SHA-384, AES-256-GCM.
    P384,
    /// X-Wing, HKDF-SHA-384, AES-256-GCM.
    XWing,
}

/// To whom records are sealed: suite, and SHA-256 of the public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorId {
    /// The suite.
    pub suite: OperatorSuite,
    /// SHA-256 of the HPKE serialisation of the key.
    pub key: [u8; 32],
}

/// What an audit begins with. Its hash is what evidence commits to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Genesis {
    /// Random, of this start of the agent.
    pub boot_nonce: [u8; 32],
    /// Digest of the initdata that the guest was started with, in the algorithm of its register; empty: none.
    pub initdata: Vec<u8>,
    /// The key that signs: an uncompressed point on P-384.
    pub public_key: [u8; POINT_BYTES],
    /// Insecure modes that are on, in ascending order.
    pub insecure: Vec<String>,
    /// The operator's key; without one only heads leave the guest.
    pub operator: Option<OperatorId>,
    /// Version of the agent.
    pub agent: String,
    /// Milliseconds since 1970 as the guest's clock says, which the host sets.
    pub time_ms: u64,
}

/// Why a request was denied: as the policy engine explains it, without the statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedReason {
    /// The rule in which the evaluation ended.
    pub rule: String,
    /// Its line; 0 when there is no such rule.
    pub line: u32,
    /// Names of fields of the request, never values.
    pub fields: Vec<String>,
}

/// Decisions that are like one that has a record already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeats {
    /// When it was written; claimed.
    pub time_ms: u64,
    /// The record of the first of them.
    pub first: u64,
    /// How many since then or since the last record of this kind.
    pub count: u64,
    /// As in the first.
    pub endpoint: String,
    /// As in the first.
    pub ruling: Ruling,
    /// As in the first.
    pub code: String,
    /// Trace id of the last of them.
    pub trace: String,
}

/// One decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedDecision {
    /// Claimed.
    pub time_ms: u64,
    /// Path on the wire.
    pub endpoint: String,
    /// What the policy said.
    pub ruling: Ruling,
    /// Code of the denial, or empty.
    pub code: String,
    /// The request's trace id.
    pub trace: String,
    /// Why it was denied.
    pub reasons: Vec<RecordedReason>,
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Record {
    /// The first.
    Genesis(Genesis),
    /// From here on records are sealed under another key.
    Epoch {
        /// Counts from 1.
        number: u32,
        /// HPKE encapsulated key.
        encapsulated: Vec<u8>,
    },
    /// Evidence that commits to the genesis exists.
    Evidence {
        /// Its length in bytes.
        length: u32,
        /// SHA-512 of it.
        digest: Hash,
    },
    /// A signature over everything before.
    Checkpoint {
        /// Decisions until here that allowed, counted ones included.
        allowed: u64,
        /// The same for denials.
        denied: u64,
        /// Claimed.
        time_ms: u64,
        /// The signature.
        signature: [u8; SIGNATURE_BYTES],
    },
    /// A decision of the policy.
    Decision(RecordedDecision),
    /// Decisions that were counted.
    Repeats(Repeats),
    /// What became of a request that was allowed.
    Outcome {
        /// Claimed.
        time_ms: u64,
        /// The record of the decision.
        of: u64,
        /// Code of the error; `None`: the effect is there.
        error: Option<String>,
    },
    /// Another policy is in force.
    Policy {
        /// Claimed.
        time_ms: u64,
        /// SHA-256 of its text.
        digest: [u8; 32],
    },
}

impl Record {
    /// Whether it may be read by everybody. The others leave the guest sealed.
    #[must_use]
    pub const fn is_clear(&self) -> bool {
        matches!(
            self,
            Self::Genesis(_) | Self::Epoch { .. } | Self::Evidence { .. } | Self::Checkpoint { .. }
        )
    }

    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        match self {
            Self::Genesis(genesis) => genesis.write(out.u8(1)),
            Self::Epoch { number, encapsulated } => {
                out.u8(2).u32(*number).sized(encapsulated);
            }
            Self::Evidence { length, digest } => {
                out.u8(3).u32(*length).bytes(digest);
            }
            Self::Checkpoint { allowed, denied, time_ms, signature } => {
                out.u8(4).u64(*allowed).u64(*denied).u64(*time_ms).bytes(signature);
            }
            Self::Decision(decision) => decision.write(out.u8(5)),
            Self::Repeats(repeats) => {
                out.u8(6).u64(repeats.time_ms).u64(repeats.first).u64(repeats.count);
                out.text(&repeats.endpoint).u8(repeats.ruling.number()).text(&repeats.code);
                out.text(&repeats.trace);
            }
            Self::Outcome { time_ms, of, error } => {
                out.u8(7).u64(*time_ms).u64(*of).u8(u8::from(error.is_some()));
                if let Some(code) = error {
                    out.text(code);
                }
            }
            Self::Policy { time_ms, digest } => {
                out.u8(8).u64(*time_ms).bytes(digest);
            }
        }
        out.0
    }

    /// Reads untrusted bytes.
    ///
    /// # Errors
    /// `AUDIT_MALFORMED` for everything that [`Record::encode`] does not write.
    pub fn parse(bytes: &[u8]) -> Result<Self, AuditError> {
        let mut from = Reader::new("record", bytes);
        let record = match from.u8()? {
            1 => Self::Genesis(Genesis::read(&mut from)?),
            2 => Self::Epoch { number: from.u32()?, encapsulated: from.sized(MAX_ENCAPSULATED)?.to_vec() },
            3 => Self::Evidence { length: from.u32()?, digest: from.array()? },
            4 => Self::Checkpoint {
                allowed: from.u64()?,
                denied: from.u64()?,
                time_ms: from.u64()?,
                signature: from.array()?,
            },
            5 => Self::Decision(RecordedDecision::read(&mut from)?),
            6 => Self::Repeats(Repeats {
                time_ms: from.u64()?,
                first: from.u64()?,
                count: from.u64()?,
                endpoint: from.text()?,
                ruling: ruling(&mut from)?,
                code: from.text()?,
                trace: from.text()?,
            }),
            7 => {
                let (time_ms, of) = (from.u64()?, from.u64()?);
                let error = if from.flag()? { Some(from.text()?) } else { None };
                Self::Outcome { time_ms, of, error }
            }
            8 => Self::Policy { time_ms: from.u64()?, digest: from.array()? },
            _ => return Err(from.malformed()),
        };
        from.end()?;
        Ok(record)
    }
}

fn ruling(from: &mut Reader<'_>) -> Result<Ruling, AuditError> {
    let number = from.u8()?;
    Ruling::of_number(number).ok_or(from.malformed())
}

impl Genesis {
    fn write(&self, out: &mut Writer) {
        out.bytes(LABEL).bytes(&self.boot_nonce).sized(&self.initdata).bytes(&self.public_key);
        out.count(self.insecure.len());
        for mode in &self.insecure {
            out.text(mode);
        }
        match &self.operator {
            None => out.u8(0),
            Some(OperatorId { suite: OperatorSuite::P384, key }) => out.u8(1).bytes(key),
            Some(OperatorId { suite: OperatorSuite::XWing, key }) => out.u8(2).bytes(key),
        };
        out.text(&self.agent).u64(self.time_ms);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, AuditError> {
        if from.take(LABEL.len())? != LABEL {
            return Err(from.malformed());
        }
        let boot_nonce = from.array()?;
        let initdata = from.sized(64)?.to_vec();
        if !matches!(initdata.len(), 0 | 32 | 48 | 64) {
            return Err(from.malformed());
        }
        let public_key = from.array()?;
        let count = usize::from(from.u8()?);
        if count > MAX_MODES {
            return Err(from.malformed());
        }
        let insecure = (0..count).map(|_| from.text()).collect::<Result<Vec<_>, _>>()?;
        if !insecure.is_sorted_by(|left, right| left < right) {
            return Err(from.malformed());
        }
        let operator = match from.u8()? {
            0 => None,
            1 => Some(OperatorId { suite: OperatorSuite::P384, key: from.array()? }),
            2 => Some(OperatorId { suite: OperatorSuite::XWing, key: from.array()? }),
            _ => return Err(from.malformed()),
        };
        let (agent, time_ms) = (from.text()?, from.u64()?);
        Ok(Self { boot_nonce, initdata, public_key, insecure, operator, agent, time_ms })
    }
}

impl RecordedDecision {
    fn write(&self, out: &mut Writer) {
        out.u64(self.time_ms).text(&self.endpoint).u8(self.ruling.number());
        out.text(&self.code).text(&self.trace);
        let reasons = self.reasons.get(..MAX_REASONS).unwrap_or(&self.reasons);
        out.count(reasons.len());
        for reason in reasons {
            let fields = reason.fields.get(..MAX_FIELDS).unwrap_or(&reason.fields);
            out.text(&reason.rule).u32(reason.line).count(fields.len());
            for field in fields {
                out.text(field);
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, AuditError> {
        let time_ms = from.u64()?;
        let (endpoint, ruling) = (from.text()?, ruling(from)?);
        let (code, trace) = (from.text()?, from.text()?);
        let count = usize::from(from.u8()?);
        if count > MAX_REASONS {
            return Err(from.malformed());
        }
        let reasons = (0..count).map(|_| RecordedReason::read(from)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { time_ms, endpoint, ruling, code, trace, reasons })
    }
}

impl RecordedReason {
    fn read(from: &mut Reader<'_>) -> Result<Self, AuditError> {
        let (rule, line) = (from.text()?, from.u32()?);
        let count = usize::from(from.u8()?);
        if count > MAX_FIELDS {
            return Err(from.malformed());
        }
        let fields = (0..count).map(|_| from.text()).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { rule, line, fields })
    }
}
