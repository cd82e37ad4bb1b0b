//! Initdata in any of its carriers, told apart by how they begin.

use std::fs::File;
use std::path::Path;

use initdata::{Header, Initdata, MAXIMUM_TEXT_BYTES, Unverified};

use crate::error::Failure;
use crate::files;

/// The first bytes of a gzip member.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The bytes of the document, which nothing vouches for.
pub(super) fn unverified(path: &Path) -> Result<Unverified, Failure> {
    let purpose = "read the initdata";
    let standard_input = path.as_os_str() == "-";
    if !standard_input {
        let device = File::open(path).map_err(Failure::file(purpose, path))?;
        // A device is larger than what is read of it.
        if let Some(header) = Header::read(&device).map_err(Failure::file(purpose, path))? {
            return Ok(header.read_text(&device)?);
        }
    }
    let cap = u64::try_from(MAXIMUM_TEXT_BYTES).unwrap_or(u64::MAX);
    let path = if standard_input { Path::new("/dev/stdin") } else { path };
    let bytes = files::read(purpose, path, cap)?;
    if Header::read(&bytes.as_slice()).map_err(Failure::file(purpose, path))?.is_some() {
        return Ok(Unverified::from_device(&bytes.as_slice())?);
    }
    if bytes.starts_with(&GZIP) {
        return Ok(Unverified::from_gzip(&bytes)?);
    }
    let base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=".contains(byte);
    match std::str::from_utf8(&bytes) {
        // No document is without blanks, quotes and equals signs inside.
        Ok(text) if text.trim_ascii().as_bytes().iter().all(base64) => Ok(Unverified::from_annotation(text)?),
        _ => Ok(Unverified::new(bytes)?),
    }
}

/// The document, which nothing vouches for: to be looked at.
pub(super) fn document(path: &Path) -> Result<Initdata, Failure> {
    Ok(unverified(path)?.insecure_unbound()?)
}
