//! The bytes of an image whose layout is known.

use super::attributes::Table;
use super::directory::{ENTRY, Entry};
use super::layout::{Held, INODES, Layout, Place, SLOT, SUPERBLOCK};
use super::node::{Body, Collected, Node};
use super::{BLOCK, Format};
use crate::composefs::ComposefsError;

/// `LCFS_EROFS_MAGIC`.
const COMPOSEFS_MAGIC: u32 = 0xd078_629a;
/// `EROFS_SUPER_MAGIC_V1`.
const EROFS_MAGIC: u32 = 0xe0f5_e1e2;
/// Inodes have moments, and attributes a filter of their names.
const FEATURES: u32 = 0x2 | 0x4;
/// Base-2 logarithm of a block.
const BLOCK_BITS: u8 = 12;
/// A chunk that is a hole.
const HOLE: [u8; 4] = [0xff; 4];

/// The image.
pub(super) fn emit(
    collected: &Collected<'_>,
    layout: &Layout,
    format: Format,
) -> Result<Vec<u8>, ComposefsError> {
    let length = usize::try_from(layout.end).map_err(|_| unlike())?;
    let mut image = Image { bytes: Vec::with_capacity(length), layout, collected };
    image.heads(format)?;
    for (number, (node, place)) in (0..).zip(collected.nodes.iter().zip(&layout.places)) {
        image.fill(place.at)?;
        image.inode(number, node, place)?;
    }
    image.fill(layout.inodes_end)?;
    for attribute in collected.table.shared() {
        attribute.emit(&mut image.bytes);
    }
    for (node, place) in collected.nodes.iter().zip(&layout.places) {
        image.blocks(node, place)?;
    }
    image.fill(layout.end)?;
    Ok(image.bytes)
}

struct Image<'a, 'c> {
    bytes: Vec<u8>,
    layout: &'a Layout,
    collected: &'a Collected<'c>,
}

impl Image<'_, '_> {
    fn word(&mut self, number: u16) {
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }

    fn long(&mut self, number: u32) {
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }

    fn quad(&mut self, number: u64) {
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }

    /// Zeros up to here.
    fn fill(&mut self, end: u64) -> Result<(), ComposefsError> {
        let end = usize::try_from(end).map_err(|_| unlike())?;
        if end < self.bytes.len() {
            return Err(unlike());
        }
        self.bytes.resize(end, 0);
        Ok(())
    }

    fn heads(&mut self, format: Format) -> Result<(), ComposefsError> {
        let version = match format {
            Format::V0 => 0,
            Format::V1 => 1,
        };
        for number in [COMPOSEFS_MAGIC, 1, u32::from(self.collected.table.acl), version] {
            self.long(number);
        }
        self.fill(SUPERBLOCK)?;
        let (seconds, nanoseconds) = self.collected.epoch;
        self.long(EROFS_MAGIC);
        self.long(0);
        self.long(FEATURES);
        self.bytes.extend_from_slice(&[BLOCK_BITS, 0]);
        let root = self.inode_number(0)?;
        self.word(narrow(root)?);
        self.quad(self.collected.nodes.len() as u64);
        self.quad(seconds);
        self.long(nanoseconds);
        self.long(narrow(self.layout.end / BLOCK)?);
        self.long(0);
        self.long(narrow(self.layout.inodes_end / BLOCK)?);
        self.fill(INODES)
    }

    /// What directories call an inode.
    fn inode_number(&self, node: u32) -> Result<u64, ComposefsError> {
        Ok(self.layout.places.get(node as usize).ok_or_else(unlike)?.at / SLOT)
    }

    fn inode(&mut self, number: u32, node: &Node<'_>, place: &Place) -> Result<(), ComposefsError> {
        self.word(u16::from(!place.short) | place.held.bits());
        self.word(Table::count(place.attributes).ok_or_else(unlike)?);
        self.word(node.file_type().mode() | node.mode);
        let content = self.content(node, place)?;
        if place.short {
            self.word(narrow(node.links())?);
            self.long(narrow(node.size())?);
            self.long(0);
            self.long(content);
            self.long(number);
            self.word(narrow(node.uid)?);
            self.word(narrow(node.gid)?);
            self.long(0);
        } else {
            self.word(0);
            self.quad(node.size());
            self.long(content);
            self.long(number);
            self.long(node.uid);
            self.long(node.gid);
            let (seconds, nanoseconds) = node.moment();
            self.quad(seconds);
            self.long(nanoseconds);
            self.long(node.links());
            self.quad(0);
            self.quad(0);
        }
        let (layout, base) = (self.layout, self.layout.inodes_end / BLOCK * BLOCK);
        let place_of = |index: u32| {
            let at = layout.shared.get(index as usize).copied().unwrap_or(base);
            u32::try_from((at - base) / 4).unwrap_or(u32::MAX)
        };
        self.collected.table.emit(&node.attributes, place_of, &mut self.bytes);
        match &node.body {
            Body::Directory(directory) => self.entries(&directory.tail)?,
            Body::Inline(bytes) => self.bytes.extend_from_slice(bytes),
            Body::Object(_) => self.bytes.extend_from_slice(&HOLE),
            Body::Symlink(target) if place.held == Held::Inline => self.bytes.extend_from_slice(target),
            Body::Symlink(_) | Body::Special(..) => (),
        }
        Ok(())
    }

    /// What an inode says of where its content is: the first block, the size of its chunks, or a device's number.
    fn content(&self, node: &Node<'_>, place: &Place) -> Result<u32, ComposefsError> {
        match &node.body {
            Body::Special(_, device) => Ok(*device),
            Body::Object(size) => {
                Ok((u64::BITS - (size - 1).leading_zeros()).saturating_sub(u32::from(BLOCK_BITS)))
            }
            _ if place.blocks > 0 => narrow(place.data / BLOCK),
            _ => Ok(0),
        }
    }

    fn blocks(&mut self, node: &Node<'_>, place: &Place) -> Result<(), ComposefsError> {
        if place.blocks == 0 {
            return Ok(());
        }
        self.fill(place.data)?;
        match &node.body {
            Body::Directory(directory) => {
                for (block, at) in directory.blocks.iter().zip((place.data..).step_by(4096)) {
                    self.fill(at)?;
                    self.entries(block)?;
                }
            }
            Body::Symlink(target) => self.bytes.extend_from_slice(target),
            Body::Inline(_) | Body::Object(_) | Body::Special(..) => (),
        }
        Ok(())
    }

    /// Entries, and after all of them their names.
    fn entries(&mut self, entries: &[Entry<'_>]) -> Result<(), ComposefsError> {
        let mut name = entries.len() as u64 * ENTRY;
        for entry in entries {
            let inode = self.inode_number(entry.node)?;
            self.quad(inode);
            self.word(narrow(name)?);
            self.bytes.extend_from_slice(&[entry.kind.entry(), 0]);
            name += entry.name.len() as u64;
        }
        for entry in entries {
            self.bytes.extend_from_slice(entry.name);
        }
        Ok(())
    }
}

/// A number that the layout has shown to fit.
fn narrow<N, W: TryInto<N>>(number: W) -> Result<N, ComposefsError> {
    number.try_into().map_err(|_| unlike())
}

fn unlike() -> ComposefsError {
    ComposefsError::tree("an image like its layout", "another".into())
}
