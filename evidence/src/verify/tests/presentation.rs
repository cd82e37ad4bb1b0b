use crate::abi::event_log::{EventLog, LogEntry, LogHeader};
use crate::abi::presentation::{Presentation, PresentedEvidence};
use crate::abi::snp::Generation;
use crate::abi::tdx::TdBody;
use crate::bytes::Octets;
use crate::error::EvidenceError;
use crate::fixture::{EXPIRES, ISSUED, NOW, body, code, milan, report, snp, snp_roots, tdx, tdx_root};
use crate::mint::snp::SnpPlatform;
use crate::mint::tdx::TdxPlatform;
use crate::verify::replay::extend;
use crate::verify::roots::{RootSet, Roots, SnpRoots};
use crate::verify::series::{Series, SeriesKind};
use crate::verify::snp::{SnpCollateral, VekKind};
use crate::verify::tdx::Appraisal;
use crate::verify::{Clock, VerifiedEvidence, verify_presentation};

fn tdx_presentation(platform: &TdxPlatform, body: TdBody, event_log: Option<Vec<u8>>) -> Presentation {
    let quote = platform.quote(body).unwrap().encode();
    let collateral = platform.collateral().unwrap().encode();
    Presentation { evidence: PresentedEvidence::Tdx { quote, collateral }, event_log }
}

fn snp_presentation(platform: &SnpPlatform) -> Presentation {
    let report = platform.sign(report(platform, 3)).unwrap().encode();
    let SnpCollateral { ask, crl, kind, vek, .. } = platform.collateral().unwrap();
    Presentation { evidence: PresentedEvidence::Snp { report, kind, vek, ask, crl }, event_log: None }
}

fn roots() -> Roots {
    Roots { snp: snp_roots(&milan()), tdx: Some(tdx_root(&tdx())) }
}

fn result(presentation: &Presentation, roots: &Roots) -> Result<VerifiedEvidence, EvidenceError> {
    verify_presentation(presentation, roots, Clock::LatestIssueDate, &Appraisal::strict())
}

fn log() -> (EventLog, [Octets<48>; 4]) {
    let entry = LogEntry::new(2, 2, b"kernel".to_vec());
    let mut registers = [Octets([0; 48]); 4];
    registers[1] = extend(&registers[1], &entry.digests[0].1);
    (EventLog { header: LogHeader::fallback(), entries: vec![entry], terminated: true }, registers)
}

#[test]
fn presented_evidence_verifies_with_and_without_a_clock() {
    let presentations = [tdx_presentation(&tdx(), body(), None), snp_presentation(&milan())];
    for presentation in presentations {
        for clock in [Clock::At(NOW), Clock::LatestIssueDate] {
            let verified = verify_presentation(&presentation, &roots(), clock, &Appraisal::strict()).unwrap();
            assert_eq!(verified.report_data(), &Octets([0x5a; 64]));
            assert_eq!(verified.roots(), RootSet::InsecureEmulator);
        }
        for now in [ISSUED - 1, EXPIRES + 1] {
            let verified = verify_presentation(&presentation, &roots(), Clock::At(now), &Appraisal::strict());
            assert_eq!(code(verified), "EVIDENCE_NOT_IN_TIME");
        }
    }
}

#[test]
fn evil_presented_evidence_of_an_emulator_is_nothing_to_builtin_roots() {
    let builtin = Roots::builtin().unwrap();
    let of_tdx = result(&tdx_presentation(&tdx(), body(), None), &builtin);
    assert_eq!(code(of_tdx), "EVIDENCE_ROOT_UNTRUSTED");
    assert_ne!(code(result(&snp_presentation(&milan()), &builtin)), "OK");
    let neither = Roots { snp: SnpRoots::danger_emulator(Vec::new()), tdx: None };
    let of_tdx = result(&tdx_presentation(&tdx(), body(), None), &neither);
    assert_eq!(code(of_tdx), "EVIDENCE_ROOT_UNTRUSTED");
    assert_ne!(code(result(&snp_presentation(&milan()), &neither)), "OK");
}

