use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::kbs::tee_key::TeeKeyKind;
use crate::kbs::tee_key::tests::{ALL, vector_key, vectors};

#[path = "../../../tests/kbs/jose.rs"]
mod jose;

use jose::{Recipe, encrypt, encrypt_as, ephemeral};

const VECTORS: [&str; 4] = ["P-256", "P-521", "ML-KEM-768", "RSA-OAEP-256"];

fn open(key: &TeeKey, answer: &Value) -> Result<Secret, Fault> {
    Jwe::parse(answer.to_string().as_bytes())?.open(key)
}

fn code(key: &TeeKey, answer: &Value) -> &'static str {
    open(key, answer).unwrap_err().code()
}

fn jwk(key: &TeeKey) -> Value {
    serde_json::to_value(key.public()).unwrap()
}

/// An answer whose header is changed before it is authenticated.
fn with_header(
    key: &TeeKey,
    change: impl Fn(&mut serde_json::Map<String, Value>) + Send + Sync + 'static,
) -> Value {
    encrypt_as(&jwk(key), b"secret", &Recipe { header: Box::new(change), ..Recipe::default() })
}

#[test]
fn published_answers_open() {
    for name in VECTORS {
        let vector = &vectors()[name];
        let secret = open(&vector_key(name), &vector["response"]).unwrap();
        assert_eq!(secret.expose(), vector["plaintext"].as_str().unwrap().as_bytes(), "{name}");
        assert!(secret.is_in_protected_pages());
    }
}

#[test]
fn answers_of_every_length_open() {
    let key = TeeKey::generate(TeeKeyKind::EcP256).unwrap();
    for (length, pages) in [(0, false), (1, true), (65_536, true), (65_537, false), (2 << 20, false)] {
        let plain: Vec<u8> = (0..length).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let secret = open(&key, &encrypt(&jwk(&key), &plain)).unwrap();
        assert!(secret.expose() == plain, "{length}");
        assert_eq!(secret.is_in_protected_pages(), pages, "{length}");
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }
}

#[test]
fn every_kind_of_key_opens_only_its_own() {
    for kind in ALL {
        let (key, other) = (TeeKey::generate(kind).unwrap(), TeeKey::generate(kind).unwrap());
        let answer = encrypt(&jwk(&key), b"secret");
        assert_eq!(open(&key, &answer).unwrap().expose(), b"secret");
        assert_eq!(code(&other, &answer), "KBS_JWE_KEY_UNWRAP", "{kind:?}");
    }
}

#[test]
fn received_header_is_what_is_authenticated() {
    let key = TeeKey::generate(TeeKeyKind::EcP256).unwrap();
    let recipe = Recipe { spaced: true, ..Recipe::default() };
    assert_eq!(open(&key, &encrypt_as(&jwk(&key), b"secret", &recipe)).unwrap().expose(), b"secret");
}

#[test]
fn evil_host_writes_the_header_anew() {
    for kind in ALL {
        let key = TeeKey::generate(kind).unwrap();
        let mut answer = encrypt(&jwk(&key), b"secret");
        let header = decode("protected", answer["protected"].as_str().unwrap()).unwrap();
        let header: Value = serde_json::from_slice(&header).unwrap();
        answer["protected"] =
            json!(super::super::jwk::encode(serde_json::to_string_pretty(&header).unwrap().as_bytes()));
        assert_eq!(code(&key, &answer), "KBS_JWE_AUTHENTICATION");
    }
}

#[test]
fn evil_host_flips_a_bit_of_an_answer() {
    let key = TeeKey::generate(TeeKeyKind::EcP256).unwrap();
    for (member, expected) in [
        ("ciphertext", "KBS_JWE_AUTHENTICATION"),
        ("tag", "KBS_JWE_AUTHENTICATION"),
        ("iv", "KBS_JWE_AUTHENTICATION"),
        ("encrypted_key", "KBS_JWE_KEY_UNWRAP"),
    ] {
        let mut answer = encrypt(&jwk(&key), b"secret");
        let mut bytes = decode("x", answer[member].as_str().unwrap()).unwrap();
        bytes[3] ^= 1;
        answer[member] = json!(super::super::jwk::encode(&bytes));
        assert_eq!(code(&key, &answer), expected, "{member}");
    }
}

