//! Gzip (RFC 1952): one member, within a bound, with nothing behind it.

use std::io::{self, Read as _, Write as _};

use flate2::bufread::GzDecoder;
use flate2::{Compression, GzBuilder};

use crate::error::InitdataError;

/// "Unknown" in the operating system field of a gzip header: the bytes do not say who made them.
const OS_UNKNOWN: u8 = 255;

/// Inflates the single member that `stream` has to consist of, to at most `maximum` bytes. Its checksum and length are
/// verified.
///
/// Memory grows with what comes out, never with what a header says.
pub(crate) fn inflate(stream: &[u8], maximum: usize) -> Result<Vec<u8>, InitdataError> {
    let limit = u64::try_from(maximum).unwrap_or(u64::MAX).saturating_add(1);
    let mut decoder = GzDecoder::new(stream);
    let mut text = Vec::new();
    decoder.by_ref().take(limit).read_to_end(&mut text).map_err(|error| refused(&error))?;
    // GUARD: initdata-inflated-cap -> evil_host_bomb
    if text.len() > maximum {
        return Err(InitdataError::too_large("bytes after inflating", maximum, "more"));
    }
    let behind = decoder.into_inner().len();
    // GUARD: initdata-one-member -> evil_host_second_member, evil_host_trailing_bytes
    if behind > 0 {
        return Err(InitdataError::Container {
            expected: "one gzip member and nothing behind it",
            found: format!("{behind} more bytes"),
        });
    }
    Ok(text)
}

/// Compresses into one member. Equal bytes give equal bytes: no time, no name.
pub(crate) fn deflate(text: &[u8]) -> Result<Vec<u8>, InitdataError> {
    let failed = |source| InitdataError::Io { purpose: "compress".to_owned(), source };
    let mut encoder =
        GzBuilder::new().mtime(0).operating_system(OS_UNKNOWN).write(Vec::new(), Compression::best());
    encoder.write_all(text).map_err(failed)?;
    encoder.finish().map_err(failed)
}

fn refused(error: &io::Error) -> InitdataError {
    let found = match error.kind() {
        io::ErrorKind::UnexpectedEof => "a stream that ends before".to_owned(),
        _ => error.to_string(),
    };
    InitdataError::Container { expected: "one whole gzip member with its checksum", found }
}
