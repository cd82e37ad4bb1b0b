//! Compressed packets (RFC 4880, 5.6): inflated within a bound, with nothing behind the stream.

use std::io::Read;

use flate2::bufread::{DeflateDecoder, ZlibDecoder};

use super::error::OpenPgpFault;

const ZIP: u8 = 1;
const ZLIB: u8 = 2;

/// What the body of a compressed packet holds, at most `maximum` bytes.
pub(super) fn inflate(body: &[u8], maximum: usize) -> Result<Vec<u8>, OpenPgpFault> {
    let (algorithm, mut stream) =
        body.split_first().ok_or(OpenPgpFault::malformed("a compression algorithm"))?;
    let inflated = match *algorithm {
        ZIP => read(&mut DeflateDecoder::new(&mut stream), maximum)?,
        ZLIB => read(&mut ZlibDecoder::new(&mut stream), maximum)?,
        found => return Err(OpenPgpFault::Unsupported { what: "compression", found }),
    };
    // GUARD: pgp-behind-stream -> evil_bytes_behind_the_compressed_stream
    if !stream.is_empty() {
        return Err(OpenPgpFault::malformed("nothing behind the compressed stream"));
    }
    Ok(inflated)
}

fn read(decoder: &mut impl Read, maximum: usize) -> Result<Vec<u8>, OpenPgpFault> {
    let bound = u64::try_from(maximum).unwrap_or(u64::MAX).saturating_add(1);
    let mut inflated = Vec::new();
    decoder
        .take(bound)
        .read_to_end(&mut inflated)
        .map_err(|_| OpenPgpFault::malformed("a whole compressed stream"))?;
    // GUARD: pgp-inflated -> evil_message_that_inflates
    if inflated.len() > maximum {
        return Err(OpenPgpFault::TooLarge { most: maximum, unit: "bytes after inflating" });
    }
    Ok(inflated)
}
