//! Guests and clients that get nothing, each with the reason in the log.

use evidence::Octets;
use evidence::mint::tdx::TdxPlatform;
use serde_json::{Value, json};

use crate::client::{Answer, Guest, auth, bearer};
use crate::guests::INIT_DATA;
use crate::platform::{body, log, now, report, snp, snp_evidence, snp_file, tdx, tdx_evidence};
use crate::process::{Broker, SECRET, Setup};

/// The attestation failed with the one line that peers read, nothing is released, and the log has the reason.
fn nothing(guest: &Guest<'_>, answer: &Answer, reason: &str) {
    let log = guest.broker.log();
    assert_eq!(answer.refused(), (401, "AttestationError".to_owned()), "{log}");
    assert_eq!(answer.json()["detail"], "Attestation error: RCAR handshake Attest failed");
    assert_eq!(guest.get("a/b/c").variant(), "TokenNotFound");
    assert!(log.contains(reason), "expected {reason} in {log}");
    assert!(!guest.broker.log().contains("released"));
}

fn tdx_refused(broker: &Broker, platform: &TdxPlatform, reason: &str) {
    let mut guest = Guest::new(broker, "tdx");
    let evidence = tdx_evidence(platform, body(&guest, None), None);
    let answer = guest.attest(&evidence);
    nothing(&guest, &answer, reason);
}

#[test]
fn evil_guest_replays_evidence_of_another_session() {
    let platform = tdx();
    let broker = Setup::tdx(&platform).start();
    let mut first = Guest::new(&broker, "tdx");
    let evidence = tdx_evidence(&platform, body(&first, None), None);
    let mut second = Guest::new(&broker, "tdx");
    let answer = second.attest(&evidence);
    nothing(&second, &answer, "tdx evidence not trusted: BROKER_REPORT_DATA");
    assert_eq!(first.attest(&evidence).status, 200);
}

#[test]
fn evil_guest_replays_snp_evidence() {
    let platform = snp();
    let broker = Setup::snp(&platform).start();
    let first = Guest::new(&broker, "snp");
    let evidence = snp_evidence(&platform, report(&platform, &first, 3), true);
    let mut second = Guest::new(&broker, "snp");
    let answer = second.attest(&evidence);
    nothing(&second, &answer, "snp evidence not trusted: BROKER_REPORT_DATA");
}

#[test]
fn evil_guest_sends_other_init_data() {
    let platform = tdx();
    let broker = Setup::tdx(&platform).start();
    let mut guest = Guest::new(&broker, "tdx");
    guest.init_data = Some(INIT_DATA.to_owned());
    let body = evidence::abi::tdx::TdBody { mr_config_id: Octets([7; 48]), ..body(&guest, None) };
    let answer = guest.attest(&tdx_evidence(&platform, body, None));
    nothing(&guest, &answer, "tdx evidence not trusted: BROKER_INIT_DATA");
}

#[test]
fn evil_guest_sends_other_init_data_on_snp() {
    let platform = snp();
    let broker = Setup::snp(&platform).start();
    let mut guest = Guest::new(&broker, "snp");
    guest.init_data = Some(INIT_DATA.to_owned());
    let evidence = snp_evidence(&platform, report(&platform, &guest, 3), true);
    let answer = guest.attest(&evidence);
    nothing(&guest, &answer, "snp evidence not trusted: BROKER_INIT_DATA");
}

#[test]
fn evil_host_tampers_with_the_event_log() {
    let (platform, log) = (tdx(), log());
    let broker = Setup::tdx(&platform).start();
    let mut guest = Guest::new(&broker, "tdx");
    let body = body(&guest, Some(&log));
    let mut shorter = log;
    shorter.entries.pop();
    let answer = guest.attest(&tdx_evidence(&platform, body, Some(&shorter)));
    nothing(&guest, &answer, "tdx evidence not trusted: EVIDENCE_LOG_MISMATCH: event log: RTMR3");
}

#[test]
fn evil_guest_changes_a_quote_or_a_report() {
    let platform = tdx();
    let broker = Setup::tdx(&platform).start();
    let mut guest = Guest::new(&broker, "tdx");
    let mut quote = platform.quote(body(&guest, None)).unwrap();
    quote.body.mr_td = Octets([0x12; 48]);
    let evidence = evidence::abi::json::TdxEvidence { event_log: None, quote: quote.encode() }.encode();
    let answer = guest.attest(&serde_json::from_str(&evidence).unwrap());
    nothing(&guest, &answer, "tdx evidence not trusted: EVIDENCE_SIGNATURE_INVALID");
    let platform = snp();
    let broker = Setup::snp(&platform).start();
    let mut guest = Guest::new(&broker, "snp");
    let mut evidence = snp_evidence(&platform, report(&platform, &guest, 3), true);
    evidence["attestation_report"]["measurement"][0] = 0x12.into();
    let answer = guest.attest(&evidence);
    nothing(&guest, &answer, "snp evidence not trusted: EVIDENCE_SIGNATURE_INVALID");
}

