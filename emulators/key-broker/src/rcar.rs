//! Messages of the handshake (RCAR 0.4.0) and the names of TEEs.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::initdata;
use crate::jwk::TeeJwk;

/// The one version.
pub(crate) const VERSION: &str = "0.4.0";
/// Names that the protocol knows, with the alias.
const NAMES: [&str; 15] = [
    "az-snp-vtpm",
    "az-tdx-vtpm",
    "cca",
    "csv",
    "hygondcu",
    "nvidia",
    "nvidia-dpu",
    "nvidiadpu",
    "sample",
    "sampledevice",
    "se",
    "sgx",
    "snp",
    "tdx",
    "tpm",
];

/// A kind of guest that this broker verifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tee {
    /// Proves nothing; for tests.
    Sample,
    /// AMD SEV-SNP.
    Snp,
    /// Intel TDX.
    Tdx,
}

/// A request that is refused, with what the peer may read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    /// Not of the form.
    #[error("deserialize Request: {0}")]
    Form(String),
    /// A TEE whose evidence is not verified here.
    #[error("tee {0}: this broker does not verify its evidence")]
    Tee(String),
    /// Another version of the protocol.
    #[error("expected version {VERSION}, found {0}")]
    Version(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RequestJson<'a> {
    version: String,
    tee: String,
    /// Must be there; nothing that this broker verifies looks into it.
    #[serde(rename = "extra-params", borrow)]
    _extra_params: &'a RawValue,
}

/// The answer to a request.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Challenge<'a> {
    pub(crate) nonce: &'a str,
    pub(crate) extra_params: &'a str,
}

/// The answer to a challenge.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Attestation<'a> {
    /// Configuration that hardware bound to the guest.
    #[serde(default)]
    pub(crate) init_data: Option<initdata::Sent>,
    /// Challenge and key.
    pub(crate) runtime_data: RuntimeData,
    /// Evidence.
    #[serde(borrow)]
    pub(crate) tee_evidence: CompositeEvidence<'a>,
}

/// Challenge and key.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct RuntimeData {
    /// The challenge, as text.
    pub(crate) nonce: String,
    /// The key that answers are encrypted to.
    pub(crate) tee_pubkey: TeeJwk,
}

/// Evidence of the guest and of its devices.
#[derive(Debug, Deserialize)]
pub(crate) struct CompositeEvidence<'a> {
    /// Of the guest, as it was sent.
    #[serde(borrow)]
    pub(crate) primary_evidence: &'a RawValue,
    /// Of devices: empty, or JSON of a map from the name of a TEE to its evidence.
    pub(crate) additional_evidence: String,
}

impl Tee {
    /// The name in messages and claims.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sample => "sample",
            Self::Snp => "snp",
            Self::Tdx => "tdx",
        }
    }

    /// The guest of a request.
    pub(crate) fn of_request(body: &[u8]) -> Result<Self, RequestError> {
        let request: RequestJson<'_> =
            serde_json::from_slice(body).map_err(|error| RequestError::Form(error.to_string()))?;
        // GUARD: broker-version -> versions_and_tees_of_requests
        if request.version != VERSION {
            return Err(RequestError::Version(request.version));
        }
        match request.tee.as_str() {
            "sample" => Ok(Self::Sample),
            "snp" => Ok(Self::Snp),
            "tdx" => Ok(Self::Tdx),
            known if NAMES.contains(&known) => Err(RequestError::Tee(known.to_owned())),
            other => Err(RequestError::Form(format!("unknown tee {other}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_tees_of_requests() {
        let request = |version: &str, tee: &str| {
            let body = format!(r#"{{"version":{version},"tee":{tee},"extra-params":{{"a":[1]}}}}"#);
            Tee::of_request(body.as_bytes()).map_err(|error| error.to_string())
        };
        for (name, tee) in [("sample", Tee::Sample), ("snp", Tee::Snp), ("tdx", Tee::Tdx)] {
            assert_eq!(request(r#""0.4.0""#, &format!("\"{name}\"")), Ok(tee));
            assert_eq!(tee.name(), name);
        }
        for version in ["0.3.0", "0.4.1", "^0.4", "0.4.0 ", ""] {
            let found = request(&format!("\"{version}\""), "\"tdx\"");
            assert_eq!(found, Err(format!("expected version 0.4.0, found {version}")));
        }
        for tee in ["\"sev\"", "\"azsnpvtpm\"", "\"TDX\"", "\"\"", "null", "1"] {
            assert!(request(r#""0.4.0""#, tee).unwrap_err().starts_with("deserialize Request"), "{tee}");
        }
        assert!(request(r#""0.4.0""#, "\"tpm\"").unwrap_err().starts_with("tee tpm"));
        assert!(Tee::of_request(br#"{"version":"0.4.0","tee":"tdx"}"#).is_err());
        assert!(
            Tee::of_request(br#"{"version":"0.4.0","tee":"tdx","tee":"snp","extra-params":""}"#).is_err()
        );
    }
}
