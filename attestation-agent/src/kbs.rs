//! KBS client: releases secrets from a Trustee key broker (RCAR 0.4.0).
//!
//! ```text
//!                     EvidenceSource            BrokerTrust (CA or SPKI, from bound initdata)
//!                           │                        │
//!  get(uri, deadline) ─▶ session ─▶ rcar (sans-io) ─▶ http ──▶ broker
//!         ▲                 │ one attestation for all callers │
//!         └── Secret ◀── jwe (key of this session) ◀──────────┘
//! ```
//!
//! ```no_run
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use attestation_agent::kbs::{EvidenceSource, KbsClient, KbsOptions, KbsUrl, ResourceUri, BrokerTrust};
//! use tokio::time::Instant;
//!
//! # async fn run(attester: Arc<dyn EvidenceSource>, ca: &str) -> Result<(), Box<dyn std::error::Error>> {
//! let url = KbsUrl::parse("https://kbs.example:8080")?;
//! let client = KbsClient::background_check(&KbsOptions::new(url, Some(BrokerTrust::new(Some(ca), &[])?)), attester)?;
//! let uri = ResourceUri::parse("kbs:///models/key/ranker")?;
//! let secret = client.get(&uri, Instant::now() + Duration::from_secs(30)).await?;
//! assert_eq!(secret.expose().len(), 32);
//! # Ok(())
//! # }
//! ```
//!
//! What it refuses to do: it takes no trust from the platform, no proxy, no redirect and nothing from the environment;
//! it exports no key that it uses; it answers no request after the caller's deadline; it tries again only what can
//! get better; it ignores no demand that it cannot meet.
//!
//! # Codes
//!
//! Every error names hop (`setup`, `auth`, `attest`, `resource`), layer and cause. *again*: tried again inside the
//! deadline; *attest*: one new handshake; the others are final.
//!
//! | code | layer | means | |
//! |---|---|---|---|
//! | `KBS_BODY_TOO_LARGE` | http | an answer above its cap; nothing of it was used | |
//! | `KBS_BROKER_UNAVAILABLE` | http | status 5xx or 429 | again |
//! | `KBS_CHALLENGE_INVALID` | json | a challenge without a usable nonce | |
//! | `KBS_CONNECT_FAILED` | connect | no address, no connection, or one that broke in the TLS handshake | again |
//! | `KBS_COOKIE_INVALID` | http | a session cookie that could not be sent back | |
//! | `KBS_COOKIE_MISSING` | http | no session cookie, or several | |
//! | `KBS_CRYPTO_FAILED` | guest | no randomness | |
//! | `KBS_DEADLINE` | http | the caller's time is over; the cause is what failed before | |
//! | `KBS_DEVICE_EVIDENCE_INVALID` | guest | evidence of a device that the protocol cannot carry | |
//! | `KBS_ERROR_BODY_INVALID` | json | 401 or 404 without the protocol's error object | |
//! | `KBS_EVIDENCE_FAILED` | guest | the provider gave no evidence | |
//! | `KBS_HASH_UNSUPPORTED` | json | the broker selects another hash than SHA-384 | |
//! | `KBS_HTTP_BROKEN` | http | the connection broke, or spoke no HTTP | again |
//! | `KBS_INTERRUPTED` | guest | a worker thread died | |
//! | `KBS_JSON_INVALID` | json | an answer of another form, or with a member twice | |
//! | `KBS_JWE_ALGORITHM` | jwe | another `alg` or `enc` than our key asked for | |
//! | `KBS_JWE_AUTHENTICATION` | jwe | decryption failed | |
//! | `KBS_JWE_CURVE` | jwe | `epk` on another curve | |
//! | `KBS_JWE_KEY_UNWRAP` | jwe | the content key does not unwrap: made for another key, or changed | |
//! | `KBS_JWE_MALFORMED` | jwe | not a flattened JWE of the strict form | |
//! | `KBS_JWE_POINT_INVALID` | jwe | `epk` is no point of its curve | |
//! | `KBS_KEY_KIND_UNKNOWN` | config | no such key algorithm | |
//! | `KBS_MEMORY` | guest | no pages for the secret | |
//! | `KBS_PLAIN_HTTP_REFUSED` | config | http to another machine | |
//! | `KBS_REDIRECT_REFUSED` | http | status 3xx | |
//! | `KBS_REFUSED_ATTESTATION` | broker | handshake or evidence refused | |
//! | `KBS_REFUSED_KEY` | broker | it could not encrypt to our key | |
//! | `KBS_REFUSED_NO_TOKEN` | broker | session unknown | attest |
//! | `KBS_REFUSED_OTHER` | broker | another error of the protocol | |
//! | `KBS_REFUSED_PATH` | broker | no such path or plugin | |
//! | `KBS_REFUSED_POLICY` | broker | the resource policy denies | |
//! | `KBS_REFUSED_RESOURCE` | broker | the plugin failed: usually no such resource | |
//! | `KBS_REFUSED_TOKEN` | broker | token expired or not trusted | attest |
//! | `KBS_REQUEST_TOO_LARGE` | guest | evidence and initdata above 2 MiB | |
//! | `KBS_RESOURCE_URI_INVALID` | config | not the URI of a resource | |
//! | `KBS_STATUS_UNEXPECTED` | http | a status that the protocol does not know | |
//! | `KBS_TEE_INVALID` | config | a TEE name that the protocol cannot carry | |
//! | `KBS_TIMEOUT` | http | no answer in the time of one attempt | again |
//! | `KBS_TLS_FAILED` | tls | no TLS, or no common version | |
//! | `KBS_TLS_PIN_MISMATCH` | tls | a certificate with a key that is not pinned | |
//! | `KBS_TLS_UNTRUSTED` | tls | a certificate that the configured CA does not vouch for | |
//! | `KBS_TOKEN_EXPIRED` | token | a token that is not valid when it comes | |
//! | `KBS_TOKEN_INVALID` | token | not a token, or without `exp` | |
//! | `KBS_TRUST_INVALID` | config | CA or pins do not parse | |
//! | `KBS_TRUST_MISSING` | config | https without CA or pin | |
//! | `KBS_URL_INVALID` | config | not the URL of a broker | |
//! | `KBS_VERIFIER_EVIDENCE_UNSUPPORTED` | config | evidence of the verifier is demanded | |

mod client;
mod der;
mod devices;
mod error;
pub mod fuzzing;
mod handshake;
mod http;
mod json;
mod jwe;
mod jwk;
mod kdf;
pub mod rcar;
mod refusal;
mod resource_uri;
mod retry;
mod secret;
mod session;
mod tee_key;
mod token;
mod trust;
mod url;

pub use client::{Dated, KbsClient, KbsOptions, TokenExporter, TokenSource, VerifierEvidence};
pub use devices::{DeviceDigest, DeviceEvidence};
pub use error::{
    AnswerFault, Cause, Class, ConfigFault, Fault, Hop, JweFault, KbsError, LocalFault, TransportFault,
};
pub use handshake::EvidenceSource;
pub use http::PlainHttp;
pub use json::parse as parse_json;
pub use jwe::Jwe;
pub use jwk::Jwk;
pub use refusal::{Refusal, Variant};
pub use resource_uri::ResourceUri;
pub use secret::Secret;
pub use session::Session;
pub use tee_key::{ExportableKey, ExportableKeyKind, TeeKey, TeeKeyKind};
pub use token::{TOKEN_MAX_BYTES, Token};
pub use trust::{BrokerTrust, SpkiSha256};
pub use url::KbsUrl;
