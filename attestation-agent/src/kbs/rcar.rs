//! The handshake of RCAR 0.4.0 without input or output.
//!
//! ```text
//!  Start ──auth──▶ AwaitingChallenge ──answer──▶ Challenged ──offer(key)──▶ Offered ──bind(devices)──▶ Bound
//!                                                                                                      │ attestation
//!  Secret ◀──JWE(key)── resource(uri) ◀── Attested ◀──answer── AwaitingToken ◀─────────────────────────┘
//! ```
//!
//! Each state takes answers as bytes and gives requests as bytes; time comes as an argument. A state that failed is
//! gone, so no part of a refused handshake is used again. Key, nonce and digest belong together by construction: the
//! digest is computed here, over the key that [`Challenged::offer`] was given and the evidence of devices that is sent, and over nothing else.

mod message;

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

pub use message::{Answer, Cookie, Credential, Method, Outgoing};

use super::devices::{DeviceDigest, DeviceEvidence};
use super::error::{AnswerFault, ConfigFault, Fault, Hop, KbsError, LocalFault};
use super::json;
use super::jwk::Jwk;
use super::resource_uri::ResourceUri;
use super::token::Token;
use crate::report_data::KbsDigest;

/// The version of the protocol: brokers take exactly this one.
pub const VERSION: &str = "0.4.0";
/// The hash of report data; also the only algorithm that is offered.
const HASH: &str = "sha384";
/// Longest nonce, in bytes. Trustee's has 44.
const NONCE_MAX: usize = 4_096;
/// Longest attestation, in bytes: the default limit of Trustee.
const ATTESTATION_MAX: usize = 2 << 20;
const TEE_MAX: usize = 32;

/// Before anything was sent.
#[derive(Debug)]
pub struct Start {
    tee: String,
}

/// The request was sent.
#[derive(Debug)]
pub struct AwaitingChallenge(());

/// The broker gave a nonce and a session.
#[derive(Debug)]
pub struct Challenged {
    nonce: String,
    cookie: Cookie,
}

/// A key was made for the nonce.
#[derive(Debug)]
pub struct Offered {
    nonce: String,
    cookie: Cookie,
    key: Jwk,
    digest: DeviceDigest,
}

/// Key and devices are bound to the nonce.
#[derive(Debug)]
pub struct Bound {
    nonce: String,
    cookie: Cookie,
    key: Jwk,
    devices: String,
    digest: KbsDigest,
}

/// The attestation was sent.
#[derive(Debug)]
pub struct AwaitingToken {
    cookie: Cookie,
}

/// The broker believed the evidence.
#[derive(Debug)]
pub struct Attested {
    cookie: Cookie,
    token: Token,
}

#[derive(Serialize)]
struct Request<'a> {
    version: &'static str,
    tee: &'a str,
    #[serde(rename = "extra-params")]
    extra: Offer,
}

#[derive(Serialize)]
struct Offer {
    #[serde(rename = "supported-hash-algorithms")]
    hashes: [&'static str; 1],
}

#[derive(Deserialize)]
struct Challenge {
    nonce: String,
    #[serde(rename = "extra-params")]
    extra: Value,
}

/// What is hashed for devices, and sent: members in the order of RFC 8785, all of them strings.
#[derive(Serialize)]
struct SentRuntimeData<'a> {
    nonce: &'a str,
    #[serde(rename = "tee-pubkey")]
    key: &'a Jwk,
}

/// What is hashed for the guest's own evidence, in the same form.
#[derive(Serialize)]
struct RuntimeData<'a> {
    #[serde(rename = "additional-evidence")]
    additional: &'a str,
    nonce: &'a str,
    #[serde(rename = "tee-pubkey")]
    key: &'a Jwk,
}

#[derive(Serialize)]
struct Attestation<'a> {
    #[serde(rename = "init-data")]
    initdata: Option<Initdata<'a>>,
    #[serde(rename = "runtime-data")]
    runtime: SentRuntimeData<'a>,
    #[serde(rename = "tee-evidence")]
    evidence: Evidence<'a>,
}

#[derive(Serialize)]
struct Initdata<'a> {
    format: &'static str,
    body: &'a str,
}

#[derive(Serialize)]
struct Evidence<'a> {
    primary_evidence: &'a Value,
    additional_evidence: &'a str,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: String,
}

