//! The initramfs: a cpio archive in the form "newc" (Linux, Documentation/driver-api/early-userspace/buffer-format.rst), uncompressed: the
//! emulated processor takes longer to inflate than to copy.

use anyhow::{Context, ensure};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// An archive that is being written.
pub struct Initramfs {
    to: BufWriter<File>,
    inode: u32,
    directories: BTreeSet<String>,
}

impl Initramfs {
    /// A new archive with the directories that every root has and a console.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
        let mut archive = Self { to: BufWriter::new(file), inode: 1, directories: BTreeSet::new() };
        for directory in
            ["/dev", "/proc", "/sys", "/run", "/tmp", "/etc", "/bin", "/lib/modules", "/mnt", "/out"]
        {
            archive.directory(directory)?;
        }
        // Without it the kernel starts its first program with all descriptors closed.
        archive.entry("/dev/console", 0o020_600, (5, 1), &[])?;
        Ok(archive)
    }

    /// A regular file.
    pub fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) -> anyhow::Result<()> {
        ensure!(path.starts_with('/'), "{path}: expected an absolute path in the guest");
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.directory(parent)?;
        }
        self.entry(path, 0o100_000 | mode, (0, 0), bytes)
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, target: &str) -> anyhow::Result<()> {
        self.entry(path, 0o120_777, (0, 0), target.as_bytes())
    }

    /// A directory and those above it.
    pub fn directory(&mut self, path: &str) -> anyhow::Result<()> {
        let mut whole = String::new();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            whole.push('/');
            whole.push_str(part);
            if self.directories.insert(whole.clone()) {
                self.entry(&whole, 0o040_755, (0, 0), &[])?;
            }
        }
        Ok(())
    }

    /// Ends the archive.
    pub fn finish(mut self) -> anyhow::Result<()> {
        self.entry("/TRAILER!!!", 0, (0, 0), &[])?;
        self.to.flush().context("write the initramfs")
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), bytes: &[u8]) -> anyhow::Result<()> {
        let name = path.trim_start_matches('/');
        let size = u32::try_from(bytes.len()).with_context(|| format!("{path} is too large"))?;
        let name_size = u32::try_from(name.len() + 1)?;
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0];
        self.inode += 1;
        let mut header = String::from("070701");
        for field in fields {
            header.push_str(&format!("{field:08x}"));
        }
        self.to.write_all(header.as_bytes())?;
        self.to.write_all(name.as_bytes())?;
        self.to.write_all(&[0])?;
        self.pad(header.len() + name.len() + 1)?;
        self.to.write_all(bytes)?;
        self.pad(bytes.len())
    }

    fn pad(&mut self, written: usize) -> anyhow::Result<()> {
        let missing = written.next_multiple_of(4) - written;
        self.to.write_all([0; 3].get(..missing).unwrap_or_default())?;
        Ok(())
    }
}
