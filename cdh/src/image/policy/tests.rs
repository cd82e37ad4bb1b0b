//! Decisions, over signatures by real tools.

use serde_json::{Value, json};

use super::cosign::CosignLayer;
use super::testing::{Gpg, Memory, Openssl, atomic_payload, base64, cosign_payload};
use super::*;

mod evil;

const IMAGE: &str = "registry.example/team/app:v1";

fn manifest() -> Digest {
    Digest::sha256(b"manifest")
}

fn index() -> Digest {
    Digest::sha256(b"index")
}

fn subject(reference: &str) -> Subject {
    let reference = ImageName::parse(reference).unwrap();
    Subject { reference, mirror: None, manifest_digest: manifest(), index_digest: None }
}

fn policy(default: &Value, docker: &Value) -> ImagePolicy {
    let policy = json!({"default": default, "transports": {"docker": docker}});
    ImagePolicy::parse(policy.to_string().as_bytes()).unwrap()
}

/// Everything is rejected but what is in the team's namespace and satisfies this.
fn team(requirements: &Value) -> ImagePolicy {
    policy(&json!([{"type": "reject"}]), &json!({"registry.example/team": requirements}))
}

fn cosign(key: &Openssl, identity: &str) -> Value {
    json!([{"type": "sigstoreSigned", "keyData": key.public(), "signedIdentity": {"type": identity}}])
}

async fn decide(policy: &ImagePolicy, subject: &Subject, memory: &Memory) -> Result<Accepted, PolicyError> {
    policy.decide(subject, memory, memory).await
}

async fn code(policy: &ImagePolicy, subject: &Subject, memory: &Memory) -> &'static str {
    decide(policy, subject, memory).await.err().map_or("", |error| error.code())
}

fn layers(layers: &[CosignLayer]) -> Memory {
    Memory { cosign: [(manifest(), layers.to_vec())].into(), ..Memory::default() }
}

#[test]
fn every_code_of_an_image_is_in_the_table_and_nothing_else() {
    let words = |text: &str, quote: char| -> std::collections::BTreeSet<String> {
        let words = text.split(quote).skip(1).step_by(2);
        words.filter(|word| word.starts_with("IMAGE_")).map(str::to_owned).collect()
    };
    let table = include_str!("../policy.rs").lines().filter(|line| line.starts_with("//! | `IMAGE_"));
    let table = words(&table.collect::<Vec<_>>().join("\n"), '`');
    let sources = [include_str!("error.rs"), include_str!("cosign.rs"), include_str!("openpgp/error.rs")];
    let codes = sources.map(|source| {
        let lines = source.lines().filter(|line| line.contains("=> \"IMAGE_"));
        words(&lines.collect::<Vec<_>>().join("\n"), '"')
    });
    let codes = codes.into_iter().flatten().collect();
    assert_eq!(table, codes);
    assert_eq!(table.len(), 33);
}

#[test]
fn a_decision_may_move_between_threads() {
    fn is_send(_: impl Send) {}
    let (policy, memory) = (team(&json!([{"type": "reject"}])), Memory::default());
    is_send(policy.decide(&subject(IMAGE), &memory, &memory));
}

#[tokio::test]
async fn the_most_precise_scope_decides_alone() {
    let reject = json!([{"type": "reject"}]);
    let accept = json!([{"type": "insecureAcceptAnything"}]);
    let docker = json!({
        "": reject,
        "*.example": accept,
        "registry.example/team": reject,
        "registry.example/team/app": accept,
        "registry.example/team/app:bad": reject,
        "registry.example:5000": accept,
    });
    let policy = policy(&accept, &docker);
    let memory = Memory::default();
    for (name, expected) in [
        ("registry.example/team/app:v1", ""),
        ("registry.example/team/app:bad", "IMAGE_REJECTED"),
        ("registry.example/team/other:v1", "IMAGE_REJECTED"),
        ("registry.example/teams/app:v1", ""),
        ("example/a:v1", "IMAGE_REJECTED"),
        ("registry.example:5000/team/x:v1", ""),
        ("registry.example:5001/team/x:v1", ""),
        ("elsewhere.test/x:v1", "IMAGE_REJECTED"),
    ] {
        assert_eq!(code(&policy, &subject(name), &memory).await, expected, "{name}");
    }
    assert!(memory.asked.lock().unwrap().is_empty());
    let accepted = decide(&policy, &subject("registry.example/team/app:v1"), &memory).await.unwrap();
    assert!(!accepted.is_signed());
    let expected = json!({
        "reference": "registry.example/team/app:v1",
        "manifest_digest": manifest(),
        "grounds": [{
            "location": "original",
            "scope": "registry.example/team/app",
            "requirement": 0,
            "proof": {"type": "insecureAcceptAnything"},
        }],
    });
    assert_eq!(serde_json::from_str::<Value>(&accepted.record()).unwrap(), expected);
}

