//! Looking up one mount in the mount table and judging it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::LandingError;
use super::tmpfs::SOURCE;

/// One line of `mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountEntry {
    pub(crate) id: u64,
    pub(crate) root: String,
    pub(crate) mount_point: PathBuf,
    pub(crate) mount_options: String,
    pub(crate) fs_type: String,
    pub(crate) source: String,
    pub(crate) super_options: String,
}

impl MountEntry {
    /// Finds the entry with this mount id. Lines that cannot be understood are no entry.
    pub(crate) fn find(mountinfo: &[u8], id: u64) -> Option<Self> {
        mountinfo.split(|byte| *byte == b'\n').filter_map(Self::parse).find(|entry| entry.id == id)
    }

    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let text = |field: &[u8]| String::from_utf8(unescape(field)).ok();
        let id = text(fields.next()?)?.parse().ok()?;
        let root = text(fields.nth(2)?)?;
        let mount_point = PathBuf::from(OsString::from_vec(unescape(fields.next()?)));
        let mount_options = text(fields.next()?)?;
        let mut after_dash = fields.skip_while(|field| *field != b"-").skip(1);
        Some(Self {
            id,
            root,
            mount_point,
            mount_options,
            fs_type: text(after_dash.next()?)?,
            source: text(after_dash.next()?)?,
            super_options: text(after_dash.next()?)?,
        })
    }

    /// Refuses an entry that is not our landing at this mount point, read-only as mount and as superblock.
    pub(crate) fn verify_landing(&self, mount_point: &Path) -> Result<(), LandingError> {
        let refuse = |expected, found: &str| {
            Err(LandingError::AttachNotOurs { path: mount_point.into(), expected, found: found.to_owned() })
        };
        // GUARD: attach-at-target -> evil_mount_elsewhere_is_refused
        if self.mount_point != mount_point {
            return refuse("the mount point", &self.mount_point.to_string_lossy());
        }
        // GUARD: attach-is-ours -> evil_foreign_mount_is_refused
        if self.fs_type != "tmpfs" || self.source != SOURCE || self.root != "/" {
            return refuse("a whole landing tmpfs", &self.fs_type);
        }
        // GUARD: attach-superblock-read-only -> evil_writable_superblock_is_refused
        if !has_option(&self.super_options, "ro") {
            return refuse("a read-only superblock", &self.super_options);
        }
        // GUARD: attach-mount-options -> evil_mount_options_are_refused
        if !["ro", "nosuid", "nodev", "noexec"].iter().all(|option| has_option(&self.mount_options, option)) {
            return refuse("mount options ro,nosuid,nodev,noexec", &self.mount_options);
        }
        Ok(())
    }
}

fn has_option(options: &str, wanted: &str) -> bool {
    options.split(',').any(|option| option == wanted)
}

/// Undoes the kernel's octal escapes (space, tab, newline, backslash).
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        match after {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] if *first == b'\\' => {
                plain.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = tail;
            }
            _ => {
                plain.push(*first);
                rest = after;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests;
