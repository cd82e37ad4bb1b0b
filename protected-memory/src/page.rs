//! Page classes.

use std::fmt;

/// The size of a huge page, and the alignment of large mappings: 2 MiB.
pub const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Which pages back a piece of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PageClass {
    /// Ordinary 4 KiB pages: correct, but slower to fault and with 512 times as many IOMMU entries.
    Base4K,
    /// The file system gives 2 MiB pages wherever the kernel has them free.
    Huge2M,
}

impl fmt::Display for PageClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Base4K => "4 KiB pages",
            Self::Huge2M => "2 MiB pages",
        })
    }
}
