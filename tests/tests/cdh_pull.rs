//! Images from a registry to a mounted root: Debian's `docker-registry`, `umoci`, `skopeo`, `openssl` and `gpg` on the other side. Needs root,
//! EROFS, overlays and loop devices.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "cdh_pull/fixture.rs"]
mod fixture;
#[path = "cdh_pull/killed.rs"]
mod killed;
#[path = "cdh_pull/room.rs"]
mod room;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cdh::composefs::pin::Pin;
use cdh::image::pull::PullerOptions;
use cdh::registry::Digest;
use cdh::service::Images;
use serde_json::{Value, json};
use tests::programs::{Programs, as_root};

use fixture::{
    Guest, Image, Key, Server, cosigned, descriptor, manifest_of, payload, pins, reject, run, soon,
};

const IMAGE: &str = "acme/ranker";

fn content() -> Vec<u8> {
    let mut bytes = vec![0; 3 << 20];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    bytes
}

/// A server with an image that a key signed.
async fn signed(content: &[u8]) -> (Server, Image, Key, String) {
    let (server, image, key) = (Server::start(), Image::new(content), Key::new());
    server.skopeo(&image.layout(), &format!("{IMAGE}:v1"));
    server.sign(IMAGE, &image.digest, &key, &server.name(IMAGE)).await;
    let name = server.name(&format!("{IMAGE}:v1"));
    (server, image, key, name)
}

