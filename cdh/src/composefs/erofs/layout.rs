//! Where everything of an image lies.

use super::BLOCK;
use super::node::{Body, Collected, Node};
use crate::composefs::ComposefsError;

/// Where the superblock begins.
pub(super) const SUPERBLOCK: u64 = 1024;
/// Where the inodes begin.
pub(super) const INODES: u64 = SUPERBLOCK + 128;
/// What an inode's place is a multiple of.
pub(super) const SLOT: u64 = 32;
/// Bytes of a short inode's head, and of a long one's.
const HEADS: [u64; 2] = [32, 64];
/// Bytes that say where one chunk of a file is.
const CHUNK: u64 = 4;

/// How the content of an inode is held (`EROFS_INODE_*`, in bits 1 to 3 of an inode's first number).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// In whole blocks, or there is none.
    Plain,
    /// The last part beside the inode.
    Inline,
    /// In chunks, which are holes here.
    Chunks,
}

impl Held {
    pub(super) const fn bits(self) -> u16 {
        match self {
            Self::Plain => 0,
            Self::Inline => 2 << 1,
            Self::Chunks => 4 << 1,
        }
    }
}

/// The place and form of an inode.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Where it begins.
    pub(super) at: u64,
    /// Whether its head is the short one.
    pub(super) short: bool,
    pub(super) held: Held,
    /// Bytes of its attributes.
    pub(super) attributes: u64,
    /// Bytes of content beside it.
    tail: u64,
    /// Blocks of content elsewhere.
    pub(super) blocks: u64,
    /// Where those begin.
    pub(super) data: u64,
}

/// All places.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) places: Vec<Place>,
    /// Where the inodes end and the shared attributes begin.
    pub(super) inodes_end: u64,
    /// Where each shared attribute lies.
    pub(super) shared: Vec<u64>,
    /// The length of the image.
    pub(super) end: u64,
}

impl Layout {
    /// # Errors
    ///
    /// `COMPOSEFS_TREE` for an inode with too many attributes.
    pub(super) fn new(collected: &Collected<'_>) -> Result<Self, ComposefsError> {
        let mut at = INODES;
        let mut places: Vec<Place> = Vec::with_capacity(collected.nodes.len());
        for node in &collected.nodes {
            let attributes = collected.table.bytes(&node.attributes)?;
            let mut place = Place::new(node, attributes, collected.epoch);
            place.at = place.start(node, at);
            at = (place.at + place.head() + place.tail).next_multiple_of(SLOT);
            places.push(place);
        }
        let inodes_end = at;
        let mut shared = Vec::new();
        for attribute in collected.table.shared() {
            shared.push(at);
            at += attribute.bytes();
        }
        at = at.next_multiple_of(BLOCK);
        for place in &mut places {
            place.data = at;
            at += place.blocks * BLOCK;
        }
        Ok(Self { places, inodes_end, shared, end: at })
    }
}

impl Place {
    fn new(node: &Node<'_>, attributes: u64, epoch: (u64, u32)) -> Self {
        let short = |size: u64| {
            node.moment() == epoch
                && [node.links(), node.uid, node.gid].iter().all(|number| u16::try_from(*number).is_ok())
                && u32::try_from(size).is_ok()
        };
        let mut place = Self {
            at: 0,
            short: short(node.size()),
            held: Held::Plain,
            attributes,
            tail: 0,
            blocks: 0,
            data: 0,
        };
        match &node.body {
            Body::Directory(directory) => {
                place.blocks = directory.blocks.len() as u64;
                place.tail = directory.size - place.blocks * BLOCK;
            }
            Body::Inline(bytes) => place.tail = bytes.len() as u64,
            Body::Object(_) => place.tail = CHUNK,
            // One that would fill a block together with its inode has a block of its own.
            Body::Symlink(target) if place.head() + target.len() as u64 >= BLOCK => place.blocks = 1,
            Body::Symlink(target) => place.tail = target.len() as u64,
            Body::Special(..) => (),
        }
        place.held = match &node.body {
            Body::Object(_) => Held::Chunks,
            _ if place.tail > 0 => Held::Inline,
            _ => Held::Plain,
        };
        place
    }

    /// Bytes of the inode up to the content beside it.
    fn head(&self) -> u64 {
        let [short, long] = HEADS;
        self.attributes + if self.short { short } else { long }
    }

    /// Where it begins if the last one ended here: so that what lies beside it is in one block.
    fn start(&self, node: &Node<'_>, at: u64) -> u64 {
        if let Body::Symlink(target) = &node.body {
            let whole = self.head() + target.len() as u64;
            return if at % BLOCK + whole > BLOCK { at.next_multiple_of(BLOCK) } else { at };
        }
        let tail = at + self.head();
        let room = tail.next_multiple_of(BLOCK) - tail;
        // At the beginning of a block there is always room.
        if room > 0 && room < self.tail { at + room.next_multiple_of(SLOT) } else { at }
    }
}
