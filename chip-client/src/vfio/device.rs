//! The device: opened, enabled, its registers and interrupts.

use std::ffi::CString;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vfio_bindings::bindings::vfio::{
    VFIO_API_VERSION, VFIO_DEVICE_FLAGS_PCI, VFIO_DEVICE_FLAGS_RESET, VFIO_GROUP_FLAGS_VIABLE,
    VFIO_IRQ_INFO_EVENTFD, VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_MSIX_IRQ_INDEX, VFIO_PCI_REQ_IRQ_INDEX,
    VFIO_REGION_INFO_FLAG_READ, VFIO_REGION_INFO_FLAG_WRITE, VFIO_TYPE1v2_IOMMU,
};

use super::dma::{self, VfioDma};
use super::leave::Leave;
use super::sysfs::Tree;
use super::{PciAddress, VfioError, sys};
use crate::backing::{DeviceBacking, DmaSpace, Interrupt, PciIdentity, Registers};
use crate::error::ChipError;

const CONFIG_VENDOR: u64 = 0;
const CONFIG_COMMAND: u64 = 4;
const COMMAND_MEMORY: u16 = 0x2;
const COMMAND_BUS_MASTER: u16 = 0x4;

/// A PCI device that the kernel's vfio-pci gives to this process.
pub struct VfioDevice {
    link: Arc<Link>,
    dma: VfioDma,
}

/// What keeps the device ours. Closed in this order: device, group, container.
pub(super) struct Link {
    device: File,
    config: Region,
    leave: Leave,
    resettable: bool,
    _group: OwnedFd,
    pub(super) container: OwnedFd,
}

/// Where a region lies in the device's file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Region {
    pub(super) offset: u64,
    pub(super) size: u64,
}

impl VfioDevice {
    /// Opens the device at an address of this machine.
    ///
    /// # Errors
    ///
    /// No such device; not bound to vfio-pci; no IOMMU, or one that does not isolate; other devices in its group; in use;
    /// something that this kernel's VFIO does not offer.
    pub fn open(address: PciAddress) -> Result<Self, ChipError> {
        Self::open_below(Path::new("/"), address)
    }

    /// Has the kernel's vfio-pci take the chip at an address; a chip that it has already stays with it.
    ///
    /// # Errors
    ///
    /// No such device, or one that says it is no chip; another driver has it; the kernel refuses.
    pub fn bind(address: PciAddress) -> Result<(), ChipError> {
        Tree::new(Path::new("/")).bind(address)
    }

    /// The functions of this machine that say they are chips, in the order of their addresses, at most 16. What says so is not authenticated.
    ///
    /// # Errors
    ///
    /// The kernel's tree cannot be read.
    pub fn present() -> Result<Vec<PciAddress>, ChipError> {
        Ok(Tree::new(Path::new("/")).chips()?)
    }

    /// As [`Self::open`], where sysfs and device files lie below a directory.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn open_below(root: &Path, address: PciAddress) -> Result<Self, ChipError> {
        let tree = Tree::new(root);
        let group = tree.group_of(address)?;
        let container = open(tree.path("dev/vfio/vfio"))?;
        require_container(&container)?;
        let group_file = open(tree.path(format!("dev/vfio/{}", group.0)))?;
        let flags =
            sys::group_flags(group_file.as_fd()).map_err(VfioError::kernel("VFIO_GROUP_GET_STATUS"))?;
        require_flags("flags of the group", VFIO_GROUP_FLAGS_VIABLE, flags)?;
        sys::set_container(group_file.as_fd(), container.as_fd())
            .map_err(VfioError::kernel("VFIO_GROUP_SET_CONTAINER"))?;
        sys::set_type1v2(container.as_fd()).map_err(VfioError::kernel("VFIO_SET_IOMMU"))?;
        // Again: now the module is there that the parameter belongs to.
        tree.refuse_unsafe_interrupts(true)?;
        let info = sys::iommu_info(container.as_fd()).map_err(VfioError::kernel("VFIO_IOMMU_GET_INFO"))?;
        let ranges = dma::usable(&info)?;
        let name = CString::new(address.to_string())
            .map_err(|_| VfioError::Address { found: address.to_string() })?;
        let device = sys::open_device(group_file.as_fd(), &name)
            .map_err(VfioError::kernel("VFIO_GROUP_GET_DEVICE_FD"))?;
        let link = Arc::new(Link::new(device, group_file, container)?);
        link.enable()?;
        Ok(Self { dma: VfioDma::new(Arc::clone(&link), ranges), link })
    }
}

