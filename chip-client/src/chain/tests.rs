//! Chains that lead somewhere else.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, KeyPair,
};

use super::authority::{issue, spki_of_point};
use super::certificate::Role;
use super::encode::{OID_BASIC_CONSTRAINTS, USAGE_CERTIFY, USAGE_SIGN, ca_constraints, extension, key_usage};
use super::extension::{ChipExtension, OID_CHIP};
use super::*;
use crate::testing::World;

fn pair() -> EcdsaKeyPair {
    EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).unwrap()
}

fn verify(world: &World, model: &[u8], chip: &[u8]) -> Result<ChipIdentity, ChainError> {
    let presented = CertificateList { model: model.to_vec(), chip: chip.to_vec() };
    ChipIdentity::verify(&world.root, &presented)
}

#[track_caller]
fn assert_untrusted<T>(result: Result<T, ChainError>, rule: &str) {
    match result {
        Err(e @ ChainError::Untrusted { .. }) => assert!(e.to_string().contains(rule), "{e}"),
        Err(e) => panic!("expected an untrusted certificate, found {e}"),
        Ok(_) => panic!("expected an untrusted certificate, found success"),
    }
}

#[test]
fn an_honest_chain() {
    let world = World::new();
    let chip = ChipIdentity::verify(&world.root, &world.certificates).unwrap();
    assert_eq!(chip.id(), world.id());
    assert_eq!((chip.environment(), chip.model(), chip.key_epoch()), ("production", "test", 1));
    assert!(chip.agrees_with(&world.record));
    assert_eq!(ChipId::parse(&chip.id().to_string()), Some(chip.id()));
    assert_eq!(ChipId::parse(&chip.id().to_string().to_uppercase()), None);
}