#[tokio::test]
async fn the_default_of_the_transport_comes_before_the_last_one() {
    let accept = json!([{"type": "insecureAcceptAnything"}]);
    let memory = Memory::default();
    for (docker, scope) in [(json!({"": accept}), "docker"), (json!({}), "default")] {
        let accepted = decide(&policy(&accept, &docker), &subject(IMAGE), &memory).await.unwrap();
        assert_eq!(accepted.grounds().first().unwrap().scope, scope);
    }
}

#[tokio::test]
async fn an_image_that_cosign_signed_is_accepted_and_says_by_which_key() {
    let key = Openssl::p256();
    let memory = layers(&[key.layer(&cosign_payload(&manifest(), "registry.example/team/app"), "-sha256")]);
    let policy = team(&cosign(&key, "matchRepository"));
    let accepted = decide(&policy, &subject(IMAGE), &memory).await.unwrap();
    assert!(accepted.is_signed());
    assert_eq!(accepted.manifest_digest(), &manifest());
    assert_eq!(accepted.reference(), IMAGE);
    let id = cosign::CosignKey::parse(key.public().as_bytes()).unwrap().id().clone();
    let identity = "registry.example/team/app".to_owned();
    let proof = Proof::SigstoreSigned { key: id, signed: manifest(), identity };
    let scope = "registry.example/team".to_owned();
    assert_eq!(accepted.grounds(), [Ground { location: Location::Original, scope, requirement: 0, proof }]);
    // Asked for by digest: only the digests that were given, never a tag.
    let asked = memory.asked.lock().unwrap().clone();
    assert_eq!(asked, [format!("cosign {IMAGE} {}", manifest())]);
}

#[tokio::test]
async fn keys_are_read_from_files_and_the_broker() {
    let (key, other) = (Openssl::p256(), Openssl::p256());
    let layer = key.layer(&cosign_payload(&manifest(), IMAGE), "-sha256");
    let paths = json!(["/etc/keys/other.pub", "kbs:///default/cosign/key"]);
    let policy = team(&json!([{"type": "sigstoreSigned", "keyPaths": paths}]));
    let mut memory = layers(&[layer]);
    memory.material.insert("/etc/keys/other.pub".to_owned(), other.public().into_bytes());
    assert_eq!(code(&policy, &subject(IMAGE), &memory).await, "IMAGE_KEY_UNREADABLE");
    memory.material.insert("kbs:///default/cosign/key".to_owned(), b"no key".to_vec());
    assert_eq!(code(&policy, &subject(IMAGE), &memory).await, "IMAGE_COSIGN_KEY_INVALID");
    memory.material.insert("kbs:///default/cosign/key".to_owned(), key.public().into_bytes());
    assert!(decide(&policy, &subject(IMAGE), &memory).await.unwrap().is_signed());
}

#[tokio::test]
async fn an_image_that_gpg_signed_is_accepted_and_says_by_which_key() {
    let gpg = Gpg::new();
    let key = gpg.key("a@example", "ed25519", "sign");
    let ring = base64(&gpg.export(&key));
    let policy = team(&json!([{"type": "signedBy", "keyType": "GPGKeys", "keyData": ring}]));
    let message = gpg.sign(&key, &[], &atomic_payload(&manifest(), IMAGE));
    let memory = Memory { lookaside: [(manifest(), vec![message])].into(), ..Memory::default() };
    let accepted = decide(&policy, &subject(IMAGE), &memory).await.unwrap();
    let proof =
        Proof::SignedBy { key: key.clone(), signer: key, signed: manifest(), identity: IMAGE.to_owned() };
    assert_eq!(accepted.grounds().first().unwrap().proof, proof);
    let record: Value = serde_json::from_str(&accepted.record()).unwrap();
    assert_eq!(record.pointer("/grounds/0/proof/type").unwrap(), "signedBy");
}

#[tokio::test]
async fn a_signature_of_the_index_counts_for_its_manifest() {
    let key = Openssl::p256();
    let policy = team(&cosign(&key, "matchRepoDigestOrExact"));
    let layer = key.layer(&cosign_payload(&index(), IMAGE), "-sha256");
    let memory = Memory { cosign: [(index(), vec![layer])].into(), ..Memory::default() };
    let with = Subject { index_digest: Some(index()), ..subject(IMAGE) };
    assert!(decide(&policy, &with, &memory).await.unwrap().is_signed());
    assert_eq!(code(&policy, &subject(IMAGE), &memory).await, "IMAGE_UNSIGNED");
    // A reference may name either.
    for digest in [index(), manifest()] {
        let named = ImageName::parse(&format!("registry.example/team/app@{digest}")).unwrap();
        assert!(decide(&policy, &Subject { reference: named, ..with.clone() }, &memory).await.is_ok());
    }
}

