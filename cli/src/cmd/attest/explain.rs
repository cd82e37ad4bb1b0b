//! `innerkeep attest explain`: evidence against a policy, every rule with what it allows and what was found.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use attestation_agent::{Collateral, Evidence};
use evidence::abi::presentation::{MAXIMUM_PRESENTATION_BYTES, Presentation};
use evidence::validate::{Floors, judge};
use evidence::verify::roots::{MAXIMUM_BUNDLE_BYTES, RootSet, Roots, TrustBundle};
use evidence::verify::tdx::Appraisal;
use evidence::verify::{Clock, VerifiedEvidence, verify_presentation};
use serde_json::json;

use crate::args::attest::{EvidenceArgs, ExplainArgs};
use crate::cmd::policy;
use crate::error::Failure;
use crate::files;
use crate::output::{Output, Report};

/// Longest evidence in JSON: a log of 1 MiB in base64, or a report in decimal numbers.
const MAXIMUM_EVIDENCE: u64 = 4 * 1024 * 1024;

/// Runs the command.
pub(super) fn run(arguments: &ExplainArgs, output: Output) -> Result<Report, Failure> {
    let policy = policy::read(&arguments.policy)?;
    let verified = verified(&arguments.evidence, output)?;
    let report_data = match &arguments.report_data {
        None => verified.report_data().0,
        Some(text) => hex::decode(text).ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| {
            Failure::Usage { argument: "--report-data", expected: "128 hex digits", found: text.clone() }
        })?,
    };
    let judgement = judge(policy.evidence(), &verified, &report_data, &Floors::default());
    let lines: Vec<String> = judgement
        .findings()
        .iter()
        .map(|finding| {
            let verdict = if finding.holds { "ok  " } else { "DENY" };
            format!("{verdict}  {:<24} expected {}, found {}", finding.rule, finding.expected, finding.found)
        })
        .collect();
    let findings: Vec<_> = judgement
        .findings()
        .iter()
        .map(|finding| {
            json!({
                "rule": finding.rule, "expected": finding.expected.to_string(), "found": finding.found.to_string(), "holds": finding.holds,
            })
        })
        .collect();
    let demanded = policy.evidence().is_some();
    let mut text = lines.join("\n");
    if !demanded {
        text.push_str("\nthe policy demands no evidence: only debug and freshness were judged");
    }
    let denied = judgement.denials().count();
    text.push_str(&match denied {
        0 => "\nevery rule holds".to_owned(),
        1 => "\n1 rule denies".to_owned(),
        more => format!("\n{more} rules deny"),
    });
    let report = Report {
        json: json!({
            "findings": findings, "denied": denied, "demanded": demanded,
            "emulated_roots": verified.roots() == RootSet::InsecureEmulator,
        }),
        text,
    };
    if denied == 0 {
        return Ok(report);
    }
    output.result(&report).map_err(Failure::file("write to", "standard output"))?;
    judgement.require()?;
    Ok(report)
}

/// Evidence from files, its signatures verified.
pub(crate) fn verified(arguments: &EvidenceArgs, output: Output) -> Result<VerifiedEvidence, Failure> {
    let bytes = files::read("read the evidence", &arguments.evidence, MAXIMUM_EVIDENCE)?;
    if bytes.first() != Some(&b'{')
        && (bytes.len() > MAXIMUM_PRESENTATION_BYTES || arguments.collateral.is_some())
    {
        return Err(Failure::Input {
            path: arguments.evidence.clone(),
            expected: "evidence in JSON with --collateral, or a presentation of at most 262144 bytes without",
            found: format!("{} bytes that are no JSON", bytes.len()),
        });
    }
    let judged = Judged {
        collateral: arguments.collateral.as_deref(),
        no_clock: arguments.no_clock,
        insecure_trust_roots: arguments.insecure_trust_roots.as_deref(),
    };
    verified_bytes(&bytes, &judged, output)
}

/// How evidence is verified.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judged<'a> {
    /// Collateral for evidence in JSON.
    pub(crate) collateral: Option<&'a Path>,
    /// At the latest issue date instead of now.
    pub(crate) no_clock: bool,
    /// Emulated roots instead of those of Intel and AMD.
    pub(crate) insecure_trust_roots: Option<&'a Path>,
}

/// Evidence, its signatures verified.
pub(crate) fn verified_bytes(
    bytes: &[u8],
    judged: &Judged<'_>,
    output: Output,
) -> Result<VerifiedEvidence, Failure> {
    let roots = roots(judged.insecure_trust_roots)?;
    if judged.insecure_trust_roots.is_some() {
        output.insecure(&["emulated trust roots"]);
    }
    let presentation = presentation(bytes, judged.collateral)?;
    let clock = if judged.no_clock { Clock::LatestIssueDate } else { Clock::At(now()) };
    // A guest that can be debugged is for the policy to refuse, so that the reader sees every rule.
    let appraisal = Appraisal { debug: true, ..Appraisal::strict() };
    Ok(verify_presentation(&presentation, &roots, clock, &appraisal)?)
}

fn presentation(bytes: &[u8], collateral: Option<&Path>) -> Result<Presentation, Failure> {
    if bytes.first() != Some(&b'{') {
        return Ok(Presentation::parse(bytes)?);
    }
    let collateral = collateral.map_or_else(|| Ok(Collateral::none()), Collateral::load)?;
    let presented = Evidence::parse(bytes)?.present(&collateral)?;
    Ok(Presentation::parse(&presented)?)
}

fn roots(insecure: Option<&Path>) -> Result<Roots, Failure> {
    let Some(path) = insecure else { return Ok(Roots::builtin()?) };
    let cap = u64::try_from(MAXIMUM_BUNDLE_BYTES).unwrap_or(u64::MAX);
    Ok(TrustBundle::parse(&files::read("read the trust roots", path, cap)?)?.danger_roots())
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
