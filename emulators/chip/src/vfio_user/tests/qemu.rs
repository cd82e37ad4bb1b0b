//! The messages of QEMU's `vfio-user-pci`, in the forms and the order in which it was seen to send them.

use std::os::fd::{AsFd, OwnedFd};

use chip_client::abi::{CTRL_EN, MSIX_PBA_OFFSET, Opcode, REG_CTRL, Reader};
use chip_client::vfio_user::wire::*;

use super::{Client, memfd};
use crate::testing::{BASE, Bench, MEMORY};

const VERSION: &str = concat!(
    r#"{"capabilities": {"pgsizes": 4096, "max_msg_fds": 16, "max_dma_maps": 65535, "#,
    r#""max_data_xfer_size": 1048576, "migration": {"max_bitmap_size": 268435456, "pgsize": 4096}, "#,
    r#""write_multiple": true}}"#
);
const MSIX: u32 = 2;

impl Client {
    /// DMA_MAP as a part of a change of several: its answer is awaited later.
    fn map_later(&mut self, address: u64, size: u64, offset: u64, flags: u32, file: Option<&OwnedFd>) {
        let body = DmaMap { argsz: 32, flags, offset, address, size }.encode();
        let files: Vec<_> = file.iter().map(|file| file.as_fd()).collect();
        self.send(Command::DmaMap.as_u16(), 0, &body, &files);
    }

    fn unmap_later(&mut self, address: u64, size: u64) {
        let body = DmaUnmap { argsz: 24, flags: 0, address, size }.encode();
        self.send(Command::DmaUnmap.as_u16(), 0, &body, &[]);
    }

    /// Every answer that is awaited is a good one.
    fn settle(&mut self) {
        while !self.unanswered.is_empty() {
            let id = self.unanswered[0];
            if let Err(errno) = self.receive() {
                panic!("message {id} was answered with errno {errno}");
            }
        }
    }

    /// A write that wants no answer, as all writes to BARs.
    fn post(&mut self, region: u32, offset: u64, data: &[u8]) {
        let body = RegionAccess { offset, region, count: data.len() as u32 }.encode();
        self.send(Command::RegionWrite.as_u16(), FLAG_NO_REPLY, &[&body, data].concat(), &[]);
    }

    fn set_irqs(&mut self, flags: u32, index: u32, start: u32, count: u32, event: Option<&OwnedFd>) {
        let body = SetIrqs { argsz: 20, flags, index, start, count }.encode();
        let events: Vec<_> = event.iter().map(|event| event.as_fd()).collect();
        assert_eq!(self.call_with(Command::DeviceSetIrqs, &body, &events), Ok(vec![]));
    }

    fn word(&mut self, offset: u64) -> u32 {
        u32::from_le_bytes(self.read(PCI_CONFIG_REGION, offset, 4).unwrap().try_into().unwrap())
    }
}

fn event() -> OwnedFd {
    rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).unwrap()
}

fn fired(event: &OwnedFd) -> u64 {
    let mut bytes = [0; 8];
    rustix::io::read(event, &mut bytes).map_or(0, |_| u64::from_ne_bytes(bytes))
}

/// The guest's memory as QEMU lays it out before any driver runs, 1 GiB of it.
fn start_of_a_machine(client: &mut Client, memory: &OwnedFd) {
    client.map_later(0, 0x4000_0000, 0, 3, Some(memory));
    // The firmware's flash: no file.
    client.map_later(0xfffc_0000, 0x4_0000, 0, 1, None);
    client.settle();
    // Shadowing of the ROM area: cut, read-only, writable again.
    client.unmap_later(0, 0x4000_0000);
    client.map_later(0, 0xc_3000, 0, 3, Some(memory));
    client.map_later(0xc_3000, 0x1_5000, 0xc_3000, 1, Some(memory));
    client.map_later(0xd_8000, 0x1_8000, 0xd_8000, 3, Some(memory));
    client.map_later(0xf_0000, 0x1_0000, 0xf_0000, 1, Some(memory));
    client.map_later(0x10_0000, 0x3ff0_0000, 0x10_0000, 3, Some(memory));
    client.settle();
}

