use proptest::prelude::*;
use serde_json::Value;

use super::{MAXIMUM_PRESENTATION_BYTES, Presentation, PresentedEvidence};
use crate::fixture::code;
use crate::verify::snp::VekKind;

fn vectors() -> Value {
    let text = include_str!("../../../../tests/vectors/evidence/presentations.json");
    serde_json::from_str(text).unwrap()
}

fn hex_of(case: &Value, member: &str) -> Vec<u8> {
    hex::decode(case[member].as_str().unwrap()).unwrap()
}

fn optional(case: &Value, member: &str) -> Option<Vec<u8>> {
    case[member].as_str().map(|text| hex::decode(text).unwrap())
}

#[test]
fn vectors_are_accepted_as_they_say() {
    for case in vectors()["accepted"].as_array().unwrap() {
        let name = &case["name"];
        let evidence = match case["kind"].as_str().unwrap() {
            "tdx" => PresentedEvidence::Tdx {
                quote: hex_of(case, "quote"),
                collateral: case["collateral"].as_str().unwrap().to_owned(),
            },
            kind => PresentedEvidence::Snp {
                report: hex_of(case, "report"),
                kind: if kind == "vcek" { VekKind::Vcek } else { VekKind::Vlek },
                vek: hex_of(case, "vek"),
                ask: optional(case, "ask"),
                crl: optional(case, "crl"),
            },
        };
        let expected = Presentation { evidence, event_log: optional(case, "event_log") };
        let bytes = hex_of(case, "hex");
        assert_eq!(Presentation::parse(&bytes), Ok(expected.clone()), "{name}");
        assert_eq!(expected.encode().unwrap(), bytes, "{name}");
    }
}

#[test]
fn evil_presentations_of_other_versions_and_kinds_are_refused() {
    for case in vectors()["refused"].as_array().unwrap() {
        let (name, expected) = (&case["name"], case["code"].as_str().unwrap());
        assert_eq!(code(Presentation::parse(&hex_of(case, "hex"))), expected, "{name}");
    }
}

#[test]
fn evil_presentation_above_the_cap_is_refused() {
    assert_eq!(code(Presentation::parse(&vec![0; MAXIMUM_PRESENTATION_BYTES + 1])), "EVIDENCE_TOO_LARGE");
    let of = |quote, collateral, log| Presentation {
        evidence: PresentedEvidence::Tdx { quote: vec![1; quote], collateral: "x".repeat(collateral) },
        event_log: Some(vec![2; log]),
    };
    let room = MAXIMUM_PRESENTATION_BYTES - 16;
    assert_eq!(of(100, room - 200, 100).encode().unwrap().len(), MAXIMUM_PRESENTATION_BYTES);
    for (quote, collateral, log) in [(100, room - 200, 101), (16_385, 0, 0), (0, usize::MAX >> 40, 0)] {
        assert_eq!(code(of(quote, collateral, log).encode()), "EVIDENCE_TOO_LARGE");
    }
    let snp = |report, vek, ask, crl| Presentation {
        evidence: PresentedEvidence::Snp {
            report: vec![1; report],
            kind: VekKind::Vcek,
            vek: vec![1; vek],
            ask: Some(vec![1; ask]),
            crl: Some(vec![1; crl]),
        },
        event_log: None,
    };
    assert_eq!(code(snp(1184, 8192, 8192, 65_536).encode()), "OK");
    for (report, vek, ask, crl) in [(1185, 1, 1, 1), (1, 8193, 1, 1), (1, 1, 8193, 1), (1, 1, 1, 65_537)] {
        assert_eq!(code(snp(report, vek, ask, crl).encode()), "EVIDENCE_TOO_LARGE");
    }
}

fn bytes(maximum: usize) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..maximum)
}

fn part(maximum: usize) -> impl Strategy<Value = Option<Vec<u8>>> {
    proptest::option::of(proptest::collection::vec(any::<u8>(), 1..maximum))
}

fn presentations() -> impl Strategy<Value = Presentation> {
    let tdx =
        (bytes(300), ".{0,80}").prop_map(|(quote, collateral)| PresentedEvidence::Tdx { quote, collateral });
    let snp = (bytes(300), any::<bool>(), bytes(200), part(200), part(200)).prop_map(
        |(report, vcek, vek, ask, crl)| {
            let kind = if vcek { VekKind::Vcek } else { VekKind::Vlek };
            PresentedEvidence::Snp { report, kind, vek, ask, crl }
        },
    );
    (prop_oneof![tdx, snp], part(200)).prop_map(|(evidence, event_log)| Presentation { evidence, event_log })
}

proptest! {
    #[test]
    fn presentations_encode_to_what_was_parsed(presentation in presentations(), cut in any::<u16>()) {
        let bytes = presentation.encode().unwrap();
        prop_assert_eq!(Presentation::parse(&bytes), Ok(presentation));
        let cut = usize::from(cut) % bytes.len();
        prop_assert!(Presentation::parse(&bytes[..cut]).is_err());
    }

    #[test]
    fn hostile_presentations_are_refused_or_encode_to_themselves(
        presentation in presentations(),
        offset in any::<usize>(),
        to in any::<u8>(),
    ) {
        let mut bytes = presentation.encode().unwrap();
        let offset = offset % bytes.len();
        bytes[offset] = to;
        if let Ok(parsed) = Presentation::parse(&bytes) {
            prop_assert_eq!(parsed.encode().unwrap(), bytes);
        }
    }
}
