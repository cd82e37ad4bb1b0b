//! A server that lies about the protocol.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::Duration;

use protected_memory::dma::{DmaBuffer, Shared, SharedMemoryProvider};

use super::wire::*;
use super::*;
use crate::abi::Reader;
use crate::backing::{DeviceBacking, DmaAccess, Iova};
use crate::error::ChipError;
use crate::testing::assert_code;

/// A reply before it is sent.
struct Answer {
    header: Header,
    body: Vec<u8>,
}

type Lie = Box<dyn FnMut(Command, &mut Answer) -> Serve + Send>;

#[derive(PartialEq)]
enum Serve {
    Answer,
    Hang,
    HangUp,
}

fn honest(command: Command, body: &[u8]) -> Vec<u8> {
    let mut reader = Reader::new(body);
    match command {
        Command::Version => [VersionHeader { major: 0, minor: 0 }.encode(), b"{}\0".to_vec()].concat(),
        Command::DeviceGetInfo => {
            DeviceInfo { argsz: 16, flags: DEVICE_FLAG_PCI | DEVICE_FLAG_RESET, num_regions: 9, num_irqs: 5 }
                .encode()
        }
        Command::DeviceGetRegionInfo => {
            let index = RegionInfo::take(&mut reader).unwrap().index;
            let flags = REGION_FLAG_READ | REGION_FLAG_WRITE;
            RegionInfo { argsz: 32, flags, index, cap_offset: 0, size: 0x4000, offset: 0 }.encode()
        }
        Command::DeviceGetIrqInfo => {
            IrqInfo { argsz: 16, flags: IRQ_FLAG_EVENTFD, index: 2, count: 2 }.encode()
        }
        Command::RegionRead => {
            let access = RegionAccess::take(&mut reader).unwrap();
            [access.encode(), vec![0x5A; access.count as usize]].concat()
        }
        Command::RegionWrite => RegionAccess::take(&mut reader).unwrap().encode(),
        Command::DmaUnmap => body.to_vec(),
        _ => Vec::new(),
    }
}

fn server(
    mut lie: impl FnMut(Command, &mut Answer) -> Serve + Send + 'static,
) -> (UnixStream, JoinHandle<()>) {
    let (client, mut server) = UnixStream::pair().unwrap();
    let thread = std::thread::spawn(move || {
        loop {
            let mut header = [0; HEADER_LEN];
            if server.read_exact(&mut header).is_err() {
                return;
            }
            let asked = Header::parse(&header).unwrap();
            let mut body = vec![0; asked.body_len()];
            server.read_exact(&mut body).unwrap();
            let command = Command::from_u16(asked.command).unwrap();
            let body = honest(command, &body);
            let mut answer = Answer { header: Header { flags: FLAG_REPLY, ..asked }, body };
            answer.header.message_size = 0;
            let serve = lie(command, &mut answer);
            if answer.header.message_size == 0 {
                answer.header.message_size = u32::try_from(HEADER_LEN + answer.body.len()).unwrap();
            }
            match serve {
                Serve::Answer => {
                    let bytes = [answer.header.encode().as_slice(), &answer.body].concat();
                    if server.write_all(&bytes).is_err() {
                        return;
                    }
                }
                Serve::Hang => {}
                Serve::HangUp => return,
            }
        }
    });
    (client, thread)
}

/// The device behind a server that lies; the server's thread ends with the connection.
fn connect(
    lie: impl FnMut(Command, &mut Answer) -> Serve + Send + 'static,
) -> Result<VfioUserDevice, ChipError> {
    let (client, _) = server(lie);
    VfioUserDevice::from_stream(client, VfioUserTimeouts { reply: Duration::from_millis(200) })
}

/// Lies about one command only.
fn lie_about(
    wanted: Command,
    mut lie: impl FnMut(&mut Answer) -> Serve + Send + 'static,
) -> impl FnMut(Command, &mut Answer) -> Serve + Send + 'static {
    let lie: Lie =
        Box::new(move |command, answer| if command == wanted { lie(answer) } else { Serve::Answer });
    lie
}

fn buffer() -> DmaBuffer<Shared> {
    DmaBuffer::<Shared>::allocate(SharedMemoryProvider::Emulated, 8_192).unwrap()
}

#[test]
fn an_honest_server() {
    let device = connect(|_, _| Serve::Answer).unwrap();
    assert_eq!(device.presence().unwrap().vendor, 0x5A5A);
    let bar = device.map_bar(0).unwrap();
    assert_eq!(bar.size(), 0x4000);
    assert_eq!(bar.read32(4).unwrap(), 0x5A5A_5A5A);
    bar.write32(4, 1).unwrap();
    assert_eq!(device.interrupts(2).unwrap().len(), 2);
    let buffer = buffer();
    device.dma().map(Iova(0x20_0000), &buffer.region(), DmaAccess::ReadWrite).unwrap();
    device.dma().unmap(Iova(0x20_0000), 8_192).unwrap();
    device.reset().unwrap();
}

#[test]
fn evil_transport_version_is_refused() {
    for (major, minor) in [(9, 0), (0, 1)] {
        let lie = lie_about(Command::Version, move |answer| {
            answer.body = [VersionHeader { major, minor }.encode(), b"{}\0".to_vec()].concat();
            Serve::Answer
        });
        assert_code(connect(lie), "CHIP_TRANSPORT_PROTOCOL");
    }
}

