//! Evidence that a platform has just given: parsed, and its report data compared, before anything else.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use evidence::EvidenceError;
use evidence::abi::event_log::EventLog;
use evidence::abi::json::{SnpCertificate, SnpEvidence, TdxEvidence};
use evidence::abi::snp::{REPORT_BYTES, SnpReport};
use evidence::abi::tdx::TdxQuote;

use crate::error::TeeError;
use crate::report_data::ReportData;
use crate::tee::Tee;

/// Evidence about the report data that was asked for. Verified by nobody yet: that is the relying party's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    pub(crate) form: Form,
}

/// What the evidence consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one at a time, never in a collection")]
pub(crate) enum Form {
    /// Evidence of another kind in the text that upstream gives it.
    Json { tee: Tee, text: String },
    /// A report and the certificates that the host delivered with it.
    Snp(SnpEvidence),
    /// A quote and the log that leads to its registers.
    Tdx { quote: Vec<u8>, parsed: Box<TdxQuote>, event_log: Option<EventLog> },
}

impl Evidence {
    /// A TDX quote as it came, with the zero bytes that some quoting services put after it.
    ///
    /// # Errors
    /// `ATTEST_EVIDENCE_EMPTY`, `ATTEST_EVIDENCE_INVALID`, `ATTEST_REPORT_DATA_MISMATCH`.
    pub(crate) fn tdx(bytes: &[u8], asked: &ReportData) -> Result<Self, TeeError> {
        const WHAT: &str = "TDX quote";
        not_empty(
            WHAT,
            bytes,
            "the quoting service of the host (QGS) is not running, or the host refuses to quote",
        )?;
        let refused = |source| TeeError::Evidence { what: WHAT, source };
        let quote = TdxQuote::without_padding(bytes).map_err(refused)?.to_vec();
        let parsed = TdxQuote::parse(&quote).map_err(refused)?;
        same_report_data(WHAT, asked, &parsed.body.report_data.0)?;
        Ok(Self { form: Form::Tdx { quote, parsed: Box::new(parsed), event_log: None } })
    }

    /// An SNP report as it came, with the certificates that the host delivered.
    ///
    /// # Errors
    /// `ATTEST_EVIDENCE_EMPTY`, `ATTEST_EVIDENCE_INVALID`, `ATTEST_REPORT_DATA_MISMATCH`.
    pub(crate) fn snp(
        bytes: &[u8],
        certificates: Option<Vec<SnpCertificate>>,
        asked: &ReportData,
    ) -> Result<Self, TeeError> {
        const WHAT: &str = "SNP report";
        not_empty(WHAT, bytes, "the host does not pass requests to the secure processor")?;
        let report = SnpReport::parse(bytes).map_err(|source| TeeError::Evidence { what: WHAT, source })?;
        same_report_data(WHAT, asked, &report.report_data.0)?;
        Ok(Self { form: Form::Snp(SnpEvidence { report, certificates }) })
    }

    /// Evidence that proves nothing, in upstream's form for it: its verifier compares what was asked byte for byte, so that nothing is padded.
    pub(crate) fn sample(asked: &[u8]) -> Self {
        let data = STANDARD.encode(asked);
        let text = format!("{{\"report_data\":\"{data}\",\"svn\":\"1\"}}");
        Self { form: Form::Json { tee: Tee::Sample, text } }
    }

    /// Evidence that somebody else made, as text; nothing of it is verified.
    ///
    /// # Errors
    /// `EVIDENCE_MALFORMED` and its kin for text that is neither TDX nor SNP evidence.
    pub fn parse(json: &[u8]) -> Result<Self, EvidenceError> {
        match TdxEvidence::parse(json) {
            Ok(TdxEvidence { quote, event_log }) => {
                let parsed = Box::new(TdxQuote::parse(&quote)?);
                let event_log = event_log.as_deref().map(EventLog::parse).transpose()?;
                Ok(Self { form: Form::Tdx { quote, parsed, event_log } })
            }
            // The members decide what it was meant to be.
            Err(error) if is_object_with(json, "quote") => Err(error),
            Err(_) => Ok(Self { form: Form::Snp(SnpEvidence::parse(json)?) }),
        }
    }

    /// The platform.
    #[must_use]
    pub const fn tee(&self) -> Tee {
        match &self.form {
            Form::Json { tee, .. } => *tee,
            Form::Snp(_) => Tee::Snp,
            Form::Tdx { .. } => Tee::Tdx,
        }
    }

    /// The text of upstream's attestation agent: compact JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        match &self.form {
            Form::Json { text, .. } => text.clone(),
            Form::Snp(evidence) => evidence.encode(),
            Form::Tdx { quote, event_log, .. } => {
                let event_log = event_log.as_ref().map(EventLog::encode);
                TdxEvidence { event_log, quote: quote.clone() }.encode()
            }
        }
    }

    /// The TDX quote, where it is one.
    #[must_use]
    pub fn tdx_quote(&self) -> Option<&TdxQuote> {
        match &self.form {
            Form::Tdx { parsed, .. } => Some(parsed),
            _ => None,
        }
    }

    /// The SNP report, where it is one.
    #[must_use]
    pub const fn snp_report(&self) -> Option<&SnpReport> {
        match &self.form {
            Form::Snp(evidence) => Some(&evidence.report),
            _ => None,
        }
    }

    /// The event log, where there is one.
    #[must_use]
    pub const fn event_log(&self) -> Option<&EventLog> {
        match &self.form {
            Form::Tdx { event_log, .. } => event_log.as_ref(),
            _ => None,
        }
    }
}

/// Whether the text is an object with this member. Its size was judged by whoever read it.
fn is_object_with(json: &[u8], member: &str) -> bool {
    serde_json::from_slice::<serde_json::Value>(json).is_ok_and(|value| value.get(member).is_some())
}

/// Refuses nothing at all in place of evidence, and zeros, which some hosts give for it.
fn not_empty(what: &'static str, bytes: &[u8], cause: &'static str) -> Result<(), TeeError> {
    let zeros = bytes.iter().all(|byte| *byte == 0);
    // GUARD: evidence-not-empty -> evil_host_empty_quote
    if zeros {
        let found =
            if bytes.is_empty() { "nothing".to_owned() } else { format!("{} zero bytes", bytes.len()) };
        return Err(TeeError::Empty { what, found, cause });
    }
    // GUARD: evidence-not-short -> evil_host_short_quote
    if bytes.len() < SHORTEST {
        return Err(TeeError::Empty { what, found: format!("{} bytes", bytes.len()), cause });
    }
    Ok(())
}

/// No quote and no report is shorter.
const SHORTEST: usize = 632;
const _: () = assert!(SHORTEST < REPORT_BYTES, "a report is no short answer");

fn same_report_data(what: &'static str, asked: &ReportData, found: &[u8; 64]) -> Result<(), TeeError> {
    // GUARD: report-data-compared -> evil_host_quote_with_other_report_data
    if asked.as_bytes() != found {
        return Err(TeeError::ReportData {
            what,
            expected: hex::encode(asked.as_bytes()),
            found: hex::encode(found),
        });
    }
    Ok(())
}

/// The refusal of a platform whose evidence has no binary presentation.
pub(crate) fn no_presentation(tee: Tee) -> EvidenceError {
    EvidenceError::Unsupported {
        what: "evidence to present",
        expected: "TDX or SEV-SNP",
        found: evidence::error::Found::text(tee.name()),
    }
}
