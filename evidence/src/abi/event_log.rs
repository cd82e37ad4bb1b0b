//! Event logs in the TCG2 framing: the firmware's (CCEL) with the runtime log of the guest behind it.

use crate::abi::aael::AaelEvent;
use crate::bytes::{Reader, length_u32, limit};
use crate::error::{EvidenceError, Found};
use sha2::{Digest, Sha384};

/// Longest log.
pub const MAXIMUM_LOG_BYTES: usize = 1024 * 1024;
/// Most entries of a log.
pub const MAXIMUM_ENTRIES: usize = 16_384;
/// Longest data of one event.
pub const MAXIMUM_EVENT_BYTES: usize = 256 * 1024;
/// Most digests of one entry, and algorithms of a header.
pub const MAXIMUM_ALGORITHMS: usize = 8;
/// `EV_NO_ACTION`.
pub const EV_NO_ACTION: u32 = 3;
/// `EV_EVENT_TAG`.
pub const EV_EVENT_TAG: u32 = 6;
const TERMINATOR: [u8; 8] = [0xff; 8];
const SPEC_ID: [u8; 16] = *b"Spec ID Event03\0";

/// Digest algorithms that logs use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogAlgorithm {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
    /// SM3.
    Sm3,
}

impl LogAlgorithm {
    /// The algorithm with this TCG number.
    #[must_use]
    pub const fn of_id(id: u16) -> Option<Self> {
        match id {
            0x0b => Some(Self::Sha256),
            0x0c => Some(Self::Sha384),
            0x0d => Some(Self::Sha512),
            0x12 => Some(Self::Sm3),
            _ => None,
        }
    }

    /// The TCG number.
    #[must_use]
    pub const fn id(self) -> u16 {
        match self {
            Self::Sha256 => 0x0b,
            Self::Sha384 => 0x0c,
            Self::Sha512 => 0x0d,
            Self::Sm3 => 0x12,
        }
    }

    /// Length of a digest.
    #[must_use]
    pub const fn digest_bytes(self) -> usize {
        match self {
            Self::Sha256 | Self::Sm3 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

/// An event log. Nothing in it is true before it [replays](crate::verify::replay) to verified registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventLog {
    /// The first event.
    pub header: LogHeader,
    /// All others.
    pub entries: Vec<LogEntry>,
    /// Whether eight bytes of ones stand at the end, as in evidence.
    pub terminated: bool,
}

/// First event of a log: which algorithms it uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogHeader {
    /// Register index of the event, as it stood there.
    pub index: u32,
    /// Whether the specification's signature stands in the event; upstream's fallback header has zeros.
    pub signed_spec_id: bool,
    /// Platform class, specification version and word size, as they stood there.
    pub versions: [u8; 8],
    /// Algorithms.
    pub algorithms: Vec<LogAlgorithm>,
    /// Bytes of the vendor.
    pub vendor: Vec<u8>,
}

/// One entry of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Register, counted as the platform counts: on TDX 1 to 4 for RTMR 0 to 3.
    pub index: u32,
    /// Type of the event.
    pub event_type: u32,
    /// Digests, in the order of the log.
    pub digests: Vec<(LogAlgorithm, Vec<u8>)>,
    /// Data of the event.
    pub data: Vec<u8>,
}

