use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{MAXIMUM_BUNDLE_BYTES, TrustBundle};
use crate::abi::snp::Generation;
use crate::fixture::{code, snp, tdx};
use crate::verify::roots::Roots;
use crate::verify::snp::VekKind;

fn bundle() -> TrustBundle {
    let root = |generation| snp(generation, VekKind::Vcek).root().unwrap();
    TrustBundle {
        snp: vec![root(Generation::Milan), root(Generation::Turin)],
        tdx: Some(tdx().root_der().unwrap()),
    }
}

#[test]
fn bundles_encode_to_what_was_parsed() {
    let full = bundle();
    let text = full.encode();
    assert!(text.starts_with(r#"{"@type":"innerkeep emulated trust roots v1","snp":[{"ark":""#));
    assert_eq!(TrustBundle::parse(text.as_bytes()), Ok(full.clone()));
    let snp_only = TrustBundle { tdx: None, ..full.clone() };
    assert!(snp_only.encode().ends_with(r#""tdx":null}"#));
    assert_eq!(TrustBundle::parse(snp_only.encode().as_bytes()), Ok(snp_only));
    let tdx_only = TrustBundle { snp: Vec::new(), ..full };
    assert_eq!(TrustBundle::parse(tdx_only.encode().as_bytes()), Ok(tdx_only));
}

#[test]
fn roots_say_whose_they_are() {
    assert!(!Roots::builtin().unwrap().are_emulated());
    assert!(bundle().danger_roots().are_emulated());
    assert!(bundle().danger_roots().tdx.is_some());
    assert!(TrustBundle { tdx: None, ..bundle() }.danger_roots().tdx.is_none());
}

#[test]
fn evil_trust_bundles_of_another_form_are_refused() {
    let good = bundle().encode();
    let twice = TrustBundle { snp: [bundle().snp, bundle().snp].concat(), tdx: None };
    let nothing = TrustBundle { snp: Vec::new(), tdx: None };
    for bad in [
        String::new(),
        "[]".to_owned(),
        good.replace("roots v1", "roots v2"),
        good.replace("milan", "Milan"),
        good.replace("milan", "rome"),
        good.replace(r#""tdx":"#, r#""intel":null,"tdx":"#),
        good.replace(r#""tdx":"#, r#""tdx":null,"tdx":"#),
        good.replace(r#""tdx":""#, r#""tdx":"-"#),
        format!("{good}x"),
        twice.encode(),
        nothing.encode(),
    ] {
        assert_eq!(code(TrustBundle::parse(bad.as_bytes())), "EVIDENCE_MALFORMED", "{bad:.200}");
    }
    let with_root = |der: &[u8]| {
        format!(
            r#"{{"@type":"innerkeep emulated trust roots v1","snp":[],"tdx":"{}"}}"#,
            STANDARD.encode(der)
        )
    };
    let parse = |text: String| code(TrustBundle::parse(text.as_bytes()));
    assert_eq!(parse(with_root(&bundle().tdx.unwrap())), "OK");
    assert_eq!(parse(with_root(b"no certificate")), "EVIDENCE_CERTIFICATE_INVALID");
    assert_eq!(parse(with_root(&[0x30; 8193])), "EVIDENCE_TOO_LARGE");
    assert_eq!(parse(" ".repeat(MAXIMUM_BUNDLE_BYTES + 1)), "EVIDENCE_TOO_LARGE");
}
