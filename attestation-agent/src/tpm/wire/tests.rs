use proptest::prelude::*;

use super::{
    ALG_SHA256, Attest, Created, CreatedPrimary, EccPoint, Handles, KeyKind, Name, PcrBanks, PcrRead,
    Properties, Public, Refusal, Response, ResponseCode, Scheme, Shape, Signature, Symmetric, Writer,
};
use crate::tpm::pcr::{PcrSelection, Pcrs};

const PLAIN: Shape = Shape { handle: false, session: false };
const SESSION: Shape = Shape { handle: false, session: true };

fn signing_key() -> Public {
    let point = EccPoint { x: vec![1; 32], y: vec![2; 32] };
    let kind = KeyKind::Ecc { symmetric: Symmetric::Null, scheme: Scheme::Ecdsa, point };
    Public { attributes: 0x5_0072, policy: Vec::new(), kind }
}

fn response(tag: u16, size: u32, code: u32, rest: &[u8]) -> Vec<u8> {
    Writer::new().u16(tag).u32(size).u32(code).raw(rest).done().to_vec()
}

/// A quote, with what can be wrong about it.
fn attest(magic: u32, kind: u16) -> Vec<u8> {
    let start = Writer::new().u32(magic).u16(kind).sized(&[9; 34]).sized(&[7; 32]);
    let clock = start.u32(0).u32(5).u32(1).u32(2).u8(1).u32(3).u32(4);
    clock.raw(&PcrSelection::ALL.marshal()).sized(&[6; 32]).done().to_vec()
}

/// Parameters of ReadPublic.
fn read_public(public: &Public, name: &Name) -> Vec<u8> {
    Writer::new().sized(&public.marshal()).sized(&name.0).sized(&name.0).done().to_vec()
}

#[test]
fn public_areas_survive_their_bytes() {
    let data = Public { attributes: 0x492, policy: vec![3; 32], kind: KeyKind::Data { unique: vec![4; 32] } };
    let rsa = Public {
        attributes: 0x5_0072,
        policy: Vec::new(),
        kind: KeyKind::Rsa {
            symmetric: Symmetric::Aes128Cfb,
            scheme: Scheme::RsaSsa,
            bits: 2048,
            exponent: 0,
            modulus: vec![0xff; 256],
        },
    };
    for public in [data, rsa, signing_key()] {
        assert_eq!(Public::parse(&public.marshal()).unwrap(), public);
        assert_eq!(Name::parse(&public.name().0).unwrap(), public.name());
    }
    assert_eq!(
        Public::parse_read_public(&read_public(&signing_key(), &signing_key().name())).unwrap(),
        signing_key()
    );
}

#[test]
fn only_what_makes_objects_unique_may_differ_from_a_template() {
    let mut template = signing_key();
    template.kind = KeyKind::Ecc {
        symmetric: Symmetric::Null,
        scheme: Scheme::Ecdsa,
        point: EccPoint { x: Vec::new(), y: Vec::new() },
    };
    assert!(signing_key().is_made_from(&template));
    let other = Public { attributes: 0x4_0072, ..signing_key() };
    assert!(!other.is_made_from(&template));
    let other = Public { policy: vec![0; 32], ..signing_key() };
    assert!(!other.is_made_from(&template));
}

#[test]
fn evil_tpm_public_area_under_another_name() {
    let mut name = signing_key().name();
    name.0[33] ^= 1;
    let error = Public::parse_read_public(&read_public(&signing_key(), &name)).unwrap_err();
    assert_eq!(error.code(), "TPM_UNEXPECTED");
}

#[test]
fn evil_bytes_behind_tpm_structures() {
    let mut public = signing_key().marshal();
    public.push(0);
    assert_eq!(Public::parse(&public).unwrap_err().code(), "TPM_TRAILING");
    let mut quote = attest(0xff54_4347, 0x8018);
    quote.push(0);
    assert_eq!(Attest::parse(&quote).unwrap_err().code(), "TPM_TRAILING");
    let refused = response(0x8001, 11, 0x101, &[0]);
    assert_eq!(Response::parse(&refused, PLAIN).unwrap_err().code(), "TPM_TRAILING");
}

