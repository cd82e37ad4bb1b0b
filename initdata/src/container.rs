//! What the block device holds: magic, length, gzip stream.
//!
//! ```text
//!  0        8        16                 16+L
//!  │initdata│ L, u64 │ gzip stream, L bytes │ not read …
//!           │ little │
//!           │ endian │
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::error::InitdataError;
use crate::gzip;
use crate::unverified::{MAXIMUM_TEXT_BYTES, Unverified};

/// The first bytes of a device with initdata.
pub const MAGIC: [u8; 8] = *b"initdata";
/// Magic and length, in bytes.
pub const HEADER_BYTES: usize = 16;
/// Longest gzip stream in bytes.
pub const MAXIMUM_GZIP_BYTES: usize = 4 * 1024 * 1024;
/// Device images are padded with zeros to a multiple of this many bytes.
const BLOCK_BYTES: usize = 512;

/// Something that can be read at an offset. It is the host's: what is read is kept, and never read again.
pub trait Device {
    /// Reads into `buffer`, from `offset` bytes after the beginning on; how many bytes were read, 0 at the end.
    ///
    /// # Errors
    /// Those of the device.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
}

impl Device for File {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }
}

impl Device for &[u8] {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|at| self.get(at..)).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        Ok(count)
    }
}

/// The beginning of a device that offers initdata, as it was read the one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    length: u64,
}

impl Header {
    /// The header in these bytes, `None` where the magic is not there. The length is what the host says.
    #[must_use]
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let (magic, length) = bytes.split_first_chunk::<8>()?;
        let length = length.first_chunk::<8>()?;
        (*magic == MAGIC).then_some(Self { length: u64::from_le_bytes(*length) })
    }

    /// Reads the header of a device; `None` for a device with anything else, or less.
    ///
    /// # Errors
    /// Those of the device.
    pub fn read(device: &impl Device) -> io::Result<Option<Self>> {
        let mut bytes = [0; HEADER_BYTES];
        let count = read_full(device, 0, &mut bytes)?;
        Ok(if count == HEADER_BYTES { Self::parse(&bytes) } else { None })
    }

    /// The gzip stream's length in bytes as the host says it.
    #[must_use]
    pub const fn length(self) -> u64 {
        self.length
    }

    /// Reads the stream that this header announces into memory of our own and inflates it. What lies behind it on the device
    /// is not read.
    ///
    /// # Errors
    /// `INITDATA_TOO_LARGE` before anything is allocated; `INITDATA_IO`; `INITDATA_CONTAINER`.
    pub fn read_text(self, device: &impl Device) -> Result<Unverified, InitdataError> {
        let length = usize::try_from(self.length).unwrap_or(usize::MAX);
        // GUARD: initdata-length-cap -> evil_host_lying_length
        if length > MAXIMUM_GZIP_BYTES {
            return Err(InitdataError::too_large("length of the stream", MAXIMUM_GZIP_BYTES, self.length));
        }
        let mut stream = vec![0; length];
        let count = read_full(device, HEADER_BYTES as u64, &mut stream)
            .map_err(|source| InitdataError::Io { purpose: "read the device".to_owned(), source })?;
        // GUARD: initdata-whole-stream -> evil_host_short_device
        if count != length {
            return Err(InitdataError::Container {
                expected: "as many bytes as the header says",
                found: format!("{count} of {length}"),
            });
        }
        Unverified::from_gzip(&stream)
    }
}

/// The bytes of a device with this gzip stream, padded to whole blocks.
pub(crate) fn image(stream: &[u8]) -> Vec<u8> {
    let length = u64::try_from(stream.len()).unwrap_or(u64::MAX);
    let mut image = [MAGIC.as_slice(), &length.to_le_bytes(), stream].concat();
    image.resize(image.len().next_multiple_of(BLOCK_BYTES), 0);
    image
}

impl Unverified {
    /// Reads what a device (or the image of one) holds.
    ///
    /// # Errors
    /// `INITDATA_CONTAINER` also without the magic, `INITDATA_IO`, `INITDATA_TOO_LARGE`.
    pub fn from_device(device: &impl Device) -> Result<Self, InitdataError> {
        let failed = |source| InitdataError::Io { purpose: "read the device".to_owned(), source };
        let header = Header::read(device).map_err(failed)?.ok_or_else(|| InitdataError::Container {
            expected: "a device that begins with \"initdata\" and a length",
            found: "another".to_owned(),
        })?;
        header.read_text(device)
    }

    /// Inflates a gzip stream: one member, nothing behind it.
    ///
    /// # Errors
    /// `INITDATA_CONTAINER`, `INITDATA_TOO_LARGE`.
    pub fn from_gzip(stream: &[u8]) -> Result<Self, InitdataError> {
        // GUARD: initdata-gzip-cap -> evil_host_oversize_stream
        if stream.len() > MAXIMUM_GZIP_BYTES {
            return Err(InitdataError::too_large("bytes of the stream", MAXIMUM_GZIP_BYTES, stream.len()));
        }
        Self::new(gzip::inflate(stream, MAXIMUM_TEXT_BYTES)?)
    }
}

/// Reads until `buffer` is full or the device ends. Each byte is asked for until it came, and then never again.
fn read_full(device: &impl Device, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while let Some(rest) = buffer.get_mut(count..).filter(|rest| !rest.is_empty()) {
        let at = offset.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        match device.read_at(at, rest) {
            Ok(0) => break,
            Ok(more) => count = count.saturating_add(more.min(rest.len())),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests;
