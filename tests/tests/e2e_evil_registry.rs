//! What a thief, a registry or a mirror can do to stored bytes. Each attack goes through the real commands, and each test asserts the exit
//! status, the code, that the consumer never ran and that nothing appeared.

#![expect(clippy::unwrap_used, reason = "tests")]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::path::Path;
use tests::args;
use tests::layout::{ARTIFACT, GRANT, Layout, SIGNATURE, canonical, flip};
use tests::payload::Payload;
use tests::scene::{Artifact, Carrier, ENVIRONMENT, Pin, Scene, SealSpec, UnsealSpec};
use tests::sealed::SealedFile;
use tests::{DAMAGED, REFUSED};

const PATHS: [&str; 3] = ["key-release", "dma-sealed", "dma-direct"];

/// A scene with one signed artifact of one payload in a layout, granted; and a way to make altered copies.
struct Theft {
    scene: Scene,
    artifact: Artifact,
    payload: Payload,
}

impl Theft {
    fn new() -> Self {
        let scene = Scene::start();
        // 16 segments, the last one shorter.
        let payload = Payload::random(100, 1_000_000);
        let artifact = scene.sealed("store", &payload, &SealSpec::default());
        Self { scene, artifact, payload }
    }

    /// A copy of the layout, altered.
    fn altered(&self, name: &str, alter: impl FnOnce(&Layout)) -> Artifact {
        let copy = Layout::at(&self.artifact.reference).copy(&self.scene.work.join(name));
        alter(&copy);
        self.artifact.at(copy.path())
    }

    /// An artifact whose core was altered, with a key file that names the altered core: what a holder of the key can write.
    fn with_key_for(&self, altered: Artifact) -> Artifact {
        let core = Layout::at(&altered.reference).core_digest();
        let text = std::fs::read_to_string(&self.artifact.key).unwrap();
        let text = text.replace(&self.artifact.core, &core);
        let key = self
            .scene
            .work
            .write(Path::new(altered.reference.file_name().unwrap()).with_extension("key"), text);
        Artifact { core, key, ..altered }
    }

    #[track_caller]
    fn refused(&self, name: &str, alter: impl FnOnce(&Layout), status: i32, code: &str) {
        let altered = self.altered(name, alter);
        self.scene.assert_refused(&altered, &UnsealSpec::default(), status, code);
    }

    /// Refused alike on every data path, with the code of each.
    #[track_caller]
    fn refused_on_every_path(&self, name: &str, alter: impl FnOnce(&Layout), refusals: [(i32, &str); 3]) {
        let altered = self.altered(name, alter);
        for (path, (status, code)) in PATHS.into_iter().zip(refusals) {
            self.scene.assert_refused(&altered, &UnsealSpec::by(path), status, code);
        }
        // The original still lands: it was the alteration that was refused, and the chip took no harm.
        self.scene.assert_lands(&self.artifact, &UnsealSpec::default(), &self.payload);
    }
}

#[test]
fn evil_registry_flipped_ciphertext_bit() {
    let theft = Theft::new();
    for (name, offset) in [("first", 0), ("middle", 500_000), ("last", 999_999)] {
        theft.refused_on_every_path(
            name,
            |copy| flip(&copy.payload(0), offset),
            [
                (DAMAGED, "SEGMENT_AUTH_FAILED"),
                (DAMAGED, "CHIP_SEGMENT_AUTH"),
                (DAMAGED, "CHIP_SEGMENT_AUTH"),
            ],
        );
    }
}

#[test]
fn evil_registry_flipped_tag_table_bit() {
    let theft = Theft::new();
    theft.refused_on_every_path(
        "tags",
        |copy| flip(&copy.tags(0), 17),
        [(DAMAGED, "TAG_TABLE_MISMATCH"), (DAMAGED, "CHIP_TAGS_MISMATCH"), (DAMAGED, "CHIP_TAGS_MISMATCH")],
    );
}

#[test]
fn evil_registry_truncated_and_extended_blobs() {
    let theft = Theft::new();
    let resize = |path: &Path, length: u64| {
        std::fs::File::options().write(true).open(path).unwrap().set_len(length).unwrap()
    };
    for (name, length) in
        [("empty", 0), ("segment", 983_040), ("byte", 999_999), ("more", 1_000_001), ("sparse", 1 << 40)]
    {
        let name = format!("payload-{name}");
        theft.refused(&name, |copy| resize(&copy.payload(0), length), DAMAGED, "LENGTH_MISMATCH");
    }
    for (name, length) in [("empty", 0), ("tag", 240), ("byte", 255), ("more", 257), ("sparse", 1 << 40)] {
        let name = format!("tags-{name}");
        theft.refused(&name, |copy| resize(&copy.tags(0), length), DAMAGED, "LENGTH_MISMATCH");
    }
}

