//! The inside: where a secret is, or the secret itself, encrypted.

use std::collections::BTreeMap;
use std::fmt;

use attestation_agent::kbs::parse_json;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::hub_error::{HubError, shown};

const VERSION: &str = "0.1.0";

/// What a sealed secret says. Members that are not here do not matter.
#[derive(Clone, Debug)]
pub enum Payload {
    /// Encrypted here.
    Envelope(Box<Envelope>),
    /// Somewhere else.
    Vault(Vault),
}

/// A secret that a provider keeps.
#[derive(Clone, Debug, Deserialize)]
pub struct Vault {
    /// Its name there.
    pub name: String,
    /// Who keeps it.
    pub provider: String,
    #[serde(rename = "provider_settings")]
    _provider_settings: BTreeMap<String, IgnoredAny>,
    #[serde(rename = "annotations")]
    _annotations: BTreeMap<String, IgnoredAny>,
}

/// A secret that is here, under a key that a provider unwraps.
#[derive(Clone, Deserialize)]
pub struct Envelope {
    /// The provider's key.
    pub key_id: String,
    /// The key of the data, wrapped; standard base64.
    pub encrypted_key: String,
    /// The data; standard base64.
    pub encrypted_data: String,
    /// Under which cipher.
    pub wrap_type: String,
    /// Its IV; standard base64.
    pub iv: String,
    /// Who unwraps the key.
    pub provider: String,
    #[serde(rename = "provider_settings")]
    _provider_settings: BTreeMap<String, IgnoredAny>,
    #[serde(rename = "annotations")]
    _annotations: BTreeMap<String, IgnoredAny>,
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope").field("provider", &shown(&self.provider)).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Kind {
    version: String,
    r#type: String,
}

impl Payload {
    /// Reads a payload, whose length the caller has capped.
    ///
    /// # Errors
    ///
    /// `SEALED_SECRET_MALFORMED`, `SEALED_SECRET_VERSION`.
    pub fn parse(json: &[u8]) -> Result<Self, HubError> {
        let form = |expected| HubError::SealedForm { part: "payload", expected };
        let kind: Kind = parse_json(json)
            .map_err(|_| form("a JSON object with version and type, and each member once"))?;
        if kind.version != VERSION {
            return Err(HubError::SealedVersion { found: shown(&kind.version) });
        }
        match kind.r#type.as_str() {
            "vault" => {
                let vault = parse_json(json);
                vault.map(Self::Vault).map_err(|_| form("name, provider, provider_settings, annotations"))
            }
            "envelope" => {
                let envelope = parse_json(json).map(|it| Self::Envelope(Box::new(it)));
                envelope.map_err(|_| {
                    form("key_id, encrypted_key, encrypted_data, wrap_type, iv, provider, provider_settings, annotations")
                })
            }
            _ => Err(form("type vault or envelope")),
        }
    }
}