impl Start {
    /// A handshake for one kind of TEE, by its name in the protocol (`tdx`, `snp`, …).
    ///
    /// # Errors
    ///
    /// `KBS_TEE_INVALID`.
    pub fn new(tee: &str) -> Result<Self, KbsError> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        // GUARD: kbs-tee-name -> tee_names_are_narrow
        if tee.is_empty() || tee.len() > TEE_MAX || !tee.bytes().all(allowed) {
            return Err(KbsError::new(Hop::Setup, ConfigFault::Tee));
        }
        Ok(Self { tee: tee.to_owned() })
    }

    /// The first request.
    ///
    /// # Errors
    ///
    /// `KBS_CRYPTO_FAILED` never happens: encoding what this process wrote.
    pub fn request(self) -> Result<(AwaitingChallenge, Outgoing), KbsError> {
        let request = Request { version: VERSION, tee: &self.tee, extra: Offer { hashes: [HASH] } };
        let body = encode(&request).map_err(KbsError::at(Hop::Auth))?;
        Ok((AwaitingChallenge(()), Outgoing::post("/kbs/v0/auth", body, None)))
    }
}

impl AwaitingChallenge {
    /// Reads the challenge.
    ///
    /// # Errors
    ///
    /// `KBS_REFUSED_…`, `KBS_JSON_INVALID`, `KBS_CHALLENGE_INVALID`, `KBS_HASH_UNSUPPORTED`, `KBS_COOKIE_…`.
    pub fn answer(self, answer: &Answer<'_>) -> Result<Challenged, KbsError> {
        Self::read(answer).map_err(KbsError::at(Hop::Auth))
    }

    fn read(answer: &Answer<'_>) -> Result<Challenged, Fault> {
        let body = answer.accepted()?;
        let challenge: Challenge =
            json::parse(body).map_err(|source| AnswerFault::Json { what: "challenge", source })?;
        // GUARD: kbs-nonce-size -> evil_broker_sends_a_useless_nonce
        if challenge.nonce.is_empty() || challenge.nonce.len() > NONCE_MAX {
            return Err(AnswerFault::Challenge { expected: "a nonce of 1 to 4096 bytes" }.into());
        }
        // GUARD: kbs-hash -> evil_broker_selects_another_hash
        if !selects_sha384(&challenge.extra) {
            return Err(AnswerFault::Hash.into());
        }
        let cookie = answer.session_cookie()?.ok_or(AnswerFault::CookieCount { found: 0 })?;
        Ok(Challenged { nonce: challenge.nonce, cookie })
    }
}

/// SHA-384 is what brokers use for every TEE but `se`, whatever they select; a selection of another is refused.
fn selects_sha384(extra: &Value) -> bool {
    match extra.as_object().and_then(|members| members.get("selected-hash-algorithm")) {
        None => true,
        Some(Value::String(name)) => name.eq_ignore_ascii_case(HASH),
        Some(_) => false,
    }
}

impl Challenged {
    /// Offers the public part of a fresh key for the nonce of this session.
    ///
    /// # Errors
    ///
    /// `KBS_CRYPTO_FAILED` never happens: encoding what this process wrote.
    pub fn offer(self, key: &Jwk) -> Result<Offered, KbsError> {
        let digest = hash(&SentRuntimeData { nonce: &self.nonce, key }).map_err(KbsError::at(Hop::Attest))?;
        Ok(Offered {
            nonce: self.nonce,
            cookie: self.cookie,
            key: key.clone(),
            digest: DeviceDigest::new(digest),
        })
    }

    /// [`Self::offer`] and [`Offered::bind`] where there are no devices.
    ///
    /// # Errors
    ///
    /// `KBS_CRYPTO_FAILED` never happens.
    pub fn bind(self, key: &Jwk) -> Result<Bound, KbsError> {
        self.offer(key)?.bind(&DeviceEvidence::default())
    }
}

impl Offered {
    /// What the evidence of devices has to be about.
    #[must_use]
    pub const fn device_digest(&self) -> DeviceDigest {
        self.digest
    }

