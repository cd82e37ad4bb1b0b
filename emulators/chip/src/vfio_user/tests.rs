#![expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small numbers of a test")]

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use chip_client::vfio_user::wire::*;
use proptest::prelude::*;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::{Connection, Disconnected, Server};
use crate::controller::Controller;
use crate::testing::{Bench, INSECURE};

mod hostile;
mod qemu;

/// A server at the other end of a socket pair.
struct Client {
    socket: UnixStream,
    /// Id of the next message, and of those that are still to be answered, in their order.
    next: u16,
    unanswered: VecDeque<u16>,
    server: Option<JoinHandle<Disconnected>>,
    bench: Bench,
}

fn start(bench: &Bench) -> (UnixStream, JoinHandle<Disconnected>) {
    let (socket, other) = UnixStream::pair().unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let controller: Arc<Controller> = Arc::clone(&bench.controller);
    let server = std::thread::spawn(move || {
        Server::new(controller).serve(&Connection::new(OwnedFd::from(other), None))
    });
    (socket, server)
}

impl Client {
    fn new() -> Self {
        Self::with_plan("")
    }

    fn with_plan(plan: &str) -> Self {
        let bench = Bench::unprovisioned(INSECURE, plan);
        let (socket, server) = start(&bench);
        let mut client = Self { socket, next: 0, unanswered: VecDeque::new(), server: Some(server), bench };
        // The device was reset for this client: what a test does to it from here on stays.
        client.is_alive();
        client
    }

    fn send(&mut self, command: u16, flags: u32, body: &[u8], fds: &[BorrowedFd<'_>]) {
        let message_size = (HEADER_LEN + body.len()) as u32;
        let header = Header { message_id: self.next, command, message_size, flags, error: 0 };
        if flags == FLAG_COMMAND {
            self.unanswered.push_back(self.next);
        }
        self.next = self.next.wrapping_add(1);
        let message = [header.encode().as_slice(), body].concat();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(fds)));
        }
        let slices = [std::io::IoSlice::new(&message)];
        let sent = sendmsg(&self.socket, &slices, &mut ancillary, SendFlags::empty()).unwrap();
        self.socket.write_all(&message[sent..]).unwrap();
    }

    fn receive(&mut self) -> Result<Vec<u8>, u32> {
        let mut bytes = [0; HEADER_LEN];
        self.socket.read_exact(&mut bytes).unwrap();
        let header = Header::parse(&bytes).unwrap();
        let mut body = vec![0; header.body_len()];
        self.socket.read_exact(&mut body).unwrap();
        assert_eq!(Some(header.message_id), self.unanswered.pop_front());
        assert_eq!(header.flags & FLAG_TYPE_MASK, FLAG_REPLY);
        if header.flags & FLAG_ERROR == 0 { Ok(body) } else { Err(header.error) }
    }

    fn call(&mut self, command: Command, body: &[u8]) -> Result<Vec<u8>, u32> {
        self.send(command.as_u16(), 0, body, &[]);
        self.receive()
    }

    fn call_with(&mut self, command: Command, body: &[u8], fds: &[BorrowedFd<'_>]) -> Result<Vec<u8>, u32> {
        self.send(command.as_u16(), 0, body, fds);
        self.receive()
    }

    fn read(&mut self, region: u32, offset: u64, count: u32) -> Result<Vec<u8>, u32> {
        let body = RegionAccess { offset, region, count }.encode();
        self.call(Command::RegionRead, &body).map(|reply| reply[RegionAccess::LEN..].to_vec())
    }

    fn write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<Vec<u8>, u32> {
        let mut body = RegionAccess { offset, region, count: data.len() as u32 }.encode();
        body.extend_from_slice(data);
        self.call(Command::RegionWrite, &body)
    }

    /// The device still answers, and in step.
    fn is_alive(&mut self) {
        assert_eq!(self.read(0, 0, 4), Ok(b"IKIP".to_vec()));
    }

    fn finish(mut self) -> Disconnected {
        self.socket.shutdown(std::net::Shutdown::Both).unwrap();
        self.server.take().unwrap().join().unwrap()
    }
}

