//! A maker's certificates: for the chip that lies about its maker (a fault), and for tests. No real maker's key is here.

use p384::SecretKey;
use p384::ecdsa::{DerSignature, SigningKey};
use rustix::rand::{GetRandomFlags, getrandom};
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{Builder, CertificateBuilder};
use x509_cert::certificate::TbsCertificate;
use x509_cert::der::asn1::OctetString;
use x509_cert::der::{self, Encode};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages};
use x509_cert::ext::{Extension, ToExtension};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{SubjectPublicKeyInfo, SubjectPublicKeyInfoRef};
use x509_cert::time::{Time, Validity};
use zeroize::Zeroizing;

use super::Keys;
use super::certificates::{CHIP_EXTENSION, ChipExtension};

/// Certificates could not be made.
#[derive(Debug, thiserror::Error)]
#[error("certificates could not be issued")]
pub(crate) struct IssueFailed;

/// A maker with a root and a model CA.
pub(crate) struct Maker {
    model_key: SigningKey,
    #[cfg_attr(not(test), expect(dead_code, reason = "tests provision chips with it"))]
    root: Vec<u8>,
    model: Vec<u8>,
    model_name: String,
}

impl std::fmt::Debug for Maker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Maker").field("model", &self.model_name).finish_non_exhaustive()
    }
}

impl Maker {
    pub(crate) fn new(name: &str) -> Result<Self, IssueFailed> {
        let (root_key, model_key) = (fresh_key()?, fresh_key()?);
        let root_name = format!("CN={name} root");
        let model_name = format!("CN={name} model");
        let root = certificate(
            &Subject { name: &root_name, issuer: &root_name, role: Role::Authority(None) },
            &root_key,
            &root_key,
        )?;
        let model = certificate(
            &Subject { name: &model_name, issuer: &root_name, role: Role::Authority(Some(0)) },
            &model_key,
            &root_key,
        )?;
        Ok(Self { model_key, root, model, model_name })
    }

    #[cfg(test)]
    pub(crate) fn root(&self) -> &[u8] {
        &self.root
    }

    pub(crate) fn model(&self) -> &[u8] {
        &self.model
    }

    /// The leaf of a chip.
    pub(crate) fn certify(&self, keys: &Keys, environment: &str) -> Result<Vec<u8>, IssueFailed> {
        let extension = ChipExtension::of(keys, environment, "innerkeep-emulated-chip");
        let extension = serde_json::to_vec(&extension).map_err(|_json| IssueFailed)?;
        let name = format!("CN={}", hex::encode(keys.id()));
        let subject = Subject { name: &name, issuer: &self.model_name, role: Role::Chip(extension) };
        certificate(&subject, keys.signing_key(), &self.model_key)
    }
}

fn fresh_key() -> Result<SigningKey, IssueFailed> {
    let mut bytes = Zeroizing::new([0; 48]);
    let filled = getrandom(bytes.as_mut_slice(), GetRandomFlags::empty()).map_err(|_errno| IssueFailed)?;
    if filled != 48 {
        return Err(IssueFailed);
    }
    // A random string is at or above the order with probability 2^-190.
    let secret = SecretKey::from_slice(bytes.as_slice()).map_err(|_range| IssueFailed)?;
    Ok(SigningKey::from(secret))
}

enum Role {
    Authority(Option<u8>),
    Chip(Vec<u8>),
}

struct Subject<'a> {
    name: &'a str,
    issuer: &'a str,
    role: Role,
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

fn certificate(subject: &Subject<'_>, key: &SigningKey, issuer: &SigningKey) -> Result<Vec<u8>, IssueFailed> {
    build(subject, key, issuer).map_err(|_der| IssueFailed)
}

