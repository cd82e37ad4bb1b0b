//! One certificate: strict parsing for its role, and who issued it.

use aws_lc_rs::signature::{ECDSA_P384_SHA384_ASN1, UnparsedPublicKey};
use x509_cert::certificate::Version;
use x509_cert::der::asn1::{ObjectIdentifier, Utf8StringRef};
use x509_cert::der::oid::AssociatedOid;
use x509_cert::der::pem::LineEnding;
use x509_cert::der::{Decode, Encode, pem};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages};
use x509_cert::name::Name;

use super::encode::{OID_COMMON_NAME, OID_ECDSA_SHA384, SPKI_PREFIX};
use super::extension::{ChipExtension, OID_CHIP};
use crate::abi::identity_const::{MAX_CERTIFICATE, NOT_AFTER_UNIX, NOT_BEFORE_UNIX};
use crate::error::ChainError;

const PEM_LABEL: &str = "CERTIFICATE";
// PEM of the largest certificate, with line ends and labels.
const MAX_PEM: usize = 2 * MAX_CERTIFICATE;
const POINT_LEN: usize = 97;

/// What a certificate is for; decides what it must say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Root,
    Model,
    Chip,
}

impl Role {
    const fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Model => "model",
            Self::Chip => "chip",
        }
    }
}

/// A certificate that says what its role demands. Its signature is not verified yet.
#[derive(Clone)]
pub(super) struct Certificate {
    pub(super) der: Vec<u8>,
    pub(super) spki: Vec<u8>,
    pub(super) common_name: Option<String>,
    role: Role,
    tbs: Vec<u8>,
    signature: Vec<u8>,
    issuer: Name,
    subject: Name,
    extension: Option<Vec<u8>>,
}

impl Certificate {
    pub(super) fn parse(der: &[u8], role: Role) -> Result<Self, ChainError> {
        let which = role.name();
        let bad = |what| ChainError::Malformed { which, what };
        let untrusted = |expected| ChainError::Untrusted { which, expected };
        if der.len() > MAX_CERTIFICATE {
            return Err(bad("larger than 8192 bytes"));
        }
        let parsed = x509_cert::Certificate::from_der(der).map_err(|_| bad("not a DER certificate"))?;
        // What is verified below is the re-encoding: it must be what was presented.
        if parsed.to_der().ok().as_deref() != Some(der) {
            return Err(bad("not in DER form"));
        }
        let tbs = parsed.tbs_certificate();
        let algorithms = [parsed.signature_algorithm(), tbs.signature()];
        if algorithms.iter().any(|a| a.oid != OID_ECDSA_SHA384 || a.parameters.is_some()) {
            return Err(untrusted("signature algorithm ecdsa-with-SHA384"));
        }
        if tbs.version() != Version::V3 {
            return Err(untrusted("X.509 version 3"));
        }
        let validity = tbs.validity();
        let dates = [validity.not_before.to_unix_duration(), validity.not_after.to_unix_duration()];
        if dates.map(|d| d.as_secs()) != [NOT_BEFORE_UNIX, NOT_AFTER_UNIX] {
            return Err(untrusted("validity 19700101000000Z to 99991231235959Z"));
        }
        let spki = tbs.subject_public_key_info().to_der().map_err(|_| bad("public key"))?;
        // GUARD: chain-curve -> evil_certificate_of_another_curve
        if !spki.starts_with(&SPKI_PREFIX) || spki.len() != SPKI_PREFIX.len() + POINT_LEN {
            return Err(untrusted("a P-384 public key"));
        }
        let extension = Extensions::read(&parsed, role)?.verify(role)?;
        let signature = parsed.signature().as_bytes().ok_or_else(|| bad("signature"))?.to_vec();
        Ok(Self {
            der: der.to_vec(),
            spki,
            common_name: common_name(tbs.subject()),
            role,
            tbs: tbs.to_der().map_err(|_| bad("not in DER form"))?,
            signature,
            issuer: tbs.issuer().clone(),
            subject: tbs.subject().clone(),
            extension,
        })
    }

    /// The key signed this certificate, and names agree.
    pub(super) fn verify_issued_by(&self, issuer: &Self) -> Result<(), ChainError> {
        let which = self.role.name();
        // GUARD: chain-names -> evil_certificate_of_another_issuer_name
        if self.issuer != issuer.subject {
            return Err(ChainError::Untrusted { which, expected: "the name of its issuer" });
        }
        let key = UnparsedPublicKey::new(&ECDSA_P384_SHA384_ASN1, issuer.point());
        let verdict = key.verify(&self.tbs, &self.signature);
        // GUARD: chain-signature -> evil_wrong_root, evil_forged_certificate
        verdict.map_err(|_| ChainError::Untrusted { which, expected: "a signature of its issuer" })?;
        Ok(())
    }

