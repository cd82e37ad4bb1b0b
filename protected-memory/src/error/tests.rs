use std::collections::BTreeSet;

use super::CODES;

/// The sources in which codes are given out.
const SOURCES: &[&str] = &[
    include_str!("../confine/error.rs"),
    include_str!("../dma/error.rs"),
    include_str!("../harden.rs"),
    include_str!("../landing/error.rs"),
    include_str!("../secret/error.rs"),
];

#[test]
fn code_table_and_errors_agree() {
    let table: Vec<&str> = CODES.iter().map(|(code, _)| *code).collect();
    assert!(table.is_sorted_by(|a, b| a < b), "codes are unique and in order");
    let mut used = BTreeSet::new();
    for source in SOURCES {
        for piece in source.split("=> \"MEM-").skip(1) {
            let code = format!("MEM-{}", piece.split('"').next().unwrap());
            assert!(used.insert(code.clone()), "{code} is given out twice");
        }
    }
    assert_eq!(used, table.into_iter().map(str::to_owned).collect());
}
