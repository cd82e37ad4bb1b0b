//! What a guest has to have attested: digests over canonical JSON (RFC 8785) of nonce, key and device evidence.

use std::collections::BTreeMap;

use serde::Serialize;
use sha2::{Digest, Sha384};

use crate::jwk::TeeJwk;

/// A SHA-384 digest.
pub(crate) type Digest48 = [u8; 48];

#[derive(Serialize)]
struct Device<'a> {
    nonce: &'a str,
    #[serde(rename = "tee-pubkey")]
    tee_pubkey: BTreeMap<&'static str, &'a str>,
}

#[derive(Serialize)]
struct Primary<'a> {
    #[serde(rename = "additional-evidence")]
    additional_evidence: &'a str,
    nonce: &'a str,
    #[serde(rename = "tee-pubkey")]
    tee_pubkey: BTreeMap<&'static str, &'a str>,
}

/// The report data of device evidence.
pub(crate) fn device(nonce: &str, key: &TeeJwk) -> Digest48 {
    digest(&Device { nonce, tee_pubkey: key.members() })
}

/// The report data of the evidence of the guest itself. The member of device evidence is there even when it is empty.
pub(crate) fn primary(nonce: &str, key: &TeeJwk, additional_evidence: &str) -> Digest48 {
    digest(&Primary { additional_evidence, nonce, tee_pubkey: key.members() })
}

/// Members of these objects stand in ascending order and hold strings alone, which serde writes as canonical JSON does.
fn digest(object: &impl Serialize) -> Digest48 {
    Sha384::digest(serde_json::to_vec(object).unwrap_or_default()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Published answers of the protocol's description.
    #[test]
    fn digests_are_the_published_ones() {
        let key: TeeJwk = serde_json::from_str(crate::jwk::tests::P256).unwrap();
        let nonce = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        assert_eq!(
            hex::encode(device(nonce, &key)),
            "92f5f299f10e194b9db28514ed49012fdc39e7943d5d107e82a468ec8ef7c3ca2b9d9d8c210e5026207a1af1a721d555"
        );
        assert_eq!(
            hex::encode(primary(nonce, &key, "")),
            "942aa8167f5730cddfec7e58159403ee488276d9b8c5ebbde3a782f1da96e7815da6bd7aa1da7f691a5162a60aa1b510"
        );
        let devices = r#"{"sampledevice":{"svn":"2","report_data":"kvXymfEOGUudsoUU7UkBL9w555Q9XRB+gqRo7I73w8ornZ2MIQ5QJiB6GvGnIdVV"}}"#;
        assert_eq!(
            hex::encode(primary(nonce, &key, devices)),
            "4eb67ea264a0a39d9a79a7f7cde5dfdda09a271631caf51e1a37cd127e1c6794d0a30a5d09647aad7eea1b153f833ffb"
        );
    }

    #[test]
    fn strings_are_escaped_as_canonical_json_escapes_them() {
        let object = Primary {
            additional_evidence: "\u{1f}\u{8}\n\"\\/\u{20ac}\u{7f}",
            nonce: "\u{1f600}",
            tee_pubkey: BTreeMap::new(),
        };
        let text = serde_json::to_string(&object).unwrap();
        let expected = concat!(
            r#"{"additional-evidence":"\u001f\b\n\"\\/"#,
            "\u{20ac}\u{7f}",
            r#"","nonce":""#,
            "\u{1f600}",
            r#"","tee-pubkey":{}}"#
        );
        assert_eq!(text, expected);
    }
}
