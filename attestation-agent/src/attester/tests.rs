use std::fs;

use evidence::Octets;
use evidence::abi::json::TdxEvidence;
use evidence::abi::presentation::{Presentation, PresentedEvidence};
use evidence::verify::replay::replay;

use super::*;
use crate::collateral::{Collateral, MAXIMUM_COLLATERAL_BYTES};
use crate::testing::FakeTdx;

const CLAIM: Claim = Claim::ChipSession { transcript: [3; 64] };

fn code<T>(result: Result<T, AttestationError>) -> &'static str {
    result.map_or_else(|error| error.code(), |_| "OK")
}

/// An empty machine.
fn machine() -> (tempfile::TempDir, TeeRoot) {
    let directory = tempfile::tempdir().unwrap();
    let root = TeeRoot::insecure(directory.path());
    (directory, root)
}

#[test]
fn evidence_is_about_the_claim_and_carries_the_log() {
    let (directory, _) = machine();
    let tdx = FakeTdx::new();
    let attester = tdx.attester(directory.path());
    let bare = attester.evidence(&CLAIM).unwrap();
    assert!(bare.event_log().is_none(), "neither firmware nor runtime has logged");
    let done = attester.extend("example.org", "Test", "one", 17).unwrap();
    assert_eq!(done, Extension::Done { register: LogIndex::of_pcr(17) });
    let _ = attester.extend("example.org", "Test", "two words", 8).unwrap();
    let evidence = attester.evidence(&CLAIM).unwrap();
    let quote = evidence.tdx_quote().unwrap();
    assert_eq!(quote.body.report_data.0, *CLAIM.report_data().as_bytes());
    let log = evidence.event_log().unwrap();
    let vouched = replay(log, &quote.body.rtmr).unwrap();
    let found: Vec<_> = vouched
        .iter()
        .map(|entry| (entry.index, entry.aael().map(|event| event.text()).unwrap_or_default()))
        .collect();
    let expected = [(4, "example.org Test one".to_owned()), (3, "example.org Test two words".to_owned())];
    assert_eq!(found, expected);
    let json = TdxEvidence::parse(evidence.to_json().as_bytes()).unwrap();
    assert_eq!((json.quote, json.event_log), (quote.encode(), Some(log.encode())));
}

#[test]
fn evidence_is_presented_with_its_collateral() {
    let (directory, _) = machine();
    let tdx = FakeTdx::new();
    let evidence = tdx.attester(directory.path()).evidence(&CLAIM).unwrap();
    assert_eq!(code(evidence.present(&Collateral::none())), "EVIDENCE_COLLATERAL_MISSING");
    let file = directory.path().join("collateral.json");
    fs::write(&file, tdx.collateral()).unwrap();
    let presented = evidence.present(&Collateral::load(&file).unwrap()).unwrap();
    let parsed = Presentation::parse(&presented).unwrap();
    let PresentedEvidence::Tdx { quote, collateral } = parsed.evidence else { panic!("TDX") };
    assert_eq!(quote, evidence.tdx_quote().unwrap().encode());
    assert_eq!(collateral, tdx.collateral());
}

#[test]
fn evil_host_oversize_collateral() {
    let (directory, _) = machine();
    let file = directory.path().join("collateral.json");
    fs::write(&file, vec![b' '; MAXIMUM_COLLATERAL_BYTES + 1]).unwrap();
    assert_eq!(code(Collateral::load(&file)), "ATTEST_COLLATERAL_INVALID");
    let many = r#"{"certificates":[CERTS],"crl":null}"#;
    let certificate = r#"{"cert_type":"VCEK","data":[1]}"#;
    fs::write(&file, many.replace("CERTS", &[certificate; 9].join(","))).unwrap();
    let report = evidence::abi::snp::SnpReport::parse(&snp_report()).unwrap();
    let form = Form::Snp(evidence::abi::json::SnpEvidence { report, certificates: None });
    let presented = Evidence { form }.present(&Collateral::load(&file).unwrap());
    assert_eq!(code(presented), "ATTEST_COLLATERAL_INVALID");
}

