//! Who counts as the broker: only what the CA or the pin of bound configuration vouches for.

use attestation_agent::kbs::{BrokerTrust, Hop, KbsClient, KbsError, KbsOptions, KbsUrl, Secret};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::broker::{Broker, SECRET};
use crate::certificates;
use crate::guest::{get, sample};

async fn get_with(url: &str, ca: Option<&str>, pins: &[[u8; 32]]) -> Result<Secret, KbsError> {
    let trust = BrokerTrust::new(ca, pins).unwrap();
    let options = KbsOptions::new(KbsUrl::parse(url).unwrap(), Some(trust));
    let client = KbsClient::background_check(&options, sample()).unwrap();
    let result = get(&client).await;
    assert_eq!(client.holds_session().await, result.is_ok());
    result
}

fn refused(result: Result<Secret, KbsError>, code: &str, broker: &Broker) {
    let error = result.unwrap_err();
    assert_eq!(
        (error.code(), error.hop()),
        (code, Hop::Auth),
        "{error} {:?}",
        std::error::Error::source(&error)
    );
    assert!(broker.seen().is_empty(), "nothing was sent to somebody else");
}

#[tokio::test]
async fn the_configured_ca_or_key_is_believed() {
    let tls = certificates::make("right", None);
    let broker = Broker::tls(tls.server).await;
    let url = format!("https://127.0.0.1:{}", broker.port);
    for (ca, pins) in [
        (Some(tls.ca_pem.as_str()), vec![]),
        (None, vec![tls.spki_sha256]),
        (None, vec![[0; 32], tls.spki_sha256]),
        (Some(tls.ca_pem.as_str()), vec![tls.spki_sha256]),
    ] {
        assert_eq!(get_with(&url, ca, &pins).await.unwrap().expose(), SECRET);
    }
}

#[tokio::test]
async fn evil_host_presents_a_certificate_of_another_ca() {
    let (right, evil) = (certificates::make("right", None), certificates::make("evil", None));
    let broker = Broker::tls(evil.server).await;
    let url = format!("https://127.0.0.1:{}", broker.port);
    refused(get_with(&url, Some(&right.ca_pem), &[]).await, "KBS_TLS_UNTRUSTED", &broker);
    // The key is right but the CA is not: both have to hold.
    refused(get_with(&url, Some(&right.ca_pem), &[evil.spki_sha256]).await, "KBS_TLS_UNTRUSTED", &broker);
}

#[tokio::test]
async fn evil_host_presents_another_key() {
    let (right, evil) = (certificates::make("right", None), certificates::make("evil", None));
    let broker = Broker::tls(evil.server).await;
    let url = format!("https://127.0.0.1:{}", broker.port);
    refused(get_with(&url, None, &[right.spki_sha256]).await, "KBS_TLS_PIN_MISMATCH", &broker);
    // The CA is right but the key is not: both have to hold.
    refused(get_with(&url, Some(&evil.ca_pem), &[right.spki_sha256]).await, "KBS_TLS_PIN_MISMATCH", &broker);
}

#[tokio::test]
async fn evil_host_presents_a_certificate_of_another_name() {
    let tls = certificates::make("right", Some("other.example"));
    let broker = Broker::tls(tls.server).await;
    let url = format!("https://127.0.0.1:{}", broker.port);
    refused(get_with(&url, Some(&tls.ca_pem), &[]).await, "KBS_TLS_UNTRUSTED", &broker);
    // With a pin alone, the key is the identity.
    get_with(&url, None, &[tls.spki_sha256]).await.unwrap();
}

#[tokio::test]
async fn evil_host_takes_the_encryption_away() {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let host = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await.unwrap();
        let mut seen = Vec::new();
        stream.read_to_end(&mut seen).await.unwrap();
        seen
    });
    let error = get_with(&url, None, &[[0; 32]]).await.unwrap_err();
    assert_eq!((error.code(), error.hop()), ("KBS_TLS_FAILED", Hop::Auth));
    let seen = host.await.unwrap();
    assert!(!seen.windows(4).any(|window| window == b"/kbs"), "nothing was sent in clear");
}

#[test]
fn https_needs_trust() {
    let options = KbsOptions::new(KbsUrl::parse("https://127.0.0.1").unwrap(), None);
    assert_eq!(KbsClient::background_check(&options, sample()).unwrap_err().code(), "KBS_TRUST_MISSING");
    assert_eq!(BrokerTrust::new(None, &[]).unwrap_err().code(), "KBS_TRUST_MISSING");
}

#[test]
fn trust_is_capped() {
    let code = |ca: Option<&str>, pins: &[[u8; 32]]| BrokerTrust::new(ca, pins).unwrap_err().code();
    let ca = certificates::make("right", None).ca_pem;
    BrokerTrust::new(Some(&ca), &[[0; 32]; 16]).unwrap();
    assert_eq!(code(None, &[[0; 32]; 17]), "KBS_TRUST_INVALID");
    assert_eq!(code(Some(&format!("{ca}{}", " ".repeat(256 << 10))), &[]), "KBS_TRUST_INVALID");
    for pem in ["", "not PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        assert_eq!(code(Some(pem), &[]), "KBS_TRUST_INVALID", "{pem}");
    }
    // One bad certificate spoils the rest: nothing is left out silently.
    let spoiled = format!("{ca}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    assert_eq!(code(Some(&spoiled), &[]), "KBS_TRUST_INVALID");
}