#[test]
fn evil_broker_sends_a_key_on_another_curve() {
    for (kind, other) in [(TeeKeyKind::EcP256, "P-521"), (TeeKeyKind::EcP521, "P-256")] {
        let key = TeeKey::generate(kind).unwrap();
        let answer = with_header(&key, move |header| drop(header.insert("epk".to_owned(), ephemeral(other))));
        assert_eq!(code(&key, &answer), "KBS_JWE_CURVE");
        let answer = with_header(&key, move |header| header["epk"]["crv"] = json!(other));
        assert_eq!(code(&key, &answer), "KBS_JWE_CURVE");
        let answer = with_header(&key, |header| header["epk"]["kty"] = json!("OKP"));
        assert_eq!(code(&key, &answer), "KBS_JWE_CURVE");
    }
}

#[test]
fn evil_broker_sends_a_key_off_its_curve() {
    for kind in [TeeKeyKind::EcP256, TeeKeyKind::EcP521] {
        let key = TeeKey::generate(kind).unwrap();
        for coordinate in ["x", "y"] {
            let answer = with_header(&key, move |header| {
                let mut bytes = decode("x", header["epk"][coordinate].as_str().unwrap()).unwrap();
                *bytes.last_mut().unwrap() ^= 1;
                header["epk"][coordinate] = json!(super::super::jwk::encode(&bytes));
            });
            assert_eq!(code(&key, &answer), "KBS_JWE_POINT_INVALID");
        }
        let answer = with_header(&key, |header| {
            for coordinate in ["x", "y"] {
                let length = decode("x", header["epk"][coordinate].as_str().unwrap()).unwrap().len();
                header["epk"][coordinate] = json!(super::super::jwk::encode(&vec![0; length]));
            }
        });
        assert_eq!(code(&key, &answer), "KBS_JWE_POINT_INVALID");
    }
}

#[test]
fn evil_broker_sends_short_coordinates() {
    let key = TeeKey::generate(TeeKeyKind::EcP256).unwrap();
    // One byte moves from x to y: together they have the right length.
    let answer = with_header(&key, |header| {
        let mut x = decode("x", header["epk"]["x"].as_str().unwrap()).unwrap();
        let mut y = decode("y", header["epk"]["y"].as_str().unwrap()).unwrap();
        y.insert(0, x.pop().unwrap());
        header["epk"]["x"] = json!(super::super::jwk::encode(&x));
        header["epk"]["y"] = json!(super::super::jwk::encode(&y));
    });
    assert_eq!(code(&key, &answer), "KBS_JWE_MALFORMED");
    for coordinate in ["x", "y"] {
        let answer = with_header(&key, move |header| {
            let mut short = decode("epk", header["epk"][coordinate].as_str().unwrap()).unwrap();
            short.pop();
            header["epk"][coordinate] = json!(super::super::jwk::encode(&short));
        });
        assert_eq!(code(&key, &answer), "KBS_JWE_MALFORMED", "{coordinate}");
    }
    let answer = with_header(&key, |header| drop(header.remove("epk")));
    assert_eq!(code(&key, &answer), "KBS_JWE_MALFORMED");
}

#[test]
fn evil_broker_chooses_another_cipher() {
    let key = TeeKey::generate(TeeKeyKind::EcP256).unwrap();
    for enc in ["A128GCM", "A192GCM", "A128CBC-HS256", "a256gcm", ""] {
        let answer = with_header(&key, move |header| drop(header.insert("enc".to_owned(), json!(enc))));
        assert_eq!(code(&key, &answer), "KBS_JWE_ALGORITHM", "{enc}");
    }
}

