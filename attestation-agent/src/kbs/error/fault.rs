//! Faults by who misbehaved.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Class, KbsError};

/// The error below, shared: several callers may wait for one handshake.
#[derive(Clone, Debug)]
pub struct Cause(Arc<dyn Error + Send + Sync>);

impl Cause {
    /// Keeps an error.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(Arc::from(error.into()))
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// An answer that is not what the protocol says.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerFault {
    /// A challenge without a usable nonce.
    #[error("challenge: expected {expected}")]
    Challenge {
        /// What it has to have.
        expected: &'static str,
    },
    /// No session cookie, or more than one.
    #[error("session cookie: expected exactly one kbs-session-id, found {found}")]
    CookieCount {
        /// How many there were.
        found: usize,
    },
    /// A session cookie that is not sent back.
    #[error("session cookie: expected 1 to {max} letters, digits, '-', '_' or '.', found other text")]
    CookieText {
        /// The cap in bytes.
        max: usize,
    },
    /// An error status whose body is not the error of the protocol.
    #[error("status {status}: expected the error object of the protocol, found something else")]
    ErrorBody {
        /// The status.
        status: u16,
        /// What the JSON reader says.
        #[source]
        source: Cause,
    },
    /// A hash algorithm that is not SHA-384.
    #[error("challenge: expected sha384, found another selected-hash-algorithm")]
    Hash,
    /// Not the JSON that was expected.
    #[error("{what}: expected JSON of that form")]
    Json {
        /// What it should have been.
        what: &'static str,
        /// What the JSON reader says.
        #[source]
        source: Cause,
    },
    /// A status that the protocol does not know.
    #[error("status: expected 200, 401 or 404, found {found}")]
    Status {
        /// The status.
        found: u16,
    },
    /// A token that is over, or not yet valid, when it comes.
    #[error("token: expected to be valid at {now}, found {not_before} to {expires}")]
    TokenExpired {
        /// Seconds since 1970, of this guest's clock.
        now: u64,
        /// Claim `nbf`, else 0.
        not_before: u64,
        /// Claim `exp`.
        expires: u64,
    },
    /// A token that is not one.
    #[error("token: expected {expected}")]
    TokenForm {
        /// What it has to have.
        expected: &'static str,
    },
}

impl AnswerFault {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Challenge { .. } => "KBS_CHALLENGE_INVALID",
            Self::CookieCount { .. } => "KBS_COOKIE_MISSING",
            Self::CookieText { .. } => "KBS_COOKIE_INVALID",
            Self::ErrorBody { .. } => "KBS_ERROR_BODY_INVALID",
            Self::Hash => "KBS_HASH_UNSUPPORTED",
            Self::Json { .. } => "KBS_JSON_INVALID",
            Self::Status { .. } => "KBS_STATUS_UNEXPECTED",
            Self::TokenExpired { .. } => "KBS_TOKEN_EXPIRED",
            Self::TokenForm { .. } => "KBS_TOKEN_INVALID",
        }
    }

    pub(super) fn layer(&self) -> &'static str {
        match self {
            Self::Challenge { .. } | Self::ErrorBody { .. } | Self::Hash | Self::Json { .. } => "json",
            Self::CookieCount { .. } | Self::CookieText { .. } | Self::Status { .. } => "http",
            Self::TokenExpired { .. } | Self::TokenForm { .. } => "token",
        }
    }
}

/// A configuration or request that is refused before anything is sent.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigFault {
    /// A kind of key that does not exist.
    #[error(
        "key algorithm: expected ECDH-ES+A256KW-P256, ECDH-ES+A256KW-P521, RSA-OAEP-256 or ML-KEM-768+A192KW, found another"
    )]
    KeyKind,
    /// Plain http to a place that is not this machine.
    #[error("url: expected https, or http to a loopback address, found http to another host")]
    PlainHttp,
    /// Not the URI of a resource.
    #[error("resource uri: expected {expected}")]
    ResourceUri {
        /// What it has to be.
        expected: &'static str,
    },
    /// A name of a TEE that the protocol cannot carry.
    #[error("tee: expected 1 to 32 lower-case letters, digits or '-'")]
    Tee,
    /// Trust material that does not parse.
    #[error("trust: expected {expected}")]
    TrustInvalid {
        /// What it has to be.
        expected: &'static str,
    },
    /// https without any way to know the broker.
    #[error(
        "trust: expected a CA certificate or an SPKI pin for https, found neither; platform roots are not used"
    )]
    TrustMissing,
    /// Not the URL of a broker.
    #[error("url: expected {expected}")]
    Url {
        /// What it has to be.
        expected: &'static str,
    },
    /// The verifier's own evidence was demanded.
    #[error("evidence of the verifier: expected no demand, found one; it cannot be verified yet")]
    VerifierEvidence,
}

