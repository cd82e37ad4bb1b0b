//! Numbers in the kernel's files.

use crate::cgroup::CgroupError;

/// Pairs that are read of one file.
const MAXIMUM_PAIRS: usize = 1024;

/// A number, and nothing else.
pub(super) fn parse(file: &'static str, text: &str) -> Result<u64, CgroupError> {
    let text = text.trim_end_matches('\n');
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number).ok_or(CgroupError::Malformed { file })
}

/// A number, or `max`.
pub(super) fn parse_limit(file: &'static str, text: &str) -> Result<Option<u64>, CgroupError> {
    if text.trim_end_matches('\n') == "max" {
        return Ok(None);
    }
    parse(file, text).map(Some)
}

/// Lines of a key and a number. Others are of kernels that come later.
pub(super) fn pairs(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().take(MAXIMUM_PAIRS).filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        Some((key, parse("", value).ok()?))
    })
}
