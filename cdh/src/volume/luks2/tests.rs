use std::process::{Command, Stdio};

use super::*;

const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";

/// A header of a holder of the key, whose text was changed, with checksums that fit.
pub(crate) fn changed(header: &[u8], from: &str, to: &str) -> Vec<u8> {
    let text = |header: &[u8]| {
        let json = header[BINARY_BYTES..ONE_BYTES].split(|byte| *byte == 0).next().unwrap();
        String::from_utf8(json.to_vec()).unwrap()
    };
    let json = text(header);
    assert!(json.contains(from), "{from} in {json}");
    let json = json.replacen(from, to, 1);
    let mut changed = one(MAGIC, 0, &[1; 64], [2; 16], json.as_bytes());
    changed.extend(one(MAGIC_OF_THE_COPY, ONE_BYTES, &[3; 64], [2; 16], json.as_bytes()));
    changed.extend_from_slice(&header[SLOTS_AT..]);
    assert_eq!(changed.len(), HEADER_BYTES);
    changed
}

fn code(header: &[u8], key: &[u8]) -> &'static str {
    open(header, key).map_or_else(|error| error.code(), |_| "OK")
}

#[test]
fn a_header_opens_by_its_key() {
    let (header, key) = create(KEY).unwrap();
    assert_eq!(header.len(), HEADER_BYTES);
    assert_eq!(*open(&header, KEY).unwrap(), *key);
    assert_eq!(code(&header, b"another key that is long enough "), "VOLUME_HEADER_PROFILE");
    let (other, other_key) = create(KEY).unwrap();
    assert_ne!(*key, *other_key);
    assert_ne!(header, other);
}

#[test]
fn evil_holder_slot_of_another_key() {
    let (header, _) = create(KEY).unwrap();
    let (other, _) = create(KEY).unwrap();
    let mut mixed = header.clone();
    mixed[SLOTS_AT..].copy_from_slice(&other[SLOTS_AT..]);
    assert_eq!(code(&mixed, KEY), "VOLUME_HEADER_PROFILE");
    // As a header of another's it is whole.
    assert_eq!(code(&other, KEY), "OK");
}

#[test]
fn evil_holder_null_cipher() {
    let (header, _) = create(KEY).unwrap();
    assert_eq!(code(&changed(&header, "\"size\":\"dynamic\"", "\"size\":\"dynamic\""), KEY), "OK");
    for (from, to) in [
        (
            "\"encryption\":\"aes-xts-plain64\",\"sector_size\"",
            "\"encryption\":\"cipher_null-ecb\",\"sector_size\"",
        ),
        ("\"encryption\":\"aes-xts-plain64\",\"sector_size\"", "\"encryption\":\"aes-ecb\",\"sector_size\""),
        (
            "\"encryption\":\"aes-xts-plain64\",\"key_size\"",
            "\"encryption\":\"cipher_null-ecb\",\"key_size\"",
        ),
        ("\"type\":\"hmac(sha256)\"", "\"type\":\"none\""),
        ("\"type\":\"hmac(sha256)\"", "\"type\":\"crc32c\""),
        ("\"type\":\"crypt\"", "\"type\":\"linear\""),
        ("\"offset\":\"1048576\"", "\"offset\":\"0\""),
        ("\"size\":\"dynamic\"", "\"size\":\"4096\""),
        ("\"stripes\":4000", "\"stripes\":1"),
        (
            "\"type\":\"pbkdf2\",\"hash\":\"sha256\",\"iterations\"",
            "\"type\":\"pbkdf2\",\"hash\":\"sha1\",\"iterations\"",
        ),
    ] {
        assert_eq!(code(&changed(&header, from, to), KEY), "VOLUME_HEADER_PROFILE", "{to}");
    }
}

#[test]
fn evil_holder_weak_derivation_of_keys() {
    let (header, _) = create(KEY).unwrap();
    for iterations in ["0", "1", "999", "10000001", "4294967295", "99999999999999999999", "-1"] {
        let to = format!("\"iterations\":{iterations}");
        assert_eq!(code(&changed(&header, "\"iterations\":1000", &to), KEY), "VOLUME_HEADER_PROFILE", "{to}");
    }
    for to in ["\"salt\":\"\",\"x\":\"", "\"salt\":\"AAAA"] {
        assert_eq!(code(&changed(&header, "\"salt\":\"", to), KEY), "VOLUME_HEADER_PROFILE", "{to}");
    }
}

#[test]
fn evil_holder_more_than_one_of_anything() {
    let (header, _) = create(KEY).unwrap();
    for (from, to) in [
        ("\"tokens\":{}", "\"tokens\":{\"0\":{\"type\":\"x\",\"keyslots\":[]}}"),
        ("\"keyslots\":{", "\"keyslots\":{\"1\":{},"),
        ("\"segments\":{", "\"segments\":{\"1\":{},"),
        ("\"keyslots\":[\"0\"]", "\"keyslots\":[]"),
        ("\"config\":{", "\"config\":{\"requirements\":{\"mandatory\":[\"online-reencrypt\"]},"),
        ("\"tokens\":{}", "\"tokens\":{},\"tokens\":{}"),
    ] {
        assert_eq!(code(&changed(&header, from, to), KEY), "VOLUME_HEADER_PROFILE", "{to}");
    }
    let mut flipped = header.clone();
    flipped[5000] ^= 1;
    assert_eq!(code(&flipped, KEY), "VOLUME_HEADER_PROFILE");
    assert_eq!(code(&[], KEY), "VOLUME_HEADER_PROFILE");
    assert_eq!(code(&vec![0; HEADER_BYTES], KEY), "VOLUME_HEADER_PROFILE");
}

/// Debian's own program opens what is written here.
#[test]
fn cryptsetup_opens_our_headers() {
    let directory = tempfile::tempdir().unwrap();
    let (image, file) = (directory.path().join("image"), directory.path().join("key"));
    let (mut bytes, key) = create(KEY).unwrap();
    bytes.resize(4 << 20, 0);
    std::fs::write(&image, bytes).unwrap();
    std::fs::write(&file, KEY).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new("/usr/sbin/cryptsetup");
        command.args(arguments).arg("--key-file").arg(&file).arg(&image).stdin(Stdio::null());
        let output = command.output().expect("start cryptsetup (package cryptsetup-bin)");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned(), said)
    };
    let (opened, _, said) = run(&["open", "--type", "luks2", "--test-passphrase"]);
    assert!(opened, "{said}");
    let (dumped, text, said) = run(&["luksDump", "--dump-volume-key", "--batch-mode"]);
    assert!(dumped, "{said}");
    let digits: String = text.lines().skip_while(|line| !line.contains("MK dump:")).collect();
    let digits: String = digits.replace("MK dump:", "").chars().filter(char::is_ascii_hexdigit).collect();
    assert_eq!(digits, hex::encode(*key), "{text}");
    std::fs::write(&file, b"another key that is long enough ").unwrap();
    assert!(!run(&["open", "--type", "luks2", "--test-passphrase"]).0);
}
