//! Evidence of devices beside the TEE, such as GPUs. Whoever collects it knows its form; here it is text that is carried to the broker, bound to the
//! guest's own evidence, and looked at by nobody.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;

use super::error::LocalFault;

/// Classes of devices: the protocol knows fewer. All devices of a class are in one text.
const CLASSES_MAX: usize = 8;
/// Longest name of a class.
const NAME_MAX: usize = 32;
/// Longest text of all devices, in bytes. What is sent has another cap, over all of it.
const DEVICES_MAX: usize = 1 << 20;

/// What the evidence of devices has to be about: SHA-384 of the canonical object `{"nonce","tee-pubkey"}` of one handshake. It is not report data of
/// the TEE, which is never about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceDigest([u8; 48]);

impl DeviceDigest {
    pub(super) const fn new(digest: [u8; 48]) -> Self {
        Self(digest)
    }

    /// For whoever asks the devices.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 48] {
        &self.0
    }
}

/// Evidence by class of device: `nvidia` and the like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceEvidence(BTreeMap<String, String>);

impl DeviceEvidence {
    /// Adds the evidence of all devices of a class: the text of one JSON object, sent as it is.
    ///
    /// # Errors
    ///
    /// `KBS_DEVICE_EVIDENCE_INVALID`: a name that the protocol cannot carry, a class twice, too much, or no object.
    pub fn insert(&mut self, class: &str, evidence: &str) -> Result<(), LocalFault> {
        let invalid = |expected| Err(LocalFault::DeviceEvidence { expected });
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        // GUARD: device-class-name -> evil_collector_gives_evidence_of_another_form
        if class.is_empty() || class.len() > NAME_MAX || !class.bytes().all(allowed) {
            return invalid("a class of lower-case letters, digits and -");
        }
        // GUARD: device-class-once -> evil_collector_gives_evidence_of_another_form
        if self.0.contains_key(class) || self.0.len() >= CLASSES_MAX {
            return invalid("at most 8 classes, each once");
        }
        let total = self.0.values().fold(evidence.len(), |sum, text| sum.saturating_add(text.len()));
        // GUARD: device-evidence-size -> evil_collector_gives_evidence_of_another_form
        if total > DEVICES_MAX {
            return invalid("at most 1 MiB for all devices");
        }
        // A text that ends the object that it stands in would be evidence of another class.
        // GUARD: device-evidence-object -> evil_collector_gives_evidence_of_another_form
        if serde_json::from_str::<BTreeMap<String, IgnoredAny>>(evidence).is_err() {
            return invalid("one JSON object");
        }
        self.0.insert(class.to_owned(), evidence.to_owned());
        Ok(())
    }

    /// What stands in the attestation and in what is hashed: nothing at all without devices.
    pub(super) fn text(&self) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        // Names are narrow, and each text is an object.
        let members: Vec<String> = self.0.iter().map(|(class, text)| format!("\"{class}\":{text}")).collect();
        format!("{{{}}}", members.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_members_of_one_object() {
        let mut devices = DeviceEvidence::default();
        assert_eq!(devices.text(), "");
        devices.insert("sampledevice", r#"{"svn": "2"}"#).unwrap();
        devices.insert("nvidia", r#"{"device_evidence_list":[]}"#).unwrap();
        assert_eq!(devices.text(), r#"{"nvidia":{"device_evidence_list":[]},"sampledevice":{"svn": "2"}}"#);
    }

    #[test]
    fn evil_collector_gives_evidence_of_another_form() {
        let mut devices = DeviceEvidence::default();
        let mut refused = |class: &str, evidence: &str| {
            assert_eq!(devices.insert(class, evidence).unwrap_err().code(), "KBS_DEVICE_EVIDENCE_INVALID");
            assert_eq!(devices.text(), "", "nothing of it is sent");
        };
        for class in ["", "NVIDIA", "a\":{},\"tdx", "a b", &"a".repeat(33)] {
            refused(class, "{}");
        }
        for evidence in ["", "[]", "\"{}\"", "null", "{}}", "{}, \"tdx\": {}", "{\"a\":", "{} {}"] {
            refused("nvidia", evidence);
        }
        refused("nvidia", &format!("{{\"a\": \"{}\"}}", "x".repeat(DEVICES_MAX)));
        devices.insert("nvidia", "{}").unwrap();
        assert!(devices.insert("nvidia", "{\"other\": 1}").is_err(), "a class twice");
        let half = format!("{{\"a\": \"{}\"}}", "x".repeat(DEVICES_MAX / 2));
        devices.insert("a", &half).unwrap();
        assert!(devices.insert("b", &half).is_err(), "too much together");
        for number in 0..CLASSES_MAX - 2 {
            devices.insert(&format!("c{number}"), "{}").unwrap();
        }
        assert!(devices.insert("one-more", "{}").is_err(), "too many classes");
    }
}