/// The guest's IOMMU driver starts: everything goes, also what never was.
fn start_of_an_iommu(client: &mut Client) {
    client.unmap_later(0, 0xfee0_0000);
    client.unmap_later(0xfef0_0000, 0xffff_ffff_0110_0000);
    client.settle();
    for bit in 12..48 {
        client.unmap_later(if bit == 12 { 0 } else { 1 << bit }, 1 << bit);
        client.settle();
    }
}

/// Mappings of a file in this process.
fn mappings_of(name: &str) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains(name)).count()
}

#[test]
fn realize() {
    let mut client = Client::new();
    let header = VersionHeader { major: 0, minor: 0 }.encode();
    let hello = [header.as_slice(), VERSION.as_bytes(), b"\0"].concat();
    let reply = client.call(Command::Version, &hello).unwrap();
    let text: serde_json::Value = serde_json::from_slice(&reply[4..reply.len() - 1]).unwrap();
    let capabilities = &text["capabilities"];
    assert!(capabilities["max_msg_fds"].as_u64().unwrap() >= 1);
    // More than its own number is refused; without one it sends as many as it needs.
    assert!(capabilities.get("max_dma_maps").is_none());
    assert!(capabilities.get("write_multiple").is_none(), "never asked for then");

    let ask = DeviceInfo { argsz: 16, ..DeviceInfo::default() }.encode();
    let info =
        DeviceInfo::take(&mut Reader::new(&client.call(Command::DeviceGetInfo, &ask).unwrap())).unwrap();
    assert_eq!(info.flags & DEVICE_FLAG_RESET, DEVICE_FLAG_RESET);
    for index in [0, 1, 2, 3, 4, 5, 7] {
        let ask = RegionInfo { argsz: 32, index, ..RegionInfo::default() }.encode();
        let reply = client.call(Command::DeviceGetRegionInfo, &ask).unwrap();
        let info = RegionInfo::take(&mut Reader::new(&reply)).unwrap();
        assert_eq!((reply.len(), info.argsz, info.index), (32, 32, index));
        assert_eq!(info.flags, if info.size > 0 { REGION_FLAG_READ | REGION_FLAG_WRITE } else { 0 });
    }
    for (index, count) in [(PCI_ERR_IRQ, 1), (MSIX, 2)] {
        let ask = IrqInfo { argsz: 16, index, ..IrqInfo::default() }.encode();
        let reply = client.call(Command::DeviceGetIrqInfo, &ask).unwrap();
        let info = IrqInfo::take(&mut Reader::new(&reply)).unwrap();
        assert_eq!((info.flags & IRQ_FLAG_EVENTFD, info.count), (IRQ_FLAG_EVENTFD, count));
    }
    assert_eq!(client.read(PCI_CONFIG_REGION, 0, 4_096).map(|bytes| bytes.len()), Ok(4_096));
    assert_eq!(client.read(PCI_CONFIG_REGION, 0x3d, 1), Ok(vec![0]), "no INTx pin");
    assert_eq!(client.read(PCI_CONFIG_REGION, 0x92, 2), Ok(vec![1, 0]), "two vectors");
    client.set_irqs(0x24, PCI_ERR_IRQ, 0, 1, Some(&event()));
    client.finish();
}

#[test]
fn sizing_of_bars_and_rom() {
    let mut client = Client::new();
    for (offset, mask) in
        [(0x10, !0x3fffu32), (0x14, 0), (0x18, 0), (0x1c, 0), (0x20, !0xfff), (0x24, 0), (0x30, 0)]
    {
        let before = client.word(offset);
        client.write(PCI_CONFIG_REGION, offset, &[0xff; 4]).unwrap();
        assert_eq!(client.word(offset), mask, "{offset:#x}");
        client.write(PCI_CONFIG_REGION, offset, &before.to_le_bytes()).unwrap();
        assert_eq!(client.word(offset), before);
    }
    client.write(PCI_CONFIG_REGION, 4, &[0x06, 0x01]).unwrap();
    assert_eq!(client.word(4) & 0xffff, 0x0106);
}

