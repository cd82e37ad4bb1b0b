//! Known answers by other implementations: Python's `hmac` and `hashlib`, and OpenSSL's AES-128-CFB.

use super::{decrypt, encrypt, hmac_is, hmac_of, kdf_a, kdf_e};

fn key() -> [u8; 32] {
    std::array::from_fn(|index| u8::try_from(index).unwrap())
}

#[test]
fn kdf_a_gives_known_answers() {
    let (newer, older) = ([0xaa; 32], [0x55; 32]);
    let session = "4d24fbc45b0cf0407a7206bc01deaa87609b65e6dceaf49b62c6366bb4fb6b06";
    assert_eq!(hex::encode(*kdf_a(&key(), "ATH", &newer, &older)), session);
    let cipher = "e1cac3485ea3bbfc55d7728af0637dc8cc92f02a15ccdcb2962db1c4d7a3ce16";
    assert_eq!(hex::encode(*kdf_a(&key(), "CFB", &newer, &older)), cipher);
}

#[test]
fn kdf_e_gives_the_known_answer() {
    let expected = "99a86499d6542b6d5aaece21270df5f68372917b988146068ee79daeebe28427";
    assert_eq!(hex::encode(*kdf_e(&[0x11; 32], "SECRET", &[0x22; 32], &[0x33; 32])), expected);
}

#[test]
fn parameters_are_encrypted_as_known() {
    let plain = b"thirty-four bytes of one parameter";
    let mut parameter = plain.to_vec();
    encrypt(&key(), &[0xaa; 32], &[0x55; 32], &mut parameter).unwrap();
    let expected = "0e77e87587aea41be5b08d9f6d1bbe196c7ab871ad02c161db4452bcc6d02382fa68";
    assert_eq!(hex::encode(&parameter), expected);
    decrypt(&key(), &[0xaa; 32], &[0x55; 32], &mut parameter).unwrap();
    assert_eq!(parameter, plain);
}

#[test]
fn an_hmac_is_over_its_parts_in_order() {
    let mac = hmac_of(b"key", &[b"ab", b"c"]);
    assert!(hmac_is(b"key", &[b"a", b"bc"], &mac));
    assert!(!hmac_is(b"key", &[b"c", b"ab"], &mac));
    assert!(!hmac_is(b"key", &[b"ab", b"c"], &mac[..31]));
    assert!(!hmac_is(b"key", &[b"ab", b"c"], &[]));
}
