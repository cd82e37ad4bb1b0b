//! Layers that must not be opened, and not be read.

use std::io;

use super::*;

fn verified(ciphertext: &[u8], annotations: &Annotations, size: u64) -> Result<Vec<u8>, OcicryptError> {
    let mut found = Vec::new();
    opened_now(annotations)?.verify(Cursor::new(ciphertext), size)?.read_to_end(&mut found)?;
    Ok(found)
}

#[test]
fn evil_altered_layer() {
    let plaintext = vec![0x61; (2 << 20) + 5];
    let (ciphertext, annotations) = sealed(&plaintext);
    let size = length(&ciphertext);
    assert_eq!(verified(&ciphertext, &annotations, size).unwrap(), plaintext);
    for at in [0, 1 << 20, ciphertext.len() - 1] {
        let mut altered = ciphertext.clone();
        altered[at] ^= 1;
        assert_eq!(code(verified(&altered, &annotations, size)), "OCICRYPT_AUTHENTICATION");
    }
    // Whoever can write the manifest can change the authenticator too, but does not have the key.
    let mut other = public(&ciphertext);
    other["hmac"] = json!(STANDARD.encode([0; 32]));
    let packet = annotations.get(KEYS).unwrap();
    let found = verified(&ciphertext, &super::annotations(&other, packet), size);
    assert_eq!(code(found), "OCICRYPT_AUTHENTICATION");
}

#[test]
fn evil_truncated_layer() {
    let (ciphertext, annotations) = sealed(&vec![1; (1 << 20) + 100]);
    let size = length(&ciphertext);
    for cut in [1, 100, 101, ciphertext.len()] {
        let short = &ciphertext[..ciphertext.len() - cut];
        let found = opened_now(&annotations).unwrap().verify(Cursor::new(short), size).unwrap_err();
        match found {
            OcicryptError::Length { expected, found } => assert_eq!((expected, found), (size, length(short))),
            other => panic!("{other}"),
        }
        // A descriptor that agrees does not help.
        assert_eq!(code(verified(short, &annotations, length(short))), "OCICRYPT_AUTHENTICATION");
    }
}

#[test]
fn evil_extended_layer() {
    let (mut ciphertext, annotations) = sealed(b"text");
    ciphertext.push(0);
    assert_eq!(code(verified(&ciphertext, &annotations, 4)), "OCICRYPT_LENGTH");
    assert_eq!(code(verified(&ciphertext, &annotations, 5)), "OCICRYPT_AUTHENTICATION");
}

#[test]
fn evil_layer_of_a_huge_length() {
    let (ciphertext, annotations) = sealed(b"text");
    assert_eq!(code(verified(&ciphertext, &annotations, u64::MAX)), "OCICRYPT_TOO_LARGE");
    assert_eq!(code(verified(&ciphertext, &annotations, LAYER_MAX)), "OCICRYPT_LENGTH");
}

#[test]
fn evil_nonce_of_somebody_else() {
    // The authenticator covers no nonce: whoever can write the manifest chooses it, and with it what the plaintext would be.
    let plaintext = b"what was encrypted";
    let (ciphertext, annotations) = sealed(plaintext);
    let mut other = public(&ciphertext);
    other["cipheroptions"] = json!({"nonce": STANDARD.encode([0; 16])});
    let all = super::annotations(&other, annotations.get(KEYS).unwrap());
    assert_eq!(code(verified(&ciphertext, &all, length(plaintext))), "OCICRYPT_DIGEST");
}

#[test]
fn evil_plaintext_of_another_layer() {
    // Two layers under one key: the options of the one, the bytes of the other.
    let (ciphertext, _) = sealed(b"the other");
    let packet = wrapped([1; 32], private(b"this one.").to_string().as_bytes());
    let all = annotations(&public(&ciphertext), &packet);
    assert_eq!(code(verified(&ciphertext, &all, 9)), "OCICRYPT_DIGEST");
}

#[test]
fn evil_key_of_somebody_else() {
    let ciphertext = encrypted(b"text");
    let mut options = private(b"text");
    let foreign = annotations(&public(&ciphertext), &wrapped([2; 32], options.to_string().as_bytes()));
    assert_eq!(code(opened_now(&foreign)), "OCICRYPT_UNWRAP");
    options["symkey"] = json!(STANDARD.encode([8; 32]));
    let other = annotations(&public(&ciphertext), &wrapped([1; 32], options.to_string().as_bytes()));
    assert_eq!(code(verified(&ciphertext, &other, 4)), "OCICRYPT_AUTHENTICATION");
}

/// A store that answers with other bytes after it was read once.
struct Host {
    first: Cursor<Vec<u8>>,
    second: Cursor<Vec<u8>>,
    rewinds: usize,
}

impl Read for Host {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.rewinds < 2 { self.first.read(out) } else { self.second.read(out) }
    }
}

impl Seek for Host {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.rewinds += 1;
        self.first.seek(to)?;
        self.second.seek(to)
    }
}

#[test]
fn evil_host_flips_after_the_first_pass() {
    let plaintext = vec![0x61; 3 << 20];
    let (ciphertext, annotations) = sealed(&plaintext);
    let size = length(&ciphertext);
    let mut flipped = ciphertext.clone();
    flipped[(1 << 20) + 17] ^= 1;
    let swapped = [&ciphertext[..1 << 20], &ciphertext[2 << 20..], &ciphertext[1 << 20..2 << 20]].concat();
    let cut = ciphertext[..(1 << 20) + 1].to_vec();
    for second in [flipped, swapped, cut] {
        let first = Cursor::new(ciphertext.clone());
        let host = Host { first, second: Cursor::new(second), rewinds: 0 };
        let mut layer = opened_now(&annotations).unwrap().verify(host, size).unwrap();
        let mut found = Vec::new();
        let error = layer.read_to_end(&mut found).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let code =
            error.get_ref().and_then(|error| error.downcast_ref::<OcicryptError>()).map(OcicryptError::code);
        assert_eq!(code, Some("OCICRYPT_AUTHENTICATION"));
        // What was given is what was verified, and nothing comes after it.
        assert!(found == plaintext[..1 << 20]);
        assert!(layer.read(&mut [0; 1]).is_err());
    }
}