const EINVAL: u32 = 22;

fn memfd(bytes: u64) -> OwnedFd {
    let fd = rustix::fs::memfd_create("client", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&fd, bytes).unwrap();
    fd
}

fn map(address: u64, size: u64, flags: u32) -> Vec<u8> {
    DmaMap { argsz: 32, flags, offset: 0, address, size }.encode()
}

#[test]
fn version_is_tolerant_of_what_is_optional() {
    let mut client = Client::new();
    let header = VersionHeader { major: 0, minor: 0 }.encode();
    for json in [
        &b""[..],
        b"\0",
        b"{}\0",
        b"{}",
        b"{\"capabilities\":{\"max_msg_fds\":8,\"write_multiple\":true,\"unknown\":[1]}}\0",
    ] {
        let reply = client.call(Command::Version, &[header.as_slice(), json].concat()).unwrap();
        assert_eq!(reply[..4], [0; 4]);
        assert_eq!(reply.last(), Some(&0));
        let text = serde_json::from_slice::<serde_json::Value>(&reply[4..reply.len() - 1]).unwrap();
        assert_eq!(text["capabilities"]["max_data_xfer_size"], 1_048_576);
    }
    for bad in [&b""[..], b"\0\0\0", b"\x09\0\0\0{}\0", b"\0\0\0\0{]\0", b"\0\0\0\0{}\0{}\0"] {
        assert_eq!(client.call(Command::Version, bad), Err(EINVAL));
    }
    assert_eq!(client.call(Command::Version, &[&header[..], &[b' '; 5_000]].concat()), Err(EINVAL));
    client.is_alive();
}

#[test]
fn the_device_describes_itself() {
    let mut client = Client::new();
    let body = DeviceInfo { argsz: 16, ..DeviceInfo::default() }.encode();
    let reply = client.call(Command::DeviceGetInfo, &body).unwrap();
    let info = DeviceInfo::take(&mut chip_client::abi::Reader::new(&reply)).unwrap();
    assert_eq!((info.flags, info.num_regions, info.num_irqs), (3, 9, 5));
    for (index, size) in [(0, 0x4000), (1, 0), (2, 0), (4, 0x1000), (6, 0), (7, 0x1000), (8, 0)] {
        let body = RegionInfo { argsz: 32, index, ..RegionInfo::default() }.encode();
        let reply = client.call(Command::DeviceGetRegionInfo, &body).unwrap();
        let info = RegionInfo::take(&mut chip_client::abi::Reader::new(&reply)).unwrap();
        assert_eq!((info.index, info.size, info.cap_offset), (index, size, 0));
    }
    for (index, count) in [(0, 0), (1, 0), (2, 2), (3, 1), (4, 1)] {
        let body = IrqInfo { argsz: 16, index, ..IrqInfo::default() }.encode();
        let reply = client.call(Command::DeviceGetIrqInfo, &body).unwrap();
        let info = IrqInfo::take(&mut chip_client::abi::Reader::new(&reply)).unwrap();
        assert_eq!((info.index, info.count), (index, count));
    }
    let bad = RegionInfo { index: 9, ..RegionInfo::default() }.encode();
    assert_eq!(client.call(Command::DeviceGetRegionInfo, &bad), Err(EINVAL));
    let bad = IrqInfo { index: 5, ..IrqInfo::default() }.encode();
    assert_eq!(client.call(Command::DeviceGetIrqInfo, &bad), Err(EINVAL));
}

