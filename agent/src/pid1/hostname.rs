//! The host name: that of the image.

use std::fs::File;
use std::io::Read as _;

use crate::error::AgentError;

const FILE: &str = "/etc/hostname";
const DEFAULT: &str = "localhost";
/// `HOST_NAME_MAX` of Linux.
const MAXIMUM_BYTES: u64 = 64;

/// Sets it.
pub(crate) fn set() -> Result<(), AgentError> {
    let mut text = String::new();
    let name = match File::open(FILE).and_then(|file| file.take(MAXIMUM_BYTES).read_to_string(&mut text)) {
        Ok(_) => text.lines().next().map(str::trim).filter(|name| !name.is_empty()).unwrap_or(DEFAULT),
        Err(_) => DEFAULT,
    };
    rustix::system::sethostname(name.as_bytes()).map_err(AgentError::system("set the host name"))
}
