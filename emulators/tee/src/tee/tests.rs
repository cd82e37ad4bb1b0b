use super::*;
use evidence::EvidenceError;
use evidence::abi::snp::Generation;
use evidence::abi::tdx::TdxQuote;
use evidence::verify::roots::{SnpRoots, TdxRoot};
use evidence::verify::snp::{VekKind, VerifiedSnp};
use evidence::verify::tdx::{Appraisal, VerifiedTdx};
use evidence::verify::{snp, tdx};

use crate::testing::{NOW, fault, launched, platform};

const DATA: [u8; 64] = [0x5a; 64];

fn verified_tdx(state: &State, launch: &Launch, quote: &[u8]) -> Result<VerifiedTdx, EvidenceError> {
    let collateral = state.tdx(launch, NOW).unwrap().collateral().unwrap();
    let root = TdxRoot::danger_emulator(state.bundle().tdx.clone().unwrap());
    let appraisal = Appraisal { debug: true, ..Appraisal::strict() };
    tdx::verify(quote, &collateral, &root, &appraisal, NOW)
}

fn verified_snp(state: &State, launch: &Launch, report: &[u8]) -> Result<VerifiedSnp, EvidenceError> {
    let (_, collateral) = state.snp(launch, NOW).unwrap();
    snp::verify(report, &collateral, &SnpRoots::danger_emulator(state.bundle().snp.clone()), NOW)
}

#[test]
fn quotes_verify_under_the_emulated_root_alone() {
    let (_directory, state) = platform();
    for shape in ["", "quote = 5\n", "quote = 5\nbody = \"1.5\"\n", "quote = 5\nbody = \"1.5-extended\"\n"] {
        let digest = "ab".repeat(32);
        let text = format!("initdata_digest = \"{digest}\"\ndebug = true\n[tdx]\n{shape}");
        let (tee, launch) = launched(&state, &text, "");
        let quote = tee.report(&DATA, 0).unwrap().outblob;
        let verified = verified_tdx(&state, &launch, &quote).unwrap();
        let body = &verified.quote.body;
        assert_eq!((body.report_data.0, body.rtmr), (DATA, tee.registers()));
        assert_eq!(body.mr_config_id, Octets::fitted(&[0xab; 32]));
        assert!(body.is_debug());
        let collateral = state.tdx(&launch, NOW).unwrap().collateral().unwrap();
        let refused = tdx::verify(&quote, &collateral, &TdxRoot::intel(), &Appraisal::strict(), NOW);
        assert_eq!(refused.unwrap_err().code(), "EVIDENCE_ROOT_UNTRUSTED");
    }
}

#[test]
fn reports_of_every_version_and_generation_verify_under_the_emulated_roots_alone() {
    let (_directory, state) = platform();
    for generation in [Generation::Milan, Generation::Genoa, Generation::Turin] {
        for (version, key) in [(2, "vcek"), (3, "vcek"), (5, "vcek"), (4, "vlek")] {
            let name = generation.name().to_lowercase();
            let text = format!(
                "tee = \"snp\"\n[snp]\ngeneration = \"{name}\"\nreport_version = {version}\nkey = \"{key}\"\n\
                 author_key_digest = \"{}\"\n",
                "cd".repeat(48)
            );
            let (tee, launch) = launched(&state, &text, "");
            let report = tee.report(&DATA, 2).unwrap().outblob;
            let verified = verified_snp(&state, &launch, &report).unwrap();
            assert_eq!((verified.generation, verified.report.version), (generation, version));
            assert_eq!((verified.report.report_data.0, verified.report.vmpl), (DATA, 2));
            assert_eq!(verified.kind == VekKind::Vlek, key == "vlek");
            assert!(verified.report.key_info.author_key_present());
            let (_, collateral) = state.snp(&launch, NOW).unwrap();
            let refused = snp::verify(&report, &collateral, &SnpRoots::amd().unwrap(), NOW);
            assert_eq!(refused.unwrap_err().code(), "EVIDENCE_ROOT_UNTRUSTED");
        }
    }
}