#[test]
fn regions_are_bounded() {
    let mut client = Client::new();
    assert_eq!(client.read(7, 0, 4), Ok(vec![0x4b, 0x49, 1, 0]));
    assert_eq!(client.read(7, 1, 3), Ok(vec![0x49, 1, 0]));
    assert_eq!(client.read(7, 0, 4_096).map(|b| b.len()), Ok(4_096));
    client.write(4, 0x10, &[1, 2, 3, 4]).unwrap();
    assert_eq!(client.read(4, 0x11, 2), Ok(vec![2, 3]));
    client.write(4, 0x800, &[0xff; 8]).unwrap();
    assert_eq!(client.read(4, 0x800, 8), Ok(vec![0; 8]), "pending bits are read-only");
    for (region, offset, count) in [
        (0, 0x3ffe, 4),
        (0, 0x4000, 4),
        (7, 4_093, 4),
        (7, u64::MAX, 1),
        (4, 0xfff, 2),
        (1, 0, 1),
        (2, 0, 4),
        (9, 0, 4),
        (u32::MAX, 0, 4),
        (7, 0, 0x10_0001),
        (7, 0, u32::MAX),
    ] {
        assert_eq!(client.read(region, offset, count), Err(EINVAL), "{region} {offset:#x} {count}");
    }
    assert_eq!(client.write(9, 0, &[0; 4]), Err(EINVAL));
    let short = RegionAccess { offset: 0, region: 7, count: 8 }.encode();
    assert_eq!(client.call(Command::RegionWrite, &[&short[..], &[0; 4]].concat()), Err(EINVAL));
    client.is_alive();
}

#[test]
fn no_reply_commands_are_not_answered_even_when_they_fail() {
    let mut client = Client::new();
    let write = |offset: u64| {
        let mut body = RegionAccess { offset, region: 0, count: 4 }.encode();
        body.extend([0; 4]);
        body
    };
    client.send(Command::RegionWrite.as_u16(), FLAG_NO_REPLY, &write(0x10), &[]);
    client.send(Command::RegionWrite.as_u16(), FLAG_NO_REPLY, &write(0x9999), &[]);
    client.send(0xffff, FLAG_NO_REPLY, &[1, 2, 3], &[]);
    client.send(Command::RegionRead.as_u16(), FLAG_REPLY, &[0; 16], &[]);
    client.is_alive();
}

#[test]
fn unknown_and_malformed_commands_keep_the_stream_in_step() {
    let mut client = Client::new();
    for command in [0, 14, 99, u16::MAX] {
        client.send(command, 0, &[0x55; 100], &[]);
        assert_eq!(client.receive(), Err(95), "{command}");
    }
    for command in
        [Command::RegionWriteMulti, Command::DeviceFeature, Command::DmaRead, Command::DeviceGetRegionIoFds]
    {
        assert_eq!(client.call(command, &[0; 64]), Err(95));
    }
    for command in (1..=18).filter_map(Command::from_u16).filter(|c| *c != Command::DeviceReset) {
        for length in [0, 1, 3] {
            assert!(client.call(command, &vec![0xff; length]).is_err(), "{command:?} {length}");
        }
        client.is_alive();
    }
}

#[test]
fn evil_sizes_end_the_connection_and_nothing_else() {
    for size in [0u32, 15, MAX_MESSAGE + 1, u32::MAX] {
        let mut client = Client::new();
        let header = Header { message_id: 1, command: 9, message_size: size, flags: 0, error: 0 };
        client.socket.write_all(&header.encode()).unwrap();
        assert_eq!(client.server.take().unwrap().join().unwrap(), Disconnected::Broken);
        let (socket, server) = start(&client.bench);
        client.socket = socket;
        client.server = Some(server);
        client.is_alive();
        client.finish();
    }
}

#[test]
fn a_client_that_leaves_inside_a_message_is_no_trouble() {
    let mut client = Client::new();
    client.socket.write_all(&[1, 0, 9]).unwrap();
    assert_eq!(client.finish(), Disconnected::Closed);
}

