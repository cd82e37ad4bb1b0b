use serde_json::json;

use super::super::Digest;
use super::super::testing::{Openssl, cosign_payload};
use super::*;

fn code<T>(result: Result<T, CosignFault>) -> &'static str {
    result.err().unwrap().code()
}

fn key(openssl: &Openssl) -> CosignKey {
    CosignKey::parse(openssl.public().as_bytes()).unwrap()
}

fn rsa(bits: &str) -> Openssl {
    Openssl::new(&["-algorithm", "RSA", "-pkeyopt", &format!("rsa_keygen_bits:{bits}")])
}

fn p384() -> Openssl {
    Openssl::new(&["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"])
}

#[test]
fn each_kind_of_key_verifies() {
    let payload = cosign_payload(&Digest::sha256(b"x"), "registry.example/a");
    let ed25519 = Openssl::new(&["-algorithm", "ED25519"]);
    let (p256, p384, rsa) = (Openssl::p256(), p384(), rsa("2048"));
    for (layer, signer) in [
        (p256.layer(&payload, "-sha256"), &p256),
        (p384.layer(&payload, "-sha256"), &p384),
        (p384.layer(&payload, "-sha384"), &p384),
        (rsa.layer(&payload, "-sha256"), &rsa),
        (ed25519.raw_layer(&payload), &ed25519),
    ] {
        let keys = [key(&Openssl::p256()), key(signer)];
        assert_eq!(layer.verify(&keys).unwrap().id(), key(signer).id());
        // Lines as some tools break them.
        let (first, rest) = layer.signature.split_at(20);
        let broken = CosignLayer { signature: format!("{first}\r\n{rest}\n"), ..layer.clone() };
        assert!(broken.verify(&keys).is_ok());
        let other = CosignLayer { payload: [layer.payload.as_slice(), b" "].concat(), ..layer };
        assert_eq!(code(other.verify(&keys)), "IMAGE_COSIGN_BAD_SIGNATURE");
    }
}

#[test]
fn evil_signature_by_another_key_or_hash() {
    let payload = cosign_payload(&Digest::sha256(b"x"), "registry.example/a");
    let (mine, stranger) = (rsa("2048"), rsa("2048"));
    let keys = [key(&mine)];
    assert_eq!(code(stranger.layer(&payload, "-sha256").verify(&keys)), "IMAGE_COSIGN_BAD_SIGNATURE");
    assert_eq!(code(mine.layer(&payload, "-sha1").verify(&keys)), "IMAGE_COSIGN_BAD_SIGNATURE");
    let p256 = Openssl::p256();
    assert_eq!(code(p256.layer(&payload, "-sha1").verify(&[key(&p256)])), "IMAGE_COSIGN_BAD_SIGNATURE");
    let layer = mine.layer(&payload, "-sha256");
    assert_eq!(code(layer.verify(&[])), "IMAGE_COSIGN_BAD_SIGNATURE");
    for signature in ["", "=", "AAAA AAAA", "AAA", &layer.signature.replace('=', "")] {
        let other = CosignLayer { signature: signature.to_owned(), ..layer.clone() };
        let found = code(other.verify(&keys));
        assert!(matches!(found, "IMAGE_COSIGN_MALFORMED" | "IMAGE_COSIGN_BAD_SIGNATURE"), "{found}");
    }
}

#[test]
fn evil_flipped_bits_of_a_payload() {
    let signer = Openssl::p256();
    let keys = [key(&signer)];
    let layer = signer.layer(&cosign_payload(&Digest::sha256(b"x"), "registry.example/a"), "-sha256");
    for at in 0..layer.payload.len() * 8 {
        let mut flipped = layer.clone();
        flipped.payload[at / 8] ^= 1 << (at % 8);
        assert_eq!(code(flipped.verify(&keys)), "IMAGE_COSIGN_BAD_SIGNATURE");
    }
}

#[test]
fn evil_huge_payload() {
    let signer = Openssl::p256();
    let keys = [key(&signer)];
    // A good signature over more than is looked at.
    let payload = vec![b' '; PAYLOAD_MAX + 1];
    assert_eq!(code(signer.layer(&payload, "-sha256").verify(&keys)), "IMAGE_COSIGN_TOO_LARGE");
    let mut layer = signer.layer(b"x", "-sha256");
    assert!(layer.verify(&keys).is_ok());
    layer.signature.push_str(&"\n".repeat(SIGNATURE_TEXT_MAX));
    assert_eq!(code(layer.verify(&keys)), "IMAGE_COSIGN_TOO_LARGE");
}