fn build(
    subject: &Subject<'_>,
    key: &SigningKey,
    issuer: &SigningKey,
) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let name: Name = subject.name.parse()?;
    let mut extensions = Vec::new();
    match &subject.role {
        Role::Authority(depth) => {
            let constraints = BasicConstraints { ca: true, path_len_constraint: *depth };
            extensions.push(constraints.to_extension(&name, &extensions)?);
            extensions.push(KeyUsage(KeyUsages::KeyCertSign.into()).to_extension(&name, &extensions)?);
        }
        Role::Chip(extension) => {
            extensions.push(KeyUsage(KeyUsages::DigitalSignature.into()).to_extension(&name, &extensions)?);
            extensions.push(Extension {
                extn_id: CHIP_EXTENSION,
                critical: false,
                extn_value: OctetString::new(extension.as_slice())?,
            });
        }
    }
    let profile = Profile { subject: name, issuer: subject.issuer.parse()?, extensions };
    let epoch = der::asn1::UtcTime::from_unix_duration(std::time::Duration::ZERO)?;
    let validity = Validity::new(Time::UtcTime(epoch), Time::INFINITY);
    let mut serial = [0; 16];
    getrandom(&mut serial, GetRandomFlags::empty())?;
    serial[0] = serial[0] & 0x7f | 0x40;
    let public = SubjectPublicKeyInfo::from_key(key.verifying_key())?;
    let builder = CertificateBuilder::new(profile, SerialNumber::new(&serial)?, validity, public)?;
    Ok(builder.build::<_, DerSignature>(issuer)?.to_der()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{LeafExpectation, verify_provisioning};
    use crate::puf::{Extractor, RESPONSE_BYTES, Response};

    fn keys(byte: u8) -> Keys {
        let root =
            Extractor::new().enrol(&Response::unpack(&[byte; RESPONSE_BYTES]), &[1, 2, 3, 4, 5, 6, 7]).1;
        Keys::derive(&root, 1).unwrap()
    }

    fn refusal(root: &[u8], model: &[u8], chip: &[u8], keys: &Keys, environment: &str) -> String {
        let expectation = LeafExpectation { keys, environment };
        verify_provisioning(root, model, chip, expectation).unwrap_err().to_string()
    }

    #[test]
    fn a_maker_certifies_a_chip() {
        let (maker, keys) = (Maker::new("acme").unwrap(), keys(1));
        let chip = maker.certify(&keys, "lab").unwrap();
        assert!(chip.len() < 8_192);
        let expectation = LeafExpectation { keys: &keys, environment: "lab" };
        verify_provisioning(maker.root(), maker.model(), &chip, expectation).unwrap();
    }

    #[test]
    fn evil_chain_of_another_maker_is_refused() {
        let (maker, evil, keys) = (Maker::new("acme").unwrap(), Maker::new("acme").unwrap(), keys(1));
        let chip = evil.certify(&keys, "lab").unwrap();
        let text = refusal(maker.root(), evil.model(), &chip, &keys, "lab");
        assert_eq!(text, "model CA certificate: the signature does not verify");
        let text = refusal(maker.root(), maker.model(), &chip, &keys, "lab");
        assert_eq!(text, "chip certificate: the signature does not verify");
    }

    #[test]
    fn evil_certificate_of_another_chip_is_refused() {
        let (maker, keys, other) = (Maker::new("acme").unwrap(), keys(1), keys(2));
        let chip = maker.certify(&other, "lab").unwrap();
        let text = refusal(maker.root(), maker.model(), &chip, &keys, "lab");
        assert_eq!(text, "chip certificate: it certifies another signing key");
    }

    #[test]
    fn evil_certificate_for_another_tier_or_in_another_role_is_refused() {
        let (maker, keys) = (Maker::new("acme").unwrap(), keys(1));
        let chip = maker.certify(&keys, "production").unwrap();
        assert!(refusal(maker.root(), maker.model(), &chip, &keys, "lab").contains("something else"));
        let chip = maker.certify(&keys, "lab").unwrap();
        assert!(refusal(&chip, maker.model(), &chip, &keys, "lab").contains("issuer"));
        assert!(refusal(maker.root(), maker.root(), &chip, &keys, "lab").contains("CA of this depth"));
        assert!(refusal(maker.root(), maker.model(), maker.model(), &keys, "lab").contains("issuer"));
        assert!(refusal(maker.root(), maker.model(), b"", &keys, "lab").contains("not a DER"));
        let mut long = chip.clone();
        long.push(0);
        assert!(refusal(maker.root(), maker.model(), &long, &keys, "lab").contains("not a DER"));
    }

    #[test]
    fn every_flipped_byte_of_the_leaf_is_refused() {
        let (maker, keys) = (Maker::new("acme").unwrap(), keys(1));
        let chip = maker.certify(&keys, "lab").unwrap();
        for at in (0..chip.len()).step_by(7) {
            let mut bad = chip.clone();
            bad[at] ^= 0x04;
            refusal(maker.root(), maker.model(), &bad, &keys, "lab");
        }
    }
}
