//! A guest: HTTP by hand, the handshake, and opening of answers with other libraries than the broker's.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use aes_gcm::aes::Aes256;
use aes_gcm::aes::cipher::{Block, BlockCipherDecrypt as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce, Tag, aead::AeadInOut as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use p256::elliptic_curve::point::AffineCoordinates as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256, Sha384};

use crate::process::{ADMIN, Broker};

/// An answer as it was read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// What the head says about the length.
    pub(crate) stated: Option<usize>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The error type, or nothing for 200.
    pub(crate) fn variant(&self) -> String {
        if self.status == 200 {
            return String::new();
        }
        let body = self.json();
        let uri = body["type"].as_str().unwrap();
        uri.strip_prefix("https://github.com/confidential-containers/kbs/errors/").unwrap().to_owned()
    }

    pub(crate) fn refused(&self) -> (u16, String) {
        (self.status, self.variant())
    }
}

impl Broker {
    /// Sends one request and reads at most `limit` bytes of its answer.
    pub(crate) fn read(&self, request: &[u8], limit: u64) -> std::io::Result<Answer> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(request)?;
        let mut raw = Vec::new();
        stream.take(limit).read_to_end(&mut raw)?;
        let end = raw.windows(4).position(|four| four == b"\r\n\r\n");
        let Some(end) = end else { return Err(std::io::ErrorKind::UnexpectedEof.into()) };
        let head = String::from_utf8(raw[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let stated = header(&head, "content-length").map(|length| length.parse().unwrap());
        Ok(Answer { status, head, body: raw[end + 4..].to_vec(), stated })
    }

    pub(crate) fn try_call(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &[u8],
    ) -> std::io::Result<Answer> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
            body.len()
        );
        self.read(&[head.as_bytes(), body].concat(), 16 << 20)
    }

    pub(crate) fn call(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        self.try_call(method, &format!("/kbs/v0/{path}"), headers, body).unwrap()
    }

    pub(crate) fn admin(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        self.call(method, path, &bearer(&ADMIN.replace(' ', "-")), body)
    }
}

pub(crate) fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.into_iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// One guest with one key.
pub(crate) struct Guest<'a> {
    pub(crate) broker: &'a Broker,
    secret: p256::SecretKey,
    tee: &'static str,
    pub(crate) nonce: String,
    pub(crate) cookie: String,
    pub(crate) token: String,
    pub(crate) init_data: Option<String>,
}

impl<'a> Guest<'a> {
    /// A guest with a challenge.
    pub(crate) fn new(broker: &'a Broker, tee: &'static str) -> Self {
        let mut scalar = [1; 32];
        aws_lc_rs::rand::fill(&mut scalar[1..]).unwrap();
        let mut guest = Self {
            broker,
            secret: p256::SecretKey::from_slice(&scalar).unwrap(),
            tee,
            nonce: String::new(),
            cookie: String::new(),
            token: String::new(),
            init_data: None,
        };
        let answer = guest.auth();
        assert_eq!(answer.status, 200, "{}", broker.log());
        guest.nonce = answer.json()["nonce"].as_str().unwrap().to_owned();
        let cookie = header(&answer.head, "set-cookie").unwrap_or_default();
        guest.cookie = format!("Cookie: {}\r\n", cookie.split(';').next().unwrap());
        guest
    }

    pub(crate) fn auth(&self) -> Answer {
        auth(self.broker, self.tee)
    }

    pub(crate) fn jwk(&self) -> Value {
        let point = p256::AffinePoint::from(self.secret.public_key());
        let (x, y) = (URL_SAFE_NO_PAD.encode(point.x()), URL_SAFE_NO_PAD.encode(point.y()));
        json!({"kty": "EC", "crv": "P-256", "alg": "ECDH-ES+A256KW", "x": x, "y": y})
    }

    /// What the evidence of this guest has to be bound to.
    pub(crate) fn report_data(&self) -> [u8; 48] {
        let key = self.jwk();
        let text = format!(
            r#"{{"additional-evidence":"","nonce":"{}","tee-pubkey":{{"alg":"ECDH-ES+A256KW","crv":"P-256","kty":"EC","x":{},"y":{}}}}}"#,
            self.nonce, key["x"], key["y"]
        );
        Sha384::digest(text).into()
    }

    pub(crate) fn attestation(&self, evidence: &Value) -> Value {
        json!({
            "init-data": self.init_data.as_ref().map(|body| json!({"format": "toml", "body": body})),
            "runtime-data": {"nonce": self.nonce, "tee-pubkey": self.jwk()},
            "tee-evidence": {"primary_evidence": evidence, "additional_evidence": ""},
        })
    }