#[test]
fn expired_or_missing_collateral_is_unavailable() {
    let platform = tdx();
    tdx_refused(
        &Setup::trusting_tdx(&platform).start(),
        &platform,
        "tdx evidence unavailable: BROKER_NO_COLLATERAL",
    );
    let mut other = tdx();
    other.fmspc = [9; 6];
    let broker =
        Setup::trusting_tdx(&platform).file("--collateral", other.collateral().unwrap().encode()).start();
    tdx_refused(&broker, &platform, "no collateral for FMSPC e00000000001");
    let mut old = tdx();
    old.tcb_info_window = (now() - 1000, now() - 10);
    let broker = Setup::tdx(&old).start();
    tdx_refused(&broker, &old, "tdx evidence unavailable: EVIDENCE_NOT_IN_TIME");
    let platform = snp();
    let broker = Setup::snp(&platform).start();
    let mut guest = Guest::new(&broker, "snp");
    let evidence = snp_evidence(&platform, report(&platform, &guest, 3), false);
    let answer = guest.attest(&evidence);
    nothing(&guest, &answer, "snp evidence unavailable: EVIDENCE_COLLATERAL_MISSING");
}

#[test]
fn evil_guest_on_an_emulated_platform_is_not_believed() {
    let platform = tdx();
    let collateral = platform.collateral().unwrap().encode();
    let broker = Setup::default().file("--collateral", collateral.as_str()).start();
    assert!(broker.log().contains("no insecure mode"));
    tdx_refused(&broker, &platform, "tdx evidence not trusted: EVIDENCE_ROOT_UNTRUSTED");
    let other = TdxPlatform::new("another", now() - 1000, now() + 1000).unwrap();
    let broker = Setup::trusting_tdx(&other).file("--collateral", collateral).start();
    tdx_refused(&broker, &platform, "tdx evidence not trusted: EVIDENCE_ROOT_UNTRUSTED");
    let platform = snp();
    let broker = Setup::default().start();
    let mut guest = Guest::new(&broker, "snp");
    let evidence = snp_evidence(&platform, report(&platform, &guest, 3), true);
    let answer = guest.attest(&evidence);
    nothing(&guest, &answer, "snp evidence not trusted: EVIDENCE_CERTIFICATE_INVALID");
}

#[test]
fn evil_host_hides_a_revocation() {
    let mut platform = snp();
    platform.crl.revoked = vec![vec![2]];
    let broker = Setup::snp(&platform).file("--collateral", snp_file(&platform, true)).start();
    let mut guest = Guest::new(&broker, "snp");
    let evidence = snp_evidence(&platform, report(&platform, &guest, 3), true);
    let answer = guest.attest(&evidence);
    nothing(&guest, &answer, "snp evidence not trusted: EVIDENCE_REVOKED");
}

#[test]
fn evil_guest_that_the_policy_denies() {
    let policy = "package policy\nimport rego.v1\ndefault allow := false\nallow if input.submods.cpu0[\"ear.veraison.annotated-evidence\"].tdx.td_attributes.debug == false\n";
    let platform = tdx();
    let broker = Setup::tdx(&platform).file("--policy", policy).start();
    for (debug, expected) in [(0, ""), (1, "PolicyDeny")] {
        let mut guest = Guest::new(&broker, "tdx");
        let mut body = body(&guest, None);
        body.td_attributes.0[0] |= debug;
        assert_eq!(guest.attest(&tdx_evidence(&platform, body, None)).status, 200, "{}", broker.log());
        for answer in [guest.get("a/b/c"), guest.get_with_token("a/b/c")] {
            assert_eq!(answer.variant(), expected);
            assert_eq!(answer.status == 200 && guest.open(&answer).as_deref() == Some(SECRET), debug == 0);
        }
    }
    assert!(broker.log().contains("PolicyDeny: data.policy.allow is not true for a/b/c"));
}

#[test]
fn evil_guest_sends_sample_evidence() {
    let broker = Setup::default().start();
    let answer = auth(&broker, "sample");
    assert_eq!(answer.refused(), (401, "AttestationError".to_owned()));
    assert!(broker.log().contains("--insecure-allow-sample"));
    // Where it counts, the default policy still gives it nothing.
    let broker = Setup::default().flag("--insecure-allow-sample").start();
    let guest = Guest::attested(&broker);
    assert_eq!(guest.get("a/b/c").refused(), (401, "PolicyDeny".to_owned()));
    assert_eq!(guest.get("a/b/none").refused(), (401, "PolicyDeny".to_owned()));
}

