//! A layer that `skopeo` encrypts, with the library that upstream's is a copy of.
//!
//! Debian's `skopeo` knows no key providers, so the key is wrapped as a JWE; a provider of the test opens it. Everything else, the layer, its
//! annotations, and the options inside the JWE, is what that library writes.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flate2::write::GzEncoder;

use super::*;

fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Opens RSA-OAEP, A256GCM (RFC 7516).
struct Jwe(PathBuf);

#[async_trait]
impl KeyUnwrap for Jwe {
    async fn unwrap(&self, provider: &str, packet: &[u8]) -> Result<SecretBytes, Cause> {
        assert_eq!(provider, "jwe");
        let jwe: Value = serde_json::from_slice(packet)?;
        let text = |name: &str| jwe[name].as_str().unwrap_or_default();
        let field = |name: &str| URL_SAFE_NO_PAD.decode(text(name));
        let header: Value = serde_json::from_slice(&field("protected")?)?;
        assert_eq!(header, json!({"alg": "RSA-OAEP", "enc": "A256GCM"}));
        std::fs::write(self.0.join("encrypted_key"), field("encrypted_key")?)?;
        let mut openssl = Command::new("openssl");
        openssl.current_dir(&self.0).args([
            "pkeyutl",
            "-decrypt",
            "-inkey",
            "key.pem",
            "-in",
            "encrypted_key",
        ]);
        let key = run(openssl.args(["-pkeyopt", "rsa_padding_mode:oaep"]));
        let mut data = [field("ciphertext")?, field("tag")?].concat();
        let nonce = Nonce::try_assume_unique_for_key(&field("iv")?)?;
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key)?);
        let opened = key.open_in_place(nonce, Aad::from(text("protected").as_bytes()), &mut data)?;
        Ok(SecretBytes::take_from(opened)?)
    }
}

/// Writes a blob and gives its descriptor.
fn put(layout: &Path, media_type: &str, bytes: &[u8]) -> Value {
    let digest = Digest::sha256(bytes);
    std::fs::write(layout.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
    json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
}

fn blob(layout: &Path, descriptor: &Value) -> Vec<u8> {
    let digest = Digest::parse(descriptor["digest"].as_str().unwrap()).unwrap();
    std::fs::read(layout.join("blobs/sha256").join(digest.hex())).unwrap()
}

#[tokio::test]
async fn a_layer_that_skopeo_encrypts_opens() {
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("source");
    std::fs::create_dir_all(source.join("blobs/sha256")).unwrap();
    let content: Vec<u8> =
        (0_u32..700_000).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &content).unwrap();
    let plaintext = gzip.finish().unwrap();
    assert!(plaintext.len() > 2 << 20);
    let layer = put(&source, "application/vnd.oci.image.layer.v1.tar+gzip", &plaintext);
    let rootfs = json!({"type": "layers", "diff_ids": [Digest::sha256(&content)]});
    let config = json!({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).to_string();
    let config = put(&source, "application/vnd.oci.image.config.v1+json", config.as_bytes());
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [layer]});
    let manifest = put(&source, media_type, manifest.to_string().as_bytes());
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    std::fs::write(source.join("index.json"), index.to_string()).unwrap();
    std::fs::write(source.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let program = |name: &str| {
        let mut command = Command::new(name);
        command.current_dir(directory.path());
        command
    };
    run(program("openssl").args(["genrsa", "-out", "key.pem", "2048"]));
    run(program("openssl").args(["rsa", "-in", "key.pem", "-pubout", "-out", "public.pem"]));
    let copy =
        ["copy", "--insecure-policy", "--encryption-key", "jwe:public.pem", "oci:source", "oci:encrypted"];
    run(program("skopeo").args(copy));

    let layout = directory.path().join("encrypted");
    let index: Value = serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
    let manifest: Value = serde_json::from_slice(&blob(&layout, &index["manifests"][0])).unwrap();
    let descriptor = &manifest["layers"][0];
    let mut annotations: Annotations = serde_json::from_value(descriptor["annotations"].clone()).unwrap();
    let recipient = annotations.remove("org.opencontainers.image.enc.keys.jwe").unwrap();
    annotations.insert("org.opencontainers.image.enc.keys.provider.jwe".to_owned(), recipient);
    let layer =
        EncryptedLayer::parse(descriptor["mediaType"].as_str().unwrap(), &annotations).unwrap().unwrap();
    assert_eq!(layer.media_type(), "application/vnd.oci.image.layer.v1.tar+gzip");
    let key = layer.unwrap_key(&Jwe(directory.path().to_owned())).await.unwrap();
    let ciphertext = blob(&layout, descriptor);
    assert!(ciphertext != plaintext);
    let mut found = Vec::new();
    let size = descriptor["size"].as_u64().unwrap();
    key.verify(Cursor::new(ciphertext), size).unwrap().read_to_end(&mut found).unwrap();
    assert!(found == plaintext);
}
