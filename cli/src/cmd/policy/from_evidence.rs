//! `innerkeep policy from-evidence`: a policy that accepts guests like the one whose evidence this is.

use std::fmt::Write as _;

use evidence::abi::snp::Generation;
use evidence::verify::VerifiedEvidence;
use evidence::verify::roots::RootSet;
use evidence::verify::snp::VerifiedSnp;
use evidence::verify::tdx::VerifiedTdx;
use sealed_artifact::names::{EnvironmentTag, Family};
use sealed_artifact::policy::PolicyDocument;
use serde_json::json;

use crate::args::attest::FromEvidenceArgs;
use crate::cmd::attest;
use crate::error::Failure;
use crate::output::{Output, Report};

/// Runs the command.
pub(super) fn run(arguments: &FromEvidenceArgs, output: Output) -> Result<Report, Failure> {
    // Both have a character set without quotes, so that they can stand in a TOML string as they are.
    let environment = EnvironmentTag::parse(&arguments.environment)?;
    let family = Family::parse(&arguments.family)?;
    let verified = attest::verified(&arguments.evidence, output)?;
    let mut text = String::from(
        "# From verified evidence. What the guest showed is what is demanded; minimums are what it had.\n",
    );
    if verified.roots() == RootSet::InsecureEmulator {
        text.push_str("# The evidence is of an EMULATED platform.\n");
    }
    let _ = writeln!(
        text,
        "environment = {{ exactly = \"{environment}\" }}\nfamily = {{ exactly = \"{family}\" }}\n\
         link_mode = {{ one_of = [\"dma-direct\", \"dma-sealed\", \"key-release\"] }}\nmin_counter = {}\n",
        arguments.min_counter
    );
    match &verified {
        VerifiedEvidence::Tdx(tdx) => write_tdx(&mut text, tdx),
        VerifiedEvidence::Snp(snp) => write_snp(&mut text, snp),
    }
    let policy = PolicyDocument::from_toml(&text)?;
    let weak: Vec<&str> = policy.weaknesses().iter().map(|found| found.code()).collect();
    if !weak.is_empty() && !output.json {
        eprintln!("still weak: {} (`innerkeep policy lint` says why)", weak.join(", "));
    }
    Ok(Report {
        json: json!({ "toml": text, "digest": policy.digest().to_string(), "weaknesses": weak }),
        text: text.trim_end().to_owned(),
    })
}

/// What holds for every platform. A register of zeros was not used: nothing is bound there.
fn write_guest(text: &mut String, debug: bool, initdata: &[u8]) {
    let bound = initdata.iter().any(|byte| *byte != 0);
    let initdata = if bound { exactly(initdata) } else { "\"any\"".to_owned() };
    let debug = if debug { "\"any\"".to_owned() } else { "{ exactly = false }".to_owned() };
    let _ = writeln!(
        text,
        "[evidence]\ncertificate_chain = \"any\"\ndebug = {debug}\n# The register that initdata is launched into.\n\
         initdata = {initdata}\nunsigned_manifest = \"any\"\n"
    );
}

fn write_tdx(text: &mut String, tdx: &VerifiedTdx) {
    let body = &tdx.quote.body;
    write_guest(text, body.is_debug(), &body.mr_config_id.0);
    let [rtmr0, rtmr1, rtmr2, _] = &body.rtmr;
    let _ = writeln!(
        text,
        "[evidence.tdx]\nmin_pck_crl_number = {}\nmin_root_crl_number = {}\nmin_tcb_evaluation = {}\nmin_tee_tcb_svn = \"{}\"\n\
         mrtd = {}\nrtmr0 = {}\nrtmr1 = {}\nrtmr2 = {}\n# Extended while the guest runs.\nrtmr3 = \"any\"",
        tdx.pck_crl_number,
        tdx.root_crl_number,
        tdx.tcb_evaluation_number,
        hex::encode(body.tee_tcb_svn.0),
        exactly(&body.mr_td.0),
        exactly(&rtmr0.0),
        exactly(&rtmr1.0),
        exactly(&rtmr2.0),
    );
}

fn write_snp(text: &mut String, snp: &VerifiedSnp) {
    let report = &snp.report;
    write_guest(text, report.policy.is_debug(), &report.host_data.0);
    let generation = match snp.generation {
        Generation::Milan => "milan",
        Generation::Genoa => "genoa",
        Generation::Turin => "turin",
    };
    let _ = writeln!(
        text,
        "[evidence.snp]\nauthor_key_digest = {}\ngeneration = {{ exactly = \"{generation}\" }}\nguest_policy = {}\nid_key_digest = {}\n\
         max_vmpl = {}\nmeasurement = {}\nmin_crl_number = {}\nmin_tcb = \"{}\"",
        exactly(&report.author_key_digest.0),
        exactly(&report.policy.0.to_be_bytes()),
        exactly(&report.id_key_digest.0),
        report.vmpl,
        exactly(&report.measurement.0),
        snp.crl_number.unwrap_or(0),
        hex::encode(report.reported_tcb.encode().0),
    );
}

fn exactly(bytes: &[u8]) -> String {
    format!("{{ exactly = \"{}\" }}", hex::encode(bytes))
}