#[test]
fn evil_cosign_keys() {
    let good = Openssl::p256().public();
    let private = String::from_utf8(Openssl::p256().private()).unwrap();
    let p521 = Openssl::new(&["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"]).public();
    let secp256k1 = Openssl::new(&["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"]).public();
    let x25519 = Openssl::new(&["-algorithm", "X25519"]).public();
    let pss = Openssl::new(&["-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048"]).public();
    for (what, text, expected) in [
        ("nothing", String::new(), "IMAGE_COSIGN_KEY_INVALID"),
        ("two keys", format!("{good}{good}"), "IMAGE_COSIGN_KEY_INVALID"),
        ("text behind", format!("{good}hello"), "IMAGE_COSIGN_KEY_INVALID"),
        ("another label", good.replace("PUBLIC KEY", "CERTIFICATE"), "IMAGE_COSIGN_KEY_INVALID"),
        ("a private key", private, "IMAGE_COSIGN_PRIVATE_KEY"),
        ("another curve", p521, "IMAGE_COSIGN_KEY_INVALID"),
        ("a curve that is like another", secp256k1, "IMAGE_COSIGN_KEY_INVALID"),
        ("no key for signing", x25519, "IMAGE_COSIGN_KEY_INVALID"),
        ("parameters", pss, "IMAGE_COSIGN_KEY_INVALID"),
        ("a short key", rsa("1024").public(), "IMAGE_COSIGN_WEAK_KEY"),
        ("long", format!("{good}{}", "\n".repeat(COSIGN_KEY_MAX)), "IMAGE_COSIGN_TOO_LARGE"),
    ] {
        assert_eq!(code(CosignKey::parse(text.as_bytes())), expected, "{what}");
    }
}

#[test]
fn tags_of_signatures() {
    let digest = Digest::sha256(b"x");
    assert_eq!(signature_tag(&digest), format!("sha256-{}.sig", digest.hex()));
}

fn manifest(layers: &serde_json::Value) -> Vec<u8> {
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    serde_json::to_vec(&json!({"schemaVersion": 2, "mediaType": media_type, "config": {}, "layers": layers}))
        .unwrap()
}

#[test]
fn layers_of_a_signature_manifest() {
    let digest = Digest::sha256(b"x");
    let layer = |kind: &str| json!({"mediaType": kind, "digest": digest, "size": 250, "annotations": {SIGNATURE_ANNOTATION: "AAAA", "other": "x"}});
    let mut unsigned = layer(PAYLOAD_TYPE);
    unsigned["annotations"] = json!({});
    let layers = json!([layer(PAYLOAD_TYPE), layer("application/octet-stream"), unsigned]);
    let found = SignatureLayer::parse_manifest(&manifest(&layers)).unwrap();
    assert_eq!(found, [SignatureLayer { digest, size: 250, signature: "AAAA".to_owned() }]);
}

#[test]
fn evil_signature_manifests() {
    let digest = Digest::sha256(b"x");
    let good = json!({"mediaType": PAYLOAD_TYPE, "digest": digest, "size": 1, "annotations": {SIGNATURE_ANNOTATION: "AAAA"}});
    let but = |member: &str, value: serde_json::Value| {
        let mut layer = good.clone();
        layer[member] = value;
        json!([layer])
    };
    let long = "A".repeat(SIGNATURE_TEXT_MAX + 1);
    for (layers, expected) in [
        (json!([]), "IMAGE_COSIGN_MALFORMED"),
        (json!(vec![good.clone(); 65]), "IMAGE_COSIGN_MALFORMED"),
        (json!({}), "IMAGE_COSIGN_MALFORMED"),
        (but("digest", json!("sha256:1")), "IMAGE_COSIGN_MALFORMED"),
        (but("size", json!(-1)), "IMAGE_COSIGN_MALFORMED"),
        (but("size", json!(1.5)), "IMAGE_COSIGN_MALFORMED"),
        (but("size", json!(65537)), "IMAGE_COSIGN_TOO_LARGE"),
        (but("annotations", json!([])), "IMAGE_COSIGN_MALFORMED"),
        (but("annotations", json!({SIGNATURE_ANNOTATION: long})), "IMAGE_COSIGN_TOO_LARGE"),
    ] {
        assert_eq!(code(SignatureLayer::parse_manifest(&manifest(&layers))), expected, "{layers}");
    }
    let huge = [manifest(&json!([good])), vec![b' '; SIGNATURE_MANIFEST_MAX]].concat();
    assert_eq!(code(SignatureLayer::parse_manifest(&huge)), "IMAGE_COSIGN_MALFORMED");
    assert_eq!(
        code(SignatureLayer::parse_manifest(b"{\"layers\": [], \"layers\": []}")),
        "IMAGE_COSIGN_MALFORMED"
    );
}
