//! Ciphertext read without a copy: a mapped file, where its pages are this machine's own.
//!
//! An AEAD reads its input more than once (hash and decryption are separate looks at the same bytes), so it may only read from
//! memory that host, device and network cannot change in between. Pages in the local page cache of a disk or memory file system are that;
//! FUSE, virtio-fs, 9p, network file systems and DAX mappings are not, and are read into private memory instead.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, StatxAttributes, StatxFlags, fstatfs, statx};

use crate::sys::file_view::FileView;

/// `f_type` of file systems whose page cache is guest-private: statfs(2), linux/magic.h.
///
/// Not overlayfs: its pages are those of the layer below, which can be virtio-fs.
const GUEST_PRIVATE: [u64; 7] = [
    0x0000_ef53, // ext2, ext3, ext4
    0x0102_1994, // tmpfs
    0x5846_5342, // xfs
    0x7371_7368, // squashfs
    0x9123_683e, // btrfs
    0xe0f5_e1e2, // erofs
    0xf2f5_2010, // f2fs
];

/// Part of a local file, mapped read-only.
pub struct MappedSource {
    view: Option<FileView>,
    skip: usize,
    len: usize,
}

impl MappedSource {
    /// Maps `len` bytes from `offset`; `None` where the file's pages are not guest-private and the file must be read instead.
    ///
    /// # Errors
    ///
    /// The file is shorter than that (`UnexpectedEof`), or the kernel refuses.
    pub fn open(file: &File, offset: u64, len: u64) -> io::Result<Option<Self>> {
        // GUARD: mapped-source-is-private -> evil_fuse_source_is_not_mapped
        if !is_guest_private(file)? {
            return Ok(None);
        }
        let end = offset.checked_add(len).ok_or(io::ErrorKind::InvalidInput)?;
        if file.metadata()?.len() < end {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let too_long = |_| io::Error::from(io::ErrorKind::FileTooLarge);
        let len = usize::try_from(len).map_err(too_long)?;
        if len == 0 {
            return Ok(Some(Self { view: None, skip: 0, len }));
        }
        let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
        let skip = usize::try_from(offset % page).map_err(too_long)?;
        let mapped = len.checked_add(skip).ok_or(io::ErrorKind::FileTooLarge)?;
        let view = FileView::new(file.as_fd(), offset - offset % page, mapped)?;
        Ok(Some(Self { view: Some(view), skip, len }))
    }

    /// The ciphertext.
    pub fn bytes(&self) -> &[u8] {
        self.view
            .as_ref()
            .and_then(|view| view.bytes().get(self.skip..self.skip + self.len))
            .unwrap_or_default()
    }
}

impl std::fmt::Debug for MappedSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MappedSource").field("len", &self.len).finish_non_exhaustive()
    }
}

fn is_guest_private(file: &File) -> io::Result<bool> {
    let kind = u64::try_from(fstatfs(file)?.f_type).unwrap_or(0) & 0xffff_ffff;
    let attributes = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::TYPE)?.stx_attributes;
    Ok(GUEST_PRIVATE.contains(&kind) && !attributes.contains(StatxAttributes::DAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// Its pages are private wherever the tests run.
    fn memory_file() -> File {
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        rustix::fs::memfd_create("source-test", flags).unwrap().into()
    }

    #[test]
    fn any_part_of_a_file_is_seen_as_it_is() {
        let mut file = memory_file();
        let bytes: Vec<u8> = (0..20_000_u32).map(|i| i.to_le_bytes()[0]).collect();
        file.write_all(&bytes).unwrap();
        for (offset, len) in [(0, 20_000), (1, 4096), (4096, 100), (5000, 0), (19_999, 1)] {
            let source = MappedSource::open(&file, offset, len).unwrap().unwrap();
            let (from, to) = (usize::try_from(offset).unwrap(), usize::try_from(offset + len).unwrap());
            assert_eq!(source.bytes(), &bytes[from..to]);
        }
    }

    #[test]
    fn a_file_that_is_too_short_is_refused() {
        let file = memory_file();
        assert_eq!(MappedSource::open(&file, 0, 1).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn evil_fuse_source_is_not_mapped() {
        // procfs stands in: like FUSE it is not in the list of file systems with private pages.
        let file = File::open("/proc/self/status").unwrap();
        assert!(MappedSource::open(&file, 0, 0).unwrap().is_none());
    }
}
