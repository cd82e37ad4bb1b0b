//! Which inodes an image has, in which order, and what each of them is called.
//!
//! Inodes are numbered directory by directory, outermost first, names in order of their bytes. One with several names is numbered in
//! the directory that holds the first of them where the tree is walked depth first.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};

use super::attributes::{Attribute, Found};
use super::contents::body;
use super::directory::{Directory, Entry};
use super::node::{Body, Collected, FileType, Node};
use super::{Format, Names, Options};
use crate::composefs::{ComposefsError, verity};
use crate::image::tree::{Content, Inode, InodeId, Kind, Metadata, NAME_MAX, ObjectId, Tree};

/// What the kernel's overlay reads.
const OVERLAY: &[u8] = b"trusted.overlay.";
/// What overlays in a container read, renamed.
const ESCAPED: &[u8] = b"trusted.overlay.overlay.";
const SELINUX: &[u8] = b"security.selinux";
/// Permissions of the devices that hide the object store.
const STUB_MODE: u16 = 0o644;
/// Names `00` to `ff`: the directories of an object store.
#[expect(clippy::indexing_slicing, reason = "a constant: an index out of bounds is an error of compilation")]
const STUBS: [[u8; 2]; 256] = {
    let digits = *b"0123456789abcdef";
    let mut names = [[0; 2]; 256];
    let mut at = 0;
    while at < 256 {
        names[at] = [digits[at / 16], digits[at % 16]];
        at += 1;
    }
    names
};

/// The inodes of a tree as an image has them.
pub(super) fn collect<'a>(tree: &'a Tree, options: &Options<'_>) -> Result<Collected<'a>, ComposefsError> {
    let mut collector = Collector {
        tree,
        options,
        nodes: Vec::new(),
        found: Found::default(),
        linked: HashMap::new(),
        first: first_directories(tree)?,
    };
    collector.walk()?;
    let Collector { mut nodes, found, .. } = collector;
    let (table, order) = found.sorted();
    for node in &mut nodes {
        for attribute in &mut node.attributes {
            *attribute = order.get(*attribute as usize).copied().unwrap_or(*attribute);
        }
        node.attributes.sort_unstable();
    }
    let epoch = nodes.iter().map(Node::moment).min().unwrap_or_default();
    Ok(Collected { nodes, table, epoch })
}

/// A name of a directory and what it leads to.
#[derive(Clone, Copy)]
enum Child {
    Inode(InodeId),
    Stub,
}

/// An entry whose inode may not have a number yet.
struct Open<'a> {
    name: &'a [u8],
    target: Target,
}

enum Target {
    Node(u32),
    Linked(InodeId),
}

struct Collector<'a, 'o> {
    tree: &'a Tree,
    options: &'o Options<'o>,
    nodes: Vec<Node<'a>>,
    found: Found<'a>,
    /// Numbers of those with several names.
    linked: HashMap<InodeId, u32>,
    /// The directories in which those are numbered.
    first: HashMap<InodeId, InodeId>,
}

