use super::super::FileName;
use super::{LANDING_MAX_FILES, LandingPlan};
use crate::HUGE_PAGE_BYTES;

fn named(names: impl IntoIterator<Item = String>, size: u64) -> Result<LandingPlan, super::LandingError> {
    LandingPlan::new(names.into_iter().map(|name| (FileName::parse(&name).unwrap(), size)))
}

#[test]
fn needed_bytes_are_whole_huge_pages() {
    let huge = HUGE_PAGE_BYTES as u64;
    assert_eq!(named(["a".into()], 1).unwrap().needed_bytes(), 2 * huge);
    assert_eq!(named(["a".into(), "b".into()], huge + 1).unwrap().needed_bytes(), 5 * huge);
}

#[test]
fn evil_name_used_twice_is_refused() {
    assert_eq!(named(["a".into(), "a".into()], 1).unwrap_err().code(), "MEM-002");
}

#[test]
fn evil_file_count_is_refused() {
    let names = |count| (0..count).map(|index| index.to_string());
    assert!(named(names(LANDING_MAX_FILES), 1).is_ok());
    assert_eq!(named(names(LANDING_MAX_FILES + 1), 1).unwrap_err().code(), "MEM-002");
}

#[test]
fn evil_sizes_that_overflow_are_refused() {
    for size in [u64::MAX, i64::MAX as u64, u64::MAX / 2 + 1] {
        assert_eq!(named(["a".into(), "b".into()], size).unwrap_err().code(), "MEM-002");
    }
    assert_eq!(named([], 1).unwrap_err().code(), "MEM-002");
}
