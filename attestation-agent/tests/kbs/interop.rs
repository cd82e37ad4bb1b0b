//! The KBS client against `tests/compat/kbs_server.py`, a broker that was written without looking at this code.
//!
//! It needs the Python environment that `cargo xtask test` makes; without it the tests fail and say so.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use attestation_agent::kbs::{
    BrokerTrust, EvidenceSource, ExportableKeyKind, Hop, KbsClient, KbsError, KbsOptions, KbsUrl,
    ResourceUri, TeeKeyKind, TokenExporter,
};
use attestation_agent::report_data::KbsDigest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use evidence::abi::json::SnpEvidence;
use evidence::abi::snp::SnpReport;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha384};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::certificates;
use crate::guest::{self, Sample, digest_bytes, get, later, options, sample, uri};

const SECRET: &[u8] = b"a secret behind another reading of the protocol";
const INITDATA: &str =
    "version = \"0.1.0\"\nalgorithm = \"sha384\"\n\n[data]\n\"aa.toml\" = '''\nx = 1\n'''\n";
const KINDS: [TeeKeyKind; 4] =
    [TeeKeyKind::EcP256, TeeKeyKind::EcP521, TeeKeyKind::MlKem768, TeeKeyKind::Rsa2048];
/// What a broker needs to give anything to sample evidence.
const ALLOW: [&str; 3] = ["--allow-sample", "--policy", "allow-all"];

/// A broker as a process; it ends with its standard input.
struct Server {
    process: Child,
    directory: TempDir,
}

fn compat() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/compat")
}

fn python() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let cache =
        cache.unwrap_or_else(|| Path::new(&std::env::var_os("HOME").expect("HOME is set")).join(".cache"));
    let python = cache.join("innerkeep/compat-venv/bin/python");
    assert!(
        python.exists(),
        "{} does not exist: `cargo xtask test` makes it from tests/compat/requirements.txt",
        python.display()
    );
    python
}

impl Server {
    /// Starts a broker with one resource; [`Self::port`] waits for it.
    fn start(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("resources/repository/type");
        std::fs::create_dir_all(&place).unwrap();
        std::fs::write(place.join("tag"), SECRET).unwrap();
        let process = Command::new(python())
            .arg("-B")
            .arg(compat().join("kbs_server.py"))
            .arg("--resources")
            .arg(directory.path().join("resources"))
            .arg("--port-file")
            .arg(directory.path().join("port"))
            .arg("--log")
            .arg(directory.path().join("log"))
            .arg("--exit-with-stdin")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start the broker");
        Self { process, directory }
    }

