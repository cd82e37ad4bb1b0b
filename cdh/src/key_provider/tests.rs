use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use initdata::InsecureMode;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const VECTORS: &str = include_str!("../../../tests/vectors/cdh/vectors.json");

/// One key, for whatever name.
struct Key(Vec<u8>);

#[async_trait]
impl ResourceSource for Key {
    async fn get(&self, uri: &ResourceUri, _: Instant) -> Result<Arc<Plaintext>, HubError> {
        assert_eq!(uri.to_string(), "kbs:///default/image-kek/vec");
        Plaintext::take_from(&mut self.0.clone()).map(Arc::new)
    }
}

fn vector() -> Value {
    serde_json::from_str::<Value>(VECTORS).unwrap()["ocicrypt_layer"].clone()
}

fn key() -> Key {
    Key(hex::decode(vector()["kek_hex"].as_str().unwrap()).unwrap())
}

fn request(packet: &Value) -> Vec<u8> {
    let mut request = vector()["unwrap_request_json"].clone();
    request["keyunwrapparams"]["annotation"] = STANDARD.encode(packet.to_string()).into();
    request.to_string().into_bytes()
}

async fn ask(json: &[u8], modes: &Modes) -> Result<Vec<u8>, &'static str> {
    let deadline = Instant::now() + Duration::from_secs(9);
    let answer = unwrap_key(json, &key(), modes, deadline).await;
    answer.map(|answer| answer.to_vec()).map_err(|error| error.code())
}

fn packet_with(name: &str, value: Value) -> Value {
    let mut packet = vector()["annotation_packet"].clone();
    packet[name] = value;
    packet
}

#[tokio::test]
async fn the_layer_of_the_vectors_is_unwrapped() {
    let vector = vector();
    let answer = ask(vector["unwrap_request_json"].to_string().as_bytes(), &Modes::none()).await.unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&answer).unwrap(), vector["unwrap_response_json"]);
    assert!(answer.starts_with(b"{\"keyunwrapresults\":{\"optsdata\":[123,34,115,"));
    // Both packets of version 2: with its defaults, and with everything said.
    let mut packet = packet_with("version", "0.1.0".into());
    assert_eq!(ask(&request(&packet), &Modes::none()).await.unwrap(), answer);
    packet["provider"] = "kbs".into();
    packet["provider_settings"] = json!({});
    packet["annotations"] = json!({});
    assert_eq!(ask(&request(&packet), &Modes::none()).await.unwrap(), answer);
}

#[tokio::test]
async fn what_is_no_packet_is_refused() {
    for (packet, code) in [
        (packet_with("version", "0.2.0".into()), "CDH_KEY_REQUEST"),
        (packet_with("provider", "aliyun".into()), "SEALED_SECRET_PROVIDER"),
        (packet_with("kid", "image-kek".into()), "KBS_RESOURCE_URI_INVALID"),
        (packet_with("iv", Value::Null), "CDH_KEY_REQUEST"),
        (packet_with("wrap_type", Value::Null), "CDH_KEY_REQUEST"),
        (packet_with("wrap_type", "A128GCM".into()), "WRAP_MALFORMED"),
        (packet_with("iv", STANDARD.encode([0; 16]).into()), "WRAP_MALFORMED"),
        (packet_with("iv", STANDARD.encode([0; 12]).into()), "WRAP_AUTHENTICATION"),
        (packet_with("wrapped_data", "!".into()), "CDH_KEY_REQUEST"),
        (packet_with("wrapped_data", STANDARD.encode([0; 64]).into()), "WRAP_AUTHENTICATION"),
        (json!([]), "CDH_KEY_REQUEST"),
    ] {
        assert_eq!(ask(&request(&packet), &Modes::none()).await, Err(code), "{packet}");
    }
    let twice = STANDARD.encode("{\"kid\":\"kbs:///a/b/c\",\"kid\":\"kbs:///a/b/d\",\"wrapped_data\":\"\"}");
    for json in [
        "{}".to_owned(),
        "[]".to_owned(),
        String::new(),
        json!({"op": "keywrap", "keyunwrapparams": {"annotation": twice}}).to_string(),
        json!({"op": "keyunwrap", "keyunwrapparams": {"annotation": twice}}).to_string(),
        json!({"op": "keyunwrap", "keyunwrapparams": {"annotation": "="}}).to_string(),
    ] {
        assert_eq!(ask(json.as_bytes(), &Modes::none()).await, Err("CDH_KEY_REQUEST"), "{json}");
    }
}

#[tokio::test]
async fn evil_registry_layer_key_under_ctr() {
    let packet = packet_with("wrap_type", "A256CTR".into());
    assert_eq!(ask(&request(&packet), &Modes::none()).await, Err("WRAP_UNAUTHENTICATED"));
    let mut packet = packet_with("iv", STANDARD.encode([0; 16]).into());
    packet["wrap_type"] = "A256CTR".into();
    let permitted = Modes::of(&[InsecureMode::UnauthenticatedSecrets]);
    assert!(ask(&request(&packet), &permitted).await.is_ok());
}

#[tokio::test]
async fn evil_registry_oversize_packet() {
    let long = STANDARD.encode(vec![0; MAXIMUM_WRAPPED_BYTES + 1]);
    let packet = packet_with("wrapped_data", long.into());
    assert_eq!(ask(&request(&packet), &Modes::none()).await, Err("CDH_REQUEST_TOO_LARGE"));
}

#[tokio::test]
async fn evil_peer_oversize_key_request() {
    let mut json = vector()["unwrap_request_json"].to_string().into_bytes();
    json.resize(MAXIMUM_REQUEST_BYTES, b' ');
    assert!(ask(&json, &Modes::none()).await.is_ok());
    json.push(b' ');
    assert_eq!(ask(&json, &Modes::none()).await, Err("CDH_REQUEST_TOO_LARGE"));
}

proptest! {
    #[test]
    fn answers_are_arrays_of_numbers(options in prop::collection::vec(any::<u8>(), 0..300)) {
        let found: Value = serde_json::from_slice(&answer(&options)).unwrap();
        prop_assert_eq!(found, json!({"keyunwrapresults": {"optsdata": options}}));
    }

    #[test]
    fn no_bytes_are_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse_request(&bytes);
        let _ = Packet::parse(&bytes);
    }
}
