//! Trees from any bytes, for fuzz targets and tests of properties.

use std::collections::BTreeMap;

use crate::image::tree::{
    Content, INLINE_MAX, Inode, InodeId, Kind, Metadata, ObjectId, TARGET_MAX, Timestamp, Tree,
};

/// Names of attributes that mean something to somebody.
const ATTRIBUTES: [&[u8]; 12] = [
    b"user.a",
    b"user.overlay.opaque",
    b"trusted.overlay.opaque",
    b"trusted.overlay.metacopy",
    b"trusted.overlay.overlay.redirect",
    b"security.selinux",
    b"security.capability",
    b"system.posix_acl_access",
    b"system.posix_acl_default",
    b"trusted.b",
    b"lustre.c",
    b"d",
];

/// The tree that these bytes describe: of any names, contents and links that a tree can have, in an image or not.
#[must_use]
pub fn tree(data: &[u8]) -> Tree {
    let mut bytes = Bytes(data);
    let mut tree = Tree::new(bytes.metadata(), 4096);
    let (mut directories, mut leaves) = (vec![Tree::ROOT], Vec::new());
    while !bytes.0.is_empty() {
        let parent = bytes.pick(&directories).unwrap_or(Tree::ROOT);
        let name = bytes.name();
        let kind = match bytes.byte() % 12 {
            0 | 1 => Kind::Directory(BTreeMap::new()),
            2 | 3 => Kind::Regular(Content::Inline(bytes.some(INLINE_MAX).into())),
            4 | 5 => {
                let shift = bytes.byte();
                let size = (bytes.number() % 1000 + 65) << (shift % 34);
                Kind::Regular(Content::Object { id: ObjectId([bytes.byte(); 32]), size })
            }
            6 => Kind::Symlink([b"t", bytes.some(TARGET_MAX - 1).as_slice()].concat().into()),
            7 => Kind::CharDevice { major: u32::from(bytes.byte() % 2), minor: u32::from(bytes.byte() % 2) },
            8 => Kind::BlockDevice { major: u32::from(bytes.byte()), minor: u32::from(bytes.word()) << 4 },
            9 if bytes.byte() % 2 == 0 => Kind::Fifo,
            9 => Kind::Socket,
            10 => {
                if let Some(target) = bytes.pick(&leaves) {
                    let _refused = tree.link(parent, &name, target);
                }
                continue;
            }
            _ => {
                tree.remove(parent, &name);
                continue;
            }
        };
        let is_directory = matches!(kind, Kind::Directory(_));
        let metadata = bytes.metadata();
        if let Ok(id) = tree.insert(parent, &name, Inode { metadata, kind }) {
            if is_directory { &mut directories } else { &mut leaves }.push(id);
        }
        // What was taken over is no parent any more.
        directories.retain(|id| tree.entries(*id).is_some());
    }
    tree
}

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn word(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    fn number(&mut self) -> u64 {
        u64::from(self.word()) << 16 | u64::from(self.word())
    }

    /// A few bytes, seldom many: one given byte again and again.
    fn some(&mut self, max: usize) -> Vec<u8> {
        let length = match self.byte() {
            length @ 0..240 => usize::from(length % 24),
            _ => usize::from(self.word()),
        };
        vec![self.byte() | 1; length.min(max)]
    }

    fn name(&mut self) -> Vec<u8> {
        match self.byte() % 8 {
            0 => format!("{:02x}", self.byte()).into_bytes(),
            1 => self.some(260),
            _ => vec![self.byte(), self.byte() % 4 + b'-'],
        }
    }

    fn pick(&mut self, from: &[InodeId]) -> Option<InodeId> {
        let at = usize::from(self.word()).checked_rem(from.len())?;
        from.get(at).copied()
    }

    fn metadata(&mut self) -> Metadata {
        let odd = self.byte();
        let mut metadata = Metadata { mode: 0o644, ..Metadata::default() };
        if odd & 1 != 0 {
            metadata.mode = self.word() & 0o7777;
            metadata.uid = u32::from(self.word()) << (self.byte() % 17);
        }
        if odd & 2 != 0 {
            let seconds = i64::from(self.word()) - 100;
            metadata.mtime = Timestamp { seconds, nanoseconds: u32::from(self.word()) };
        }
        if odd & 12 == 12 {
            for _ in 0..self.byte() % 4 {
                let name = ATTRIBUTES.get(usize::from(self.byte()) % ATTRIBUTES.len()).copied();
                let value = self.some(70_000);
                metadata.xattrs.insert(name.unwrap_or_default().to_vec(), value);
            }
        }
        metadata
    }
}
