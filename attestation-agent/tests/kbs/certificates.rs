//! Certificates for TLS inside tests.

use std::time::Duration;

use p256::SecretKey;
use p256::ecdsa::{DerSignature, SigningKey};
use p256::pkcs8::EncodePrivateKey as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest as _, Sha256};
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{Builder as _, CertificateBuilder};
use x509_cert::certificate::TbsCertificate;
use x509_cert::der::asn1::{Ia5String, OctetString, UtcTime};
use x509_cert::der::pem::LineEnding;
use x509_cert::der::{Encode as _, EncodePem as _};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, SubjectAltName};
use x509_cert::ext::{Extension, ToExtension as _};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{SubjectPublicKeyInfo, SubjectPublicKeyInfoRef};
use x509_cert::time::{Time, Validity};
use zeroize::Zeroizing;

/// A CA and a certificate of it for 127.0.0.1 or a name.
pub struct Tls {
    pub ca_pem: String,
    pub certificate_pem: String,
    pub key_pem: Zeroizing<String>,
    pub spki_sha256: [u8; 32],
    pub server: rustls::ServerConfig,
}

struct Profile {
    subject: Name,
    issuer: Name,
    extensions: Vec<Extension>,
}

impl BuilderProfile for Profile {
    fn get_issuer(&self, _: &Name) -> Name {
        self.issuer.clone()
    }

    fn get_subject(&self) -> Name {
        self.subject.clone()
    }

    fn build_extensions(
        &self,
        _: SubjectPublicKeyInfoRef<'_>,
        _: SubjectPublicKeyInfoRef<'_>,
        _: &TbsCertificate,
    ) -> x509_cert::builder::Result<Vec<Extension>> {
        Ok(self.extensions.clone())
    }
}

/// Certificates whose keys follow from `seed`.
pub fn make(seed: &str, host: Option<&str>) -> Tls {
    let key = |label: &str| {
        let scalar = Sha256::digest(format!("{seed}/{label}"));
        SecretKey::from_slice(&scalar).unwrap()
    };
    let (ca_key, leaf_key) = (key("ca"), key("leaf"));
    let ca = certificate("CN=ca", "CN=ca", true, None, &ca_key, &ca_key);
    let name = match host {
        None => GeneralName::IpAddress(OctetString::new([127, 0, 0, 1]).unwrap()),
        Some(name) => GeneralName::DnsName(Ia5String::new(name).unwrap()),
    };
    let leaf = certificate("CN=leaf", "CN=ca", false, Some(name), &leaf_key, &ca_key);
    let spki = leaf.tbs_certificate().subject_public_key_info().to_der().unwrap();
    let private =
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf_key.to_pkcs8_der().unwrap().as_bytes().to_vec()));
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(leaf.to_der().unwrap())], private)
        .unwrap();
    let ca_pem = ca.to_pem(LineEnding::LF).unwrap();
    let certificate_pem = leaf.to_pem(LineEnding::LF).unwrap();
    let key_pem = leaf_key.to_pkcs8_pem(LineEnding::LF).unwrap();
    Tls { ca_pem, certificate_pem, key_pem, spki_sha256: Sha256::digest(spki).into(), server }
}

fn certificate(
    subject: &str,
    issuer: &str,
    is_authority: bool,
    name: Option<GeneralName>,
    key: &SecretKey,
    issuer_key: &SecretKey,
) -> x509_cert::Certificate {
    let subject: Name = subject.parse().unwrap();
    let constraints = BasicConstraints { ca: is_authority, path_len_constraint: None };
    let mut extensions = vec![constraints.to_extension(&subject, &[]).unwrap()];
    if let Some(name) = name {
        extensions.push(SubjectAltName(vec![name]).to_extension(&subject, &extensions).unwrap());
    }
    let profile = Profile { subject, issuer: issuer.parse().unwrap(), extensions };
    let epoch = UtcTime::from_unix_duration(Duration::ZERO).unwrap();
    let validity = Validity::new(Time::UtcTime(epoch), Time::INFINITY);
    let public = SubjectPublicKeyInfo::from_key(SigningKey::from(key).verifying_key()).unwrap();
    let builder =
        CertificateBuilder::new(profile, SerialNumber::new(&[1]).unwrap(), validity, public).unwrap();
    builder.build::<_, DerSignature>(&SigningKey::from(issuer_key)).unwrap()
}