    /// The uncompressed point of the key.
    pub(super) fn point(&self) -> &[u8] {
        self.spki.get(SPKI_PREFIX.len()..).unwrap_or_default()
    }

    pub(super) fn chip_extension(&self) -> Result<ChipExtension, ChainError> {
        let missing = ChainError::Untrusted { which: self.role.name(), expected: "the chip extension" };
        ChipExtension::parse(self.extension.as_deref().ok_or(missing)?)
    }
}

/// The extensions that count, each at most once.
#[derive(Default)]
struct Extensions {
    constraints: Option<BasicConstraints>,
    usage: Option<KeyUsage>,
    chip: Option<Vec<u8>>,
}

impl Extensions {
    fn read(certificate: &x509_cert::Certificate, role: Role) -> Result<Self, ChainError> {
        let which = role.name();
        let bad = |what| ChainError::Malformed { which, what };
        let mut found = Self::default();
        let mut seen: Vec<ObjectIdentifier> = Vec::new();
        for extension in certificate.tbs_certificate().extensions().into_iter().flatten() {
            let value = extension.extn_value.as_bytes();
            if seen.contains(&extension.extn_id) {
                return Err(bad("an extension occurs twice"));
            }
            seen.push(extension.extn_id);
            match extension.extn_id {
                BasicConstraints::OID => {
                    let parsed = BasicConstraints::from_der(value);
                    found.constraints = Some(parsed.map_err(|_| bad("basicConstraints"))?);
                }
                KeyUsage::OID => {
                    found.usage = Some(KeyUsage::from_der(value).map_err(|_| bad("keyUsage"))?);
                }
                OID_CHIP => found.chip = Some(value.to_vec()),
                _ if extension.critical => {
                    let expected = "no unknown critical extension";
                    return Err(ChainError::Untrusted { which, expected });
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// What the role demands; returns the chip extension.
    fn verify(self, role: Role) -> Result<Option<Vec<u8>>, ChainError> {
        let which = role.name();
        let untrusted = |expected| ChainError::Untrusted { which, expected };
        let is_ca = self.constraints.as_ref().is_some_and(|c| c.ca);
        let path_length = self.constraints.as_ref().and_then(|c| c.path_len_constraint);
        let uses = |usage| self.usage.as_ref().is_some_and(|u| u.0.contains(usage));
        match role {
            Role::Root => {
                if !is_ca || path_length == Some(0) || !uses(KeyUsages::KeyCertSign) {
                    return Err(untrusted("a CA above another CA, for keyCertSign"));
                }
            }
            Role::Model => {
                // GUARD: chain-model-constraints -> evil_chip_certificate_as_model_ca
                if !is_ca || path_length != Some(0) || !uses(KeyUsages::KeyCertSign) {
                    return Err(untrusted("a CA with pathLen 0, for keyCertSign"));
                }
            }
            Role::Chip => {
                // GUARD: chain-chip-constraints -> evil_ca_certificate_as_chip
                if is_ca || !uses(KeyUsages::DigitalSignature) || uses(KeyUsages::KeyCertSign) {
                    return Err(untrusted("no CA, for digitalSignature"));
                }
            }
        }
        Ok(self.chip)
    }
}

/// The only common name of a name of one attribute.
fn common_name(name: &Name) -> Option<String> {
    let mut attributes = name.iter();
    let attribute = attributes.next().filter(|a| a.oid == OID_COMMON_NAME)?;
    if attributes.next().is_some() {
        return None;
    }
    let text: Utf8StringRef<'_> = attribute.value.decode_as().ok()?;
    Some(text.as_str().to_owned())
}

/// A certificate's DER, from PEM or DER.
///
/// # Errors
///
/// `CHIP_CERTIFICATE_MALFORMED`.
pub fn certificate_from_pem_or_der(bytes: &[u8], which: &'static str) -> Result<Vec<u8>, ChainError> {
    let bad = |what| ChainError::Malformed { which, what };
    if bytes.len() > MAX_PEM {
        return Err(bad("larger than 8192 bytes"));
    }
    if !bytes.starts_with(b"-----") {
        return Ok(bytes.to_vec());
    }
    let (label, der) = pem::decode_vec(bytes).map_err(|_| bad("not in PEM form"))?;
    if label == PEM_LABEL { Ok(der) } else { Err(bad("PEM of something else than a certificate")) }
}

/// A certificate as PEM.
pub fn certificate_to_pem(der: &[u8]) -> String {
    pem::encode_string(PEM_LABEL, LineEnding::LF, der).unwrap_or_default()
}
