//! The key that signs tokens, with a certificate of a CA of its own.

use p256::SecretKey;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{DerSignature, Signature, SigningKey};
use std::time::Duration;

use aws_lc_rs::rand::fill;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{Builder as _, CertificateBuilder};
use x509_cert::certificate::TbsCertificate;
use x509_cert::der::asn1::UtcTime;
use x509_cert::der::pem::LineEnding;
use x509_cert::der::{Encode as _, EncodePem as _};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages};
use x509_cert::ext::{Extension, ToExtension as _};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{SubjectPublicKeyInfo, SubjectPublicKeyInfoRef};
use x509_cert::time::{Time, Validity};
use zeroize::Zeroizing;

use crate::store::{Store, StoreError};

const KEY_FILE: &str = "token.key";
const CHAIN_FILE: &str = "token-chain.json";
/// The CA's certificate, for whoever verifies tokens elsewhere.
pub(crate) const CA_FILE: &str = "token-ca.pem";
const CA_NAME: &str = "CN=Emulated key broker token CA (insecure)";
const LEAF_NAME: &str = "CN=Emulated key broker token signer (insecure)";

/// The signing key cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignerError {
    /// Certificates could not be made.
    #[error("certificates for tokens could not be made: {0}")]
    Certificate(String),
    /// A file of the state directory is not what this program writes.
    #[error("{0}: not what this program writes")]
    Form(&'static str),
    /// The system gives no random bytes.
    #[error("no randomness for a key")]
    Randomness,
    /// The state directory failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A public key in the header of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SignerJwk {
    /// `EC`.
    pub(crate) kty: String,
    /// `P-256`.
    pub(crate) crv: String,
    /// `ES256`.
    pub(crate) alg: String,
    /// Coordinate, base64url.
    pub(crate) x: String,
    /// Coordinate, base64url.
    pub(crate) y: String,
    /// Certificates, leaf first, standard base64 of DER.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) x5c: Vec<String>,
}

/// Signs tokens.
pub(crate) struct Signer {
    key: SigningKey,
    point: Vec<u8>,
    jwk: SignerJwk,
}

impl Signer {
    /// The signer of a state directory; made when there is none.
    pub(crate) fn open(store: &Store) -> Result<Self, SignerError> {
        let (Some(scalar), Some(chain)) = (store.read(KEY_FILE)?, store.read(CHAIN_FILE)?) else {
            return Self::create(store);
        };
        let secret = SecretKey::from_slice(&scalar).map_err(|_range| SignerError::Form(KEY_FILE))?;
        let chain = serde_json::from_slice(&chain).map_err(|_json| SignerError::Form(CHAIN_FILE))?;
        Ok(Self::new(secret, chain))
    }

    fn create(store: &Store) -> Result<Self, SignerError> {
        let (authority, secret) = (fresh()?, fresh()?);
        let failed = |error: Box<dyn std::error::Error>| SignerError::Certificate(error.to_string());
        let issuer = SigningKey::from(&authority);
        let ca = certificate(CA_NAME, true, &issuer, &issuer).map_err(failed)?;
        let leaf = certificate(LEAF_NAME, false, &SigningKey::from(&secret), &issuer).map_err(failed)?;
        let pem = ca.to_pem(LineEnding::LF).map_err(|error| failed(error.into()))?;
        let mut chain = Vec::new();
        for certificate in [leaf, ca] {
            chain.push(STANDARD.encode(certificate.to_der().map_err(|error| failed(error.into()))?));
        }
        store.write(CA_FILE, pem.as_bytes())?;
        store.write(CHAIN_FILE, &serde_json::to_vec(&chain).unwrap_or_default())?;
        // Last: with it the signer is complete. The CA's key is not kept.
        store.write(KEY_FILE, Zeroizing::new(secret.to_bytes()).as_slice())?;
        Ok(Self::new(secret, chain))
    }

    fn new(secret: SecretKey, x5c: Vec<String>) -> Self {
        let key = SigningKey::from(secret);
        let point = key.verifying_key().to_sec1_point(false).as_bytes().to_vec();
        let (x, y) = point.get(1..).unwrap_or_default().split_at_checked(32).unwrap_or_default();
        let jwk = SignerJwk {
            kty: "EC".to_owned(),
            crv: "P-256".to_owned(),
            alg: "ES256".to_owned(),
            x: URL_SAFE_NO_PAD.encode(x),
            y: URL_SAFE_NO_PAD.encode(y),
            x5c,
        };
        Self { key, point, jwk }
    }

