//! Presentations. Accepted bytes are the encoding. Whatever was altered in good ones, what verifies says what was signed.
//!
//! Input: a presentation; or one byte (which good one, and whether it is verified), then edits of it.

#![no_main]

use std::sync::LazyLock;

use evidence::abi::presentation::Presentation;
use fuzz::bounded;
use fuzz::platform::{PLATFORMS, says_what_was_signed};
use fuzz::stream::Choices;
use libfuzzer_sys::fuzz_target;

static GOOD: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
    [PLATFORMS.tdx_presentation(), PLATFORMS.snp_presentation()]
        .map(|presentation| presentation.encode().expect("a presentation"))
});

fuzz_target!(|data: &[u8]| {
    check(data, true);
    let mut choices = Choices::new(data);
    let which = choices.u8();
    let mut bytes = GOOD[usize::from(which & 1)].clone();
    choices.edit(&mut bytes);
    // Verification costs a thousand times what parsing does.
    check(&bytes, which & 0x38 == 0);
});

fn check(data: &[u8], verify: bool) {
    let Ok(presentation) = bounded(data.len(), || Presentation::parse(data)) else { return };
    assert_eq!(presentation.encode().as_deref(), Ok(data));
    if verify {
        bounded(data.len() + 65_536, || says_what_was_signed(&presentation, &PLATFORMS.roots));
    }
}