#[test]
fn evil_transport_version_data() {
    for data in [&b"{}"[..], b"not json\0", b"{\"capabilities\":{\"max_data_xfer_size\":3}}\0"] {
        let lie = lie_about(Command::Version, move |answer| {
            answer.body = [VersionHeader { major: 0, minor: 0 }.encode(), data.to_vec()].concat();
            Serve::Answer
        });
        assert_code(connect(lie), "CHIP_TRANSPORT_PROTOCOL");
    }
    let empty = lie_about(Command::Version, |answer| {
        answer.body.truncate(4);
        Serve::Answer
    });
    connect(empty).unwrap();
}

#[test]
fn evil_transport_refusal_is_not_success() {
    let lie = lie_about(Command::DmaMap, |answer| {
        answer.header.flags |= FLAG_ERROR;
        answer.header.error = 22;
        Serve::Answer
    });
    let device = connect(lie).unwrap();
    let buffer = buffer();
    let refused = device.dma().map(Iova(0x20_0000), &buffer.region(), DmaAccess::Read);
    let error = assert_code(refused, "CHIP_TRANSPORT_REFUSED");
    let source = std::error::Error::source(&error).unwrap();
    assert!(source.to_string().contains("os error 22"), "{source}");
    device.presence().unwrap();
}

#[test]
fn evil_transport_reply_to_another_request() {
    let lies: [fn(&mut Answer); 3] = [
        |answer| answer.header.message_id ^= 1,
        |answer| answer.header.command = 9,
        |answer| answer.header.flags = FLAG_COMMAND,
    ];
    for lie in lies {
        let device = connect(lie_about(Command::DeviceReset, move |answer| {
            lie(answer);
            Serve::Answer
        }));
        let device = device.unwrap();
        assert_code(device.reset(), "CHIP_TRANSPORT_PROTOCOL");
        assert_code(device.presence(), "CHIP_GONE");
    }
}

#[test]
fn evil_transport_reply_above_cap() {
    let device = connect(lie_about(Command::DeviceReset, |answer| {
        answer.body = vec![0; 16];
        Serve::Answer
    }));
    assert_code(device.unwrap().reset(), "CHIP_TRANSPORT_PROTOCOL");
    for size in [0xFFFF_FFFF, 15, MAX_MESSAGE + 1] {
        let device = connect(lie_about(Command::DeviceReset, move |answer| {
            answer.header.message_size = size;
            Serve::Answer
        }));
        assert_code(device.unwrap().reset(), "CHIP_ANSWER_MALFORMED");
    }
}

#[test]
fn evil_transport_short_region_read() {
    let lie = lie_about(Command::RegionRead, |answer| {
        answer.body.truncate(17);
        Serve::Answer
    });
    assert_code(connect(lie), "CHIP_ANSWER_MALFORMED");
    let lie = lie_about(Command::RegionRead, |answer| {
        answer.body[12] ^= 1;
        Serve::Answer
    });
    assert_code(connect(lie), "CHIP_TRANSPORT_PROTOCOL");
}

#[test]
fn evil_transport_unmaps_another_range() {
    let device = connect(lie_about(Command::DmaUnmap, |answer| {
        answer.body[16] ^= 1;
        Serve::Answer
    }));
    let device = device.unwrap();
    let buffer = buffer();
    device.dma().map(Iova(0x20_0000), &buffer.region(), DmaAccess::ReadWrite).unwrap();
    assert_code(device.dma().unmap(Iova(0x20_0000), 8_192), "CHIP_TRANSPORT_PROTOCOL");
}

#[test]
fn evil_transport_hangs() {
    let device = connect(lie_about(Command::DeviceReset, |_| Serve::Hang)).unwrap();
    assert_code(device.reset(), "CHIP_TIMEOUT");
    assert_code(device.presence(), "CHIP_GONE");
}

#[test]
fn evil_transport_hangs_up() {
    let device = connect(lie_about(Command::DeviceReset, |_| Serve::HangUp)).unwrap();
    assert_code(device.reset(), "CHIP_GONE");
}

#[test]
fn something_else_than_a_pci_device_with_interrupts_is_refused() {
    let lie = lie_about(Command::DeviceGetInfo, |answer| {
        answer.body[4] = 0;
        Serve::Answer
    });
    assert_code(connect(lie), "CHIP_TRANSPORT_PROTOCOL");
    let device = connect(lie_about(Command::DeviceGetIrqInfo, |answer| {
        answer.body[12] = 1;
        Serve::Answer
    }));
    assert_code(device.unwrap().interrupts(2).map(drop), "CHIP_TRANSPORT_PROTOCOL");
}

#[test]
fn no_server_is_a_connect_error() {
    let missing = std::path::Path::new("/nonexistent/chip.sock");
    assert_code(VfioUserDevice::connect(missing, VfioUserTimeouts::default()), "CHIP_CONNECT");
}

#[test]
fn wire_structs_have_their_sizes() {
    assert_eq!(DmaMap::default().encode().len(), DmaMap::LEN);
    assert_eq!(DmaUnmap::default().encode().len(), DmaUnmap::LEN);
    assert_eq!(DeviceInfo::default().encode().len(), DeviceInfo::LEN);
    assert_eq!(RegionInfo::default().encode().len(), RegionInfo::LEN);
    assert_eq!(IrqInfo::default().encode().len(), IrqInfo::LEN);
    assert_eq!(SetIrqs::default().encode().len(), SetIrqs::LEN);
    assert_eq!(RegionAccess::default().encode().len(), RegionAccess::LEN);
    assert_eq!(VersionHeader::default().encode().len(), VersionHeader::LEN);
}
