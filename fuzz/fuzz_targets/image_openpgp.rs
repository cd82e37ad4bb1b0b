//! Keyrings and signed messages. Under a keyring that is fixed nothing verifies but what its key signed.

#![no_main]

use std::sync::LazyLock;

use cdh::image::policy::openpgp::Keyring;
use fuzz::bounded;
use libfuzzer_sys::fuzz_target;

static RING: LazyLock<Keyring> =
    LazyLock::new(|| Keyring::parse(include_bytes!("../seeds/image_openpgp/ring")).expect("a keyring"));
static MESSAGE: &[u8] = include_bytes!("../seeds/image_openpgp/message");
static SIGNED: LazyLock<Vec<u8>> = LazyLock::new(|| RING.verify(MESSAGE).expect("a signed message").text);

fuzz_target!(|data: &[u8]| {
    message(data);
    if let [at0, at1, value, ..] = data {
        let mut bytes = MESSAGE.to_vec();
        let at = usize::from(u16::from_le_bytes([*at0, *at1])) % bytes.len();
        bytes[at] = *value;
        message(&bytes);
    }
    if let Ok(ring) = bounded(data.len(), || Keyring::parse(data)) {
        assert!(ring.fingerprints().next().is_some());
        // Somebody else's keys verify nothing of ours, and ours again only what was signed.
        if let Ok(verified) = ring.verify(MESSAGE) {
            assert_eq!(verified.text, *SIGNED);
        }
    }
});

fn message(data: &[u8]) {
    // Compressed bytes may become more, up to the cap of a message.
    if let Ok(verified) = RING.verify(data) {
        assert_eq!(verified.text, *SIGNED);
    }
}
