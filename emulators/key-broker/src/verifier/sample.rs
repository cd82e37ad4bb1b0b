//! Sample evidence: says what it was told to say, and proves nothing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;

use super::{Bound, Claims, Untrusted, form, require_report_data};
use crate::runtime_data::Digest48;

#[derive(Deserialize)]
struct Sample {
    svn: String,
    #[serde(default)]
    report_data: String,
}

pub(super) fn guest(evidence: &[u8], bound: Bound<'_>) -> Result<Claims, Untrusted> {
    let sample = parse(evidence, bound.report_data)?;
    Ok(Claims {
        claims: json!({
            "svn": sample.svn, "launch_digest": "abcde", "platform_version": {"major": 1, "minor": 4}, "debug": false,
        }),
        init_data: bound.init_data.map(|sent| STANDARD.encode(&sent.digest)),
        report_data: sample.report_data,
    })
}

pub(super) fn device(evidence: &[u8], report_data: &Digest48) -> Result<Claims, Untrusted> {
    let sample = parse(evidence, report_data)?;
    Ok(Claims { claims: json!({"svn": sample.svn}), init_data: None, report_data: sample.report_data })
}

fn parse(evidence: &[u8], report_data: &Digest48) -> Result<Sample, Untrusted> {
    let sample: Sample = serde_json::from_slice(evidence)
        .map_err(|error| form("sample evidence", "svn and report_data", error))?;
    let found = STANDARD
        .decode(&sample.report_data)
        .map_err(|error| form("report_data of sample evidence", "standard base64", error))?;
    require_report_data(report_data, &found)?;
    Ok(sample)
}