#[test]
fn evil_guest_sends_an_old_snp_report() {
    let platform = snp();
    let broker = Setup::snp(&platform).start();
    let mut guest = Guest::new(&broker, "snp");
    let evidence = snp_evidence(&platform, report(&platform, &guest, 2), true);
    let answer = guest.attest(&evidence);
    nothing(&guest, &answer, "BROKER_EVIDENCE_FORM: SNP report version");
}

#[test]
fn evil_guest_asks_from_another_vmpl() {
    let platform = snp();
    let broker = Setup::snp(&platform).start();
    let mut guest = Guest::new(&broker, "snp");
    let report = evidence::abi::snp::SnpReport { vmpl: 2, ..report(&platform, &guest, 3) };
    let answer = guest.attest(&snp_evidence(&platform, report, true));
    nothing(&guest, &answer, "BROKER_EVIDENCE_FORM: SNP report VMPL");
}

#[test]
fn evil_guest_answers_another_challenge() {
    let broker = Setup::sample().start();
    let guest = Guest::new(&broker, "sample");
    let mut attestation = guest.attestation(&guest.sample());
    attestation["runtime-data"]["nonce"] = "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=".into();
    let answer = guest.send(&attestation);
    nothing(&guest, &answer, "the nonce is not this session's");
}

#[test]
fn evil_client_tries_a_challenge_without_end() {
    let broker = Setup::sample().start();
    let mut guest = Guest::new(&broker, "sample");
    let good = guest.sample();
    for _ in 0..16 {
        assert_eq!(guest.attest(&json!({"svn": "1"})).variant(), "AttestationError");
    }
    let answer = guest.attest(&good);
    nothing(&guest, &answer, "too many attempts");
    assert_eq!(guest.attest(&good).variant(), "AttestationError");
}

#[test]
fn evil_guest_sends_what_is_no_attestation() {
    let broker = Setup::sample().start();
    let guest = Guest::new(&broker, "sample");
    let good = guest.attestation(&guest.sample());
    let changes: [(&str, Value); 8] = [
        ("/runtime-data/tee-pubkey/alg", "RSA1_5".into()),
        ("/runtime-data/tee-pubkey/x", "AAAA".into()),
        ("/runtime-data/tee-pubkey", json!({"kty": "oct"})),
        ("/tee-evidence/additional_evidence", "{}".into()),
        ("/tee-evidence/additional_evidence", json!({})),
        ("/tee-evidence/primary_evidence", "text".into()),
        ("/init-data", json!({"format": "json", "body": "{}"})),
        ("/runtime-data", Value::Null),
    ];
    for (pointer, value) in changes {
        let mut changed = good.clone();
        *changed.pointer_mut(pointer).unwrap() = value;
        assert_eq!(guest.send(&changed).refused(), (401, "AttestationError".to_owned()), "{pointer}");
    }
    for body in [b"".as_slice(), b"[", &[0xff; 10]] {
        assert_eq!(broker.call("POST", "attest", &guest.cookie, body).variant(), "AttestationError");
    }
    assert_eq!(broker.call("POST", "attest", "", good.to_string().as_bytes()).variant(), "AttestationError");
    assert_eq!(guest.get("a/b/c").variant(), "TokenNotFound");
    assert_eq!(guest.send(&good).status, 200, "{}", broker.log());
}

#[test]
fn evil_client_brings_an_expired_token() {
    let plan = "[[fault]]\nkind = \"expired-token\"\n";
    let broker = Setup::sample().faults(plan).start();
    let guest = Guest::attested(&broker);
    assert_eq!(guest.get_with_token("a/b/c").refused(), (401, "TokenVerifierError".to_owned()));
    assert_eq!(broker.call("GET", "resource/a/b/c", &bearer("a.b.c"), b"").variant(), "TokenVerifierError");
    assert!(broker.log().contains("token: expired 36") && !broker.log().contains("released"));
}

#[test]
fn evil_client_uses_a_session_whose_token_is_over() {
    let broker = Setup::sample().faults("[[fault]]\nkind = \"expired-token\"\n").start();
    let guest = Guest::attested(&broker);
    assert_eq!(guest.get("a/b/c").refused(), (401, "TokenVerifierError".to_owned()));
    assert!(!broker.log().contains("released"));
    let second = Guest::attested(&broker);
    assert_eq!(second.open(&second.get("a/b/c")).as_deref(), Some(SECRET));
}
