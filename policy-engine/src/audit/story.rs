//! Reading an audit outside: chain, signatures, order, and what it says.

use std::collections::BTreeMap;

use super::epoch::{EpochKey, OperatorSecret};
use super::error::AuditError;
use super::frame::{Frame, Gap, GapReason, ORIGIN, Tally, chained};
use super::record::{Genesis, Hash, Record};
use super::sign::{Head, checkpoint_message, verifies};

/// A part of an audit as its reader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Told {
    /// A record.
    Record {
        /// Its number.
        sequence: u64,
        /// What it says.
        record: Record,
    },
    /// A record for somebody who has the operator's key.
    Sealed {
        /// Its number.
        sequence: u64,
    },
    /// Records that the guest no longer had.
    Gap(Gap),
}

/// An audit, verified as far as its own signatures reach. Whether its key is that of a guest is what evidence says.
#[derive(Debug)]
pub struct Story {
    genesis: Genesis,
    digest: Hash,
    told: Vec<Told>,
    /// Hashes after each record and gap.
    hashes: BTreeMap<u64, Hash>,
    epochs: BTreeMap<u32, EpochKey>,
    signed: u64,
    next: u64,
    evidence: Option<Vec<u8>>,
    evidence_digest: Option<Hash>,
    heads: Vec<Head>,
}

impl Story {
    /// Reads frames from the genesis on. Frames that are there twice, as those of a file and of an answer that overlap, are
    /// taken once if they are the same.
    ///
    /// # Errors
    /// `AUDIT_MALFORMED`, `AUDIT_FORGED`, `AUDIT_EDITED`, `AUDIT_MISSING`, `AUDIT_REORDERED`, `AUDIT_RESTARTED`, `AUDIT_KEY`.
    pub fn read(frames: &[Frame], operator: Option<&OperatorSecret>) -> Result<Self, AuditError> {
        let genesis_frame = frames.iter().find(|frame| matches!(frame, Frame::Clear { sequence: 0, .. }));
        let Some(Frame::Clear { record: Record::Genesis(genesis), .. }) = genesis_frame else {
            return Err(AuditError::Malformed { what: "an audit without a genesis" });
        };
        let digest = chained(&ORIGIN, &genesis_frame.map(Frame::body).unwrap_or_default());
        if let (Some(operator), Some(named)) = (operator, &genesis.operator) {
            // GUARD: audit-own-key -> evil_operator_key_of_somebody_else
            if operator.id() != named {
                return Err(AuditError::Key { expected: "the secret key that the audit is sealed to" });
            }
        }
        let mut story = Self {
            genesis: genesis.clone(),
            digest,
            told: Vec::new(),
            hashes: BTreeMap::new(),
            epochs: BTreeMap::new(),
            signed: 0,
            next: 0,
            evidence: None,
            evidence_digest: None,
            heads: Vec::new(),
        };
        for (position, frame) in frames.iter().enumerate() {
            story.take(frame, frames.get(position + 1..).unwrap_or_default(), operator)?;
        }
        Ok(story)
    }

    fn take(
        &mut self,
        frame: &Frame,
        rest: &[Frame],
        operator: Option<&OperatorSecret>,
    ) -> Result<(), AuditError> {
        match frame {
            Frame::Evidence(evidence) => self.evidence = Some(evidence.clone()),
            Frame::Head(head) => self.heads.push(Head::parse(head)?),
            Frame::Gap(gap) => self.take_gap(gap, rest)?,
            Frame::Clear { sequence, record } => {
                if self.is_next(*sequence, frame, rest)? {
                    self.take_clear(*sequence, record, operator)?;
                    self.advance(*sequence, frame);
                    self.told.push(Told::Record { sequence: *sequence, record: record.clone() });
                }
            }
            Frame::Sealed { sequence, epoch, ciphertext } => {
                if self.is_next(*sequence, frame, rest)? {
                    let told = self.open(*sequence, *epoch, ciphertext)?;
                    self.advance(*sequence, frame);
                    self.told.push(told);
                }
            }
        }
        Ok(())
    }

    /// Whether a record is the next one; one that was read before has to be the same.
    fn is_next(&self, sequence: u64, frame: &Frame, rest: &[Frame]) -> Result<bool, AuditError> {
        if sequence == self.next {
            return Ok(true);
        }
        // GUARD: audit-no-record-missing -> evil_host_drops_a_record
        if sequence > self.next {
            return Err(self.jump(sequence, rest));
        }
        if sequence == 0 {
            // GUARD: audit-one-genesis -> evil_host_restarts_the_agent
            if chained(&ORIGIN, &frame.body()) != self.digest {
                return Err(AuditError::Restarted);
            }
            return Ok(false);
        }
        let before = sequence.checked_sub(1).and_then(|before| self.hashes.get(&before));
        let known = self.hashes.get(&sequence);
        match (before, known) {
            (Some(before), Some(known)) if chained(before, &frame.body()) == *known => Ok(false),
            // What a gap stood for is not compared again.
            (_, None) | (None, _) => Err(AuditError::Reordered { expected: self.next, found: sequence }),
            _ => Err(AuditError::Edited { sequence }),
        }
    }