    /// The public key with its certificates.
    pub(crate) const fn jwk(&self) -> &SignerJwk {
        &self.jwk
    }

    /// ES256 signature: r and s.
    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature: Signature = self.key.sign(message);
        signature.to_bytes().to_vec()
    }

    /// Whether this key made the signature.
    pub(crate) fn is_signature(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.point).verify(message, signature).is_ok()
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer")
    }
}

fn fresh() -> Result<SecretKey, SignerError> {
    let mut scalar = Zeroizing::new([0; 32]);
    fill(scalar.as_mut_slice()).map_err(|_unspecified| SignerError::Randomness)?;
    // A random string is zero or at or above the order with probability 2^-32.
    SecretKey::from_slice(scalar.as_slice()).map_err(|_range| SignerError::Randomness)
}

struct Profile {
    subject: Name,
    issuer: Name,
    extensions: Vec<Extension>,
}

impl BuilderProfile for Profile {
    fn get_issuer(&self, _subject: &Name) -> Name {
        self.issuer.clone()
    }

    fn get_subject(&self) -> Name {
        self.subject.clone()
    }

    fn build_extensions(
        &self,
        _subject_key: SubjectPublicKeyInfoRef<'_>,
        _issuer_key: SubjectPublicKeyInfoRef<'_>,
        _body: &TbsCertificate,
    ) -> x509_cert::builder::Result<Vec<Extension>> {
        Ok(self.extensions.clone())
    }
}

fn certificate(
    name: &str,
    is_authority: bool,
    key: &SigningKey,
    issuer: &SigningKey,
) -> Result<x509_cert::Certificate, Box<dyn std::error::Error>> {
    let subject: Name = name.parse()?;
    let mut extensions = Vec::new();
    let usage = if is_authority { KeyUsages::KeyCertSign } else { KeyUsages::DigitalSignature };
    let constraints = BasicConstraints { ca: is_authority, path_len_constraint: is_authority.then_some(0) };
    extensions.push(constraints.to_extension(&subject, &extensions)?);
    extensions.push(KeyUsage(usage.into()).to_extension(&subject, &extensions)?);
    let profile = Profile { subject, issuer: CA_NAME.parse()?, extensions };
    let epoch = UtcTime::from_unix_duration(Duration::ZERO)?;
    let validity = Validity::new(Time::UtcTime(epoch), Time::INFINITY);
    let mut serial = [0; 16];
    fill(&mut serial).map_err(|_unspecified| "no randomness")?;
    serial[0] = serial[0] & 0x7f | 0x40;
    let public = SubjectPublicKeyInfo::from_key(key.verifying_key())?;
    let builder = CertificateBuilder::new(profile, SerialNumber::new(&serial)?, validity, public)?;
    Ok(builder.build::<_, DerSignature>(issuer)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_cert::der::Decode as _;

    #[test]
    fn a_signer_keeps_its_key_and_chain() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let first = Signer::open(&store).unwrap();
        let second = Signer::open(&store).unwrap();
        assert_eq!(first.jwk(), second.jwk());
        let signature = first.sign(b"message");
        assert!(second.is_signature(b"message", &signature));
        assert!(!second.is_signature(b"massage", &signature));
        let [leaf, ca] = [0, 1].map(|at| {
            let der = STANDARD.decode(&first.jwk().x5c[at]).unwrap();
            x509_cert::Certificate::from_der(&der).unwrap()
        });
        let spki = leaf.tbs_certificate().subject_public_key_info().subject_public_key.raw_bytes().to_vec();
        assert_eq!(spki, first.point);
        let ca_key = ca.tbs_certificate().subject_public_key_info().subject_public_key.raw_bytes().to_vec();
        let body = leaf.tbs_certificate().to_der().unwrap();
        let key = UnparsedPublicKey::new(&aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1, ca_key);
        key.verify(&body, leaf.signature().raw_bytes()).unwrap();
        let pem = store.read(CA_FILE).unwrap().unwrap();
        assert!(pem.starts_with(b"-----BEGIN CERTIFICATE-----"));
    }
}
