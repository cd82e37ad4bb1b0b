//! Keys and messages of GnuPG itself, and the same ones changed.

use std::process::Command;

use super::super::testing::{Gpg, run};
use super::packet::{LITERAL, ONE_PASS, PUBLIC_KEY, PUBLIC_SUBKEY, SIGNATURE, USER_ID, packets};
use super::signature::Signature;
use super::*;

const TEXT: &[u8] = b"{\"a\": \"text\"}\n";
const PLAIN: &[&str] = &["--compress-algo", "none"];

mod evil;

/// A packet of the new form with a length of five bytes.
fn raw(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[0xc0 | tag, 255], length.as_slice(), body].concat()
}

fn split(bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    packets(bytes, 64).unwrap().into_iter().map(|packet| (packet.tag, packet.body.into_owned())).collect()
}

fn join(packets: &[(u8, Vec<u8>)]) -> Vec<u8> {
    packets.iter().flat_map(|(tag, body)| raw(*tag, body)).collect()
}

fn signed(gpg: &Gpg, key: &str, options: &[&str]) -> Result<Verified, OpenPgpFault> {
    Keyring::parse(&gpg.export(key)).and_then(|ring| ring.verify(&gpg.sign(key, options, TEXT)))
}

fn code<T>(result: Result<T, OpenPgpFault>) -> &'static str {
    result.err().unwrap().code()
}

#[test]
fn what_gpg_signs_verifies_with_each_algorithm_and_hash() {
    let gpg = Gpg::new();
    for algorithm in ["ed25519", "rsa2048", "rsa3072", "nistp256", "nistp384"] {
        let name = format!("{algorithm}@example");
        let key = gpg.key(&name, algorithm, "sign");
        let ring = Keyring::parse(&gpg.export(&name)).unwrap();
        assert_eq!(ring.fingerprints().collect::<Vec<_>>(), std::slice::from_ref(&key));
        let hashes = match algorithm {
            // GnuPG signs with no hash shorter than the curve.
            "nistp384" => &["SHA384", "SHA512"][..],
            _ => &["SHA256", "SHA384", "SHA512"][..],
        };
        for hash in hashes {
            let verified = ring.verify(&gpg.sign(&key, &["--digest-algo", hash], TEXT)).unwrap();
            assert_eq!((verified.text.as_slice(), &verified.signer, &verified.primary), (TEXT, &key, &key));
        }
    }
}

#[test]
fn compressed_or_not_and_armored_keys_or_not() {
    let gpg = Gpg::new();
    let key = gpg.key("a@example", "ed25519", "sign");
    let armored = gpg.run(&["--armor", "--export", "a@example"], b"");
    let crlf = String::from_utf8(armored.clone()).unwrap().replace('\n', "\r\n").into_bytes();
    for ring in [gpg.export("a@example"), armored, crlf] {
        let ring = Keyring::parse(&ring).unwrap();
        for algorithm in ["none", "zip", "zlib"] {
            let message = gpg.sign(&key, &["--compress-algo", algorithm], TEXT);
            assert_eq!(ring.verify(&message).unwrap().text, TEXT);
        }
        // A text that comes in parts, because its length was not known.
        let long = vec![b'x'; 20_000];
        assert_eq!(ring.verify(&gpg.sign(&key, PLAIN, &long)).unwrap().text, long);
    }
}

#[test]
fn a_subkey_signs_for_its_primary_key() {
    let gpg = Gpg::new();
    let primary = gpg.key("a@example", "ed25519", "cert");
    for (algorithm, usage) in [("ed25519", "sign"), ("cv25519", "encrypt"), ("rsa2048", "auth")] {
        gpg.run(&["--quick-add-key", &primary, algorithm, usage, "never"], b"");
    }
    let ring = Keyring::parse(&gpg.export("a@example")).unwrap();
    let subkey = gpg.fingerprints("a@example").remove(1);
    assert_eq!(ring.fingerprints().collect::<Vec<_>>(), std::slice::from_ref(&subkey));
    let verified = ring.verify(&gpg.sign(&format!("{subkey}!"), &[], TEXT)).unwrap();
    assert_eq!((verified.signer, verified.primary), (subkey, primary));
}

#[test]
fn a_ring_of_several_keys_and_several_names() {
    let gpg = Gpg::new();
    let first = gpg.key("a@example", "ed25519", "sign");
    let second = gpg.key("b@example", "nistp256", "sign");
    gpg.run(&["--quick-add-uid", &first, "other@example"], b"");
    let ring = Keyring::parse(&gpg.run(&["--export"], b"")).unwrap();
    for key in [first, second] {
        assert_eq!(ring.verify(&gpg.sign(&key, &[], TEXT)).unwrap().primary, key);
    }
}

#[test]
fn what_skopeo_signs_verifies() {
    let gpg = Gpg::new();
    let key = gpg.key("a@example", "rsa2048", "sign");
    let manifest = gpg.home().join("manifest.json");
    std::fs::write(&manifest, b"{}").unwrap();
    let mut command = Command::new("skopeo");
    command.env("GNUPGHOME", gpg.home()).arg("standalone-sign").arg(&manifest);
    command.args(["registry.example/a:v1", &key, "--output"]).arg(gpg.home().join("signature-1"));
    run(&mut command, b"");
    let message = std::fs::read(gpg.home().join("signature-1")).unwrap();
    let verified = Keyring::parse(&gpg.export(&key)).unwrap().verify(&message).unwrap();
    let payload = super::super::Payload::parse(super::super::PayloadKind::Atomic, &verified.text).unwrap();
    assert_eq!(payload.identity.to_string(), "registry.example/a:v1");
    assert_eq!(payload.digest, super::super::Digest::sha256(b"{}"));
}

#[test]
fn a_key_may_sign_until_it_expires() {
    let gpg = Gpg::new();
    let at = |time: &'static str| ["--faked-system-time", time];
    let key = gpg.key_with(&at("20200101T000000!"), "a@example", "ed25519", "sign");
    let early = gpg.sign(&key, &at("20200201T000000!"), TEXT);
    gpg.run(&[&at("20200601T000000!"), ["--quick-set-expire", &key].as_slice(), &["1y"]].concat(), b"");
    let ring = Keyring::parse(&gpg.export(&key)).unwrap();
    assert_eq!(ring.verify(&early).unwrap().date, 1_580_515_200);
}

#[test]
fn a_revoked_name_vouches_for_nothing() {
    let gpg = Gpg::new();
    let key = gpg.key("a@example", "ed25519", "sign");
    gpg.run(&["--quick-add-uid", &key, "b@example"], b"");
    gpg.run(&["--quick-revoke-uid", &key, "a@example"], b"");
    let message = gpg.sign(&key, &[], TEXT);
    let export = gpg.export(&key);
    assert_eq!(Keyring::parse(&export).unwrap().verify(&message).unwrap().text, TEXT);
    // Without the other name nobody vouches for the key.
    let all = split(&export);
    let revoked = all.iter().position(|(tag, body)| *tag == USER_ID && body == b"a@example").unwrap();
    let end = all.iter().skip(revoked + 1).position(|(tag, _)| *tag != SIGNATURE);
    let end = end.map_or(all.len(), |end| revoked + 1 + end);
    let alone = [&all[..1], &all[revoked..end]].concat();
    assert_eq!(code(Keyring::parse(&join(&alone))), "IMAGE_PGP_NO_KEY");
}
