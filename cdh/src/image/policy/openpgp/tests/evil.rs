//! Signers that are none, and bytes that say two things.

use proptest::prelude::*;

use super::*;

fn no_key(result: Result<Keyring, OpenPgpFault>) -> &'static str {
    match result {
        Err(OpenPgpFault::NoKey { first }) => first.code(),
        other => panic!("expected a keyring without a key, found {other:?}"),
    }
}

#[test]
fn evil_signature_by_a_stranger() {
    let gpg = Gpg::new();
    let key = gpg.key("a@example", "ed25519", "sign");
    let stranger = gpg.key("b@example", "ed25519", "sign");
    let ring = Keyring::parse(&gpg.export(&key)).unwrap();
    assert_eq!(code(ring.verify(&gpg.sign(&stranger, &[], TEXT))), "IMAGE_PGP_STRANGER");
    // The stranger says to be the other one: in the packet in front, and in the hint behind.
    let mut message = split(&gpg.sign(&stranger, PLAIN, TEXT));
    let known = hex::decode(&key).unwrap()[12..].to_vec();
    let of_stranger = hex::decode(&stranger).unwrap()[12..].to_vec();
    message[0].1[4..12].copy_from_slice(&known);
    assert_eq!(code(ring.verify(&join(&message))), "IMAGE_PGP_MALFORMED");
    let at = message[2].1.windows(8).rposition(|window| window == of_stranger).unwrap();
    message[2].1[at..at + 8].copy_from_slice(&known);
    // The fingerprint, which is hashed, still names the stranger.
    assert_eq!(code(ring.verify(&join(&message))), "IMAGE_PGP_STRANGER");
    let first =
        message[2].1.windows(20).position(|window| window == hex::decode(&stranger).unwrap()).unwrap();
    message[2].1[first..first + 20].copy_from_slice(&hex::decode(&key).unwrap());
    assert_eq!(code(ring.verify(&join(&message))), "IMAGE_PGP_BAD_SIGNATURE");
}

#[test]
fn evil_signature_over_another_text() {
    let gpg = Gpg::new();
    for algorithm in ["ed25519", "rsa2048", "nistp256"] {
        let key = gpg.key(&format!("{algorithm}@example"), algorithm, "sign");
        let ring = Keyring::parse(&gpg.export(&key)).unwrap();
        let mut message = split(&gpg.sign(&key, PLAIN, TEXT));
        let end = message[1].1.len() - 3;
        message[1].1[end] ^= 1;
        assert_eq!(code(ring.verify(&join(&message))), "IMAGE_PGP_BAD_SIGNATURE");
        // Nor when the two bytes of the hash are those of the other text.
        let signature = Signature::parse(&message[2].1).unwrap();
        let hashed = 4 + 2 + usize::from(u16::from_be_bytes([message[2].1[4], message[2].1[5]]));
        let mut all = message[1].1[6..].to_vec();
        all.extend_from_slice(&message[2].1[..hashed]);
        all.extend_from_slice(&[4, 0xff]);
        all.extend_from_slice(&u32::try_from(hashed).unwrap().to_be_bytes());
        let digest = key::Hash::of(signature.hash).unwrap().digest(&all);
        let unhashed = usize::from(u16::from_be_bytes([message[2].1[hashed], message[2].1[hashed + 1]]));
        message[2].1[hashed + 2 + unhashed..][..2].copy_from_slice(&digest.as_ref()[..2]);
        assert_eq!(code(ring.verify(&join(&message))), "IMAGE_PGP_BAD_SIGNATURE");
    }
}

#[test]
fn evil_downgraded_hash() {
    let gpg = Gpg::new();
    let key = gpg.key("a@example", "rsa2048", "sign");
    assert_eq!(code(signed(&gpg, &key, &["--digest-algo", "SHA1"])), "IMAGE_PGP_WEAK_HASH");
    assert_eq!(code(signed(&gpg, &key, &["--digest-algo", "SHA224"])), "IMAGE_PGP_WEAK_HASH");
    assert_eq!(code(signed(&gpg, &key, &["--digest-algo", "RIPEMD160"])), "IMAGE_PGP_WEAK_HASH");
}