impl ConfigFault {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::KeyKind => "KBS_KEY_KIND_UNKNOWN",
            Self::PlainHttp => "KBS_PLAIN_HTTP_REFUSED",
            Self::ResourceUri { .. } => "KBS_RESOURCE_URI_INVALID",
            Self::Tee => "KBS_TEE_INVALID",
            Self::TrustInvalid { .. } => "KBS_TRUST_INVALID",
            Self::TrustMissing => "KBS_TRUST_MISSING",
            Self::Url { .. } => "KBS_URL_INVALID",
            Self::VerifierEvidence => "KBS_VERIFIER_EVIDENCE_UNSUPPORTED",
        }
    }
}

/// An encrypted answer that is refused.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JweFault {
    /// Another algorithm than the one that the key asked for.
    #[error("{member}: expected {expected}, found another")]
    Algorithm {
        /// `alg` or `enc`.
        member: &'static str,
        /// What it has to be.
        expected: &'static str,
    },
    /// Tag, ciphertext, IV or header are not of one sender who knows the key.
    #[error("decryption failed")]
    Authentication,
    /// The broker's key is on another curve.
    #[error("epk: expected a key on {expected}, found another curve or kind")]
    Curve {
        /// The curve of our key.
        expected: &'static str,
    },
    /// The content key does not unwrap, or is not one.
    #[error("encrypted_key: expected a wrapped key of 32 bytes")]
    KeyUnwrap,
    /// A member that has not the form of one.
    #[error("{member}: expected {expected}")]
    Member {
        /// Which member.
        member: &'static str,
        /// What it has to be.
        expected: &'static str,
    },
    /// Not a flattened JWE.
    #[error("expected a flattened JWE")]
    NotJwe {
        /// What the JSON reader says.
        #[source]
        source: Cause,
    },
    /// The broker's key is not a point of the curve.
    #[error("epk: expected a point of {curve}, found none")]
    Point {
        /// The curve.
        curve: &'static str,
    },
}

impl JweFault {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Algorithm { .. } => "KBS_JWE_ALGORITHM",
            Self::Authentication => "KBS_JWE_AUTHENTICATION",
            Self::Curve { .. } => "KBS_JWE_CURVE",
            Self::KeyUnwrap => "KBS_JWE_KEY_UNWRAP",
            Self::Member { .. } | Self::NotJwe { .. } => "KBS_JWE_MALFORMED",
            Self::Point { .. } => "KBS_JWE_POINT_INVALID",
        }
    }
}

/// Something of this guest failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalFault {
    /// A cryptographic operation that cannot fail with right input.
    #[error("{operation} failed")]
    Crypto {
        /// Which operation.
        operation: &'static str,
    },
    /// Evidence of a device that the protocol cannot carry.
    #[error("evidence of devices: expected {expected}")]
    DeviceEvidence {
        /// What is taken.
        expected: &'static str,
    },
    /// No evidence.
    #[error("no evidence for the key broker")]
    Evidence {
        /// What the provider says.
        #[source]
        source: Cause,
    },
    /// Work in another thread did not end.
    #[error("{work} was abandoned")]
    Interrupted {
        /// Which work.
        work: &'static str,
    },
    /// No protected memory for a secret.
    #[error("no memory for the secret")]
    Memory {
        /// What the memory says.
        #[source]
        source: Cause,
    },
    /// A request above what a broker takes.
    #[error("attestation: expected at most {max} bytes, found {found}")]
    RequestSize {
        /// The cap.
        max: usize,
        /// What was made.
        found: usize,
    },
}

