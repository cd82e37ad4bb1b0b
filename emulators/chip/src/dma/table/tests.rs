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
    memory.unmap(0x1000, 0x1000, Leftover::Nothing);
    assert_eq!(memory.mapped_files(), 1);
    assert_eq!(Bus::new(&memory, 0).read(0x1000, &mut [0]), Err(DmaError::Fault));
    // A huge range, most of which was never mapped.
    memory.unmap(0, 0x8000_0000_0000, Leftover::Nothing);
    assert_eq!(memory.mapped_files(), 0);
}

#[test]
fn unmapping_a_part_keeps_the_rest() {
    let memory = DmaMemory::default();
    let fd = file(0x3000);
    memory.map(request(0x1000, 0x3000, 0, Some(&fd))).unwrap();
    rustix::io::pwrite(&fd, b"tail", 0x2000).unwrap();
    memory.unmap(0x2000, 0x1000, Leftover::Nothing);
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
fn memory_kept_by_a_fault_is_scribbled_on_once() {
    let memory = DmaMemory::default();
    let fd = file(0x2000);
    memory.map(request(0, 0x2000, 0, Some(&fd))).unwrap();
    memory.unmap(0, 0x1000, Leftover::Held);
    memory.unmap(0x1000, 0x1000, Leftover::Condemned);
    assert_eq!(memory.mapped_files(), 1, "that is the fault");
    assert_eq!(Bus::new(&memory, 0).read(0, &mut [0]), Err(DmaError::Fault));
    assert_eq!(memory.scribble(), 0x1000);
    assert_eq!(memory.scribble(), 0);
    let mut bytes = [0; 0x2000];
    rustix::io::pread(&fd, &mut bytes, 0).unwrap();
    assert_eq!((&bytes[..0x1000], &bytes[0x1000..]), (&[0; 0x1000][..], &[0xa5; 0x1000][..]));
    assert_eq!(memory.mapped_files(), 1, "the other part is held");
    memory.clear();
    assert_eq!(memory.mapped_files(), 0);
}

#[test]
fn a_stale_range_is_reached_until_something_else_is_mapped_there() {
    let memory = DmaMemory::default();
    let (old, new) = (file(0x3000), file(0x1000));
    memory.map(request(0x1000, 0x3000, 0, Some(&old))).unwrap();
    memory.unmap(0x2000, 0x2000, Leftover::Stale);
    let bus = Bus::new(&memory, 0);
    assert_eq!(bus.write(0x1000, &[1; 0x3000]), Ok(()), "that is the fault");
    assert_eq!(memory.map(request(0x1000, 0x2000, 0, Some(&new))), Err(Errno::EXIST), "a part is not stale");
    memory.map(request(0x2000, 0x1000, 0, Some(&new))).unwrap();
    bus.write(0x1000, &[2; 0x3000]).unwrap();
    let mut bytes = [0; 0x3000];
    rustix::io::pread(&old, &mut bytes, 0).unwrap();
    assert_eq!([bytes[0], bytes[0x1000], bytes[0x2000]], [2, 1, 2]);
    memory.unmap(0, 0x8000, Leftover::Nothing);
    assert_eq!(memory.mapped_files(), 0);
}

#[test]
fn a_disobedient_device_writes_where_nothing_is_mapped() {
    let memory = DmaMemory::default();
    let fd = file(0x8000);
    // Two ranges that follow each other in the file, and one apart.
    for (iova, offset) in [(0x10_000, 0x3000), (0x20_000, 0x2000), (0x30_000, 0x6000)] {
        memory.map(request(iova, 0x1000, offset, Some(&fd))).unwrap();
    }
    let touched = || {
        let mut bytes = [0; 0x8000];
        rustix::io::pread(&fd, &mut bytes, 0).unwrap();
        rustix::io::pwrite(&fd, &[0; 0x8000], 0).unwrap();
        (0..8).filter(|page| bytes[page * 0x1000..][..0x1000] == [0xa5; 0x1000]).collect::<Vec<_>>()
    };
    assert_eq!(memory.write_outside(0x10_800, 0x5000), 0x1000);
    assert_eq!(touched(), [5]);
    assert_eq!(memory.write_outside(0x10_800, 0x8000), 0, "outside the file there is nothing");
    assert_eq!(memory.write_outside(0x40_000, 0), 0);
    let list = Sgl { entries: [0x10_000, 0x20_000].map(|iova| SglEntry { iova, length: 0x1000 }).to_vec() };
    assert_eq!(memory.write_beside(&list, 0x1000), 0x2000);
    assert_eq!(touched(), [1, 4], "not between what follows each other");
    assert_eq!(memory.write_beside(&Sgl::single(0x30_000, 0x1000), 0x2000), 0x3000);
    assert_eq!(touched(), [4, 5, 7]);
}
