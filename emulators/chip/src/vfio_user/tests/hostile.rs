//! Clients that break the rules: each message is refused by itself, and the next one is understood.

use std::os::fd::AsFd;

use chip_client::abi::{CTRL_EN, REG_CTRL, REG_STATUS};
use chip_client::vfio_user::wire::*;
use rustix::io::Errno;

use super::{Client, EINVAL, map, memfd};

const EEXIST: u32 = 17;

#[test]
fn evil_client_maps_over_a_mapping() {
    let mut client = Client::new();
    client.bench.controller.memory.clear();
    let (mine, other) = (memfd(0x4000), memfd(0x4000));
    assert_eq!(client.call_with(Command::DmaMap, &map(0x2000, 0x2000, 3), &[mine.as_fd()]), Ok(vec![]));
    for (address, size) in
        [(0x2000, 0x2000), (0x1000, 0x1001), (0x3fff, 1), (0x1000, 0x4000), (0x2800, 0x100)]
    {
        let again = client.call_with(Command::DmaMap, &map(address, size, 3), &[other.as_fd()]);
        assert_eq!(again, Err(EEXIST), "{address:#x}");
    }
    assert_eq!(client.bench.controller.memory.mapped_files(), 1, "the other file never got in");
    client.is_alive();
}

#[test]
fn evil_client_maps_more_than_its_file() {
    let mut client = Client::new();
    client.bench.controller.memory.clear();
    let file = memfd(0x2000);
    for (offset, size) in
        [(0, 0x2001), (0x1000, 0x1001), (0x2000, 1), (u64::MAX, 1), (u64::MAX - 0xfff, 0x1000)]
    {
        let body = DmaMap { argsz: 32, flags: 3, offset, address: 0x10_000, size }.encode();
        assert_eq!(client.call_with(Command::DmaMap, &body, &[file.as_fd()]), Err(EINVAL), "{offset:#x}");
    }
    assert_eq!(client.bench.controller.memory.mapped_files(), 0);
    client.is_alive();
}

#[test]
fn evil_addresses_that_wrap_around() {
    let mut client = Client::new();
    client.bench.controller.memory.clear();
    let file = memfd(0x2000);
    for (address, size) in [(u64::MAX, 2), (u64::MAX - 0xfff, 0x1001), (0x1000, u64::MAX), (0, 0)] {
        let mapped = client.call_with(Command::DmaMap, &map(address, size, 3), &[file.as_fd()]);
        assert_eq!(mapped, Err(EINVAL), "{address:#x} {size:#x}");
    }
    client.call_with(Command::DmaMap, &map(0x1000, 0x1000, 3), &[file.as_fd()]).unwrap();
    for (address, size) in [(u64::MAX, 2), (0x1000, u64::MAX), (0x1000, 0)] {
        let unmap = DmaUnmap { argsz: 24, flags: 0, address, size }.encode();
        assert_eq!(client.call(Command::DmaUnmap, &unmap), Err(EINVAL), "{address:#x} {size:#x}");
    }
    assert_eq!(client.bench.controller.memory.mapped_files(), 1, "a refused unmap removes nothing");
    // All there is, without and with the flag.
    let all = DmaUnmap { argsz: 24, flags: 0, address: 1, size: u64::MAX }.encode();
    assert!(client.call(Command::DmaUnmap, &all).is_ok());
    assert_eq!(client.bench.controller.memory.mapped_files(), 0);
    client.is_alive();
}

#[test]
fn evil_client_writes_parts_of_registers() {
    let mut client = Client::new();
    let control: u64 = REG_CTRL.into();
    for (offset, bytes) in
        [(control, &[1u8][..]), (control, &[1, 0]), (control - 1, &[0, 1, 0, 0]), (control, &[1, 0, 0, 0, 1])]
    {
        assert_eq!(client.write(0, offset, bytes), Err(EINVAL), "{offset:#x}");
        assert_eq!(client.read(0, control, 4), Ok(vec![0; 4]));
        assert_eq!(client.read(0, REG_STATUS.into(), 1), Ok(vec![0]));
    }
    client.write(0, control, &CTRL_EN.to_le_bytes()).unwrap();
    assert_eq!(client.read(0, control, 4), Ok(vec![1, 0, 0, 0]));
}