#[test]
fn a_machine_starts_and_its_iommu_takes_over() {
    let mut client = Client::new();
    client.bench.controller.memory.clear();
    let memory = memfd(1 << 30);
    start_of_a_machine(&mut client, &memory);
    assert_eq!(client.bench.controller.memory.mapped_files(), 2, "once to read, once to write");
    start_of_an_iommu(&mut client);
    assert_eq!(client.bench.controller.memory.mapped_files(), 0);
    // A guest that starts again.
    client.map_later(0, 0x4000_0000, 0, 3, Some(&memory));
    client.settle();
    assert_eq!(client.bench.controller.memory.mapped_files(), 1);
    client.finish();
}

#[test]
fn a_map_for_each_page_costs_no_mapping() {
    let mut client = Client::new();
    client.bench.controller.memory.clear();
    let memory = rustix::fs::memfd_create("fifty-thousand", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&memory, 1 << 30).unwrap();
    // Not in the order of the file: the guest's physical memory is not contiguous.
    const PAGES: u64 = 50_000;
    for page in 0..PAGES {
        client.map_later(page << 12, 0x1000, (page * 7_919 % PAGES) << 12, 3, Some(&memory));
        if page % 64 == 63 {
            client.settle();
        }
    }
    client.settle();
    assert_eq!(mappings_of("fifty-thousand"), 1);
    assert!(client.bench.controller.memory.has_part_of((PAGES - 1) << 12, 1));
    // A large unmap comes in pieces of any size.
    client.unmap_later(0, 1 << 27);
    client.unmap_later(1 << 27, 1 << 30);
    client.settle();
    assert_eq!(mappings_of("fifty-thousand"), 0);
    client.finish();
}

#[test]
fn commands_over_memory_that_is_mapped_by_pages() {
    let mut client = Client::new();
    let memory = client.bench.memory();
    client.unmap_later(BASE, MEMORY);
    for page in (0..MEMORY >> 12).rev() {
        client.map_later(BASE + (page << 12), 0x1000, page << 12, 3, Some(&memory));
        if page % 64 == 0 {
            client.settle();
        }
    }
    client.settle();
    let status = client.bench.enable();
    assert_eq!(status & chip_client::abi::STATUS_RDY, chip_client::abi::STATUS_RDY);
    assert!(client.bench.plain(Opcode::Identify, &[]).is_ok());
    // The output's capacity of 1 MiB is a range of 256 maps: one that is missing is noticed.
    let output = Bench::output_iova(0);
    client.unmap_later(output, 0x1000);
    client.settle();
    assert_eq!(client.bench.plain(Opcode::Identify, &[]), Err(chip_client::abi::Status::DmaFault));
    client.finish();
}

#[test]
fn vectors_are_armed_one_by_one() {
    let mut client = Client::new();
    let (first, second) = (event(), event());
    let pba = |client: &mut Client| client.read(4, MSIX_PBA_OFFSET.into(), 8).unwrap()[0];
    // MSI-X is enabled: vector 0 without a descriptor, then with one, then both anew.
    client.set_irqs(0x24, MSIX, 0, 1, None);
    client.set_irqs(0x24, MSIX, 0, 1, Some(&first));
    client.set_irqs(0x24, MSIX, 1, 1, Some(&second));
    client.bench.controller.interrupts.raise(0);
    assert_eq!((fired(&first), fired(&second), pba(&mut client)), (1, 0, 0));
    // The guest disables all while an interrupt comes, and enables again.
    client.set_irqs(0x21, MSIX, 0, 0, None);
    client.bench.controller.interrupts.raise(1);
    assert_eq!((fired(&second), pba(&mut client)), (0, 0b10), "pending");
    client.set_irqs(0x24, MSIX, 0, 1, None);
    client.set_irqs(0x24, MSIX, 0, 1, Some(&first));
    assert_eq!((fired(&first), fired(&second)), (0, 0));
    client.set_irqs(0x24, MSIX, 1, 1, Some(&second));
    assert_eq!((fired(&first), fired(&second), pba(&mut client)), (0, 1, 0));
    // One vector is taken away and given back.
    client.set_irqs(0x24, MSIX, 0, 1, None);
    client.bench.controller.interrupts.raise(0);
    client.set_irqs(0x24, MSIX, 0, 1, Some(&second));
    assert_eq!((fired(&first), fired(&second)), (0, 1));
    client.finish();
}

