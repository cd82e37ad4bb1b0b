//! A vector of upstream's, layers that are sealed here, and what a registry or a store may do to both.

use std::collections::BTreeMap;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::sync::Mutex;

use async_trait::async_trait;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use protected_memory::secret::SecretBytes;
use serde_json::{Value, json};

use super::*;
use crate::image::policy::{Cause, Digest};

mod evil;
mod skopeo;

const TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted";
const PUBLIC: &str = "org.opencontainers.image.enc.pubopts";
const KEYS: &str = "org.opencontainers.image.enc.keys.provider.attestation-agent";
const KEY: [u8; 32] = [7; 32];
const NONCE: [u8; 16] = [9; 16];

type Annotations = BTreeMap<String, String>;

/// Opens packets `{"iv", "wrapped_data"}` by AES-256-GCM with one key, as the provider of the guest does.
struct Provider {
    kek: [u8; 32],
    asked: Mutex<Vec<String>>,
}

impl Provider {
    fn new(kek: [u8; 32]) -> Self {
        Self { kek, asked: Mutex::default() }
    }
}

#[async_trait]
impl KeyUnwrap for Provider {
    async fn unwrap(&self, provider: &str, packet: &[u8]) -> Result<SecretBytes, Cause> {
        self.asked.lock().unwrap().push(provider.to_owned());
        let packet: Value = serde_json::from_slice(packet)?;
        let field = |name: &str| STANDARD.decode(packet[name].as_str().unwrap_or_default());
        let (nonce, mut data) = (field("iv")?, field("wrapped_data")?);
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &self.kek)?);
        let opened = key.open_in_place(Nonce::try_assume_unique_for_key(&nonce)?, Aad::empty(), &mut data)?;
        Ok(SecretBytes::take_from(opened)?)
    }
}

/// A packet that [`Provider`] opens.
fn wrapped(kek: [u8; 32], options: &[u8]) -> String {
    let mut data = options.to_vec();
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &kek).unwrap());
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key([1; 12]), Aad::empty(), &mut data).unwrap();
    let packet = json!({"iv": STANDARD.encode([1; 12]), "wrapped_data": STANDARD.encode(data)});
    STANDARD.encode(packet.to_string())
}

fn encrypted(plaintext: &[u8]) -> Vec<u8> {
    let key = EncryptingKey::ctr(UnboundCipherKey::new(&AES_256, &KEY).unwrap()).unwrap();
    let mut data = plaintext.to_vec();
    key.less_safe_encrypt(&mut data, EncryptionContext::Iv128(FixedLength::from(NONCE))).unwrap();
    data
}

fn private(plaintext: &[u8]) -> Value {
    json!({
        "symkey": STANDARD.encode(KEY),
        "digest": Digest::sha256(plaintext),
        "cipheroptions": {"nonce": STANDARD.encode(NONCE)},
    })
}

fn public(ciphertext: &[u8]) -> Value {
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &KEY), ciphertext);
    json!({"cipher": "AES_256_CTR_HMAC_SHA256", "hmac": STANDARD.encode(mac), "cipheroptions": {}})
}

fn annotations(public: &Value, packet: &str) -> Annotations {
    [(PUBLIC, STANDARD.encode(public.to_string())), (KEYS, packet.to_owned())]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
}

/// A layer and its annotations.
fn sealed(plaintext: &[u8]) -> (Vec<u8>, Annotations) {
    let ciphertext = encrypted(plaintext);
    let packet = wrapped([1; 32], private(plaintext).to_string().as_bytes());
    let annotations = annotations(&public(&ciphertext), &packet);
    (ciphertext, annotations)
}

async fn opened(annotations: &Annotations) -> Result<LayerKey, OcicryptError> {
    let layer = EncryptedLayer::parse(TYPE, annotations)?.unwrap();
    layer.unwrap_key(&Provider::new([1; 32])).await
}

fn opened_now(annotations: &Annotations) -> Result<LayerKey, OcicryptError> {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(opened(annotations))
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap()
}

fn code<T>(result: Result<T, OcicryptError>) -> &'static str {
    result.err().unwrap().code()
}

#[test]
fn every_code_of_a_layer_is_in_the_table() {
    let table: Vec<_> =
        include_str!("../ocicrypt.rs").lines().filter(|line| line.starts_with("//! | `OCI")).collect();
    let codes: Vec<_> =
        include_str!("error.rs").split('"').filter(|word| word.starts_with("OCICRYPT_")).collect();
    assert_eq!((table.len(), codes.len()), (12, 12));
    for (line, code) in table.iter().zip(codes) {
        assert!(line.starts_with(&format!("//! | `{code}` |")), "{line} {code}");
    }
}

