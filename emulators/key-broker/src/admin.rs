//! What an administrator may do: resources, policies, reference values. Without a token file nobody is one.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::Method;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::appraisal::POLICY_ID;
use crate::broker::{ATTESTATION_POLICY_FILE, Broker, REFERENCE_FILE, RESOURCE_POLICY_FILE};
use crate::error::{Refusal, Variant};
use crate::log::note;
use crate::rego::RegoError;
use crate::store::ResourcePath;

/// Shortest token.
const MINIMUM_TOKEN_BYTES: usize = 16;

/// Who is an administrator: whoever has the token.
pub(crate) struct Admin(Option<[u8; 32]>);

/// A token file that is no protection.
#[derive(Debug, thiserror::Error)]
#[error("admin token: expected at least {MINIMUM_TOKEN_BYTES} printable characters without blanks")]
pub(crate) struct WeakToken;

#[derive(Deserialize)]
struct PolicyJson {
    policy_id: Option<String>,
    policy: String,
}

impl Admin {
    /// Nobody.
    pub(crate) const fn nobody() -> Self {
        Self(None)
    }

    /// Whoever has the token of a file; blanks at its end do not count.
    pub(crate) fn with_token(file: &[u8]) -> Result<Self, WeakToken> {
        let token = file.trim_ascii();
        if token.len() < MINIMUM_TOKEN_BYTES || !token.iter().all(u8::is_ascii_graphic) {
            return Err(WeakToken);
        }
        Ok(Self(Some(Sha256::digest(token).into())))
    }

    /// Refuses everybody but administrators.
    pub(crate) fn authorise(&self, bearer: Option<&str>) -> Result<(), Refusal> {
        let refused = |why| Refusal::new(Variant::AdminAuthAccess, why);
        let expected = self.0.ok_or_else(|| refused("no --admin-token-file: nobody is an administrator"))?;
        let bearer = bearer.ok_or_else(|| refused("no bearer token"))?;
        let found: [u8; 32] = Sha256::digest(bearer).into();
        // Digests of the same length are compared, in constant time.
        // GUARD: broker-admin-token -> evil_client_poses_as_administrator
        if verify_slices_are_equal(&expected, &found).is_err() {
            return Err(refused("another bearer token"));
        }
        Ok(())
    }

    /// Whether there is a token at all.
    pub(crate) const fn is_on(&self) -> bool {
        self.0.is_some()
    }
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Admin({})", if self.is_on() { "on" } else { "off" })
    }
}

/// Sets or deletes a resource.
pub(crate) fn resource(broker: &Broker, method: &Method, path: &str, body: &[u8]) -> Result<(), Refusal> {
    let internal = |why: &dyn std::fmt::Display| Refusal::new(Variant::PluginInternalError, why);
    let path = ResourcePath::parse(path).map_err(|error| internal(&error))?;
    match *method {
        Method::POST => {
            broker.store.set_resource(&path, body)?;
            note(&format!("admin set resource {path} ({} bytes)", body.len()));
        }
        Method::DELETE => {
            if !broker.store.delete_resource(&path)? {
                return Err(internal(&format_args!("no resource {path}")));
            }
            note(&format!("admin deleted resource {path}"));
        }
        _ => return Err(internal(&format_args!("resources have no method {method}"))),
    }
    Ok(())
}

/// Puts a resource policy in force and keeps it.
pub(crate) fn set_resource_policy(broker: &Broker, body: &[u8]) -> Result<(), Refusal> {
    let (_, text) = policy(body)?;
    broker.change(|| {
        broker.policy.replace(&text).map_err(refused)?;
        broker.store.write(RESOURCE_POLICY_FILE, text.as_bytes())?;
        note("admin set the resource policy");
        Ok(())
    })
}

/// Puts an attestation policy in force and keeps it. There is one, `default`.
pub(crate) fn set_attestation_policy(broker: &Broker, body: &[u8]) -> Result<(), Refusal> {
    let (id, text) = policy(body)?;
    if id.as_deref() != Some(POLICY_ID) {
        return Err(Refusal::open(
            Variant::PolicyEngineError,
            "Policy engine error: expected policy_id default",
        ));
    }
    broker.change(|| {
        broker.handshake.appraiser.replace_policy(text.clone()).map_err(refused)?;
        broker.store.write(ATTESTATION_POLICY_FILE, text.as_bytes())?;
        note("admin set the attestation policy");
        Ok(())
    })
}

/// Registers reference values and keeps them.
pub(crate) fn register_reference(broker: &Broker, body: &[u8]) -> Result<(), Refusal> {
    let rvps = |why: &dyn std::fmt::Display| {
        Refusal::open(Variant::RvpsError, format_args!("RVPS configuration failed: {why}"))
    };
    broker.change(|| {
        let mut values = broker.handshake.appraiser.references();
        values.register(body).map_err(|error| rvps(&error))?;
        broker.handshake.appraiser.replace_references(values.clone()).map_err(|error| rvps(&error))?;
        broker.store.write(REFERENCE_FILE, values.encode().as_bytes())?;
        note("admin registered reference values");
        Ok(())
    })
}

/// The reference values of a name, or all of them, as JSON.
pub(crate) fn reference(broker: &Broker, name: &str) -> Vec<u8> {
    let values = broker.handshake.appraiser.references();
    if name.is_empty() {
        return values.encode().into_bytes();
    }
    serde_json::to_vec(&values.0.get(name)).unwrap_or_default()
}

/// Id and text of a policy that is sent.
fn policy(body: &[u8]) -> Result<(Option<String>, String), Refusal> {
    let json: PolicyJson =
        serde_json::from_slice(body).map_err(|error| Refusal::new(Variant::SerdeError, error))?;
    let parse = |why: &dyn std::fmt::Display| {
        Refusal::open(Variant::ParsePolicyError, format_args!("Failed to parse policy: {why}"))
    };
    let text = URL_SAFE_NO_PAD.decode(json.policy).map_err(|error| parse(&error))?;
    let text = String::from_utf8(text).map_err(|error| parse(&error))?;
    Ok((json.policy_id, text))
}

fn refused(error: RegoError) -> Refusal {
    match error {
        RegoError::Parse(why) => {
            Refusal::open(Variant::ParsePolicyError, format_args!("Failed to parse policy: {why}"))
        }
        RegoError::Evaluation(why) => {
            Refusal::open(Variant::PolicyEngineError, format_args!("Policy engine error: {why}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evil_client_poses_as_administrator() {
        let admin = Admin::with_token(b"0123456789abcdef\n").unwrap();
        assert!(admin.authorise(Some("0123456789abcdef")).is_ok());
        for bearer in
            [None, Some(""), Some("0123456789abcde"), Some("0123456789abcdef "), Some("0123456789abcdeF")]
        {
            let refusal = admin.authorise(bearer).unwrap_err();
            assert_eq!(refusal.variant(), Variant::AdminAuthAccess, "{bearer:?}");
        }
        assert!(Admin::nobody().authorise(Some("")).is_err());
        for weak in ["", "short", "0123456789 abcdef"] {
            assert!(Admin::with_token(weak.as_bytes()).is_err(), "{weak}");
        }
        assert_eq!(format!("{admin:?}"), "Admin(on)");
    }
}