#[test]
fn evil_broker_chooses_another_key_algorithm() {
    for kind in ALL {
        let key = TeeKey::generate(kind).unwrap();
        for alg in ["dir", "none", "RSA1_5", "ECDH-ES", "A256KW", "RSA-OAEP", ""] {
            let answer = with_header(&key, move |header| drop(header.insert("alg".to_owned(), json!(alg))));
            assert_eq!(code(&key, &answer), "KBS_JWE_ALGORITHM", "{kind:?} {alg}");
        }
    }
}

#[test]
fn evil_broker_asks_for_jwe_extensions() {
    let key = TeeKey::generate(TeeKeyKind::EcP256).unwrap();
    for (name, value) in [
        ("zip", json!("DEF")),
        ("crit", json!(["x"])),
        ("crit", json!([])),
        ("apu", json!("QQ")),
        ("apv", json!("")),
    ] {
        let answer = with_header(&key, move |header| drop(header.insert(name.to_owned(), value.clone())));
        assert_eq!(code(&key, &answer), "KBS_JWE_MALFORMED", "{name}");
    }
    let answer = with_header(&key, |header| drop(header.insert("kid".to_owned(), json!("harmless"))));
    open(&key, &answer).unwrap();
}

#[test]
fn evil_broker_wraps_a_short_content_key() {
    for kind in [TeeKeyKind::EcP256, TeeKeyKind::MlKem768] {
        let key = TeeKey::generate(kind).unwrap();
        let answer = encrypt_as(&jwk(&key), b"secret", &Recipe { content_key: 16, ..Recipe::default() });
        assert_eq!(code(&key, &answer), "KBS_JWE_MALFORMED", "{kind:?}");
    }
    let key = TeeKey::generate(TeeKeyKind::Rsa2048).unwrap();
    for content_key in [16, 31, 33, 64] {
        let answer = encrypt_as(&jwk(&key), b"secret", &Recipe { content_key, ..Recipe::default() });
        assert_eq!(code(&key, &answer), "KBS_JWE_KEY_UNWRAP", "{content_key}");
    }
}

#[test]
fn evil_broker_sends_a_short_rsa_key() {
    let key = TeeKey::generate(TeeKeyKind::Rsa2048).unwrap();
    for length in [0, 255, 257] {
        let mut answer = encrypt(&jwk(&key), b"secret");
        answer["encrypted_key"] = json!(super::super::jwk::encode(&vec![1; length]));
        assert_eq!(code(&key, &answer), "KBS_JWE_MALFORMED", "{length}");
    }
}

#[test]
fn evil_broker_sends_a_wrong_encapsulation() {
    let key = TeeKey::generate(TeeKeyKind::MlKem768).unwrap();
    for ek in [json!("AAAA"), json!("="), json!(super::super::jwk::encode(&[0; 1_089]))] {
        let answer = with_header(&key, move |header| drop(header.insert("ek".to_owned(), ek.clone())));
        assert_eq!(code(&key, &answer), "KBS_JWE_MALFORMED");
    }
    let answer = with_header(&key, |header| drop(header.remove("ek")));
    assert_eq!(code(&key, &answer), "KBS_JWE_MALFORMED");
    // Implicit rejection: another shared secret, so that the wrapped key does not open.
    let zeros = json!(super::super::jwk::encode(&[0; 1_088]));
    let answer = with_header(&key, move |header| drop(header.insert("ek".to_owned(), zeros.clone())));
    assert_eq!(code(&key, &answer), "KBS_JWE_KEY_UNWRAP");
}