#[test]
fn evil_key_that_vouches_for_itself_with_a_weak_hash() {
    let gpg = Gpg::new();
    let key = gpg.key_with(&["--cert-digest-algo", "SHA1"], "a@example", "rsa2048", "sign");
    assert_eq!(no_key(Keyring::parse(&gpg.export(&key))), "IMAGE_PGP_WEAK_HASH");
}

#[test]
fn evil_weak_gpg_key() {
    let gpg = Gpg::new();
    let key = gpg.key("a@example", "rsa1024", "sign");
    assert_eq!(no_key(Keyring::parse(&gpg.export(&key))), "IMAGE_PGP_WEAK_KEY");
    // Beside another key it stays what it is.
    gpg.key("b@example", "ed25519", "sign");
    let ring = Keyring::parse(&gpg.run(&["--export"], b"")).unwrap();
    assert_eq!(code(ring.verify(&gpg.sign(&key, &["--digest-algo", "SHA256"], TEXT))), "IMAGE_PGP_WEAK_KEY");
}

#[test]
fn evil_signature_by_a_revoked_key() {
    let gpg = Gpg::new();
    let key = gpg.key("a@example", "ed25519", "sign");
    gpg.key("b@example", "ed25519", "sign");
    let message = gpg.sign(&key, &[], TEXT);
    assert!(Keyring::parse(&gpg.export(&key)).unwrap().verify(&message).is_ok());
    let path = gpg.home().join(format!("openpgp-revocs.d/{key}.rev"));
    let certificate = std::fs::read_to_string(path).unwrap().replace(":-----BEGIN", "-----BEGIN");
    gpg.run(&["--import"], certificate.as_bytes());
    let ring = Keyring::parse(&gpg.run(&["--export"], b"")).unwrap();
    assert_eq!(code(ring.verify(&message)), "IMAGE_PGP_KEY_REVOKED");
    assert_eq!(no_key(Keyring::parse(&gpg.export(&key))), "IMAGE_PGP_KEY_REVOKED");
}

#[test]
fn evil_signature_by_a_revoked_subkey() {
    let gpg = Gpg::new();
    let primary = gpg.key("a@example", "ed25519", "sign");
    gpg.run(&["--quick-add-key", &primary, "ed25519", "sign", "never"], b"");
    let subkey = gpg.fingerprints("a@example").remove(1);
    let message = gpg.sign(&format!("{subkey}!"), &[], TEXT);
    let mut command = Command::new("gpg");
    command.env("GNUPGHOME", gpg.home()).args(["--quiet", "--no-tty", "--command-fd", "0"]);
    command.args(["--pinentry-mode", "loopback", "--passphrase", "", "--edit-key", &primary]);
    run(&mut command, b"key 1\nrevkey\ny\n0\n\ny\nsave\n");
    let ring = Keyring::parse(&gpg.export(&primary)).unwrap();
    assert_eq!(code(ring.verify(&message)), "IMAGE_PGP_KEY_REVOKED");
    assert!(ring.verify(&gpg.sign(&format!("{primary}!"), &[], TEXT)).is_ok());
}

#[test]
fn evil_signature_by_an_expired_key() {
    let gpg = Gpg::new();
    let at = |time: &'static str| ["--faked-system-time", time];
    let key = gpg.key_with(&at("20200101T000000!"), "a@example", "ed25519", "sign");
    let late = gpg.sign(&key, &at("20220101T000000!"), TEXT);
    gpg.run(&[&at("20200601T000000!"), ["--quick-set-expire", &key].as_slice(), &["1y"]].concat(), b"");
    let ring = Keyring::parse(&gpg.export(&key)).unwrap();
    assert_eq!(code(ring.verify(&late)), "IMAGE_PGP_KEY_EXPIRED");
}