    pub(crate) fn send(&self, attestation: &Value) -> Answer {
        self.broker.call("POST", "attest", &self.cookie, attestation.to_string().as_bytes())
    }

    pub(crate) fn attest(&mut self, evidence: &Value) -> Answer {
        let answer = self.send(&self.attestation(evidence));
        if answer.status == 200
            && let Ok(json) = serde_json::from_slice::<Value>(&answer.body)
        {
            self.token = json["token"].as_str().unwrap().to_owned();
        }
        answer
    }

    pub(crate) fn sample(&self) -> Value {
        json!({"svn": "1", "report_data": STANDARD.encode(self.report_data())})
    }

    /// A guest that attested with sample evidence.
    pub(crate) fn attested(broker: &'a Broker) -> Self {
        let mut guest = Self::new(broker, "sample");
        let evidence = guest.sample();
        let answer = guest.attest(&evidence);
        assert_eq!(answer.status, 200, "{}", broker.log());
        guest
    }

    pub(crate) fn claims(&self) -> Value {
        let part = self.token.split('.').nth(1).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.broker.call("GET", &format!("resource/{path}"), &self.cookie, b"")
    }

    pub(crate) fn get_with_token(&self, path: &str) -> Answer {
        self.broker.call("GET", &format!("resource/{path}"), &bearer(&self.token), b"")
    }

    /// Opens an answer; nothing if any part of it is wrong.
    pub(crate) fn open(&self, answer: &Answer) -> Option<Vec<u8>> {
        assert_eq!(answer.status, 200, "{}", self.broker.log());
        let jwe = answer.json();
        let part = |name: &str| URL_SAFE_NO_PAD.decode(jwe[name].as_str()?).ok();
        let protected = jwe["protected"].as_str()?;
        let header: Value = serde_json::from_slice(&part("protected")?).ok()?;
        let epk = &header["epk"];
        if epk["crv"] != "P-256" {
            return None;
        }
        let coordinate = |name: &str| URL_SAFE_NO_PAD.decode(epk[name].as_str()?).ok();
        let sec1 = [vec![4], coordinate("x")?, coordinate("y")?].concat();
        let public = p256::PublicKey::from_sec1_bytes(&sec1).ok()?;
        let shared = public.to_projective() * *self.secret.to_nonzero_scalar();
        let mut kdf = Sha256::new();
        kdf.update([0, 0, 0, 1]);
        kdf.update(shared.to_affine().x());
        kdf.update(b"\0\0\0\x0eECDH-ES+A256KW\0\0\0\0\0\0\0\0\0\0\x01\0");
        let cek = unwrap(&kdf.finalize(), &part("encrypted_key")?)?;
        let (iv, tag, mut text) = (part("iv")?, part("tag")?, part("ciphertext")?);
        let (nonce, tag) = (Nonce::try_from(&iv[..]).ok()?, Tag::try_from(&tag[..]).ok()?);
        let cipher = Aes256Gcm::new_from_slice(&cek).ok()?;
        cipher.decrypt_inout_detached(&nonce, protected.as_bytes(), text.as_mut_slice().into(), &tag).ok()?;
        Some(text)
    }
}

pub(crate) fn auth(broker: &Broker, tee: &str) -> Answer {
    let body = format!(r#"{{"version":"0.4.0","tee":"{tee}","extra-params":{{}}}}"#);
    broker.call("POST", "auth", "Content-Type: application/json\r\n", body.as_bytes())
}

fn unwrap(kek: &[u8], wrapped: &[u8]) -> Option<Vec<u8>> {
    let cipher = Aes256::new_from_slice(kek).ok()?;
    let mut registers: Vec<[u8; 8]> = wrapped.chunks(8).map(|part| part.try_into().unwrap()).collect();
    let mut integrity = registers.remove(0);
    for step in (1..=6 * registers.len()).rev() {
        let at = (step - 1) % registers.len();
        let mut block = Block::<Aes256>::default();
        block[..8].copy_from_slice(&(u64::from_be_bytes(integrity) ^ step as u64).to_be_bytes());
        block[8..].copy_from_slice(&registers[at]);
        cipher.decrypt_block(&mut block);
        integrity.copy_from_slice(&block[..8]);
        registers[at].copy_from_slice(&block[8..]);
    }
    (integrity == [0xa6; 8]).then(|| registers.concat())
}
