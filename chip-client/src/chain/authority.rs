//! Certificate authorities for provisioning: a root, model CAs below it, and the leaves that they issue.

use std::fmt;

use aws_lc_rs::rand::{SystemRandom, fill};
use aws_lc_rs::signature::{ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use x509_cert::der::pem::{self, LineEnding};
use zeroize::Zeroizing;

use super::certificate::{Certificate, Role};
use super::encode::{
    Contents, SPKI_PREFIX, USAGE_CERTIFY, USAGE_SIGN, ca_constraints, certificate, extension, key_usage,
    to_be_signed,
};
use super::extension::{ChipExtension, OID_CHIP, is_name, max_model};
use super::{ChipId, certificate_from_pem_or_der};
use crate::abi::IdentityRecord;
use crate::abi::identity_const::MAX_ENVIRONMENT;
use crate::error::ChainError;

const KEY_LABEL: &str = "PRIVATE KEY";
const MAX_KEY: usize = 4_096;

/// A P-384 private key of an authority, PKCS#8; wiped when dropped.
pub struct PrivateKey(Zeroizing<Vec<u8>>);

impl PrivateKey {
    /// Reads PKCS#8, PEM or DER.
    ///
    /// # Errors
    ///
    /// Not such a key.
    pub fn parse(bytes: &[u8]) -> Result<Self, ChainError> {
        if bytes.len() > MAX_KEY {
            return Err(unissuable("private key is larger than 4096 bytes"));
        }
        let key = if bytes.starts_with(b"-----") {
            let (label, der) = pem::decode_vec(bytes).map_err(|_| unissuable("private key: bad PEM"))?;
            let der = Zeroizing::new(der);
            if label != KEY_LABEL {
                return Err(unissuable("PEM of something else than a private key"));
            }
            Self(der)
        } else {
            Self(Zeroizing::new(bytes.to_vec()))
        };
        key.pair()?;
        Ok(key)
    }

    /// PKCS#8 as PEM.
    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(pem::encode_string(KEY_LABEL, LineEnding::LF, &self.0).unwrap_or_default())
    }

    #[cfg(test)]
    pub(super) fn pair_for_tests(&self) -> EcdsaKeyPair {
        self.pair().unwrap()
    }

    fn generate() -> Result<Self, ChainError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING)
            .map_err(|_| unissuable("no key could be generated"))?;
        let pkcs8 = pair.to_pkcs8v1().map_err(|_| unissuable("the key could not be encoded"))?;
        Ok(Self(Zeroizing::new(pkcs8.as_ref().to_vec())))
    }

    fn pair(&self) -> Result<EcdsaKeyPair, ChainError> {
        EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, &self.0)
            .map_err(|_| unissuable("private key is not a P-384 key in PKCS#8 form"))
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

/// A root or model CA: its certificate and its key.
#[derive(Debug)]
pub struct Authority {
    key: PrivateKey,
    pair: EcdsaKeyPair,
    subject: String,
    role: Role,
    certificate: Vec<u8>,
}

impl Authority {
    /// A new root with this common name.
    ///
    /// # Errors
    ///
    /// A name that is not one, or no randomness.
    pub fn create_root(name: &str) -> Result<Self, ChainError> {
        let (key, pair) = new_key()?;
        let extensions = vec![ca_constraints(None), key_usage(USAGE_CERTIFY)];
        let certificate = issue(&pair, name, name, &spki(&pair), extensions)?;
        Ok(Self { key, pair, subject: name.to_owned(), role: Role::Root, certificate })
    }

    /// A new model CA below this root.
    ///
    /// # Errors
    ///
    /// This is no root; a name that is not one; no randomness.
    pub fn create_model(&self, name: &str) -> Result<Self, ChainError> {
        if self.role != Role::Root {
            return Err(unissuable("only a root issues model certificates"));
        }
        let (key, pair) = new_key()?;
        let extensions = vec![ca_constraints(Some(0)), key_usage(USAGE_CERTIFY)];
        let certificate = issue(&self.pair, &self.subject, name, &spki(&pair), extensions)?;
        Ok(Self { key, pair, subject: name.to_owned(), role: Role::Model, certificate })
    }