#[test]
fn a_signed_image_is_mounted() {
    as_root(async {
        let content = content();
        let (server, image, key, name) = signed(&content).await;
        let guest = Guest::new(&server, &cosigned(&key), "");
        let pulled = guest.pull(&name).await.unwrap();
        assert_eq!(pulled.manifest_digest().to_string(), image.digest);
        assert!(pulled.accepted().is_signed());
        assert!(pulled.received() > 3 << 20);
        let event = format!(r#"{{"image":"{name}", "digest":"{}"}}"#, image.digest);
        assert_eq!(*guest.events.seen.lock().unwrap(), [event]);
        guest.assert_clean();
        let bundle = pulled.mount(&guest.bundle()).unwrap();
        let root = bundle.root().to_owned();
        assert_eq!(std::fs::read(root.join("usr/first")).unwrap(), b"a small file");
        assert!(std::fs::read(root.join("usr/second")).unwrap() == content);
        let config: Value =
            serde_json::from_slice(&std::fs::read(guest.bundle().join("config.json")).unwrap()).unwrap();
        assert_eq!(config["process"]["args"], json!(["/usr/second"]));
        assert_eq!(config["process"]["cwd"], "/usr");
        // What is written is above the image, and goes with the bundle.
        std::fs::write(root.join("usr/first"), b"other").unwrap();
        std::fs::write(root.join("new"), b"new").unwrap();
        assert_eq!(std::fs::read(root.join("usr/first")).unwrap(), b"other");
        drop(bundle);
        guest.assert_clean();

        // It is here now: nothing is fetched, and it is judged and measured again.
        let again = guest.pull(&name).await.unwrap();
        assert_eq!((again.received(), again.image_digest()), (0, pulled.image_digest()));
        assert_eq!(guest.events.seen.lock().unwrap().len(), 2);
        let bundle = again.mount(&guest.bundle()).unwrap();
        assert_eq!(std::fs::read(root.join("usr/first")).unwrap(), b"a small file");
        assert!(!root.join("new").exists());
        drop(bundle);

        // Through the service's door it stays.
        let digest = guest.puller.as_ref();
        let digest = Images::pull(digest, &name, &guest.bundle(), soon()).await.unwrap();
        assert_eq!(digest, image.digest);
        assert_eq!(std::fs::read(root.join("usr/first")).unwrap(), b"a small file");
        cdh::composefs::mount::detach(&root).unwrap();
    });
}

#[test]
fn an_image_that_gpg_signed_is_mounted() {
    as_root(async {
        let (server, image) = (Server::start(), Image::new(b"short"));
        server.skopeo(&image.layout(), &format!("{IMAGE}:v1"));
        let name = server.name(&format!("{IMAGE}:v1"));
        let home = tempfile::Builder::new().prefix("gpg").tempdir().unwrap();
        let gpg = |arguments: &[&str]| {
            let mut command = Command::new("gpg");
            command.env("GNUPGHOME", home.path()).current_dir(home.path());
            command.args(["--batch", "--quiet", "--no-tty", "--yes", "--trust-model", "always"]);
            run(command.args(["--pinentry-mode", "loopback", "--passphrase", ""]).args(arguments))
        };
        for who in ["signer", "stranger"] {
            gpg(&["--quick-generate-key", who, "ed25519", "sign", "never"]);
        }
        let text = payload("atomic container signature", &image.digest, &name);
        std::fs::write(home.path().join("payload"), text).unwrap();
        let lookaside = tempfile::tempdir().unwrap();
        let place = lookaside.path().join(format!("{IMAGE}@{}", image.digest.replace(':', "=")));
        std::fs::create_dir_all(&place).unwrap();
        let sign = |who: &str| {
            let bytes = gpg(&["--local-user", who, "--sign", "--output", "-", "payload"]);
            std::fs::write(place.join("signature-1"), bytes).unwrap();
        };
        let key = STANDARD.encode(gpg(&["--export", "signer"]));
        let policy = json!({"default": [{"type": "signedBy", "keyType": "GPGKeys", "keyData": key}], "transports": {}});
        let more = format!(
            "sigstore_config = \"\"\"\ndefault-docker:\n  lookaside: file://{}\n\"\"\"",
            lookaside.path().display()
        );
        let guest = Guest::new(&server, &policy, &more);
        assert_eq!(guest.refused(&name).await, "IMAGE_UNSIGNED");
        sign("stranger");
        assert_eq!(guest.refused(&name).await, "IMAGE_PGP_STRANGER");
        sign("signer");
        let pulled = guest.pull(&name).await.unwrap();
        let bundle = pulled.mount(&guest.bundle()).unwrap();
        assert_eq!(std::fs::read(bundle.root().join("usr/second")).unwrap(), b"short");
        drop(bundle);
        guest.assert_clean();
        let _ = Command::new("gpgconf").env("GNUPGHOME", home.path()).args(["--kill", "all"]).output();
    });
}

#[test]
fn evil_image_without_permission() {
    as_root(async {
        let (server, image, key) = (Server::start(), Image::new(&content()), Key::new());
        server.skopeo(&image.layout(), &format!("{IMAGE}:v1"));
        let name = server.name(&format!("{IMAGE}:v1"));
        let guest = Guest::new(&server, &cosigned(&key), "");
        assert_eq!(guest.refused(&name).await, "IMAGE_UNSIGNED");
        server.sign(IMAGE, &image.digest, &Key::new(), &server.name(IMAGE)).await;
        assert_eq!(guest.refused(&name).await, "IMAGE_COSIGN_BAD_SIGNATURE");
        server.sign(IMAGE, &image.digest, &key, &server.name("acme/other")).await;
        assert_eq!(guest.refused(&name).await, "IMAGE_SIGNATURE_OTHER_IDENTITY");
        // No layer was fetched for any of them.
        assert!(!guest.directory.path().join("work").exists());
        assert_eq!(Guest::new(&server, &Value::Null, "").refused(&name).await, "IMAGE_POLICY_MISSING");
        assert_eq!(Guest::new(&server, &reject(), "").refused(&name).await, "IMAGE_REJECTED");
        let uri = "image_security_policy_uri = \"kbs:///default/policy/none\"";
        let guest = Guest::new(&server, &Value::Null, uri);
        assert_eq!(guest.refused(&name).await, "CDH_OFFLINE_NO_RESOURCE");
    });
}

#[test]
fn evil_registry_moves_a_tag() {
    as_root(async {
        let content = content();
        let (server, image, key, name) = signed(&content).await;
        let other = Image::new(b"of somebody else");
        let guest = Guest::new(&server, &cosigned(&key), "");
        // Between the decision and the first byte of a layer.
        let moved = AtomicBool::new(false);
        let progress = |_: &cdh::registry::Transferred| {
            if !moved.swap(true, Ordering::Relaxed) {
                server.skopeo(&other.layout(), &format!("{IMAGE}:v1"));
            }
        };
        let pulled = guest.puller.pull(&name, soon(), &progress).await.unwrap();
        assert!(moved.load(Ordering::Relaxed));
        assert_eq!(pulled.manifest_digest().to_string(), image.digest);
        let bundle = pulled.mount(&guest.bundle()).unwrap();
        assert!(std::fs::read(bundle.root().join("usr/second")).unwrap() == content);
        drop(bundle);
        // From now on the tag is another image's, which nobody signed.
        assert_eq!(guest.refused(&name).await, "IMAGE_UNSIGNED");
    });
}

#[test]
fn evil_registry_alters_a_layer() {
    as_root(async {
        let (server, image, key, name) = signed(&content()).await;
        let digest = image.manifest["layers"].as_array().unwrap().last().unwrap()["digest"].as_str().unwrap();
        let hex = digest.strip_prefix("sha256:").unwrap();
        let blobs = server.directory.path().join("data/docker/registry/v2/blobs/sha256");
        let path = blobs.join(&hex[..2]).join(hex).join("data");
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let guest = Guest::new(&server, &cosigned(&key), "");
        assert_eq!(guest.refused(&name).await, "REGISTRY_DIGEST");
        assert!(!guest.directory.path().join("work/blobs/sha256").join(hex).exists());
    });
}

/// The digest that the guest finds, by a pin that is not it.
async fn right_pin(server: &Server, key: &Key, name: &str) -> Pin {
    let wrong = Pin::parse(&"0".repeat(64)).unwrap();
    let guest = Guest::with(server, &cosigned(key), "", false, pins(&[(name, wrong)]));
    assert_eq!(guest.refused(name).await, "COMPOSEFS_MISMATCH");
    let text = guest.pull(name).await.unwrap_err().to_string();
    let at = text.rfind("v1-sha256-12:").unwrap();
    Pin::parse(text[at..].split_whitespace().next().unwrap()).unwrap()
}

#[test]
fn evil_pin_of_the_operator_beside_one_of_the_image() {
    as_root(async {
        let (server, image, key, name) = signed(&content()).await;
        let right = right_pin(&server, &key, &name).await;
        let wrong = Pin::parse(&"0".repeat(64)).unwrap();
        let repository = server.name(IMAGE);
        let guest = Guest::with(&server, &cosigned(&key), "", false, pins(&[(&repository, right)]));
        assert_eq!(guest.pull(&name).await.unwrap().image_digest(), right);

        // One of the image: an annotation that its signer vouches for. Every one that there is has to hold.
        for (tag, own, operator, code) in [
            ("right", right, right, ""),
            ("own", wrong, right, "COMPOSEFS_MISMATCH"),
            ("operator", right, wrong, "COMPOSEFS_MISMATCH"),
        ] {
            let value = own.to_string().replace("v1-sha256-12:", "");
            let annotations = json!({"composefs.merged.erofs.v1.fsverity-sha256-12": value});
            let (manifest, blobs) = image.annotated(&annotations);
            server.put(&format!("{IMAGE}:{tag}"), &manifest, &blobs).await;
            server.sign(IMAGE, &Digest::of(&manifest).to_string(), &key, &repository).await;
            let name = server.name(&format!("{IMAGE}:{tag}"));
            let options = pins(&[(&repository, operator)]);
            let guest = Guest::with(&server, &cosigned(&key), "", false, options);
            if code.is_empty() {
                assert_eq!(guest.pull(&name).await.unwrap().image_digest(), right);
            } else {
                assert_eq!(guest.refused(&name).await, code, "{tag}");
            }
        }
    });
}

#[test]
fn evil_kept_image_under_another_pin() {
    as_root(async {
        let (server, image, key, name) = signed(&content()).await;
        let right = right_pin(&server, &key, &name).await;
        let guest = Guest::with(&server, &cosigned(&key), "", false, pins(&[(&name, right)]));
        guest.pull(&name).await.unwrap();
        // The same configuration under a manifest with a pin of its own.
        let annotations = json!({"composefs.merged.erofs.v1.fsverity-sha256-12": "0".repeat(64)});
        let (manifest, blobs) = image.annotated(&annotations);
        server.put(&format!("{IMAGE}:v2"), &manifest, &blobs).await;
        server.sign(IMAGE, &Digest::of(&manifest).to_string(), &key, &server.name(IMAGE)).await;
        assert_eq!(guest.refused(&server.name(&format!("{IMAGE}:v2"))).await, "COMPOSEFS_MISMATCH");
        assert_eq!(guest.pull(&name).await.unwrap().received(), 0, "it is still kept");
    });
}

#[test]
fn evil_kept_image_that_the_policy_rejects_now() {
    as_root(async {
        let (server, _image, key, name) = signed(&content()).await;
        let guest = Guest::new(&server, &cosigned(&key), "");
        guest.pull(&name).await.unwrap();
        guest.set_policy(&reject());
        assert_eq!(guest.refused(&name).await, "IMAGE_REJECTED");
        guest.set_policy(&cosigned(&Key::new()));
        assert_eq!(guest.refused(&name).await, "IMAGE_COSIGN_BAD_SIGNATURE");
        guest.set_policy(&cosigned(&key));
        assert_eq!(guest.pull(&name).await.unwrap().received(), 0);
    });
}

#[test]
fn evil_image_that_cannot_be_measured() {
    as_root(async {
        let (server, _image, key, name) = signed(b"x").await;
        let guest = Guest::with(&server, &cosigned(&key), "", true, PullerOptions::default());
        assert_eq!(guest.refused(&name).await, "PULL_MEASURE");
    });
}

/// The last layer of an image as ocicrypt encrypts it, for the key `kbs:///default/key/layer`.
fn encrypted(image: &Image, kek: &[u8; 32], nonce: &[u8; 16]) -> (Vec<u8>, Vec<Vec<u8>>) {
    let hex = |bytes: &[u8]| hex::encode(bytes);
    let mut layers = image.manifest["layers"].as_array().unwrap().clone();
    let last = layers.last_mut().unwrap();
    let plaintext = image.blob(last);
    let work = tempfile::tempdir().unwrap();
    std::fs::write(work.path().join("plain"), &plaintext).unwrap();
    let key = [9; 32];
    let openssl = |arguments: &[&str]| run(Command::new("openssl").current_dir(work.path()).args(arguments));
    let ciphertext = openssl(&["enc", "-aes-256-ctr", "-K", &hex(&key), "-iv", &hex(nonce), "-in", "plain"]);
    std::fs::write(work.path().join("cipher"), &ciphertext).unwrap();
    let option = format!("hexkey:{}", hex(&key));
    let mac = openssl(&["dgst", "-sha256", "-mac", "HMAC", "-macopt", &option, "-binary", "cipher"]);
    let private = json!({
        "symkey": STANDARD.encode(key),
        "digest": Digest::of(&plaintext).to_string(),
        "cipheroptions": {"nonce": STANDARD.encode(nonce)},
    });
    let mut wrapped = private.to_string().into_bytes();
    let sealing = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, kek).unwrap());
    sealing
        .seal_in_place_append_tag(Nonce::assume_unique_for_key([5; 12]), Aad::empty(), &mut wrapped)
        .unwrap();
    let packet = json!({
        "kid": "kbs:///default/key/layer",
        "wrapped_data": STANDARD.encode(wrapped),
        "iv": STANDARD.encode([5; 12]),
        "wrap_type": "A256GCM",
    });
    let public =
        json!({"cipher": "AES_256_CTR_HMAC_SHA256", "hmac": STANDARD.encode(mac), "cipheroptions": {}});
    let media_type = format!("{}+encrypted", last["mediaType"].as_str().unwrap());
    *last = descriptor(&media_type, &ciphertext);
    last["annotations"] = json!({
        "org.opencontainers.image.enc.pubopts": STANDARD.encode(public.to_string()),
        "org.opencontainers.image.enc.keys.provider.attestation-agent": STANDARD.encode(packet.to_string()),
    });
    let manifest = manifest_of(&image.manifest["config"], &layers, &json!({}));
    let mut blobs: Vec<_> = layers[..layers.len() - 1].iter().map(|layer| image.blob(layer)).collect();
    blobs.extend([ciphertext, image.blob(&image.manifest["config"])]);
    (manifest, blobs)
}