#[test]
fn evil_encrypted_layer_that_says_to_be_clear() {
    let (_, annotations) = sealed(b"text");
    for media_type in ["application/vnd.oci.image.layer.v1.tar", ""] {
        assert_eq!(code(EncryptedLayer::parse(media_type, &annotations)), "OCICRYPT_INCONSISTENT");
    }
    assert_eq!(code(EncryptedLayer::parse(TYPE, &Annotations::new())), "OCICRYPT_INCONSISTENT");
}

#[test]
fn evil_public_options() {
    let good = public(b"x");
    let but = |name: &str, value: Value| {
        let mut options = good.clone();
        options[name] = value;
        options.to_string()
    };
    let packet = wrapped([1; 32], b"{}");
    for (text, expected) in [
        (but("cipher", json!("AES_256_CTR")), "OCICRYPT_UNSUPPORTED"),
        (but("cipher", json!(1)), "OCICRYPT_MALFORMED"),
        (but("hmac", json!("AAAA")), "OCICRYPT_MALFORMED"),
        (but("hmac", Value::Null), "OCICRYPT_MALFORMED"),
        (but("cipheroptions", json!({"nonce": "AAAA"})), "OCICRYPT_MALFORMED"),
        (but("cipheroptions", json!({"iv": "AAAA"})), "OCICRYPT_MALFORMED"),
        (but("cipheroptions", json!([])), "OCICRYPT_MALFORMED"),
        (but("x", json!(1)), "OCICRYPT_MALFORMED"),
        ("{\"cipher\": \"a\", \"cipher\": \"AES_256_CTR_HMAC_SHA256\"}".to_owned(), "OCICRYPT_MALFORMED"),
        (" ".repeat(5000), "OCICRYPT_MALFORMED"),
        (String::new(), "OCICRYPT_MALFORMED"),
    ] {
        let mut all = annotations(&good, &packet);
        all.insert(PUBLIC.to_owned(), STANDARD.encode(&text));
        assert_eq!(code(EncryptedLayer::parse(TYPE, &all)), expected, "{text}");
    }
}

#[test]
fn evil_private_options() {
    let good = private(b"text");
    let but = |name: &str, value: Value| {
        let mut options = good.clone();
        options[name] = value;
        options.to_string()
    };
    let symkey = STANDARD.encode(KEY);
    for text in [
        but("symkey", json!(STANDARD.encode([1; 16]))),
        but("symkey", json!(STANDARD.encode([1; 33]))),
        but("symkey", json!("")),
        but("symkey", json!(["a"])),
        but("digest", json!("")),
        but("digest", json!("sha256:1")),
        but("digest", json!("sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709")),
        but("digest", Value::Null),
        but("cipheroptions", json!({})),
        but("cipheroptions", json!({"nonce": "AAAA"})),
        but("x", json!(1)),
        good.to_string().replace("\"symkey\"", "\"symkey\":\"\",\"symkey\""),
        good.to_string().replace(&symkey, &format!("\\u0042{}", &symkey[1..])),
        "{}".to_owned(),
        "x".to_owned(),
        format!("{good}{}", " ".repeat(UNWRAPPED_MAX)),
    ] {
        let all = annotations(&public(b""), &wrapped([1; 32], text.as_bytes()));
        let error = opened_now(&all).unwrap_err();
        assert_eq!(error.code(), "OCICRYPT_UNWRAP", "{text}");
        // No word of a key in the message.
        assert!(!error.to_string().contains(&symkey[..8]) && !format!("{error:?}").contains(&symkey[..8]));
    }
}

#[test]
fn evil_layer_with_too_many_recipients() {
    let recipients = |count: usize| vec!["AAAA"; count].join(",");
    let all = |count| annotations(&public(b"x"), &recipients(count));
    assert_eq!(EncryptedLayer::parse(TYPE, &all(16)).unwrap().unwrap().recipients().len(), RECIPIENTS_MAX);
    assert_eq!(code(EncryptedLayer::parse(TYPE, &all(17))), "OCICRYPT_TOO_LARGE");
}

#[test]
fn evil_layer_with_a_huge_packet() {
    let all = |size| annotations(&public(b"x"), &STANDARD.encode(vec![0; size]));
    assert!(EncryptedLayer::parse(TYPE, &all(PACKET_MAX)).is_ok());
    assert_eq!(code(EncryptedLayer::parse(TYPE, &all(PACKET_MAX + 3))), "OCICRYPT_MALFORMED");
    assert_eq!(code(EncryptedLayer::parse(TYPE, &all(0))), "OCICRYPT_MALFORMED");
}

#[test]
fn evil_layer_for_nobody_here() {
    let mut all = annotations(&public(b"x"), "AAAA");
    all.remove(KEYS);
    assert_eq!(code(EncryptedLayer::parse(TYPE, &all)), "OCICRYPT_NO_RECIPIENT");
    all.insert("org.opencontainers.image.enc.keys.jwe".to_owned(), "AAAA".to_owned());
    assert_eq!(code(EncryptedLayer::parse(TYPE, &all)), "OCICRYPT_NO_RECIPIENT");
}
