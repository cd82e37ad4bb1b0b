//! What a device must be told to map a piece of memory.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use crate::PageClass;

/// A piece of a file that a device may map: by descriptor and offset over vfio-user, by address for kernel VFIO.
///
/// Handing the descriptor to another process gives it the right to write for as long as it keeps it.
#[derive(Clone, Copy)]
pub struct DmaRegion<'a> {
    fd: BorrowedFd<'a>,
    offset: u64,
    len: u64,
    address: Option<usize>,
    page_class: PageClass,
}

impl<'a> DmaRegion<'a> {
    pub(crate) fn new(
        fd: BorrowedFd<'a>,
        offset: u64,
        len: u64,
        address: Option<NonNull<u8>>,
        page_class: PageClass,
    ) -> Self {
        Self { fd, offset, len, address: address.map(|address| address.addr().get()), page_class }
    }

    /// The file, open for reading and writing.
    pub fn fd(&self) -> BorrowedFd<'a> {
        self.fd
    }

    /// Where the piece begins in the file, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a length for a device, not a collection")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The address in this process, as a number for an IOMMU; `None` for an empty file.
    pub fn address(&self) -> Option<usize> {
        self.address
    }

    /// The pages behind the piece; 2 MiB pages are aligned to 2 MiB in file and address.
    pub fn page_class(&self) -> PageClass {
        self.page_class
    }
}

impl fmt::Debug for DmaRegion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("DmaRegion");
        debug.field("offset", &self.offset).field("len", &self.len).field("pages", &self.page_class);
        debug.finish_non_exhaustive()
    }
}