    async fn port(&mut self) -> u16 {
        loop {
            if let Ok(text) = std::fs::read_to_string(self.directory.path().join("port")) {
                return text.trim().parse().unwrap();
            }
            assert!(self.process.try_wait().unwrap().is_none(), "the broker ended at once");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn url(&mut self) -> String {
        format!("http://127.0.0.1:{}", self.port().await)
    }

    fn add(&self, place: &str, bytes: &[u8]) -> ResourceUri {
        std::fs::write(self.directory.path().join("resources").join(place), bytes).unwrap();
        ResourceUri::parse(&format!("kbs:///{place}")).unwrap()
    }

    /// How often an endpoint was asked.
    fn count(&self, endpoint: &str) -> usize {
        let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        let prefix = format!("/kbs/v0/{endpoint}");
        let asked = |line: &str| {
            let line: Value = serde_json::from_str(line).unwrap();
            line["path"].as_str().unwrap().starts_with(&prefix)
        };
        log.lines().filter(|line| asked(line)).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// Evidence of a real TEE in its real form, without a signature that anybody would believe.
struct Shaped {
    tee: &'static str,
    initdata: Option<String>,
    make: fn(&[u8; 48], Option<&[u8]>) -> String,
}

impl EvidenceSource for Shaped {
    fn tee(&self) -> &str {
        self.tee
    }

    fn evidence(&self, digest: KbsDigest) -> Result<Value, Box<dyn Error + Send + Sync>> {
        let initdata = self.initdata.as_deref().map(Sha384::digest);
        Ok(serde_json::from_str(&(self.make)(&digest_bytes(digest), initdata.as_deref()))?)
    }

    fn initdata(&self) -> Option<String> {
        self.initdata.clone()
    }
}

/// A TD quote, version 4, whose body holds report data and MRCONFIGID.
fn tdx(digest: &[u8; 48], initdata: Option<&[u8]>) -> String {
    let mut quote = vec![0; 48 + 584 + 4];
    quote[..8].copy_from_slice(&[4, 0, 2, 0, 0x81, 0, 0, 0]);
    let body = &mut quote[48..];
    body[520..568].copy_from_slice(digest);
    if let Some(initdata) = initdata {
        body[184..232].copy_from_slice(initdata);
    }
    json!({"cc_eventlog": null, "quote": STANDARD.encode(quote)}).to_string()
}

/// An SNP report, version 3, of Genoa.
fn snp(digest: &[u8; 48], initdata: Option<&[u8]>) -> String {
    let mut report = vec![0; 1_184];
    report[0] = 3;
    report[0x08..0x10].copy_from_slice(&0x3_0000_u64.to_le_bytes());
    report[0x34] = 1;
    report[0x50..0x80].copy_from_slice(digest);
    if let Some(initdata) = initdata {
        report[0xc0..0xe0].copy_from_slice(&initdata[..32]);
    }
    report[0x188..0x18b].copy_from_slice(&[0x19, 0x11, 1]);
    report[0x1a0..0x1e0].fill(0x40);
    let report = SnpReport::parse(&report).unwrap();
    SnpEvidence { report, certificates: None }.encode()
}

fn with_key(url: &str, key: TeeKeyKind) -> KbsOptions {
    KbsOptions { key, ..options(url) }
}

#[tokio::test]
async fn every_kind_of_key_in_both_modes() {
    let mut server = Server::start(&ALLOW);
    let url = server.url().await;
    for kind in KINDS {
        let attested = server.count("attest");
        let background = Arc::new(KbsClient::background_check(&with_key(&url, kind), sample()).unwrap());
        assert_eq!(get(&background).await.unwrap().expose(), SECRET, "{kind:?}");
        let passport = KbsClient::passport(&options(&url), background).unwrap();
        assert_eq!(get(&passport).await.unwrap().expose(), SECRET, "{kind:?}");
        assert_eq!(server.count("attest"), attested + 1);
    }
}

#[tokio::test]
async fn resources_of_every_size() {
    let mut server = Server::start(&ALLOW);
    let url = server.url().await;
    let client = guest::client(&url);
    for size in [0, 1, 32, 65_536, 65_537, 2 << 20] {
        let bytes: Vec<u8> = (0..size).map(|i| u8::try_from(i % 253).unwrap()).collect();
        let uri = server.add(&format!("repository/type/s{size}"), &bytes);
        let secret = client.get(&uri, later()).await.unwrap();
        assert!(secret.expose() == bytes, "{size}");
    }
    let uri = server.add("repository/type/huge", &vec![0; 4 << 20]);
    assert_eq!(client.get(&uri, later()).await.unwrap_err().code(), "KBS_BODY_TOO_LARGE");
    assert_eq!(server.count("attest"), 1);
}

#[tokio::test]
async fn initdata_goes_along_byte_for_byte() {
    let mut server = Server::start(&ALLOW);
    let url = server.url().await;
    for initdata in [None, Some(INITDATA.to_owned())] {
        let source = Arc::new(Sample { initdata: initdata.clone(), ..Sample::default() });
        let client = KbsClient::background_check(&options(&url), source).unwrap();
        assert_eq!(get(&client).await.unwrap().expose(), SECRET);
        for (tee, make) in [("tdx", tdx as fn(&[u8; 48], Option<&[u8]>) -> String), ("snp", snp)] {
            let source = Arc::new(Shaped { tee, initdata: initdata.clone(), make });
            let client = KbsClient::background_check(&options(&url), source).unwrap();
            assert_eq!(get(&client).await.unwrap().expose(), SECRET, "{tee}");
        }
    }
}

#[tokio::test]
async fn evil_guest_claims_another_initdata() {
    let mut server = Server::start(&ALLOW);
    let url = server.url().await;
    for (tee, make) in [
        ("tdx", (|digest, _| tdx(digest, Some(&[7; 48]))) as fn(&[u8; 48], Option<&[u8]>) -> String),
        ("snp", |digest, _| snp(digest, Some(&[7; 48]))),
        // Evidence about something else than this handshake.
        ("tdx", |_, initdata| tdx(&[7; 48], initdata)),
        ("snp", |_, initdata| snp(&[7; 48], initdata)),
    ] {
        let source = Arc::new(Shaped { tee, initdata: Some(INITDATA.to_owned()), make });
        let client = KbsClient::background_check(&options(&url), source).unwrap();
        let error = get(&client).await.unwrap_err();
        assert_eq!((error.code(), error.hop()), ("KBS_REFUSED_ATTESTATION", Hop::Attest), "{tee}");
        assert!(!client.holds_session().await);
    }
    assert_eq!(server.count("resource"), 0);
}

#[tokio::test]
async fn default_policy_gives_nothing_to_samples() {
    let mut server = Server::start(&["--allow-sample"]);
    let url = server.url().await;
    let client = guest::client(&url);
    let error = get(&client).await.unwrap_err();
    assert_eq!((error.code(), error.hop()), ("KBS_REFUSED_POLICY", Hop::Resource));
    assert_eq!((server.count("attest"), server.count("resource")), (1, 1), "final");
    // A TEE gets it under the same policy.
    let source = Arc::new(Shaped { tee: "snp", initdata: None, make: snp });
    let client = KbsClient::background_check(&options(&url), source).unwrap();
    assert_eq!(get(&client).await.unwrap().expose(), SECRET);
}

#[tokio::test]
async fn samples_are_refused_where_they_are_not_allowed() {
    let mut server = Server::start(&["--policy", "allow-all"]);
    let client = guest::client(&server.url().await);
    let error = get(&client).await.unwrap_err();
    assert_eq!((error.code(), error.hop()), ("KBS_REFUSED_ATTESTATION", Hop::Attest));
}

#[tokio::test]
async fn what_does_not_exist_is_named() {
    let mut server = Server::start(&ALLOW);
    let client = guest::client(&server.url().await);
    let ask =
        async |uri: &str| client.get(&ResourceUri::parse(uri).unwrap(), later()).await.unwrap_err().code();
    assert_eq!(ask("kbs:///repository/type/nothing").await, "KBS_REFUSED_RESOURCE");
    assert_eq!(ask("kbs+nothing:///a").await, "KBS_REFUSED_PATH");
    assert_eq!(server.count("attest"), 1, "one handshake for both");
}

#[tokio::test]
async fn exported_tokens_are_believed() {
    let mut server = Server::start(&ALLOW);
    let exporter = TokenExporter::new(&options(&server.url().await), sample()).unwrap();
    for kind in [ExportableKeyKind::EcP256, ExportableKeyKind::EcP521, ExportableKeyKind::Rsa2048] {
        let (token, key) = exporter.export(kind, later()).await.unwrap();
        let claims = token.expose().split('.').nth(1).unwrap();
        let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        let attested = &claims["submods"]["cpu0"]["ear.veraison.annotated-evidence"]["runtime_data_claims"];
        assert_eq!(attested["tee-pubkey"], serde_json::to_value(key.public()).unwrap());
        // The peer's side: Python reads the key and opens an answer to it.
        let opened = Command::new(python())
            .args(["-B", "-c", READ_KEY])
            .current_dir(compat())
            .arg(key.into_pem().as_str())
            .arg(attested["tee-pubkey"].to_string())
            .output()
            .unwrap();
        assert!(opened.status.success(), "{kind:?} {}", String::from_utf8_lossy(&opened.stderr));
    }
}

const READ_KEY: &str = r#"
import json, sys
import kbs_protocol as kbs
from cryptography.hazmat.primitives.serialization import load_pem_private_key
key, jwk = load_pem_private_key(sys.argv[1].encode(), None), json.loads(sys.argv[2])
assert kbs.decrypt(kbs.encrypt(jwk, b"opened"), key) == b"opened"
"#;

#[tokio::test]
async fn https_with_a_ca_and_with_a_pin() {
    let tls = certificates::make("interop", None);
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("certificate"), &tls.certificate_pem).unwrap();
    std::fs::write(path("key"), tls.key_pem.as_str()).unwrap();
    let files = ["--tls-cert", &path("certificate"), "--tls-key", &path("key")];
    let mut server = Server::start(&[&ALLOW[..], &files].concat());
    let url = KbsUrl::parse(&format!("https://127.0.0.1:{}", server.port().await)).unwrap();
    for (ca, pins) in [(Some(tls.ca_pem.as_str()), vec![]), (None, vec![tls.spki_sha256])] {
        let trust = BrokerTrust::new(ca, &pins).unwrap();
        let options = KbsOptions::new(url.clone(), Some(trust));
        let client = KbsClient::background_check(&options, sample()).unwrap();
        assert_eq!(get(&client).await.unwrap().expose(), SECRET);
    }
}

/// Every fault that the server knows, and what the client says; empty: the secret.
const FAULTS: [(&str, &str); 61] = [
    ("5xx@auth/2", ""),
    ("5xx@attest/1=502", ""),
    ("5xx@resource/1=500", ""),
    ("5xx@auth", "KBS_BROKER_UNAVAILABLE"),
    ("slow@auth=60", "KBS_DEADLINE"),
    ("drop@auth/1", ""),
    ("drop@attest/1", ""),
    ("drop@resource/1", ""),
    ("redirect", "KBS_REDIRECT_REFUSED"),
    ("error@auth", "KBS_REFUSED_ATTESTATION"),
    ("error@attest", "KBS_REFUSED_ATTESTATION"),
    ("error@resource=PolicyDeny", "KBS_REFUSED_POLICY"),
    ("error@resource=JweError", "KBS_REFUSED_KEY"),
    ("error@resource=TokenNotFound", "KBS_REFUSED_NO_TOKEN"),
    ("error@resource/1=TokenNotFound", ""),
    ("error@resource/1=TokenVerifierError", ""),
    ("error@resource=Unheard", "KBS_REFUSED_OTHER"),
    ("401-empty", "KBS_ERROR_BODY_INVALID"),
    ("401-html@resource", "KBS_ERROR_BODY_INVALID"),
    ("413@attest", "KBS_STATUS_UNEXPECTED"),
    ("not-json@auth", "KBS_JSON_INVALID"),
    ("empty@attest", "KBS_JSON_INVALID"),
    ("empty@resource", "KBS_JWE_MALFORMED"),
    ("oversized@auth", "KBS_BODY_TOO_LARGE"),
    ("oversized@resource=3.5", "KBS_BODY_TOO_LARGE"),
    ("endless@attest", "KBS_BODY_TOO_LARGE"),
    ("endless@resource", "KBS_BODY_TOO_LARGE"),
    ("huge-length@resource", "KBS_BODY_TOO_LARGE"),
    ("trickle@resource=1", "KBS_DEADLINE"),
    ("truncated@resource/1", ""),
    ("version", "KBS_REFUSED_ATTESTATION"),
    ("wrong-nonce", "KBS_REFUSED_ATTESTATION"),
    ("nonce-not-text", "KBS_JSON_INVALID"),
    ("nonce-missing", "KBS_JSON_INVALID"),
    ("nonce-opaque", ""),
    ("hash", "KBS_HASH_UNSUPPORTED"),
    ("hash-not-text", "KBS_HASH_UNSUPPORTED"),
    ("cookie-lost@auth", "KBS_COOKIE_MISSING"),
    ("cookie-lost@attest", ""),
    ("cookie-forgotten/1", ""),
    ("expired-token", "KBS_TOKEN_EXPIRED"),
    ("token-missing", "KBS_JSON_INVALID"),
    ("token-malformed", "KBS_TOKEN_INVALID"),
    ("token-no-exp", "KBS_TOKEN_INVALID"),
    ("wrong-curve", "KBS_JWE_CURVE"),
    ("bad-epk", "KBS_JWE_POINT_INVALID"),
    ("epk-missing", "KBS_JWE_MALFORMED"),
    ("epk-short", "KBS_JWE_MALFORMED"),
    ("malformed-jwe=iv", "KBS_JWE_MALFORMED"),
    ("jwe-not-base64", "KBS_JWE_MALFORMED"),
    ("jwe-padded", "KBS_JWE_MALFORMED"),
    ("jwe-flip", "KBS_JWE_AUTHENTICATION"),
    ("jwe-header-changed", "KBS_JWE_AUTHENTICATION"),
    ("jwe-short-iv", "KBS_JWE_MALFORMED"),
    ("jwe-short-tag", "KBS_JWE_MALFORMED"),
    ("jwe-short-cek", "KBS_JWE_MALFORMED"),
    ("jwe-alg", "KBS_JWE_ALGORITHM"),
    ("jwe-enc", "KBS_JWE_ALGORITHM"),
    ("jwe-wrong-key", "KBS_JWE_KEY_UNWRAP"),
    ("jwe-member-order", ""),
    ("jwe-aad", ""),
];

async fn under_fault(fault: &str, server: &mut Server) -> Result<(), KbsError> {
    let client = guest::client(&server.url().await);
    let limited = ["5xx@auth", "slow@auth=60", "trickle@resource=1"].contains(&fault);
    let deadline = if limited { Instant::now() + Duration::from_millis(1_500) } else { later() };
    let result = client.get(&uri(), deadline).await;
    if let Err(error) = &result {
        assert_eq!(client.holds_session().await, error.hop() == Hop::Resource, "{fault}");
    }
    result.map(|secret| assert_eq!(secret.expose(), SECRET, "{fault}"))
}

#[tokio::test]
async fn every_scripted_fault_is_survived_and_named() {
    let known = Command::new(python())
        .arg("-B")
        .arg(compat().join("kbs_server.py"))
        .arg("--faults")
        .output()
        .unwrap();
    let all = FAULTS.iter();
    for line in String::from_utf8(known.stdout).unwrap().lines() {
        let name = line.split(' ').next().unwrap();
        let covered = |fault: &str| fault.split(['@', '/', '=']).next() == Some(name);
        assert!(all.clone().any(|(fault, _)| covered(fault)), "no case for the fault {name}");
    }
    let cases: Vec<_> = all.collect();
    for some in cases.chunks(8) {
        let mut servers: Vec<Server> = some
            .iter()
            .map(|(fault, _)| Server::start(&[&ALLOW[..], &["--fault", fault]].concat()))
            .collect();
        for ((fault, expected), server) in some.iter().zip(&mut servers) {
            let found = under_fault(fault, server).await.map_or_else(|error| error.code(), |()| "");
            assert_eq!(found, *expected, "{fault}");
        }
    }
}
