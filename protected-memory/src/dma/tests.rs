use std::os::fd::AsFd;

use rustix::fs::ftruncate;
use rustix::io::{Errno, pread, pwrite};

use super::{DMA_BUFFER_MAX_BYTES, DmaBuffer, Private, Shared, SharedMemoryProvider};
use crate::HUGE_PAGE_BYTES;
use crate::testing::{pattern, vm_flags};

fn shared(len: usize) -> DmaBuffer<Shared> {
    DmaBuffer::<Shared>::allocate(SharedMemoryProvider::Emulated, len).unwrap()
}

#[test]
fn missing_provider_is_an_error() {
    for provider in [SharedMemoryProvider::ChipBarWindow, SharedMemoryProvider::DmaHeap] {
        let error = DmaBuffer::<Shared>::allocate(provider, 4096).unwrap_err();
        assert_eq!(error.code(), "MEM-040");
        assert!(error.to_string().starts_with("no provider of shared memory: "), "{error}");
    }
}

#[test]
fn evil_buffer_length_is_refused() {
    for len in [0, DMA_BUFFER_MAX_BYTES + 1, usize::MAX] {
        let error = DmaBuffer::<Shared>::allocate(SharedMemoryProvider::Emulated, len).unwrap_err();
        assert_eq!(error.code(), "MEM-041");
    }
}

#[test]
fn evil_offset_outside_buffer_is_refused() {
    let buffer = shared(4096);
    for (offset, len) in [(4096, 1), (4095, 2), (0, 4097), (usize::MAX, 1), (usize::MAX, 2)] {
        assert_eq!(buffer.copy_out(offset, &mut vec![0; len]).unwrap_err().code(), "MEM-043");
        assert_eq!(buffer.copy_in(offset, &vec![0; len]).unwrap_err().code(), "MEM-043");
    }
    assert_eq!(buffer.load_u32(4096).unwrap_err().code(), "MEM-043");
    assert_eq!(buffer.store_u64(4096, 0).unwrap_err().code(), "MEM-043");
    buffer.copy_out(4096, &mut []).unwrap();
}

#[test]
fn every_offset_and_length_copies_exactly_its_bytes() {
    let buffer = shared(64);
    for offset in 0..24 {
        for len in 0..40 {
            buffer.copy_in(0, &[0xFF; 64]).unwrap();
            let bytes = pattern(len);
            buffer.copy_in(offset, &bytes).unwrap();
            let mut all = [0; 64];
            buffer.copy_out(0, &mut all).unwrap();
            assert_eq!(all[offset..offset + len], bytes);
            assert!(all[..offset].iter().chain(&all[offset + len..]).all(|byte| *byte == 0xFF));
            let mut part = vec![0; len];
            buffer.copy_out(offset, &mut part).unwrap();
            assert_eq!(part, bytes);
        }
    }
}

#[test]
fn words_are_in_the_order_of_bytes() {
    let buffer = shared(64);
    buffer.store_u32(4, 0x0102_0304).unwrap();
    buffer.store_u64(8, 0x0506_0708_090A_0B0C).unwrap();
    let mut bytes = [0; 16];
    buffer.copy_out(0, &mut bytes).unwrap();
    assert_eq!(bytes[4..8], 0x0102_0304_u32.to_ne_bytes());
    assert_eq!(bytes[8..16], 0x0506_0708_090A_0B0C_u64.to_ne_bytes());
    assert_eq!(buffer.load_u32(4).unwrap(), 0x0102_0304);
    assert_eq!(buffer.load_u64(8).unwrap(), 0x0506_0708_090A_0B0C);
}

#[test]
fn words_that_are_not_aligned_are_refused() {
    let buffer = shared(64);
    assert_eq!(buffer.load_u32(2).unwrap_err().code(), "MEM-044");
    assert_eq!(buffer.load_u64(4).unwrap_err().code(), "MEM-044");
    assert_eq!(buffer.store_u32(1, 0).unwrap_err().code(), "MEM-044");
    assert_eq!(buffer.store_u64(60, 0).unwrap_err().code(), "MEM-044");
}

#[test]
fn what_the_device_writes_is_seen_and_a_copy_stays() {
    let buffer = shared(4096);
    let region = buffer.region();
    pwrite(region.fd(), b"first", region.offset()).unwrap();
    let mut copy = [0; 5];
    buffer.copy_out(0, &mut copy).unwrap();
    pwrite(region.fd(), b"after", region.offset()).unwrap();
    assert_eq!(&copy, b"first");
}

#[test]
fn evil_device_cannot_shorten_a_buffer() {
    let buffer = shared(4096);
    let device = buffer.region().fd().try_clone_to_owned().unwrap();
    assert_eq!(ftruncate(&device, 0), Err(Errno::PERM));
    assert_eq!(ftruncate(&device, 8192), Err(Errno::PERM));
    buffer.copy_out(0, &mut [0; 4096]).unwrap();
}

#[test]
fn large_buffers_are_aligned_to_huge_pages() {
    for len in [HUGE_PAGE_BYTES, 2 * HUGE_PAGE_BYTES + 4096] {
        let buffer = shared(len);
        assert!(buffer.region().address().unwrap().is_multiple_of(HUGE_PAGE_BYTES));
        assert_eq!(buffer.region().len(), len as u64);
    }
}

#[test]
fn private_buffers_are_locked_and_not_dumped() {
    let buffer = DmaBuffer::<Private>::allocate(4096).unwrap();
    let flags = vm_flags(buffer.region().address().unwrap());
    for flag in ["lo", "dd", "dc"] {
        assert!(flags.iter().any(|found| found == flag), "{flag} in {flags:?}");
    }
}

#[test]
fn dropped_private_buffer_is_wiped() {
    let buffer = DmaBuffer::<Private>::allocate(4096).unwrap();
    let witness = buffer.region().fd().as_fd().try_clone_to_owned().unwrap();
    buffer.copy_in(0, &pattern(4096)).unwrap();
    drop(buffer);
    let mut bytes = [0xEE; 4096];
    assert_eq!(pread(&witness, &mut bytes, 0).unwrap(), 4096);
    assert_eq!(bytes, [0; 4096]);
}

#[test]
fn buffers_print_no_contents() {
    let private = DmaBuffer::<Private>::allocate(64).unwrap();
    assert_eq!(format!("{private:?}"), "DmaBuffer { visibility: \"private\", len: 64, .. }");
    assert_eq!(format!("{:?}", shared(8).region()), "DmaRegion { offset: 0, len: 8, pages: Base4K, .. }");
}
