//! What the chip checks of the certificates that it is given (interface spec §6.3, §6.5).

use der::{Decode, Encode};
use p384::ecdsa::signature::Verifier;
use p384::ecdsa::{DerSignature, VerifyingKey};
use p384::pkcs8::DecodePublicKey;
use serde::{Deserialize, Serialize};
use x509_cert::certificate::Certificate;
use x509_cert::der::{self, asn1::ObjectIdentifier};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages};
use x509_cert::name::Name;

use chip_client::abi::identity_const::{
    CHIP_EXTENSION_OID, CHIP_EXTENSION_TYPE, NOT_AFTER_UNIX, NOT_BEFORE_UNIX, P384_PUBLIC_LEN,
    X_WING_PUBLIC_LEN,
};

use sealed_artifact::names::EnvironmentTag;

use super::Keys;

const ECDSA_WITH_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
pub(super) const CHIP_EXTENSION: ObjectIdentifier = ObjectIdentifier::new_unwrap(CHIP_EXTENSION_OID);

/// A certificate that the chip does not take; the text is for its log, the wire says BAD_FIELD.
#[derive(Debug, thiserror::Error)]
#[error("{which} certificate: {what}")]
pub(crate) struct CertificateRefused {
    which: &'static str,
    what: &'static str,
}

/// What the leaf must say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeafExpectation<'a> {
    pub(crate) keys: &'a Keys,
    pub(crate) environment: &'a str,
}

/// The JSON object in the leaf's extension. Members in canonical order, so that serde's output is the canonical form.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChipExtension {
    #[serde(rename = "@type")]
    pub(super) kind: String,
    pub(super) environment: String,
    pub(super) id: String,
    pub(super) key_epoch: u64,
    pub(super) model: String,
    pub(super) noise: String,
    pub(super) p384: String,
    pub(super) x_wing: String,
}

