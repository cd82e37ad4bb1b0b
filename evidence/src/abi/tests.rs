use proptest::prelude::*;

use super::aael::AaelEvent;
use super::event_log::{EV_EVENT_TAG, EventLog, LogAlgorithm, LogEntry, LogHeader};
use super::json::{SnpCertificate, SnpCertificateKind, SnpEvidence, TdxEvidence};
use super::snp::{Generation, SnpReport};
use super::td_report::TdReport;
use super::tdx::{QuoteVersion, Td15, TdBody, TdExtension, TdxQuote};
use crate::bytes::Octets;
use crate::fixture::{body, code, genuine, milan, report, snp, tdx};
use crate::verify::snp::VekKind;

fn changed(bytes: &[u8], offset: usize, to: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[offset] = to;
    bytes
}

fn quotes() -> Vec<TdxQuote> {
    let platform = tdx();
    let td15 = Td15 { tee_tcb_svn2: Octets([0; 16]), mr_service_td: Octets([0; 48]) };
    let of = |extension| TdBody { extension, ..body() };
    vec![
        platform.quote(body()).unwrap(),
        platform.quote_of_version(QuoteVersion::V5, body()).unwrap(),
        platform.quote(of(TdExtension::Td15(td15))).unwrap(),
        platform.quote(of(TdExtension::Td15Extended(td15, Octets([0; 237])))).unwrap(),
    ]
}

fn reports() -> Vec<SnpReport> {
    let mut reports = Vec::new();
    for generation in [Generation::Milan, Generation::Genoa, Generation::Turin] {
        let platform = snp(generation, VekKind::Vcek);
        reports.extend((2..=5).map(|version| report(&platform, version)));
    }
    reports
}

fn log() -> EventLog {
    let entry = LogEntry::new(4, EV_EVENT_TAG, AaelEvent::new("d", "o", "c c").unwrap().encode());
    EventLog { header: LogHeader::fallback(), entries: vec![entry], terminated: true }
}

#[test]
fn structures_encode_to_what_was_parsed() {
    for quote in quotes() {
        let bytes = quote.encode();
        assert_eq!(TdxQuote::parse(&bytes).unwrap(), quote);
    }
    for report in reports() {
        let bytes = report.encode();
        assert_eq!(bytes.len(), 1184);
        assert_eq!(SnpReport::parse(&bytes).unwrap(), report);
    }
    let report =
        TdReport { version: 1, rtmr: [Octets([9; 48]); 4], mac: Octets([3; 32]), ..TdReport::default() };
    assert_eq!(report.encode().len(), 1024);
    assert_eq!(TdReport::parse(&report.encode()).unwrap(), report);
    assert_eq!(EventLog::parse(&log().encode()).unwrap(), log());
}

#[test]
fn genuine_quotes_and_reports_encode_to_their_own_bytes() {
    for name in ["tdx-v4-quote.bin", "tdx-v5-td15-quote.bin", "tdx-v5-td15ex-quote.bin"] {
        let bytes = genuine(name);
        let quote = TdxQuote::without_padding(&bytes).unwrap();
        assert_eq!(TdxQuote::parse(quote).unwrap().encode(), quote, "{name}");
    }
    let report = hex::decode(genuine("snp-milan-v2-report.hex").trim_ascii()).unwrap();
    assert_eq!(SnpReport::parse(&report).unwrap().encode(), report);
}

#[test]
fn snp_json_equals_the_samples() {
    let samples = include_str!("../../../tests/vectors/evidence/snp-evidence-samples.json");
    let samples: Vec<serde_json::Value> = serde_json::from_str(samples).unwrap();
    assert!(samples.len() >= 2);
    for sample in samples {
        let bytes = hex::decode(sample["binary_hex"].as_str().unwrap()).unwrap();
        let text = sample["evidence"].to_string();
        let evidence = SnpEvidence { report: SnpReport::parse(&bytes).unwrap(), certificates: None };
        assert_eq!(evidence.encode(), text, "{}", sample["name"]);
        assert_eq!(SnpEvidence::parse(text.as_bytes()).unwrap().report.encode(), bytes);
    }
}