/// Interface version and kind of IOMMU.
fn require_container(container: &OwnedFd) -> Result<(), VfioError> {
    let version = sys::api_version(container.as_fd()).map_err(VfioError::kernel("VFIO_GET_API_VERSION"))?;
    let version = u32::try_from(version).unwrap_or(u32::MAX);
    if version != VFIO_API_VERSION {
        let (expected, found) = (VFIO_API_VERSION.into(), version.into());
        return Err(VfioError::Interface { what: "version", expected, found });
    }
    if !sys::has_type1v2(container.as_fd()).map_err(VfioError::kernel("VFIO_CHECK_EXTENSION"))? {
        let expected = VFIO_TYPE1v2_IOMMU.into();
        return Err(VfioError::Interface { what: "kind of IOMMU", expected, found: 0 });
    }
    Ok(())
}

fn require_flags(what: &'static str, needed: u32, found: u32) -> Result<(), VfioError> {
    if found & needed != needed {
        return Err(VfioError::Interface { what, expected: needed.into(), found: found.into() });
    }
    Ok(())
}

fn open(path: PathBuf) -> Result<OwnedFd, VfioError> {
    match File::options().read(true).write(true).open(&path) {
        Ok(file) => Ok(file.into()),
        Err(source) => Err(VfioError::Open { path, source }),
    }
}

impl Link {
    fn new(device: OwnedFd, group: OwnedFd, container: OwnedFd) -> Result<Self, ChipError> {
        let info = sys::device_info(device.as_fd()).map_err(VfioError::kernel("VFIO_DEVICE_GET_INFO"))?;
        require_flags("flags of the device", VFIO_DEVICE_FLAGS_PCI, info.flags)?;
        let config = region(device.as_fd(), VFIO_PCI_CONFIG_REGION_INDEX)?;
        let leave = Leave::new(if info.num_irqs > VFIO_PCI_REQ_IRQ_INDEX { request(&device)? } else { None });
        let resettable = info.flags & VFIO_DEVICE_FLAGS_RESET != 0;
        Ok(Self { device: device.into(), config, leave, resettable, _group: group, container })
    }

    /// Reads a few bytes of a region; a device that is asked back is not read any more.
    fn read(&self, region: Region, offset: u64, to: &mut [u8]) -> Result<(), ChipError> {
        self.leave.require_ours(|| self.silence())?;
        let at = region.place(offset, to.len())?;
        self.device.read_exact_at(to, at).map_err(VfioError::kernel("reading of a register"))?;
        Ok(())
    }

    /// Writes a few bytes of a region; a device that is asked back is not written any more.
    fn write(&self, region: Region, offset: u64, from: &[u8]) -> Result<(), ChipError> {
        self.leave.require_ours(|| self.silence())?;
        let at = region.place(offset, from.len())?;
        self.device.write_all_at(from, at).map_err(VfioError::kernel("writing of a register"))?;
        Ok(())
    }

    /// Lets the device decode memory and be bus master.
    fn enable(&self) -> Result<(), ChipError> {
        let mut command = [0; 2];
        self.read(self.config, CONFIG_COMMAND, &mut command)?;
        let command = u16::from_le_bytes(command) | COMMAND_MEMORY | COMMAND_BUS_MASTER;
        self.write(self.config, CONFIG_COMMAND, &command.to_le_bytes())
    }

    /// Ends the device's DMA, as far as it still listens. What it ignores of this the IOMMU stops at the unmap.
    fn silence(&self) {
        if let Ok(at) = self.config.place(CONFIG_COMMAND, 2) {
            let _ = self.device.write_all_at(&COMMAND_MEMORY.to_le_bytes(), at);
        }
    }
}

/// Where a region is, if it can be read and written.
fn region(device: BorrowedFd<'_>, index: u32) -> Result<Region, VfioError> {
    let info = sys::region_info(device, index).map_err(VfioError::kernel("VFIO_DEVICE_GET_REGION_INFO"))?;
    let needed = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
    require_flags("flags of a region", needed, info.flags)?;
    Ok(Region { offset: info.offset, size: info.size })
}