/// The smallest report that parses: version 3, Milan.
fn snp_report() -> Vec<u8> {
    let mut report = vec![0; evidence::abi::snp::REPORT_BYTES];
    report[0] = 3;
    report[8 + 2] = 2;
    report[0x188] = 0x19;
    report
}

#[test]
fn an_snp_report_is_presented_with_the_certificates_it_came_with() {
    let (directory, _) = machine();
    let report = evidence::abi::snp::SnpReport::parse(&snp_report()).unwrap();
    let certificate = |kind, data: &[u8]| evidence::abi::json::SnpCertificate { kind, data: data.to_vec() };
    use evidence::abi::json::SnpCertificateKind::{Ask, Vcek};
    let certificates = Some(vec![certificate(Ask, b"ask"), certificate(Vcek, b"vcek")]);
    let form = Form::Snp(evidence::abi::json::SnpEvidence { report, certificates });
    let evidence = Evidence { form };
    let presented = |file: &str| {
        let path = directory.path().join("collateral.json");
        fs::write(&path, file).unwrap();
        let bytes = evidence.present(&Collateral::load(&path).unwrap()).unwrap();
        let PresentedEvidence::Snp { vek, ask, crl, .. } = Presentation::parse(&bytes).unwrap().evidence
        else {
            panic!("SNP")
        };
        (vek, ask, crl)
    };
    let came = (b"vcek".to_vec(), Some(b"ask".to_vec()));
    assert_eq!(presented(r#"{"certificates":[],"crl":null}"#), (came.0.clone(), came.1.clone(), None));
    assert_eq!(presented(r#"{"crl":"Y3Js"}"#), (came.0, came.1, Some(b"crl".to_vec())));
    let file = r#"{"certificates":[{"cert_type":"VCEK","data":[1,2]}],"crl":null}"#;
    assert_eq!(presented(file), (vec![1, 2], None, None), "the file comes first");
}

#[test]
fn evil_host_quote_with_other_registers() {
    let (directory, _) = machine();
    let tdx = FakeTdx::new();
    let attester = tdx.attester(directory.path());
    let _ = attester.extend("example.org", "Test", "one", 17).unwrap();
    tdx.state.lock().unwrap().lie = Some([Octets([9; 48]); 4]);
    assert_eq!(code(attester.evidence(&CLAIM)), "ATTEST_LOG_INVALID");
}

#[test]
fn evil_workload_extends_other_register() {
    let (directory, _) = machine();
    let tdx = FakeTdx::new();
    let attester = tdx.attester(directory.path());
    for pcr in [0, 1, 2, 6, 7, 24, u64::MAX] {
        assert_eq!(
            code(attester.extend("example.org", "Test", "x", pcr)),
            "ATTEST_REGISTER_REFUSED",
            "{pcr}"
        );
    }
    assert_eq!(tdx.state.lock().unwrap().rtmr, [Octets([0; 48]); 4], "nothing was extended");
    let _ = attester.extend("example.org", "Test", "x", 8).unwrap();
    let state = tdx.state.lock().unwrap().rtmr.map(|register| register.is_zero());
    assert_eq!(state, [true, true, false, true], "the one that was asked for");
    assert_eq!(code(attester.evidence(&CLAIM)), "OK", "and the log leads to it");
}

#[test]
fn evil_workload_event_that_shifts_fields() {
    let (directory, _) = machine();
    let attester = FakeTdx::new().attester(directory.path());
    for (domain, operation, content) in
        [("a b", "c", "d"), ("a", "b c", "d"), ("a", "b", "c\nd"), ("", "b", "c")]
    {
        assert_eq!(code(attester.extend(domain, operation, content, 17)), "ATTEST_EVENT_INVALID");
    }
}

#[test]
fn evil_host_initdata_digest_of_another() {
    let (directory, _) = machine();
    let tdx = FakeTdx::new();
    let attester = tdx.attester(directory.path());
    tdx.state.lock().unwrap().config_id = Octets::fitted(&[7; 32]);
    assert_eq!(attester.bind_initdata(&[7; 32]).unwrap(), Bound::Matches);
    assert_eq!(code(attester.bind_initdata(&[8; 32])), "ATTEST_INITDATA_MISMATCH");
    assert_eq!(code(attester.bind_initdata(&[])), "ATTEST_INITDATA_MISMATCH");
}

#[test]
fn registers_are_named() {
    let (directory, _) = machine();
    let names: Vec<_> = FakeTdx::new().attester(directory.path()).registers().unwrap();
    let names: Vec<_> = names.iter().map(|register| register.name).collect();
    assert_eq!(names, ["MRCONFIGID", "RTMR0", "RTMR1", "RTMR2", "RTMR3"]);
}

#[test]
fn without_a_platform_every_place_is_named() {
    let (_directory, root) = machine();
    let (_other, system) = machine();
    let error = Attester::detect_beside(&root, Options::default(), &system).unwrap_err();
    assert_eq!(error.code(), "ATTEST_NO_TEE");
    let text = error.to_string();
    assert!(text.contains("tsm/report") && text.contains("dev/sev-guest"), "{text}");
    assert_eq!(Attester::probe(&root).len(), 2);
}

#[test]
fn sample_evidence_is_asked_for_by_name() {
    let (_directory, root) = machine();
    let (_other, system) = machine();
    let options = Options { insecure_sample: true };
    let attester = Attester::detect_beside(&root, options, &system).unwrap();
    assert_eq!(attester.tee(), Tee::Sample);
    assert_eq!(attester.insecure_modes(), ["emulated-tee", "sample-evidence"]);
    // A broker compares the digest of a handshake without padding.
    let digest = Claim::Kbs(crate::report_data::KbsDigest::new([0x5a; 48]));
    let json: serde_json::Value =
        serde_json::from_str(&attester.evidence(&digest).unwrap().to_json()).unwrap();
    assert_eq!(json["report_data"], "Wlpa".repeat(16));
    assert!(!attester.tee().is_confidential());
    let outcome = attester.extend("example.org", "Test", "x", 17).unwrap();
    assert_eq!(outcome, Extension::NotSupported);
    assert_eq!(attester.bind_initdata(&[1]).unwrap(), Bound::NotSupported);
}

#[test]
fn evil_operator_emulated_tee_inside_a_real_one() {
    let (_directory, root) = machine();
    let signs =
        ["dev/tdx_guest", "dev/sev-guest", "sys/devices/virtual/misc/tdx_guest/measurements/mrconfigid"];
    for sign in signs {
        let (directory, system) = machine();
        let path = directory.path().join(sign);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
        for options in [Options::default(), Options { insecure_sample: true }] {
            let result = Attester::detect_beside(&root, options, &system);
            assert_eq!(code(result), "ATTEST_INSECURE_ON_TEE", "{sign}");
        }
    }
}

#[test]
fn a_tpm_is_found_beside_the_tee_and_is_none() {
    let (directory, root) = machine();
    fs::create_dir(directory.path().join("dev")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(directory.path().join("dev/tpm0")).unwrap());
    let (_other, system) = machine();
    let alone = Attester::detect_beside(&root, Options::default(), &system);
    assert_eq!(code(alone), "ATTEST_NO_TEE", "a TPM alone");
    let attester = FakeTdx::new().attester(directory.path());
    assert_eq!(attester.tee(), Tee::Tdx);
    assert_eq!(attester.additional_tees(), [Tee::Tpm]);
    assert_eq!(code(attester.additional_evidence(&CLAIM)), "ATTEST_TPM", "nobody listens");
    assert_eq!(code(attester.evidence(&CLAIM)), "OK");
}