#[test]
fn evil_encrypted_image_without_its_key() {
    as_root(async {
        let content = content();
        let (server, image, key) = (Server::start(), Image::new(&content), Key::new());
        let kek = [3; 32];
        let (manifest, blobs) = encrypted(&image, &kek, &[1; 16]);
        server.put(&format!("{IMAGE}:v1"), &manifest, &blobs).await;
        let name = server.name(&format!("{IMAGE}:v1"));
        let options = PullerOptions { keep_layers: true, ..PullerOptions::default() };
        let guest = Guest::with(&server, &cosigned(&key), "", false, options);
        guest.set("key/layer", &kek);
        // The policy comes before any key.
        assert_eq!(guest.refused(&name).await, "IMAGE_UNSIGNED");
        server.sign(IMAGE, &Digest::of(&manifest).to_string(), &key, &server.name(IMAGE)).await;
        guest.set("key/layer", &[4; 32]);
        assert_eq!(guest.refused(&name).await, "OCICRYPT_UNWRAP");
        assert!(!guest.directory.path().join("work").exists(), "no layer is fetched without its key");
        guest.set("key/layer", &kek);
        let pulled = guest.pull(&name).await.unwrap();
        let bundle = pulled.mount(&guest.bundle()).unwrap();
        assert!(std::fs::read(bundle.root().join("usr/second")).unwrap() == content);
        drop(bundle);
        // What lies in the store is ciphertext.
        let stored = guest.directory.path().join("work/blobs/sha256");
        assert!(stored.join(Digest::of(&blobs[blobs.len() - 2]).hex()).exists());
        // A key that was taken back counts for what is kept, too.
        std::fs::remove_file(guest.directory.path().join("resources/default/key/layer")).unwrap();
        assert_eq!(guest.refused(&name).await, "OCICRYPT_UNWRAP");
    });
}

