//! `innerkeep attest`: evidence of this guest, in the one form that a workload may ask for.

mod doctor;
mod explain;

use attestation_agent::{Claim, Collateral};
use serde_json::json;
use sha2::{Digest, Sha512};

use crate::args::attest::{AttestArgs, AttestCommand, MakeArgs};
use crate::error::Failure;
use crate::files;
use crate::output::{Output, Report};
use crate::platform;

pub(crate) use explain::{Judged, verified, verified_bytes};

/// Longest runtime data in bytes.
const MAXIMUM_RUNTIME_DATA: u64 = 1024 * 1024;

/// Runs the command.
pub(crate) fn run(arguments: &AttestArgs, output: Output) -> Result<Report, Failure> {
    match &arguments.command {
        None => make(&arguments.make, output),
        Some(AttestCommand::Doctor(platform)) => doctor::run(platform, output),
        Some(AttestCommand::Explain(arguments)) => explain::run(arguments, output),
    }
}

fn make(arguments: &MakeArgs, output: Output) -> Result<Report, Failure> {
    let runtime_data = runtime_data(arguments)?;
    let collateral = arguments.collateral.as_deref().map(Collateral::load).transpose()?;
    let attester = platform::attester(&arguments.platform, false)?;
    output.insecure(attester.insecure_modes());
    let identity = platform::own_identity()?;
    let identity_text = hex::encode(identity.as_bytes());
    let runtime_digest = hex::encode(Sha512::digest(&runtime_data));
    let claim = Claim::Workload { identity, runtime_data };
    let evidence = attester.evidence(&claim)?;
    let text = evidence.to_json();
    if let Some(path) = &arguments.presentation {
        let presented = evidence.present(&collateral.unwrap_or_else(Collateral::none))?;
        files::create("write the presentation", path, 0o644, &presented)?;
    }
    if let Some(path) = &arguments.output {
        files::create("write the evidence", path, 0o644, text.as_bytes())?;
    }
    let report_data = hex::encode(claim.report_data().as_bytes());
    let registers: Vec<(&str, String)> = attester
        .registers()?
        .into_iter()
        .map(|register| (register.name, hex::encode(register.value)))
        .collect();
    let mut lines = vec![
        format!("tee           {}", attester.tee()),
        format!("report data   {report_data}"),
        format!("identity      {identity_text}"),
        format!("runtime data  sha512 {runtime_digest}"),
    ];
    lines.extend(registers.iter().map(|(name, value)| format!("{name:<13} {value}")));
    let facts = json!({
        "tee": attester.tee().name(), "report_data": report_data, "identity": identity_text, "runtime_data_sha512": runtime_digest,
        "registers": registers.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect::<serde_json::Map<_, _>>(),
        "insecure": attester.insecure_modes(),
        "evidence": serde_json::from_str(&text).unwrap_or(serde_json::Value::Null),
    });
    if arguments.output.is_some() {
        return Ok(Report { json: facts, text: lines.join("\n") });
    }
    // Standard output belongs to the evidence.
    if !output.json && !output.quiet {
        eprintln!("{}", lines.join("\n"));
    }
    Ok(Report { json: facts, text })
}

fn runtime_data(arguments: &MakeArgs) -> Result<Vec<u8>, Failure> {
    if let Some(path) = &arguments.runtime_data {
        return Ok(files::read("read the runtime data", path, MAXIMUM_RUNTIME_DATA)?);
    }
    let nonce = arguments.nonce.clone().unwrap_or_default();
    match hex::decode(&nonce) {
        Ok(bytes) if (1..=64).contains(&bytes.len()) => Ok(bytes),
        _ => Err(Failure::Usage { argument: "--nonce", expected: "1 to 64 bytes in hex", found: nonce }),
    }
}