#[test]
fn evil_tpm_lengths_beyond_caps() {
    // A signature of 513 bytes, all of them there.
    let signature = Writer::new().u16(0x14).u16(ALG_SHA256).sized(&[0; 513]).done();
    assert_eq!(Signature::parse(&signature).unwrap_err().code(), "TPM_TOO_LARGE");
    let handles = Writer::new().u8(0).u32(1).u32(u32::MAX).done();
    assert_eq!(Handles::parse(&handles).unwrap_err().code(), "TPM_TOO_LARGE");
}

#[test]
fn evil_tpm_fields_of_another_form() {
    let mut public = signing_key().marshal();
    public[3] = 0x0c; // name algorithm SHA-384
    assert_eq!(Public::parse(&public).unwrap_err().code(), "TPM_UNEXPECTED");
    let name = Name([0; 34]);
    assert_eq!(Name::parse(&name.0).unwrap_err().code(), "TPM_UNEXPECTED");
}

#[test]
fn evil_tpm_response_size_lies() {
    for size in [0, 9, 11, u32::MAX] {
        let bytes = response(0x8001, size, 0, &[]);
        assert_eq!(Response::parse(&bytes, PLAIN).unwrap_err().code(), "TPM_UNEXPECTED", "{size}");
    }
    for (rest, accepted) in [(4086, true), (4087, false)] {
        let head = response(0x8001, 10 + rest, 0, &[]);
        let bytes = [head, vec![0; usize::try_from(rest).unwrap()]].concat();
        assert_eq!(Response::parse(&bytes, PLAIN).is_ok(), accepted, "{rest} bytes of parameters");
    }
    let bytes = response(0x8001, 12, 0, &[1, 2]);
    assert!(
        matches!(Response::parse(&bytes, PLAIN), Ok(Response::Accepted(accepted)) if accepted.parameters == [1, 2])
    );
}

#[test]
fn evil_tpm_response_tags() {
    // A session's command is not answered without a session; a refusal never has one.
    let bare = response(0x8001, 10, 0, &[]);
    assert_eq!(Response::parse(&bare, SESSION).unwrap_err().code(), "TPM_UNEXPECTED");
    let refusal = response(0x8002, 10, 0x101, &[]);
    assert_eq!(Response::parse(&refusal, SESSION).unwrap_err().code(), "TPM_UNEXPECTED");
    // The tag of TPM 1.2.
    let old = response(0x00c4, 10, 0x1e, &[]);
    assert_eq!(Response::parse(&old, PLAIN).unwrap_err().code(), "TPM_UNEXPECTED");
}

#[test]
fn evil_tpm_attestation_not_generated() {
    assert_eq!(Attest::parse(&attest(0xff54_4347, 0x8018)).unwrap().pcr_digest, [6; 32]);
    assert_eq!(Attest::parse(&attest(0xff54_4348, 0x8018)).unwrap_err().code(), "TPM_UNEXPECTED");
}

#[test]
fn evil_tpm_attestation_of_another_type() {
    // TPM_ST_ATTEST_CERTIFY
    assert_eq!(Attest::parse(&attest(0xff54_4347, 0x8017)).unwrap_err().code(), "TPM_UNEXPECTED");
}

#[test]
fn evil_pcr_read_with_other_counts() {
    let read = |count: u32, digests: u32| {
        let two = PcrSelection::from_bits(0b11).unwrap().marshal();
        let start = Writer::new().u32(1).raw(&two).u32(count);
        (0..digests).fold(start, |writer, _| writer.sized(&[1; 32])).done()
    };
    assert_eq!(PcrRead::parse(&read(2, 2)).unwrap().digests.len(), 2);
    assert_eq!(PcrRead::parse(&read(1, 1)).unwrap_err().code(), "TPM_UNEXPECTED");
    let none = Writer::new().u32(1).raw(&PcrSelection::from_bits(0).unwrap().marshal()).u32(0).done();
    assert_eq!(PcrRead::parse(&none).unwrap_err().code(), "TPM_UNEXPECTED");
}

