//! Huge pages for a file system of them: asked for, counted, given back.

use std::fs;
use std::path::{Path, PathBuf};

use super::StorageError;
use crate::hotplug::sysfs::attribute_text;

/// Sizes of pages that a kernel may have.
const SMALLEST: u64 = 64 << 10;
const LARGEST: u64 = 16 << 30;

/// How many pages of which size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pages {
    size_bytes: u64,
    count: u64,
}

impl Pages {
    /// For so many bytes in all.
    pub(super) fn new(page_bytes: u64, bytes: u64) -> Result<Self, StorageError> {
        let refuse = |option: &str, expected| StorageError::Option { option: option.to_owned(), expected };
        if !page_bytes.is_power_of_two() || !(SMALLEST..=LARGEST).contains(&page_bytes) {
            return Err(refuse("pagesize", "the size of a huge page in bytes"));
        }
        if bytes < page_bytes {
            return Err(refuse("size", "one page at least"));
        }
        Ok(Self { size_bytes: page_bytes, count: bytes / page_bytes })
    }
}

/// Pages that were asked for.
#[derive(Debug)]
pub(crate) struct Reserved {
    file: PathBuf,
    count: u64,
}

fn read(file: &Path) -> Result<u64, StorageError> {
    let failed = || StorageError::io("read", file)(std::io::Error::from(std::io::ErrorKind::InvalidData));
    attribute_text(file).map_err(StorageError::io("read", file))?.parse().map_err(|_| failed())
}

fn write(file: &Path, count: u64) -> Result<(), StorageError> {
    fs::write(file, count.to_string()).map_err(StorageError::io("write", file))
}

/// Asks for more pages than there are.
pub(super) fn reserve(sys: &Path, pages: &Pages) -> Result<Reserved, StorageError> {
    let name = format!("hugepages-{}kB", pages.size_bytes >> 10);
    let file = sys.join("kernel/mm/hugepages").join(name).join("nr_hugepages");
    let before = read(&file)?;
    let expected = before.saturating_add(pages.count);
    write(&file, expected)?;
    let reserved = Reserved { file, count: pages.count };
    let found = read(&reserved.file)?;
    if found < expected {
        write(&reserved.file, before)?;
        return Err(StorageError::HugePages { expected: pages.count, found: found.saturating_sub(before) });
    }
    Ok(reserved)
}

impl Reserved {
    pub(super) fn give_back(self) -> Result<(), StorageError> {
        let count = read(&self.file)?;
        write(&self.file, count.saturating_sub(self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_added_and_given_back() {
        let sys = tempfile::tempdir().unwrap();
        let directory = sys.path().join("kernel/mm/hugepages/hugepages-2048kB");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("nr_hugepages"), "3\n").unwrap();
        let pages = Pages::new(2 << 20, 9 << 20).unwrap();
        let reserved = reserve(sys.path(), &pages).unwrap();
        assert_eq!(read(&directory.join("nr_hugepages")).unwrap(), 7);
        reserved.give_back().unwrap();
        assert_eq!(read(&directory.join("nr_hugepages")).unwrap(), 3);
        let absent = Pages::new(1 << 30, 1 << 30).unwrap();
        assert_eq!(reserve(sys.path(), &absent).unwrap_err().code(), "STORAGE_IO");
        for (page, bytes) in [(0, 0), (4096, 8192), (3 << 20, 9 << 20), (1 << 40, 1 << 41), (2 << 20, 1)] {
            assert_eq!(Pages::new(page, bytes).unwrap_err().code(), "STORAGE_OPTION");
        }
    }
}
