//! Extended attributes: how their names are shortened, which of them several inodes share, and the filter of names.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::xxh32::xxh32;
use crate::composefs::ComposefsError;

/// Bytes in front of an inode's attributes: filter, number of shared ones, seven reserved.
const HEAD: u64 = 12;
/// Bytes in front of one attribute: length of the name, number of its prefix, length of the value.
const ENTRY: u64 = 4;
/// Added to the number of the prefix, the seed of the filter's hash (`EROFS_XATTR_FILTER_SEED`).
const FILTER_SEED: u32 = 0x25BB_E08F;
/// Longest name (Linux, `XATTR_NAME_MAX`).
const NAME_MAX: usize = 255;
/// Prefixes by number (`EROFS_XATTR_INDEX_*`). Number 5, `lustre.`, is not used by these formats.
const PREFIXES: [(u8, &[u8]); 5] = [
    (1, b"user."),
    (POSIX_ACL_ACCESS, b"system.posix_acl_access"),
    (POSIX_ACL_DEFAULT, b"system.posix_acl_default"),
    (4, b"trusted."),
    (6, b"security."),
];
const POSIX_ACL_ACCESS: u8 = 2;
const POSIX_ACL_DEFAULT: u8 = 3;

/// A name and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attribute<'a> {
    name: Cow<'a, [u8]>,
    value: Cow<'a, [u8]>,
}

/// In order of their names as bytes, then shorter values first.
impl Ord for Attribute<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name
            .cmp(&other.name)
            .then_with(|| self.value.len().cmp(&other.value.len()))
            .then_with(|| self.value.cmp(&other.value))
    }
}

impl PartialOrd for Attribute<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<'a> Attribute<'a> {
    /// One that an image can hold.
    pub(super) fn new(
        name: impl Into<Cow<'a, [u8]>>,
        value: impl Into<Cow<'a, [u8]>>,
    ) -> Result<Self, ComposefsError> {
        let (name, value) = (name.into(), value.into());
        // GUARD: composefs-attribute-lengths -> evil_tree_attributes_that_no_image_holds
        if name.is_empty()
            || name.len() > NAME_MAX
            || name.contains(&0)
            || u16::try_from(value.len()).is_err()
        {
            return Err(ComposefsError::tree(
                "attributes with names of 1 to 255 bytes without NUL and values of at most 65535",
                format!("one with {} and {}", name.len(), value.len()),
            ));
        }
        Ok(Self { name, value })
    }

    /// The number of its prefix, and what of its name is left.
    fn split(&self) -> (u8, &[u8]) {
        PREFIXES
            .iter()
            .rev()
            .find_map(|(number, prefix)| Some((*number, self.name.strip_prefix(*prefix)?)))
            .unwrap_or((0, &self.name))
    }

    fn is_acl(&self) -> bool {
        matches!(self.split().0, POSIX_ACL_ACCESS | POSIX_ACL_DEFAULT)
    }

    /// Its bit in the filter of names.
    fn filter(&self) -> u32 {
        let (prefix, suffix) = self.split();
        1 << (xxh32(suffix, FILTER_SEED.wrapping_add(u32::from(prefix))) % u32::BITS)
    }

    /// How many bytes it takes.
    pub(super) fn bytes(&self) -> u64 {
        (ENTRY + self.split().1.len() as u64 + self.value.len() as u64).next_multiple_of(4)
    }

    /// Its bytes, at the end of these.
    pub(super) fn emit(&self, out: &mut Vec<u8>) {
        let (prefix, suffix) = self.split();
        let end = out.len() as u64 + self.bytes();
        // Both lengths were held against these types when the attribute was made.
        out.push(u8::try_from(suffix.len()).unwrap_or(u8::MAX));
        out.push(prefix);
        out.extend_from_slice(&u16::try_from(self.value.len()).unwrap_or(u16::MAX).to_le_bytes());
        out.extend_from_slice(suffix);
        out.extend_from_slice(&self.value);
        while (out.len() as u64) < end {
            out.push(0);
        }
    }
}

/// The attributes of all inodes as they are found, each once.
#[derive(Debug, Default)]
pub(super) struct Found<'a>(BTreeMap<Attribute<'a>, Use>);

#[derive(Clone, Copy, Debug)]
struct Use {
    /// The number that the inodes know it by until all are sorted.
    id: u32,
    inodes: u32,
}