#[test]
fn evil_descriptors_are_not_kept() {
    let mut client = Client::new();
    let file = memfd(0x2000);
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    let many = [file.as_fd(); 16];
    for _ in 0..200 {
        assert_eq!(client.call_with(Command::DmaMap, &map(0x1000, 0x1000, 3), &many), Err(EINVAL));
        assert_eq!(client.call_with(Command::RegionRead, &[0; 16], &many[..2]), Err(EINVAL));
        assert_eq!(client.call_with(Command::DmaMap, &map(u64::MAX, 2, 3), &many[..1]), Err(EINVAL));
        // Two vectors, three events.
        let set = SetIrqs { argsz: 20, flags: 0x24, index: 2, start: 0, count: 2 }.encode();
        assert_eq!(client.call_with(Command::DeviceSetIrqs, &set, &many[..3]), Err(EINVAL));
    }
    assert_eq!(open(), before);
    client.is_alive();
}

#[test]
fn evil_files_that_are_none() {
    let mut client = Client::new();
    client.bench.controller.memory.clear();
    let (pipe, _other) = rustix::pipe::pipe().unwrap();
    let (socket, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
    let directory = std::fs::File::open("/").unwrap();
    let empty = memfd(0);
    for fd in [pipe.as_fd(), socket.as_fd(), directory.as_fd(), empty.as_fd()] {
        assert!(client.call_with(Command::DmaMap, &map(0x1000, 0x1000, 3), &[fd]).is_err());
    }
    // Read-only files are not mapped for writing.
    let path = tempfile::NamedTempFile::new().unwrap();
    path.as_file().set_len(0x1000).unwrap();
    let read_only = std::fs::File::open(path.path()).unwrap();
    let errno = Errno::ACCESS.raw_os_error() as u32;
    let fds = [read_only.as_fd()];
    assert_eq!(client.call_with(Command::DmaMap, &map(0x1000, 0x1000, 3), &fds), Err(errno));
    assert_eq!(client.bench.controller.memory.mapped_files(), 0);
    assert_eq!(client.call_with(Command::DmaMap, &map(0x1000, 0x1000, 1), &fds), Ok(vec![]));
    client.is_alive();
}

#[test]
fn evil_lengths_do_not_agree_with_the_message() {
    let mut client = Client::new();
    // More or fewer bytes than the fields say, in every command with a fixed part.
    let fixed = [
        (Command::DmaMap, 32),
        (Command::DmaUnmap, 24),
        (Command::DeviceGetRegionInfo, 32),
        (Command::DeviceGetIrqInfo, 16),
        (Command::DeviceSetIrqs, 20),
        (Command::RegionRead, 16),
        (Command::RegionWrite, 16),
    ];
    for (command, length) in fixed {
        assert_eq!(client.call(command, &vec![0; length - 1]), Err(EINVAL), "{command:?}");
    }
    for (command, length) in [(Command::DmaMap, 33), (Command::DmaUnmap, 25), (Command::RegionRead, 17)] {
        assert_eq!(client.call(command, &vec![0; length]), Err(EINVAL), "{command:?}");
    }
    let body = RegionAccess { offset: 4, region: 7, count: 2 }.encode();
    for data in [&[6u8][..], &[6, 0, 0]] {
        assert_eq!(client.call(Command::RegionWrite, &[&body[..], data].concat()), Err(EINVAL));
    }
    assert_eq!(client.read(7, 4, 1), Ok(vec![0]), "no write had an effect");
    client.is_alive();
}