#[test]
fn launches_that_a_verifier_refuses_are_refused() {
    let (_directory, state) = platform();
    let expired = "[dates]\nissued = 2026-01-01T00:00:00Z\nexpires = 2026-02-01T00:00:00Z\n";
    let leaves = "[dates]\ncertificates_expire = 2026-02-01T00:00:00Z\n";
    let cases = [
        ("[tdx]\ntcb_status = \"OutOfDate\"\n".to_owned(), "EVIDENCE_TCB_REFUSED"),
        ("[tdx]\npck_revoked = true\n".to_owned(), "EVIDENCE_SIGNATURE_INVALID"),
        (expired.to_owned(), "EVIDENCE_NOT_IN_TIME"),
        (leaves.to_owned(), "EVIDENCE_NOT_IN_TIME"),
        (format!("tee = \"snp\"\n{expired}"), "EVIDENCE_NOT_IN_TIME"),
        (format!("tee = \"snp\"\n{leaves}"), "EVIDENCE_NOT_IN_TIME"),
        ("tee = \"snp\"\n[snp]\nask_revoked = true\n".to_owned(), "EVIDENCE_REVOKED"),
    ];
    for (text, code) in cases {
        let (tee, launch) = launched(&state, &text, "");
        let blob = tee.report(&DATA, 0).unwrap().outblob;
        let error = match launch.tee {
            TeeKind::Tdx => verified_tdx(&state, &launch, &blob).unwrap_err(),
            TeeKind::Snp => verified_snp(&state, &launch, &blob).unwrap_err(),
        };
        assert_eq!(error.code(), code, "{text}");
    }
}

#[test]
fn report_data_has_64_bytes() {
    let (_directory, state) = platform();
    let (tee, _) = launched(&state, "", "");
    for length in [0, 48, 63, 65] {
        assert_eq!(tee.report(&vec![1; length], 0).unwrap_err().code(), Errno::EINVAL.code());
    }
}

#[test]
fn an_extended_register_stands_in_the_next_quote() {
    let (_directory, state) = platform();
    let (tee, launch) = launched(&state, "", "");
    let before = tee.registers();
    let digest = Octets([7; 48]);
    tee.extend(3, &digest).unwrap();
    assert_eq!(tee.registers()[3], extend(&before[3], &digest.0));
    assert_eq!(tee.registers()[..3], before[..3]);
    let quote = tee.report(&DATA, 0).unwrap().outblob;
    assert_eq!(verified_tdx(&state, &launch, &quote).unwrap().quote.body.rtmr, tee.registers());
    assert_eq!(tee.extend(4, &digest).unwrap_err().code(), Errno::EINVAL.code());
}

#[test]
fn every_fault_of_a_report_happens_once() {
    let (_directory, state) = platform();
    type Expect = fn(&[u8], &[u8]) -> bool;
    let cases: [(&str, Expect); 8] = [
        ("empty-quote", |blob, _| blob.is_empty()),
        ("short-quote", |blob, genuine| !blob.is_empty() && blob.len() < genuine.len()),
        ("zero-quote", |blob, genuine| blob.len() == genuine.len() && blob.iter().all(|byte| *byte == 0)),
        ("padded-quote", |blob, genuine| {
            TdxQuote::without_padding(blob).is_ok_and(|it| it.len() == genuine.len())
        }),
        ("oversize-quote", |blob, _| blob.len() == OVERSIZE_BYTES),
        ("flipped-byte", |blob, genuine| differences(blob, genuine) == [100]),
        ("other-report-data", |blob, _| {
            TdxQuote::parse(blob).is_ok_and(|it| it.body.report_data.0 == [0xa5; 64])
        }),
        ("generation-race", |blob, genuine| blob == genuine),
    ];
    for (kind, expected) in cases {
        let (tee, launch) = launched(&state, "", &fault(kind));
        let first = tee.report(&DATA, 0).unwrap();
        let second = tee.report(&DATA, 0).unwrap();
        assert!(verified_tdx(&state, &launch, &second.outblob).is_ok());
        assert!(expected(&first.outblob, &second.outblob), "{kind}");
        assert_eq!((first.raced, second.raced), (kind == "generation-race", false));
        let genuine = ["other-report-data", "generation-race"].contains(&kind);
        assert_eq!(verified_tdx(&state, &launch, &first.outblob).is_ok(), genuine, "{kind}");
    }
}

fn differences(one: &[u8], other: &[u8]) -> Vec<usize> {
    assert_eq!(one.len(), other.len());
    // The signatures are deterministic, so that only the flipped byte differs.
    (0..one.len()).filter(|index| one[*index] != other[*index]).collect()
}