#[test]
fn dma_maps_come_with_at_most_one_file() {
    let mut client = Client::new();
    let fd = memfd(0x4000);
    assert_eq!(client.call_with(Command::DmaMap, &map(0x1000, 0x1000, 3), &[fd.as_fd()]), Ok(vec![]));
    assert_eq!(client.call(Command::DmaMap, &map(0x8000, 0x1000, 3)), Ok(vec![]), "without a file");
    let two = [fd.as_fd(), fd.as_fd()];
    assert_eq!(client.call_with(Command::DmaMap, &map(0x2000, 0x1000, 3), &two), Err(EINVAL));
    let many = [fd.as_fd(); 12];
    assert_eq!(client.call_with(Command::DmaMap, &map(0x2000, 0x1000, 3), &many), Err(EINVAL));
    assert_eq!(client.call_with(Command::DeviceReset, &[], &[fd.as_fd()]), Err(EINVAL));
    for (body, errno) in [
        (map(0x1800, 0x1000, 3), Errno::EXIST),
        (map(0x2000, 0, 3), Errno::INVAL),
        (map(u64::MAX - 5, 0x1000, 3), Errno::INVAL),
        (map(0x2000, 0x4001, 3), Errno::INVAL),
        (map(0x2000, 0x1000, 4), Errno::INVAL),
    ] {
        let errno = errno.raw_os_error() as u32;
        assert_eq!(client.call_with(Command::DmaMap, &body, &[fd.as_fd()]), Err(errno));
    }
    // A pipe cannot be mapped.
    let (pipe, _other) = rustix::pipe::pipe().unwrap();
    assert!(client.call_with(Command::DmaMap, &map(0x2000, 0x1000, 3), &[pipe.as_fd()]).is_err());
    client.is_alive();
}

#[test]
fn a_file_is_released_with_its_last_unmap() {
    let mut client = Client::new();
    client.bench.controller.memory.clear();
    let fd = memfd(0x4000);
    for page in 0..4 {
        let body =
            DmaMap { argsz: 32, flags: 3, offset: page * 0x1000, address: page * 0x1000, size: 0x1000 };
        client.call_with(Command::DmaMap, &body.encode(), &[fd.as_fd()]).unwrap();
    }
    assert_eq!(client.bench.controller.memory.mapped_files(), 1);
    let unmap = DmaUnmap { argsz: 24, flags: 0, address: 0, size: 0x8000_0000_0000 }.encode();
    assert_eq!(client.call(Command::DmaUnmap, &unmap), Ok(unmap.clone()));
    assert_eq!(client.bench.controller.memory.mapped_files(), 0);
    let all = DmaUnmap { argsz: 24, flags: DMA_UNMAP_ALL, address: 0, size: 0 }.encode();
    assert!(client.call(Command::DmaUnmap, &all).is_ok());
    for (flags, address, size) in [(1, 0, 0x1000), (DMA_UNMAP_ALL, 1, 0), (0, u64::MAX, 2)] {
        let body = DmaUnmap { argsz: 24, flags, address, size }.encode();
        assert_eq!(client.call(Command::DmaUnmap, &body), Err(EINVAL));
    }
}

#[test]
fn evil_memory_is_not_held_after_its_last_unmap() {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals};
    for (plan, held) in [("", false), ("[[fault]]\nkind = \"hold-after-unmap\"\n", true)] {
        let mut client = Client::with_plan(plan);
        let fd =
            rustix::fs::memfd_create("landing", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&fd, 0x2000).unwrap();
        client.call_with(Command::DmaMap, &map(0, 0x2000, 3), &[fd.as_fd()]).unwrap();
        assert_eq!(fcntl_add_seals(&fd, SealFlags::WRITE), Err(Errno::BUSY));
        let unmap = DmaUnmap { argsz: 24, flags: 0, address: 0, size: 0x2000 }.encode();
        client.call(Command::DmaUnmap, &unmap).unwrap();
        assert_eq!(fcntl_add_seals(&fd, SealFlags::WRITE).is_err(), held);
        client.finish();
        assert_eq!(fcntl_add_seals(&fd, SealFlags::WRITE), Ok(()), "a client that left is not held on to");
    }
}

