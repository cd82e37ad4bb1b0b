//! Policy sources in TOML. What converts is canonical JSON that parses to the same document.

#![no_main]

use fuzz::bounded;
use libfuzzer_sys::fuzz_target;
use sealed_artifact::policy::PolicyDocument;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(document) = bounded(data.len(), || PolicyDocument::from_toml(text)) else { return };
    assert_eq!(PolicyDocument::parse(document.preimage()).as_ref(), Ok(&document));
    let _ = document.weaknesses();
});
