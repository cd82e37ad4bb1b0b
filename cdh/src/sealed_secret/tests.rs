use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const VECTORS: &str = include_str!("../../../tests/vectors/cdh/vectors.json");
const KEY: &str = "kbs:///default/seal-key/vec";
const SECRET: &str = "kbs:///default/db/password";

/// A source with these resources, which counts what it is asked for.
#[derive(Default)]
struct Table {
    resources: HashMap<String, Vec<u8>>,
    asked: Mutex<Vec<String>>,
}

#[async_trait]
impl ResourceSource for Table {
    async fn get(&self, uri: &ResourceUri, _: Instant) -> Result<Arc<Plaintext>, HubError> {
        self.asked.lock().unwrap().push(uri.to_string());
        let found = self.resources.get(&uri.to_string());
        let mut found = found.ok_or(HubError::OfflineMissing { uri: uri.to_string() })?.clone();
        Plaintext::take_from(&mut found).map(Arc::new)
    }
}

impl Table {
    fn of(resources: &[(&str, &[u8])]) -> Self {
        let resources = resources.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec()));
        Self { resources: resources.collect(), asked: Mutex::default() }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn vectors() -> Value {
    serde_json::from_str(VECTORS).unwrap()
}

fn sealed(name: &str) -> String {
    vectors()[name]["sealed"].as_str().unwrap().to_owned()
}

fn jwk() -> Vec<u8> {
    vectors()["sealed_secret_vault"]["verification_jwk"].to_string().into_bytes()
}

/// An author with a key of its own.
struct Author(EcdsaKeyPair);

impl Author {
    fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn jwk(&self) -> Vec<u8> {
        let point = self.0.public_key().as_ref();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "ignored"}).to_string().into_bytes()
    }

    fn seal(&self, header: &Value, payload: &Value) -> String {
        self.seal_text(&header.to_string(), &payload.to_string())
    }

    fn seal_text(&self, header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("sealed.{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn header() -> Value {
    json!({"alg": "ES256", "kid": KEY})
}

fn vault() -> Value {
    vectors()["sealed_secret_vault"]["payload"].clone()
}

async fn open(text: &[u8], table: &Table) -> Result<Vec<u8>, &'static str> {
    open_with(text, table, Verification::Required, &Modes::none()).await
}

async fn open_with(
    text: &[u8],
    table: &Table,
    verification: Verification,
    modes: &Modes,
) -> Result<Vec<u8>, &'static str> {
    let deadline = Instant::now() + Duration::from_secs(9);
    let opened = unseal(text, table, verification, modes, deadline).await;
    opened.map(|secret| secret.expose().to_vec()).map_err(|error| error.code())
}

#[tokio::test]
async fn the_vault_of_the_vectors_is_unsealed() {
    let table = Table::of(&[(KEY, &jwk()), (SECRET, b"hunter2")]);
    for end in ["", "\n", " \t\r\n"] {
        let text = format!("{}{end}", sealed("sealed_secret_vault"));
        assert_eq!(open(text.as_bytes(), &table).await, Ok(b"hunter2".to_vec()));
    }
    assert_eq!(table.asked()[..2], [KEY, SECRET]);
}

#[tokio::test]
async fn the_envelope_of_the_vectors_opens_with_its_key() {
    let vectors = &vectors()["sealed_secret_envelope"];
    let text = sealed("sealed_secret_envelope");
    let payload =
        SealedSecret::parse(text.as_bytes()).unwrap().verify(&VerificationKey::parse(&jwk()).unwrap());
    let Ok(Payload::Envelope(envelope)) = payload else { panic!("an envelope") };
    let key = hex::decode(vectors["dek_hex"].as_str().unwrap()).unwrap();
    let opened = open_data(&envelope, &key, &Modes::none()).unwrap();
    assert_eq!(opened.expose(), vectors["plaintext"].as_str().unwrap().as_bytes());
    let failed = open_data(&envelope, &[0; 32], &Modes::none());
    assert_eq!(failed.unwrap_err().code(), "WRAP_AUTHENTICATION");
}

