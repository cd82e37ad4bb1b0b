//! `innerkeep initdata verify`: what a guest does with the register, done by whoever has the register's value.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use evidence::abi::snp::{REPORT_BYTES, SnpReport};
use evidence::abi::td_report::{TD_REPORT_BYTES, TdReport};
use evidence::abi::tdx::TdxQuote;
use evidence::verify::VerifiedEvidence;
use evidence::verify::roots::RootSet;
use initdata::{Register, RegisterKind};
use serde_json::json;

use super::input;
use crate::args::attest::EvidenceArgs;
use crate::args::initdata::VerifyArgs;
use crate::cmd::attest;
use crate::error::Failure;
use crate::files;
use crate::output::{Output, Report};

/// Longest quote in bytes, certificates included.
const MAXIMUM_REPORT: u64 = 64 * 1024;

/// A register, and how it is known.
struct Known {
    register: Register,
    source: &'static str,
    verified: bool,
}

/// Runs the command.
pub(super) fn run(arguments: &VerifyArgs, output: Output) -> Result<Report, Failure> {
    let known = known(arguments, output)?;
    let bound = input::unverified(&arguments.input.input)?.bind(&known.register)?;
    let name = known.register.name();
    let facts = json!({
        "algorithm": bound.digest().algorithm().name(),
        "digest": hex::encode(bound.digest().as_bytes()),
        "register": name,
        "value": hex::encode(known.register.value()),
        "source": known.source,
        "signature_verified": known.verified,
    });
    let mut text = format!("{} in {name} of {}", bound.digest(), known.source);
    if !known.verified {
        text.push_str("\nno signature was verified: who says that this is the register's value is up to you");
    }
    Ok(Report { json: facts, text })
}

fn known(arguments: &VerifyArgs, output: Output) -> Result<Known, Failure> {
    if let Some(text) = &arguments.register {
        let register = Register::new("the register", &value(text)?)?;
        return Ok(Known { register, source: "the command line", verified: false });
    }
    if let Some(path) = &arguments.report {
        return report(path);
    }
    let evidence = EvidenceArgs {
        evidence: arguments.evidence.clone().unwrap_or_default(),
        collateral: arguments.collateral.clone(),
        no_clock: arguments.no_clock,
        insecure_trust_roots: arguments.insecure_trust_roots.clone(),
    };
    let verified = attest::verified(&evidence, output)?;
    let register = match &verified {
        VerifiedEvidence::Snp(snp) => register(RegisterKind::HostData, &snp.report.host_data.0)?,
        VerifiedEvidence::Tdx(tdx) => register(RegisterKind::MrConfigId, &tdx.quote.body.mr_config_id.0)?,
    };
    let source = match verified.roots() {
        RootSet::InsecureEmulator => "verified evidence of an EMULATED platform",
        RootSet::Builtin => "verified evidence",
    };
    Ok(Known { register, source, verified: true })
}

fn register(kind: RegisterKind, value: &[u8]) -> Result<Register, Failure> {
    Ok(Register::new(kind.name(), value)?)
}

/// A register's value in hex, else in base64.
fn value(text: &str) -> Result<Vec<u8>, Failure> {
    let decoded = hex::decode(text).ok().or_else(|| STANDARD.decode(text).ok());
    decoded.filter(|bytes| (32..=64).contains(&bytes.len())).ok_or_else(|| Failure::Usage {
        argument: "--register",
        expected: "32 to 64 bytes in hex or base64",
        found: text.to_owned(),
    })
}

/// The register in a report whose signature nobody verifies, told apart by its length.
fn report(path: &Path) -> Result<Known, Failure> {
    let bytes = files::read("read the report", path, MAXIMUM_REPORT)?;
    let (register, source) = match bytes.len() {
        REPORT_BYTES => {
            let report = SnpReport::parse(&bytes)?;
            (register(RegisterKind::HostData, &report.host_data.0)?, "an SNP report")
        }
        TD_REPORT_BYTES => {
            let report = TdReport::parse(&bytes)?;
            (register(RegisterKind::MrConfigId, &report.mr_config_id.0)?, "a TD report")
        }
        _ => {
            let quote = TdxQuote::parse(TdxQuote::without_padding(&bytes)?)?;
            (register(RegisterKind::MrConfigId, &quote.body.mr_config_id.0)?, "a TDX quote")
        }
    };
    Ok(Known { register, source, verified: false })
}