#[test]
fn evil_bundle_that_is_not_empty() {
    as_root(async {
        let (server, _image, key, name) = signed(b"x").await;
        let guest = Guest::new(&server, &cosigned(&key), "");
        let pulled = guest.pull(&name).await.unwrap();
        for occupied in ["rootfs", "config.json"] {
            let path = guest.bundle().join(occupied);
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join("of-somebody"), b"x").unwrap();
            assert_eq!(pulled.mount(&guest.bundle()).unwrap_err().code(), "PULL_BUNDLE");
            assert_eq!(std::fs::read(path.join("of-somebody")).unwrap(), b"x");
            std::fs::remove_dir_all(&path).unwrap();
            guest.assert_clean();
        }
        let link = guest.directory.path().join("link");
        std::os::unix::fs::symlink(guest.bundle(), &link).unwrap();
        assert_eq!(pulled.mount(&link).unwrap_err().code(), "PULL_BUNDLE");
        guest.assert_clean();
    });
}

#[test]
fn a_pull_that_is_late_says_how_far_it_was() {
    as_root(async {
        let (server, _image, key, name) = signed(&content()).await;
        let guest = Guest::new(&server, &cosigned(&key), "");
        // The first byte of a layer comes, and then nobody has time.
        let progress = |_: &cdh::registry::Transferred| std::thread::sleep(Duration::from_millis(1500));
        let deadline = tokio::time::Instant::now() + Duration::from_millis(1500);
        let error = guest.puller.pull(&name, deadline, &progress).await.unwrap_err();
        assert_eq!(error.code(), "PULL_DEADLINE");
        let text = error.to_string();
        assert!(text.contains(" bytes of layers here") && !text.contains(" of 0 bytes"), "{text}");
        guest.assert_clean();
        assert!(guest.events.seen.lock().unwrap().is_empty());
        // What is there by then is continued.
        guest.pull(&name).await.unwrap();
    });
}

