//! `audit.toml`: the operator's key, to which audit records are sealed.
//!
//! ```toml
//! suite = "x-wing"
//! key = "…"   # base64 of the public key
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// Whom audit records are sealed to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawAudit")]
pub struct AuditConfig {
    /// The suite.
    pub suite: AuditSuite,
    /// The public key as HPKE serialises it; its length is right, nothing else was looked at.
    pub public_key: Vec<u8>,
}

/// HPKE suites, those of grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub enum AuditSuite {
    /// DHKEM(P-384), HKDF-SHA-384, AES-256-GCM.
    #[serde(rename = "p-384")]
    P384,
    /// X-Wing, HKDF-SHA-384, AES-256-GCM.
    #[serde(rename = "x-wing")]
    XWing,
}

impl AuditSuite {
    /// Length of a public key in bytes.
    #[must_use]
    pub const fn key_bytes(self) -> usize {
        match self {
            Self::P384 => 97,
            Self::XWing => 1216,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAudit {
    suite: AuditSuite,
    key: String,
}

impl TryFrom<RawAudit> for AuditConfig {
    type Error = String;

    fn try_from(raw: RawAudit) -> Result<Self, String> {
        let key = STANDARD
            .decode(&raw.key)
            .map_err(|error| format!("key: expected base64 with padding: {error}"))?;
        let expected = raw.suite.key_bytes();
        if key.len() != expected {
            return Err(format!("key: expected {expected} bytes, found {}", key.len()));
        }
        Ok(Self { suite: raw.suite, public_key: key })
    }
}
