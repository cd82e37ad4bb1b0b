use super::super::{Bus, DmaError};
use super::*;
use chip_client::abi::{Sgl, SglEntry};

fn file(bytes: u64) -> OwnedFd {
    let fd = rustix::fs::memfd_create("dma", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&fd, bytes).unwrap();
    fd
}

fn request(iova: u64, length: u64, offset: u64, file: Option<&OwnedFd>) -> MapRequest {
    let file = file.map(|f| f.try_clone().unwrap());
    MapRequest { iova, length, readable: true, writable: true, offset, file }
}

#[test]
fn a_range_is_a_scatter_list_over_entries() {
    let memory = DmaMemory::default();
    let fd = file(0x4000);
    // Three pages in reverse order of the file.
    for page in 0..3 {
        memory.map(request(0x10_000 + page * 0x1000, 0x1000, 0x2000 - page * 0x1000, Some(&fd))).unwrap();
    }
    assert_eq!(memory.mapped_files(), 1);
    let bus = Bus::new(&memory, 0);
    let data: Vec<u8> = (0..0x2800u32).flat_map(|i| (i % 251).to_le_bytes()).take(0x2800).collect();
    bus.write(0x10_400, &data).unwrap();
    let mut back = vec![0; data.len()];
    bus.read(0x10_400, &mut back).unwrap();
    assert_eq!(back, data);
    let mut first = [0; 4];
    rustix::io::pread(&fd, &mut first, 0x2400).unwrap();
    assert_eq!(first, data[..4]);
}

#[test]
fn gaps_ends_and_directions_fault_before_anything_is_written() {
    let memory = DmaMemory::default();
    let fd = file(0x4000);
    memory.map(request(0x1000, 0x1000, 0, Some(&fd))).unwrap();
    memory.map(request(0x3000, 0x1000, 0x1000, Some(&fd))).unwrap();
    memory.map(MapRequest { writable: false, ..request(0x5000, 0x1000, 0x2000, Some(&fd)) }).unwrap();
    memory.map(MapRequest { readable: false, ..request(0x6000, 0x1000, 0x3000, Some(&fd)) }).unwrap();
    memory.map(request(0x7000, 0x1000, 0, None)).unwrap();
    let bus = Bus::new(&memory, 0);
    let list = |iova, length| Sgl { entries: vec![SglEntry { iova, length }] };
    for (iova, length) in
        [(0xfff, 2), (0x1fff, 2), (0x2000, 1), (0, 1), (0x7000, 1), (u64::MAX - 1, 1), (0x1800, 0x2000)]
    {
        assert_eq!(bus.covers(&list(iova, length), Direction::Write), Err(DmaError::Fault), "{iova:#x}");
        assert_eq!(
            bus.read(iova, &mut vec![0; usize::try_from(length).unwrap()]),
            Err(DmaError::Fault),
            "{iova:#x}"
        );
    }
    assert_eq!(bus.write(0x5000, b"x"), Err(DmaError::Fault));
    assert_eq!(bus.read(0x6000, &mut [0]), Err(DmaError::Fault));
    assert_eq!(bus.write(0x6000, b"x"), Ok(()));
    assert_eq!(bus.covers(&list(0x1000, 0x1000), Direction::Write), Ok(()));
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let memory = DmaMemory::default();
    let fd = file(0x2000);
    assert_eq!(memory.map(request(0x1000, 0, 0, Some(&fd))), Err(Errno::INVAL));
    assert_eq!(memory.map(request(u64::MAX, 2, 0, Some(&fd))), Err(Errno::INVAL));
    assert_eq!(memory.map(request(0, 0x2001, 0, Some(&fd))), Err(Errno::INVAL));
    assert_eq!(memory.map(request(0, 0x1000, 0x1001, Some(&fd))), Err(Errno::INVAL));
    assert_eq!(memory.map(request(0, 0x1000, u64::MAX, Some(&fd))), Err(Errno::INVAL));
    memory.map(request(0x1000, 0x1000, 0, Some(&fd))).unwrap();
    assert_eq!(memory.map(request(0x1fff, 2, 0, Some(&fd))), Err(Errno::EXIST));
    assert_eq!(memory.map(request(0, 0x1001, 0, Some(&fd))), Err(Errno::EXIST));
    assert_eq!(memory.map(request(0, 0x2000, 0, Some(&fd))), Err(Errno::EXIST));
    memory.map(request(0, 0x1000, 0, Some(&fd))).unwrap();
    memory.map(request(0x2000, 0x1000, 0, Some(&fd))).unwrap();
}

#[test]
fn the_last_unmap_of_a_file_releases_it() {
    let memory = DmaMemory::default();
    let fd = file(0x3000);
    for page in 0..3 {
        memory.map(request(page * 0x1000, 0x1000, page * 0x1000, Some(&fd))).unwrap();
    }
    memory.unmap(0x1000, 0x1000, false);
    assert_eq!(memory.mapped_files(), 1);
    assert_eq!(Bus::new(&memory, 0).read(0x1000, &mut [0]), Err(DmaError::Fault));
    // A huge range, most of which was never mapped.
    memory.unmap(0, 0x8000_0000_0000, false);
    assert_eq!(memory.mapped_files(), 0);
}

#[test]
fn unmapping_a_part_keeps_the_rest() {
    let memory = DmaMemory::default();
    let fd = file(0x3000);
    memory.map(request(0x1000, 0x3000, 0, Some(&fd))).unwrap();
    rustix::io::pwrite(&fd, b"tail", 0x2000).unwrap();
    memory.unmap(0x2000, 0x1000, false);
    let bus = Bus::new(&memory, 0);
    assert_eq!(bus.read(0x2000, &mut [0; 1]), Err(DmaError::Fault));
    assert_eq!(bus.read(0x1fff, &mut [0; 1]), Ok(()));
    let mut tail = [0; 4];
    bus.read(0x3000, &mut tail).unwrap();
    assert_eq!(&tail, b"tail");
}

#[test]
fn another_generation_is_stopped() {
    let memory = DmaMemory::default();
    let fd = file(0x1000);
    memory.map(request(0, 0x1000, 0, Some(&fd))).unwrap();
    memory.admit_only(5);
    assert_eq!(Bus::new(&memory, 4).write(0, b"x"), Err(DmaError::Stopped));
    assert_eq!(Bus::new(&memory, 5).write(0, b"x"), Ok(()));
}

#[test]
fn memory_kept_by_a_fault_is_scribbled_on() {
    let memory = DmaMemory::default();
    let fd = file(0x1000);
    memory.map(request(0, 0x1000, 0, Some(&fd))).unwrap();
    memory.unmap(0, 0x1000, true);
    assert_eq!(memory.mapped_files(), 1, "that is the fault");
    assert_eq!(memory.scribble(0x5a), 0x1000);
    let mut byte = [0];
    rustix::io::pread(&fd, &mut byte, 0xfff).unwrap();
    assert_eq!(byte, [0x5a]);
    memory.clear();
    assert_eq!(memory.mapped_files(), 0);
}
