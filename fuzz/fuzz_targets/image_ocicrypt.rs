//! Annotations of encrypted layers (public options, a zero byte, recipients) and private options. No key opens a blob that it did not make.

#![no_main]

use std::collections::BTreeMap;
use std::io::Cursor;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cdh::image::ocicrypt::{EncryptedLayer, KeyUnwrap};
use cdh::image::policy::Cause;
use fuzz::bounded;
use libfuzzer_sys::fuzz_target;
use protected_memory::secret::SecretBytes;

const TYPE: &str = "application/vnd.oci.image.layer.v1.tar+encrypted";
const PUBLIC: &str = r#"{"cipher":"AES_256_CTR_HMAC_SHA256","hmac":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","cipheroptions":{}}"#;

struct Fixed<'a>(&'a [u8]);

#[async_trait]
impl KeyUnwrap for Fixed<'_> {
    async fn unwrap(&self, _: &str, _: &[u8]) -> Result<SecretBytes, Cause> {
        Ok(SecretBytes::take_from(&mut self.0.to_vec())?)
    }
}

fn layer(public: &[u8], keys: &str) -> Option<EncryptedLayer> {
    let public = ("org.opencontainers.image.enc.pubopts".to_owned(), STANDARD.encode(public));
    let keys = ("org.opencontainers.image.enc.keys.provider.attestation-agent".to_owned(), keys.to_owned());
    let annotations = BTreeMap::from([public, keys]);
    // A clear type with the same annotations is refused, whatever they are.
    assert!(EncryptedLayer::parse("application/vnd.oci.image.layer.v1.tar", &annotations).is_err());
    EncryptedLayer::parse(TYPE, &annotations).ok().flatten()
}

fuzz_target!(|data: &[u8]| {
    let (public, keys) = data.split_at(data.iter().position(|byte| *byte == 0).unwrap_or(0));
    let keys = String::from_utf8_lossy(keys.strip_prefix(&[0]).unwrap_or(keys));
    let _ = bounded(data.len(), || layer(public, &keys));
    let layer = layer(PUBLIC.as_bytes(), "AAAA").expect("a layer");
    let provider = Fixed(data);
    let Poll::Ready(key) = pin!(layer.unwrap_key(&provider)).poll(&mut Context::from_waker(Waker::noop()))
    else {
        return;
    };
    let Ok(key) = key else { return };
    assert!(key.verify(Cursor::new(b"some bytes"), 10).is_err());
});
