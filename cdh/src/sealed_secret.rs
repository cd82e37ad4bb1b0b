//! Sealed secrets: `sealed.` and a JWS in compact form (ES256), whose payload says where the secret is or holds it encrypted.
//!
//! ```text
//!  text ─▶ SealedSecret ──signature by the key that kid names, from the broker──▶ Payload ─▶ vault: a resource of the broker
//!   cap, base64url without padding, header                                              └▶ envelope: key unwrapped, then opened
//! ```
//! The form is upstream's (Confidential Data Hub, sealed secrets 0.1.0). Payloads are looked at only after the signature verified. Another form is
//! ours: a secret that is a sealed [`artifact`].

pub mod artifact;
mod jws;
mod payload;

use std::sync::Arc;

use attestation_agent::kbs::ResourceUri;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use initdata::InsecureMode;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::hub_error::{HubError, shown};
use crate::modes::Modes;
use crate::plaintext::Plaintext;
use crate::resources::ResourceSource;
use crate::unwrap::{self, WrapType};

pub use jws::{SealedSecret, VerificationKey};
pub use payload::{Envelope, Payload, Vault};

/// Longest sealed secret.
pub const MAXIMUM_SEALED_BYTES: usize = protocol::hub::SEALED_SECRET_BYTES;
/// The only provider.
const KBS: &str = "kbs";

/// Whether somebody looks at signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verification {
    /// Nobody: an insecure mode, by [`Verification::decide`] alone.
    InsecureSkipped(Skipped),
    /// Always.
    Required,
}

/// The permission to skip verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skipped(());

impl Verification {
    /// What a configuration asks for, if a bound mode permits it.
    ///
    /// # Errors
    ///
    /// `CDH_INSECURE_UNBOUND`.
    pub fn decide(skip: bool, modes: &Modes) -> Result<Self, HubError> {
        if !skip {
            return Ok(Self::Required);
        }
        // GUARD: skip-verification-bound -> evil_configuration_has_signatures_skipped
        modes.require("skip_sealed_secret_verification", InsecureMode::UnverifiedSecrets)?;
        Ok(Self::InsecureSkipped(Skipped(())))
    }
}

/// Unseals: verifies, and gets what a payload leads to.
///
/// # Errors
///
/// `CDH_REQUEST_TOO_LARGE`, `SEALED_SECRET_…`, `WRAP_…`; those of the source.
pub async fn unseal(
    text: &[u8],
    source: &dyn ResourceSource,
    verification: Verification,
    modes: &Modes,
    deadline: Instant,
) -> Result<Arc<Plaintext>, HubError> {
    let payload = match verification {
        Verification::Required => {
            let sealed = SealedSecret::parse(text)?;
            let uri = sealed.kid()?;
            let key = source.get(&uri, deadline).await?;
            let key = VerificationKey::parse(key.expose())?;
            sealed.verify(&key)?
        }
        Verification::InsecureSkipped(Skipped(())) => SealedSecret::insecure_payload(text)?,
    };
    match payload {
        Payload::Vault(vault) => {
            require_provider(&vault.provider, "kbs")?;
            let name = ResourceUri::parse(&vault.name)?;
            source.get(&name, deadline).await
        }
        Payload::Envelope(envelope) => open_envelope(&envelope, source, modes, deadline).await,
    }
}

/// Upstream's providers are key services of clouds, which are not here. `kbs` is ours: `key_id` names a resource of 32 bytes, and
/// `encrypted_key` is the key under it by AES-256 key wrap (RFC 3394).
async fn open_envelope(
    envelope: &Envelope,
    source: &dyn ResourceSource,
    modes: &Modes,
    deadline: Instant,
) -> Result<Arc<Plaintext>, HubError> {
    require_provider(&envelope.provider, "kbs (key_id: a resource; encrypted_key: AES-256 key wrap)")?;
    let uri = ResourceUri::parse(&envelope.key_id)?;
    let kek = source.get(&uri, deadline).await?;
    let wrapped = decode("encrypted_key", &envelope.encrypted_key)?;
    let key = unwrap::unwrap_key("encrypted_key", kek.expose(), &wrapped)?;
    open_data(envelope, key.expose(), modes).map(Arc::new)
}

/// Opens the data of an envelope with its key.
///
/// # Errors
///
/// `SEALED_SECRET_MALFORMED`, `WRAP_…`.
pub fn open_data(envelope: &Envelope, key: &[u8], modes: &Modes) -> Result<Plaintext, HubError> {
    let kind = WrapType::parse("encrypted_data", &envelope.wrap_type)?;
    let iv = decode("iv", &envelope.iv)?;
    let data = decode("encrypted_data", &envelope.encrypted_data)?;
    kind.open("encrypted_data", key, &iv, data, modes)
}

fn require_provider(provider: &str, expected: &'static str) -> Result<(), HubError> {
    // GUARD: sealed-provider -> unknown_providers_are_refused
    if !provider.eq_ignore_ascii_case(KBS) {
        return Err(HubError::SealedProvider { expected, found: shown(provider) });
    }
    Ok(())
}

fn decode(part: &'static str, text: &str) -> Result<Zeroizing<Vec<u8>>, HubError> {
    let decoded = STANDARD.decode(text);
    decoded.map(Zeroizing::new).map_err(|_| HubError::SealedForm { part, expected: "standard base64" })
}

#[cfg(test)]
mod tests;
