//! The audit of a running guest.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use protocol::Endpoint;
use protocol::endpoint::Effect;

use super::epoch::{EpochKey, OperatorKey};
use super::error::AuditError;
use super::frame::{Frame, MAX_EVIDENCE, ORIGIN, Tally, chained};
use super::kinds::{FIRST_INTERVAL, Kind, has_effect, kind_of, now_ms, recorded, shown};
use super::record::{Genesis, Hash, Record, Repeats, Ruling};
use super::retention::{Keep, Retention};
use super::sign::{AuditKey, Head, NONCE_BYTES, SIGNATURE_BYTES, checkpoint_message};
use crate::explain::Reason;

/// Memory for records that nobody acknowledged.
const CAPACITY_BYTES: usize = 1 << 20;
/// Kinds of decisions that are told apart and counted.
const MAX_DISTINCT: usize = 1024;
/// Records of an epoch after which acknowledging begins another, and after which one begins in any case.
const EPOCH_AT_ACKNOWLEDGE: u64 = 256;
const EPOCH_LONGEST: u64 = 1 << 24;
/// Longest answer to a read.
const MAX_PAGE: usize = 1 << 20;

/// What an audit begins with, beside what it makes itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Digest of the initdata that the guest was started with (32, 48 or 64 bytes), or empty.
    pub initdata_digest: Vec<u8>,
    /// Names of the insecure modes that are on.
    pub insecure: Vec<String>,
    /// Version of the agent.
    pub agent: String,
}

/// A decision, as the gate tells it.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// The method.
    pub endpoint: Endpoint,
    /// What the policy said.
    pub ruling: Ruling,
    /// Code of the denial; empty where there is none.
    pub code: &'a str,
    /// Why it was denied.
    pub reasons: &'a [Reason],
    /// The request's trace id.
    pub trace: &'a str,
}

/// A decision that was taken down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "what became of an effect is recorded with it"]
pub struct Sequence {
    number: u64,
    /// How long the record of its outcome is kept; `None`: there is none.
    outcome: Option<Keep>,
}

/// What a read gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Records {
    /// Frames.
    pub frames: Vec<u8>,
    /// Where to go on.
    pub next: u64,
}

/// The audit. All by `&self`; what it does under its lock takes microseconds, signatures excepted.
#[derive(Debug)]
pub struct Audit {
    key: AuditKey,
    genesis: Hash,
    genesis_frame: Vec<u8>,
    operator: Option<OperatorKey>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    next: u64,
    hash: Hash,
    retention: Retention,
    sealing: EpochKey,
    /// First sequence number of the epoch that is on.
    epoch_began: u64,
    /// Records of epochs that are kept, by their sequence numbers.
    epochs: Vec<u64>,
    allowed: u64,
    denied: u64,
    /// What has a record: counted afterwards.
    kinds: HashMap<[u8; 32], Kind>,
    /// The last sequence number that a checkpoint of the chain covers.
    signed: u64,
    evidence: Option<Arc<[u8]>>,
}

impl Audit {
    /// Begins an audit with a fresh key. Without an operator's key records never leave the guest.
    ///
    /// # Errors
    /// `AUDIT_RANDOM`, `AUDIT_MALFORMED` for a digest of another length or more than 32 insecure modes.
    pub fn start(facts: Facts, operator: Option<OperatorKey>) -> Result<Self, AuditError> {
        Self::with_capacity(facts, operator, CAPACITY_BYTES)
    }

    pub(super) fn with_capacity(
        facts: Facts,
        operator: Option<OperatorKey>,
        capacity: usize,
    ) -> Result<Self, AuditError> {
        let key = AuditKey::generate()?;
        let Facts { initdata_digest, mut insecure, agent } = facts;
        insecure.sort_unstable();
        insecure.dedup();
        let genesis = Record::Genesis(Genesis {
            boot_nonce: random()?,
            initdata: initdata_digest,
            public_key: key.public()?,
            insecure,
            operator: operator.as_ref().map(|operator| operator.id().clone()),
            agent,
            time_ms: now_ms(),
        });
        // What nobody could read is not begun.
        Record::parse(&genesis.encode())?;
        let frame = Frame::Clear { sequence: 0, record: genesis };
        let hash = chained(&ORIGIN, &frame.body());
        let mut retention = Retention::new(capacity);
        let genesis_frame = frame.encode();
        let others = Tally { others: 1, ..Tally::default() };
        retention.push(0, Some(genesis_frame.clone()), Keep::Always, others, hash);
        let state = State {
            next: 1,
            hash,
            retention,
            // Of nobody: what it seals is read by nobody, and the chain shows nothing that could be guessed.
            sealing: EpochKey::new(0, &random()?)?,
            epoch_began: 1,
            epochs: Vec::new(),
            allowed: 0,
            denied: 0,
            kinds: HashMap::new(),
            signed: 0,
            evidence: None,
        };
        let audit = Self { key, genesis: hash, genesis_frame, operator, state: Mutex::new(state) };
        audit.begin_epoch(&mut audit.state())?;
        Ok(audit)
    }