#[test]
fn evil_signature_that_expires() {
    let gpg = Gpg::new();
    let key = gpg.key("a@example", "ed25519", "sign");
    assert_eq!(code(signed(&gpg, &key, &["--default-sig-expire", "10y"])), "IMAGE_PGP_SIGNATURE_EXPIRES");
}

#[test]
fn evil_signature_of_a_text_document() {
    let gpg = Gpg::new();
    let key = gpg.key("a@example", "ed25519", "sign");
    assert_eq!(code(signed(&gpg, &key, &["--textmode"])), "IMAGE_PGP_UNSUPPORTED");
    // Nor when the literal says to be binary.
    let mut message = split(&gpg.sign(&key, &["--textmode", "--compress-algo", "none"], TEXT));
    message[1].1[0] = b'b';
    let ring = Keyring::parse(&gpg.export(&key)).unwrap();
    assert_eq!(code(ring.verify(&join(&message))), "IMAGE_PGP_UNSUPPORTED");
}

#[test]
fn evil_signature_that_was_not_announced() {
    let gpg = Gpg::new();
    let key = gpg.key("a@example", "ed25519", "sign");
    let ring = Keyring::parse(&gpg.export(&key)).unwrap();
    let message = split(&gpg.sign(&key, PLAIN, TEXT));
    for (at, value) in [(1, 1), (2, 2), (3, 1)] {
        let mut other = message.clone();
        other[0].1[at] = value;
        assert_eq!(code(ring.verify(&join(&other))), "IMAGE_PGP_MALFORMED");
    }
}

#[test]
fn evil_demand_in_a_signature() {
    let gpg = Gpg::new();
    let key = gpg.key("a@example", "ed25519", "sign");
    assert!(signed(&gpg, &key, &["--sig-notation", "note@example=1"]).is_ok());
    assert_eq!(code(signed(&gpg, &key, &["--sig-notation", "!note@example=1"])), "IMAGE_PGP_UNSUPPORTED");
}

#[test]
fn evil_key_that_is_not_for_signing() {
    let gpg = Gpg::new();
    let key = gpg.key("a@example", "ed25519", "cert");
    assert_eq!(no_key(Keyring::parse(&gpg.export(&key))), "IMAGE_PGP_KEY_NOT_FOR_SIGNING");
}

#[test]
fn evil_subkey_that_is_not_for_signing() {
    let gpg = Gpg::new();
    let primary = gpg.key("a@example", "ed25519", "cert");
    gpg.run(&["--quick-add-key", &primary, "rsa2048", "auth", "never"], b"");
    let ring = Keyring::parse(&gpg.export(&primary));
    // The subkey's binding has no signature back either; what it is not for is said first.
    let subkey = gpg.fingerprints("a@example").remove(1);
    gpg.run(&["--quick-add-key", &primary, "ed25519", "sign", "never"], b"");
    assert_eq!(no_key(ring), "IMAGE_PGP_KEY_NOT_FOR_SIGNING");
    let ring = Keyring::parse(&gpg.export(&primary)).unwrap();
    let id = hex::decode(&subkey).unwrap()[12..].try_into().unwrap();
    let found = ring.by_id(id).next().unwrap().may_sign(u32::MAX);
    assert_eq!(found, Err(OpenPgpFault::KeyNotForSigning { key: subkey }));
}

#[test]
fn evil_key_with_a_forged_self_signature() {
    let gpg = Gpg::new();
    let key = gpg.key("a@example", "ed25519", "sign");
    let mut all = split(&gpg.export(&key));
    assert_eq!([all[0].0, all[1].0, all[2].0], [PUBLIC_KEY, USER_ID, SIGNATURE]);
    all[1].1[0] ^= 1;
    assert_eq!(no_key(Keyring::parse(&join(&all))), "IMAGE_PGP_KEY_UNBOUND");
    // And without any.
    assert_eq!(no_key(Keyring::parse(&join(&all[..2]))), "IMAGE_PGP_KEY_UNBOUND");
    assert_eq!(no_key(Keyring::parse(&join(&all[..1]))), "IMAGE_PGP_KEY_UNBOUND");
}

