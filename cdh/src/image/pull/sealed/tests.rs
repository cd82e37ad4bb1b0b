//! What was unsealed, against what it has to be.

use std::collections::BTreeMap;

use sealed_artifact::policy::PolicyDocument;
use serde_json::{Value, json};

use super::*;

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const MANIFEST: &str = crate::registry::manifest::OCI_MANIFEST;
const CONFIG: &[u8] = b"{\"config\":1}";

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(bytes).to_string(), "size": bytes.len()})
}

fn manifest(config: &[u8], layers: &[(&str, &[u8])]) -> Vec<u8> {
    let layers: Vec<_> = layers.iter().map(|(media_type, bytes)| descriptor(media_type, bytes)).collect();
    json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor("c", config), "layers": layers})
        .to_string()
        .into_bytes()
}

fn outer(config: &[u8]) -> Descriptor {
    Descriptor {
        media_type: "c".to_owned(),
        digest: Digest::of(config),
        size: u64::try_from(config.len()).unwrap(),
        annotations: BTreeMap::new(),
        platform: None,
    }
}

fn policy(manifest: &str) -> PolicyDocument {
    let zeros = "00".repeat(48);
    let rtmr: String = (0..4).map(|index| format!("rtmr{index} = \"any\"\n")).collect();
    PolicyDocument::from_toml(&format!(
        "environment = \"any\"\nfamily = \"any\"\nlink_mode = \"any\"\nmin_counter = 0\n\
         [evidence]\ncertificate_chain = \"any\"\ndebug = \"any\"\ninitdata = \"any\"\nunsigned_manifest = {manifest}\n\
         [evidence.tdx]\nmin_pck_crl_number = 0\nmin_root_crl_number = 0\nmin_tcb_evaluation = 0\n\
         min_tee_tcb_svn = \"{}\"\nmrtd = {{ exactly = \"{zeros}\" }}\n{rtmr}",
        "00".repeat(16)
    ))
    .unwrap()
}

fn judged(
    config: &Descriptor,
    manifest: &[u8],
    layers: &[(&str, &[u8])],
    pinned: Option<[u8; 32]>,
    policy: Option<&PolicyDocument>,
) -> &'static str {
    let layers = layers.to_vec();
    let unsealed = Unsealed { image: "i", config, pinned, policy, manifest: (MANIFEST, manifest), layers };
    unsealed.judge().map_or_else(
        |error| error.code(),
        |(_, digest)| {
            assert_eq!(digest, Digest::of(manifest));
            "OK"
        },
    )
}

fn digest_of(bytes: &[u8]) -> [u8; 32] {
    let Digest::Sha256(digest) = Digest::of(bytes) else { panic!("sha-256") };
    digest
}

#[test]
fn evil_unsealed_manifest_of_another_image() {
    let (config, layers) = (outer(CONFIG), [(LAYER, b"one".as_slice()), (LAYER, b"two")]);
    let manifest = manifest(CONFIG, &layers);
    assert_eq!(judged(&config, &manifest, &layers, None, None), "OK");
    assert_eq!(judged(&config, &manifest, &layers, Some(digest_of(&manifest)), None), "OK");
    assert_eq!(judged(&config, &manifest, &layers, Some([7; 32]), None), "PULL_UNSEALED");
    assert_eq!(judged(&config, b"{}", &layers, None, None), "REGISTRY_MANIFEST");
}

#[test]
fn evil_unsealed_manifest_that_the_policy_denies() {
    let (config, layers) = (outer(CONFIG), [(LAYER, b"one".as_slice())]);
    let manifest = manifest(CONFIG, &layers);
    let exactly = |digest: [u8; 32]| policy(&format!("{{ exactly = \"{}\" }}", hex::encode(digest)));
    for (policy, code) in [
        (policy("\"any\""), "OK"),
        (exactly(digest_of(&manifest)), "OK"),
        (exactly([7; 32]), "POLICY_DENIED"),
    ] {
        assert_eq!(judged(&config, &manifest, &layers, None, Some(&policy)), code);
    }
}

#[test]
fn evil_unsealed_manifest_of_another_configuration() {
    let layers = [(LAYER, b"one".as_slice())];
    let manifest = manifest(CONFIG, &layers);
    assert_eq!(judged(&outer(b"{}"), &manifest, &layers, None, None), "PULL_UNSEALED");
}

#[test]
fn evil_unsealed_layers_that_the_manifest_does_not_name() {
    let (config, layers) = (outer(CONFIG), [(LAYER, b"one".as_slice()), (LAYER, b"two")]);
    let manifest = manifest(CONFIG, &layers);
    let gzip = "application/vnd.oci.image.layer.v1.tar+gzip";
    for altered in [
        vec![layers[0], (LAYER, b"twp".as_slice())],
        vec![layers[1], layers[0]],
        vec![layers[0], (gzip, b"two")],
        vec![layers[0]],
        vec![layers[0], layers[1], layers[1]],
    ] {
        assert_eq!(judged(&config, &manifest, &altered, None, None), "PULL_UNSEALED");
    }
}

#[test]
fn evil_sealed_manifest_of_a_huge_size() {
    require_small("i", MANIFEST_MAX).unwrap();
    for size in [MANIFEST_MAX + 1, u64::MAX] {
        assert_eq!(require_small("i", size).unwrap_err().code(), "PULL_UNSEALED");
    }
}
