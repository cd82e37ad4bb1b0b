//! Sealer keys in PEM and DER. What is accepted writes a PEM that gives the same key.

#![no_main]

use std::sync::LazyLock;

use fuzz::bounded;
use fuzz::fixed::ARTIFACT;
use libfuzzer_sys::fuzz_target;
use sealed_artifact::signature::{SealerPublicKey, SealerSigningKey};

static GOOD: LazyLock<String> =
    LazyLock::new(|| ARTIFACT.sealer.to_pem().expect("a key that can be written").as_str().to_owned());

fuzz_target!(|data: &[u8]| {
    check(data);
    // A private key is in no seed: the mutations are applied to one that this process made.
    if let [at0, at1, value, ..] = data {
        let mut bytes = GOOD.clone().into_bytes();
        let at = usize::from(u16::from_le_bytes([*at0, *at1])) % bytes.len();
        bytes[at] = *value;
        check(&bytes);
    }
});

fn check(data: &[u8]) {
    if let Ok(key) = bounded(data.len(), || SealerPublicKey::from_spki_der(data)) {
        assert_eq!(key.spki_der(), data);
        assert_eq!(SealerPublicKey::from_pem(&key.to_pem()).as_ref(), Ok(&key));
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(key) = bounded(data.len(), || SealerPublicKey::from_pem(text)) {
        assert_eq!(SealerPublicKey::from_pem(&key.to_pem()).as_ref(), Ok(&key));
    }
    if let Ok(key) = bounded(data.len(), || SealerSigningKey::from_pem(text)) {
        let again = SealerSigningKey::from_pem(&key.to_pem().expect("a key that can be written"))
            .expect("our own PEM");
        assert_eq!(again.public_key(), key.public_key());
    }
}
