//! Events of the attestation agent: `<domain> <operation> <content>` in a tagged event of the log.

use crate::bytes::{Reader, length_u32, limit};
use crate::error::{EvidenceError, Found};

/// Longest text of an event.
pub const MAXIMUM_TEXT_BYTES: usize = 64 * 1024;
/// `AAEL`, as the tag id reads on disk `4c 45 41 41`.
const TAG: u32 = 0x4141_454c;

/// An event of the attestation agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AaelEvent {
    domain: String,
    operation: String,
    content: String,
}

impl AaelEvent {
    /// An event; no part can shift into the next one.
    ///
    /// # Errors
    /// `EVIDENCE_MALFORMED` for an empty domain or operation, blanks in them, or control characters anywhere;
    /// `EVIDENCE_TOO_LARGE`.
    pub fn new(domain: &str, operation: &str, content: &str) -> Result<Self, EvidenceError> {
        let word = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        // GUARD: aael-words -> evil_event_text_cannot_shift_fields
        if !word(domain) || !word(operation) {
            return Err(EvidenceError::Malformed {
                what: "event domain and operation",
                expected: "printable ASCII without blanks, not empty",
                found: Found::text(&format!("{domain} {operation}")),
            });
        }
        // GUARD: aael-content -> evil_event_text_cannot_shift_fields
        if content.chars().any(char::is_control) {
            return Err(EvidenceError::Malformed {
                what: "event content",
                expected: "no control characters",
                found: Found::text(content),
            });
        }
        let event =
            Self { domain: domain.to_owned(), operation: operation.to_owned(), content: content.to_owned() };
        limit("event text", MAXIMUM_TEXT_BYTES, event.text().len())?;
        Ok(event)
    }

    /// Who logs, a URI.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// What was done.
    #[must_use]
    pub fn operation(&self) -> &str {
        &self.operation
    }

    /// With what.
    #[must_use]
    pub fn content(&self) -> &str {
        &self.content
    }

    /// The three parts with blanks between them.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{} {} {}", self.domain, self.operation, self.content)
    }

    /// The event's data: tag, length, text. The digest of the entry is over exactly these bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let text = self.text();
        let mut out = Vec::with_capacity(8 + text.len());
        out.extend(TAG.to_le_bytes());
        out.extend(length_u32(text.len()));
        out.extend(text.as_bytes());
        out
    }

    /// Whether an event's data claims to be of the attestation agent.
    #[must_use]
    pub fn is_tagged(data: &[u8]) -> bool {
        data.starts_with(&TAG.to_le_bytes())
    }

    /// Parses an event's data.
    ///
    /// # Errors
    /// `EVIDENCE_MALFORMED`, `EVIDENCE_TOO_LARGE`, `EVIDENCE_TRAILING_BYTES`, `EVIDENCE_UNSUPPORTED`.
    pub fn parse(data: &[u8]) -> Result<Self, EvidenceError> {
        let mut reader = Reader::new("attestation agent event", data);
        let tag = reader.u32()?;
        // GUARD: aael-tag -> evil_event_of_another_tag_is_refused
        if tag != TAG {
            return Err(EvidenceError::Unsupported {
                what: "event tag",
                expected: "4141454c (AAEL)",
                found: Found::value(format_args!("{tag:08x}")),
            });
        }
        let length = reader.length("event text", MAXIMUM_TEXT_BYTES)?;
        let text = reader.take(length)?;
        reader.finish()?;
        let malformed = |found| EvidenceError::Malformed {
            what: "event text",
            expected: "domain, operation and content in UTF-8 with blanks between them",
            found,
        };
        let text = std::str::from_utf8(text).map_err(|error| malformed(Found::value(error)))?;
        let mut parts = text.splitn(3, ' ');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(domain), Some(operation), Some(content)) => Self::new(domain, operation, content),
            _ => Err(malformed(Found::text(text))),
        }
    }
}