#[test]
fn errors_and_replays_are_planned() {
    let (_directory, state) = platform();
    let (tee, _) = launched(
        &state,
        "",
        "[[fault]]\nkind = \"io-error\"\nvalue = 16\n[[fault]]\nkind = \"io-error\"\nnth = 2\n",
    );
    assert_eq!(tee.report(&DATA, 0).unwrap_err().code(), Errno::EBUSY.code());
    assert_eq!(tee.report(&DATA, 0).unwrap_err().code(), Errno::EIO.code());
    let (tee, _) = launched(&state, "", &format!("{}nth = 2\n", fault("replayed-quote")));
    let old = tee.report(&DATA, 0).unwrap().outblob;
    assert_eq!(tee.report(&[1; 64], 0).unwrap().outblob, old);
    assert_ne!(tee.report(&[1; 64], 0).unwrap().outblob, old);
    let (tee, _) = launched(&state, "", &(fault("register-io-error") + &fault("ccel-tampered")));
    let before = tee.registers();
    assert_eq!(tee.extend(2, &Octets([1; 48])).unwrap_err().code(), Errno::EIO.code());
    assert_eq!(tee.registers(), before);
    let tampered = tee.ccel();
    let log = evidence::abi::event_log::EventLog::parse_ccel(&tampered).unwrap();
    let error = evidence::verify::replay::replay(&log, &before).unwrap_err();
    assert_eq!(error.code(), "EVIDENCE_LOG_MISMATCH");
    assert_ne!(tee.ccel(), tampered);
}

/// The entries of a table as a careful guest reads them; nothing where the table lies.
fn read_table(table: &[u8]) -> Option<Vec<(u128, Vec<u8>)>> {
    let mut found: Vec<(u128, Vec<u8>)> = Vec::new();
    let mut taken: Vec<std::ops::Range<usize>> = Vec::new();
    for entry in table.chunks_exact(24) {
        let number = |at: usize| u32::from_le_bytes(entry[at..at + 4].try_into().unwrap()) as usize;
        let guid = u128::from_be_bytes(entry[..16].try_into().unwrap());
        if guid == 0 {
            return Some(found);
        }
        let range = number(16)..number(16).checked_add(number(20))?;
        if taken.iter().any(|other| other.start < range.end && range.start < other.end) {
            return None;
        }
        found.push((guid, table.get(range.clone())?.to_vec()));
        taken.push(range);
    }
    None
}

#[test]
fn the_certificate_table_has_the_form_of_the_ghcb() {
    let (_directory, state) = platform();
    for key in ["vcek", "vlek"] {
        let (tee, launch) = launched(&state, &format!("tee = \"snp\"\n[snp]\nkey = \"{key}\"\n"), "");
        let table = read_table(&tee.report(&DATA, 0).unwrap().auxblob).unwrap();
        let (_, collateral) = state.snp(&launch, NOW).unwrap();
        let expected = [collateral.vek, collateral.ask.unwrap(), collateral.ark.unwrap()];
        assert_eq!(table.iter().map(|(_, data)| data.clone()).collect::<Vec<_>>(), expected);
        let first = if key == "vcek" { 0x63da_758d } else { 0xa807_4bc2 };
        assert_eq!(table[0].0 >> 96, first);
    }
}

#[test]
fn every_lie_of_the_certificate_table_happens() {
    let (_directory, state) = platform();
    for kind in [
        "certificate-length",
        "certificate-offset",
        "certificate-overlap",
        "certificate-unterminated",
        "certificates-absent",
    ] {
        let (tee, _) = launched(&state, "tee = \"snp\"\n", &fault(kind));
        assert_eq!(read_table(&tee.report(&DATA, 0).unwrap().auxblob), None, "{kind}");
        assert_eq!(read_table(&tee.report(&DATA, 0).unwrap().auxblob).unwrap().len(), 3);
    }
    let (tee, _) = launched(&state, "tee = \"snp\"\n", &fault("certificate-missing"));
    let table = read_table(&tee.report(&DATA, 0).unwrap().auxblob).unwrap();
    assert_eq!(table.iter().map(|(guid, _)| guid >> 96).collect::<Vec<_>>(), [0x4ab7_b379, 0xc0b4_06a4]);
}