#[tokio::test]
async fn unknown_providers_are_refused() {
    let author = Author::new();
    let table = Table::of(&[(KEY, &author.jwk()), (SECRET, b"x")]);
    let vectors_table = Table::of(&[(KEY, &jwk()), (SECRET, b"x")]);
    let aws = sealed("sealed_secret_envelope");
    assert_eq!(open(aws.as_bytes(), &vectors_table).await, Err("SEALED_SECRET_PROVIDER"));
    for provider in ["aliyun", "aws", "ehsm", "", "kbs2"] {
        let mut payload = vault();
        payload["provider"] = provider.into();
        let text = author.seal(&header(), &payload);
        assert_eq!(open(text.as_bytes(), &table).await, Err("SEALED_SECRET_PROVIDER"), "{provider}");
    }
    assert!(table.asked().iter().all(|uri| uri == KEY), "nothing was read for them");
    let mut payload = vault();
    payload["provider"] = "KBS".into();
    assert_eq!(open(author.seal(&header(), &payload).as_bytes(), &table).await, Ok(b"x".to_vec()));
}

/// An envelope for the provider `kbs`: key wrapped by AES key wrap, data by AES-256-GCM.
fn envelope(kek: &[u8; 32], wrap_type: &str) -> Value {
    use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrap as _};
    let key = [5; 32];
    let mut room = [0; 40];
    let wrapped = AesKek::new(&AES_256, kek).unwrap().wrap(&key, &mut room).unwrap();
    let mut data = b"a secret of an envelope".to_vec();
    let aead = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).unwrap());
    let nonce = Nonce::assume_unique_for_key([6; 12]);
    aead.seal_in_place_append_tag(nonce, Aad::empty(), &mut data).unwrap();
    json!({
        "version": "0.1.0", "type": "envelope", "key_id": "kbs:///default/kek/1",
        "encrypted_key": STANDARD.encode(wrapped), "encrypted_data": STANDARD.encode(data),
        "wrap_type": wrap_type, "iv": STANDARD.encode([6; 12]), "provider": "kbs",
        "provider_settings": {}, "annotations": {},
    })
}

#[tokio::test]
async fn an_envelope_of_the_broker_is_unsealed() {
    let (author, kek) = (Author::new(), [9; 32]);
    let table = Table::of(&[(KEY, &author.jwk()), ("kbs:///default/kek/1", &kek)]);
    let text = author.seal(&header(), &envelope(&kek, "A256GCM"));
    assert_eq!(open(text.as_bytes(), &table).await, Ok(b"a secret of an envelope".to_vec()));
    let other = author.seal(&header(), &envelope(&[8; 32], "A256GCM"));
    assert_eq!(open(other.as_bytes(), &table).await, Err("WRAP_AUTHENTICATION"));
}

#[tokio::test]
async fn evil_author_envelope_without_authentication() {
    let (author, kek) = (Author::new(), [9; 32]);
    let table = Table::of(&[(KEY, &author.jwk()), ("kbs:///default/kek/1", &kek)]);
    let text = author.seal(&header(), &envelope(&kek, "A256CTR"));
    assert_eq!(open(text.as_bytes(), &table).await, Err("WRAP_UNAUTHENTICATED"));
    let text = author.seal(&header(), &envelope(&kek, "A128GCM"));
    assert_eq!(open(text.as_bytes(), &table).await, Err("WRAP_MALFORMED"));
}