    /// What evidence commits to: the hash of the genesis.
    #[must_use]
    pub const fn genesis_digest(&self) -> &Hash {
        &self.genesis
    }

    /// The genesis as a frame, which is no secret.
    #[must_use]
    pub fn genesis(&self) -> &[u8] {
        &self.genesis_frame
    }

    /// Takes down a decision, before anything comes of it. What has an effect, and the first of each kind, has a record of
    /// its own; the rest is counted.
    pub fn decided(&self, entry: &Entry<'_>) -> Sequence {
        let mut state = self.state();
        let is_denied = entry.ruling == Ruling::Denied;
        let has_effect = !is_denied && has_effect(entry.endpoint);
        let total = if is_denied { &mut state.denied } else { &mut state.allowed };
        *total = total.saturating_add(1);
        let now = Instant::now();
        let kind = if has_effect { None } else { Some(kind_of(entry)) };
        if let Some(known) = kind.as_ref().and_then(|kind| state.kinds.get_mut(kind)) {
            known.pending = known.pending.saturating_add(1);
            known.trace = shown(entry.trace).into();
            let number = known.first;
            let due = known.due(now, known.interval);
            if let Some(repeats) = due {
                self.append(&mut state, Record::Repeats(repeats), Keep::Shortly);
            }
            return Sequence { number, outcome: None };
        }
        let number = state.next;
        let is_new = kind.is_some() && state.kinds.len() < MAX_DISTINCT;
        let keep = match (has_effect, is_denied) {
            (true, _) if entry.endpoint.effect() == Effect::Waits => Keep::Shortly,
            (true, _) => Keep::Longer,
            (false, true) if is_new => Keep::Longest,
            (false, true) => Keep::Longer,
            (false, false) => Keep::Shortly,
        };
        if let Some(kind) = kind.filter(|_| is_new) {
            let counted = Kind {
                first: number,
                endpoint: entry.endpoint,
                ruling: entry.ruling,
                code: entry.code.into(),
                trace: "".into(),
                pending: 0,
                recorded: now,
                interval: FIRST_INTERVAL,
            };
            state.kinds.insert(kind, counted);
        }
        self.append(&mut state, Record::Decision(recorded(entry)), keep);
        Sequence { number, outcome: has_effect.then_some(keep) }
    }

    /// Takes down what became of a decision: the effect is there, or the code of the error. For what has no effect this does
    /// nothing.
    pub fn outcome(&self, of: Sequence, outcome: Result<(), &str>) {
        if let Some(keep) = of.outcome {
            let error = outcome.err().map(str::to_owned);
            let record = Record::Outcome { time_ms: now_ms(), of: of.number, error };
            self.append(&mut self.state(), record, keep);
        }
    }

    /// Takes down that another policy is in force, by the SHA-256 of its text.
    pub fn policy_changed(&self, digest: [u8; 32]) {
        let record = Record::Policy { time_ms: now_ms(), digest };
        self.append(&mut self.state(), record, Keep::Longest);
    }

    /// Keeps evidence that commits to [`Audit::genesis_digest`], and takes down that there is some.
    ///
    /// # Errors
    /// `AUDIT_EVIDENCE_REFUSED` if there is some already, or it is too long.
    pub fn evidence(&self, evidence: Vec<u8>) -> Result<(), AuditError> {
        let length = u32::try_from(evidence.len()).unwrap_or(u32::MAX);
        if evidence.is_empty() || evidence.len() > MAX_EVIDENCE {
            return Err(AuditError::EvidenceRefused { reason: "expected 1 to 262144 bytes" });
        }
        let mut state = self.state();
        if state.evidence.is_some() {
            return Err(AuditError::EvidenceRefused { reason: "there is some already" });
        }
        let digest = super::sha512(&evidence);
        self.append(&mut state, Record::Evidence { length, digest }, Keep::Always);
        state.evidence = Some(evidence.into());
        Ok(())
    }

    /// The evidence, if there is some. Without it heads say `unattested`.
    #[must_use]
    pub fn evidence_bytes(&self) -> Option<Arc<[u8]>> {
        self.state().evidence.clone()
    }

    /// Signs where the audit is, for a nonce of 16 to 64 bytes.
    ///
    /// # Errors
    /// `AUDIT_NONCE`, `AUDIT_RANDOM`.
    pub fn head(&self, nonce: &[u8]) -> Result<Vec<u8>, AuditError> {
        // GUARD: audit-nonce-length -> evil_host_asks_with_a_short_nonce
        if !NONCE_BYTES.contains(&nonce.len()) {
            return Err(AuditError::Nonce { found: nonce.len() });
        }
        let head = {
            let state = self.state();
            Head {
                genesis: self.genesis,
                nonce: nonce.to_vec(),
                sequence: state.next - 1,
                hash: state.hash,
                allowed: state.allowed,
                denied: state.denied,
                attested: state.evidence.is_some(),
                time_ms: now_ms(),
                signature: [0; SIGNATURE_BYTES],
            }
        };
        Ok(head.sign(&self.key)?.encode())
    }