#[test]
fn authorities_are_stored_and_loaded() {
    let world = World::new();
    let pem = world.root_authority.private_key().to_pem();
    let key = PrivateKey::parse(pem.as_bytes()).unwrap();
    let certificate = certificate_to_pem(world.root_authority.certificate());
    let root = Authority::load_root(key, certificate.as_bytes()).unwrap();
    let model = root.create_model("another model ca").unwrap();
    let chip = model.issue_chip(&world.record, "lab", 2, "test").unwrap();
    assert_eq!(verify(&world, model.certificate(), &chip).unwrap().environment(), "lab");
    assert!(TrustRoot::from_trusted(certificate.as_bytes()).is_ok());

    let key = || PrivateKey::parse(pem.as_bytes()).unwrap();
    let other = world.model_authority.certificate();
    assert!(Authority::load_model(key(), other).is_err(), "a key of another certificate");
    assert!(Authority::load_model(key(), certificate.as_bytes()).is_err(), "a root is no model CA");
    assert!(root.issue_chip(&world.record, "lab", 1, "test").is_err(), "a root issues no chip");
    assert!(model.create_model("x").is_err(), "a model CA issues no CA");
    assert!(model.issue_chip(&world.record, "l b", 1, "test").is_err());
    let mut record = world.record.clone();
    record.id[0] ^= 1;
    assert!(model.issue_chip(&record, "lab", 1, "test").is_err());
    assert!(PrivateKey::parse(b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n").is_err());
}

/// Another root of the same name: names agree, only the key differs.
#[test]
fn evil_wrong_root() {
    let (world, other) = (World::new(), World::new());
    assert_untrusted(ChipIdentity::verify(&world.root, &other.certificates), "a signature of its issuer");
    assert_untrusted(
        verify(&world, &other.certificates.model, &world.certificates.chip),
        "a signature of its issuer",
    );
}

#[test]
fn evil_unpinned_root() {
    let (world, other) = (World::new(), World::new());
    let der = world.root.der();
    assert!(TrustRoot::from_pinned(der, &world.root.spki_sha256()).is_ok());
    let error = TrustRoot::from_pinned(der, &other.root.spki_sha256()).unwrap_err();
    assert!(matches!(error, ChainError::RootMismatch { .. }));
    assert_eq!(error.code(), "CHIP_CHAIN_UNTRUSTED");
}

#[test]
fn evil_chip_of_another_model_ca() {
    let world = World::new();
    let model = world.root_authority.create_model("test model ca").unwrap();
    let chip = model.issue_chip(&world.record, "production", 1, "test").unwrap();
    assert_untrusted(verify(&world, &world.certificates.model, &chip), "a signature of its issuer");
}

#[test]
fn evil_forged_certificate() {
    let world = World::new();
    let mut chip = world.certificates.chip.clone();
    let environment = chip.windows(10).position(|w| w == b"production").unwrap();
    chip[environment] = b'P';
    assert_untrusted(verify(&world, &world.certificates.model, &chip), "a signature of its issuer");
}

#[test]
fn evil_certificate_of_another_issuer_name() {
    let world = World::new();
    let key = world.model_authority.private_key().pair_for_tests();
    let chip = leaf(&world, &key, "somebody else", world.record.id, &world.record.signing_spki);
    assert_untrusted(verify(&world, &world.certificates.model, &chip), "the name of its issuer");
}

/// A chip certificate stands in for the model CA.
#[test]
fn evil_chip_certificate_as_model_ca() {
    let world = World::new();
    let root = world.root_authority.private_key().pair_for_tests();
    let fake = pair();
    let spki = spki_of_point(fake.public_key().as_ref());
    for extensions in [
        vec![key_usage(USAGE_SIGN)],
        vec![ca_constraints(None), key_usage(USAGE_CERTIFY)],
        vec![ca_constraints(Some(0)), key_usage(USAGE_SIGN)],
        vec![ca_constraints(Some(0))],
        // A path length, but no CA.
        vec![extension(OID_BASIC_CONSTRAINTS, true, &[0x30, 3, 2, 1, 0]), key_usage(USAGE_CERTIFY)],
    ] {
        let model = issue(&root, "test root", "model", &spki, extensions).unwrap();
        let chip = leaf(&world, &fake, "model", world.record.id, &world.record.signing_spki);
        assert_untrusted(verify(&world, &model, &chip), "a CA with pathLen 0");
    }
}

#[test]
fn evil_ca_certificate_as_chip() {
    let world = World::new();
    let spki = &world.record.signing_spki;
    let name = world.id().to_string();
    for more in [
        vec![ca_constraints(None), key_usage(USAGE_SIGN)],
        vec![key_usage(USAGE_CERTIFY)],
        vec![key_usage([2, USAGE_SIGN[1] | USAGE_CERTIFY[1]])],
        vec![],
    ] {
        let extensions = [more, vec![claims(&world, world.record.id)]].concat();
        let key = world.model_authority.private_key().pair_for_tests();
        let chip = issue(&key, "test model ca", &name, spki, extensions).unwrap();
        assert_untrusted(verify(&world, &world.certificates.model, &chip), "no CA, for digitalSignature");
    }
}

#[test]
fn evil_certificate_claims_another_id() {
    let world = World::new();
    let key = world.model_authority.private_key().pair_for_tests();
    let (spki, own) = (&world.record.signing_spki, world.record.id);
    // In its extension, in its name, in both.
    for (claimed, named) in [([7; 32], own), (own, [7; 32]), ([7; 32], [7; 32])] {
        let extensions = vec![key_usage(USAGE_SIGN), claims(&world, claimed)];
        let chip = issue(&key, "test model ca", &ChipId::new(named).to_string(), spki, extensions).unwrap();
        assert_untrusted(verify(&world, &world.certificates.model, &chip), "the id of its own signing key");
    }
}

#[test]
fn evil_certificate_of_another_curve() {
    let p256 = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let prefix = hex::decode("3059301306072a8648ce3d020106082a8648ce3d030107034200").unwrap();
    let spki = [prefix.as_slice(), p256.public_key().as_ref()].concat();
    let world = World::new();
    let key = world.model_authority.private_key().pair_for_tests();
    // The very point, said to be of P-521.
    let mut renamed = world.record.signing_spki.clone();
    let oid = renamed.windows(5).position(|window| window == [0x2b, 0x81, 0x04, 0x00, 0x22]).unwrap();
    renamed[oid + 4] = 0x23;
    for spki in [spki, renamed] {
        let chip = leaf(&world, &key, "test model ca", world.record.id, &spki);
        assert_untrusted(verify(&world, &world.certificates.model, &chip), "a P-384 public key");
    }
}

#[test]
fn evil_chip_extension_with_another_reading() {
    let world = World::new();
    let honest = String::from_utf8(claims_text(&world, world.record.id).into_bytes()).unwrap();
    for other in [
        honest.replacen('{', "{ ", 1),
        honest.replacen("\"id\"", "\"extra\":1,\"id\"", 1),
        honest.replacen("\"key_epoch\":1", "\"key_epoch\":2,\"key_epoch\":1", 1),
        honest.replacen("\"key_epoch\":1", "\"key_epoch\":\"1\"", 1),
        honest.replacen("v1", "v2", 1),
        honest.replacen("\"production\"", "\"prod\\u0075ction\"", 1),
    ] {
        assert_ne!(other, honest);
        let error = ChipExtension::parse(other.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("canonical form"), "{error}: {other:.60}");
    }
    for broken in [
        honest.replacen("\"production\"", "\"a\\\"b\"", 1),
        honest.replacen("\"key_epoch\":1", "\"key_epoch\":-1", 1),
        honest.replacen("\"noise\":\"", "\"noise\":\"zz", 1),
        "[]".to_owned(),
        String::new(),
    ] {
        assert_eq!(ChipExtension::parse(broken.as_bytes()).unwrap_err().code(), "CHIP_CERTIFICATE_MALFORMED");
    }
    let large = ChipExtension { key_epoch: u64::MAX, ..ChipExtension::parse(honest.as_bytes()).unwrap() };
    assert_eq!(ChipExtension::parse(large.encode().as_bytes()).unwrap(), large);
}

#[test]
fn unknown_critical_and_repeated_extensions_are_refused() {
    let world = World::new();
    let key = world.model_authority.private_key().pair_for_tests();
    let name = world.id().to_string();
    let basic = [key_usage(USAGE_SIGN), claims(&world, world.record.id)];
    let policy = x509_cert::der::asn1::ObjectIdentifier::new_unwrap("2.5.29.36");
    let build = |more: Vec<u8>| {
        let extensions = [basic.to_vec(), vec![more]].concat();
        issue(&key, "test model ca", &name, &world.record.signing_spki, extensions).unwrap()
    };
    let model = &world.certificates.model;
    assert!(verify(&world, model, &build(extension(policy, false, &[0x30, 0]))).is_ok());
    assert_untrusted(
        verify(&world, model, &build(extension(policy, true, &[0x30, 0]))),
        "no unknown critical extension",
    );
    assert!(verify(&world, model, &build(key_usage(USAGE_SIGN))).is_err());
    assert!(verify(&world, model, &build(extension(OID_BASIC_CONSTRAINTS, true, &[0x31, 0]))).is_err());
}

/// Every cut and every flipped bit of a certificate is refused, without a panic.
#[test]
fn damaged_certificates_are_refused() {
    let world = World::new();
    let honest = &world.certificates.model;
    for length in 0..honest.len() {
        assert!(Certificate::parse(&honest[..length], Role::Model).is_err());
    }
    for bit in 0..honest.len() * 8 {
        let mut model = honest.clone();
        model[bit / 8] ^= 1 << (bit % 8);
        assert!(verify(&world, &model, &world.certificates.chip).is_err(), "bit {bit}");
    }
    assert!(Certificate::parse(&[0x30; 9_000], Role::Model).is_err());
}

fn claims_text(world: &World, id: [u8; 32]) -> String {
    ChipExtension {
        environment: "production".into(),
        id,
        key_epoch: 1,
        model: "test".into(),
        noise: world.record.noise,
        p384: world.record.p384,
        x_wing: world.record.x_wing.clone(),
    }
    .encode()
}

fn claims(world: &World, id: [u8; 32]) -> Vec<u8> {
    extension(OID_CHIP, false, claims_text(world, id).as_bytes())
}

fn leaf(world: &World, key: &EcdsaKeyPair, issuer: &str, id: [u8; 32], spki: &[u8]) -> Vec<u8> {
    let extensions = vec![key_usage(USAGE_SIGN), claims(world, id)];
    issue(key, issuer, &ChipId::new(id).to_string(), spki, extensions).unwrap()
}