#[tokio::test]
async fn one_good_signature_among_others_is_enough() {
    let (key, stranger) = (Openssl::p256(), Openssl::p256());
    let good = key.layer(&cosign_payload(&manifest(), IMAGE), "-sha256");
    let elsewhere = key.layer(&cosign_payload(&Digest::sha256(b"other"), IMAGE), "-sha256");
    let foreign = stranger.layer(&cosign_payload(&manifest(), IMAGE), "-sha256");
    let garbage = CosignLayer { payload: b"{".to_vec(), signature: "?".to_owned() };
    let memory = layers(&[garbage, foreign, elsewhere, good]);
    assert!(decide(&team(&cosign(&key, "matchExact")), &subject(IMAGE), &memory).await.unwrap().is_signed());
}

#[tokio::test]
async fn all_requirements_have_to_hold() {
    let (vendor, reviewer) = (Openssl::p256(), Openssl::p256());
    let requirements = json!([
        {"type": "insecureAcceptAnything"},
        {"type": "sigstoreSigned", "keyData": vendor.public()},
        {"type": "sigstoreSigned", "keyData": reviewer.public()},
    ]);
    let payload = cosign_payload(&manifest(), IMAGE);
    let (first, second) = (vendor.layer(&payload, "-sha256"), reviewer.layer(&payload, "-sha256"));
    let policy = team(&requirements);
    let accepted = decide(&policy, &subject(IMAGE), &layers(&[first.clone(), second.clone()])).await.unwrap();
    assert_eq!(accepted.grounds().iter().map(|ground| ground.requirement).collect::<Vec<_>>(), [0, 1, 2]);
    for only in [first, second] {
        assert_eq!(code(&policy, &subject(IMAGE), &layers(&[only])).await, "IMAGE_COSIGN_BAD_SIGNATURE");
    }
}

#[tokio::test]
async fn a_mirror_is_a_place_unless_the_policy_is_asked_about_it() {
    let key = Openssl::p256();
    let identity =
        json!({"type": "remapIdentity", "prefix": "mirror.test", "signedPrefix": "registry.example/team"});
    let docker = json!({
        "registry.example/team": cosign(&key, "matchExact"),
        "mirror.test": [{"type": "sigstoreSigned", "keyData": key.public(), "signedIdentity": identity}],
    });
    let memory = layers(&[key.layer(&cosign_payload(&manifest(), IMAGE), "-sha256")]);
    let mirror = Some(ImageName::parse("mirror.test/app:v1").unwrap());
    let subject = Subject { mirror, ..subject(IMAGE) };
    let policy = policy(&json!([{"type": "reject"}]), &docker);
    assert_eq!(decide(&policy, &subject, &memory).await.unwrap().grounds().len(), 1);
    let policy = policy.with_mirrors(MirrorRule::Also);
    let accepted = decide(&policy, &subject, &memory).await.unwrap();
    let locations: Vec<_> = accepted.grounds().iter().map(|ground| ground.location).collect();
    assert_eq!(locations, [Location::Original, Location::Mirror]);
}

#[tokio::test]
async fn a_signature_file_beside_the_registry() {
    let gpg = Gpg::new();
    let key = gpg.key("a@example", "ed25519", "sign");
    let base = tempfile::tempdir().unwrap();
    let directory = base.path().join(format!("team/app@sha256={}", manifest().hex()));
    std::fs::create_dir_all(&directory).unwrap();
    let message = gpg.sign(&key, &[], &atomic_payload(&manifest(), IMAGE));
    std::fs::write(directory.join("signature-1"), message).unwrap();
    let config =
        format!("docker:\n  registry.example:\n    sigstore: \"file://{}\"\n", base.path().display());
    let config = LookasideConfig::parse(config.as_bytes()).unwrap();
    let read = config.read(&ImageName::parse(IMAGE).unwrap(), &manifest()).unwrap();
    let memory = Memory { lookaside: [(manifest(), read)].into(), ..Memory::default() };
    let ring = base64(&gpg.export(&key));
    let policy = team(&json!([{"type": "signedBy", "keyType": "GPGKeys", "keyData": ring}]));
    assert!(decide(&policy, &subject(IMAGE), &memory).await.unwrap().is_signed());
}
