//! Frames: records as they leave the guest, and the hash that chains them.

use aws_lc_rs::digest::{Context, SHA512};

use super::bytes::{Reader, Writer};
use super::error::AuditError;
use super::record::{Hash, MAX_RECORD, Record};
use super::sign::SIGNATURE_BYTES;

/// What is hashed in front of every frame.
const CHAIN: &[u8] = b"innerkeep audit chain v1";
/// Longest evidence in bytes.
pub const MAX_EVIDENCE: usize = 262_144;
/// Longest frame without its length.
const MAX_FRAME: usize = MAX_EVIDENCE + 64;
/// Longest head in bytes.
const MAX_HEAD: usize = 512;

/// The hash before the first record.
pub(super) const ORIGIN: Hash = [0; 64];

/// Why records are no longer there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapReason {
    /// Memory ended.
    Lost,
    /// Somebody who was allowed to acknowledged them.
    Acknowledged,
}

/// Records that the guest no longer has: signed and counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The first of them.
    pub first: u64,
    /// The last of them.
    pub last: u64,
    /// Why.
    pub reason: GapReason,
    /// The chain's hash after the last.
    pub after: Hash,
    /// What they were.
    pub tally: Tally,
    /// The signature, over the hash before the first as well.
    pub signature: [u8; SIGNATURE_BYTES],
}

/// What records stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Decisions that allowed, those of repeats included.
    pub allowed: u64,
    /// Decisions that denied, the same.
    pub denied: u64,
    /// Outcomes.
    pub outcomes: u64,
    /// Records of other kinds.
    pub others: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: Self) {
        self.allowed = self.allowed.saturating_add(other.allowed);
        self.denied = self.denied.saturating_add(other.denied);
        self.outcomes = self.outcomes.saturating_add(other.outcomes);
        self.others = self.others.saturating_add(other.others);
    }

    /// What one record stands for.
    pub(super) fn of(record: &Record) -> Self {
        let mut tally = Self::default();
        let (ruling, count) = match record {
            Record::Decision(decision) => (decision.ruling, 1),
            Record::Repeats(repeats) => (repeats.ruling, repeats.count),
            Record::Outcome { .. } => {
                tally.outcomes = 1;
                return tally;
            }
            _ => {
                tally.others = 1;
                return tally;
            }
        };
        match ruling {
            super::Ruling::Denied => tally.denied = count,
            _ => tally.allowed = count,
        }
        tally
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A record that everybody may read.
    Clear {
        /// Its number.
        sequence: u64,
        /// The record.
        record: Record,
    },
    /// A record for the operator alone.
    Sealed {
        /// Its number.
        sequence: u64,
        /// The epoch whose key opens it.
        epoch: u32,
        /// Ciphertext and tag.
        ciphertext: Vec<u8>,
    },
    /// Records that are gone.
    Gap(Gap),
    /// Evidence about the genesis. Of a file of saved records; no part of the chain.
    Evidence(Vec<u8>),
    /// A signed head. Of a file of saved records; no part of the chain.
    Head(Vec<u8>),
}

impl Frame {
    /// The bytes with their length in front.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let body = self.body();
        let mut out = Writer::default();
        out.u32(u32::try_from(body.len()).unwrap_or(u32::MAX)).bytes(&body);
        out.0
    }

    /// What the chain's hash is over.
    pub(super) fn body(&self) -> Vec<u8> {
        let mut out = Writer::default();
        match self {
            Self::Clear { sequence, record } => out.u8(1).u64(*sequence).bytes(&record.encode()),
            Self::Sealed { sequence, epoch, ciphertext } => {
                out.u8(2).u64(*sequence).u32(*epoch).bytes(ciphertext)
            }
            Self::Gap(gap) => gap.write(out.u8(3)).bytes(&gap.signature),
            Self::Evidence(evidence) => out.u8(4).bytes(evidence),
            Self::Head(head) => out.u8(5).bytes(head),
        };
        out.0
    }

    /// Reads untrusted frames until there are no more.
    ///
    /// # Errors
    /// `AUDIT_MALFORMED`.
    pub fn parse_all(bytes: &[u8]) -> Result<Vec<Self>, AuditError> {
        let mut from = Reader::new("frames", bytes);
        let mut frames = Vec::new();
        while !from.is_empty() {
            let length = usize::try_from(from.u32()?).unwrap_or(usize::MAX);
            if length > MAX_FRAME {
                return Err(from.malformed());
            }
            frames.push(Self::parse(from.take(length)?)?);
        }
        Ok(frames)
    }

    /// Reads one without its length.
    fn parse(bytes: &[u8]) -> Result<Self, AuditError> {
        let mut from = Reader::new("frame", bytes);
        let frame = match from.u8()? {
            1 => {
                let sequence = from.u64()?;
                let record = Record::parse(capped(from.rest(), MAX_RECORD)?)?;
                // GUARD: audit-clear-kinds -> evil_host_records_in_the_clear
                if !record.is_clear() {
                    return Err(from.malformed());
                }
                Self::Clear { sequence, record }
            }
            2 => Self::Sealed {
                sequence: from.u64()?,
                epoch: from.u32()?,
                ciphertext: capped(from.rest(), MAX_RECORD)?.to_vec(),
            },
            3 => Self::Gap(Gap::read(&mut from)?),
            4 => Self::Evidence(capped(from.rest(), MAX_EVIDENCE)?.to_vec()),
            5 => Self::Head(capped(from.rest(), MAX_HEAD)?.to_vec()),
            _ => return Err(from.malformed()),
        };
        from.end()?;
        Ok(frame)
    }
}

fn capped(bytes: &[u8], most: usize) -> Result<&[u8], AuditError> {
    if bytes.len() > most {
        return Err(AuditError::Malformed { what: "frame" });
    }
    Ok(bytes)
}

impl Gap {
    /// Everything but the signature.
    fn write<'a>(&self, out: &'a mut Writer) -> &'a mut Writer {
        let reason = match self.reason {
            GapReason::Lost => 1,
            GapReason::Acknowledged => 2,
        };
        out.u64(self.first).u64(self.last).u8(reason).bytes(&self.after);
        let Tally { allowed, denied, outcomes, others } = self.tally;
        out.u64(allowed).u64(denied).u64(outcomes).u64(others)
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, AuditError> {
        let (first, last) = (from.u64()?, from.u64()?);
        let reason = match from.u8()? {
            1 => GapReason::Lost,
            2 => GapReason::Acknowledged,
            _ => return Err(from.malformed()),
        };
        if first == 0 || last < first {
            return Err(from.malformed());
        }
        let after = from.array()?;
        let tally =
            Tally { allowed: from.u64()?, denied: from.u64()?, outcomes: from.u64()?, others: from.u64()? };
        Ok(Self { first, last, reason, after, tally, signature: from.array()? })
    }

    /// What the signature is over: everything, and the hash before the first.
    pub(super) fn signed(&self, genesis: &Hash, before: &Hash) -> Vec<u8> {
        let mut out = Writer::default();
        out.bytes(b"innerkeep audit gap v1").bytes(genesis).bytes(before);
        self.write(&mut out);
        out.0
    }
}

/// The chain's hash after a frame.
pub(super) fn chained(before: &Hash, body: &[u8]) -> Hash {
    let mut context = Context::new(&SHA512);
    context.update(CHAIN);
    context.update(before);
    context.update(body);
    let mut hash = ORIGIN;
    for (to, from) in hash.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    hash
}
