//! fs-verity digests of files, computed in user space (Linux, `Documentation/filesystems/fsverity.rst`).
//!
//! The file is cut into blocks of [`BLOCK`] bytes, the last one is filled with zeros, and each is hashed; the hashes are cut and hashed
//! the same way until one is left, the root. The digest is the hash of a descriptor that holds the root and the file's length. No salt,
//! no other block size: composefs knows none.
//!
//! ```
//! use cdh::composefs::verity::Hasher;
//! let mut hasher = Hasher::new();
//! hasher.update(b"hello, ");
//! hasher.update(b"world\n");
//! assert!(hex::encode(hasher.finish().0).starts_with("8b174f1ec58f607df27386a4485c6691"));
//! ```

use sha2::digest::{Digest, Output};
use sha2::{Sha256, Sha512};

use crate::image::tree::ObjectId;

/// Bytes in a block of data and of hashes.
pub const BLOCK: usize = 4096;
/// What the kernel calls SHA-256 (`FS_VERITY_HASH_ALG_SHA256`).
pub const SHA256: u8 = 1;
/// What the kernel calls SHA-512 (`FS_VERITY_HASH_ALG_SHA512`).
pub const SHA512: u8 = 2;

/// Bytes of `struct fsverity_descriptor`.
const DESCRIPTOR: usize = 256;
/// Bytes in front of the root hash: version, algorithm, log2 of the block size, salt size, four reserved, length of the data.
const DESCRIPTOR_HEAD: usize = 16;
/// Base-2 logarithm of [`BLOCK`].
const BLOCK_BITS: u8 = 12;
/// What partial blocks are filled with.
const ZEROS: [u8; BLOCK] = [0; BLOCK];

/// The SHA-512 fs-verity digest of a file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha512Id(pub [u8; 64]);

/// Computes the SHA-256 digest of a file that comes in pieces of any size. Memory: one hash state for each level of the tree.
#[derive(Clone, Default)]
pub struct Hasher(Merkle<Sha256>);

/// Computes the SHA-512 digest, like [`Hasher`].
#[derive(Clone, Default)]
pub struct Sha512Hasher(Merkle<Sha512>);

impl Hasher {
    /// Nothing hashed yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The next bytes of the file.
    pub fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    /// How many bytes there were.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.0.size
    }

    /// The digest of all that was given.
    #[must_use]
    pub fn finish(self) -> ObjectId {
        ObjectId(self.0.finish(SHA256).into())
    }

    /// The digest of a file that is at hand as a whole.
    #[must_use]
    pub fn hash(data: &[u8]) -> ObjectId {
        let mut hasher = Self::new();
        hasher.update(data);
        hasher.finish()
    }
}

impl Sha512Hasher {
    /// Nothing hashed yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The next bytes of the file.
    pub fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    /// The digest of all that was given.
    #[must_use]
    pub fn finish(self) -> Sha512Id {
        Sha512Id(self.0.finish(SHA512).into())
    }

    /// The digest of a file that is at hand as a whole.
    #[must_use]
    pub fn hash(data: &[u8]) -> Sha512Id {
        let mut hasher = Self::new();
        hasher.update(data);
        hasher.finish()
    }
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hasher").field("size", &self.0.size).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Sha512Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sha512Hasher").field("size", &self.0.size).finish_non_exhaustive()
    }
}

/// One level of the tree: the block that is being filled, and what is known of those before it.
#[derive(Clone)]
struct Level<D: Digest> {
    block: D,
    filled: usize,
    blocks: u64,
    last: Output<D>,
}

impl<D: Digest> Default for Level<D> {
    fn default() -> Self {
        Self { block: D::new(), filled: 0, blocks: 0, last: Output::<D>::default() }
    }
}

impl<D: Digest> Level<D> {
    /// Takes what fits into the block. The rest of the data, and the block's hash where it became full.
    fn take<'a>(&mut self, data: &'a [u8]) -> (&'a [u8], Option<Output<D>>) {
        let (now, rest) = data.split_at_checked(BLOCK - self.filled).unwrap_or((data, &[]));
        self.block.update(now);
        self.filled += now.len();
        (rest, (self.filled == BLOCK).then(|| self.close()))
    }

    /// Ends the block, filled with zeros.
    fn close(&mut self) -> Output<D> {
        let mut block = std::mem::replace(&mut self.block, D::new());
        block.update(ZEROS.get(self.filled..).unwrap_or_default());
        self.filled = 0;
        self.blocks += 1;
        self.last = block.finalize();
        self.last.clone()
    }
}

/// The tree as it grows. Blocks of hashes are full after whole hashes: both lengths are powers of two.
#[derive(Clone)]
struct Merkle<D: Digest> {
    levels: Vec<Level<D>>,
    size: u64,
}

impl<D: Digest> Default for Merkle<D> {
    fn default() -> Self {
        Self { levels: vec![Level::default()], size: 0 }
    }
}

impl<D: Digest> Merkle<D> {
    fn update(&mut self, mut data: &[u8]) {
        self.size += data.len() as u64;
        while let Some(leaves) = self.levels.first_mut()
            && !data.is_empty()
        {
            let (rest, hash) = leaves.take(data);
            data = rest;
            if let Some(hash) = hash {
                self.push(hash);
            }
        }
    }

    /// The hash of a full block of data, into the levels above; one is begun when it gets its first hash.
    fn push(&mut self, mut hash: Output<D>) {
        for level in self.levels.iter_mut().skip(1) {
            match level.take(&hash).1 {
                Some(next) => hash = next,
                None => return,
            }
        }
        let mut top = Level::default();
        top.take(&hash);
        self.levels.push(top);
    }

    fn finish(self, algorithm: u8) -> Output<D> {
        // A file without bytes has no blocks, and zeros for its root.
        let mut root = Output::<D>::default();
        let mut from_below: Option<Output<D>> = None;
        for mut level in self.levels {
            if let Some(hash) = from_below.take() {
                from_below = level.take(&hash).1;
            }
            // What was just filled has nothing left to close.
            if level.filled > 0 {
                from_below = Some(level.close());
            }
            root = level.last;
            if level.blocks == 1 {
                break;
            }
        }
        let mut descriptor = Vec::with_capacity(DESCRIPTOR);
        descriptor.extend_from_slice(&[1, algorithm, BLOCK_BITS, 0, 0, 0, 0, 0]);
        descriptor.extend_from_slice(&self.size.to_le_bytes());
        debug_assert_eq!(descriptor.len(), DESCRIPTOR_HEAD);
        descriptor.extend_from_slice(&root);
        descriptor.resize(DESCRIPTOR, 0);
        D::digest(&descriptor)
    }
}

#[cfg(test)]
mod tests;