impl LocalFault {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Crypto { .. } => "KBS_CRYPTO_FAILED",
            Self::DeviceEvidence { .. } => "KBS_DEVICE_EVIDENCE_INVALID",
            Self::Evidence { .. } => "KBS_EVIDENCE_FAILED",
            Self::Interrupted { .. } => "KBS_INTERRUPTED",
            Self::Memory { .. } => "KBS_MEMORY",
            Self::RequestSize { .. } => "KBS_REQUEST_TOO_LARGE",
        }
    }

    pub(super) fn class(&self) -> Class {
        match self {
            Self::Interrupted { .. } | Self::RequestSize { .. } => Class::Bug,
            Self::Crypto { .. }
            | Self::DeviceEvidence { .. }
            | Self::Evidence { .. }
            | Self::Memory { .. } => Class::HostFault,
        }
    }
}

/// The way to the broker failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportFault {
    /// A body above the cap; nothing of it was used.
    #[error("body: expected at most {max} bytes, found more")]
    BodySize {
        /// The cap.
        max: usize,
    },
    /// No connection.
    #[error("no connection to {to}")]
    Connect {
        /// Host and port.
        to: String,
        /// What the system says.
        #[source]
        source: Cause,
    },
    /// The time of the caller is over.
    #[error("the caller's deadline is over")]
    Deadline {
        /// What was tried before.
        #[source]
        last: Option<Box<KbsError>>,
    },
    /// The connection broke, or spoke no HTTP.
    #[error("the connection broke")]
    Http {
        /// What the HTTP library says.
        #[source]
        source: Cause,
    },
    /// No answer in the time of one attempt.
    #[error("expected an answer in {} ms, found none", limit.as_millis())]
    Late {
        /// The limit of one attempt.
        limit: Duration,
    },
    /// An answer that points elsewhere.
    #[error("status {status}: expected an answer, found a redirect; none is followed")]
    Redirect {
        /// The status.
        status: u16,
    },
    /// The TLS handshake failed for another reason than trust.
    #[error("tls handshake")]
    Tls {
        /// What the TLS library says.
        #[source]
        source: Cause,
    },
    /// The certificate does not lead to the trust that bound configuration gave.
    #[error("certificate of the broker: expected one that the configured CA vouches for")]
    TlsUntrusted {
        /// What the TLS library says.
        #[source]
        source: Cause,
    },
    /// The key of the certificate is none of the pinned ones.
    #[error("certificate of the broker: expected a pinned key, found one with SPKI SHA-256 {found}")]
    TlsPin {
        /// SHA-256 of its SubjectPublicKeyInfo in hex.
        found: String,
    },
    /// The broker is there and cannot answer now.
    #[error("status {status}: the broker cannot answer now")]
    Unavailable {
        /// The status.
        status: u16,
    },
}

impl TransportFault {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BodySize { .. } => "KBS_BODY_TOO_LARGE",
            Self::Connect { .. } => "KBS_CONNECT_FAILED",
            Self::Deadline { .. } => "KBS_DEADLINE",
            Self::Http { .. } => "KBS_HTTP_BROKEN",
            Self::Late { .. } => "KBS_TIMEOUT",
            Self::Redirect { .. } => "KBS_REDIRECT_REFUSED",
            Self::Tls { .. } => "KBS_TLS_FAILED",
            Self::TlsPin { .. } => "KBS_TLS_PIN_MISMATCH",
            Self::TlsUntrusted { .. } => "KBS_TLS_UNTRUSTED",
            Self::Unavailable { .. } => "KBS_BROKER_UNAVAILABLE",
        }
    }

    pub(super) fn layer(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "connect",
            Self::Tls { .. } | Self::TlsPin { .. } | Self::TlsUntrusted { .. } => "tls",
            Self::BodySize { .. }
            | Self::Deadline { .. }
            | Self::Http { .. }
            | Self::Late { .. }
            | Self::Redirect { .. }
            | Self::Unavailable { .. } => "http",
        }
    }

    pub(super) fn class(&self) -> Class {
        match self {
            Self::BodySize { .. }
            | Self::Redirect { .. }
            | Self::Tls { .. }
            | Self::TlsPin { .. }
            | Self::TlsUntrusted { .. } => Class::BrokerFault,
            // Its time is over, and with it every further attempt.
            Self::Deadline { .. } => Class::HostFault,
            Self::Connect { .. } | Self::Http { .. } | Self::Late { .. } | Self::Unavailable { .. } => {
                Class::Transient
            }
        }
    }
}