#[test]
fn evil_subkey_that_is_not_bound() {
    let gpg = Gpg::new();
    let mine = gpg.key("a@example", "ed25519", "sign");
    let other = gpg.key("b@example", "ed25519", "cert");
    gpg.run(&["--quick-add-key", &other, "ed25519", "sign", "never"], b"");
    let subkey = gpg.fingerprints("b@example").remove(1);
    let message = gpg.sign(&format!("{subkey}!"), &[], TEXT);
    let mut all = split(&gpg.export(&mine));
    let theirs = split(&gpg.export(&other));
    let at = theirs.iter().position(|(tag, _)| *tag == PUBLIC_SUBKEY).unwrap();
    // Somebody else's subkey behind my key, with their binding: it says to be of another key.
    all.extend_from_slice(&theirs[at..]);
    assert_eq!(code(Keyring::parse(&join(&all)).unwrap().verify(&message)), "IMAGE_PGP_KEY_UNBOUND");
    // And when it says to be mine.
    let (mine, other) = (hex::decode(mine).unwrap(), hex::decode(other).unwrap());
    let last = all.last_mut().unwrap();
    for (from, to) in [(&other[..], &mine[..]), (&other[12..], &mine[12..])] {
        while let Some(at) = last.1.windows(from.len()).position(|window| window == from) {
            last.1[at..at + to.len()].copy_from_slice(to);
        }
    }
    assert_eq!(code(Keyring::parse(&join(&all)).unwrap().verify(&message)), "IMAGE_PGP_KEY_UNBOUND");
    // Somebody who has the subkey, and makes its signature back for my key, cannot make the binding.
    let key = gpg.key("c@example", "ed25519", "sign");
    gpg.run(&["--quick-add-key", &key, "ed25519", "sign", "never"], b"");
    let subkey = gpg.fingerprints("c@example").remove(1);
    let message = gpg.sign(&format!("{subkey}!"), &[], TEXT);
    let mut all = split(&gpg.export(&key));
    assert!(Keyring::parse(&join(&all)).unwrap().verify(&message).is_ok());
    *all.last_mut().unwrap().1.last_mut().unwrap() ^= 1;
    assert_eq!(code(Keyring::parse(&join(&all)).unwrap().verify(&message)), "IMAGE_PGP_KEY_UNBOUND");
}

#[test]
fn evil_subkey_of_somebody_else() {
    let gpg = Gpg::new();
    let primary = gpg.key("a@example", "ed25519", "sign");
    gpg.run(&["--quick-add-key", &primary, "ed25519", "sign", "never"], b"");
    let subkey = gpg.fingerprints("a@example").remove(1);
    let message = gpg.sign(&format!("{subkey}!"), &[], TEXT);
    let mut all = split(&gpg.export(&primary));
    assert!(Keyring::parse(&join(&all)).unwrap().verify(&message).is_ok());
    // The binding by the primary key stays good; the signature back by the subkey, which is not hashed, is broken.
    let binding = &mut all.last_mut().unwrap().1;
    let back = Signature::parse(binding).unwrap().embedded.unwrap();
    let at = binding.windows(back.len()).position(|window| window == back).unwrap();
    let hashed = 6 + usize::from(u16::from_be_bytes([binding[4], binding[5]]));
    assert!(at > hashed, "the signature back is hashed");
    binding[at + back.len() - 1] ^= 1;
    assert_eq!(code(Keyring::parse(&join(&all)).unwrap().verify(&message)), "IMAGE_PGP_KEY_UNBOUND");
}

#[test]
fn evil_secret_key_in_the_policy() {
    let gpg = Gpg::new();
    let key = gpg.key("a@example", "ed25519", "sign");
    let secret = gpg.run(&["--export-secret-keys", &key], b"");
    assert_eq!(code(Keyring::parse(&secret)), "IMAGE_PGP_SECRET_KEY");
}