#[test]
fn posted_writes_take_effect_in_order() {
    let mut client = Client::new();
    client.bench.enable();
    let entry = client.bench.entry(0, Opcode::Identify, 0, 0, 0).encode();
    client.bench.write(Bench::sq_base(0), &entry);
    client.post(0, chip_client::abi::sq_tail_doorbell(0).into(), &[1, 0, 0, 0]);
    assert_eq!(client.bench.completion(0).status, 0);
    // A doorbell beyond the ring, and a read right behind it.
    client.post(0, chip_client::abi::sq_tail_doorbell(0).into(), &[0xff; 4]);
    let status = client.read(0, chip_client::abi::REG_STATUS.into(), 4).unwrap();
    assert_eq!(status[0] & 2, 2, "FATAL");
    client.finish();
}

#[test]
fn registers_are_read_in_any_width() {
    let mut client = Client::new();
    for (offset, count, bytes) in [
        (0, 8, &[0x49, 0x4b, 0x49, 0x50, 0, 0, 1, 0][..]),
        (1, 1, &[0x4b]),
        (2, 2, &[0x49, 0x50]),
        (3, 4, &[0x50, 0, 0, 1]),
        (0x3fff, 1, &[0]),
    ] {
        assert_eq!(client.read(0, offset, count).as_deref(), Ok(bytes), "{offset:#x}");
    }
    assert_eq!(client.read(0, 0, 0x4000).map(|bytes| bytes.len()), Ok(0x4000));
    client.finish();
}

#[test]
fn resets_leave_the_map_alone() {
    let mut client = Client::new();
    let enable = |client: &mut Client| client.post(0, REG_CTRL.into(), &CTRL_EN.to_le_bytes());
    let enabled = |client: &mut Client| client.read(0, REG_CTRL.into(), 4).unwrap()[0];
    let iova = Bench::sq_base(0);
    enable(&mut client);
    assert_eq!(enabled(&mut client), 1);
    // The machine is reset.
    assert_eq!(client.call(Command::DeviceReset, &[]), Ok(vec![]));
    assert_eq!(enabled(&mut client), 0);
    // A guest resets the function: the bit is set in what it read.
    enable(&mut client);
    let control = client.read(PCI_CONFIG_REGION, 0x58, 2).unwrap();
    client.write(PCI_CONFIG_REGION, 0x58, &[control[0], control[1] | 0x80]).unwrap();
    assert_eq!(enabled(&mut client), 0);
    assert!(client.bench.controller.memory.has_part_of(iova, 1), "nobody maps it again");
    assert_eq!(client.bench.enable() & 1, 1);
    assert!(client.bench.plain(Opcode::Identify, &[]).is_ok());
    client.finish();
}

#[test]
fn a_stalled_command_delays_no_register() {
    let plan = "[[fault]]\nkind = \"stall\"\ncommand = \"IDENTIFY\"\n";
    let mut client = Client::with_plan(plan);
    client.bench.enable();
    let entry = client.bench.entry(0, Opcode::Identify, 0, 0, 0).encode();
    client.bench.submit_bare(0, &entry);
    // Nothing ends the stall but the reset: each of these would wait for ever.
    client.is_alive();
    client.unmap_later(BASE + (32 << 20), 0x1000);
    client.settle();
    client.call(Command::DeviceReset, &[]).unwrap();
    client.is_alive();
    client.finish();
}