/// What the kernel signals when it wants the device back.
fn request(device: &OwnedFd) -> Result<Option<Interrupt>, ChipError> {
    let info = sys::irq_info(device.as_fd(), VFIO_PCI_REQ_IRQ_INDEX)
        .map_err(VfioError::kernel("VFIO_DEVICE_GET_IRQ_INFO"))?;
    if info.count == 0 || info.flags & VFIO_IRQ_INFO_EVENTFD == 0 {
        return Ok(None);
    }
    let event = Interrupt::new()?;
    sys::signal_irqs(device.as_fd(), VFIO_PCI_REQ_IRQ_INDEX, &[event.as_fd()])
        .map_err(VfioError::kernel("VFIO_DEVICE_SET_IRQS"))?;
    Ok(Some(event))
}

impl Region {
    /// Offset in the device's file: the next region begins where this one's address space ends, not where it does.
    pub(super) fn place(self, offset: u64, len: usize) -> Result<u64, VfioError> {
        let end = offset.saturating_add(len as u64);
        // GUARD: vfio-region-bounds -> accesses_stay_inside_their_region
        if end > self.size {
            return Err(VfioError::Interface { what: "end of a region", expected: self.size, found: end });
        }
        Ok(self.offset.saturating_add(offset))
    }
}

impl DeviceBacking for VfioDevice {
    fn presence(&self) -> Result<PciIdentity, ChipError> {
        let mut ids = [0; 4];
        self.link.read(self.link.config, CONFIG_VENDOR, &mut ids)?;
        let [a, b, c, d] = ids;
        Ok(PciIdentity { vendor: u16::from_le_bytes([a, b]), device: u16::from_le_bytes([c, d]) })
    }

    fn map_bar(&self, bar: u8) -> Result<Box<dyn Registers>, ChipError> {
        const BARS: u8 = 6;
        if bar >= BARS {
            let (expected, found) = (BARS.into(), bar.into());
            return Err(VfioError::Interface { what: "number of a BAR, below", expected, found }.into());
        }
        let region = region(self.link.device.as_fd(), bar.into())?;
        Ok(Box::new(Bar { link: Arc::clone(&self.link), region }))
    }

    fn dma(&self) -> &dyn DmaSpace {
        &self.dma
    }

    fn interrupts(&self, count: u16) -> Result<Vec<Interrupt>, ChipError> {
        let device = self.link.device.as_fd();
        let info = sys::irq_info(device, VFIO_PCI_MSIX_IRQ_INDEX)
            .map_err(VfioError::kernel("VFIO_DEVICE_GET_IRQ_INFO"))?;
        require_flags("flags of MSI-X", VFIO_IRQ_INFO_EVENTFD, info.flags)?;
        if info.count < count.into() {
            let (expected, found) = (count.into(), info.count.into());
            return Err(VfioError::Interface { what: "number of MSI-X vectors", expected, found }.into());
        }
        let interrupts = (0..count).map(|_| Interrupt::new()).collect::<Result<Vec<_>, _>>()?;
        let events: Vec<_> = interrupts.iter().map(AsFd::as_fd).collect();
        sys::signal_irqs(device, VFIO_PCI_MSIX_IRQ_INDEX, &events)
            .map_err(VfioError::kernel("VFIO_DEVICE_SET_IRQS"))?;
        Ok(interrupts)
    }

    fn reset(&self) -> Result<(), ChipError> {
        self.link.leave.require_ours(|| self.link.silence())?;
        if !self.link.resettable {
            let source = io::ErrorKind::Unsupported.into();
            return Err(VfioError::Kernel { what: "VFIO_DEVICE_RESET", source }.into());
        }
        sys::reset(self.link.device.as_fd()).map_err(VfioError::kernel("VFIO_DEVICE_RESET"))?;
        self.link.enable()
    }
}

impl fmt::Debug for VfioDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VfioDevice(..)")
    }
}

/// Registers, read and written by the kernel in accesses of 4 bytes.
struct Bar {
    link: Arc<Link>,
    region: Region,
}

impl Registers for Bar {
    fn size(&self) -> u64 {
        self.region.size
    }

    fn read32(&self, offset: u32) -> Result<u32, ChipError> {
        let mut bytes = [0; 4];
        self.link.read(self.region, offset.into(), &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn write32(&self, offset: u32, value: u32) -> Result<(), ChipError> {
        self.link.write(self.region, offset.into(), &value.to_le_bytes())
    }
}
