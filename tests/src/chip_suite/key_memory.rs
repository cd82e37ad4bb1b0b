//! Key memory, offered to an IOMMU with a container of our own: no type of the product lets anyone try.

#![expect(unsafe_code, reason = "an ioctl that the product refuses to make")]

use super::Suite;
use chip_client::address::DeviceAddress;
use protected_memory::secret::{Backing, SecretBytes};
use rustix::io::Errno;
use rustix::ioctl::{IntegerSetter, Opcode, Setter, ioctl, opcode};
use std::fs::File;
use std::os::fd::AsRawFd;

const SET_IOMMU: Opcode = opcode::none(b';', 102);
const GROUP_SET_CONTAINER: Opcode = opcode::none(b';', 104);
const MAP_DMA: Opcode = opcode::none(b';', 113);
const TYPE1V2: usize = 3;
const READ: u32 = 1;
const PAGE: usize = 4096;
const IOVA: u64 = 1 << 30;

/// `struct vfio_iommu_type1_dma_map`.
#[repr(C)]
struct Map {
    argsz: u32,
    flags: u32,
    vaddr: u64,
    iova: u64,
    size: u64,
}

/// Maps the page that holds an address, for reading by the device.
fn map(container: &File, address: usize, iova: u64) -> Result<(), Errno> {
    let vaddr = (address - address % PAGE) as u64;
    let map = Map { argsz: 32, flags: READ, vaddr, iova, size: PAGE as u64 };
    // SAFETY: the kernel reads the struct that the request takes; the device may read the page and not write it.
    unsafe { ioctl(container, Setter::<MAP_DMA, Map>::new(map)) }
}

pub(super) fn key_memory_cannot_be_mapped(suite: &Suite) {
    let DeviceAddress::Pci(address) = &suite.chip else { panic!("needs a PCI function") };
    let link = std::fs::read_link(format!("/sys/bus/pci/devices/{address}/iommu_group")).expect("a group");
    let number = link.file_name().and_then(|name| name.to_str()).expect("a number");
    let open =
        |path: String| File::options().read(true).write(true).open(path).expect("a device file of VFIO");
    let (container, group) = (open("/dev/vfio/vfio".into()), open(format!("/dev/vfio/{number}")));
    // SAFETY: the kernel reads one descriptor number.
    unsafe { ioctl(&group, Setter::<GROUP_SET_CONTAINER, i32>::new(container.as_raw_fd())) }
        .expect("the group takes the container");
    // SAFETY: the argument is a number.
    unsafe { ioctl(&container, IntegerSetter::<SET_IOMMU>::new_usize(TYPE1V2)) }.expect("an IOMMU of type 1");

    let secret = SecretBytes::random(32).expect("key memory");
    assert_eq!(secret.backing(), Backing::SecretMemory, "this kernel has memfd_secret");
    assert_eq!(map(&container, secret.expose().as_ptr().addr(), IOVA), Err(Errno::FAULT));
    // Not for want of anything else: an ordinary page can be mapped there.
    let page = vec![1u8; 2 * PAGE];
    assert_eq!(map(&container, page.as_ptr().addr() + PAGE - 1, IOVA), Ok(()));
}
