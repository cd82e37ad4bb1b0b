//! The broker's "no": the error object of the protocol.
//!
//! The broker answers nearly everything with 401. The suffix of `type` alone says what it means, and so whether a new
//! handshake can help.

use std::fmt;

use serde::Deserialize;

use super::error::{AnswerFault, Cause, Class, Hop};
use super::json;

const PREFIX: &str = "https://github.com/confidential-containers/kbs/errors/";
const DETAIL_MAX_CHARS: usize = 256;
const NAME_MAX: usize = 64;

/// What kind of "no".
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Variant {
    /// The request needs an administrator.
    AdminAuthAccess,
    /// The handshake or the evidence was refused.
    AttestationError,
    /// No such path.
    InvalidRequestPath,
    /// The broker could not encrypt for our key.
    JweError,
    /// A name that is not listed here.
    Other(String),
    /// The resource policy says no.
    PolicyDeny,
    /// The plugin failed: also a resource that does not exist.
    PluginInternalError,
    /// No such plugin.
    PluginNotFound,
    /// The policy could not be evaluated.
    PolicyEngineError,
    /// A policy does not parse.
    ParsePolicyError,
    /// Metrics.
    PrometheusError,
    /// Reference values.
    RvpsError,
    /// The broker could not read the request.
    SerdeError,
    /// No session and no token.
    TokenNotFound,
    /// The token is expired or not trusted.
    TokenVerifierError,
}

impl Variant {
    fn parse(name: &str) -> Self {
        match name {
            "AdminAuthAccess" => Self::AdminAuthAccess,
            "AttestationError" => Self::AttestationError,
            "InvalidRequestPath" => Self::InvalidRequestPath,
            "JweError" => Self::JweError,
            "ParsePolicyError" => Self::ParsePolicyError,
            "PluginInternalError" => Self::PluginInternalError,
            "PluginNotFound" => Self::PluginNotFound,
            "PolicyDeny" => Self::PolicyDeny,
            "PolicyEngineError" => Self::PolicyEngineError,
            "PrometheusError" => Self::PrometheusError,
            "RvpsError" => Self::RvpsError,
            "SerdeError" => Self::SerdeError,
            "TokenNotFound" => Self::TokenNotFound,
            "TokenVerifierError" => Self::TokenVerifierError,
            other => Self::Other(printable(other, NAME_MAX)),
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AdminAuthAccess => "AdminAuthAccess",
            Self::AttestationError => "AttestationError",
            Self::InvalidRequestPath => "InvalidRequestPath",
            Self::JweError => "JweError",
            Self::Other(name) => name,
            Self::ParsePolicyError => "ParsePolicyError",
            Self::PluginInternalError => "PluginInternalError",
            Self::PluginNotFound => "PluginNotFound",
            Self::PolicyDeny => "PolicyDeny",
            Self::PolicyEngineError => "PolicyEngineError",
            Self::PrometheusError => "PrometheusError",
            Self::RvpsError => "RvpsError",
            Self::SerdeError => "SerdeError",
            Self::TokenNotFound => "TokenNotFound",
            Self::TokenVerifierError => "TokenVerifierError",
        })
    }
}

/// The broker said no.
#[derive(Clone, Debug, thiserror::Error)]
#[error("status {status}: refused: {variant}: {detail}")]
pub struct Refusal {
    status: u16,
    variant: Variant,
    detail: String,
}

/// The error object; other members are ignored.
#[derive(Deserialize)]
struct ErrorObject {
    r#type: String,
    #[serde(default)]
    detail: String,
}

impl Refusal {
    /// Reads the body of a status that is not 200.
    pub(super) fn parse(status: u16, body: &[u8]) -> Result<Self, AnswerFault> {
        let object: ErrorObject =
            json::parse(body).map_err(|source| AnswerFault::ErrorBody { status, source })?;
        let name = object.r#type.strip_prefix(PREFIX).ok_or_else(|| AnswerFault::ErrorBody {
            status,
            source: Cause::new("type: expected an error of the protocol"),
        })?;
        Ok(Self {
            status,
            variant: Variant::parse(name),
            detail: printable(&object.detail, DETAIL_MAX_CHARS),
        })
    }

    /// What kind of "no".
    pub fn variant(&self) -> &Variant {
        &self.variant
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self.variant {
            Variant::AttestationError => "KBS_REFUSED_ATTESTATION",
            Variant::JweError => "KBS_REFUSED_KEY",
            Variant::InvalidRequestPath | Variant::PluginNotFound => "KBS_REFUSED_PATH",
            Variant::PluginInternalError => "KBS_REFUSED_RESOURCE",
            Variant::PolicyDeny => "KBS_REFUSED_POLICY",
            Variant::TokenNotFound => "KBS_REFUSED_NO_TOKEN",
            Variant::TokenVerifierError => "KBS_REFUSED_TOKEN",
            Variant::AdminAuthAccess
            | Variant::Other(_)
            | Variant::ParsePolicyError
            | Variant::PolicyEngineError
            | Variant::PrometheusError
            | Variant::RvpsError
            | Variant::SerdeError => "KBS_REFUSED_OTHER",
        }
    }

    /// Only a lost session or token is worth a new handshake, and only where one was used.
    pub(super) fn class(&self, hop: Hop) -> Class {
        match (hop, &self.variant) {
            (Hop::Resource, Variant::TokenNotFound | Variant::TokenVerifierError) => Class::Reattest,
            _ => Class::Denied,
        }
    }
}

/// Text of a stranger, fit for a message: printable ASCII, and not much of it.
fn printable(text: &str, max_chars: usize) -> String {
    let clean = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    text.chars().take(max_chars).map(clean).collect()
}

#[cfg(test)]
mod tests;
