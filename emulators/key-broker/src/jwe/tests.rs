use aes_gcm::aes::cipher::{Block, BlockCipherDecrypt, KeyInit as _};
use aes_gcm::aes::{Aes192, Aes256};
use aes_gcm::{Aes256Gcm, Nonce as GcmNonce, Tag, aead::AeadInOut as _};
use aws_lc_rs::agreement::{ECDH_P521, PrivateKey, UnparsedPublicKey, agree};
use aws_lc_rs::encoding::{AsBigEndian as _, EcPrivateKeyBin};
use aws_lc_rs::rsa::{KeySize, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use ml_kem::kem::{Decapsulate as _, Generate as _, KeyExport as _};
use ml_kem::{DecapsulationKey768, MlKem768};
use p256::elliptic_curve::point::AffineCoordinates as _;
use serde_json::Value;

use super::*;
use crate::jwk::TeeJwk;

const PLAIN: &[u8] = b"a resource that one guest can read";

/// AES key unwrap with RustCrypto's AES; nothing if the integrity value is another.
pub(crate) fn unwrap(kek: &[u8], wrapped: &[u8]) -> Option<Vec<u8>> {
    fn run<C: BlockCipherDecrypt>(cipher: &C, wrapped: &[u8]) -> Option<Vec<u8>> {
        let mut registers: Vec<[u8; 8]> = wrapped.chunks(8).map(|part| part.try_into().unwrap()).collect();
        let mut integrity = registers.remove(0);
        for step in (1..=6 * registers.len()).rev() {
            let at = (step - 1) % registers.len();
            let mut block = Block::<C>::default();
            let front = u64::from_be_bytes(integrity) ^ step as u64;
            block[..8].copy_from_slice(&front.to_be_bytes());
            block[8..].copy_from_slice(&registers[at]);
            cipher.decrypt_block(&mut block);
            integrity.copy_from_slice(&block[..8]);
            registers[at].copy_from_slice(&block[8..]);
        }
        (integrity == [0xa6; 8]).then(|| registers.concat())
    }
    match kek.len() {
        24 => run(&Aes192::new_from_slice(kek).unwrap(), wrapped),
        _ => run(&Aes256::new_from_slice(kek).unwrap(), wrapped),
    }
}

fn decoded(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

fn header_of(jwe: &Jwe) -> Value {
    serde_json::from_slice(&decoded(&jwe.protected)).unwrap()
}

/// Opens with RustCrypto's AES-GCM; the header as it was received is authenticated.
fn open(jwe: &Jwe, cek: &[u8]) -> Option<Vec<u8>> {
    let cipher = Aes256Gcm::new_from_slice(cek).unwrap();
    let mut text = decoded(&jwe.ciphertext);
    let (iv, tag) = (decoded(&jwe.iv), decoded(&jwe.tag));
    let nonce = GcmNonce::try_from(iv.as_slice()).unwrap();
    let tag = Tag::try_from(tag.as_slice()).unwrap();
    cipher
        .decrypt_inout_detached(&nonce, jwe.protected.as_bytes(), text.as_mut_slice().into(), &tag)
        .ok()
        .map(|()| text)
}

struct Guest {
    secret: p256::SecretKey,
    key: TeeKey,
}

fn guest() -> Guest {
    let secret = p256::SecretKey::from_slice(&[0x11; 32]).unwrap();
    let point = p256::AffinePoint::from(secret.public_key());
    let (x, y) = (URL_SAFE_NO_PAD.encode(point.x()), URL_SAFE_NO_PAD.encode(point.y()));
    let jwk = TeeJwk::Ec { alg: ECDH_ES.into(), crv: "P-256".into(), x, y };
    Guest { secret, key: TeeKey::parse(&jwk).unwrap() }
}

impl Guest {
    fn sealed(&self, twist: Option<&Twist>) -> Jwe {
        seal(&self.key, Zeroizing::new(PLAIN.to_vec()), twist).unwrap()
    }

    fn open(&self, jwe: &Jwe) -> Option<Vec<u8>> {
        let epk = &header_of(jwe)["epk"];
        let coordinate = |name: &str| decoded(epk[name].as_str().unwrap());
        let sec1 = [vec![4], coordinate("x"), coordinate("y")].concat();
        let public = p256::PublicKey::from_sec1_bytes(&sec1).ok()?;
        let shared = public.to_projective() * *self.secret.to_nonzero_scalar();
        let kek = concat_kdf(&shared.to_affine().x());
        open(jwe, &unwrap(kek.as_slice(), &decoded(&jwe.encrypted_key))?)
    }
}

/// Published answers of the protocol's description, for both curves.
#[test]
fn key_encryption_keys_are_the_published_ones() {
    for (z, kek) in [
        (
            "ed07ef83d6061a03168e6e8f027087134f66b44553df13a870538e26329fcc9f",
            "ef737b7b40a8a270af76a0cfb16d1c0a95187c3020776f584ad2a74f0ef762f4",
        ),
        (
            "01c4f38d1e94493aa59bae49831622a2522a746a0683195df8e3b62c4b870681e7abb9dde71a518db90ea8dec817701eced7a52b1388120a2b6b8580108252649387",
            "da5f9f988a7e2776fc00fd11edd8ffd19ecd0bc8c91cc052aa9a0a90c467a2a3",
        ),
    ] {
        assert_eq!(hex::encode(concat_kdf(&hex::decode(z).unwrap()).as_slice()), kek);
    }
}

#[test]
fn an_answer_opens_with_the_key_of_the_guest_alone() {
    let guest = guest();
    let jwe = guest.sealed(None);
    let header = String::from_utf8(decoded(&jwe.protected)).unwrap();
    assert!(
        header.starts_with(r#"{"alg":"ECDH-ES+A256KW","enc":"A256GCM","epk":{"crv":"P-256","kty":"EC","#)
    );
    assert_eq!((decoded(&jwe.iv).len(), decoded(&jwe.tag).len()), (12, 16));
    assert_eq!(decoded(&jwe.encrypted_key).len(), 40);
    assert_eq!(guest.open(&jwe).as_deref(), Some(PLAIN));
    let other = Guest { secret: p256::SecretKey::from_slice(&[0x22; 32]).unwrap(), ..guest };
    assert_eq!(other.open(&jwe), None);
}

#[test]
fn an_empty_resource_is_an_answer_too() {
    let guest = guest();
    let jwe = seal(&guest.key, Zeroizing::new(Vec::new()), None).unwrap();
    assert_eq!((jwe.ciphertext.as_str(), guest.open(&jwe)), ("", Some(Vec::new())));
}

#[test]
fn twists_do_what_their_names_say() {
    let guest = guest();
    let reordered = guest.sealed(Some(&Twist::ReorderedHeader));
    assert!(String::from_utf8(decoded(&reordered.protected)).unwrap().starts_with(r#"{"epk""#));
    assert_eq!(guest.open(&reordered).as_deref(), Some(PLAIN));
    assert_eq!(guest.open(&guest.sealed(Some(&Twist::BadTag))), None);
    assert_eq!(guest.open(&guest.sealed(Some(&Twist::BadWrappedKey))), None);
    assert_eq!(guest.open(&guest.sealed(Some(&Twist::OffCurveEpk))), None);
    let wrong = header_of(&guest.sealed(Some(&Twist::WrongCurveEpk)));
    assert_eq!((&wrong["epk"]["crv"], wrong["epk"]["x"].as_str().unwrap().len()), (&"P-521".into(), 88));
    for member in MEMBERS {
        let jwe = serde_json::to_value(guest.sealed(Some(&Twist::Malformed(member.to_owned())))).unwrap();
        assert!(URL_SAFE_NO_PAD.decode(jwe[member].as_str().unwrap()).is_err(), "{member}");
    }
}

#[test]
fn p521_answers_open() {
    let secret = PrivateKey::generate(&ECDH_P521).unwrap();
    let scalar: EcPrivateKeyBin<'_> = secret.as_be_bytes().unwrap();
    assert_eq!(scalar.as_ref().len(), 66);
    let public = secret.compute_public_key().unwrap();
    let (x, y) = public.as_ref()[1..].split_at(66);
    let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
    let jwk = TeeJwk::Ec { alg: ECDH_ES.into(), crv: "P-521".into(), x, y };
    let jwe = seal(&TeeKey::parse(&jwk).unwrap(), Zeroizing::new(PLAIN.to_vec()), None).unwrap();
    let epk = &header_of(&jwe)["epk"];
    assert_eq!(epk["crv"], "P-521");
    let sec1 = [vec![4], decoded(epk["x"].as_str().unwrap()), decoded(epk["y"].as_str().unwrap())].concat();
    let kek = agree(&secret, UnparsedPublicKey::new(&ECDH_P521, sec1), (), |z| Ok(concat_kdf(z))).unwrap();
    let cek = unwrap(kek.as_slice(), &decoded(&jwe.encrypted_key)).unwrap();
    assert_eq!(open(&jwe, &cek).as_deref(), Some(PLAIN));
}

#[test]
fn rsa_answers_open() {
    let private = PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap();
    let spki = aws_lc_rs::encoding::AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(
        &private.public_key(),
    )
    .unwrap();
    // The modulus is the 257-byte INTEGER near the end of the structure, the exponent the last one.
    let der = spki.as_ref();
    let (n, e) = (&der[der.len() - 5 - 256..der.len() - 5], &der[der.len() - 3..]);
    let jwk = TeeJwk::Rsa {
        alg: "RSA-OAEP-256".into(),
        n: URL_SAFE_NO_PAD.encode(n),
        e: URL_SAFE_NO_PAD.encode(e),
    };
    let jwe = seal(&TeeKey::parse(&jwk).unwrap(), Zeroizing::new(PLAIN.to_vec()), None).unwrap();
    assert_eq!(decoded(&jwe.protected), br#"{"alg":"RSA-OAEP-256","enc":"A256GCM"}"#);
    let private = OaepPrivateDecryptingKey::new(private).unwrap();
    let mut cek = vec![0; private.min_output_size()];
    let wrapped = decoded(&jwe.encrypted_key);
    let cek = private.decrypt(&OAEP_SHA256_MGF1SHA256, &wrapped, &mut cek, None).unwrap();
    assert_eq!(open(&jwe, cek).as_deref(), Some(PLAIN));
}

/// Decapsulated by another implementation than the one that encapsulates.
#[test]
fn ml_kem_answers_open() {
    let secret = DecapsulationKey768::generate();
    let public = secret.encapsulation_key().to_bytes();
    let jwk = TeeJwk::Akp { alg: ML_KEM.into(), public: URL_SAFE_NO_PAD.encode(public) };
    let jwe = seal(&TeeKey::parse(&jwk).unwrap(), Zeroizing::new(PLAIN.to_vec()), None).unwrap();
    let ciphertext = decoded(header_of(&jwe)["ek"].as_str().unwrap());
    let shared = secret.decapsulate(&ml_kem::Ciphertext::<MlKem768>::try_from(&ciphertext[..]).unwrap());
    let kek = kmac::ml_kem_wrapping_key(&shared);
    let cek = unwrap(kek.as_slice(), &decoded(&jwe.encrypted_key)).unwrap();
    assert_eq!(open(&jwe, &cek).as_deref(), Some(PLAIN));
}