    /// A record came too early: is the one that was expected behind it, or nowhere?
    fn jump(&self, found: u64, rest: &[Frame]) -> AuditError {
        let expected = self.next;
        let is_behind = rest.iter().any(|frame| match frame {
            Frame::Clear { sequence, .. } | Frame::Sealed { sequence, .. } => *sequence == expected,
            Frame::Gap(gap) => (gap.first..=gap.last).contains(&expected),
            _ => false,
        });
        // A genesis behind it is another one.
        if is_behind && expected > 0 {
            return AuditError::Reordered { expected, found };
        }
        AuditError::Missing { expected, found }
    }

    fn advance(&mut self, sequence: u64, frame: &Frame) {
        let before = sequence.checked_sub(1).and_then(|before| self.hashes.get(&before)).unwrap_or(&ORIGIN);
        let hash = chained(before, &frame.body());
        self.hashes.insert(sequence, hash);
        self.next = sequence.saturating_add(1);
    }

    fn take_clear(
        &mut self,
        sequence: u64,
        record: &Record,
        operator: Option<&OperatorSecret>,
    ) -> Result<(), AuditError> {
        match record {
            Record::Genesis(_) => {
                if sequence != 0 {
                    return Err(AuditError::Restarted);
                }
            }
            Record::Epoch { number, encapsulated } => {
                if let Some(operator) = operator {
                    let key = operator.open(&self.digest, *number, encapsulated)?;
                    self.epochs.insert(*number, key);
                }
            }
            Record::Evidence { digest, .. } => self.evidence_digest = Some(*digest),
            Record::Checkpoint { allowed, denied, time_ms, signature } => {
                let before = sequence.checked_sub(1).and_then(|before| self.hashes.get(&before));
                let before = before.ok_or(AuditError::Malformed { what: "checkpoint" })?;
                let says = [*allowed, *denied, *time_ms];
                let message = checkpoint_message(&self.digest, sequence, before, says);
                // GUARD: audit-checkpoint-signature -> evil_host_edits_a_record
                if !verifies(&self.genesis.public_key, &message, signature) {
                    return Err(AuditError::Edited { sequence });
                }
                self.signed = sequence;
            }
            _ => return Err(AuditError::Malformed { what: "a record in the clear" }),
        }
        Ok(())
    }

    fn open(&self, sequence: u64, epoch: u32, ciphertext: &[u8]) -> Result<Told, AuditError> {
        let Some(key) = self.epochs.get(&epoch) else { return Ok(Told::Sealed { sequence }) };
        let record = Record::parse(&key.open(&self.digest, sequence, ciphertext)?)?;
        if record.is_clear() {
            return Err(AuditError::Malformed { what: "a sealed record" });
        }
        Ok(Told::Record { sequence, record })
    }

    fn take_gap(&mut self, gap: &Gap, rest: &[Frame]) -> Result<(), AuditError> {
        if gap.first > self.next {
            return Err(self.jump(gap.first, rest));
        }
        let before = gap.first.checked_sub(1).and_then(|before| self.hashes.get(&before));
        let Some(before) = before else {
            return Err(AuditError::Reordered { expected: self.next, found: gap.first });
        };
        // GUARD: audit-gap-signature -> evil_host_makes_a_gap
        if !verifies(&self.genesis.public_key, &gap.signed(&self.digest, before), &gap.signature) {
            return Err(AuditError::Forged { what: "a gap" });
        }
        if gap.last < self.next {
            // Records that the reader has: they have to be those that the gap stands for.
            let known = self.hashes.get(&gap.last);
            if known.is_some_and(|known| *known != gap.after) {
                return Err(AuditError::Edited { sequence: gap.last });
            }
            return Ok(());
        }
        self.hashes.insert(gap.last, gap.after);
        self.signed = self.signed.max(gap.last);
        self.next = gap.last.saturating_add(1);
        self.told.push(Told::Gap(gap.clone()));
        Ok(())
    }

