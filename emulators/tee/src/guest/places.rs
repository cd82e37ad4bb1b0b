//! Files at places where the kernel has none: sysfs makes no directory for anybody. What lies in the nearest directory
//! that exists is mirrored onto a tmpfs, mount by mount, and the new file is put beside it. A device that the kernel adds
//! to such a directory later is not seen there.

use std::fs::{self, DirBuilder, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rustix::fs::CWD;
use rustix::mount::{
    MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_remount, move_mount, open_tree,
    unmount,
};

use crate::log;

/// So many entries a mirrored directory may have.
const MAXIMUM_ENTRIES: usize = 1024;
const FLAGS: MountFlags = MountFlags::NODEV.union(MountFlags::NOEXEC).union(MountFlags::NOSUID);

/// What was mounted; it goes in reverse when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Places {
    mounts: Vec<PathBuf>,
    mirrors: Vec<PathBuf>,
}

/// What a mirrored directory holds.
enum Held {
    Mount { tree: OwnedFd, directory: bool },
    Link(PathBuf),
}

impl Places {
    /// Shows the file or directory `source` at `target`.
    pub(super) fn put(&mut self, source: &Path, target: &Path) -> anyhow::Result<()> {
        let name = || target.display().to_string();
        let tree = clone_of(source).with_context(|| source.display().to_string())?;
        if !target.exists() {
            let directory = target.ancestors().skip(1).find(|path| path.is_dir());
            self.mirror(directory.with_context(name)?).with_context(name)?;
            if source.is_dir() {
                make_directory(target).with_context(name)?;
            } else {
                target.parent().map_or(Ok(()), make_directory).with_context(name)?;
                File::create_new(target).with_context(name)?;
            }
        }
        attach(&tree, target).with_context(name)?;
        self.mounts.push(target.to_owned());
        Ok(())
    }

    /// Nothing more will be put: as in sysfs, nobody makes files in what was mirrored.
    pub(super) fn close(&self) -> anyhow::Result<()> {
        for mirror in &self.mirrors {
            mount_remount(mirror, FLAGS | MountFlags::RDONLY, "")
                .with_context(|| mirror.display().to_string())?;
        }
        Ok(())
    }

    fn mirror(&mut self, directory: &Path) -> anyhow::Result<()> {
        if self.mirrors.iter().any(|mirror| mirror == directory) {
            return Ok(());
        }
        let mut held = Vec::new();
        for entry in fs::read_dir(directory)? {
            let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
            if held.len() >= MAXIMUM_ENTRIES {
                bail!("{}: more than {MAXIMUM_ENTRIES} entries", directory.display());
            }
            let what = if kind.is_symlink() {
                Held::Link(fs::read_link(&path)?)
            } else {
                Held::Mount { tree: clone_of(&path)?, directory: kind.is_dir() }
            };
            held.push((path, what));
        }
        mount("tmpfs", directory, "tmpfs", FLAGS, c"mode=755,size=64k")?;
        self.mounts.push(directory.to_owned());
        self.mirrors.push(directory.to_owned());
        for (path, what) in held {
            match what {
                Held::Link(to) => symlink(to, path)?,
                Held::Mount { tree, directory } => {
                    if directory {
                        make_directory(&path)?;
                    } else {
                        File::create_new(&path)?;
                    }
                    attach(&tree, &path)?;
                }
            }
        }
        Ok(())
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        for path in self.mounts.iter().rev() {
            // With all that is mounted in it.
            if let Err(error) = unmount(path, UnmountFlags::DETACH) {
                log::note(&format!("{}: {error}", path.display()));
            }
        }
    }
}

/// The file or directory with all that is mounted in it, as a mount of its own that is nowhere yet.
fn clone_of(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    open_tree(CWD, path, flags)
}

fn attach(tree: &OwnedFd, target: &Path) -> rustix::io::Result<()> {
    move_mount(tree, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

fn make_directory(path: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path)
}
