//! From the bytes of a layer to those of its archive: decompressed, counted, hashed.

use std::io::{BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest, Sha256, Sha512};

use super::error::Bound;
use super::zstd::Frames;
use super::{Compression, DiffId, LayerError, Limits};

/// What is read from a layer at once.
const BUFFER: usize = 1 << 16;

/// Where an archive's bytes come from.
pub trait Source {
    /// Reads some bytes; none at the end.
    ///
    /// # Errors
    ///
    /// Why there is nothing more to be had. The source is not read again then.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, LayerError>;
}

/// The bytes as they are: for archives that are not compressed, and whose digest nobody asks for.
#[derive(Debug)]
pub struct Plain<R>(pub R);

impl<R: Read> Source for Plain<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, LayerError> {
        self.0.read(buffer).map_err(LayerError::Read)
    }
}

/// A layer's expanded bytes, at most so many as its limits allow. Each is hashed before it is given out.
pub(super) struct Expanded<R: BufRead> {
    decoder: Decoder<R>,
    hash: Hash,
    expected: DiffId,
    read: u64,
    room: Room,
}

/// How many more bytes may come.
#[derive(Clone, Copy, Debug)]
struct Room {
    left: u64,
    limit: u64,
    what: &'static str,
}

enum Decoder<R: BufRead> {
    Plain(R),
    Gzip(Box<MultiGzDecoder<R>>),
    Zstd(Box<Frames<R>>),
}

enum Hash {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl<R: Read> Expanded<BufReader<R>> {
    /// Of an image, of whose allowance `used` bytes were taken by other layers.
    pub(super) fn new(
        input: R,
        compression: Compression,
        expected: DiffId,
        limits: &Limits,
        used: u64,
    ) -> Self {
        let input = BufReader::with_capacity(BUFFER, input);
        let decoder = match compression {
            Compression::None => Decoder::Plain(input),
            Compression::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(input))),
            Compression::Zstd => Decoder::Zstd(Box::new(Frames::new(input, limits.window_bytes))),
        };
        let hash = match expected {
            DiffId::Sha256(_) => Hash::Sha256(Sha256::new()),
            DiffId::Sha512(_) => Hash::Sha512(Sha512::new()),
        };
        let image = limits.image_bytes.saturating_sub(used);
        let room = if image < limits.layer_bytes {
            Room { left: image, limit: limits.image_bytes, what: "expanded bytes of an image" }
        } else {
            Room { left: limits.layer_bytes, limit: limits.layer_bytes, what: "expanded bytes of a layer" }
        };
        Self { decoder, hash, expected, read: 0, room }
    }
}

impl<R: BufRead> Expanded<R> {
    /// Reads what is left, and compares the digest. How many bytes there were.
    pub(super) fn finish(mut self) -> Result<u64, LayerError> {
        let mut rest = vec![0; BUFFER];
        while self.read(&mut rest)? > 0 {}
        let found = match self.hash {
            Hash::Sha256(hash) => DiffId::Sha256(hash.finalize().into()),
            Hash::Sha512(hash) => DiffId::Sha512(hash.finalize().into()),
        };
        // GUARD: layer-diff-id -> evil_layer_with_another_diff_id
        if found != self.expected {
            return Err(LayerError::DiffId { expected: self.expected.to_string(), found: found.to_string() });
        }
        Ok(self.read)
    }
}

impl<R: BufRead> Source for Expanded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, LayerError> {
        let count = match &mut self.decoder {
            Decoder::Plain(input) => input.read(buffer).map_err(LayerError::Read)?,
            Decoder::Gzip(decoder) => decoder.read(buffer).map_err(gzip)?,
            Decoder::Zstd(frames) => frames.read(buffer)?,
        };
        let counted = u64::try_from(count).unwrap_or(u64::MAX);
        // GUARD: layer-expanded-bound -> evil_bombs_of_gzip_and_zstd
        if counted > self.room.left {
            return Err(LayerError::bound(Bound::Expanded, self.room.what, self.room.limit));
        }
        self.room.left = self.room.left.saturating_sub(counted);
        self.read = self.read.saturating_add(counted);
        let bytes = buffer.get(..count).unwrap_or_default();
        match &mut self.hash {
            Hash::Sha256(hash) => hash.update(bytes),
            Hash::Sha512(hash) => hash.update(bytes),
        }
        Ok(count)
    }
}

/// The decoder says with these kinds that the stream is wrong; others are the input's own.
fn gzip(error: std::io::Error) -> LayerError {
    use std::io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    match error.kind() {
        InvalidData | InvalidInput | UnexpectedEof => {
            LayerError::Compressed { format: "gzip", found: error.to_string() }
        }
        _ => LayerError::Read(error),
    }
}