    /// Requires that a head is by this audit's key and says what the records say; with a nonce, that it is the answer to it.
    ///
    /// # Errors
    /// `AUDIT_RESTARTED`, `AUDIT_FORGED`, `AUDIT_REPLAYED`, `AUDIT_TAIL_CUT`, `AUDIT_EDITED`.
    pub fn require_head(&self, head: &Head, nonce: Option<&[u8]>) -> Result<(), AuditError> {
        self.require_signature(head, nonce)?;
        // GUARD: audit-tail-is-there -> evil_host_cuts_the_tail
        if head.sequence >= self.next {
            return Err(AuditError::TailCut { head: head.sequence, found: self.next.saturating_sub(1) });
        }
        let known = self.hashes.get(&head.sequence);
        // GUARD: audit-head-hash -> evil_host_swaps_a_record_for_another
        if known.is_some_and(|known| *known != head.hash) {
            return Err(AuditError::Edited { sequence: head.sequence });
        }
        Ok(())
    }

    /// As [`Story::require_head`] where records cannot leave the guest: that the head is by this audit's key and fresh.
    ///
    /// # Errors
    /// `AUDIT_RESTARTED`, `AUDIT_FORGED`, `AUDIT_REPLAYED`.
    pub fn require_signature(&self, head: &Head, nonce: Option<&[u8]>) -> Result<(), AuditError> {
        // GUARD: audit-head-of-this-genesis -> evil_host_restarts_the_agent
        if head.genesis != self.digest {
            return Err(AuditError::Restarted);
        }
        head.verify(&self.genesis.public_key)?;
        // GUARD: audit-fresh-head -> evil_host_replays_an_old_head
        if nonce.is_some_and(|nonce| nonce != head.nonce) {
            return Err(AuditError::Replayed);
        }
        Ok(())
    }

    /// Requires that the audit began with this initdata.
    ///
    /// # Errors
    /// `AUDIT_INITDATA`.
    pub fn require_initdata(&self, digest: &[u8]) -> Result<(), AuditError> {
        // GUARD: audit-initdata -> evil_host_starts_the_guest_with_other_initdata
        if self.genesis.initdata != digest {
            let found = hex::encode(&self.genesis.initdata);
            let found = if found.is_empty() { "none".to_owned() } else { found };
            return Err(AuditError::Initdata { expected: hex::encode(digest), found });
        }
        Ok(())
    }

    /// Requires that a signature covers every record: a checkpoint, a gap, or one of these heads.
    ///
    /// # Errors
    /// `AUDIT_UNSIGNED`.
    pub fn require_signed(&self, heads: &[&Head]) -> Result<(), AuditError> {
        let head = heads.iter().map(|head| head.sequence).max().unwrap_or_default();
        let signed = self.signed.max(head);
        // GUARD: audit-all-signed -> evil_host_adds_records_at_the_end
        if signed.saturating_add(1) < self.next {
            return Err(AuditError::Unsigned { from: signed.saturating_add(1) });
        }
        Ok(())
    }

    /// Requires that no record was handed to somebody else: acknowledged and not among those that were read.
    ///
    /// # Errors
    /// `AUDIT_MISSING`.
    pub fn require_all_handed_over(&self) -> Result<(), AuditError> {
        for told in &self.told {
            if let Told::Gap(gap) = told {
                // GUARD: audit-acknowledged-elsewhere -> evil_host_acknowledges_for_the_operator
                if gap.reason == GapReason::Acknowledged {
                    return Err(AuditError::Missing {
                        expected: gap.first,
                        found: gap.last.saturating_add(1),
                    });
                }
            }
        }
        Ok(())
    }

    /// The evidence that came with the frames, if it is what the audit says it is.
    ///
    /// # Errors
    /// `AUDIT_UNATTESTED`: none, or another one than the chain names.
    pub fn evidence(&self) -> Result<&[u8], AuditError> {
        let evidence = self.evidence.as_deref().ok_or(AuditError::Unattested)?;
        let is_other = self.evidence_digest.is_some_and(|named| named != super::sha512(evidence));
        // GUARD: audit-evidence-of-the-chain -> evil_host_swaps_the_evidence
        if is_other {
            return Err(AuditError::Unattested);
        }
        Ok(evidence)
    }

    /// What the audit began with.
    #[must_use]
    pub const fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// What evidence has to commit to.
    #[must_use]
    pub const fn genesis_digest(&self) -> &Hash {
        &self.digest
    }

    /// What it says, in order.
    #[must_use]
    pub fn told(&self) -> &[Told] {
        &self.told
    }

    /// Heads that came with the frames; nothing of them was verified.
    #[must_use]
    pub fn heads(&self) -> &[Head] {
        &self.heads
    }

    /// The number of the next record.
    #[must_use]
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// What the records that could be read, and gaps, stand for.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for told in &self.told {
            tally.add(match told {
                Told::Record { record, .. } => Tally::of(record),
                Told::Gap(gap) => gap.tally,
                Told::Sealed { .. } => Tally::default(),
            });
        }
        tally
    }

    /// Denials that records and gaps stand for.
    #[must_use]
    pub fn denied(&self) -> u64 {
        self.tally().denied
    }
}
