//! A second reader of images, written from the kernel's format (`fs/erofs/erofs_fs.h`) without the writer. It panics at whatever is not as it
//! should be, also where a kernel would not mind.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

/// What an inode says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) nid: u64,
    pub(super) mode: u16,
    pub(super) links: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: (u64, u32),
    pub(super) size: u64,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Bytes of short files and links; the number of devices.
    pub(super) content: Vec<u8>,
    pub(super) device: u32,
    pub(super) entries: Vec<(Vec<u8>, u64, u8)>,
}

impl Seen {
    pub(super) fn without_entries(mut self) -> Self {
        self.entries.clear();
        self
    }
}

pub(super) struct Reader<'a> {
    image: &'a [u8],
    epoch: (u64, u32),
    xattrs: usize,
    /// What was read of inodes, to see that nothing lies in anything else.
    extents: BTreeMap<usize, usize>,
    numbers: BTreeSet<u32>,
}

impl<'a> Reader<'a> {
    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.image[at..at + 2].try_into().unwrap())
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.image[at..at + 4].try_into().unwrap())
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.image[at..at + 8].try_into().unwrap())
    }

    /// Everything by path.
    pub(super) fn read(image: &'a [u8], version: u32) -> BTreeMap<Vec<u8>, Seen> {
        let mut reader =
            Reader { image, epoch: (0, 0), xattrs: 0, extents: BTreeMap::new(), numbers: BTreeSet::new() };
        assert_eq!(image.len() % 4096, 0);
        assert_eq!((reader.u32(0), reader.u32(4), reader.u32(12)), (0xd078_629a, 1, version));
        assert!(image[16..1024].iter().all(|byte| *byte == 0));
        let at = 1024;
        assert_eq!((reader.u32(at), reader.u32(at + 8), image[at + 12]), (0xe0f5_e1e2, 6, 12));
        let root = u64::from(reader.u16(at + 14));
        reader.epoch = (reader.u64(at + 24), reader.u32(at + 32));
        assert_eq!(reader.u32(at + 36) as usize * 4096, image.len());
        assert_eq!(reader.u32(at + 40), 0);
        reader.xattrs = reader.u32(at + 44) as usize * 4096;
        assert!(image[at + 48..1152].iter().all(|byte| *byte == 0));

        let mut inodes: BTreeMap<u64, Seen> = BTreeMap::new();
        let mut names: BTreeMap<u64, u32> = BTreeMap::new();
        let mut paths = BTreeMap::new();
        let mut directories = vec![(Vec::new(), root, root)];
        let seen = reader.inode(root);
        inodes.insert(root, seen.clone());
        paths.insert(Vec::new(), seen);
        while let Some((path, nid, parent)) = directories.pop() {
            let entries = inodes[&nid].entries.clone();
            for (name, below, kind) in entries {
                *names.entry(below).or_default() += 1;
                if name == b"." || name == b".." {
                    assert_eq!((below, kind), (if name == b"." { nid } else { parent }, 2));
                    continue;
                }
                let path = [path.as_slice(), &name].join(&b'/');
                match inodes.entry(below) {
                    Entry::Vacant(place) => {
                        place.insert(reader.inode(below));
                    }
                    Entry::Occupied(_) => assert_ne!(kind, 2, "a directory with two names"),
                }
                let seen = &inodes[&below];
                assert_eq!(Some(kind), kind_of(seen.mode));
                if kind == 2 {
                    directories.push((path.clone(), below, nid));
                }
                assert!(paths.insert(path, seen.clone()).is_none());
            }
        }
        for (nid, seen) in &inodes {
            assert_eq!(seen.links, names[nid], "links of {nid}");
        }
        assert_eq!(reader.u64(at + 16), inodes.len() as u64);
        assert_eq!(reader.numbers, (0..u32::try_from(inodes.len()).unwrap()).collect());
        let least = inodes.values().map(|seen| seen.mtime).min().unwrap();
        assert_eq!(reader.epoch, least);
        let mut end = 0;
        for (from, to) in &reader.extents {
            assert!(*from >= end, "{from} is inside of what ends at {end}");
            end = *to;
        }
        paths
    }

    fn take(&mut self, from: usize, to: usize) {
        assert!(to <= self.image.len());
        if from < to {
            assert!(self.extents.insert(from, to).is_none(), "{from} twice");
        }
    }

    fn inode(&mut self, nid: u64) -> Seen {
        let at = usize::try_from(nid).unwrap() * 32;
        assert!(at >= 1152);
        let format = self.u16(at);
        let (long, held) = (format & 1 == 1, format >> 1);
        let count = usize::from(self.u16(at + 2));
        let mode = self.u16(at + 4);
        let (head, links, size, uid, gid, mtime);
        if long {
            assert_eq!(self.u16(at + 6), 0);
            (head, size, links) = (64, self.u64(at + 8), self.u32(at + 44));
            (uid, gid) = (self.u32(at + 24), self.u32(at + 28));
            mtime = (self.u64(at + 32), self.u32(at + 40));
        } else {
            (head, size, links) = (32, u64::from(self.u32(at + 8)), u32::from(self.u16(at + 6)));
            (uid, gid) = (u32::from(self.u16(at + 24)), u32::from(self.u16(at + 26)));
            assert_eq!((self.u32(at + 12), self.u32(at + 28)), (0, 0));
            mtime = self.epoch;
        }
        assert!(self.numbers.insert(self.u32(at + 20)), "a number twice");
        let content = self.u32(at + 16);
        let attributes = if count == 0 { 0 } else { 12 + (count - 1) * 4 };
        let after = at + head + attributes;
        let xattrs = if count == 0 { BTreeMap::new() } else { self.attributes(at + head, after) };
        let short = usize::try_from(size).unwrap_or(usize::MAX);
        let mut seen = Seen {
            nid,
            mode,
            links,
            uid,
            gid,
            mtime,
            size,
            xattrs,
            content: vec![],
            device: 0,
            entries: vec![],
        };
        let (blocks, tail) = match held {
            // All in blocks.
            0 if matches!(mode >> 12, 4 | 0o10 | 0o12) => (short.div_ceil(4096), 0),
            0 => {
                seen.device = content;
                (0, 0)
            }
            2 => (short / 4096, short % 4096),
            4 => {
                assert_eq!((mode >> 12, self.u32(after)), (0o10, u32::MAX), "a hole");
                let bits = 12 + content;
                assert!(size <= 1 << bits && (bits == 12 || size > 1 << (bits - 1)), "one chunk");
                self.take(at, after + 4);
                return seen;
            }
            other => panic!("{other}"),
        };
        if held == 2 {
            assert!(tail > 0 && after / 4096 == (after + tail - 1) / 4096, "a tail over two blocks");
        }
        self.take(at, after + tail);
        let data = content as usize * 4096;
        if blocks > 0 {
            self.take(data, data + blocks * 4096);
            seen.content.extend_from_slice(&self.image[data..data + short.min(blocks * 4096)]);
        }
        seen.content.extend_from_slice(&self.image[after..after + tail]);
        assert!(seen.device != 0 || seen.content.len() == short);
        if mode >> 12 == 4 {
            seen.entries = seen.content.chunks(4096).flat_map(block).collect();
            assert!(seen.entries.is_sorted_by(|a, b| a.0 < b.0), "sorted names");
            seen.content.clear();
        }
        seen
    }

    fn attributes(&self, at: usize, end: usize) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let (filter, shared) = (self.u32(at), usize::from(self.image[at + 4]));
        assert_eq!(self.image[at + 5..at + 12], [0; 7]);
        let mut found = BTreeMap::new();
        let mut bits = 0;
        let mut add = |at: usize| {
            let (length, prefix) = (usize::from(self.image[at]), self.image[at + 1]);
            let size = usize::from(self.u16(at + 2));
            let suffix = &self.image[at + 4..at + 4 + length];
            let prefix_text: &[u8] = match prefix {
                0 => b"",
                1 => b"user.",
                2 => b"system.posix_acl_access",
                3 => b"system.posix_acl_default",
                4 => b"trusted.",
                6 => b"security.",
                other => panic!("{other}"),
            };
            bits |= 1 << (super::super::xxh32::xxh32(suffix, 0x25bb_e08f + u32::from(prefix)) % 32);
            let value = self.image[at + 4 + length..at + 4 + length + size].to_vec();
            assert!(found.insert([prefix_text, suffix].concat(), value).is_none(), "an attribute twice");
            at + (4 + length + size).next_multiple_of(4)
        };
        for index in 0..shared {
            add(self.xattrs + self.u32(at + 12 + index * 4) as usize * 4);
        }
        let mut next = at + 12 + shared * 4;
        while next < end {
            next = add(next);
        }
        assert_eq!(next, end);
        assert_eq!(filter, !bits);
        found
    }
}

/// The entries of a block of a directory.
fn block(block: &[u8]) -> Vec<(Vec<u8>, u64, u8)> {
    let offset = |at: usize| usize::from(u16::from_le_bytes([block[at * 12 + 8], block[at * 12 + 9]]));
    let count = offset(0) / 12;
    assert!(count > 0 && offset(0) % 12 == 0);
    let end = block.iter().skip(offset(count - 1)).position(|byte| *byte == 0);
    let end = end.map_or(block.len(), |length| offset(count - 1) + length);
    assert!(block[end..].iter().all(|byte| *byte == 0));
    (0..count)
        .map(|at| {
            let nid = u64::from_le_bytes(block[at * 12..at * 12 + 8].try_into().unwrap());
            let to = if at + 1 == count { end } else { offset(at + 1) };
            assert_eq!(block[at * 12 + 11], 0);
            (block[offset(at)..to].to_vec(), nid, block[at * 12 + 10])
        })
        .collect()
}

fn kind_of(mode: u16) -> Option<u8> {
    [0o10, 4, 2, 6, 1, 0o14, 0o12]
        .iter()
        .position(|kind| mode >> 12 == *kind)
        .map(|at| [1, 2, 3, 4, 5, 6, 7][at])
}
