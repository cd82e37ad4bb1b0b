//! Evidence, collateral and trust roots in JSON. What is accepted encodes to a text that says the same.

#![no_main]

use std::fmt::Debug;

use evidence::EvidenceError;
use evidence::abi::json::{SnpEvidence, TdxEvidence};
use evidence::abi::snp::SnpReport;
use evidence::verify::collateral::TdxCollateral;
use evidence::verify::roots::TrustBundle;
use fuzz::{bounded, canonical};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    check(data);
    if let Some(text) = canonical(data) {
        check(&text);
    }
});

fn check(data: &[u8]) {
    same_again(data, TdxEvidence::parse, TdxEvidence::encode);
    same_again(data, TdxCollateral::parse, TdxCollateral::encode);
    if let Some(evidence) = same_again(data, SnpEvidence::parse, SnpEvidence::encode) {
        // Every rule of the binary form holds.
        assert_eq!(SnpReport::parse(&evidence.report.encode()), Ok(evidence.report));
    }
    if let Some(bundle) = same_again(data, TrustBundle::parse, TrustBundle::encode) {
        assert!(bundle.danger_roots().are_emulated());
    }
}

fn same_again<T: Debug + PartialEq>(
    data: &[u8],
    parse: fn(&[u8]) -> Result<T, EvidenceError>,
    encode: fn(&T) -> String,
) -> Option<T> {
    let value = bounded(data.len(), || parse(data)).ok()?;
    let text = encode(&value);
    let again = parse(text.as_bytes()).expect("our own text");
    assert_eq!(again, value);
    assert_eq!(encode(&again), text);
    Some(value)
}
