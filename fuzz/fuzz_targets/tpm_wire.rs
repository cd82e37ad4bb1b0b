//! What a TPM, or a host in its place, writes. Accepted structures encode to the same bytes where they have an encoding;
//! an altered quote verifies only with the message and the registers that were signed.
//!
//! Input: one byte (which structure), then its bytes; or edits of a good quote.

#![no_main]

use std::sync::LazyLock;

use attestation_agent::tpm::verify::verify;
use attestation_agent::tpm::wire::{
    Attest, Created, CreatedPrimary, Handles, MESSAGE_MAX_BYTES, Name, PcrBanks, PcrRead, Properties, Public,
    Response, Shape, Signature,
};
use attestation_agent::tpm::{
    AkDigest, Expected, ExpectedInitdata, PcrSelection, Sealed, TpmEvidence, wire::KeyKind,
};
use fuzz::bounded;
use fuzz::stream::Choices;
use fuzz::tpm::{QUOTE, REPORT_DATA};
use libfuzzer_sys::fuzz_target;

static TRUSTED: LazyLock<[AkDigest; 1]> = LazyLock::new(|| [AkDigest::of(&QUOTE.ak_public)]);

fuzz_target!(|data: &[u8]| {
    LazyLock::force(&TRUSTED);
    let mut choices = Choices::new(data);
    let which = choices.u8();
    if which % 16 == 15 {
        return altered(&mut choices);
    }
    let data = choices.rest();
    bounded(data.len(), || structure(which % 16, data));
});

fn structure(which: u8, data: &[u8]) {
    match which {
        0 => response(data),
        1 => drop(Public::parse(data).map(|public| same_public(&public, data))),
        2 => drop(Public::parse_read_public(data).map(|public| inside(&public, data))),
        3 => drop(CreatedPrimary::parse(data).map(|created| inside(&created.public, data))),
        4 => drop(Created::parse(data).map(|created| inside(&created.public, data))),
        5 => drop(Attest::parse(data).map(|attest| {
            assert!(data.starts_with(&[0xff, 0x54, 0x43, 0x47, 0x80, 0x18]));
            assert!(attest.nonce.len() <= 64 && data.ends_with(&attest.pcr_digest));
        })),
        6 => drop(Signature::parse(data).map(|signature| {
            if let Signature::RsaSsa(bytes) = signature {
                assert!(bytes.len() <= 512 && data.ends_with(&bytes));
            }
        })),
        7 => drop(PcrRead::parse(data).map(|read| {
            assert!(!read.digests.is_empty() && read.digests.len() == read.selection.count());
        })),
        8 => drop(PcrBanks::parse(data).map(|banks| assert!(banks.algorithms.len() <= 16))),
        9 => drop(Handles::parse(data).map(|handles| assert_eq!(data.len(), 9 + 4 * handles.0.len()))),
        10 => drop(Properties::parse(data).map(|all| {
            assert_eq!(data.len(), 9 + 8 * all.0.len());
            assert!(all.0.iter().all(|(property, _)| all.value(*property).is_some()));
        })),
        11 => drop(Name::parse(data).map(|name| assert_eq!(name.0, data))),
        12 => evidence(data),
        _ => sealed(data),
    }
}

fn response(data: &[u8]) {
    for (handle, session) in [(false, false), (false, true), (true, false), (true, true)] {
        let Ok(response) = Response::parse(data, Shape { handle, session }) else { continue };
        assert!(data.len() <= MESSAGE_MAX_BYTES);
        match response {
            Response::Accepted(accepted) => {
                assert_eq!((accepted.handle.is_some(), accepted.auth.is_some()), (handle, session));
                assert!(accepted.parameters.len() <= data.len() - 10);
            }
            Response::Refused(code) => {
                assert_eq!(data.len(), 10);
                assert_eq!(data[6..], code.value().to_be_bytes());
                let _ = (code.refusal(), code.to_string());
            }
        }
    }
}

fn same_public(public: &Public, data: &[u8]) {
    assert_eq!(public.marshal(), data);
    assert_eq!(Name::parse(&public.name().0), Ok(public.name()));
    assert!(public.is_made_from(&bare(public)));
    let _ = AkDigest::of_public(public);
}

fn inside(public: &Public, data: &[u8]) {
    let bytes = public.marshal();
    assert!(data.windows(bytes.len()).any(|window| window == bytes));
    assert_eq!(Public::parse(&bytes).as_ref(), Ok(public));
}

fn bare(public: &Public) -> Public {
    let mut bare = public.clone();
    match &mut bare.kind {
        KeyKind::Data { unique } => unique.clear(),
        KeyKind::Ecc { point, .. } => {
            point.x.clear();
            point.y.clear();
        }
        KeyKind::Rsa { modulus, .. } => modulus.clear(),
    }
    bare
}

fn evidence(data: &[u8]) {
    let Ok(evidence) = TpmEvidence::parse(data) else { return };
    let again = TpmEvidence::parse(evidence.to_json().to_string().as_bytes());
    assert_eq!(again.ok(), Some(evidence.clone()));
    judged(&evidence);
}

/// Parts as a grant carries them.
fn sealed(data: &[u8]) {
    let mut choices = Choices::new(data);
    let Some(selection) = PcrSelection::from_bits(choices.u32()) else { return };
    let Ok(policy) = choices.bytes(32).try_into() else { return };
    let len = usize::from(choices.u16());
    let (public, private) = (choices.bytes(len), choices.rest());
    let Ok(sealed) = Sealed::parse(selection, policy, Name::of_digest(&[7; 32]), public, private) else {
        return;
    };
    assert_eq!((sealed.selection(), sealed.policy()), (selection, policy));
    assert_eq!(sealed.public(), public);
    assert_eq!(sealed.private(), private);
    let parsed = Public::parse(&public[2..]).expect("its public area");
    assert_eq!(parsed.policy, policy);
}

fn altered(choices: &mut Choices<'_>) {
    let mut evidence = QUOTE.clone();
    match choices.u8() % 4 {
        0 => choices.edit(&mut evidence.message),
        1 => choices.edit(&mut evidence.signature),
        2 => choices.edit(&mut evidence.ak_public),
        _ => {
            let mut text = evidence.to_json().to_string().into_bytes();
            choices.edit(&mut text);
            let Ok(parsed) = TpmEvidence::parse(&text) else { return };
            evidence = parsed;
        }
    }
    bounded(8_192, || judged(&evidence));
}

fn judged(evidence: &TpmEvidence) {
    let initdata = ExpectedInitdata::NotJudged;
    let expected = Expected { report_data: &REPORT_DATA, trusted_aks: &*TRUSTED, initdata };
    if let Ok(verified) = verify(evidence, &expected) {
        assert_eq!(evidence.message, QUOTE.message);
        assert_eq!(evidence.ak_public, QUOTE.ak_public);
        assert_eq!(verified.pcrs, QUOTE.pcrs);
    }
    let others = Expected { report_data: &[1; 32], ..expected };
    assert!(verify(evidence, &others).is_err(), "a quote for another nonce");
}