    /// Records from `from` on, at most `max_bytes` (64 KiB to 1 MiB are taken), at least one if there is one. Before the last
    /// of them leaves, all are signed for.
    ///
    /// # Errors
    /// `AUDIT_NO_OPERATOR`, `AUDIT_UNKNOWN_RECORD` behind the end, `AUDIT_RANDOM`.
    pub fn read(&self, from: u64, max_bytes: usize) -> Result<Records, AuditError> {
        // GUARD: audit-records-need-an-operator -> evil_host_reads_without_an_operator
        if self.operator.is_none() {
            return Err(AuditError::NoOperator);
        }
        let mut state = self.state();
        if from > state.next {
            return Err(AuditError::Unknown { found: from, last: state.next - 1 });
        }
        self.record_repeats(&mut state);
        self.checkpoint(&mut state)?;
        let most = max_bytes.clamp(64 << 10, MAX_PAGE);
        let page = state.retention.page(from, most, &self.key, &self.genesis)?;
        Ok(Records { frames: page.frames, next: page.next })
    }

    /// Gives up records before `to`: somebody keeps them. They become a signed gap that says so.
    ///
    /// # Errors
    /// `AUDIT_NO_OPERATOR`, `AUDIT_UNKNOWN_RECORD`, `AUDIT_RANDOM`.
    pub fn acknowledge(&self, to: u64) -> Result<(), AuditError> {
        if self.operator.is_none() {
            return Err(AuditError::NoOperator);
        }
        let mut state = self.state();
        if to > state.next {
            return Err(AuditError::Unknown { found: to, last: state.next - 1 });
        }
        state.retention.acknowledge(to);
        // An epoch's record goes when no record of the epoch is left.
        while let [oldest, next, ..] = *state.epochs.as_slice() {
            if next > to {
                break;
            }
            state.retention.release(oldest);
            state.epochs.remove(0);
        }
        if state.next - state.epoch_began >= EPOCH_AT_ACKNOWLEDGE {
            self.begin_epoch(&mut state)?;
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another key for what follows; the one before is gone.
    fn begin_epoch(&self, state: &mut State) -> Result<(), AuditError> {
        let Some(operator) = &self.operator else { return Ok(()) };
        let number = state.sealing.epoch() + 1;
        let (encapsulated, key) = operator.begin(&self.genesis, number)?;
        state.epochs.push(state.next);
        state.epoch_began = state.next;
        self.append(state, Record::Epoch { number, encapsulated }, Keep::Always);
        state.sealing = key;
        Ok(())
    }

    /// Signs what is not signed for yet.
    fn checkpoint(&self, state: &mut State) -> Result<(), AuditError> {
        if state.signed + 1 == state.next {
            return Ok(());
        }
        if state.next - state.epoch_began >= EPOCH_LONGEST {
            self.begin_epoch(state)?;
        }
        let (allowed, denied, time_ms) = (state.allowed, state.denied, now_ms());
        let message = checkpoint_message(&self.genesis, state.next, &state.hash, [allowed, denied, time_ms]);
        let signature = self.key.sign(&message)?;
        state.signed = state.next;
        self.append(state, Record::Checkpoint { allowed, denied, time_ms, signature }, Keep::Shortly);
        Ok(())
    }

    /// Records what was counted for a second or longer.
    fn record_repeats(&self, state: &mut State) {
        let now = Instant::now();
        let mut due: Vec<Repeats> =
            state.kinds.values_mut().filter_map(|kind| kind.due(now, FIRST_INTERVAL)).collect();
        due.sort_unstable_by_key(|repeats| repeats.first);
        for repeats in due {
            self.append(state, Record::Repeats(repeats), Keep::Shortly);
        }
    }

    /// The next record of the chain.
    fn append(&self, state: &mut State, record: Record, keep: Keep) {
        let sequence = state.next;
        let tally = Tally::of(&record);
        let frame = if record.is_clear() {
            Some(Frame::Clear { sequence, record })
        } else {
            let epoch = state.sealing.epoch();
            let sealed = state.sealing.seal(&self.genesis, sequence, record.encode());
            sealed.map(|ciphertext| Frame::Sealed { sequence, epoch, ciphertext })
        };
        // A record that could not be sealed is chained as its number and becomes a gap at once.
        let body = frame.as_ref().map_or_else(|| sequence.to_be_bytes().to_vec(), Frame::body);
        state.hash = chained(&state.hash, &body);
        state.next += 1;
        let hash = state.hash;
        let leaves = frame.filter(|_| self.operator.is_some()).map(|frame| frame.encode());
        if self.operator.is_some() {
            state.retention.push(sequence, leaves, keep, tally, hash);
        }
    }
}

fn random() -> Result<[u8; 32], AuditError> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| AuditError::Random)?;
    Ok(bytes)
}

#[cfg(test)]
impl Audit {
    pub(super) fn kept_bytes(&self) -> usize {
        self.state().retention.bytes()
    }

    /// As if the time between records of repeats had passed.
    pub(super) fn let_time_pass(&self) {
        for kind in self.state().kinds.values_mut() {
            kind.recorded =
                kind.recorded.checked_sub(super::kinds::LAST_INTERVAL * 2).unwrap_or(kind.recorded);
        }
    }
}