#[test]
fn fault_write_after_unmap() {
    let mut client = Client::with_plan("[[fault]]\nkind = \"write-after-unmap\"\nmilliseconds = 20\n");
    let fd = memfd(0x2000);
    client.call_with(Command::DmaMap, &map(0, 0x2000, 3), &[fd.as_fd()]).unwrap();
    let unmap = DmaUnmap { argsz: 24, flags: 0, address: 0, size: 0x2000 }.encode();
    client.call(Command::DmaUnmap, &unmap).unwrap();
    let until = std::time::Instant::now() + Duration::from_secs(20);
    let mut bytes = [0; 0x2000];
    while bytes != [0xa5; 0x2000] {
        assert!(std::time::Instant::now() < until, "it never came");
        std::thread::sleep(Duration::from_millis(5));
        rustix::io::pread(&fd, &mut bytes, 0).unwrap();
    }
}

#[test]
fn interrupts_in_all_forms() {
    let mut client = Client::new();
    let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).unwrap();
    let other = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).unwrap();
    let set = |flags, index, start, count| SetIrqs { argsz: 20, flags, index, start, count }.encode();
    let count = |event: &OwnedFd| {
        let mut bytes = [0; 8];
        rustix::io::read(event, &mut bytes).map_or(0, |_| u64::from_ne_bytes(bytes))
    };
    let command = Command::DeviceSetIrqs;
    assert_eq!(client.call_with(command, &set(0x24, 2, 1, 1), &[event.as_fd()]), Ok(vec![]));
    client.bench.controller.interrupts.raise(1);
    assert_eq!(count(&event), 1);
    assert_eq!(client.call(command, &set(0x24, 2, 1, 1)), Ok(vec![]), "detach");
    client.bench.controller.interrupts.raise(1);
    let both = [other.as_fd(), event.as_fd()];
    assert_eq!(client.call_with(command, &set(0x24, 2, 0, 2), &both), Ok(vec![]));
    assert_eq!((count(&other), count(&event)), (0, 1), "what was pending fires");
    assert_eq!(client.call(command, &[&set(0x22, 2, 0, 2)[..], &[1, 0]].concat()), Ok(vec![]));
    assert_eq!((count(&other), count(&event)), (1, 0));
    assert_eq!(client.call(command, &set(0x21, 2, 0, 2)), Ok(vec![]));
    assert_eq!((count(&other), count(&event)), (1, 1));
    assert_eq!(client.call(command, &set(0x09, 2, 0, 1)), Ok(vec![]), "mask");
    client.bench.controller.interrupts.raise(0);
    assert_eq!(count(&other), 0);
    assert_eq!(client.call(command, &set(0x11, 2, 0, 1)), Ok(vec![]), "unmask");
    assert_eq!(count(&other), 1);
    assert_eq!(client.call(command, &set(0x21, 2, 0, 0)), Ok(vec![]), "disable all");
    client.bench.controller.interrupts.raise(0);
    assert_eq!(count(&other), 0);
    for index in [0, 1] {
        assert_eq!(client.call(command, &set(0x21, index, 0, 0)), Ok(vec![]));
        assert_eq!(client.call(command, &set(0x24, index, 0, 1)), Err(EINVAL));
    }
    assert_eq!(client.call_with(command, &set(0x24, 3, 0, 1), &[event.as_fd()]), Ok(vec![]));
    for bad in [
        set(0x24, 2, 2, 1),
        set(0x24, 2, 0, 3),
        set(0x24, 2, u32::MAX, 1),
        set(0x24, 9, 0, 1),
        set(0x22, 2, 0, 2),
        set(0x25, 2, 0, 1),
        set(0x04, 2, 0, 1),
        set(0x2c, 2, 0, 1),
        set(0x0c, 2, 0, 1),
        set(0x64, 2, 0, 1),
        [set(0x22, 2, 0, 1), vec![1, 1]].concat(),
    ] {
        assert_eq!(client.call(command, &bad), Err(EINVAL), "{bad:?}");
    }
    assert_eq!(client.call_with(command, &set(0x24, 2, 0, 2), &[event.as_fd()]), Err(EINVAL));
    assert_eq!(client.call_with(command, &set(0x21, 2, 0, 1), &[event.as_fd()]), Err(EINVAL));
    client.is_alive();
}

