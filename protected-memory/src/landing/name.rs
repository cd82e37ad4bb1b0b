//! The name of a file in a landing.

use std::fmt;

use super::LandingError;

/// The longest file name in bytes, as everywhere on Linux.
pub const FILE_NAME_MAX_BYTES: usize = 255;

/// A file name that is exactly one path component: nothing in it can leave the directory that it is used in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName(String);

impl FileName {
    /// Parses an untrusted name.
    ///
    /// # Errors
    ///
    /// Refused are the empty name, `.` and `..`, names with a slash, a NUL byte or another control character, and names
    /// longer than 255 bytes.
    pub fn parse(name: &str) -> Result<Self, LandingError> {
        let refuse = |reason| Err(LandingError::InvalidName { reason });
        // GUARD: file-name-empty -> evil_empty_file_name_is_refused
        if name.is_empty() {
            return refuse("it is empty");
        }
        // GUARD: file-name-length -> evil_long_file_name_is_refused
        if name.len() > FILE_NAME_MAX_BYTES {
            return refuse("it is longer than 255 bytes");
        }
        // GUARD: file-name-dots -> evil_dot_file_name_is_refused
        if name == "." || name == ".." {
            return refuse("it is a dot directory");
        }
        // GUARD: file-name-slash -> evil_slash_in_file_name_is_refused
        if name.contains('/') {
            return refuse("it has a slash");
        }
        // GUARD: file-name-control -> evil_control_character_in_file_name_is_refused
        if name.contains(char::is_control) {
            return refuse("it has a NUL byte or another control character");
        }
        Ok(Self(name.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests;