#[test]
fn a_pull_that_is_dropped_leaves_nothing() {
    as_root(async {
        let (server, image, key, name) = signed(&content()).await;
        let (mut dropped, mut done) = (0, 0);
        for pause in (0..60).map(|step| Duration::from_millis(5 * step)) {
            let guest = Guest::new(&server, &cosigned(&key), "");
            let path = guest.bundle();
            let pull = Images::pull(&*guest.puller, &name, &path, soon());
            match tokio::time::timeout(pause, pull).await {
                Ok(digest) => {
                    done += 1;
                    assert_eq!(digest.unwrap(), image.digest);
                    cdh::composefs::mount::detach(&guest.bundle().join("rootfs")).unwrap();
                }
                Err(_) => {
                    dropped += 1;
                    // A thread that is mounting takes back what it mounted when it has.
                    for _ in 0..500 {
                        if guest.is_clean() {
                            break;
                        }
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    guest.assert_clean();
                    guest.pull(&name).await.unwrap();
                }
            }
        }
        assert!(dropped > 0 && done > 0, "{dropped} dropped, {done} done");
    });
}

#[test]
fn pulls_of_one_image_at_a_time_fetch_it_once() {
    as_root(async {
        let (server, _image, key, name) = signed(&content()).await;
        let guest = Arc::new(Guest::new(&server, &cosigned(&key), ""));
        let pulls = [0; 4].map(|_| {
            let (guest, name) = (Arc::clone(&guest), name.clone());
            tokio::spawn(async move { guest.pull(&name).await.unwrap().received() })
        });
        let mut fetched = 0;
        for pull in pulls {
            fetched += usize::from(pull.await.unwrap() > 0);
        }
        assert_eq!(fetched, 1);
    });
}

/// A hub as a process, without a platform; dropped, it ends.
struct Hub(std::process::Child);

impl Drop for Hub {
    fn drop(&mut self) {
        // The process is ours.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_program_pulls_for_its_peers() {
    use protocol::api;
    as_root(async {
        let (server, image, key, name) = signed(b"for the program").await;
        let work = tempfile::tempdir().unwrap();
        let path = |name: &str| work.path().join(name);
        let bundle = path("bundle");
        std::fs::create_dir(&bundle).unwrap();
        let config = format!(
            "socket = \"unix://{}\"\n[image]\nwork_dir = \"{}\"\nimage_security_policy = '''{}'''\n\
             [[image.registry_config.registry]]\nlocation = \"{}\"\ninsecure = true\n",
            path("cdh.sock").display(),
            path("work").display(),
            cosigned(&key),
            server.authority
        );
        std::fs::write(path("cdh.toml"), config).unwrap();
        let mut command = Programs::built().command("confidential-data-hub", work.path());
        command.args(["--insecure-sample", "--insecure-unbound-config", "-c"]).arg(path("cdh.toml"));
        command.stdin(std::process::Stdio::null()).stderr(std::fs::File::create(path("log")).unwrap());
        let _hub = Hub(command.spawn().unwrap());
        let start = std::time::Instant::now();
        while std::os::unix::net::UnixStream::connect(path("cdh.sock")).is_err() {
            let said = std::fs::read_to_string(path("log")).unwrap();
            assert!(start.elapsed() < Duration::from_secs(60), "the hub does not listen: {said}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let socket = format!("unix://{}", path("cdh.sock").display());
        let client =
            api::ImagePullServiceClient::new(ttrpc::asynchronous::Client::connect(&socket).await.unwrap());
        let pull = |image: &str| {
            let (image_url, client) = (image.to_owned(), client.clone());
            let bundle_path = bundle.to_str().unwrap().to_owned();
            async move {
                let request = api::ImagePullRequest { image_url, bundle_path, ..Default::default() };
                let context = ttrpc::context::with_timeout(60_000_000_000);
                client.pull_image(context, &request).await
            }
        };
        let other = Image::new(b"unsigned");
        server.skopeo(&other.layout(), &format!("{IMAGE}:unsigned"));
        let refusal = pull(&server.name(&format!("{IMAGE}:unsigned"))).await.unwrap_err().to_string();
        assert!(refusal.contains("IMAGE_UNSIGNED: expected a signature that default demands"), "{refusal}");
        assert_eq!(std::fs::read_dir(&bundle).unwrap().count(), 0);
        let answer = pull(&name).await.unwrap();
        assert_eq!(answer.manifest_digest, image.digest);
        let root = bundle.join("rootfs");
        assert_eq!(std::fs::read(root.join("usr/second")).unwrap(), b"for the program");
        assert!(bundle.join("config.json").exists());
        cdh::composefs::mount::detach(&root).unwrap();
    });
}