#[test]
fn evil_presented_log_has_to_lead_to_the_registers() {
    let (log, rtmr) = log();
    let of_log = |bytes| {
        let presentation = tdx_presentation(&tdx(), TdBody { rtmr, ..body() }, Some(bytes));
        code(result(&presentation, &roots()))
    };
    assert_eq!(of_log(log.encode()), "OK");
    let mut other = log.clone();
    other.entries[0] = LogEntry::new(2, 2, b"other kernel".to_vec());
    assert_eq!(of_log(other.encode()), "EVIDENCE_LOG_MISMATCH");
    let cut = EventLog { entries: Vec::new(), ..log.clone() };
    assert_eq!(of_log(cut.encode()), "EVIDENCE_LOG_MISMATCH");
    assert_eq!(of_log([log.encode(), vec![0]].concat()), "EVIDENCE_TRAILING_BYTES");
}

#[test]
fn evil_log_beside_a_report_without_registers_is_refused() {
    let with_log = Presentation { event_log: Some(log().0.encode()), ..snp_presentation(&milan()) };
    assert_eq!(code(result(&with_log, &roots())), "EVIDENCE_UNSUPPORTED");
}

#[test]
fn evil_exchanged_revocation_lists_are_refused() {
    let platform = tdx();
    let good = platform.collateral().unwrap();
    let with = |root_ca_crl: &[u8], pck_crl: &[u8]| {
        let mut collateral = good.clone();
        (collateral.root_ca_crl, collateral.pck_crl) = (root_ca_crl.to_vec(), pck_crl.to_vec());
        let quote = platform.quote(body()).unwrap().encode();
        let evidence = PresentedEvidence::Tdx { quote, collateral: collateral.encode() };
        code(result(&Presentation { evidence, event_log: None }, &roots()))
    };
    assert_eq!(with(&good.root_ca_crl, &good.pck_crl), "OK");
    // Both lists are there, but the number of one would count for the other.
    assert_eq!(with(&good.pck_crl, &good.root_ca_crl), "EVIDENCE_CERTIFICATE_INVALID");
    assert_eq!(with(&good.pck_crl, &good.pck_crl), "EVIDENCE_CERTIFICATE_INVALID");
    assert_eq!(with(&good.root_ca_crl, &good.root_ca_crl), "EVIDENCE_CERTIFICATE_INVALID");
}

#[test]
fn series_are_named_by_what_is_counted_and_the_key_of_the_issuer() {
    let of = |presentation: &Presentation, roots: &Roots| result(presentation, roots).unwrap().series();
    let tdx_series = of(&tdx_presentation(&tdx(), body(), None), &roots());
    let [evaluation, pck, root] = tdx_series.as_slice() else { panic!("{tdx_series:?}") };
    assert_eq!((evaluation.kind, evaluation.number), (SeriesKind::TcbEvaluation, Some(17)));
    assert_eq!((pck.kind, pck.number), (SeriesKind::PckCrl, Some(9)));
    assert_eq!((root.kind, root.number), (SeriesKind::RootCrl, Some(7)));
    assert_eq!(evaluation.issuer, root.issuer);
    assert_ne!(pck.issuer, root.issuer);

    // Another certificate over the same key is the same issuer, another key is another one.
    let mut renewed = tdx();
    renewed.ca.serial = vec![77];
    assert_eq!(of(&tdx_presentation(&renewed, body(), None), &roots()), tdx_series);
    let foreign = TdxPlatform::new("another emulator", ISSUED, EXPIRES).unwrap();
    let foreign_roots = Roots { tdx: Some(tdx_root(&foreign)), ..roots() };
    let foreign = of(&tdx_presentation(&foreign, body(), None), &foreign_roots);
    for (ours, theirs) in tdx_series.iter().zip(&foreign) {
        assert_eq!(ours.kind, theirs.kind);
        assert_ne!(ours.issuer, theirs.issuer);
    }

    let snp_series = of(&snp_presentation(&milan()), &roots());
    let [Series { kind: SeriesKind::SnpCrl, issuer, number: Some(5) }] = snp_series.as_slice() else {
        panic!("{snp_series:?}")
    };
    let mut unlisted = snp_presentation(&milan());
    if let PresentedEvidence::Snp { crl, .. } = &mut unlisted.evidence {
        *crl = None;
    }
    let expected = Series { kind: SeriesKind::SnpCrl, issuer: *issuer, number: None };
    assert_eq!(of(&unlisted, &roots()), [expected]);
    let vlek = snp(Generation::Milan, VekKind::Vlek);
    assert_eq!(of(&snp_presentation(&vlek), &roots()), snp_series, "both keys of AMD are below one list");
}
