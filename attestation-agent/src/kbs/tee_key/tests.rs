//! Keys against known answers, and what comes out of them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::*;

/// The shared vectors.
pub(in crate::kbs) fn vectors() -> Value {
    serde_json::from_str(include_str!("../../../tests/kbs/vectors.json")).unwrap()
}

pub(in crate::kbs) const ALL: [TeeKeyKind; 4] =
    [TeeKeyKind::EcP256, TeeKeyKind::EcP521, TeeKeyKind::MlKem768, TeeKeyKind::Rsa2048];

/// The private key of a vector.
pub(in crate::kbs) fn vector_key(name: &str) -> TeeKey {
    let vector = &vectors()[name];
    let ec = |kind, curve: Curve| {
        let digits = hex::decode(vector["tee_private_scalar_hex"].as_str().unwrap()).unwrap();
        let mut scalar = vec![0; curve.size() - digits.len()];
        scalar.extend(digits);
        let key = PrivateKey::from_private_key(algorithm(curve), &scalar).unwrap();
        TeeKey::ec(kind, curve, key).unwrap()
    };
    match name {
        "P-256" => ec(TeeKeyKind::EcP256, Curve::P256),
        "P-521" => ec(TeeKeyKind::EcP521, Curve::P521),
        "ML-KEM-768" => {
            let seed = hex::decode(vector["seed_hex"].as_str().unwrap()).unwrap();
            TeeKey::ml_kem(&seed.try_into().unwrap())
        }
        "RSA-OAEP-256" => {
            let pkcs8 = STANDARD.decode(vector["pkcs8_base64"].as_str().unwrap()).unwrap();
            let key = PrivateDecryptingKey::from_pkcs8(&pkcs8).unwrap();
            let public = rsa_public(&key).unwrap();
            let private = Private::Rsa(OaepPrivateDecryptingKey::new(key).unwrap());
            TeeKey { kind: TeeKeyKind::Rsa2048, private, public }
        }
        other => panic!("no vector {other}"),
    }
}

#[test]
fn public_keys_are_the_published_ones() {
    for name in ["P-256", "P-521", "ML-KEM-768", "RSA-OAEP-256"] {
        let sent = serde_json::to_value(vector_key(name).public()).unwrap();
        assert_eq!(sent, vectors()[name]["tee_pubkey_jwk"], "{name}");
    }
}

#[test]
fn members_are_sent_in_the_order_of_the_canonical_form() {
    for kind in ALL {
        let key = TeeKey::generate(kind).unwrap();
        let text = serde_json::to_string(key.public()).unwrap();
        let sorted: std::collections::BTreeMap<String, String> = serde_json::from_str(&text).unwrap();
        assert_eq!(text, serde_json::to_string(&sorted).unwrap());
    }
}

#[test]
fn names_of_kinds_read_back() {
    for kind in ALL {
        assert_eq!(TeeKeyKind::parse(kind.name()).unwrap(), kind);
    }
    for name in ["", "RSA1_5", "ECDH-ES+A256KW", "ecdh-es+a256kw-p256"] {
        assert_eq!(TeeKeyKind::parse(name).unwrap_err().code(), "KBS_KEY_KIND_UNKNOWN");
    }
}

#[test]
fn two_keys_are_two() {
    for kind in ALL {
        assert_ne!(TeeKey::generate(kind).unwrap().public(), TeeKey::generate(kind).unwrap().public());
    }
}

#[test]
fn nothing_prints_a_key() {
    for kind in ALL {
        assert_eq!(format!("{:?}", TeeKey::generate(kind).unwrap()), format!("TeeKey({})", kind.name()));
    }
    let key = ExportableKey::generate(ExportableKeyKind::EcP256).unwrap();
    assert_eq!(format!("{key:?}"), "ExportableKey(..)");
}

fn body_of(pem: &str, label: &str) -> Vec<u8> {
    let text = pem.strip_prefix(&format!("-----BEGIN {label}-----\n")).unwrap();
    let text = text.strip_suffix(&format!("\n-----END {label}-----\n")).unwrap();
    assert!(text.lines().all(|line| (1..=64).contains(&line.len())));
    STANDARD.decode(text.replace('\n', "")).unwrap()
}

#[test]
fn an_exported_key_belongs_to_what_was_attested() {
    for (kind, curve) in [(ExportableKeyKind::EcP256, Curve::P256), (ExportableKeyKind::EcP521, Curve::P521)]
    {
        let key = ExportableKey::generate(kind).unwrap();
        let public = key.public().clone();
        let der = body_of(&key.into_pem(), "PRIVATE KEY");
        // PKCS #8: a version, then an algorithm with the identifier of EC keys.
        assert!(der.windows(7).any(|w| w == [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01]));
        let read = PrivateKey::from_private_key_der(algorithm(curve), &der).unwrap();
        assert_eq!(ec_public(curve, &read).unwrap(), public);
    }
    let key = ExportableKey::generate(ExportableKeyKind::Rsa2048).unwrap();
    let public = key.public().clone();
    let der = body_of(&key.into_pem(), "RSA PRIVATE KEY");
    let read = aws_lc_rs::rsa::KeyPair::from_der(&der).unwrap();
    let spki: PublicKeyX509Der<'_> = aws_lc_rs::signature::KeyPair::public_key(&read).as_der().unwrap();
    let (modulus, exponent) = der::rsa_public(spki.as_ref()).unwrap();
    assert_eq!(Jwk::rsa(modulus, exponent), public);
}