#[test]
fn evidence_json_keeps_certificates_and_logs() {
    let kinds = [SnpCertificateKind::Vcek, SnpCertificateKind::Other("uuid".to_owned())];
    let certificates = kinds.map(|kind| SnpCertificate { kind, data: vec![48, 130] }).to_vec();
    let evidence = SnpEvidence { report: report(&milan(), 3), certificates: Some(certificates) };
    let text = evidence.encode();
    assert!(text.ends_with(r#""cert_chain":[{"cert_type":"VCEK","data":[48,130]},{"cert_type":{"OTHER":"uuid"},"data":[48,130]}]}"#));
    assert_eq!(SnpEvidence::parse(text.as_bytes()).unwrap(), evidence);
    let evidence = TdxEvidence { event_log: None, quote: vec![0, 1, 2] };
    assert_eq!(evidence.encode(), r#"{"cc_eventlog":null,"quote":"AAEC"}"#);
    assert_eq!(TdxEvidence::parse(evidence.encode().as_bytes()).unwrap(), evidence);
}

#[test]
fn agent_events_equal_the_vectors() {
    let vectors = include_str!("../../../tests/vectors/evidence/aael.json");
    let vectors: serde_json::Value = serde_json::from_str(vectors).unwrap();
    let vector = &vectors["aael_sha384"];
    let text = |name: &str| vector[name].as_str().unwrap().to_owned();
    let mut parts = vector["event_text"].as_str().unwrap().splitn(3, ' ');
    let mut part = || parts.next().unwrap();
    let event = AaelEvent::new(part(), part(), part()).unwrap();
    assert_eq!(hex::encode(event.encode()), text("tagged_event_hex"));
    let entry = LogEntry::new(4, EV_EVENT_TAG, event.encode());
    assert_eq!(hex::encode(entry.digest(LogAlgorithm::Sha384).unwrap()), text("digest_hex"));
    assert_eq!(hex::encode(entry.encode()), text("tcg2_entry_hex"));
    assert_eq!(entry.aael().unwrap(), event);
    let register =
        crate::verify::replay::extend(&Octets([0; 48]), entry.digest(LogAlgorithm::Sha384).unwrap());
    assert_eq!(register.to_string(), text("register_after_one_extend_from_zero_hex"));
    // The SHA-256 form of another platform parses as well.
    let other = hex::decode(vectors["aael_sha256"]["tcg2_entry_hex"].as_str().unwrap()).unwrap();
    assert_eq!(EventLog::parse_entries(&other).unwrap()[0].aael().unwrap(), event);
}

#[test]
fn logs_are_assembled_as_upstream_does() {
    assert_eq!(EventLog::assemble(None, None).unwrap(), None);
    let runtime = log().entries[0].encode();
    let alone = EventLog::assemble(None, Some(&runtime)).unwrap().unwrap().encode();
    let header = concat!(
        "0000000003000000",
        "0000000000000000000000000000000000000000",
        "25000000",
        "000000000000000000000000000000000000000000000000",
        "020000000c0030001200200000"
    );
    assert_eq!(hex::encode(&alone[..69]), header);
    assert_eq!(alone, [&alone[..69], &runtime, &[0xff; 8]].concat());
    let firmware = EventLog { terminated: false, ..log() }.encode();
    for fill in [0u8, 0xff] {
        let table = [firmware.as_slice(), &[fill; 4096]].concat();
        let both = EventLog::assemble(Some(&table), Some(&runtime)).unwrap().unwrap();
        assert_eq!(both.entries.len(), 2);
        assert_eq!(both.encode(), [firmware.as_slice(), &runtime, &[0xff; 8]].concat());
    }
}

#[test]
fn evil_log_that_no_verifier_reads_is_not_assembled() {
    let ends = LogEntry { index: u32::MAX, ..LogEntry::new(2, u32::MAX, b"behind the end".to_vec()) };
    let runtime = [ends.encode(), log().entries[0].encode()].concat();
    assert_eq!(code(EventLog::assemble(None, Some(&runtime))), "EVIDENCE_TRAILING_BYTES");
    let undeclared = LogHeader { algorithms: vec![LogAlgorithm::Sha256], ..LogHeader::fallback() };
    let table = EventLog { header: undeclared, entries: Vec::new(), terminated: true }.encode();
    let runtime = LogEntry::new(2, 2, b"kernel".to_vec()).encode();
    assert_eq!(code(EventLog::assemble(Some(&table), Some(&runtime))), "EVIDENCE_MALFORMED");
    // Each below the cap, together above it.
    let half = EventLog { entries: vec![log().entries[0].clone(); 9_000], ..log() };
    let runtime = half.entries[0].encode().repeat(9_000);
    assert_eq!(code(EventLog::assemble(None, Some(&runtime))), "OK");
    assert_eq!(code(EventLog::assemble(Some(&half.encode()), Some(&runtime))), "EVIDENCE_TOO_LARGE");
}

#[test]
fn evil_reserved_bytes_are_refused() {
    let bytes = TdReport::default().encode();
    for offset in [4, 15, 192, 223, 400, 510, 960, 1023] {
        assert_eq!(
            code(TdReport::parse(&changed(&bytes, offset, 1))),
            "EVIDENCE_RESERVED_NOT_ZERO",
            "{offset}"
        );
    }
}

#[test]
fn evil_report_reserved_bytes_are_refused() {
    for report in reports() {
        let bytes = report.encode();
        let mut reserved = vec![
            0x49, 0x4b, 0x4c, 0x4f, 0x18b, 0x19f, 0x1eb, 0x1ef, 0x208, 0x29f, 0x2d0, 0x2e7, 0x318, 0x32f,
            0x330, 0x49f,
        ];
        reserved.push(if report.reported_tcb.fmc.is_some() { 0x184 } else { 0x182 });
        reserved.push(if report.reported_tcb.fmc.is_some() { 0x1f6 } else { 0x1f5 });
        for offset in reserved {
            let found = code(SnpReport::parse(&changed(&bytes, offset, 0x80)));
            assert_eq!(found, "EVIDENCE_RESERVED_NOT_ZERO", "{offset:#x} of version {}", report.version);
        }
    }
}

#[test]
fn evil_bytes_after_a_structure_are_refused() {
    let more = |bytes: Vec<u8>| [bytes.as_slice(), &[0]].concat();
    for quote in quotes() {
        assert_eq!(code(TdxQuote::parse(&more(quote.encode()))), "EVIDENCE_TRAILING_BYTES");
        assert_eq!(TdxQuote::without_padding(&more(quote.encode())).unwrap(), quote.encode());
        let other = [quote.encode().as_slice(), &[0, 1]].concat();
        assert_eq!(code(TdxQuote::without_padding(&other)), "EVIDENCE_TRAILING_BYTES");
    }
    let report = report(&milan(), 3).encode();
    assert_eq!(code(SnpReport::parse(&more(report))), "EVIDENCE_TRAILING_BYTES");
    assert_eq!(code(TdReport::parse(&more(TdReport::default().encode()))), "EVIDENCE_TRAILING_BYTES");
    assert_eq!(code(EventLog::parse(&more(log().encode()))), "EVIDENCE_TRAILING_BYTES");
    let event = AaelEvent::new("d", "o", "c").unwrap();
    assert_eq!(code(AaelEvent::parse(&more(event.encode()))), "EVIDENCE_TRAILING_BYTES");
}

#[test]
fn evil_truncated_structures_are_refused() {
    for quote in quotes() {
        let bytes = quote.encode();
        for length in 0..bytes.len() {
            assert_eq!(code(TdxQuote::parse(&bytes[..length])), "EVIDENCE_MALFORMED", "{length}");
        }
    }
    let bytes = report(&milan(), 3).encode();
    for length in 0..bytes.len() {
        assert_eq!(code(SnpReport::parse(&bytes[..length])), "EVIDENCE_MALFORMED", "{length}");
    }
}

#[test]
fn evil_oversize_inputs_are_refused() {
    let zeros = vec![0; 3 * 1024 * 1024];
    for found in [
        code(TdxQuote::parse(&zeros)),
        code(TdxQuote::without_padding(&zeros)),
        code(EventLog::parse(&zeros)),
        code(EventLog::parse_entries(&zeros)),
        code(TdxEvidence::parse(&zeros)),
        code(SnpEvidence::parse(&zeros)),
        code(AaelEvent::new("d", "o", &"c".repeat(65_536))),
    ] {
        assert_eq!(found, "EVIDENCE_TOO_LARGE");
    }
    // Lengths inside the structures that no byte backs.
    let quote = quotes()[0].encode();
    assert_eq!(code(TdxQuote::parse(&changed(&quote, 635, 0xff))), "EVIDENCE_TOO_LARGE");
    let bytes = log().encode();
    assert_eq!(code(EventLog::parse(&changed(&bytes, 80, 0xff))), "EVIDENCE_TOO_LARGE");
}

#[test]
fn evil_quote_header_of_another_kind_is_refused() {
    let quote = quotes()[0].encode();
    for offset in [0, 2, 4, 12, 27] {
        assert_eq!(code(TdxQuote::parse(&changed(&quote, offset, 3))), "EVIDENCE_UNSUPPORTED", "{offset}");
    }
}

#[test]
fn evil_quote_inner_lengths_are_exact() {
    let quotes = quotes();
    let quote = quotes[0].encode();
    for (offset, to) in [(764, 5), (1218, 31), (1252, 4)] {
        assert_eq!(code(TdxQuote::parse(&changed(&quote, offset, to))), "EVIDENCE_UNSUPPORTED", "{offset}");
    }
    let quote = quotes[1].encode();
    assert_eq!(code(TdxQuote::parse(&changed(&quote, 48, 1))), "EVIDENCE_UNSUPPORTED");
    assert_eq!(code(TdxQuote::parse(&changed(&quote, 50, 0x49))), "EVIDENCE_MALFORMED");
}

#[test]
fn evil_td_report_of_another_type_is_refused() {
    let bytes = TdReport::default().encode();
    for (offset, to) in [(0, 0), (1, 1), (2, 2), (3, 1)] {
        assert_eq!(code(TdReport::parse(&changed(&bytes, offset, to))), "EVIDENCE_UNSUPPORTED");
    }
}

#[test]
fn evil_report_versions_outside_the_list_are_refused() {
    let bytes = report(&milan(), 5).encode();
    for version in [0, 1, 6, 255] {
        assert_eq!(code(SnpReport::parse(&changed(&bytes, 0, version))), "EVIDENCE_UNSUPPORTED");
    }
    assert_eq!(code(SnpReport::parse(&changed(&bytes, 0x188, 0x18))), "EVIDENCE_UNSUPPORTED");
}

#[test]
fn evil_guest_policy_without_its_fixed_bit_is_refused() {
    let bytes = report(&milan(), 3).encode();
    assert_eq!(code(SnpReport::parse(&changed(&bytes, 10, 1))), "EVIDENCE_MALFORMED");
}

#[test]
fn evil_version_2_with_masked_chip_id_is_refused() {
    let masked = SnpReport { chip_id: Octets([0; 64]), ..report(&milan(), 2) };
    assert_eq!(code(SnpReport::parse(&masked.encode())), "EVIDENCE_UNSUPPORTED");
}

#[test]
fn evil_log_with_wrong_digest_size_is_refused() {
    let bytes = log().encode();
    assert_eq!(bytes[62], 48);
    assert_eq!(code(EventLog::parse(&changed(&bytes, 62, 47))), "EVIDENCE_MALFORMED");
}

#[test]
fn evil_log_with_undeclared_algorithm_is_refused() {
    let mut log = log();
    log.header.algorithms = vec![LogAlgorithm::Sha256];
    assert_eq!(code(EventLog::parse(&log.encode())), "EVIDENCE_MALFORMED");
    let bytes = self::log().encode();
    assert_eq!(code(EventLog::parse(&changed(&bytes, 81, 0x04))), "EVIDENCE_UNSUPPORTED");
}

#[test]
fn evil_log_with_two_digests_of_an_algorithm_is_refused() {
    let mut log = log();
    let again = log.entries[0].digests[0].clone();
    log.entries[0].digests.push(again);
    assert_eq!(code(EventLog::parse(&log.encode())), "EVIDENCE_MALFORMED");
}

#[test]
fn evil_event_text_cannot_shift_fields() {
    for (domain, operation, content) in [
        ("a b", "o", "c"),
        ("", "o", "c"),
        ("d", "o p", "c"),
        ("d", "", "c"),
        ("d", "o", "c\nd"),
        ("d\u{e9}", "o", "c"),
    ] {
        assert_eq!(code(AaelEvent::new(domain, operation, content)), "EVIDENCE_MALFORMED");
    }
}

#[test]
fn evil_event_of_another_tag_is_refused() {
    let bytes = AaelEvent::new("d", "o", "c").unwrap().encode();
    assert_eq!(code(AaelEvent::parse(&changed(&bytes, 0, 0x4d))), "EVIDENCE_UNSUPPORTED");
}

#[test]
fn evil_json_members_that_no_report_has_are_refused() {
    let evidence = SnpEvidence { report: report(&milan(), 3), certificates: None };
    let text = evidence.encode();
    for (from, to, expected) in [
        ("\"current_mit_vector\":null", "\"current_mit_vector\":0", "EVIDENCE_MALFORMED"),
        ("\"fmc\":null", "\"fmc\":0", "EVIDENCE_RESERVED_NOT_ZERO"),
        ("\"vmpl\":0", "\"vmpl\":0,\"more\":1", "EVIDENCE_MALFORMED"),
        ("\"vmpl\":0", "\"vmpl\":0,\"vmpl\":0", "EVIDENCE_MALFORMED"),
        ("\"report_data\":[90,", "\"report_data\":[", "EVIDENCE_MALFORMED"),
        ("\"version\":3", "\"version\":6", "EVIDENCE_UNSUPPORTED"),
    ] {
        assert!(text.contains(from), "{from}");
        assert_eq!(code(SnpEvidence::parse(text.replace(from, to).as_bytes())), expected, "{to}");
    }
    let both = text.replace("mit_vector\":null", "mit_vector\":0");
    assert_eq!(code(SnpEvidence::parse(both.as_bytes())), "EVIDENCE_MALFORMED");
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let _ = (TdxQuote::parse(&bytes), SnpReport::parse(&bytes), TdReport::parse(&bytes));
        let _ = (EventLog::parse(&bytes), EventLog::parse_ccel(&bytes), AaelEvent::parse(&bytes));
        let _ = (EventLog::parse_entries(&bytes), SnpEvidence::parse(&bytes), TdxEvidence::parse(&bytes));
    }

    #[test]
    fn changed_structures_are_refused_or_encode_to_themselves(offset in 0usize..5000, to in any::<u8>()) {
        let quote = tdx().quote(body()).unwrap().encode();
        let quote = changed(&quote, offset % quote.len(), to);
        if let Ok(parsed) = TdxQuote::parse(&quote) {
            prop_assert_eq!(parsed.encode(), quote);
        }
        let report = report(&milan(), 5).encode();
        let report = changed(&report, offset % report.len(), to);
        if let Ok(parsed) = SnpReport::parse(&report) {
            prop_assert_eq!(parsed.encode(), report);
        }
        let log = log().encode();
        let log = changed(&log, offset % log.len(), to);
        if let Ok(parsed) = EventLog::parse(&log) {
            prop_assert_eq!(parsed.encode(), log);
        }
    }
}
