//! The file of emulated trust roots (`docs/spec/attestation-v1.md`, section 3).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::abi::snp::Generation;
use crate::bytes::limit;
use crate::error::{EvidenceError, Found};
use crate::verify::certificate::Parsed;
use crate::verify::roots::{Roots, SnpRoot, SnpRoots, TdxRoot};
use crate::verify::snp::MAXIMUM_CERTIFICATE_BYTES;

/// Longest file.
pub const MAXIMUM_BUNDLE_BYTES: usize = 256 * 1024;
const TYPE: &str = "innerkeep emulated trust roots v1";
const WHAT: &str = "emulated trust roots";

/// Emulated trust roots, as a file names them. Nothing believes them before [`danger_roots`](Self::danger_roots).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustBundle {
    /// Roots for SEV-SNP, at most one for each generation.
    pub snp: Vec<SnpRoot>,
    /// Root for TDX, DER.
    pub tdx: Option<Vec<u8>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BundleJson {
    #[serde(rename = "@type")]
    object_type: String,
    snp: Vec<SnpJson>,
    tdx: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SnpJson {
    ark: String,
    ask: String,
    generation: String,
}

impl TrustBundle {
    /// Parses the file.
    ///
    /// # Errors
    /// `EVIDENCE_MALFORMED` for another form, two roots for a generation, or no root at all;
    /// `EVIDENCE_CERTIFICATE_INVALID`, `EVIDENCE_TOO_LARGE`.
    pub fn parse(json: &[u8]) -> Result<Self, EvidenceError> {
        limit(WHAT, MAXIMUM_BUNDLE_BYTES, json.len())?;
        let json: BundleJson =
            serde_json::from_slice(json).map_err(|error| malformed("the members of their format", error))?;
        // GUARD: trust-bundle-type -> evil_trust_bundles_of_another_form_are_refused
        if json.object_type != TYPE {
            return Err(malformed("the type innerkeep emulated trust roots v1", json.object_type));
        }
        let mut snp: Vec<SnpRoot> = Vec::new();
        for root in json.snp {
            let root = SnpRoot {
                generation: generation(&root.generation)?,
                ark: certificate("emulated ARK", &root.ark)?,
                ask: certificate("emulated ASK", &root.ask)?,
            };
            // GUARD: trust-bundle-one-root -> evil_trust_bundles_of_another_form_are_refused
            if snp.iter().any(|known| known.generation == root.generation) {
                return Err(malformed("one root for each generation", root.generation));
            }
            snp.push(root);
        }
        let tdx = json.tdx.map(|root| certificate("emulated TDX root", &root)).transpose()?;
        // GUARD: trust-bundle-some-root -> evil_trust_bundles_of_another_form_are_refused
        if snp.is_empty() && tdx.is_none() {
            return Err(malformed("at least one root", "none"));
        }
        Ok(Self { snp, tdx })
    }

    /// The file: compact, members ascending.
    #[must_use]
    pub fn encode(&self) -> String {
        let snp = self.snp.iter().map(|root| SnpJson {
            ark: STANDARD.encode(&root.ark),
            ask: STANDARD.encode(&root.ask),
            generation: root.generation.name().to_ascii_lowercase(),
        });
        let json = BundleJson {
            object_type: TYPE.to_owned(),
            snp: snp.collect(),
            tdx: self.tdx.as_ref().map(|root| STANDARD.encode(root)),
        };
        // Strings always have a JSON form.
        serde_json::to_string(&json).unwrap_or_default()
    }

    /// These roots, to be believed instead of those of Intel and AMD: evidence proves nothing about hardware then.
    #[must_use]
    pub fn danger_roots(&self) -> Roots {
        Roots {
            snp: SnpRoots::danger_emulator(self.snp.clone()),
            tdx: self.tdx.clone().map(TdxRoot::danger_emulator),
        }
    }
}

fn generation(name: &str) -> Result<Generation, EvidenceError> {
    match name {
        "milan" => Ok(Generation::Milan),
        "genoa" => Ok(Generation::Genoa),
        "turin" => Ok(Generation::Turin),
        other => Err(malformed("milan, genoa or turin", Found::text(other))),
    }
}

fn certificate(which: &'static str, base64: &str) -> Result<Vec<u8>, EvidenceError> {
    let der = STANDARD.decode(base64).map_err(|error| malformed("standard base64", error))?;
    limit(which, MAXIMUM_CERTIFICATE_BYTES, der.len())?;
    Parsed::parse(which, &der).map(|parsed| parsed.der)
}

fn malformed(expected: &'static str, found: impl std::fmt::Display) -> EvidenceError {
    EvidenceError::Malformed { what: WHAT, expected, found: Found::value(found) }
}

#[cfg(test)]
mod tests;
