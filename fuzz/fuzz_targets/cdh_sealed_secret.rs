//! Sealed secrets, their keys and payloads. Nobody here has a key, so that nothing verifies.

#![no_main]

use std::sync::LazyLock;

use cdh::modes::Modes;
use cdh::sealed_secret::{MAXIMUM_SEALED_BYTES, Payload, SealedSecret, VerificationKey, open_data};
use fuzz::bounded;
use libfuzzer_sys::fuzz_target;

static KEY: LazyLock<VerificationKey> = LazyLock::new(|| {
    let key = br#"{"kty":"EC","crv":"P-256","x":"hMAqn_KI4tnFzl3xJlGUF-cmjLqrctp8_kD5OsuGrQI","y":"9A-6M4Cxio0WXqjUx_LiyYImKHE-YlWdHDGHT_W4K68"}"#;
    VerificationKey::parse(key).expect("a key")
});

fuzz_target!(|data: &[u8]| {
    if let Ok(sealed) = bounded(data.len(), || SealedSecret::parse(data)) {
        let _ = sealed.kid();
        assert!(sealed.verify(&KEY).is_err(), "a forgery");
        // Blanks behind it are nobody's.
        assert!(data.len() == MAXIMUM_SEALED_BYTES || SealedSecret::parse(&[data, b"\n"].concat()).is_ok());
    }
    let _ = bounded(data.len(), || VerificationKey::parse(data));
    if let Ok(Payload::Envelope(envelope)) = bounded(data.len(), || Payload::parse(data)) {
        assert!(open_data(&envelope, &[7; 32], &Modes::none()).is_err(), "a forgery");
    }
});
