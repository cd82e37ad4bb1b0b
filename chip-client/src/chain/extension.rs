//! The chip extension of the leaf: canonical JSON with the chip's keys (spec §6.3).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use x509_cert::der::asn1::ObjectIdentifier;

use crate::abi::identity_const::{
    CHIP_EXTENSION_OID, CHIP_EXTENSION_TYPE, MAX_ENVIRONMENT, P384_PUBLIC_LEN, X_WING_PUBLIC_LEN,
};
use crate::error::ChainError;

pub(super) const OID_CHIP: ObjectIdentifier = ObjectIdentifier::new_unwrap(CHIP_EXTENSION_OID);
const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;
const MAX_MODEL: usize = 128;

/// What a leaf says about its chip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ChipExtension {
    pub(super) environment: String,
    pub(super) id: [u8; 32],
    pub(super) key_epoch: u64,
    pub(super) model: String,
    pub(super) noise: [u8; 32],
    pub(super) p384: [u8; P384_PUBLIC_LEN],
    pub(super) x_wing: Box<[u8; X_WING_PUBLIC_LEN]>,
}

impl ChipExtension {
    /// The canonical bytes. The names need no escaping: see [`is_name`].
    pub(super) fn encode(&self) -> String {
        let epoch = self.key_epoch;
        let epoch = if epoch > MAX_SAFE_INTEGER { format!("\"{epoch}\"") } else { epoch.to_string() };
        format!(
            concat!(
                r#"{{"@type":"{}","environment":"{}","id":"{}","key_epoch":{},"model":"{}","#,
                r#""noise":"{}","p384":"{}","x_wing":"{}"}}"#
            ),
            CHIP_EXTENSION_TYPE,
            self.environment,
            hex::encode(self.id),
            epoch,
            self.model,
            hex::encode(self.noise),
            STANDARD.encode(self.p384),
            STANDARD.encode(self.x_wing.as_slice()),
        )
    }

    /// Parses; the bytes must be the canonical encoding of what they say.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, ChainError> {
        let bad = |what| ChainError::Malformed { which: "chip", what };
        let value: serde_json::Value =
            serde_json::from_slice(bytes).map_err(|_| bad("chip extension is not JSON"))?;
        let text = |member: &str| value.get(member).and_then(serde_json::Value::as_str).unwrap_or_default();
        let number = value.get("key_epoch").and_then(serde_json::Value::as_u64);
        let key_epoch = number.or_else(|| text("key_epoch").parse().ok());
        let parsed = Self {
            environment: text("environment").to_owned(),
            id: hex_array(text("id")).ok_or_else(|| bad("id in the chip extension"))?,
            key_epoch: key_epoch.ok_or_else(|| bad("key_epoch in the chip extension"))?,
            model: text("model").to_owned(),
            noise: hex_array(text("noise")).ok_or_else(|| bad("noise in the chip extension"))?,
            p384: base64_array(text("p384")).ok_or_else(|| bad("p384 in the chip extension"))?,
            x_wing: Box::new(
                base64_array(text("x_wing")).ok_or_else(|| bad("x_wing in the chip extension"))?,
            ),
        };
        if !is_name(&parsed.environment, MAX_ENVIRONMENT) || !is_name(&parsed.model, MAX_MODEL) {
            return Err(bad("environment or model in the chip extension"));
        }
        // GUARD: chain-extension-canonical -> evil_chip_extension_with_another_reading
        if parsed.encode().as_bytes() != bytes {
            return Err(bad("chip extension is not in canonical form"));
        }
        Ok(parsed)
    }
}

/// `[A-Za-z0-9._/-]`, the first character alphanumeric: needs no escaping in JSON.
pub(super) fn is_name(text: &str, cap: usize) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'/' | b'-');
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    first && text.len() <= cap && text.bytes().all(allowed)
}

/// Longest model name.
pub(super) const fn max_model() -> usize {
    MAX_MODEL
}

fn hex_array<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

fn base64_array<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() > N * 2 {
        return None;
    }
    STANDARD.decode(text).ok()?.try_into().ok()
}