impl ChipExtension {
    pub(super) fn of(keys: &Keys, environment: &str, model: &str) -> Self {
        let p384: &[u8; P384_PUBLIC_LEN] = keys.grant_p384().1;
        let x_wing: &[u8; X_WING_PUBLIC_LEN] = keys.grant_x_wing().1;
        Self {
            kind: CHIP_EXTENSION_TYPE.to_owned(),
            environment: environment.to_owned(),
            id: hex::encode(keys.id()),
            key_epoch: keys.epoch(),
            model: model.to_owned(),
            noise: hex::encode(keys.noise_public()),
            p384: base64(p384),
            x_wing: base64(x_wing),
        }
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Root → model CA → chip, and the leaf says what the chip knows about itself.
pub(crate) fn verify_provisioning(
    root: &[u8],
    model: &[u8],
    chip: &[u8],
    expectation: LeafExpectation<'_>,
) -> Result<(), CertificateRefused> {
    let root = parse("root", root)?;
    let model = parse("model CA", model)?;
    let chip = parse("chip", chip)?;
    issued_by("root", &root, &root)?;
    authority("root", &root, None)?;
    issued_by("model CA", &model, &root)?;
    authority("model CA", &model, Some(0))?;
    issued_by("chip", &chip, &model)?;
    leaf(&chip, expectation)
}

fn parse(which: &'static str, der: &[u8]) -> Result<Certificate, CertificateRefused> {
    let refuse = |what| CertificateRefused { which, what };
    let certificate = Certificate::from_der(der).map_err(|_der| refuse("not a DER certificate"))?;
    // The signature is over the encoding of the parsed body, so the parsed form must be all that there is.
    if certificate.to_der().ok().as_deref() != Some(der) {
        return Err(refuse("not in canonical form"));
    }
    let body = certificate.tbs_certificate();
    if body.version() != x509_cert::Version::V3 {
        return Err(refuse("not version 3"));
    }
    if body.signature().oid != ECDSA_WITH_SHA384 || certificate.signature_algorithm() != body.signature() {
        return Err(refuse("not signed with ecdsa-with-SHA384"));
    }
    let validity = body.validity();
    let seconds = |time: x509_cert::time::Time| time.to_unix_duration().as_secs();
    if (seconds(validity.not_before), seconds(validity.not_after)) != (NOT_BEFORE_UNIX, NOT_AFTER_UNIX) {
        return Err(refuse("other validity dates than those of the specification"));
    }
    let known = [BASIC_CONSTRAINTS, KEY_USAGE, CHIP_EXTENSION];
    let extensions = body.extensions().map(Vec::as_slice).unwrap_or_default();
    if extensions.iter().any(|e| e.critical && !known.contains(&e.extn_id)) {
        return Err(refuse("an unknown critical extension"));
    }
    Ok(certificate)
}

fn issued_by(
    which: &'static str,
    certificate: &Certificate,
    issuer: &Certificate,
) -> Result<(), CertificateRefused> {
    let refuse = |what| CertificateRefused { which, what };
    let body = certificate.tbs_certificate();
    if body.issuer() != issuer.tbs_certificate().subject() || body.issuer() == &Name::default() {
        return Err(refuse("the issuer's name is another one"));
    }
    let key = public_key(issuer).ok_or(refuse("the issuer's key is not a P-384 key"))?;
    let signed = body.to_der().map_err(|_der| refuse("not a DER certificate"))?;
    let signature = certificate.signature().as_bytes().and_then(|bytes| DerSignature::from_bytes(bytes).ok());
    let signature = signature.ok_or(refuse("the signature is not an ECDSA signature"))?;
    // GUARD: provisioning-signature -> evil_chain_of_another_maker_is_refused
    if key.verify(&signed, &signature).is_err() {
        return Err(refuse("the signature does not verify"));
    }
    Ok(())
}

fn public_key(certificate: &Certificate) -> Option<VerifyingKey> {
    let der = certificate.tbs_certificate().subject_public_key_info().to_der().ok()?;
    VerifyingKey::from_public_key_der(&der).ok()
}

fn authority(
    which: &'static str,
    certificate: &Certificate,
    path_length: Option<u8>,
) -> Result<(), CertificateRefused> {
    let refuse = |what| CertificateRefused { which, what };
    let body = certificate.tbs_certificate();
    match body.get_extension::<BasicConstraints>() {
        Ok(Some((_, constraints)))
            if constraints.ca
                && (path_length.is_none() || constraints.path_len_constraint == path_length) => {}
        _ => return Err(refuse("basicConstraints do not make it a CA of this depth")),
    }
    match body.get_extension::<KeyUsage>() {
        Ok(Some((_, usage))) if usage.0.contains(KeyUsages::KeyCertSign) => Ok(()),
        _ => Err(refuse("keyUsage does not allow signing certificates")),
    }
}

fn leaf(certificate: &Certificate, expectation: LeafExpectation<'_>) -> Result<(), CertificateRefused> {
    let refuse = |what| CertificateRefused { which: "chip", what };
    let body = certificate.tbs_certificate();
    match body.get_extension::<BasicConstraints>() {
        Ok(None) => {}
        Ok(Some((_, constraints))) if !constraints.ca => {}
        _ => return Err(refuse("a chip is no CA")),
    }
    match body.get_extension::<KeyUsage>() {
        Ok(Some((_, usage))) if usage.0 == KeyUsages::DigitalSignature => {}
        _ => return Err(refuse("keyUsage is not digitalSignature")),
    }
    let keys = expectation.keys;
    let spki = body.subject_public_key_info().to_der().map_err(|_der| refuse("not a DER certificate"))?;
    // GUARD: provisioning-own-key -> evil_certificate_of_another_chip_is_refused
    if spki != keys.signing_spki() {
        return Err(refuse("it certifies another signing key"));
    }
    let name = body.subject().common_name().ok().flatten();
    if name.is_none_or(|name| name.value() != hex::encode(keys.id())) {
        return Err(refuse("its common name is not the chip id"));
    }
    let mut extensions = body.extensions().into_iter().flatten().filter(|e| e.extn_id == CHIP_EXTENSION);
    let (Some(extension), None) = (extensions.next(), extensions.next()) else {
        return Err(refuse("exactly one chip extension is needed"));
    };
    let bytes = extension.extn_value.as_bytes();
    let found: ChipExtension =
        serde_json::from_slice(bytes).map_err(|_json| refuse("the chip extension is malformed"))?;
    if serde_json::to_vec(&found).ok().as_deref() != Some(bytes) {
        return Err(refuse("the chip extension is not canonical"));
    }
    if EnvironmentTag::parse(&found.model).is_err() {
        return Err(refuse("the model's name has another form than an environment's"));
    }
    if found != ChipExtension::of(keys, expectation.environment, &found.model) {
        return Err(refuse("the chip extension says something else than the chip"));
    }
    Ok(())
}