#[tokio::test]
async fn a_layer_of_upstream_opens() {
    let vector: Value = serde_json::from_str(include_str!("tests/vector.json")).unwrap();
    let annotations: Annotations = serde_json::from_value(vector["annotations"].clone()).unwrap();
    let layer = EncryptedLayer::parse(TYPE, &annotations).unwrap().unwrap();
    assert_eq!(layer.media_type(), "application/vnd.oci.image.layer.v1.tar+gzip");
    let kek = hex::decode(vector["kek_hex"].as_str().unwrap()).unwrap().try_into().unwrap();
    let provider = Provider::new(kek);
    let key = layer.unwrap_key(&provider).await.unwrap();
    assert_eq!(*provider.asked.lock().unwrap(), ["attestation-agent"]);
    assert_eq!(
        format!("{key:?}"),
        format!("LayerKey(of {})", vector["privopts"]["digest"].as_str().unwrap())
    );
    let ciphertext = hex::decode(vector["ciphertext_hex"].as_str().unwrap()).unwrap();
    let mut plaintext = String::new();
    let size = length(&ciphertext);
    key.verify(Cursor::new(ciphertext), size).unwrap().read_to_string(&mut plaintext).unwrap();
    assert_eq!(plaintext, vector["plaintext"].as_str().unwrap());
}

#[test]
fn layers_of_any_length_open() {
    for size in [0, 1, 15, 16, 17, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (3 << 20) + 12345] {
        let plaintext: Vec<u8> = (0..size).map(|number: usize| number.to_le_bytes()[number % 3]).collect();
        let (ciphertext, annotations) = sealed(&plaintext);
        assert!(size < 16 || ciphertext != plaintext);
        // From wherever the blob stood.
        let mut blob = Cursor::new(&ciphertext);
        blob.seek(SeekFrom::End(0)).unwrap();
        let mut layer = opened_now(&annotations).unwrap().verify(blob, length(&ciphertext)).unwrap();
        let mut found = Vec::new();
        layer.read_to_end(&mut found).unwrap();
        assert!(found == plaintext, "{size}");
        assert_eq!(layer.read(&mut [0; 10]).unwrap(), 0);
    }
}

#[test]
fn a_clear_layer_is_none() {
    for media_type in
        ["application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.oci.image.layer.v1.tar", ""]
    {
        let other = [("org.example.note".to_owned(), "x".to_owned())].into();
        assert_eq!(EncryptedLayer::parse(media_type, &other).unwrap(), None);
    }
}

#[tokio::test]
async fn recipients_are_tried_in_order() {
    let plaintext = b"text";
    let ciphertext = encrypted(plaintext);
    let options = private(plaintext).to_string();
    let (other, mine) = (wrapped([2; 32], options.as_bytes()), wrapped([1; 32], options.as_bytes()));
    let mut all = annotations(&public(&ciphertext), &format!("{other},{mine}"));
    all.insert("org.opencontainers.image.enc.keys.provider.a".to_owned(), STANDARD.encode("no packet"));
    all.insert("org.opencontainers.image.enc.keys.jwe".to_owned(), "AAAA".to_owned());
    let layer = EncryptedLayer::parse(TYPE, &all).unwrap().unwrap();
    assert_eq!(layer.recipients().len(), 3);
    let provider = Provider::new([1; 32]);
    let key = layer.unwrap_key(&provider).await.unwrap();
    assert_eq!(*provider.asked.lock().unwrap(), ["a", "attestation-agent", "attestation-agent"]);
    assert!(key.verify(Cursor::new(ciphertext), 4).is_ok());
}

#[test]
fn a_public_nonce_overrides_the_private_one() {
    let plaintext = b"sixteen bytes and some more";
    let ciphertext = encrypted(plaintext);
    let mut options = private(plaintext);
    let mut public = public(&ciphertext);
    public["cipheroptions"] = json!({"nonce": STANDARD.encode(NONCE)});
    for nonce in [json!({"nonce": STANDARD.encode([0; 16])}), json!({}), Value::Null] {
        options["cipheroptions"] = nonce;
        let all = annotations(&public, &wrapped([1; 32], options.to_string().as_bytes()));
        let mut found = Vec::new();
        let key = opened_now(&all).unwrap();
        key.verify(Cursor::new(&ciphertext), length(plaintext)).unwrap().read_to_end(&mut found).unwrap();
        assert_eq!(found, plaintext);
    }
}

proptest! {
    #[test]
    fn a_layer_reads_the_same_in_any_pieces(
        plaintext in proptest::collection::vec(any::<u8>(), 0..2000),
        pieces in proptest::collection::vec(0_usize..400, 1..20),
    ) {
        let (ciphertext, annotations) = sealed(&plaintext);
        let mut layer = opened_now(&annotations).unwrap().verify(Cursor::new(&ciphertext), length(&plaintext)).unwrap();
        let mut found = Vec::new();
        for piece in pieces.into_iter().chain([2000]) {
            let mut buffer = vec![0; piece];
            let count = layer.read(&mut buffer).unwrap();
            found.extend_from_slice(&buffer[..count]);
        }
        layer.read_to_end(&mut found).unwrap();
        prop_assert_eq!(found, plaintext);
    }

    #[test]
    fn any_annotations_are_read_without_a_panic(public in "[ -~]{0,80}", keys in "[A-Za-z0-9+/=,]{0,40}") {
        for public in [public.clone(), STANDARD.encode(&public)] {
            let all = [(PUBLIC.to_owned(), public), (KEYS.to_owned(), keys.clone())].into();
            let _ = EncryptedLayer::parse(TYPE, &all);
        }
    }
}
