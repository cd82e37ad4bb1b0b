//! Images that must not run.

use super::*;

#[test]
fn evil_configuration_without_a_policy() {
    assert_eq!(ImagePolicy::load(None).unwrap_err().code(), "IMAGE_POLICY_MISSING");
    assert_eq!(ImagePolicy::load(Some(b"")).unwrap_err().code(), "IMAGE_POLICY_MALFORMED");
    assert_eq!(ImagePolicy::load(Some(b"{}")).unwrap_err().code(), "IMAGE_POLICY_MALFORMED");
}

#[tokio::test]
async fn evil_unsigned_image() {
    let key = Openssl::p256();
    let policy = team(&cosign(&key, "matchRepository"));
    assert_eq!(code(&policy, &subject(IMAGE), &Memory::default()).await, "IMAGE_UNSIGNED");
    let policy = team(&json!([{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/ring"}]));
    let gpg = Gpg::new();
    gpg.key("a@example", "ed25519", "sign");
    let material = [("/ring".to_owned(), gpg.export("a@example"))].into();
    let memory = Memory { material, ..Memory::default() };
    assert_eq!(code(&policy, &subject(IMAGE), &memory).await, "IMAGE_UNSIGNED");
    assert!(policy.decide(&subject(IMAGE), &NoSignatures, &memory).await.is_err());
}

#[tokio::test]
async fn evil_image_signed_by_a_stranger() {
    let (key, stranger) = (Openssl::p256(), Openssl::p256());
    let memory = layers(&[stranger.layer(&cosign_payload(&manifest(), IMAGE), "-sha256")]);
    let policy = team(&cosign(&key, "matchExact"));
    assert_eq!(code(&policy, &subject(IMAGE), &memory).await, "IMAGE_COSIGN_BAD_SIGNATURE");
    let gpg = Gpg::new();
    let (known, stranger) =
        (gpg.key("a@example", "ed25519", "sign"), gpg.key("b@example", "ed25519", "sign"));
    let ring = base64(&gpg.export(&known));
    let policy = team(&json!([{"type": "signedBy", "keyType": "GPGKeys", "keyData": ring}]));
    let message = gpg.sign(&stranger, &[], &atomic_payload(&manifest(), IMAGE));
    let memory = Memory { lookaside: [(manifest(), vec![message])].into(), ..Memory::default() };
    assert_eq!(code(&policy, &subject(IMAGE), &memory).await, "IMAGE_PGP_STRANGER");
}

#[tokio::test]
async fn evil_signature_of_another_image() {
    let key = Openssl::p256();
    // A good signature of another image, put under the tag of this one.
    let memory = layers(&[key.layer(&cosign_payload(&Digest::sha256(b"other"), IMAGE), "-sha256")]);
    let policy = team(&cosign(&key, "matchExact"));
    assert_eq!(code(&policy, &subject(IMAGE), &memory).await, "IMAGE_SIGNATURE_OTHER_DIGEST");
}

#[tokio::test]
async fn evil_registry_moves_a_tag() {
    // The tag led to the signed image when it was signed; now it leads to another, and the old signature is served for it.
    let gpg = Gpg::new();
    let key = gpg.key("a@example", "ed25519", "sign");
    let ring = base64(&gpg.export(&key));
    let policy = team(&json!([{"type": "signedBy", "keyType": "GPGKeys", "keyData": ring}]));
    let message = gpg.sign(&key, &[], &atomic_payload(&manifest(), IMAGE));
    let moved = Digest::sha256(b"moved");
    let lookaside = [(manifest(), vec![message.clone()]), (moved.clone(), vec![message])].into();
    let memory = Memory { lookaside, ..Memory::default() };
    assert_eq!(code(&policy, &subject(IMAGE), &memory).await, "");
    let subject = Subject { manifest_digest: moved, ..subject(IMAGE) };
    assert_eq!(code(&policy, &subject, &memory).await, "IMAGE_SIGNATURE_OTHER_DIGEST");
}

#[tokio::test]
async fn evil_signature_of_another_repository() {
    let key = Openssl::p256();
    let bare = json!([{"type": "sigstoreSigned", "keyData": key.public()}]);
    for (requirements, signed) in [
        (cosign(&key, "matchRepository"), "registry.example/team/other"),
        (cosign(&key, "matchExact"), "registry.example/team/app:v2"),
        // Without a rule there is one all the same.
        (bare.clone(), "registry.example/team/other:v1"),
        (bare.clone(), "registry.example/team/app:v2"),
        (bare.clone(), "mirror.test/team/app:v1"),
    ] {
        let memory = layers(&[key.layer(&cosign_payload(&manifest(), signed), "-sha256")]);
        let found = code(&team(&requirements), &subject(IMAGE), &memory).await;
        assert_eq!(found, "IMAGE_SIGNATURE_OTHER_IDENTITY", "{signed}");
    }
    // The error says what to do about signatures that name no tag.
    let memory = layers(&[key.layer(&cosign_payload(&manifest(), "registry.example/team/app"), "-sha256")]);
    let error = decide(&team(&bare), &subject(IMAGE), &memory).await.unwrap_err();
    assert!(error.to_string().ends_with("needs matchRepository or exactRepository"), "{error}");
}

#[tokio::test]
async fn evil_registry_answers_with_another_manifest() {
    let accept = team(&json!([{"type": "insecureAcceptAnything"}]));
    let named = format!("registry.example/team/app@{}", Digest::sha256(b"named"));
    let subject = Subject { index_digest: Some(index()), ..subject(&named) };
    assert_eq!(code(&accept, &subject, &Memory::default()).await, "IMAGE_DIGEST_MISMATCH");
    let incomplete = super::subject("registry.example/team/app");
    assert_eq!(code(&accept, &incomplete, &Memory::default()).await, "IMAGE_REFERENCE_INCOMPLETE");
}

#[tokio::test]
async fn evil_tag_beside_a_digest() {
    // The host writes a trusted tag beside the digest of an image of its own.
    let accept = json!([{"type": "insecureAcceptAnything"}]);
    let docker = json!({"registry.example/team/app:trusted": accept});
    let policy = policy(&json!([{"type": "reject"}]), &docker);
    let memory = Memory::default();
    assert_eq!(code(&policy, &subject("registry.example/team/app:trusted"), &memory).await, "");
    let named = format!("registry.example/team/app:trusted@{}", manifest());
    assert_eq!(code(&policy, &subject(&named), &memory).await, "IMAGE_REJECTED");
}

#[tokio::test]
async fn evil_payload_that_no_trusted_key_signed() {
    // A trusted signature over a payload about another image, and the right payload without a trusted signature.
    let key = Openssl::p256();
    let signed = key.layer(&cosign_payload(&Digest::sha256(b"other"), IMAGE), "-sha256");
    let payload = cosign_payload(&manifest(), IMAGE);
    let unsigned = CosignLayer { payload, signature: signed.signature.clone() };
    let found = code(&team(&cosign(&key, "matchExact")), &subject(IMAGE), &layers(&[signed, unsigned])).await;
    assert_eq!(found, "IMAGE_SIGNATURE_OTHER_DIGEST");
}

#[tokio::test]
async fn evil_signed_text_that_says_two_things() {
    let key = Openssl::p256();
    let text = String::from_utf8(cosign_payload(&manifest(), IMAGE)).unwrap();
    let first = format!(r#""docker-manifest-digest":"{}""#, manifest());
    let twice = text.replace(&first, &format!(r#""docker-manifest-digest":"{}",{first}"#, index()));
    for payload in [twice, text.replace("cosign container image", "atomic container"), "{}".to_owned()] {
        let memory = layers(&[key.layer(payload.as_bytes(), "-sha256")]);
        let found = code(&team(&cosign(&key, "matchExact")), &subject(IMAGE), &memory).await;
        assert_eq!(found, "IMAGE_SIGNATURE_PAYLOAD", "{payload}");
    }
}

#[tokio::test]
async fn evil_registry_sends_too_many_signatures() {
    let key = Openssl::p256();
    let good = key.layer(&cosign_payload(&manifest(), IMAGE), "-sha256");
    let policy = team(&cosign(&key, "matchExact"));
    assert_eq!(code(&policy, &subject(IMAGE), &layers(&vec![good.clone(); SIGNATURES_MAX])).await, "");
    let memory = layers(&vec![good; SIGNATURES_MAX + 1]);
    assert_eq!(code(&policy, &subject(IMAGE), &memory).await, "IMAGE_SIGNATURES_TOO_MANY");
}

#[tokio::test]
async fn evil_registry_hides_signatures() {
    struct Broken;
    #[async_trait::async_trait]
    impl SignatureSource for Broken {
        async fn cosign(&self, _: &ImageName, _: &Digest) -> Result<Vec<CosignLayer>, Cause> {
            Err("connection reset".into())
        }
        async fn lookaside(&self, _: &ImageName, _: &Digest) -> Result<Vec<Vec<u8>>, Cause> {
            Err("no such file".into())
        }
    }
    let key = Openssl::p256();
    let memory = Memory::default();
    let found = team(&cosign(&key, "matchExact")).decide(&subject(IMAGE), &Broken, &memory).await;
    assert_eq!(found.unwrap_err().code(), "IMAGE_SIGNATURES_UNREADABLE");
}

#[tokio::test]
async fn evil_mirror_that_the_policy_rejects() {
    let docker = json!({
        "registry.example": [{"type": "insecureAcceptAnything"}],
        "mirror.test": [{"type": "reject"}],
    });
    let policy = policy(&json!([{"type": "reject"}]), &docker).with_mirrors(MirrorRule::Also);
    let mirror = Some(ImageName::parse("mirror.test/app:v1").unwrap());
    assert_eq!(code(&policy, &subject(IMAGE), &Memory::default()).await, "");
    let subject = Subject { mirror, ..subject(IMAGE) };
    assert_eq!(code(&policy, &subject, &Memory::default()).await, "IMAGE_REJECTED");
}

#[tokio::test]
async fn evil_mirror_that_the_policy_trusts() {
    // What is accepted from the mirror's own names is not accepted under another.
    let docker = json!({"mirror.test": [{"type": "insecureAcceptAnything"}]});
    let policy = policy(&json!([{"type": "reject"}]), &docker);
    let mirror = Some(ImageName::parse("mirror.test/app:v1").unwrap());
    let subject = Subject { mirror, ..subject(IMAGE) };
    assert_eq!(code(&policy, &subject, &Memory::default()).await, "IMAGE_REJECTED");
}
