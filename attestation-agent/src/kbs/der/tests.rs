use super::*;

#[test]
fn nothing_is_read_behind_an_end() {
    // SEQUENCE { SEQUENCE {}, BIT STRING { 0, SEQUENCE { INTEGER 00 81, INTEGER 03 } } }
    let spki =
        [0x30, 0x0e, 0x30, 0x00, 0x03, 0x0a, 0x00, 0x30, 0x07, 0x02, 0x02, 0x00, 0x81, 0x02, 0x01, 0x03];
    assert_eq!(rsa_public(&spki), Some((&[0x81][..], &[0x03][..])));
    for end in 0..spki.len() {
        assert_eq!(rsa_public(&spki[..end]), None, "{end}");
    }
    for length in [&[0x84, 1, 0, 0, 0][..], &[0x80], &[0x83, 0xff, 0xff, 0xff], &[]] {
        assert_eq!(element(SEQUENCE, &[&[SEQUENCE], length].concat()), None);
    }
}
