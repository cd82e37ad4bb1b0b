//! Roots of containers that a guest verifies at each read: an ext4 image, and behind it the tree of its hashes (dm-verity of version 1, SHA-256,
//! blocks of 4096 bytes, without a superblock).

use super::tools::Tools;
use anyhow::{Context, ensure};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const BLOCK: usize = 4096;
/// Hashes of a block.
const HASH: usize = 32;
/// Room for busybox and what a test puts beside it.
const SIZE: &str = "8M";
/// What a container needs to be there, since nobody can make it.
const DIRECTORIES: [&str; 8] = ["bin", "dev", "etc", "proc", "root", "run", "sys", "tmp"];
/// What is called in containers.
const APPLETS: [&str; 12] =
    ["cat", "cp", "echo", "grep", "id", "ls", "sh", "sha256sum", "sleep", "stat", "test", "touch"];

/// A disk with such a root.
#[derive(Clone, Debug)]
pub struct VerityRoot {
    /// The disk's image.
    pub image: PathBuf,
    /// Hex.
    pub root_hash: String,
    /// Hex.
    pub salt: String,
    /// Blocks of data; the tree begins behind them.
    pub data_blocks: u64,
}

impl VerityRoot {
    /// A root with busybox and these empty directories beside the usual ones. `salt` makes equal contents different roots.
    ///
    /// # Errors
    ///
    /// A file that cannot be written; no `mkfs.ext4`.
    pub fn create(tools: &Tools, image: &Path, directories: &[&str], salt: &[u8]) -> anyhow::Result<Self> {
        let tree =
            tempfile::Builder::new().prefix("ik-root-").tempdir().context("make a scratch directory")?;
        // The directory of the image has the mode of this one.
        std::fs::set_permissions(tree.path(), std::fs::Permissions::from_mode(0o755))?;
        Self::populate(tools, tree.path(), directories)?;
        format(tree.path(), image)?;
        let data = std::fs::read(image).with_context(|| format!("read {}", image.display()))?;
        let (tree, root_hash) = tree_of(&data, salt)?;
        let mut file = File::options().append(true).open(image).context("append the tree")?;
        file.write_all(&tree).context("append the tree")?;
        let data_blocks = u64::try_from(data.len() / BLOCK)?;
        Ok(Self { image: image.to_owned(), root_hash: hex(&root_hash), salt: hex(salt), data_blocks })
    }

    /// The same files in a directory: a root that nobody verifies.
    ///
    /// # Errors
    ///
    /// A file that cannot be written.
    pub fn populate(tools: &Tools, root: &Path, directories: &[&str]) -> anyhow::Result<()> {
        for directory in DIRECTORIES.iter().chain(directories) {
            let path = root.join(directory.trim_start_matches('/'));
            std::fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        }
        let busybox = root.join("bin/busybox");
        std::fs::copy(tools.busybox(), &busybox).context("copy busybox")?;
        std::fs::set_permissions(&busybox, std::fs::Permissions::from_mode(0o755))?;
        for applet in APPLETS {
            symlink("busybox", root.join("bin").join(applet)).context("link to busybox")?;
        }
        std::fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").context("write passwd")
    }

    /// The options of a storage that has the disk verified, as runtimes write them.
    pub fn options(&self) -> Vec<String> {
        let offset = self.data_blocks.saturating_mul(u64::try_from(BLOCK).unwrap_or_default());
        vec![
            "ro".to_owned(),
            "X-kata.dmverity-enabled=true".to_owned(),
            format!("X-kata.dmverity.roothash={}", self.root_hash),
            format!("X-kata.dmverity.salt={}", self.salt),
            format!("X-kata.dmverity.hashoffset={offset}"),
            "X-kata.dmverity.no-superblock=true".to_owned(),
        ]
    }

    /// As `sealed.toml` names it: `verity = { … }`.
    pub fn toml(&self) -> String {
        let Self { root_hash, salt, data_blocks, .. } = self;
        format!(
            "verity = {{ root_hash = \"sha256:{root_hash}\", salt = \"{salt}\", data_blocks = {data_blocks} }}"
        )
    }
}

/// `mkfs.ext4` is not in everybody's path.
fn format(tree: &Path, image: &Path) -> anyhow::Result<()> {
    let program =
        ["/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4"].into_iter().find(|path| Path::new(path).exists());
    let mut mkfs = Command::new(program.unwrap_or("mkfs.ext4"));
    mkfs.args(["-q", "-F", "-b", "4096", "-m", "0", "-O", "^has_journal", "-E", "root_owner=0:0", "-d"]);
    let output = mkfs.arg(tree).arg(image).arg(SIZE).stdin(Stdio::null()).output();
    let output = output.context("start mkfs.ext4 (package e2fsprogs)")?;
    ensure!(output.status.success(), "mkfs.ext4: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The levels of hashes, the topmost first, and the root hash.
fn tree_of(data: &[u8], salt: &[u8]) -> anyhow::Result<(Vec<u8>, [u8; HASH])> {
    ensure!(data.len() > BLOCK && data.len().is_multiple_of(BLOCK), "whole blocks, and more than one");
    let mut levels: Vec<Vec<u8>> = Vec::new();
    let mut below = hashes(data, salt)?;
    while below.len() > BLOCK {
        let above = hashes(&below, salt)?;
        levels.push(std::mem::replace(&mut below, above));
    }
    let root = hash(&below, salt);
    levels.push(below);
    Ok((levels.into_iter().rev().flatten().collect(), root))
}

/// The hash of each block, in whole blocks.
fn hashes(mut data: &[u8], salt: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut hashes = Vec::new();
    let mut block = [0; BLOCK];
    while !data.is_empty() {
        data.read_exact(&mut block).context("whole blocks")?;
        hashes.extend(hash(&block, salt));
    }
    hashes.resize(hashes.len().next_multiple_of(BLOCK), 0);
    Ok(hashes)
}

fn hash(block: &[u8], salt: &[u8]) -> [u8; HASH] {
    Sha256::new().chain_update(salt).chain_update(block).finalize().into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: 129 blocks have two blocks of hashes, and one above them, which comes first.
    #[test]
    fn a_tree_has_its_top_first() {
        let data: Vec<u8> = (0..129_u8).flat_map(|block| [block; BLOCK]).collect();
        let salt = [7, 8];
        let (tree, root) = tree_of(&data, &salt).unwrap();
        assert_eq!(tree.len(), 3 * BLOCK);
        let (top, below) = tree.split_at(BLOCK);
        let leaf = |block: u8| Sha256::digest([&salt[..], &[block; BLOCK]].concat());
        assert_eq!(below[..HASH], leaf(0)[..]);
        assert_eq!(below[128 * HASH..129 * HASH], leaf(128)[..]);
        assert!(below[129 * HASH..].iter().all(|byte| *byte == 0));
        let node = |block: &[u8]| Sha256::digest([&salt[..], block].concat());
        assert_eq!(top[..HASH], node(&below[..BLOCK])[..]);
        assert_eq!(top[HASH..2 * HASH], node(&below[BLOCK..])[..]);
        assert_eq!(root[..], node(top)[..]);
        assert!(tree_of(&data[..BLOCK + 1], &salt).is_err());
    }
}
