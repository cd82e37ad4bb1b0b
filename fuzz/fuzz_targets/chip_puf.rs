//! Helper data of the PUF. Altered helper data never gives a root, and nothing makes the decoder fail otherwise.
//!
//! Input: 4 bytes (offset and number of bit errors of the reading), then changes to the helper data, position and value.

#![no_main]
#![allow(dead_code, missing_docs, unfulfilled_lint_expectations, unreachable_pub, unused_imports)]

#[path = "../../emulators/chip/src/puf/mod.rs"]
mod puf;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use puf::{BLOCKS, Extractor, HelperData, RESPONSE_BYTES, Response};

struct Chip {
    extractor: Extractor,
    reading: [u8; RESPONSE_BYTES],
    helper: [u8; HELPER_BYTES],
    root: [u8; 16],
}

const HELPER_BYTES: usize = RESPONSE_BYTES + 64;

static CHIP: LazyLock<Chip> = LazyLock::new(|| {
    let extractor = Extractor::new();
    let mut reading: [u8; RESPONSE_BYTES] = std::array::from_fn(|i| (i * 151 + 7) as u8);
    reading[RESPONSE_BYTES - 1] &= 0x80;
    let (helper, root) = extractor.enrol(&Response::unpack(&reading), &[0x1234_5678_9ABC_DEF0; BLOCKS]);
    let mut print = [0; 16];
    root.expand(&[b"fuzz"], &mut print);
    Chip { extractor, reading, helper: helper.to_bytes(), root: print }
});

fuzz_target!(|data: &[u8]| {
    let Some(([a, b, count, step], changes)) = data.split_first_chunk::<4>() else { return };
    let mut reading = CHIP.reading;
    let first = usize::from(u16::from_le_bytes([*a, *b]));
    for error in 0..usize::from(*count) {
        let bit = (first + error * usize::from(*step | 1)) % 1_785;
        reading[bit / 8] ^= 0x80 >> (bit % 8);
    }
    let mut helper = CHIP.helper;
    for change in changes.chunks_exact(3) {
        helper[usize::from(u16::from_le_bytes([change[0], change[1]])) % HELPER_BYTES] ^= change[2];
    }
    let result = CHIP.extractor.reconstruct(&Response::unpack(&reading), &HelperData::from_bytes(&helper));
    if let Ok(root) = result {
        let mut print = [0; 16];
        root.expand(&[b"fuzz"], &mut print);
        assert_eq!(print, CHIP.root, "another root than the enrolled one");
        assert_eq!(helper[RESPONSE_BYTES..], CHIP.helper[RESPONSE_BYTES..], "helper data with another MAC");
    }
});