#[tokio::test]
async fn evil_registry_changes_a_sealed_secret() {
    let table = Table::of(&[(KEY, &jwk()), (SECRET, b"x")]);
    let good = sealed("sealed_secret_vault");
    let parts: Vec<&str> = good.split('.').collect();
    let mut payload = vault();
    payload["name"] = "kbs:///default/other/secret".into();
    let other = URL_SAFE_NO_PAD.encode(payload.to_string());
    let by_another = Author::new().seal(&header(), &vault());
    let zero = URL_SAFE_NO_PAD.encode([0; 64]);
    for text in [
        format!("sealed.{}.{other}.{}", parts[1], parts[3]),
        format!("sealed.{}.{}.{zero}", parts[1], parts[2]),
        by_another,
    ] {
        assert_eq!(open(text.as_bytes(), &table).await, Err("SEALED_SECRET_SIGNATURE"), "{text}");
    }
    assert!(table.asked().iter().all(|uri| uri == KEY), "no secret was read");
}

#[tokio::test]
async fn evil_author_names_another_algorithm() {
    let author = Author::new();
    let table = Table::of(&[(KEY, &author.jwk()), (SECRET, b"x")]);
    for alg in ["none", "HS256", "es256", "RS256", ""] {
        let text = author.seal(&json!({"alg": alg, "kid": KEY}), &vault());
        assert_eq!(open(text.as_bytes(), &table).await, Err("SEALED_SECRET_ALGORITHM"), "{alg}");
    }
    assert!(table.asked().is_empty(), "not even the key was read");
}

#[tokio::test]
async fn evil_author_unknown_extensions() {
    let author = Author::new();
    let table = Table::of(&[(KEY, &author.jwk()), (SECRET, b"x")]);
    for (b64, crit) in [
        (json!(false), Value::Null),
        (Value::Null, json!(["exp"])),
        (json!(true), json!(["b64", "exp"])),
        (Value::Null, json!(["b64"])),
        (json!(true), json!([])),
        (json!(false), json!(["b64"])),
    ] {
        let text = author.seal(&json!({"alg": "ES256", "kid": KEY, "b64": b64, "crit": crit}), &vault());
        assert_eq!(open(text.as_bytes(), &table).await, Err("SEALED_SECRET_CRITICAL"), "{b64} {crit}");
    }
    for header in [
        json!({"b64": true, "alg": "ES256", "kid": KEY}),
        json!({"b64": true, "crit": ["b64"], "alg": "ES256", "kid": KEY, "typ": "JOSE"}),
    ] {
        let text = author.seal(&header, &vault());
        assert_eq!(open(text.as_bytes(), &table).await, Ok(b"x".to_vec()), "{header}");
    }
}

#[tokio::test]
async fn evil_author_text_that_two_readers_read_differently() {
    let author = Author::new();
    let table = Table::of(&[(KEY, &author.jwk()), (SECRET, b"x")]);
    let twice = author.seal_text(&format!("{{\"alg\":\"none\",\"alg\":\"ES256\",\"kid\":\"{KEY}\"}}"), "{}");
    let other = author
        .seal_text(&header().to_string(), "{\"version\":\"0.1.0\",\"version\":\"0.1.0\",\"type\":\"vault\"}");
    let good = author.seal(&header(), &vault());
    for text in [
        twice,
        other,
        good.replacen("sealed.", "sealed.sealed.", 1),
        good.replacen("sealed.", "", 1),
        format!(" {good}"),
        format!("{good}."),
        format!("{good}=="),
        good.replacen('.', "..", 2),
        "sealed.".to_owned(),
        "sealed...".to_owned(),
        String::new(),
    ] {
        assert_eq!(open(text.as_bytes(), &table).await, Err("SEALED_SECRET_MALFORMED"), "{text}");
    }
    // The last character of a signature of 64 bytes carries four bits that nobody reads: they have to be zero.
    let stray = format!("{}{}", &good[..good.len() - 1], if good.ends_with('A') { 'B' } else { '_' });
    assert_eq!(open(stray.as_bytes(), &table).await, Err("SEALED_SECRET_MALFORMED"));
}

#[tokio::test]
async fn evil_author_oversize_secret() {
    let text = [b"sealed.".as_slice(), &vec![b'A'; MAXIMUM_SEALED_BYTES]].concat();
    assert_eq!(open(&text, &Table::default()).await, Err("CDH_REQUEST_TOO_LARGE"));
}