#[test]
fn evil_broker_malforms_each_member() {
    let key = TeeKey::generate(TeeKeyKind::EcP256).unwrap();
    let good = encrypt(&jwk(&key), b"secret");
    for member in ["protected", "encrypted_key", "iv", "ciphertext", "tag"] {
        let text = good[member].as_str().unwrap().to_owned();
        let mut wrong = vec![
            json!(7),
            json!(null),
            json!(format!("{text}=")),
            json!(format!("{text}AAAAA")),
            json!(format!("*{text}")),
        ];
        if member != "ciphertext" {
            wrong.push(json!(""));
        }
        for value in wrong {
            let mut answer = good.clone();
            answer[member] = value.clone();
            assert_eq!(code(&key, &answer), "KBS_JWE_MALFORMED", "{member} {value}");
        }
        let mut answer = good.clone();
        answer.as_object_mut().unwrap().remove(member);
        assert_eq!(code(&key, &answer), "KBS_JWE_MALFORMED", "{member}");
    }
    for (member, length) in [
        ("iv", 8),
        ("iv", 13),
        ("tag", 4),
        ("tag", 15),
        ("tag", 17),
        ("encrypted_key", 39),
        ("encrypted_key", 48),
    ] {
        let mut answer = good.clone();
        answer[member] = json!(super::super::jwk::encode(&vec![1; length]));
        assert_eq!(code(&key, &answer), "KBS_JWE_MALFORMED", "{member} {length}");
    }
}

#[test]
fn evil_broker_adds_members() {
    let key = TeeKey::generate(TeeKeyKind::EcP256).unwrap();
    for member in ["header", "unprotected", "recipients", "plaintext"] {
        let mut answer = encrypt(&jwk(&key), b"secret");
        answer[member] = json!({"alg": "dir"});
        assert_eq!(code(&key, &answer), "KBS_JWE_MALFORMED", "{member}");
    }
    let mut answer = encrypt(&jwk(&key), b"secret");
    answer["aad"] = json!("ignored, as upstream");
    open(&key, &answer).unwrap();
    let doubled =
        encrypt(&jwk(&key), b"secret").to_string().replacen('{', "{\"iv\":\"AAAAAAAAAAAAAAAA\",", 1);
    assert_eq!(Fault::from(Jwe::parse(doubled.as_bytes()).unwrap_err()).code(), "KBS_JWE_MALFORMED");
}

#[test]
fn evil_broker_leaves_names_out() {
    let key = TeeKey::generate(TeeKeyKind::EcP256).unwrap();
    let answer = encrypt(&jwk(&key), b"secret");
    let members = ["protected", "encrypted_key", "iv", "ciphertext", "tag"].map(|name| answer[name].clone());
    assert_eq!(code(&key, &json!(members)), "KBS_JWE_MALFORMED");
    let answer = with_header(&key, |header| {
        let epk = ["crv", "kty", "x", "y"].map(|name| header["epk"][name].clone());
        header.insert("epk".to_owned(), json!(epk));
    });
    assert_eq!(code(&key, &answer), "KBS_JWE_MALFORMED");
}

#[test]
fn evil_broker_sends_a_huge_header() {
    let key = TeeKey::generate(TeeKeyKind::EcP256).unwrap();
    let answer =
        with_header(&key, |header| drop(header.insert("kid".to_owned(), json!("k".repeat(HEADER_MAX)))));
    assert_eq!(code(&key, &answer), "KBS_JWE_MALFORMED");
}

#[test]
fn evil_host_encodes_in_two_ways() {
    let key = TeeKey::generate(TeeKeyKind::EcP256).unwrap();
    let mut answer = encrypt(&jwk(&key), b"secret!");
    let text = answer["ciphertext"].as_str().unwrap().to_owned();
    assert_eq!(text.len() % 4, 2, "two bits of the last character are not used");
    let last = text.chars().last().unwrap();
    let other = char::from(u8::try_from(u32::from(last)).unwrap() + 1);
    answer["ciphertext"] = json!(format!("{}{other}", &text[..text.len() - 1]));
    assert_eq!(code(&key, &answer), "KBS_JWE_MALFORMED");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_change_of_an_answer_is_refused(at in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let key = vector_key("P-256");
        let mut text = vectors()["P-256"]["response"].to_string().into_bytes();
        let at = at.index(text.len());
        text[at] ^= 1 << bit;
        prop_assert!(Jwe::parse(&text).map_err(Fault::from).and_then(|jwe| jwe.open(&key)).is_err());
    }
}
