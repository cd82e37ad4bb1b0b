//! Memory that was plugged in is put online.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use super::sysfs::{attribute_text, names};

/// Puts every block of memory online that is not; returns how many were.
pub(super) fn online(sys: &Path) -> u64 {
    let directory = sys.join("devices/system/memory");
    let is_block =
        |name: &&String| name.strip_prefix("memory").is_some_and(|number| number.parse::<u64>().is_ok());
    let mut count = 0;
    for block in names(&directory).unwrap_or_default().iter().filter(is_block) {
        let state = directory.join(block).join("state");
        if !attribute_text(&state).is_ok_and(|state| state == "offline") {
            continue;
        }
        let file = OpenOptions::new().write(true).open(&state);
        if file.and_then(|mut file| file.write_all(b"online")).is_ok() {
            count += 1;
        }
    }
    count
}