impl LogHeader {
    /// The header that evidence has where firmware gives none: SHA-384 and SM3.
    #[must_use]
    pub fn fallback() -> Self {
        Self {
            index: 0,
            signed_spec_id: false,
            versions: [0; 8],
            algorithms: vec![LogAlgorithm::Sha384, LogAlgorithm::Sm3],
            vendor: Vec::new(),
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, EvidenceError> {
        let index = reader.u32()?;
        let event_type = reader.u32()?;
        if event_type != EV_NO_ACTION {
            return Err(malformed("type of the first event", "3 (EV_NO_ACTION)", event_type));
        }
        reader.reserved(20)?;
        let length = reader.length("first event", MAXIMUM_EVENT_BYTES)?;
        let mut event = Reader::new("Spec ID event", reader.take(length)?);
        let signature: [u8; 16] = event.array()?;
        let signed_spec_id = signature == SPEC_ID;
        if !signed_spec_id && signature != [0; 16] {
            return Err(malformed("Spec ID event", "its signature or zeros", hex::encode(signature)));
        }
        let versions = event.array()?;
        let count = event.length("algorithms of a log", MAXIMUM_ALGORITHMS)?;
        let mut algorithms = Vec::with_capacity(count);
        for _ in 0..count {
            let algorithm = algorithm(event.u16()?)?;
            let size = usize::from(event.u16()?);
            // GUARD: log-algorithm-size -> evil_log_with_wrong_digest_size_is_refused
            if size != algorithm.digest_bytes() {
                return Err(malformed("digest size in the Spec ID event", "that of its algorithm", size));
            }
            algorithms.push(algorithm);
        }
        let vendor_length = usize::from(event.u8()?);
        let vendor = event.take(vendor_length)?.to_vec();
        event.finish()?;
        Ok(Self { index, signed_spec_id, versions, algorithms, vendor })
    }

    fn encode_into(&self, out: &mut Vec<u8>) {
        let mut event = Vec::with_capacity(64 + self.vendor.len());
        event.extend(if self.signed_spec_id { SPEC_ID } else { [0; 16] });
        event.extend(self.versions);
        event.extend(length_u32(self.algorithms.len()));
        for algorithm in &self.algorithms {
            event.extend(algorithm.id().to_le_bytes());
            event.extend(u16::try_from(algorithm.digest_bytes()).unwrap_or(u16::MAX).to_le_bytes());
        }
        event.push(u8::try_from(self.vendor.len()).unwrap_or(u8::MAX));
        event.extend(&self.vendor);
        out.extend(self.index.to_le_bytes());
        out.extend(EV_NO_ACTION.to_le_bytes());
        out.extend([0; 20]);
        out.extend(length_u32(event.len()));
        out.extend(event);
    }
}

impl LogEntry {
    /// An entry with one SHA-384 digest over its data, as the guest's own entries have.
    #[must_use]
    pub fn new(index: u32, event_type: u32, data: Vec<u8>) -> Self {
        let digest = Sha384::digest(&data).to_vec();
        Self { index, event_type, digests: vec![(LogAlgorithm::Sha384, digest)], data }
    }

    /// The digest in `algorithm`.
    #[must_use]
    pub fn digest(&self, algorithm: LogAlgorithm) -> Option<&[u8]> {
        let mut digests = self.digests.iter();
        digests.find(|(found, _)| *found == algorithm).map(|(_, digest)| digest.as_slice())
    }

    /// Whether the SHA-384 digest is over the data; firmware digests other things in many of its events.
    #[must_use]
    pub fn digest_is_over_data(&self) -> bool {
        self.digest(LogAlgorithm::Sha384)
            .is_some_and(|digest| digest == Sha384::digest(&self.data).as_slice())
    }

    /// The event of the attestation agent, where the data is one.
    #[must_use]
    pub fn aael(&self) -> Option<AaelEvent> {
        if self.event_type != EV_EVENT_TAG {
            return None;
        }
        AaelEvent::parse(&self.data).ok()
    }

    fn read(reader: &mut Reader<'_>, header: &LogHeader) -> Result<Self, EvidenceError> {
        let index = reader.u32()?;
        let event_type = reader.u32()?;
        let count = reader.length("digests of an entry", MAXIMUM_ALGORITHMS)?;
        let mut digests: Vec<(LogAlgorithm, Vec<u8>)> = Vec::with_capacity(count);
        for _ in 0..count {
            let algorithm = algorithm(reader.u16()?)?;
            // GUARD: log-algorithm-declared -> evil_log_with_undeclared_algorithm_is_refused
            if !header.algorithms.contains(&algorithm) {
                let expected = "an algorithm that the Spec ID event declares";
                return Err(malformed("digest algorithm of an entry", expected, algorithm.id()));
            }
            // GUARD: log-algorithm-once -> evil_log_with_two_digests_of_an_algorithm_is_refused
            if digests.iter().any(|(known, _)| *known == algorithm) {
                return Err(malformed("digests of an entry", "one per algorithm", "a second one"));
            }
            digests.push((algorithm, reader.take(algorithm.digest_bytes())?.to_vec()));
        }
        let length = reader.length("event data", MAXIMUM_EVENT_BYTES)?;
        Ok(Self { index, event_type, digests, data: reader.take(length)?.to_vec() })
    }

    /// The entry's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(80 + self.data.len());
        out.extend(self.index.to_le_bytes());
        out.extend(self.event_type.to_le_bytes());
        out.extend(length_u32(self.digests.len()));
        for (algorithm, digest) in &self.digests {
            out.extend(algorithm.id().to_le_bytes());
            out.extend(digest);
        }
        out.extend(length_u32(self.data.len()));
        out.extend(&self.data);
        out
    }
}

impl EventLog {
    /// Parses the log of evidence: header, entries, then the end or one terminator and the end.
    ///
    /// # Errors
    /// `EVIDENCE_MALFORMED`, `EVIDENCE_TOO_LARGE`, `EVIDENCE_TRAILING_BYTES`, `EVIDENCE_UNSUPPORTED`.
    pub fn parse(bytes: &[u8]) -> Result<Self, EvidenceError> {
        let (log, rest) = Self::read(bytes, |rest| rest.starts_with(&TERMINATOR))?;
        rest.finish()?;
        Ok(log)
    }