#[tokio::test]
async fn versions_types_and_missing_members_are_refused() {
    let author = Author::new();
    let table = Table::of(&[(KEY, &author.jwk()), (SECRET, b"x")]);
    let with = |name: &str, value: Value| {
        let mut payload = vault();
        payload[name] = value;
        author.seal(&header(), &payload)
    };
    for (text, code) in [
        (with("version", "0.2.0".into()), "SEALED_SECRET_VERSION"),
        (with("type", "other".into()), "SEALED_SECRET_MALFORMED"),
        (with("annotations", Value::Null), "SEALED_SECRET_MALFORMED"),
        (with("name", "kbs:///a/b".into()), "KBS_RESOURCE_URI_INVALID"),
        (author.seal(&json!({"alg": "ES256"}), &vault()), "SEALED_SECRET_MALFORMED"),
    ] {
        assert_eq!(open(text.as_bytes(), &table).await, Err(code), "{text}");
    }
}

#[tokio::test]
async fn keys_that_cannot_be_used_are_refused() {
    let good = sealed("sealed_secret_vault");
    for key in [
        b"{}".to_vec(),
        b"not JSON".to_vec(),
        vec![b' '; 17 << 10],
        jwk().replace("EC", "OKP"),
        jwk().replace("P-256", "P-384"),
        jwk().replace("W4K68\"", "W4K68A\""),
        jwk().replace("W4K68\"", "\""),
    ] {
        let table = Table::of(&[(KEY, &key), (SECRET, b"x")]);
        let refused = open(good.as_bytes(), &table).await;
        assert!(refused == Err("SEALED_SECRET_KEY"), "{refused:?} {}", String::from_utf8_lossy(&key));
    }
    let author = Author::new();
    for kid in ["file-name", "/etc/key", "../key", "kbs:///a/b", "kbss:///a/b/c"] {
        let text = author.seal(&json!({"alg": "ES256", "kid": kid}), &vault());
        assert_eq!(open(text.as_bytes(), &Table::default()).await, Err("SEALED_SECRET_KEY"), "{kid}");
    }
}

trait Replace {
    fn replace(&self, from: &str, to: &str) -> Self;
}

impl Replace for Vec<u8> {
    fn replace(&self, from: &str, to: &str) -> Self {
        std::str::from_utf8(self).unwrap().replace(from, to).into_bytes()
    }
}

#[tokio::test]
async fn evil_configuration_has_signatures_skipped() {
    let refused = Verification::decide(true, &Modes::none());
    assert_eq!(refused.unwrap_err().code(), "CDH_INSECURE_UNBOUND");
    let modes = Modes::of(&[InsecureMode::UnverifiedSecrets]);
    assert_eq!(Verification::decide(false, &modes).unwrap(), Verification::Required, "not by the mode alone");
    let skipped = Verification::decide(true, &modes).unwrap();
    let table = Table::of(&[(SECRET, b"x")]);
    let fake = format!("sealed.fakejwsheader.{}.fakesignature", URL_SAFE_NO_PAD.encode(vault().to_string()));
    assert_eq!(open_with(fake.as_bytes(), &table, skipped, &modes).await, Ok(b"x".to_vec()));
    assert_eq!(open(fake.as_bytes(), &table).await, Err("SEALED_SECRET_MALFORMED"));
}

proptest! {
    /// Whatever comes: an error, or what its author signed.
    #[test]
    fn changed_bytes_are_never_taken(at in 0_usize..400, value in any::<u8>()) {
        let good = sealed("sealed_secret_vault").into_bytes();
        let mut text = good.clone();
        let at = at % text.len();
        text[at] = value;
        let key = VerificationKey::parse(&jwk()).unwrap();
        let verified = SealedSecret::parse(&text).and_then(|sealed| sealed.verify(&key));
        prop_assert_eq!(verified.is_ok(), text.trim_ascii_end() == good.as_slice());
    }
}