#[test]
fn evil_registry_missing_blobs() {
    let theft = Theft::new();
    let remove = |path: &Path| std::fs::remove_file(path).unwrap();
    theft.refused("payload", |copy| remove(&copy.payload(0)), DAMAGED, "CARRIER_CORRUPT");
    theft.refused("tags", |copy| remove(&copy.tags(0)), DAMAGED, "CARRIER_CORRUPT");
    theft.refused(
        "core",
        |copy| remove(&copy.blob_path(&copy.manifest(ARTIFACT)["config"])),
        DAMAGED,
        "CARRIER_CORRUPT",
    );
    theft.refused(
        "manifest",
        |copy| remove(&copy.blob_path(&copy.descriptors(ARTIFACT)[0])),
        DAMAGED,
        "CARRIER_CORRUPT",
    );
}

#[test]
fn evil_registry_symlinked_blobs() {
    let theft = Theft::new();
    let link = |path: &Path| {
        let aside = path.with_extension("aside");
        std::fs::rename(path, &aside).unwrap();
        std::os::unix::fs::symlink(&aside, path).unwrap();
    };
    theft.refused("payload", |copy| link(&copy.payload(0)), DAMAGED, "CARRIER_CORRUPT");
    theft.refused("tags", |copy| link(&copy.tags(0)), DAMAGED, "CARRIER_CORRUPT");
    theft.refused(
        "core",
        |copy| link(&copy.blob_path(&copy.manifest(ARTIFACT)["config"])),
        DAMAGED,
        "CARRIER_CORRUPT",
    );
}

#[test]
fn evil_registry_blobs_that_are_no_files() {
    let theft = Theft::new();
    let fifo = |path: &Path| {
        std::fs::remove_file(path).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o644);
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    };
    theft.refused("payload", |copy| fifo(&copy.payload(0)), DAMAGED, "CARRIER_CORRUPT");
    theft.refused("index", |copy| fifo(&copy.path().join("index.json")), DAMAGED, "CARRIER_CORRUPT");
}

#[test]
fn evil_registry_swapped_and_spliced_payloads() {
    let scene = Scene::start();
    let payloads = [101, 102].map(|seed| Payload::random(seed, 200_000));
    let inputs = [scene.input("one.bin", &payloads[0]), scene.input("two.bin", &payloads[1])];
    let inputs: Vec<_> = inputs.iter().map(|path| path.as_path()).collect();
    let artifact = scene.seal("store", &inputs, &SealSpec::default());
    scene.grant_usual(&artifact);
    let original = Layout::at(&artifact.reference);
    let attempt = |name: &str, alter: &dyn Fn(&Layout), code: &str| {
        let copy = original.copy(&scene.work.join(name));
        alter(&copy);
        scene.assert_refused(&artifact.at(copy.path()), &UnsealSpec::default(), DAMAGED, code);
    };
    let exchange = |left: &Path, right: &Path| {
        let aside = left.with_extension("aside");
        std::fs::rename(left, &aside).unwrap();
        std::fs::rename(right, left).unwrap();
        std::fs::rename(&aside, right).unwrap();
    };
    attempt("ciphertexts", &|copy| exchange(&copy.payload(0), &copy.payload(1)), "SEGMENT_AUTH_FAILED");
    attempt("tables", &|copy| exchange(&copy.tags(0), &copy.tags(1)), "TAG_TABLE_MISMATCH");
    let both = |copy: &Layout| {
        exchange(&copy.payload(0), &copy.payload(1));
        exchange(&copy.tags(0), &copy.tags(1));
    };
    attempt("both", &both, "TAG_TABLE_MISMATCH");
    let position = original.positions(ARTIFACT)[0];
    let reorder = |copy: &Layout| {
        copy.alter_manifest(position, |manifest| {
            let layers = manifest["layers"].as_array_mut().unwrap();
            layers.swap(0, 1);
            layers.swap(2, 3);
        });
    };
    attempt("descriptors", &reorder, "TAG_TABLE_MISMATCH");
    // A segment of one payload at the same place of the other, and two segments of one exchanged.
    let splice = |copy: &Layout| {
        let (from, mut into) =
            (std::fs::read(copy.payload(1)).unwrap(), std::fs::read(copy.payload(0)).unwrap());
        into[65_536..131_072].copy_from_slice(&from[65_536..131_072]);
        std::fs::write(copy.payload(0), into).unwrap();
    };
    attempt("splice", &splice, "SEGMENT_AUTH_FAILED");
    let reordered = |copy: &Layout| {
        let mut bytes = std::fs::read(copy.payload(0)).unwrap();
        let (left, right) = bytes.split_at_mut(65_536);
        left.swap_with_slice(&mut right[..65_536]);
        std::fs::write(copy.payload(0), bytes).unwrap();
    };
    attempt("segments", &reordered, "SEGMENT_AUTH_FAILED");
}

