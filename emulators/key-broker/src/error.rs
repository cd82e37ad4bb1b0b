//! What a peer is told when the broker says no: the error types of the protocol.

use hyper::StatusCode;
use serde::Serialize;

use crate::log::printable;

const TYPE_PREFIX: &str = "https://github.com/confidential-containers/kbs/errors/";
const MAXIMUM_DETAIL: usize = 300;

/// The error types of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    AdminAuthAccess,
    AttestationError,
    InvalidRequestPath,
    JweError,
    ParsePolicyError,
    PluginInternalError,
    PluginNotFound,
    PolicyDeny,
    PolicyEngineError,
    PrometheusError,
    RvpsError,
    SerdeError,
    TokenNotFound,
    TokenVerifierError,
}

impl Variant {
    /// All of them.
    pub(crate) const ALL: [Self; 14] = [
        Self::AdminAuthAccess,
        Self::AttestationError,
        Self::InvalidRequestPath,
        Self::JweError,
        Self::ParsePolicyError,
        Self::PluginInternalError,
        Self::PluginNotFound,
        Self::PolicyDeny,
        Self::PolicyEngineError,
        Self::PrometheusError,
        Self::RvpsError,
        Self::SerdeError,
        Self::TokenNotFound,
        Self::TokenVerifierError,
    ];

    /// The last part of the type URI.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::AdminAuthAccess => "AdminAuthAccess",
            Self::AttestationError => "AttestationError",
            Self::InvalidRequestPath => "InvalidRequestPath",
            Self::JweError => "JweError",
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
        }
    }

    /// The variant of a name.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|variant| variant.name() == name)
    }

    /// 404 for what does not exist as an endpoint, 401 for everything else.
    pub(crate) const fn status(self) -> StatusCode {
        match self {
            Self::InvalidRequestPath | Self::PluginNotFound => StatusCode::NOT_FOUND,
            _ => StatusCode::UNAUTHORIZED,
        }
    }

    /// What the peer reads where a refusal says nothing of its own.
    const fn detail(self) -> &'static str {
        match self {
            Self::AdminAuthAccess => "admin access denied",
            Self::AttestationError => "Attestation error: RCAR handshake Attest failed",
            Self::InvalidRequestPath => "Request path is invalid",
            Self::JweError => "JWE failed",
            Self::ParsePolicyError => "Failed to parse policy",
            Self::PluginInternalError => "Plugin internal error",
            Self::PluginNotFound => "Plugin not found",
            Self::PolicyDeny => "Access denied by policy",
            Self::PolicyEngineError => "Policy engine error",
            Self::PrometheusError => "Prometheus error",
            Self::RvpsError => "RVPS configuration failed",
            Self::SerdeError => "Serialize/Deserialize failed",
            Self::TokenNotFound => "Attestation Token not found",
            Self::TokenVerifierError => "Token Verifier error",
        }
    }
}

/// A request that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    variant: Variant,
    detail: String,
    why: String,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    detail: &'a str,
}

impl Refusal {
    /// The peer reads the usual line of the variant; `why` is for the log.
    pub(crate) fn new(variant: Variant, why: impl std::fmt::Display) -> Self {
        Self { variant, detail: variant.detail().to_owned(), why: why.to_string() }
    }

    /// The peer reads `detail` too.
    pub(crate) fn open(variant: Variant, detail: impl std::fmt::Display) -> Self {
        let detail = printable(&detail.to_string(), MAXIMUM_DETAIL);
        Self { variant, why: detail.clone(), detail }
    }

    /// The error type.
    pub(crate) const fn variant(&self) -> Variant {
        self.variant
    }

    /// The reason, for the log.
    pub(crate) fn why(&self) -> &str {
        &self.why
    }

    /// The JSON body.
    pub(crate) fn body(&self) -> Vec<u8> {
        let body = Body { r#type: format!("{TYPE_PREFIX}{}", self.variant.name()), detail: &self.detail };
        // Two strings always have a JSON form.
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_and_statuses_are_those_of_the_protocol() {
        for variant in Variant::ALL {
            let refusal = Refusal::new(variant, "the reason that only the log has");
            let body: serde_json::Value = serde_json::from_slice(&refusal.body()).unwrap();
            let uri = format!("https://github.com/confidential-containers/kbs/errors/{}", variant.name());
            assert_eq!(body["type"], uri.as_str());
            assert!(!body["detail"].as_str().unwrap().contains("reason"));
            assert_eq!(body.as_object().unwrap().len(), 2);
            assert_eq!(Variant::of_name(variant.name()), Some(variant));
            let not_found = ["InvalidRequestPath", "PluginNotFound"].contains(&variant.name());
            assert_eq!(variant.status().as_u16(), if not_found { 404 } else { 401 });
        }
        let shown = Refusal::open(Variant::PluginNotFound, "Plugin a\nb not found").body();
        assert!(String::from_utf8(shown).unwrap().contains(r"Plugin a\\nb not found"));
    }
}
