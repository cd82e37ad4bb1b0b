//! From the serial form to a tree, of which nothing is believed.

use std::collections::BTreeMap;

use super::{BLOCK_DEVICE, CHAR_DEVICE, DIRECTORY, FIFO, INLINE, LINK, MAGIC, OBJECT, SOCKET, SYMLINK};
use crate::image::layer::limits::{DEPTH_MAX, Limits, MAJOR_MAX, MINOR_MAX, XATTRS_MAX};
use crate::image::layer::{LayerError, xattrs};
use crate::image::tree::{
    Content, INLINE_MAX, Inode, InodeId, Kind, Metadata, ObjectId, TARGET_MAX, Timestamp, Tree,
};

/// The tree of a serial form.
///
/// # Errors
///
/// `LAYER_TREE_FORM` for everything that [`encode`](super::encode) does not write of a tree within these limits.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Tree, LayerError> {
    // GUARD: tree-form-length -> evil_serial_trees
    if u64::try_from(bytes.len()).is_ok_and(|length| length > limits.tree_bytes()) {
        return Err(form("no more bytes than the limits allow"));
    }
    let rest = bytes.strip_prefix(MAGIC).ok_or(form("its first bytes"))?;
    let mut reader = Reader {
        rest,
        tree: Tree::new(Metadata::default(), 0),
        leaves: Vec::new(),
        names: limits.entries.saturating_add(limits.inodes),
        content: limits.content_bytes,
    };
    let root = reader.metadata()?;
    reader.tree = Tree::new(root, limits.inodes);
    reader.entries(Tree::ROOT, 0)?;
    // GUARD: tree-form-end -> evil_serial_trees
    if !reader.rest.is_empty() {
        return Err(form("nothing behind it"));
    }
    Ok(reader.tree)
}

struct Reader<'a> {
    rest: &'a [u8],
    tree: Tree,
    /// Inodes that are no directories, in their order.
    leaves: Vec<InodeId>,
    /// How many more names there may be.
    names: u32,
    /// How many more bytes of files.
    content: u64,
}

impl<'a> Reader<'a> {
    fn entries(&mut self, directory: InodeId, depth: usize) -> Result<(), LayerError> {
        let count = u32::from_le_bytes(self.array()?);
        // GUARD: tree-form-depth -> evil_serial_trees
        if count > 0 && depth >= DEPTH_MAX {
            return Err(form("directories that are not too deep"));
        }
        let mut before: Option<&[u8]> = None;
        for _ in 0..count {
            self.names = self.names.checked_sub(1).ok_or(form("no more names than the limits allow"))?;
            let name = self.short()?;
            // GUARD: tree-form-order -> evil_serial_trees
            if before.is_some_and(|before| before >= name) {
                return Err(form("names of a directory in ascending order"));
            }
            // GUARD: tree-form-whiteouts -> evil_serial_trees
            if name.starts_with(b".wh.") {
                return Err(form("no whiteouts"));
            }
            before = Some(name);
            self.node(directory, name, depth)?;
        }
        Ok(())
    }

    fn node(&mut self, directory: InodeId, name: &[u8], depth: usize) -> Result<(), LayerError> {
        let [tag] = self.array()?;
        if tag == LINK {
            let ordinal = u32::from_le_bytes(self.array()?);
            let target = usize::try_from(ordinal).ok().and_then(|ordinal| self.leaves.get(ordinal));
            let target = *target.ok_or(form("hard links to what came before"))?;
            return self.tree.link(directory, name, target).map_err(|_| form("names that Linux has"));
        }
        let metadata = self.metadata()?;
        let kind = self.kind(tag)?;
        // GUARD: tree-form-symlink-mode -> evil_serial_trees
        if matches!(kind, Kind::Symlink(_)) && metadata.mode != 0o777 {
            return Err(form("symbolic links of mode 0777"));
        }
        let inode = Inode { metadata, kind };
        let id = self.tree.insert(directory, name, inode);
        let id = id.map_err(|_| form("names that Linux has, and no more inodes than the limits allow"))?;
        if tag == DIRECTORY {
            return self.entries(id, depth + 1);
        }
        self.leaves.push(id);
        Ok(())
    }

