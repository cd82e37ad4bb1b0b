//! What a device sees of this process, through `/proc/self/mem`: no unsafe code, no second mapping.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;

use protected_memory::dma::DmaRegion;

pub(crate) struct Memory {
    process: File,
    // Address for the device, address in this process, length.
    maps: Vec<(u64, u64, u64)>,
}

impl Default for Memory {
    fn default() -> Self {
        let process = OpenOptions::new().read(true).write(true).open("/proc/self/mem").unwrap();
        Self { process, maps: Vec::new() }
    }
}

impl Memory {
    pub(super) fn map(&mut self, iova: u64, region: &DmaRegion<'_>) {
        self.maps.push((iova, region.address().unwrap() as u64, region.len()));
    }

    pub(super) fn unmap(&mut self, iova: u64, len: u64) {
        let before = self.maps.len();
        self.maps.retain(|(start, _, l)| (*start, *l) != (iova, len));
        assert_eq!(self.maps.len() + 1, before, "unmap of what is not mapped");
    }

    /// Number of mappings.
    pub(crate) fn mappings(&self) -> usize {
        self.maps.len()
    }

    /// Bytes at an address of the device; `None` outside its mappings.
    pub(crate) fn read(&self, iova: u64, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; len];
        if len > 0 {
            self.process.read_exact_at(&mut bytes, self.translate(iova, len)?).unwrap();
        }
        Some(bytes)
    }

    /// Writes where the device is allowed to; elsewhere nothing happens.
    pub(crate) fn write(&self, iova: u64, bytes: &[u8]) {
        if let Some(address) = self.translate(iova, bytes.len()).filter(|_| !bytes.is_empty()) {
            self.process.write_all_at(bytes, address).unwrap();
        }
    }

    fn translate(&self, iova: u64, len: usize) -> Option<u64> {
        let inside = |(start, _, l): &&(u64, u64, u64)| iova >= *start && iova + len as u64 <= start + l;
        self.maps.iter().find(inside).map(|(start, address, _)| address + (iova - start))
    }
}
