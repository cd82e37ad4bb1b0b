//! Every vector of `tests/vectors/initdata`, which another program in another language wrote.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use initdata::{Algorithm, Initdata, InitdataError, Register, RegisterKind, Unverified};
use serde_json::Value;

fn file() -> Value {
    let text = include_str!("../../tests/vectors/initdata/vectors.json");
    serde_json::from_str(text).unwrap()
}

fn bound(vector: &Value) -> Result<Initdata, InitdataError> {
    let member = |name: &str| vector.get(name).and_then(Value::as_str);
    let register = Register::new("HOST_DATA", &hex::decode(member("register").unwrap()).unwrap())?;
    let unverified = match (member("device"), member("annotation"), member("text")) {
        (Some(device), None, None) => Unverified::from_device(&STANDARD.decode(device).unwrap().as_slice())?,
        (None, Some(annotation), None) => Unverified::from_annotation(annotation)?,
        (None, None, Some(text)) => Unverified::new(text.as_bytes().to_vec())?,
        _ => panic!("a vector has one carrier"),
    };
    unverified.bind(&register)
}

#[test]
fn every_vector_is_read_as_it_says() {
    let file = file();
    let vectors = file["vectors"].as_array().unwrap();
    assert!(vectors.len() > 100);
    let mut wrong = Vec::new();
    for vector in vectors {
        let result = bound(vector);
        let found = result.as_ref().map_or_else(InitdataError::code, |_| "OK");
        if found != vector["expected"] {
            wrong.push(format!("{}: expected {}, found {found}", vector["name"], vector["expected"]));
        }
        if let Ok(initdata) = result {
            assert_eq!(initdata.digest().algorithm().name(), vector["algorithm"], "{}", vector["name"]);
            assert_eq!(hex::encode(initdata.digest().as_bytes()), vector["digest"], "{}", vector["name"]);
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn the_published_answer_is_ours() {
    let file = file();
    let published = |name: &str| file["published"][name].as_str().unwrap();
    let text = Unverified::new(published("text").as_bytes().to_vec()).unwrap();
    let digest = text.digest(Algorithm::Sha384);
    assert_eq!(hex::encode(digest.as_bytes()), published("sha384"));
    assert_eq!(hex::encode(digest.fitted(RegisterKind::MrConfigId.bytes())), published("mrconfigid"));
    assert_eq!(hex::encode(digest.fitted(RegisterKind::HostData.bytes())), published("host_data"));
    assert_eq!(digest.pcr8(), None);
    let digest = text.digest(Algorithm::Sha256);
    assert_eq!(hex::encode(digest.as_bytes()), published("pcr8_of"));
    assert_eq!(hex::encode(digest.pcr8().unwrap()), published("pcr8"));
    let register = Register::new("MRCONFIGID", &hex::decode(published("mrconfigid")).unwrap()).unwrap();
    let initdata = text.bind(&register).unwrap();
    assert_eq!(
        initdata.document().aa_config(),
        Some("[token_configs.kbs]\nurl = \"http://192.0.2.7:8080\"\n")
    );
}