    /// A root that was made before, from its key and certificate (PEM or DER).
    ///
    /// # Errors
    ///
    /// They do not belong together, or it is not a root.
    pub fn load_root(key: PrivateKey, certificate: &[u8]) -> Result<Self, ChainError> {
        Self::load(key, certificate, Role::Root)
    }

    /// A model CA that was made before.
    ///
    /// # Errors
    ///
    /// They do not belong together, or it is not a model CA.
    pub fn load_model(key: PrivateKey, certificate: &[u8]) -> Result<Self, ChainError> {
        Self::load(key, certificate, Role::Model)
    }

    fn load(key: PrivateKey, bytes: &[u8], role: Role) -> Result<Self, ChainError> {
        let der = certificate_from_pem_or_der(bytes, "authority")?;
        let parsed = Certificate::parse(&der, role)?;
        let pair = key.pair()?;
        if parsed.point() != pair.public_key().as_ref() {
            return Err(unissuable("certificate and private key do not belong together"));
        }
        let subject = parsed.common_name.ok_or_else(|| unissuable("certificate without a common name"))?;
        Ok(Self { key, pair, subject, role, certificate: der })
    }

    /// The certificate of a chip, from the record that it gives in a controlled place.
    ///
    /// # Errors
    ///
    /// This is no model CA; a record that contradicts itself; a name that is not one.
    pub fn issue_chip(
        &self,
        record: &IdentityRecord,
        environment: &str,
        key_epoch: u64,
        model: &str,
    ) -> Result<Vec<u8>, ChainError> {
        if self.role != Role::Model {
            return Err(unissuable("only a model CA issues chip certificates"));
        }
        if !record.signing_spki.starts_with(&SPKI_PREFIX) {
            return Err(unissuable("the chip's signing key is not a P-384 key"));
        }
        let id = ChipId::of_signing_key(&record.signing_spki);
        if record.id != *id.as_bytes() {
            return Err(unissuable("the chip's id is not the one of its signing key"));
        }
        if !is_name(environment, MAX_ENVIRONMENT) {
            return Err(unissuable("environment: expected 1 to 128 of [A-Za-z0-9._/-]"));
        }
        if !is_name(model, max_model()) {
            return Err(unissuable("model: expected 1 to 128 of [A-Za-z0-9._/-]"));
        }
        let claims = ChipExtension {
            environment: environment.to_owned(),
            id: record.id,
            key_epoch,
            model: model.to_owned(),
            noise: record.noise,
            p384: record.p384,
            x_wing: record.x_wing.clone(),
        };
        let extensions = vec![key_usage(USAGE_SIGN), extension(OID_CHIP, false, claims.encode().as_bytes())];
        issue(&self.pair, &self.subject, &id.to_string(), &record.signing_spki, extensions)
    }

    /// The certificate, DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// The key, for storing.
    pub fn private_key(&self) -> &PrivateKey {
        &self.key
    }
}

fn new_key() -> Result<(PrivateKey, EcdsaKeyPair), ChainError> {
    let key = PrivateKey::generate()?;
    let pair = key.pair()?;
    Ok((key, pair))
}

fn spki(pair: &EcdsaKeyPair) -> Vec<u8> {
    spki_of_point(pair.public_key().as_ref())
}

/// SubjectPublicKeyInfo of a P-384 point.
pub(crate) fn spki_of_point(point: &[u8]) -> Vec<u8> {
    [SPKI_PREFIX.as_slice(), point].concat()
}

pub(super) fn issue(
    issuer: &EcdsaKeyPair,
    issuer_name: &str,
    subject: &str,
    spki: &[u8],
    extensions: Vec<Vec<u8>>,
) -> Result<Vec<u8>, ChainError> {
    for name in [issuer_name, subject] {
        if name.is_empty() || name.len() > 128 || name.chars().any(char::is_control) {
            return Err(unissuable("common name: expected 1 to 128 bytes without control characters"));
        }
    }
    let mut serial = [0; 16];
    fill(&mut serial).map_err(|_| unissuable("no randomness"))?;
    let tbs = to_be_signed(&Contents { serial, issuer: issuer_name, subject, spki, extensions });
    let signature =
        issuer.sign(&SystemRandom::new(), &tbs).map_err(|_| unissuable("the signature failed"))?;
    Ok(certificate(&tbs, signature.as_ref()))
}

fn unissuable(what: &'static str) -> ChainError {
    ChainError::Unissuable { what }
}