impl<'a> Found<'a> {
    /// One more inode has this one.
    pub(super) fn add(&mut self, attribute: Attribute<'a>) -> Result<u32, ComposefsError> {
        let next = u32::try_from(self.0.len())
            .map_err(|_| ComposefsError::tree("at most 2³² attributes", "more".into()))?;
        let used = self.0.entry(attribute).or_insert(Use { id: next, inodes: 0 });
        used.inodes = used.inodes.saturating_add(1);
        Ok(used.id)
    }

    /// All in order, and where in that order each number went.
    pub(super) fn sorted(self) -> (Table<'a>, Vec<u32>) {
        let mut order = vec![0; self.0.len()];
        let mut table = Table { all: Vec::with_capacity(self.0.len()), shared: 0, acl: false };
        for (position, (attribute, used)) in (0..).zip(self.0) {
            if let Some(place) = order.get_mut(used.id as usize) {
                *place = position;
            }
            table.acl |= attribute.is_acl();
            let shared = (used.inodes > 1).then_some(table.shared);
            table.shared += u32::from(shared.is_some());
            table.all.push((attribute, shared));
        }
        (table, order)
    }
}

/// All attributes in order; with each that more than one inode has, how many such are before it.
#[derive(Debug)]
pub(super) struct Table<'a> {
    all: Vec<(Attribute<'a>, Option<u32>)>,
    shared: u32,
    /// Whether an inode has an access control list.
    pub(super) acl: bool,
}

impl<'a> Table<'a> {
    /// The shared ones as they lie in an image: in descending order.
    pub(super) fn shared(&self) -> impl Iterator<Item = &Attribute<'a>> {
        self.all.iter().rev().filter(|(_, shared)| shared.is_some()).map(|(attribute, _)| attribute)
    }

    fn of(&self, inode: &[u32]) -> impl Iterator<Item = &(Attribute<'a>, Option<u32>)> {
        inode.iter().filter_map(|position| self.all.get(*position as usize))
    }

    /// How many bytes an inode's attributes take.
    ///
    /// # Errors
    ///
    /// `COMPOSEFS_TREE`: an inode's head cannot say so many.
    pub(super) fn bytes(&self, inode: &[u32]) -> Result<u64, ComposefsError> {
        if inode.is_empty() {
            return Ok(0);
        }
        let (mut bytes, mut shared) = (HEAD, 0_u64);
        for (attribute, at) in self.of(inode) {
            match at {
                Some(_) => (bytes, shared) = (bytes + 4, shared + 1),
                None => bytes += attribute.bytes(),
            }
        }
        // GUARD: composefs-attributes-counted -> evil_tree_attributes_that_no_image_holds
        if shared > u64::from(u8::MAX) || Self::count(bytes).is_none() {
            return Err(ComposefsError::tree(
                "at most 255 shared attributes of an inode, and 262148 bytes of all",
                format!("{shared}, and {bytes} bytes"),
            ));
        }
        Ok(bytes)
    }

    /// What an inode's head says of so many bytes.
    pub(super) fn count(bytes: u64) -> Option<u16> {
        match bytes.checked_sub(HEAD) {
            Some(after) => u16::try_from(1 + after / 4).ok(),
            None => Some(0),
        }
    }

    /// An inode's attributes, at the end of these bytes; `place` says where in units of four bytes a shared one lies.
    pub(super) fn emit(&self, inode: &[u32], place: impl Fn(u32) -> u32, out: &mut Vec<u8>) {
        if inode.is_empty() {
            return;
        }
        let filter = self.of(inode).fold(0, |bits, (attribute, _)| bits | attribute.filter());
        let shared: Vec<u32> = self.of(inode).filter_map(|(_, shared)| *shared).collect();
        out.extend_from_slice(&(!filter).to_le_bytes());
        // Counted before.
        out.push(u8::try_from(shared.len()).unwrap_or(u8::MAX));
        out.extend_from_slice(&[0; 7]);
        for before in shared {
            // They lie in descending order.
            let index = self.shared.saturating_sub(1).saturating_sub(before);
            out.extend_from_slice(&place(index).to_le_bytes());
        }
        for (attribute, _) in self.of(inode).filter(|(_, shared)| shared.is_none()) {
            attribute.emit(out);
        }
    }
}
