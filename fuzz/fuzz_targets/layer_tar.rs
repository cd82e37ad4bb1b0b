//! Layers of an image: decompressed, read as an archive, merged. What is accepted is a tree that its serial form gives back.

#![no_main]

use cdh::composefs::verity::Hasher;
use cdh::image::layer::{Compression, DiffId, Limits, Unpacker, codec};
use cdh::image::objects::{ContentSink, ObjectError, ObjectWriter};
use cdh::image::tree::{ObjectId, Tree};
use fuzz::{bounded, bounded_beside};
use libfuzzer_sys::fuzz_target;
use sha2::{Digest as _, Sha256};

/// Little of everything, so that each limit is reached.
const LIMITS: Limits = Limits {
    layers: 4,
    layer_bytes: 1 << 18,
    image_bytes: 1 << 19,
    content_bytes: 1 << 20,
    entries: 500,
    inodes: 1000,
    metadata_bytes: 1 << 18,
    window_bytes: 1 << 16,
};

/// Hashes, and keeps nothing.
struct Hashing;

struct Object(Hasher, u64);

impl ContentSink for Hashing {
    fn begin(&self, size: u64) -> Result<Box<dyn ObjectWriter + '_>, ObjectError> {
        assert!(size > 64 && size <= LIMITS.content_bytes);
        Ok(Box::new(Object(Hasher::new(), size)))
    }
}

impl ObjectWriter for Object {
    fn data(&mut self, bytes: &[u8]) -> Result<(), ObjectError> {
        self.0.update(bytes);
        Ok(())
    }

    fn hole(&mut self, length: u64) -> Result<(), ObjectError> {
        (0..length).for_each(|_| self.0.update(&[0]));
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<ObjectId, ObjectError> {
        assert_eq!(self.0.size(), self.1);
        Ok(self.0.finish())
    }
}

fuzz_target!(|data: &[u8]| {
    // Plain: the input may be two layers, the length of the first one in front.
    if let Some((length, rest)) = data.split_first_chunk::<2>() {
        let (first, second) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
        if let Some(tree) = bounded(data.len(), || plain(&[first, second])) {
            check(&tree);
        }
    }
    if let Some(tree) = bounded(data.len(), || plain(&[data])) {
        check(&tree);
    }
    // Compressed: a digest that nobody could have guessed.
    for compression in [Compression::Gzip, Compression::Zstd] {
        // A block of zstd has up to 98,303 sequences, which its decoder has room for as soon as their number is read.
        let sequences = if compression == Compression::Zstd { 98_303 * 12 } else { 0 };
        let refused = bounded_beside(sequences, data.len(), || {
            Unpacker::new(&Hashing, LIMITS).layer(data, compression, &DiffId::Sha256([0; 32])).map(drop)
        });
        assert!(refused.is_err());
    }
});

fn plain(layers: &[&[u8]]) -> Option<Tree> {
    let unpacker = layers.iter().try_fold(Unpacker::new(&Hashing, LIMITS), |unpacker, layer| {
        let digest = DiffId::Sha256(Sha256::digest(layer).into());
        unpacker.layer(*layer, Compression::None, &digest)
    });
    Some(unpacker.ok()?.finish())
}

fn check(tree: &Tree) {
    let serial = codec::encode(tree).expect("a tree of layers has a serial form");
    let again = codec::decode(&serial, &LIMITS).expect("a serial form of a tree of layers is one");
    assert_eq!(codec::encode(&again).expect("the same"), serial);
}