    fn kind(&mut self, tag: u8) -> Result<Kind, LayerError> {
        Ok(match tag {
            DIRECTORY => Kind::Directory(BTreeMap::new()),
            INLINE => {
                let bytes = self.short()?;
                // GUARD: tree-form-inline -> evil_serial_trees
                if bytes.len() > INLINE_MAX {
                    return Err(form("at most 64 bytes of content in the tree"));
                }
                Kind::Regular(Content::Inline(bytes.into()))
            }
            OBJECT => {
                let id = ObjectId(self.array()?);
                let size = u64::from_le_bytes(self.array()?);
                // GUARD: tree-form-object -> evil_serial_trees
                if usize::try_from(size).is_ok_and(|size| size <= INLINE_MAX) {
                    return Err(form("objects of more than 64 bytes"));
                }
                self.content = self
                    .content
                    .checked_sub(size)
                    .ok_or(form("no more bytes of files than the limits allow"))?;
                Kind::Regular(Content::Object { id, size })
            }
            SYMLINK => {
                let target = self.long()?;
                // GUARD: tree-form-target -> evil_serial_trees
                if target.is_empty() || target.len() > TARGET_MAX || target.contains(&0) {
                    return Err(form("symbolic links to 1 to 4095 bytes without NUL"));
                }
                Kind::Symlink(target.into())
            }
            CHAR_DEVICE | BLOCK_DEVICE => {
                let (major, minor) = (u32::from_le_bytes(self.array()?), u32::from_le_bytes(self.array()?));
                // GUARD: tree-form-device -> evil_serial_trees
                if major > MAJOR_MAX || minor > MINOR_MAX || (tag, major, minor) == (CHAR_DEVICE, 0, 0) {
                    return Err(form("device numbers that Linux has, and no whiteouts"));
                }
                if tag == CHAR_DEVICE {
                    Kind::CharDevice { major, minor }
                } else {
                    Kind::BlockDevice { major, minor }
                }
            }
            FIFO => Kind::Fifo,
            SOCKET => Kind::Socket,
            _ => return Err(form("types of inodes that there are")),
        })
    }

    fn metadata(&mut self) -> Result<Metadata, LayerError> {
        let metadata = Metadata {
            mode: u16::from_le_bytes(self.array()?),
            uid: u32::from_le_bytes(self.array()?),
            gid: u32::from_le_bytes(self.array()?),
            mtime: Timestamp {
                seconds: i64::from_le_bytes(self.array()?),
                nanoseconds: u32::from_le_bytes(self.array()?),
            },
            xattrs: self.xattrs()?,
        };
        // GUARD: tree-form-metadata -> evil_serial_trees
        if metadata.mode > 0o7777
            || metadata.uid == u32::MAX
            || metadata.gid == u32::MAX
            || metadata.mtime.nanoseconds >= 1_000_000_000
        {
            return Err(form("modes, owners and times that Linux has"));
        }
        Ok(metadata)
    }

    fn xattrs(&mut self) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, LayerError> {
        let count = u16::from_le_bytes(self.array()?);
        let mut xattrs: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut sum = 0;
        for _ in 0..count {
            let (name, value) = (self.short()?, self.long()?);
            sum += name.len() + value.len();
            let ascends = xattrs.last_key_value().is_none_or(|(before, _)| before.as_slice() < name);
            // GUARD: tree-form-xattrs -> evil_serial_trees
            if !ascends || !xattrs::is_kept(name) || sum > XATTRS_MAX {
                return Err(form("extended attributes that are kept, in ascending order"));
            }
            xattrs.insert(name.to_vec(), value.to_vec());
        }
        Ok(xattrs)
    }

    fn short(&mut self) -> Result<&'a [u8], LayerError> {
        let [length] = self.array()?;
        self.bytes(length.into())
    }

    fn long(&mut self) -> Result<&'a [u8], LayerError> {
        let length = u16::from_le_bytes(self.array()?);
        self.bytes(length.into())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], LayerError> {
        self.bytes(N)?.first_chunk().copied().ok_or(form("more bytes"))
    }

    fn bytes(&mut self, length: usize) -> Result<&'a [u8], LayerError> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(form("more bytes"))?;
        self.rest = rest;
        Ok(bytes)
    }
}

const fn form(expected: &'static str) -> LayerError {
    LayerError::TreeForm { expected }
}
