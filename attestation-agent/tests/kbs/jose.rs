//! The sender's side of an encrypted answer, for tests: right, or wrong in one way.
//!
//! Shared by the unit tests of the client and by the brokers of the attack tests.

use aes_kw::{KeyInit as _, KwAes192};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{ECDH_P256, ECDH_P521, PrivateKey, UnparsedPublicKey, agree};
use aws_lc_rs::kem::{EncapsulationKey, ML_KEM_768};
use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrap as _};
use aws_lc_rs::rsa::{
    OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey, PublicKeyComponents,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use cshake::digest::{ExtendableOutput as _, Update as _, XofReader as _};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

/// Changes a protected header.
pub type Change = Box<dyn Fn(&mut Map<String, Value>) + Send + Sync>;

/// How an answer is made.
pub struct Recipe {
    /// Bytes of the content key.
    pub content_key: usize,
    /// Changes the protected header before it is used as additional data.
    pub header: Change,
    /// Spaces in the protected header; harmless.
    pub spaced: bool,
}

impl Default for Recipe {
    fn default() -> Self {
        Self { content_key: 32, header: Box::new(|_| ()), spaced: false }
    }
}

/// A right answer.
pub fn encrypt(jwk: &Value, plain: &[u8]) -> Value {
    encrypt_as(jwk, plain, &Recipe::default())
}

/// An answer of one recipe.
pub fn encrypt_as(jwk: &Value, plain: &[u8], recipe: &Recipe) -> Value {
    let content_key = vec![0x42; recipe.content_key];
    let mut header = Map::new();
    header.insert("alg".to_owned(), jwk["alg"].clone());
    header.insert("enc".to_owned(), json!("A256GCM"));
    let encrypted_key = match jwk["kty"].as_str().unwrap() {
        "EC" => wrap_ec(jwk, &content_key, &mut header),
        "RSA" => wrap_rsa(jwk, &content_key),
        _ => wrap_ml_kem(jwk, &content_key, &mut header),
    };
    (recipe.header)(&mut header);
    let header = if recipe.spaced { serde_json::to_vec_pretty(&header) } else { serde_json::to_vec(&header) };
    let protected = B64.encode(header.unwrap());
    let mut data = plain.to_vec();
    let cipher_key = [0x42; 32];
    let tag = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &cipher_key).unwrap())
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key([7; 12]),
            Aad::from(protected.as_bytes()),
            &mut data,
        )
        .unwrap();
    json!({
        "protected": protected,
        "encrypted_key": B64.encode(encrypted_key),
        "iv": B64.encode([7; 12]),
        "ciphertext": B64.encode(data),
        "tag": B64.encode(tag),
    })
}

/// A fresh public key on a curve, as `epk`.
pub fn ephemeral(crv: &str) -> Value {
    let key = PrivateKey::generate(algorithm(crv)).unwrap();
    epk(crv, &key)
}

fn algorithm(crv: &str) -> &'static aws_lc_rs::agreement::Algorithm {
    if crv == "P-256" { &ECDH_P256 } else { &ECDH_P521 }
}

fn epk(crv: &str, key: &PrivateKey) -> Value {
    let point = key.compute_public_key().unwrap();
    let (x, y) = point.as_ref()[1..].split_at((point.as_ref().len() - 1) / 2);
    json!({"crv": crv, "kty": "EC", "x": B64.encode(x), "y": B64.encode(y)})
}

/// The uncompressed point of a JWK.
pub fn point(jwk: &Value) -> Vec<u8> {
    let coordinate = |name: &str| B64.decode(jwk[name].as_str().unwrap()).unwrap();
    [vec![4], coordinate("x"), coordinate("y")].concat()
}

fn wrap_ec(jwk: &Value, content_key: &[u8], header: &mut Map<String, Value>) -> Vec<u8> {
    let crv = jwk["crv"].as_str().unwrap();
    let mine = PrivateKey::generate(algorithm(crv)).unwrap();
    header.insert("epk".to_owned(), epk(crv, &mine));
    let peer = UnparsedPublicKey::new(algorithm(crv), point(jwk));
    let kek = agree(&mine, peer, (), |z| {
        let other = [&14_u32.to_be_bytes()[..], b"ECDH-ES+A256KW", &[0; 8], &256_u32.to_be_bytes()].concat();
        Ok(Sha256::digest([&1_u32.to_be_bytes()[..], z, &other].concat()))
    })
    .unwrap();
    let mut room = vec![0; content_key.len() + 8];
    AesKek::new(&AES_256, &kek).unwrap().wrap(content_key, &mut room).unwrap();
    room
}

fn wrap_rsa(jwk: &Value, content_key: &[u8]) -> Vec<u8> {
    let number = |name: &str| B64.decode(jwk[name].as_str().unwrap()).unwrap();
    let parts = PublicKeyComponents { n: number("n"), e: number("e") };
    let key: PublicEncryptingKey = parts.try_into().unwrap();
    let mut room = vec![0; 256];
    OaepPublicEncryptingKey::new(key)
        .unwrap()
        .encrypt(&OAEP_SHA256_MGF1SHA256, content_key, &mut room, None)
        .unwrap();
    room
}

fn wrap_ml_kem(jwk: &Value, content_key: &[u8], header: &mut Map<String, Value>) -> Vec<u8> {
    let key = B64.decode(jwk["pub"].as_str().unwrap()).unwrap();
    let (ciphertext, shared) = EncapsulationKey::new(&ML_KEM_768, &key).unwrap().encapsulate().unwrap();
    header.insert("ek".to_owned(), json!(B64.encode(ciphertext.as_ref())));
    // KMAC256 spelled out for a key of 32 bytes and an output of 24.
    let mut hash = cshake::CShake256::new_with_function_name(b"KMAC", b"");
    let mut block = [&[1, 136, 2, 1, 0][..], shared.as_ref()].concat();
    block.resize(136, 0);
    hash.update(&block);
    hash.update(
        &[&17_u32.to_be_bytes()[..], b"ML-KEM-768+A192KW", &192_u32.to_be_bytes(), &[192, 1]].concat(),
    );
    let mut kek = [0; 24];
    hash.finalize_xof().read(&mut kek);
    let mut room = vec![0; content_key.len() + 8];
    KwAes192::new(&kek.into()).wrap_key(content_key, &mut room).unwrap();
    room
}