#[test]
fn evil_capability_of_another_kind() {
    let handles = Writer::new().u8(0).u32(1).u32(0).done();
    assert!(Handles::parse(&handles).unwrap().0.is_empty());
    assert_eq!(Properties::parse(&handles).unwrap_err().code(), "TPM_UNEXPECTED");
    assert_eq!(PcrBanks::parse(&handles).unwrap_err().code(), "TPM_UNEXPECTED");
}

#[test]
fn response_codes_are_told_apart_with_and_without_numbers() {
    let refusal = |value| ResponseCode::new(value).unwrap().refusal();
    assert_eq!(ResponseCode::new(0), None);
    for (value, expected) in [
        (0x922, Refusal::Retry),
        (0x90a, Refusal::Retry),
        (0x902, Refusal::NoSlots),
        (0x18b, Refusal::Handle),
        (0x1c4, Refusal::Value),
        (0x99d, Refusal::PolicyFail),
        (0x1df, Refusal::Integrity),
        (0x101, Refusal::Failure),
        (0x98e, Refusal::Auth),
        (0x8000_0922, Refusal::Other),
    ] {
        assert_eq!(refusal(value), expected, "{value:#x}");
    }
    assert_eq!(ResponseCode::new(0x922).unwrap().to_string(), "0x922 (RETRY)");
}

#[test]
fn short_ecdsa_numbers_are_padded_on_the_left() {
    let signature = Writer::new().u16(0x18).u16(ALG_SHA256).sized(&[1; 31]).sized(&[2; 32]).done();
    let Signature::Ecdsa(joined) = Signature::parse(&signature).unwrap() else { panic!("not ECDSA") };
    assert_eq!(joined[..2], [0, 1]);
    assert_eq!(joined[32..], [2; 32]);
}

#[test]
fn digest_of_registers_is_over_the_selected_ones_in_order() {
    use sha2::{Digest, Sha256};
    let pcrs = Pcrs::new(std::array::from_fn(|index| [u8::try_from(index).unwrap(); 32]));
    let selection = PcrSelection::from_bits(1 << 8 | 1 << 3).unwrap();
    let expected: [u8; 32] = Sha256::digest([[3; 32], [8; 32]].concat()).into();
    assert_eq!(pcrs.digest(selection), expected);
    assert_eq!(PcrSelection::from_bits(1 << 24), None);
}

#[test]
fn initdata_of_other_lengths_is_refused() {
    for length in [0, 31, 33, 48, 64] {
        let error = crate::tpm::pcr::initdata_pcr(&vec![1; length]).unwrap_err();
        assert_eq!(error.code(), "TPM_INITDATA_LENGTH");
    }
}

proptest! {
    /// What is parsed is written back in the same bytes; nothing panics.
    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(public) = Public::parse(&bytes) {
            prop_assert_eq!(public.marshal(), bytes.clone());
        }
        for shape in [PLAIN, SESSION, Shape { handle: true, session: true }] {
            let _ = Response::parse(&bytes, shape);
        }
        let _ = (Attest::parse(&bytes), Signature::parse(&bytes), PcrRead::parse(&bytes));
        let _ = (Created::parse(&bytes), CreatedPrimary::parse(&bytes), Public::parse_read_public(&bytes));
        let _ = (PcrBanks::parse(&bytes), Handles::parse(&bytes), Properties::parse(&bytes));
    }

    /// Flipped bits of a public area are noticed or change what it says.
    #[test]
    fn a_flipped_bit_is_another_public_area(at in 0_usize..2000) {
        let mut bytes = signing_key().marshal();
        let index = at / 8 % bytes.len();
        bytes[index] ^= 1 << (at % 8);
        prop_assert_ne!(Public::parse(&bytes).ok(), Some(signing_key()));
    }
}
