//! Every fault, seen by a client.

use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::client::{Guest, auth, header};
use crate::process::{Broker, SECRET, Setup};

fn broker(plan: &str) -> Broker {
    Setup::sample().faults(plan).start()
}

fn fault(lines: &str) -> String {
    format!("[[fault]]\n{lines}\n")
}

#[test]
fn answers_are_spoiled_once_and_good_again() {
    for (lines, opens) in [
        ("kind = \"wrong-curve-epk\"", false),
        ("kind = \"off-curve-epk\"", false),
        ("kind = \"bad-tag\"", false),
        ("kind = \"bad-wrapped-key\"", false),
        ("kind = \"malformed-member\"\nmember = \"iv\"", false),
        ("kind = \"reordered-header\"", true),
    ] {
        let broker = broker(&fault(lines));
        let guest = Guest::attested(&broker);
        let first = guest.get("a/b/c");
        assert_eq!(guest.open(&first).is_some(), opens, "{lines}");
        if opens {
            let header = URL_SAFE_NO_PAD.decode(first.json()["protected"].as_str().unwrap()).unwrap();
            assert!(header.starts_with(b"{\"epk\""));
        }
        assert_eq!(guest.open(&guest.get("a/b/c")).as_deref(), Some(SECRET), "{lines}");
        assert!(broker.log().contains("FAULT"));
    }
}

#[test]
fn every_error_type_on_demand() {
    for name in [
        "AdminAuthAccess",
        "AttestationError",
        "JweError",
        "PluginInternalError",
        "PolicyDeny",
        "PolicyEngineError",
        "TokenNotFound",
        "TokenVerifierError",
        "PluginNotFound",
    ] {
        let broker = broker(&fault(&format!("kind = \"error\"\nat = \"resource\"\nerror = \"{name}\"")));
        let guest = Guest::attested(&broker);
        let status = if name == "PluginNotFound" { 404 } else { 401 };
        assert_eq!(guest.get("a/b/c").refused(), (status, name.to_owned()));
        assert_eq!(guest.get("a/b/c").status, 200);
    }
}

#[test]
fn statuses_redirects_and_delays() {
    let plan = [
        fault("kind = \"status\"\nat = \"auth\""),
        fault("kind = \"status\"\nat = \"auth\"\nnth = 2\nvalue = 500"),
        fault("kind = \"redirect\"\nat = \"auth\"\nlocation = \"http://127.0.0.1:1/\""),
        fault("kind = \"slow\"\nat = \"auth\"\nnth = 4\nmilliseconds = 150"),
    ]
    .concat();
    let broker = broker(&plan);
    assert_eq!(auth(&broker, "sample").status, 503);
    assert_eq!(auth(&broker, "sample").status, 500);
    let redirect = auth(&broker, "sample");
    assert_eq!((redirect.status, header(&redirect.head, "location")), (307, Some("http://127.0.0.1:1/")));
    let start = Instant::now();
    assert_eq!(auth(&broker, "sample").status, 200);
    assert!(start.elapsed().as_millis() >= 150);
}

#[test]
fn bodies_that_are_too_long_or_too_short() {
    let plan = [
        fault("kind = \"oversized-body\"\nat = \"auth\"\nvalue = 3000000"),
        fault("kind = \"endless-body\"\nat = \"auth\""),
        fault("kind = \"truncated-body\"\nat = \"auth\""),
        fault("kind = \"not-json\"\nat = \"auth\"\nnth = 2"),
        fault("kind = \"drip-body\"\nat = \"auth\"\nnth = 3\nmilliseconds = 1"),
    ]
    .concat();
    let broker = broker(&plan);
    let oversized = auth(&broker, "sample");
    assert!(oversized.body.len() > 3_000_000 && oversized.stated == Some(oversized.body.len()));
    let request = b"POST /kbs/v0/auth HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
    let endless = broker.read(request, 5 << 20).unwrap();
    assert!(endless.body.len() > 4 << 20 && endless.stated.is_none());
    let cut = auth(&broker, "sample");
    assert!(!cut.body.is_empty() && cut.body.len() < cut.stated.unwrap());
    assert!(serde_json::from_slice::<Value>(&auth(&broker, "sample").body).is_err());
    let dripped = auth(&broker, "sample");
    assert_eq!((dripped.status, dripped.stated), (200, Some(dripped.body.len())));
    assert!(dripped.json()["nonce"].is_string());
}

#[test]
fn connections_are_reset() {
    let broker = broker(&fault("kind = \"reset\"\nat = \"auth\""));
    let body = br#"{"version":"0.4.0","tee":"sample","extra-params":""}"#;
    let error = broker.try_call("POST", "/kbs/v0/auth", "", body).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(auth(&broker, "sample").status, 200);
}

#[test]
fn challenges_that_lead_nowhere() {
    let broker =
        broker(&[fault("kind = \"wrong-nonce\""), fault("kind = \"cookie-omitted\"\nnth = 2")].concat());
    let mut guest = Guest::new(&broker, "sample");
    let evidence = guest.sample();
    assert_eq!(guest.attest(&evidence).variant(), "AttestationError");
    let mut guest = Guest::new(&broker, "sample");
    assert_eq!(guest.cookie, "Cookie: \r\n");
    let evidence = guest.sample();
    assert_eq!(guest.attest(&evidence).variant(), "AttestationError");
    Guest::attested(&broker);
}