    /// Binds the evidence of devices, which is about [`Self::device_digest`], into what the guest's own evidence has to be about.
    ///
    /// # Errors
    ///
    /// `KBS_CRYPTO_FAILED` never happens: encoding what this process wrote.
    pub fn bind(self, devices: &DeviceEvidence) -> Result<Bound, KbsError> {
        let devices = devices.text();
        let data = RuntimeData { additional: &devices, nonce: &self.nonce, key: &self.key };
        let digest = KbsDigest::new(hash(&data).map_err(KbsError::at(Hop::Attest))?);
        Ok(Bound { nonce: self.nonce, cookie: self.cookie, key: self.key, devices, digest })
    }
}

impl Bound {
    /// What the evidence has to be about.
    pub fn digest(&self) -> KbsDigest {
        self.digest
    }

    /// The second request. `evidence` is about [`Self::digest`]; `initdata` is the exact text that was measured.
    ///
    /// # Errors
    ///
    /// `KBS_REQUEST_TOO_LARGE`.
    pub fn attestation(
        self,
        evidence: &Value,
        initdata: Option<&str>,
    ) -> Result<(AwaitingToken, Outgoing), KbsError> {
        let body = self.encoded(evidence, initdata).map_err(KbsError::at(Hop::Attest))?;
        let request = Outgoing::post("/kbs/v0/attest", body, Some(self.cookie.clone()));
        Ok((AwaitingToken { cookie: self.cookie }, request))
    }

    fn encoded(&self, evidence: &Value, initdata: Option<&str>) -> Result<Vec<u8>, LocalFault> {
        let body = encode(&Attestation {
            initdata: initdata.map(|body| Initdata { format: "toml", body }),
            runtime: SentRuntimeData { nonce: &self.nonce, key: &self.key },
            evidence: Evidence { primary_evidence: evidence, additional_evidence: &self.devices },
        })?;
        // GUARD: kbs-attestation-size -> evil_host_makes_evidence_too_large
        if body.len() > ATTESTATION_MAX {
            return Err(LocalFault::RequestSize { max: ATTESTATION_MAX, found: body.len() });
        }
        Ok(body)
    }
}

impl AwaitingToken {
    /// Reads the token, which must be valid at `now` (seconds since 1970).
    ///
    /// # Errors
    ///
    /// `KBS_REFUSED_…`, `KBS_JSON_INVALID`, `KBS_TOKEN_…`, `KBS_COOKIE_…`.
    pub fn answer(self, answer: &Answer<'_>, now: u64) -> Result<Attested, KbsError> {
        self.read(answer, now).map_err(KbsError::at(Hop::Attest))
    }

    fn read(self, answer: &Answer<'_>, now: u64) -> Result<Attested, Fault> {
        let body = answer.accepted()?;
        let found: TokenAnswer =
            json::parse(body).map_err(|source| AnswerFault::Json { what: "token", source })?;
        let token = Token::parse(Zeroizing::new(found.token))?;
        token.require_valid_at(now)?;
        // The broker may renew the cookie; without a new one the old one stays.
        let cookie = answer.session_cookie()?.unwrap_or(self.cookie);
        Ok(Attested { cookie, token })
    }
}

impl Attested {
    /// The cookie and the token of this session.
    pub fn into_parts(self) -> (Cookie, Token) {
        (self.cookie, self.token)
    }
}

/// The request for a resource.
pub fn resource(uri: &ResourceUri, credential: Credential<'_>) -> Outgoing {
    Outgoing::get(uri.request_path(), credential)
}

/// Reads the answer to [`resource`]: still encrypted.
///
/// # Errors
///
/// `KBS_REFUSED_…`, `KBS_ERROR_BODY_INVALID`, `KBS_STATUS_UNEXPECTED`.
pub fn encrypted_resource<'a>(answer: &Answer<'a>) -> Result<&'a [u8], Fault> {
    answer.accepted()
}

/// SHA-384 of the canonical form.
fn hash(value: &impl Serialize) -> Result<[u8; 48], LocalFault> {
    let mut bytes = [0; 48];
    for (to, from) in bytes.iter_mut().zip(digest::digest(&digest::SHA384, &encode(value)?).as_ref()) {
        *to = *from;
    }
    Ok(bytes)
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>, LocalFault> {
    serde_json::to_vec(value).map_err(|_| LocalFault::Crypto { operation: "encoding a request" })
}

#[cfg(test)]
mod tests;
