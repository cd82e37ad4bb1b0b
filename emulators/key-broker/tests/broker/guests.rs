//! Guests that may read, and what their tokens say.

use evidence::Octets;
use serde_json::Value;
use sha2::{Digest as _, Sha384};

use crate::client::{Guest, header};
use crate::platform::{body, log, report, snp, snp_evidence, snp_file, tdx, tdx_evidence};
use crate::process::{SECRET, Setup};

pub(crate) const INIT_DATA: &str =
    "version = '0.1.0'\nalgorithm = 'sha384'\n[data]\n'aa.toml' = 'url = \"x\"'\n";

fn reads(guest: &Guest<'_>) {
    assert_eq!(guest.open(&guest.get("a/b/c")).as_deref(), Some(SECRET));
    assert_eq!(guest.open(&guest.get_with_token("a/b/c")).as_deref(), Some(SECRET));
    assert_eq!(guest.get("a/b/none").refused(), (401, "PluginInternalError".to_owned()));
}

fn annotated(guest: &Guest<'_>) -> Value {
    let claims = guest.claims();
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 300);
    assert_eq!(claims["submods"]["cpu0"]["ear.trustworthiness-vector"].as_object().unwrap().len(), 8);
    let evidence = claims["submods"]["cpu0"]["ear.veraison.annotated-evidence"].clone();
    let runtime = &evidence["runtime_data_claims"];
    assert_eq!(runtime["nonce"].as_str(), Some(guest.nonce.as_str()));
    assert_eq!((&runtime["tee-pubkey"], &runtime["additional-evidence"]), (&guest.jwk(), &"".into()));
    evidence
}

#[test]
fn a_tdx_guest_reads_its_resource() {
    let (platform, log) = (tdx(), log());
    let broker = Setup::tdx(&platform).start();
    let mut guest = Guest::new(&broker, "tdx");
    guest.init_data = Some(INIT_DATA.to_owned());
    let mut body = body(&guest, Some(&log));
    body.mr_config_id = Octets(Sha384::digest(INIT_DATA).into());
    let answer = guest.attest(&tdx_evidence(&platform, body, Some(&log)));
    assert_eq!(answer.status, 200, "{}", broker.log());
    reads(&guest);
    let evidence = annotated(&guest);
    let tdx = &evidence["tdx"];
    assert_eq!(tdx["quote"]["body"]["mr_td"], "11".repeat(48));
    assert_eq!(tdx["quote"]["header"]["version"], "0400");
    assert_eq!((&tdx["tcb_status"], &tdx["tcb_eval_num"]), (&"UpToDate".into(), &17.into()));
    assert_eq!((&tdx["pck_crl_num"], &tdx["root_ca_crl_num"]), (&9.into(), &7.into()));
    assert_eq!(
        (&tdx["td_attributes"]["debug"], &tdx["td_attributes"]["septve_disable"]),
        (&false.into(), &true.into())
    );
    assert_eq!(tdx["trust_roots"], "insecure-emulator");
    let events = tdx["uefi_event_logs"].as_array().unwrap();
    assert_eq!((events.len(), &events[0]["type_name"]), (2, &"EV_IPL".into()));
    assert_eq!(events[1]["details"]["data"]["content"]["image"], "registry.example/app:1");
    assert_eq!(evidence["init_data"], hex::encode(Sha384::digest(INIT_DATA)));
    assert_eq!(evidence["init_data_claims"]["aa.toml"]["url"], "x");
    assert_eq!(evidence["report_data"], format!("{}{}", hex::encode(guest.report_data()), "0".repeat(32)));
    assert!(broker.log().contains("INSECURE: EMULATED ROOTS ARE BELIEVED"));
}

#[test]
fn an_snp_guest_reads_its_resource_with_certificates_of_its_own_or_of_a_file() {
    let platform = snp();
    for (file, with_chain, list) in
        [(None, true, false), (Some(false), false, false), (Some(true), true, true)]
    {
        let mut setup = Setup::snp(&platform);
        if let Some(with_list) = file {
            setup = setup.file("--collateral", snp_file(&platform, with_list));
        }
        let broker = setup.start();
        let mut guest = Guest::new(&broker, "snp");
        guest.init_data = Some(INIT_DATA.to_owned());
        let mut report = report(&platform, &guest, 3);
        report.host_data = Octets::fitted(&Sha384::digest(INIT_DATA));
        let answer = guest.attest(&snp_evidence(&platform, report, with_chain));
        assert_eq!(answer.status, 200, "{}", broker.log());
        reads(&guest);
        let evidence = annotated(&guest);
        let snp = &evidence["snp"];
        assert_eq!(snp["measurement"], "11".repeat(48));
        assert_eq!((&snp["policy_debug_allowed"], &snp["policy_smt_allowed"]), (&false.into(), &true.into()));
        assert_eq!((&snp["reported_tcb_snp"], &snp["reported_tcb_microcode"]), (&20.into(), &209.into()));
        assert_eq!(snp["crl_num"].is_u64(), list);
        assert_eq!(evidence["init_data"], hex::encode(&Sha384::digest(INIT_DATA)[..32]));
    }
}

#[test]
fn the_cookie_is_that_of_the_protocol() {
    let broker = Setup::sample().start();
    let guest = Guest::attested(&broker);
    assert!(guest.cookie.starts_with("Cookie: kbs-session-id=") && guest.cookie.trim().len() == 55);
    let answer = guest.auth();
    let cookie = header(&answer.head, "set-cookie").unwrap();
    assert!(cookie.contains("; Expires=") && cookie.contains(" GMT"), "{cookie}");
    assert_eq!(header(&answer.head, "content-type"), Some("application/json"));
    assert_eq!(answer.json()["extra-params"], "");
    // An attested session keeps its token, whatever is sent.
    let again = guest.send(&serde_json::json!({}));
    assert_eq!(again.json()["token"].as_str(), Some(guest.token.as_str()));
    assert_eq!(guest.open(&guest.get("a/b/c?version=1")).as_deref(), Some(SECRET));
}

#[test]
fn a_failed_attestation_may_be_repeated() {
    let broker = Setup::sample().start();
    let mut guest = Guest::new(&broker, "sample");
    let good = guest.sample();
    let bad = guest.attest(&serde_json::json!({"svn": "1", "report_data": "AAAA"}));
    assert_eq!(bad.refused(), (401, "AttestationError".to_owned()));
    assert_eq!(bad.json()["detail"], "Attestation error: RCAR handshake Attest failed");
    assert_eq!(guest.get("a/b/c").variant(), "TokenNotFound");
    assert_eq!(guest.attest(&good).status, 200);
    assert_eq!(guest.open(&guest.get("a/b/c")).as_deref(), Some(SECRET));
}