    /// Parses a CCEL table: the log ends where eight bytes of ones or zeros stand in place of an entry; what is
    /// behind them is not looked at.
    ///
    /// # Errors
    /// `EVIDENCE_MALFORMED`, `EVIDENCE_TOO_LARGE`, `EVIDENCE_UNSUPPORTED`.
    pub fn parse_ccel(bytes: &[u8]) -> Result<Self, EvidenceError> {
        let fill = |rest: &[u8]| rest.starts_with(&TERMINATOR) || rest.starts_with(&[0; 8]);
        let (mut log, _) = Self::read(bytes, fill)?;
        log.terminated = false;
        Ok(log)
    }

    /// Parses entries without a header, as the runtime log is kept in the guest.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_entries(bytes: &[u8]) -> Result<Vec<LogEntry>, EvidenceError> {
        limit("event log", MAXIMUM_LOG_BYTES, bytes.len())?;
        let mut reader = Reader::new("event log", bytes);
        let every = [LogAlgorithm::Sha256, LogAlgorithm::Sha384, LogAlgorithm::Sha512, LogAlgorithm::Sm3];
        let header = LogHeader { algorithms: every.to_vec(), ..LogHeader::fallback() };
        let (entries, _) = entries(&mut reader, &header, |_| false)?;
        Ok(entries)
    }

    /// The log that goes into evidence: the firmware's, or a fallback header, then the runtime log, then a
    /// terminator. Nothing where there is neither.
    ///
    /// # Errors
    /// As [`parse_ccel`](Self::parse_ccel) and [`parse_entries`](Self::parse_entries); as [`parse`](Self::parse) for a
    /// log that no verifier would take.
    pub fn assemble(ccel: Option<&[u8]>, runtime: Option<&[u8]>) -> Result<Option<Self>, EvidenceError> {
        if ccel.is_none() && runtime.is_none() {
            return Ok(None);
        }
        let mut log = match ccel {
            Some(table) => Self::parse_ccel(table)?,
            None => Self { header: LogHeader::fallback(), entries: Vec::new(), terminated: true },
        };
        log.entries.extend(Self::parse_entries(runtime.unwrap_or_default())?);
        log.terminated = true;
        // Caps, digests that the table's header does not declare, entries that begin as the terminator does.
        // GUARD: assembled-log-parses -> evil_log_that_no_verifier_reads_is_not_assembled
        Self::parse(&log.encode())?;
        Ok(Some(log))
    }

    fn read<'a>(
        bytes: &'a [u8],
        is_end: impl Fn(&[u8]) -> bool,
    ) -> Result<(Self, Reader<'a>), EvidenceError> {
        limit("event log", MAXIMUM_LOG_BYTES, bytes.len())?;
        let mut reader = Reader::new("event log", bytes);
        let header = LogHeader::read(&mut reader)?;
        let (entries, terminated) = entries(&mut reader, &header, is_end)?;
        Ok((Self { header, entries, terminated }, reader))
    }

    /// The log's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.header.encode_into(&mut out);
        self.entries.iter().for_each(|entry| out.extend(entry.encode()));
        if self.terminated {
            out.extend(TERMINATOR);
        }
        out
    }
}

/// Entries up to the end of the bytes or a terminator, which is taken.
fn entries(
    reader: &mut Reader<'_>,
    header: &LogHeader,
    is_end: impl Fn(&[u8]) -> bool,
) -> Result<(Vec<LogEntry>, bool), EvidenceError> {
    let mut entries = Vec::new();
    while !reader.rest().is_empty() {
        if is_end(reader.rest()) {
            reader.take(TERMINATOR.len())?;
            return Ok((entries, true));
        }
        limit("event log entries", MAXIMUM_ENTRIES, entries.len() + 1)?;
        entries.push(LogEntry::read(reader, header)?);
    }
    Ok((entries, false))
}

fn algorithm(id: u16) -> Result<LogAlgorithm, EvidenceError> {
    LogAlgorithm::of_id(id).ok_or_else(|| EvidenceError::Unsupported {
        what: "digest algorithm of a log",
        expected: "11, 12, 13 or 18",
        found: Found::value(id),
    })
}

fn malformed(what: &'static str, expected: &'static str, found: impl std::fmt::Display) -> EvidenceError {
    EvidenceError::Malformed { what, expected, found: Found::value(found) }
}
