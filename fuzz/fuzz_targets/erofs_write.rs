//! Images of trees: none larger than its limit, the same twice, and in whole blocks.

#![no_main]

use cdh::composefs::erofs::{BLOCK, Format, Options, write};
use cdh::composefs::fuzzing;
use libfuzzer_sys::fuzz_target;

const LIMIT: u64 = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let tree = fuzzing::tree(data);
    for format in [Format::V0, Format::V1] {
        let options = Options { format, limit: LIMIT, ..Options::default() };
        match write(&tree, &options) {
            Ok(image) => {
                let length = image.len() as u64;
                assert!(length <= LIMIT && length.is_multiple_of(BLOCK));
                assert!(write(&tree, &options).is_ok_and(|again| again == image));
                let less = Options { limit: length - 1, ..options };
                assert_eq!(write(&tree, &less).map_err(|error| error.code()), Err("COMPOSEFS_TOO_LARGE"));
            }
            Err(error) => assert!(error.code().starts_with("COMPOSEFS_")),
        }
    }
});
