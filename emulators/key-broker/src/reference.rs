//! Reference values: names and the values that are good, registered by the operator.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

/// Most names.
const MAXIMUM_NAMES: usize = 1000;

/// Names and their good values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReferenceValues(pub(crate) BTreeMap<String, Vec<Value>>);

/// A message that registers nothing.
#[derive(Debug, thiserror::Error)]
#[error("reference values: {0}")]
pub(crate) struct ReferenceError(String);

#[derive(Deserialize)]
struct Message {
    version: String,
    r#type: String,
    payload: String,
}

impl ReferenceValues {
    /// Reads what [`encode`](Self::encode) wrote.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, ReferenceError> {
        serde_json::from_slice(json).map(Self).map_err(|error| ReferenceError(error.to_string()))
    }

    /// The values as JSON.
    pub(crate) fn encode(&self) -> String {
        serde_json::to_string(&self.0).unwrap_or_default()
    }

    /// Registers a message of RVPS: version 0.1.0, type `sample`, payload in base64 of `{"name":[value, …]}`. A name replaces its
    /// former values.
    pub(crate) fn register(&mut self, message: &[u8]) -> Result<(), ReferenceError> {
        let refused = |what: &dyn std::fmt::Display| ReferenceError(what.to_string());
        let message: Message = serde_json::from_slice(message).map_err(|error| refused(&error))?;
        if message.version != "0.1.0" || message.r#type != "sample" {
            return Err(refused(&"expected version 0.1.0 and type sample"));
        }
        let payload = STANDARD.decode(message.payload).map_err(|error| refused(&error))?;
        let Self(values) = Self::parse(&payload)?;
        let mut merged = self.0.clone();
        merged.extend(values);
        if merged.len() > MAXIMUM_NAMES {
            return Err(refused(&format_args!("expected at most {MAXIMUM_NAMES} names")));
        }
        self.0 = merged;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(version: &str, kind: &str, payload: &str) -> Vec<u8> {
        let payload = STANDARD.encode(payload);
        serde_json::json!({"version": version, "type": kind, "payload": payload}).to_string().into_bytes()
    }

    #[test]
    fn messages_register_and_replace() {
        let mut values = ReferenceValues::default();
        values.register(&message("0.1.0", "sample", r#"{"mr_td":["aa","bb"],"xfam":["e7"]}"#)).unwrap();
        values.register(&message("0.1.0", "sample", r#"{"mr_td":["cc"]}"#)).unwrap();
        assert_eq!(values.encode(), r#"{"mr_td":["cc"],"xfam":["e7"]}"#);
        assert_eq!(ReferenceValues::parse(values.encode().as_bytes()).unwrap(), values);
        for bad in [
            message("0.2.0", "sample", "{}"),
            message("0.1.0", "slsa", "{}"),
            message("0.1.0", "sample", r#"{"mr_td":"cc"}"#),
            br#"{"version":"0.1.0","type":"sample","payload":"*"}"#.to_vec(),
            b"text".to_vec(),
        ] {
            assert!(values.register(&bad).is_err());
        }
        assert_eq!(values.0.len(), 2);
    }
}
