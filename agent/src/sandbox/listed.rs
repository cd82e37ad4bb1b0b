//! What the measured image lists: names or paths, one a line, in a file that nobody but its maker wrote.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use crate::start::is_measured;

/// Longest list in bytes; the rest is not read.
const MAXIMUM_BYTES: u64 = 64 << 10;

/// The list; without the file it is empty. `None`: there is one that nothing vouches for.
///
/// # Errors
/// The system's.
pub(super) fn read(path: &Path) -> io::Result<Option<BTreeSet<String>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(BTreeSet::new())),
        Err(error) => return Err(error),
    };
    // GUARD: list-measured -> evil_host_list_of_modules_on_a_disk, evil_host_list_of_hooks_on_a_disk
    if !is_measured(&file).unwrap_or(false) {
        return Ok(None);
    }
    let text = io::read_to_string(file.take(MAXIMUM_BYTES))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(Some(lines.map(str::to_owned).collect()))
}