#[test]
fn evil_messages_of_other_forms() {
    let gpg = Gpg::new();
    let key = gpg.key("a@example", "ed25519", "sign");
    let second = gpg.key("b@example", "ed25519", "sign");
    let ring = Keyring::parse(&gpg.run(&["--export"], b"")).unwrap();
    let plain = gpg.sign(&key, PLAIN, TEXT);
    let message = split(&plain);
    let compressed = [&[1], deflated(&plain).as_slice()].concat();
    assert!(ring.verify(&raw(8, &compressed)).is_ok());
    let twice = raw(8, &[&[1], deflated(&raw(8, &compressed)).as_slice()].concat());
    let bzip2 = gpg.sign(&key, &["--compress-algo", "bzip2"], TEXT);
    let two = gpg.run(&["-u", &key, "-u", &second, "--sign", "--output", "-"], TEXT);
    let armored = gpg.run(&["-u", &key, "--armor", "--sign", "--output", "-"], TEXT);
    let clear = gpg.run(&["-u", &key, "--clearsign", "--output", "-"], TEXT);
    let detached = gpg.run(&["-u", &key, "--detach-sign", "--output", "-"], TEXT);
    let behind = [plain.as_slice(), &raw(10, b"PGP")].concat();
    let stored = raw(8, &[&[0], plain.as_slice()].concat());
    for (what, bytes, expected) in [
        ("nothing", Vec::new(), "IMAGE_PGP_MALFORMED"),
        ("only a literal", join(&message[1..2]), "IMAGE_PGP_MALFORMED"),
        ("no one-pass packet", join(&message[1..]), "IMAGE_PGP_MALFORMED"),
        ("no signature", join(&message[..2]), "IMAGE_PGP_MALFORMED"),
        ("a marker behind", behind, "IMAGE_PGP_MALFORMED"),
        ("the message twice", [plain.as_slice(), &plain].concat(), "IMAGE_PGP_TOO_LARGE"),
        ("compressed twice", twice, "IMAGE_PGP_MALFORMED"),
        ("bzip2", bzip2, "IMAGE_PGP_UNSUPPORTED"),
        ("not compressed in a compressed packet", stored, "IMAGE_PGP_UNSUPPORTED"),
        ("two signers", two, "IMAGE_PGP_TOO_LARGE"),
        ("armored", armored, "IMAGE_PGP_MALFORMED"),
        ("clear text", clear, "IMAGE_PGP_MALFORMED"),
        ("detached", detached, "IMAGE_PGP_MALFORMED"),
        ("cut", plain[..plain.len() - 1].to_vec(), "IMAGE_PGP_MALFORMED"),
    ] {
        assert_eq!(code(ring.verify(&bytes)), expected, "{what}");
    }
}