impl<'a> Collector<'a, '_> {
    fn walk(&mut self) -> Result<(), ComposefsError> {
        let root = self.inode(Tree::ROOT)?;
        let number = self.push(root, Body::Directory(Directory::default()), 1)?;
        self.own(number, b"trusted.overlay.opaque".as_slice(), b"y".as_slice())?;
        let mut queue = VecDeque::from([(Tree::ROOT, number, number)]);
        let mut directories = Vec::new();
        while let Some((id, number, parent)) = queue.pop_front() {
            let mut open = vec![
                Open { name: b".", target: Target::Node(number) },
                Open { name: b"..", target: Target::Node(parent) },
            ];
            let mut whiteouts = false;
            for (name, child) in self.children(id)? {
                let target = match child {
                    Child::Stub => Target::Node(self.stub(root)?),
                    Child::Inode(child) => {
                        let inode = self.inode(child)?;
                        if matches!(inode.kind, Kind::Directory(_)) {
                            let below = self.push(inode, Body::Directory(Directory::default()), 1)?;
                            queue.push_back((child, below, number));
                            Target::Node(below)
                        } else if is_whiteout(inode) && !(id == Tree::ROOT && is_stub(name, inode, root)) {
                            whiteouts = true;
                            Target::Node(self.whiteout(child, inode)?)
                        } else {
                            self.leaf(id, child, inode)?
                        }
                    }
                };
                open.push(Open { name, target });
            }
            if whiteouts {
                self.marked(number, self.inode(id)?)?;
            }
            directories.push((number, open));
        }
        for (number, open) in directories {
            let entries = open.into_iter().map(|open| self.close(open)).collect::<Result<_, _>>()?;
            if let Some(node) = self.nodes.get_mut(number as usize) {
                node.body = Body::Directory(Directory::new(entries));
            }
        }
        Ok(())
    }

    fn inode(&self, id: InodeId) -> Result<&'a Inode, ComposefsError> {
        self.tree.get(id).ok_or_else(gone)
    }

    /// The entries of a directory in order, with those that hide the object store where it is the root.
    fn children(&self, id: InodeId) -> Result<Vec<(&'a [u8], Child)>, ComposefsError> {
        let entries = self.tree.entries(id).ok_or_else(gone)?;
        let mut children: Vec<(&[u8], Child)> = Vec::with_capacity(entries.len());
        for (name, id) in entries {
            let fits = (1..=NAME_MAX).contains(&name.len())
                && !matches!(&**name, b"." | b"..")
                && !name.iter().any(|byte| matches!(byte, 0 | b'/'));
            // GUARD: composefs-names -> evil_tree_names_that_no_image_holds
            if !fits {
                return Err(ComposefsError::tree("file names", format!("one of {} bytes", name.len())));
            }
            children.push((name, Child::Inode(*id)));
        }
        if id == Tree::ROOT {
            let free = STUBS.iter().filter(|name| !entries.contains_key(name.as_slice()));
            children.extend(free.map(|name| (name.as_slice(), Child::Stub)));
            children.sort_unstable_by_key(|(name, _)| *name);
        }
        Ok(children)
    }

    fn close(&self, open: Open<'a>) -> Result<Entry<'a>, ComposefsError> {
        let node = match open.target {
            Target::Node(number) => number,
            Target::Linked(id) => self.linked.get(&id).copied().ok_or_else(gone)?,
        };
        let kind = self.nodes.get(node as usize).ok_or_else(gone)?.file_type();
        Ok(Entry { name: open.name, node, kind })
    }

    /// Something with one name gets its number here; with several, only in the directory of the first.
    fn leaf(&mut self, directory: InodeId, id: InodeId, inode: &'a Inode) -> Result<Target, ComposefsError> {
        let names = self.tree.names(id);
        if names > 1 {
            if let Some(number) = self.linked.get(&id) {
                return Ok(Target::Node(*number));
            }
            if self.first.get(&id) != Some(&directory) {
                return Ok(Target::Linked(id));
            }
        }
        let body = body(inode)?;
        let number = self.push(inode, body, names)?;
        if let Kind::Regular(Content::Object { id, .. }) = &inode.kind {
            let (digest, hex) = self.digest(id)?;
            let (shard, rest) = hex.split_at_checked(2).unwrap_or_default();
            self.own(number, b"trusted.overlay.metacopy".as_slice(), digest)?;
            self.own(
                number,
                b"trusted.overlay.redirect".as_slice(),
                format!("/{shard}/{rest}").into_bytes(),
            )?;
        }
        if names > 1 {
            self.linked.insert(id, number);
        }
        Ok(Target::Node(number))
    }

    /// What an overlay finds in `metacopy` (`struct ovl_metacopy`: version, length, flags, algorithm, digest), and the digest in hex.
    fn digest(&self, id: &ObjectId) -> Result<(Vec<u8>, String), ComposefsError> {
        let (algorithm, digest) = match self.options.names {
            Names::Sha256 => (verity::SHA256, id.0.to_vec()),
            Names::Sha512(known) => {
                let unnamed = || ComposefsError::Unnamed { id: hex::encode(id.0) };
                (verity::SHA512, known.get(id).ok_or_else(unnamed)?.0.to_vec())
            }
        };
        let length = u8::try_from(digest.len() + 4).unwrap_or(u8::MAX);
        Ok(([&[0, length, 0, algorithm], digest.as_slice()].concat(), hex::encode(digest)))
    }

    /// A whiteout of the tree's own, as a regular file that overlays inside a container take for one.
    fn whiteout(&mut self, id: InodeId, inode: &'a Inode) -> Result<u32, ComposefsError> {
        // GUARD: composefs-whiteout-one-name -> evil_tree_whiteouts_without_a_form
        if self.tree.names(id) > 1 {
            return Err(ComposefsError::Whiteout {
                expected: "whiteouts with one name",
                found: format!("one with {}", self.tree.names(id)),
            });
        }
        let number = self.push(inode, Body::Inline(&[]), 1)?;
        self.mark(number, inode, "whiteout", b"")?;
        Ok(number)
    }

    /// A directory that has such whiteouts.
    fn marked(&mut self, number: u32, inode: &'a Inode) -> Result<(), ComposefsError> {
        self.mark(number, inode, "whiteouts", b"")?;
        match self.options.format {
            Format::V0 => Ok(()),
            Format::V1 => self.mark(number, inode, "opaque", b"x"),
        }
    }

    /// A mark for overlays inside a container, whichever of their two ways they read attributes.
    fn mark(
        &mut self,
        number: u32,
        inode: &Inode,
        word: &str,
        value: &'static [u8],
    ) -> Result<(), ComposefsError> {
        let (privileged, plain) = (format!("trusted.overlay.{word}"), format!("user.overlay.{word}"));
        let taken = |name: &str| inode.metadata.xattrs.contains_key(name.as_bytes());
        // GUARD: composefs-whiteout-marks-free -> evil_tree_whiteouts_without_a_form
        if taken(&privileged) || taken(&plain) {
            return Err(ComposefsError::Whiteout {
                expected: "whiteouts whose marks are nothing else's",
                found: format!("an overlay attribute {word} of the tree's own"),
            });
        }
        self.own(number, format!("trusted.overlay.overlay.{word}").into_bytes(), value)?;
        self.own(number, plain.into_bytes(), value)
    }

    /// One of the devices that hide the object store.
    fn stub(&mut self, root: &'a Inode) -> Result<u32, ComposefsError> {
        let Metadata { uid, gid, mtime, ref xattrs, .. } = root.metadata;
        let body = Body::Special(FileType::CharDevice, 0);
        let node = Node { body, mode: STUB_MODE, uid, gid, mtime, names: 1, attributes: Vec::new() };
        let number = self.put(node)?;
        if let Some(label) = xattrs.get(SELINUX) {
            self.own(number, SELINUX, label.as_slice())?;
        }
        Ok(number)
    }

    fn push(&mut self, inode: &'a Inode, body: Body<'a>, names: u32) -> Result<u32, ComposefsError> {
        let Metadata { mode, uid, gid, mtime, ref xattrs } = inode.metadata;
        // GUARD: composefs-metadata -> evil_tree_metadata_that_no_image_holds
        if mode > 0o7777 || mtime.nanoseconds >= 1_000_000_000 {
            return Err(ComposefsError::tree(
                "modes up to 7777 and less than 10⁹ nanoseconds",
                format!("{mode:o} and {}", mtime.nanoseconds),
            ));
        }
        let mut attributes = Vec::with_capacity(xattrs.len());
        for (name, value) in xattrs {
            let attribute = match name.strip_prefix(OVERLAY) {
                Some(rest) => Attribute::new([ESCAPED, rest].concat(), value)?,
                None => Attribute::new(name, value)?,
            };
            attributes.push(self.found.add(attribute)?);
        }
        self.put(Node { body, mode, uid, gid, mtime, names, attributes })
    }

    fn put(&mut self, node: Node<'a>) -> Result<u32, ComposefsError> {
        // Each inode of the tree has its turn once, and each stub.
        // GUARD: composefs-tree-without-rings -> evil_tree_that_holds_itself
        if self.nodes.len() >= self.tree.len() + STUBS.len() {
            return Err(ComposefsError::tree("a tree", "a directory below itself".into()));
        }
        let number = u32::try_from(self.nodes.len()).map_err(|_| gone())?;
        self.nodes.push(node);
        Ok(number)
    }

    /// An attribute that the format asks for.
    fn own(
        &mut self,
        number: u32,
        name: impl Into<Cow<'a, [u8]>>,
        value: impl Into<Cow<'a, [u8]>>,
    ) -> Result<(), ComposefsError> {
        let attribute = self.found.add(Attribute::new(name, value)?)?;
        if let Some(node) = self.nodes.get_mut(number as usize) {
            node.attributes.push(attribute);
        }
        Ok(())
    }
}

