//! What Intel publishes about a platform and a verifier of TDX quotes needs.

use dcap_qvl::QuoteCollateralV3;
use serde::{Deserialize, Serialize};
use x509_cert::der::DateTime;

use crate::bytes::limit;
use crate::error::{EvidenceError, Found};
use crate::verify::certificate::Window;

/// Longest collateral as text.
pub const MAXIMUM_COLLATERAL_BYTES: usize = 512 * 1024;
/// Longest revocation list.
pub const MAXIMUM_LIST_BYTES: usize = 128 * 1024;
/// Longest TCB info or QE identity.
pub const MAXIMUM_INFO_BYTES: usize = 64 * 1024;

/// Collateral of one platform. Unauthenticated until a quote is verified with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TdxCollateral {
    /// List of the PCK CA, DER.
    #[serde(with = "hex_bytes")]
    pub pck_crl: Vec<u8>,
    /// Chain of that list; not needed, because the chain stands in the quote.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pck_crl_issuer_chain: String,
    /// A copy of the chain in the quote, as some services deliver it; the quote's own is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pck_certificate_chain: Option<String>,
    /// Identity of the quoting enclave, the exact signed text.
    pub qe_identity: String,
    /// Signer and root, PEM.
    pub qe_identity_issuer_chain: String,
    /// Signature, r and s.
    #[serde(with = "hex_bytes")]
    pub qe_identity_signature: Vec<u8>,
    /// List of the root, DER.
    #[serde(with = "hex_bytes")]
    pub root_ca_crl: Vec<u8>,
    /// TCB levels of the platform, the exact signed text.
    pub tcb_info: String,
    /// Signer and root, PEM.
    pub tcb_info_issuer_chain: String,
    /// Signature, r and s.
    #[serde(with = "hex_bytes")]
    pub tcb_info_signature: Vec<u8>,
}

/// What this crate itself reads in a signed text of Intel.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SignedInfo {
    issue_date: String,
    next_update: String,
    #[serde(default)]
    pub(crate) pce_id: Option<String>,
}

impl TdxCollateral {
    /// Parses the JSON form: texts as they are, byte strings in hex.
    ///
    /// # Errors
    /// `EVIDENCE_MALFORMED`, `EVIDENCE_TOO_LARGE`.
    pub fn parse(json: &[u8]) -> Result<Self, EvidenceError> {
        limit("TDX collateral", MAXIMUM_COLLATERAL_BYTES, json.len())?;
        let collateral: Self = serde_json::from_slice(json).map_err(|error| EvidenceError::Malformed {
            what: "TDX collateral",
            expected: "the members of its format",
            found: Found::value(error),
        })?;
        collateral.complete()?;
        Ok(collateral)
    }

    /// The JSON form.
    #[must_use]
    pub fn encode(&self) -> String {
        // Strings always have a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Refuses absent and oversize parts.
    pub(crate) fn complete(&self) -> Result<(), EvidenceError> {
        let parts = [
            ("PCK revocation list", self.pck_crl.len(), MAXIMUM_LIST_BYTES),
            ("root revocation list", self.root_ca_crl.len(), MAXIMUM_LIST_BYTES),
            ("QE identity", self.qe_identity.len(), MAXIMUM_INFO_BYTES),
            ("QE identity issuer chain", self.qe_identity_issuer_chain.len(), MAXIMUM_INFO_BYTES),
            ("QE identity signature", self.qe_identity_signature.len(), 64),
            ("TCB info", self.tcb_info.len(), MAXIMUM_INFO_BYTES),
            ("TCB info issuer chain", self.tcb_info_issuer_chain.len(), MAXIMUM_INFO_BYTES),
            ("TCB info signature", self.tcb_info_signature.len(), 64),
        ];
        for (what, length, maximum) in parts {
            // GUARD: collateral-present -> evil_absent_collateral_is_unavailable_not_untrusted
            if length == 0 {
                return Err(EvidenceError::CollateralMissing { what });
            }
            limit(what, maximum, length)?;
        }
        Ok(())
    }

    pub(crate) fn as_library(&self) -> QuoteCollateralV3 {
        QuoteCollateralV3 {
            pck_crl_issuer_chain: String::new(),
            root_ca_crl: self.root_ca_crl.clone(),
            pck_crl: self.pck_crl.clone(),
            tcb_info_issuer_chain: self.tcb_info_issuer_chain.clone(),
            tcb_info: self.tcb_info.clone(),
            tcb_info_signature: self.tcb_info_signature.clone(),
            qe_identity_issuer_chain: self.qe_identity_issuer_chain.clone(),
            qe_identity: self.qe_identity.clone(),
            qe_identity_signature: self.qe_identity_signature.clone(),
            pck_certificate_chain: None,
        }
    }
}

impl SignedInfo {
    pub(crate) fn parse(what: &'static str, json: &str) -> Result<Self, EvidenceError> {
        serde_json::from_str(json).map_err(|error| EvidenceError::Malformed {
            what,
            expected: "JSON with issueDate and nextUpdate",
            found: Found::value(error),
        })
    }

    pub(crate) fn window(&self, what: &'static str) -> Result<Window, EvidenceError> {
        let seconds = |text: &str| {
            text.parse::<DateTime>().map(|date| date.unix_duration().as_secs()).map_err(|_| {
                EvidenceError::Malformed {
                    what,
                    expected: "dates as 2026-01-02T03:04:05Z",
                    found: Found::text(text),
                }
            })
        };
        Ok(Window { what, not_before: seconds(&self.issue_date)?, not_after: seconds(&self.next_update)? })
    }
}

mod hex_bytes {
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        hex::decode(text).map_err(serde::de::Error::custom)
    }
}