fn deflated(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn evil_bytes_behind_the_compressed_stream() {
    let gpg = Gpg::new();
    let key = gpg.key("a@example", "ed25519", "sign");
    let ring = Keyring::parse(&gpg.export(&key)).unwrap();
    let stream = deflated(&gpg.sign(&key, PLAIN, TEXT));
    assert_eq!(code(ring.verify(&raw(8, &[&[1], stream.as_slice(), b"x"].concat()))), "IMAGE_PGP_MALFORMED");
}

#[test]
fn evil_message_that_inflates() {
    let gpg = Gpg::new();
    let key = gpg.key("a@example", "ed25519", "sign");
    let ring = Keyring::parse(&gpg.export(&key)).unwrap();
    let message = gpg.sign(&key, &["--compress-algo", "zip", "--compress-level", "9"], &vec![0; 10 << 20]);
    assert!(message.len() < MESSAGE_MAX);
    let most = MESSAGE_MAX;
    assert_eq!(
        ring.verify(&message).unwrap_err(),
        OpenPgpFault::TooLarge { most, unit: "bytes after inflating" }
    );
}

#[test]
fn evil_huge_signature() {
    let gpg = Gpg::new();
    let key = gpg.key("a@example", "ed25519", "sign");
    let ring = Keyring::parse(&gpg.export(&key)).unwrap();
    // A good signature, whose text is longer than any that is looked at.
    let message = gpg.sign(&key, PLAIN, &vec![b'x'; MESSAGE_MAX]);
    assert_eq!(code(ring.verify(&message)), "IMAGE_PGP_TOO_LARGE");
}

#[test]
fn evil_huge_keyring() {
    let gpg = Gpg::new();
    let key = gpg.key("a@example", "ed25519", "sign");
    let name = vec![b'n'; KEYRING_MAX];
    let long = [gpg.export(&key), raw(USER_ID, &name)].concat();
    assert_eq!(code(Keyring::parse(&long)), "IMAGE_PGP_TOO_LARGE");
}

#[test]
fn evil_keyring_of_endless_packets() {
    let gpg = Gpg::new();
    let key = gpg.key("a@example", "ed25519", "sign");
    let long = [gpg.export(&key), raw(USER_ID, b"n").repeat(2048)].concat();
    assert!(long.len() <= KEYRING_MAX);
    assert_eq!(code(Keyring::parse(&long)), "IMAGE_PGP_TOO_LARGE");
}

#[test]
fn evil_armor() {
    let gpg = Gpg::new();
    let key = gpg.key("a@example", "ed25519", "sign");
    let armored = String::from_utf8(gpg.run(&["--armor", "--export", &key], b"")).unwrap();
    let secret = String::from_utf8(gpg.run(&["--armor", "--export-secret-keys", &key], b"")).unwrap();
    let sum = armored.lines().find(|line| line.starts_with('=')).unwrap().to_owned();
    let first = armored.lines().nth(2).unwrap().to_owned();
    for (what, text) in [
        ("text in front", format!("hello\n{armored}")),
        ("text behind", format!("{armored}hello\n")),
        ("two blocks", format!("{armored}{armored}")),
        ("another checksum", armored.replace(&sum, "=AAAA")),
        ("a checksum in the middle", armored.replacen(&first, &format!("{first}\n{sum}"), 1)),
        ("an empty line in the middle", armored.replacen(&first, &format!("{first}\n"), 1)),
        ("no empty line", armored.replacen("\n\n", "\n", 1)),
        ("a header that nobody knows", armored.replacen("\n\n", "\nEvil: yes\n\n", 1)),
        ("no end", armored.replace("-----END PGP PUBLIC KEY BLOCK-----", "")),
        ("another end", armored.replace("-----END PGP PUBLIC", "-----END PGP PRIVATE")),
        ("another label", armored.replace("PUBLIC KEY BLOCK", "MESSAGE")),
        ("white space in base64", armored.replacen(&first, &format!("{first} "), 1)),
        ("a long line", armored.replacen(&first, &first.repeat(2), 1)),
        ("a secret key", secret),
    ] {
        assert_eq!(code(Keyring::parse(text.as_bytes())), "IMAGE_PGP_MALFORMED", "{what}");
    }
    assert!(Keyring::parse(armored.replace(&format!("{sum}\n"), "").as_bytes()).is_ok());
    assert!(Keyring::parse(armored.replacen("\n\n", "\nComment: mine\n\n", 1).as_bytes()).is_ok());
}

#[test]
fn evil_packets_in_parts() {
    let gpg = Gpg::new();
    let key = gpg.key("a@example", "ed25519", "sign");
    let ring = Keyring::parse(&gpg.export(&key)).unwrap();
    let message = split(&gpg.sign(&key, PLAIN, TEXT));
    // A first part of eight bytes, the rest with its length.
    let parts = |tag: u8, body: &[u8]| {
        let rest = u32::try_from(body.len() - 8).unwrap().to_be_bytes();
        [&[0xc0 | tag, 224 + 3], &body[..8], &[255], rest.as_slice(), &body[8..]].concat()
    };
    for at in 0..3 {
        let packets = message.iter().enumerate();
        let packets = packets
            .map(|(number, (tag, body))| if number == at { parts(*tag, body) } else { raw(*tag, body) });
        assert_eq!(code(ring.verify(&packets.collect::<Vec<_>>().concat())), "IMAGE_PGP_MALFORMED");
    }
    assert_eq!([message[0].0, message[1].0, message[2].0], [ONE_PASS, LITERAL, SIGNATURE]);
}

#[test]
fn evil_numbers_of_two_forms() {
    let mut reader = packet::Reader::new(&[0, 9, 0, 1]);
    assert_eq!(code(reader.mpi()), "IMAGE_PGP_MALFORMED");
    let mut reader = packet::Reader::new(&[0, 1, 3]);
    assert_eq!(code(reader.mpi()), "IMAGE_PGP_MALFORMED");
    let mut reader = packet::Reader::new(&[0, 9, 1, 1]);
    assert_eq!(reader.mpi().unwrap(), [1, 1]);
}

#[test]
fn evil_bytes_behind_a_number() {
    let gpg = Gpg::new();
    for algorithm in ["ed25519", "rsa2048", "nistp256"] {
        let key = gpg.key(&format!("{algorithm}@example"), algorithm, "sign");
        let ring = Keyring::parse(&gpg.export(&key)).unwrap();
        let mut message = split(&gpg.sign(&key, PLAIN, TEXT));
        message[2].1.push(0);
        assert_eq!(code(ring.verify(&join(&message))), "IMAGE_PGP_MALFORMED");
        let mut all = split(&gpg.export(&key));
        all[0].1.push(0);
        assert_eq!(code(Keyring::parse(&join(&all))), "IMAGE_PGP_MALFORMED");
    }
}

/// The body of a signature with these hashed subpackets.
fn body(hashed: &[u8]) -> Vec<u8> {
    let length = u16::try_from(hashed.len()).unwrap().to_be_bytes();
    [&[4, 0, 22, 8], length.as_slice(), hashed, &[0, 0, 1, 2]].concat()
}

#[test]
fn evil_signature_with_two_dates() {
    let date = [5, 2, 0, 0, 0, 1];
    assert_eq!(Signature::parse(&body(&date)).unwrap().created, 1);
    assert_eq!(code(Signature::parse(&body(&[date, [5, 2, 0, 0, 0, 2]].concat()))), "IMAGE_PGP_MALFORMED");
    // Critical or not is the same subpacket.
    assert_eq!(code(Signature::parse(&body(&[date, [5, 0x82, 0, 0, 0, 2]].concat()))), "IMAGE_PGP_MALFORMED");
}

#[test]
fn evil_signature_without_a_date() {
    assert_eq!(code(Signature::parse(&body(&[]))), "IMAGE_PGP_MALFORMED");
    // One that is not hashed is none.
    let unhashed = [&[4, 0, 22, 8, 0, 0, 0, 6], [5, 2, 0, 0, 0, 1].as_slice(), &[1, 2]].concat();
    assert_eq!(code(Signature::parse(&unhashed)), "IMAGE_PGP_MALFORMED");
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Keyring::parse(&bytes);
        let _ = Signature::parse(&bytes);
        let _ = packets(&bytes, 16);
    }

    #[test]
    fn packets_read_back_as_they_were(
        parts in proptest::collection::vec((1_u8..60, proptest::collection::vec(any::<u8>(), 0..300)), 0..8)
    ) {
        prop_assert_eq!(split(&join(&parts)), parts);
    }
}

#[test]
fn evil_flipped_bits_of_a_message() {
    let gpg = Gpg::new();
    let key = gpg.key("a@example", "ed25519", "sign");
    let ring = Keyring::parse(&gpg.export(&key)).unwrap();
    for options in [PLAIN, &["--compress-algo", "zlib"]] {
        let message = gpg.sign(&key, options, TEXT);
        for at in 0..message.len() * 8 {
            let mut flipped = message.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            // The name and date of the literal are signed by nobody, and nobody reads them.
            if let Ok(verified) = ring.verify(&flipped) {
                assert_eq!((verified.text.as_slice(), verified.signer), (TEXT, key.clone()), "bit {at}");
            }
        }
    }
}