const fn is_whiteout(inode: &Inode) -> bool {
    matches!(inode.kind, Kind::CharDevice { major: 0, minor: 0 })
}

/// Whether this whiteout in the root looks like one of those that hide the object store: then it stays what it is.
fn is_stub(name: &[u8], inode: &Inode, root: &Inode) -> bool {
    let (own, root) = (&inode.metadata, &root.metadata);
    let label = root.xattrs.get(SELINUX);
    STUBS.iter().any(|stub| stub == name)
        && own.mode == STUB_MODE
        && (own.uid, own.gid, own.mtime) == (root.uid, root.gid, root.mtime)
        && own.xattrs.len() == usize::from(label.is_some())
        && own.xattrs.get(SELINUX) == label
}

/// For each inode with several names the directory that holds the first one, depth first.
fn first_directories(tree: &Tree) -> Result<HashMap<InodeId, InodeId>, ComposefsError> {
    let mut first = HashMap::new();
    let mut seen = 0;
    let mut above = vec![(Tree::ROOT, tree.entries(Tree::ROOT).ok_or_else(gone)?.values())];
    while let Some((directory, rest)) = above.last_mut() {
        let Some(id) = rest.next() else {
            above.pop();
            continue;
        };
        if tree.names(*id) > 1 {
            first.entry(*id).or_insert(*directory);
        }
        if let Some(entries) = tree.entries(*id) {
            // A tree that holds itself is refused where inodes are counted.
            seen += 1;
            if seen < tree.len() {
                above.push((*id, entries.values()));
            }
        }
    }
    Ok(first)
}

fn gone() -> ComposefsError {
    ComposefsError::tree("an inode for each name", "none".into())
}