#[test]
fn evil_registry_altered_core_under_a_pinned_sealer() {
    let theft = Theft::new();
    type Alteration = (&'static str, fn(&mut Value));
    let alterations: [Alteration; 6] = [
        ("counter", |core| core["parameters"]["counter"] = json!(9)),
        ("id", |core| core["parameters"]["id"] = json!("0".repeat(64))),
        ("commitment", |core| core["payloads"][0]["commitment"] = json!("1".repeat(64))),
        ("tags", |core| core["payloads"][0]["tags"] = json!(format!("sha256:{}", "2".repeat(64)))),
        ("size", |core| core["parameters"]["payloads"][0]["size"] = json!(999_999)),
        ("digest", |core| drop(core["payloads"][0].as_object_mut().unwrap().remove("blake3"))),
    ];
    for (name, alter) in alterations {
        theft.refused(name, |copy| copy.alter_core(alter), DAMAGED, "SIGNATURE_INVALID");
    }
}

#[test]
fn evil_registry_altered_core_under_a_pinned_digest() {
    let theft = Theft::new();
    let altered =
        theft.altered("id", |copy| copy.alter_core(|core| core["parameters"]["id"] = json!("0".repeat(64))));
    let spec = UnsealSpec { pin: Pin::Core(theft.artifact.core.clone()), ..UnsealSpec::default() };
    theft.scene.assert_refused(&altered, &spec, REFUSED, "ORIGIN_UNPROVEN");
    theft.scene.assert_lands(&theft.artifact, &spec, &theft.payload);
}

#[test]
fn evil_thief_key_guess_with_an_altered_commitment() {
    // The victim even pinned the altered core, and the thief holds the key and granted it: the commitment is what is left.
    let theft = Theft::new();
    let altered = theft.altered("commitment", |copy| {
        copy.alter_core(|core| core["payloads"][0]["commitment"] = json!("1".repeat(64)));
        copy.drop_manifests(GRANT);
    });
    let altered = theft.with_key_for(altered);
    let policy = theft.scene.policy("again.toml", ENVIRONMENT, "any", 5);
    let arguments = theft.scene.grant_arguments(&altered, &policy, &args!["--allow-weak-policy"]);
    theft.scene.innerkeep.attempt(&arguments).assert_refused(DAMAGED, "COMMITMENT_MISMATCH");
    assert_eq!(Layout::at(&altered.reference).grants().len(), 0);
}

#[test]
fn evil_registry_ambiguous_cores() {
    let theft = Theft::new();
    let refused = |name: &str, alter: &dyn Fn(Vec<u8>) -> Vec<u8>, code: &str| {
        theft.refused(name, |copy| copy.alter_core_bytes(alter), DAMAGED, code);
    };
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let insert =
        |member: &'static str| move |bytes| text(bytes).replacen("\"parameters\"", member, 1).into_bytes();
    refused("unknown", &insert("\"approved\":true,\"parameters\""), "MALFORMED");
    refused("repeated", &insert("\"@type\":\"innerkeep core v1\",\"parameters\""), "MALFORMED");
    refused(
        "space",
        &|mut bytes| {
            bytes.push(b'\n');
            bytes
        },
        "NOT_CANONICAL",
    );
    refused(
        "order",
        &|bytes| {
            text(bytes)
                .replacen(
                    "\"counter\":7,\"environment\":\"development\"",
                    "\"environment\":\"development\",\"counter\":7",
                    1,
                )
                .into_bytes()
        },
        "NOT_CANONICAL",
    );
    refused("escape", &|bytes| text(bytes).replacen("acme", "\\u0061cme", 1).into_bytes(), "NOT_CANONICAL");
    refused(
        "float",
        &|bytes| text(bytes).replacen("\"counter\":7", "\"counter\":7.0", 1).into_bytes(),
        "MALFORMED",
    );
    refused(
        "trailing",
        &|mut bytes| {
            bytes.extend(b"{}");
            bytes
        },
        "MALFORMED",
    );
    refused("empty", &|_| Vec::new(), "MALFORMED");
    refused("version", &|bytes| text(bytes).replacen("core v1", "core v2", 1).into_bytes(), "MALFORMED");
    refused("deep", &|_| [b"[".repeat(9), b"]".repeat(9)].concat(), "LIMIT_EXCEEDED");
}

#[test]
fn evil_registry_oversize_objects() {
    let theft = Theft::new();
    let pad = |path: &Path, length: usize| std::fs::write(path, vec![b' '; length]).unwrap();
    const MIB: usize = 1 << 20;
    theft.refused(
        "index",
        |copy| pad(&copy.path().join("index.json"), 4 * MIB + 1),
        DAMAGED,
        "LIMIT_EXCEEDED",
    );
    theft.refused(
        "manifest",
        |copy| pad(&copy.blob_path(&copy.descriptors(ARTIFACT)[0]), 4 * MIB + 1),
        DAMAGED,
        "LIMIT_EXCEEDED",
    );
    theft.refused(
        "core",
        |copy| pad(&copy.blob_path(&copy.manifest(ARTIFACT)["config"]), 262_145),
        DAMAGED,
        "LIMIT_EXCEEDED",
    );
    theft.refused(
        "signature",
        |copy| pad(&copy.blob_path(&copy.manifest(SIGNATURE)["layers"][0]), 4_097),
        DAMAGED,
        "LIMIT_EXCEEDED",
    );
    // Anybody can put objects beside an artifact: what is not a grant is passed over.
    theft.refused(
        "grant",
        |copy| pad(&copy.blob_path(&copy.manifest(GRANT)["layers"][0]), 131_073),
        REFUSED,
        "NO_GRANT_FOR_CHIP",
    );
    // Huge without a byte on disk: no allocation may follow the length.
    let sparse =
        |path: &Path| std::fs::File::options().write(true).open(path).unwrap().set_len(1 << 42).unwrap();
    theft.refused("sparse-index", |copy| sparse(&copy.path().join("index.json")), DAMAGED, "LIMIT_EXCEEDED");
    theft.refused(
        "sparse-core",
        |copy| sparse(&copy.blob_path(&copy.manifest(ARTIFACT)["config"])),
        DAMAGED,
        "LIMIT_EXCEEDED",
    );
    theft.refused(
        "sparse-grant",
        |copy| sparse(&copy.blob_path(&copy.manifest(GRANT)["layers"][0])),
        REFUSED,
        "NO_GRANT_FOR_CHIP",
    );
}

#[test]
fn evil_registry_broken_index_and_manifest() {
    let theft = Theft::new();
    let write = |path: &Path, text: &str| std::fs::write(path, text).unwrap();
    theft.refused("no-json", |copy| write(&copy.path().join("index.json"), "{"), DAMAGED, "MALFORMED");
    theft.refused(
        "no-list",
        |copy| write(&copy.path().join("index.json"), "{\"manifests\":3,\"schemaVersion\":2}"),
        DAMAGED,
        "MALFORMED",
    );
    theft.refused(
        "nobody",
        |copy| write(&copy.path().join("index.json"), "{\"manifests\":[],\"schemaVersion\":2}"),
        DAMAGED,
        "NOT_FOUND",
    );
    theft.refused(
        "manifest",
        |copy| write(&copy.blob_path(&copy.descriptors(ARTIFACT)[0]), "[]"),
        DAMAGED,
        "CARRIER_CORRUPT",
    );
    let position = 0;
    let layers = |copy: &Layout| {
        copy.alter_manifest(copy.positions(ARTIFACT)[position], |manifest| {
            manifest["layers"].as_array_mut().unwrap().pop();
        });
    };
    theft.refused("layers", layers, DAMAGED, "MALFORMED");
}

#[test]
fn evil_registry_path_in_a_digest() {
    // A digest that is a path would read, or write, outside the layout.
    let theft = Theft::new();
    for (name, digest) in [
        ("up", "sha256:../../../../../../etc/passwd"),
        ("short", "sha256:00"),
        ("upper", "sha256:ABCDEFABCDEFABCDEFABCDEFABCDEFABCDEFABCDEFABCDEFABCDEFABCDEFABCD"),
        (
            "algorithm",
            "sha512:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ),
    ] {
        let alter = |copy: &Layout| {
            copy.alter_manifest(copy.positions(ARTIFACT)[0], |manifest| {
                manifest["config"]["digest"] = json!(digest)
            });
        };
        theft.refused(name, alter, DAMAGED, "MALFORMED");
    }
}

#[test]
fn evil_registry_unsigned_core() {
    let scene = Scene::start();
    let payload = Payload::random(103, 100_000);
    // Not signed at all.
    let unsigned = scene.sealed("unsigned", &payload, &SealSpec { signed: false, ..SealSpec::default() });
    scene.assert_refused(&unsigned, &UnsealSpec::default(), REFUSED, "ORIGIN_UNPROVEN");
    // Signed by a stranger, sealed to the same chip's public key.
    let stranger = scene.work.join("stranger.pem");
    scene.innerkeep.run(&args!["key", "new", "--output", &stranger]);
    let more = args!["--sealer-key", &stranger];
    let foreign = scene.sealed("foreign", &payload, &SealSpec { signed: false, more, ..SealSpec::default() });
    scene.assert_refused(&foreign, &UnsealSpec::default(), REFUSED, "ORIGIN_UNPROVEN");
    // The signature taken away.
    let signed = scene.sealed("signed", &payload, &SealSpec::default());
    let copy = Layout::at(&signed.reference).copy(&scene.work.join("stripped"));
    copy.drop_manifests(SIGNATURE);
    scene.assert_refused(&signed.at(copy.path()), &UnsealSpec::default(), REFUSED, "ORIGIN_UNPROVEN");
    // The family of somebody else.
    let other = scene.work.join("other-family");
    let spec = SealSpec { family: "acme/other".into(), ..SealSpec::default() };
    let input = scene.input("model.bin", &payload);
    let other_family = scene.seal("other-family", &[&input], &spec);
    scene.grant_usual(&other_family);
    scene.assert_refused(&other_family, &UnsealSpec::default(), REFUSED, "ORIGIN_UNPROVEN");
    assert!(other.is_dir());
}

#[test]
fn evil_registry_forged_signature() {
    let theft = Theft::new();
    let flip_signature = |object: &mut Value| {
        let mut bytes = STANDARD.decode(object["signature"].as_str().unwrap()).unwrap();
        bytes[10] ^= 1;
        object["signature"] = json!(STANDARD.encode(bytes));
    };
    theft.refused("flipped", |copy| copy.alter_signature(flip_signature), DAMAGED, "SIGNATURE_INVALID");
    let zero = |object: &mut Value| object["signature"] = json!(STANDARD.encode([0; 96]));
    theft.refused("zero", |copy| copy.alter_signature(zero), DAMAGED, "SIGNATURE_INVALID");
    let elsewhere = |object: &mut Value| object["core"] = json!(format!("sha256:{}", "0".repeat(64)));
    theft.refused("elsewhere", |copy| copy.alter_signature(elsewhere), DAMAGED, "SIGNATURE_INVALID");
}

#[test]
fn evil_registry_no_pin_lands_nothing() {
    let theft = Theft::new();
    let spec = UnsealSpec { pin: Pin::Arguments(Vec::new()), ..UnsealSpec::default() };
    theft.scene.assert_refused(&theft.artifact, &spec, REFUSED, "NO_PIN");
}

#[test]
fn evil_registry_rollback_below_the_pinned_minimum() {
    let scene = Scene::start();
    let payload = Payload::random(104, 100_000);
    let artifact = scene.sealed("store", &payload, &SealSpec { counter: 6, ..SealSpec::default() });
    scene.assert_refused(
        &artifact,
        &UnsealSpec { pin: Pin::Sealer(7), ..UnsealSpec::default() },
        REFUSED,
        "ROLLBACK",
    );
    scene.assert_lands(&artifact, &UnsealSpec { pin: Pin::Sealer(6), ..UnsealSpec::default() }, &payload);
}

#[test]
fn evil_registry_rollback_after_a_higher_counter_landed() {
    let mut scene = Scene::start();
    let old_payload = Payload::random(105, 100_000);
    let new_payload = Payload::random(106, 100_000);
    let old = scene.sealed("old", &old_payload, &SealSpec { counter: 6, ..SealSpec::default() });
    let new = scene.sealed("new", &new_payload, &SealSpec { counter: 8, ..SealSpec::default() });
    scene.assert_lands(&old, &UnsealSpec::default(), &old_payload);
    scene.assert_lands(&new, &UnsealSpec::default(), &new_payload);
    scene.assert_refused(&old, &UnsealSpec::default(), REFUSED, "CHIP_ROLLBACK");
    // Pinned by digest, the old one is what its owner wants: the chip's floor says no all the same.
    let spec = UnsealSpec { pin: Pin::Core(old.core.clone()), ..UnsealSpec::default() };
    scene.assert_refused(&old, &spec, REFUSED, "CHIP_ROLLBACK");
    // A power cut does not lower the floor.
    scene.restart_chip(&tests::emulator::Emulator::INSECURE.map(std::ffi::OsString::from));
    scene.assert_refused(&old, &UnsealSpec::default(), REFUSED, "CHIP_ROLLBACK");
    scene.assert_lands(&new, &UnsealSpec::default(), &new_payload);
}

#[test]
fn evil_registry_stranger_raises_no_floor() {
    // Anybody can seal to the chip's public key with a counter as high as they like; that must not lock the owner out.
    let scene = Scene::start();
    let payload = Payload::random(107, 100_000);
    let artifact = scene.sealed("store", &payload, &SealSpec::default());
    let stranger = scene.work.join("stranger.pem");
    scene.innerkeep.run(&args!["key", "new", "--output", &stranger]);
    for (name, more) in [("foreign", args!["--sealer-key", &stranger]), ("unsigned", Vec::new())] {
        let spec = SealSpec { signed: false, counter: 1 << 40, more, ..SealSpec::default() };
        let foreign = scene.sealed(name, &payload, &spec);
        let spec = UnsealSpec { pin: Pin::Core(foreign.core.clone()), ..UnsealSpec::default() };
        scene.assert_lands(&foreign, &spec, &payload);
    }
    scene.assert_lands(&artifact, &UnsealSpec::default(), &payload);
}

#[test]
fn evil_thief_altered_preimage() {
    let theft = Theft::new();
    let altered = theft.altered("preimage", |copy| {
        copy.alter_grant(0, |grant| {
            let preimage =
                String::from_utf8(STANDARD.decode(grant["policy"].as_str().unwrap()).unwrap()).unwrap();
            let preimage = preimage.replace("\"min_counter\":5", "\"min_counter\":6");
            grant["policy"] = json!(STANDARD.encode(preimage));
        });
    });
    theft.scene.assert_refused(&altered, &UnsealSpec::default(), REFUSED, "CHIP_UNWRAP_FAILED");
}

#[test]
fn evil_thief_policy_of_another_grant() {
    let theft = Theft::new();
    let policy = theft.scene.policy("other.toml", ENVIRONMENT, "any", 1);
    let preimage = theft.scene.innerkeep.attempt(&args!["policy", "show", &policy]);
    assert_eq!(preimage.status, Some(0));
    let other = theft.scene.seal("other", &[&theft.scene.work.join("input/store.bin")], &SealSpec::default());
    theft.scene.grant(&other, &policy);
    let foreign = Layout::at(&other.reference).grants()[0]["policy"].clone();
    let altered = theft.altered("policy", |copy| copy.alter_grant(0, |grant| grant["policy"] = foreign));
    theft.scene.assert_refused(&altered, &UnsealSpec::default(), REFUSED, "CHIP_UNWRAP_FAILED");
}

#[test]
fn evil_thief_other_grant() {
    let theft = Theft::new();
    let input = theft.scene.work.join("input/store.bin");
    let other = theft.scene.seal("other", &[&input], &SealSpec::default());
    theft.scene.grant_usual(&other);
    // The other artifact's grant as it is: it names another core.
    let foreign = theft.altered("foreign", |copy| {
        copy.drop_manifests(GRANT);
        copy.adopt_grants(&Layout::at(&other.reference));
    });
    theft.scene.assert_refused(&foreign, &UnsealSpec::default(), REFUSED, "NO_GRANT_FOR_CHIP");
    // Made to name this core: the chip computes the context from what it was given.
    let core = theft.artifact.core.clone();
    let renamed = theft.altered("renamed", |copy| {
        copy.drop_manifests(GRANT);
        copy.adopt_grants(&Layout::at(&other.reference));
        copy.alter_grant(0, |grant| grant["core"] = json!(core));
    });
    theft.scene.assert_refused(&renamed, &UnsealSpec::default(), REFUSED, "CHIP_UNWRAP_FAILED");
    // Another epoch, another object type, another suite.
    let epoch = theft
        .altered("epoch", |copy| copy.alter_grant(0, |grant| grant["recipient"]["key_epoch"] = json!(2)));
    theft.scene.assert_refused(&epoch, &UnsealSpec::default(), REFUSED, "NO_GRANT_FOR_CHIP");
    let object =
        theft.altered("object", |copy| copy.alter_grant(0, |grant| grant["object"] = json!("secret")));
    theft.scene.assert_refused(&object, &UnsealSpec::default(), REFUSED, "NO_GRANT_FOR_CHIP");
    let kind = theft.altered("kind", |copy| copy.alter_grant(0, |grant| grant["kind"] = json!("kbs")));
    theft.scene.assert_refused(&kind, &UnsealSpec::default(), REFUSED, "NO_GRANT_FOR_CHIP");
    for (name, member, length) in [("enc", "enc", 40), ("wrapped", "wrapped", 20)] {
        let flipped = theft.altered(name, |copy| {
            copy.alter_grant(0, |grant| {
                let mut bytes = STANDARD.decode(grant[member].as_str().unwrap()).unwrap();
                bytes[length] ^= 4;
                grant[member] = json!(STANDARD.encode(bytes));
            });
        });
        theft.scene.assert_refused(&flipped, &UnsealSpec::default(), REFUSED, "CHIP_UNWRAP_FAILED");
    }
}

#[test]
fn evil_registry_malformed_grant_beside_a_good_one() {
    // A stranger can add referrers. One that is not a grant must not keep the good one from being found.
    let theft = Theft::new();
    let altered = theft.altered("noise", |copy| {
        let mut index = copy.index();
        let mut manifest = copy.manifest(GRANT);
        manifest["layers"][0] = copy.put(manifest["layers"][0].clone(), b"no grant");
        let descriptor = copy.put(copy.descriptors(GRANT)[0].clone(), &canonical(&manifest));
        index["manifests"].as_array_mut().unwrap().insert(0, descriptor);
        copy.write_index(&index);
    });
    theft.scene.assert_lands(&altered, &UnsealSpec::default(), &theft.payload);
}

#[test]
fn evil_holder_forgery_is_stopped_by_the_payload_digest() {
    // Whoever holds the key can make other ciphertext for the same tags; the flip below stands for it where tags are not looked at.
    let theft = Theft::new();
    let altered = theft.altered("digest", |copy| {
        copy.alter_core(|core| core["payloads"][0]["blake3"] = json!("3".repeat(64)));
        copy.drop_manifests(GRANT);
        copy.drop_manifests(SIGNATURE);
    });
    let altered = theft.with_key_for(altered);
    theft.scene.grant_usual(&altered);
    let pin = Pin::Core(altered.core.clone());
    let expected = [
        (DAMAGED, "PAYLOAD_DIGEST_MISMATCH"),
        (tests::CHIP_FAULT, "CHIP_PAYLOAD_DIGEST"),
        (tests::CHIP_FAULT, "CHIP_PAYLOAD_DIGEST"),
    ];
    for (path, (status, code)) in PATHS.into_iter().zip(expected) {
        let spec = UnsealSpec { pin: pin.clone(), ..UnsealSpec::by(path) };
        theft.scene.assert_refused(&altered, &spec, status, code);
    }
}

#[test]
fn evil_registry_damaged_sealed_files() {
    let scene = Scene::start();
    let payload = Payload::random(108, 500_000);
    let artifact =
        scene.sealed("model", &payload, &SealSpec { carrier: Carrier::File, ..SealSpec::default() });
    let original = SealedFile::read(&artifact.reference);
    let refused = |name: &str, alter: &dyn Fn(&mut SealedFile), code: &str| {
        let path = scene.work.join(format!("{name}.sealed"));
        std::fs::copy(&artifact.reference, &path).unwrap();
        let mut file = SealedFile::read(&path);
        alter(&mut file);
        file.write();
        scene.assert_refused(&artifact.at(&path), &UnsealSpec::default(), DAMAGED, code);
    };
    let newest = original.newest_slot();
    refused("slots", &|file| file.bytes[..8192].fill(0), "CARRIER_CORRUPT");
    refused("short", &|file| file.bytes.truncate(100), "CARRIER_CORRUPT");
    refused("empty", &|file| file.bytes.clear(), "CARRIER_CORRUPT");
    refused(
        "ciphertext",
        &|file| {
            let at = file.region("payloads/0").start + 70_000;
            file.bytes[at] ^= 1
        },
        "SEGMENT_AUTH_FAILED",
    );
    refused(
        "tags",
        &|file| {
            let at = file.region("tags/0").start;
            file.bytes[at] ^= 1
        },
        "TAG_TABLE_MISMATCH",
    );
    let outside = |file: &mut SealedFile| {
        let mut directory = file.directory();
        directory["payloads"][0]["offset"] = json!(1_u64 << 40);
        file.replace_directory(&directory);
    };
    refused("outside", &outside, "CARRIER_CORRUPT");
    let overlap = |file: &mut SealedFile| {
        let mut directory = file.directory();
        directory["payloads"][0]["offset"] = json!(0);
        file.replace_directory(&directory);
    };
    refused("overlap", &overlap, "CARRIER_CORRUPT");
    let unknown = |file: &mut SealedFile| {
        let mut directory = file.directory();
        directory["approved"] = json!(true);
        file.replace_directory(&directory);
    };
    refused("unknown", &unknown, "MALFORMED");
    refused(
        "length",
        &|file| {
            let mut directory = file.directory();
            directory["payloads"][0]["length"] = json!(499_999);
            file.replace_directory(&directory)
        },
        "LENGTH_MISMATCH",
    );
    // A directory that is none makes its slot invalid: the older directory, without the grant, is what is left.
    let path = scene.work.join("oversize.sealed");
    std::fs::copy(&artifact.reference, &path).unwrap();
    let mut file = SealedFile::read(&path);
    file.replace_directory_bytes(&vec![b' '; (1 << 20) + 1]);
    file.write();
    scene.assert_refused(&artifact.at(&path), &UnsealSpec::default(), REFUSED, "NO_GRANT_FOR_CHIP");
    // The newest slot torn: the older directory, without the grant, is what is left.
    let path = scene.work.join("torn.sealed");
    std::fs::copy(&artifact.reference, &path).unwrap();
    let mut file = SealedFile::read(&path);
    let slot = file.slot(newest);
    file.bytes[slot][20] ^= 1;
    file.write();
    scene.assert_refused(&artifact.at(&path), &UnsealSpec::default(), REFUSED, "NO_GRANT_FOR_CHIP");
    scene.assert_lands(&artifact, &UnsealSpec::default(), &payload);
}

#[test]
fn evil_registry_verify_finds_what_unseal_would_refuse() {
    let theft = Theft::new();
    let mut public = theft.scene.sealer.clone().into_os_string();
    public.push(".pub");
    let verify = |artifact: &Artifact, more: &[&str]| {
        let mut arguments = args![
            "verify",
            &artifact.reference,
            "--sealer-key",
            &public,
            "--family",
            "acme/ranker",
            "--min-counter",
            "5"
        ];
        arguments.extend(more.iter().map(Into::into));
        theft.scene.innerkeep.attempt(&arguments)
    };
    let said = verify(&theft.artifact, &["--verify-blob-digests"]);
    assert_eq!(said.status, Some(0), "{said:?}");
    let flipped = theft.altered("flipped", |copy| flip(&copy.payload(0), 3));
    verify(&flipped, &["--verify-blob-digests"]).assert_refused(DAMAGED, "CARRIER_CORRUPT");
    let tags = theft.altered("tags", |copy| flip(&copy.tags(0), 3));
    verify(&tags, &[]).assert_refused(DAMAGED, "TAG_TABLE_MISMATCH");
    let core = theft.altered("core", |copy| copy.alter_core(|core| core["parameters"]["counter"] = json!(9)));
    verify(&core, &[]).assert_refused(DAMAGED, "SIGNATURE_INVALID");
    // And unseal, asked to, compares blobs too.
    let more = args!["--verify-blob-digests"];
    theft.scene.assert_refused(
        &flipped,
        &UnsealSpec { more, ..UnsealSpec::default() },
        DAMAGED,
        "CARRIER_CORRUPT",
    );
}