#[test]
fn resets_by_message_and_by_configuration_write() {
    use chip_client::abi::{CTRL_EN, REG_CTRL};
    let mut client = Client::new();
    let enabled = |client: &mut Client| client.read(0, REG_CTRL.into(), 4).unwrap()[0];
    for by_message in [true, false] {
        client.write(0, REG_CTRL.into(), &CTRL_EN.to_le_bytes()).unwrap();
        assert_eq!(enabled(&mut client), 1);
        client.write(7, 4, &[6, 0]).unwrap();
        if by_message {
            client.call(Command::DeviceReset, &[]).unwrap();
        } else {
            client.write(7, 0x58, &[0, 0x80]).unwrap();
        }
        assert_eq!(enabled(&mut client), 0);
        assert_eq!(client.read(7, 4, 1), Ok(vec![0]));
    }
}

#[test]
fn the_next_client_finds_a_fresh_device() {
    use chip_client::abi::{CTRL_EN, REG_CTRL};
    let mut client = Client::new();
    let fd = memfd(0x1000);
    client.call_with(Command::DmaMap, &map(0, 0x1000, 3), &[fd.as_fd()]).unwrap();
    client.write(0, REG_CTRL.into(), &CTRL_EN.to_le_bytes()).unwrap();
    client.socket.shutdown(std::net::Shutdown::Both).unwrap();
    client.server.take().unwrap().join().unwrap();
    assert_eq!(client.bench.controller.memory.mapped_files(), 0);
    let (socket, server) = start(&client.bench);
    (client.socket, client.server) = (socket, Some(server));
    assert_eq!(client.read(0, REG_CTRL.into(), 4), Ok(vec![0; 4]));
    client.finish();
}

#[test]
fn fault_disconnect_closes_the_socket() {
    let plan = "[[fault]]\nkind = \"disconnect\"\ncommand = \"IDENTIFY\"\n";
    let mut client = Client::with_plan(plan);
    client.is_alive();
    client.bench.enable();
    let entry = client.bench.entry(0, chip_client::abi::Opcode::Identify, 0, 0, 0).encode();
    client.bench.submit_bare(0, &entry);
    let mut byte = [0];
    assert_eq!(client.socket.read(&mut byte).unwrap(), 0);
    assert_eq!(client.server.take().unwrap().join().unwrap(), Disconnected::Closed);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever bytes come, the server answers or hangs up; it does not panic, and the next client is served.
    #[test]
    fn hostile_bytes_never_panic(messages in proptest::collection::vec(
        (0u16..20, any::<u32>(), proptest::collection::vec(any::<u8>(), 0..80), any::<bool>()), 1..20)
    ) {
        let mut client = Client::new();
        for (command, flags, mut body, plausible) in messages {
            if plausible {
                // Small numbers reach further than random ones.
                body.iter_mut().skip(4).for_each(|b| *b &= 0x07);
            }
            let size = (HEADER_LEN + body.len()) as u32;
            let header = Header { message_id: 3, command, message_size: size, flags: flags | FLAG_NO_REPLY, error: 0 };
            if client.socket.write_all(&[header.encode().as_slice(), &body].concat()).is_err() {
                break;
            }
        }
        client.is_alive();
        prop_assert_eq!(client.finish(), Disconnected::Closed);
    }

    /// Also without any framing.
    #[test]
    fn hostile_streams_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut client = Client::new();
        let _ = client.socket.write_all(&bytes);
        let reason = client.finish();
        prop_assert!(matches!(reason, Disconnected::Closed | Disconnected::Broken));
    }
}
