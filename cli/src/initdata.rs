//! Initdata that this guest was launched with: believed only after its digest was found in the register.

use attestation_agent::{Attester, Bound};
use sha2::{Digest, Sha256, Sha384, Sha512};

use crate::error::Failure;

/// Refuses initdata whose digest, by the algorithm that it names itself, is not in the platform's register. A platform without a register
/// vouches for nothing, so it is refused there too.
pub(crate) fn require_bound(text: &str, attester: &Attester) -> Result<(), Failure> {
    match attester.bind_initdata(&digest(text)?)? {
        Bound::Matches => Ok(()),
        Bound::NotSupported => Err(Failure::Usage {
            argument: "--initdata",
            expected: "a platform with a register for initdata",
            found: attester.tee().name().to_owned(),
        }),
    }
}

/// The digest over the exact bytes, by the algorithm in the document.
pub(crate) fn digest(text: &str) -> Result<Vec<u8>, Failure> {
    let refused = |found: String| Failure::Usage {
        argument: "--initdata",
        expected: "initdata in TOML with algorithm sha256, sha384 or sha512",
        found,
    };
    let document: toml::Table =
        text.parse().map_err(|error: toml::de::Error| refused(error.message().to_owned()))?;
    match document.get("algorithm").and_then(toml::Value::as_str) {
        Some("sha256") => Ok(Sha256::digest(text).to_vec()),
        Some("sha384") => Ok(Sha384::digest(text).to_vec()),
        Some("sha512") => Ok(Sha512::digest(text).to_vec()),
        other => Err(refused(format!("algorithm {other:?}"))),
    }
}
