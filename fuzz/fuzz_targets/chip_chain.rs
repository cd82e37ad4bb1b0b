//! Certificate chains of chips. Whatever was altered, what is accepted is the chip that the maker certified.
//!
//! Input: one byte (which certificate, or raw bytes), then edits of the certificate: position (2 bytes), kind, value.

#![no_main]

use std::sync::LazyLock;

use chip_client::abi::{CertificateList, IdentityFlags, IdentityRecord};
use chip_client::chain::{
    Authority, ChipId, ChipIdentity, PrivateKey, TrustRoot, certificate_from_pem_or_der,
};
use fuzz::bounded;
use fuzz::fixed::ARTIFACT;
use fuzz::stream::Choices;
use libfuzzer_sys::fuzz_target;

struct Made {
    root: TrustRoot,
    chain: CertificateList,
    identity: ChipIdentity,
}

static MADE: LazyLock<Made> = LazyLock::new(|| {
    let spki = ARTIFACT.sealer.public_key().spki_der().to_vec();
    let record = IdentityRecord {
        flags: IdentityFlags::default(),
        id: *ChipId::of_signing_key(&spki).as_bytes(),
        key_epoch: 1,
        environment: "test".to_owned(),
        signing_spki: spki,
        noise: [3; 32],
        p384: [4; 97],
        x_wing: Box::new([5; 1_216]),
        suites: 3,
        paths: 7,
    };
    let authority = Authority::create_root("fuzz root").expect("a root");
    let model = authority.create_model("fuzz model").expect("a model CA");
    let chip = model.issue_chip(&record, "test", 1, "fuzz").expect("a chip certificate");
    let root = TrustRoot::from_trusted(authority.certificate()).expect("a root");
    let chain = CertificateList { model: model.certificate().to_vec(), chip };
    let identity = ChipIdentity::verify(&root, &chain).expect("the chain itself");
    Made { root, chain, identity }
});

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices::new(data);
    let which = choices.u8();
    let mut chain = MADE.chain.clone();
    match which % 6 {
        0 => choices.edit(&mut chain.model),
        1 | 2 => choices.edit(&mut chain.chip),
        3 => chain.model = choices.rest().to_vec(),
        4 => chain.chip = choices.rest().to_vec(),
        _ => return others(choices.rest()),
    }
    if let Ok(identity) = bounded(data.len() + 16_384, || ChipIdentity::verify(&MADE.root, &chain)) {
        // ECDSA is malleable, so the bytes may differ; what is certified must not.
        assert_eq!(identity, MADE.identity);
    }
});

/// Roots, PEM and keys that an operator gives.
fn others(data: &[u8]) {
    let _ = bounded(data.len(), || certificate_from_pem_or_der(data, "root"));
    if let Ok(root) = bounded(data.len(), || TrustRoot::from_trusted(data)) {
        assert!(ChipIdentity::verify(&root, &MADE.chain).is_err());
    }
    if let Ok(key) = bounded(data.len(), || PrivateKey::parse(data)) {
        PrivateKey::parse(key.to_pem().as_bytes()).expect("our own PEM");
    }
}
