//! The device behind a vfio-user socket.

use std::fmt;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protected_memory::dma::DmaRegion;

use super::channel::{Channel, malformed, protocol};
use super::socket::Socket;
use super::wire::{
    Command, DEVICE_FLAG_PCI, DMA_READ, DMA_WRITE, DeviceInfo, DmaMap, DmaUnmap, IRQ_FLAG_EVENTFD,
    IRQ_SET_ACTION_TRIGGER, IRQ_SET_DATA_EVENTFD, IRQ_SET_DATA_NONE, IrqInfo, PCI_CONFIG_REGION,
    PCI_MSIX_IRQ, REGION_FLAG_READ, REGION_FLAG_WRITE, RegionAccess, RegionInfo, SetIrqs,
};
use crate::abi::Reader;
use crate::backing::{DeviceBacking, DmaAccess, DmaSpace, Interrupt, Iova, PciIdentity, Registers};
use crate::error::ChipError;

const CONFIG_VENDOR: u64 = 0;
const CONFIG_COMMAND: u64 = 4;
const COMMAND_MEMORY_AND_BUS_MASTER: u16 = 0x6;
// Room for an info struct and capabilities that are not looked at.
const INFO_CAP: usize = 4_096;

/// How long a server may take.
#[derive(Clone, Copy, Debug)]
pub struct VfioUserTimeouts {
    /// For a reply to one request.
    pub reply: Duration,
}

impl Default for VfioUserTimeouts {
    fn default() -> Self {
        Self { reply: Duration::from_secs(10) }
    }
}

/// A PCI device in another process.
pub struct VfioUserDevice {
    link: Arc<Link>,
    dma: SocketDma,
}

impl VfioUserDevice {
    /// Connects to a server's socket, negotiates the version and looks at the device.
    ///
    /// # Errors
    ///
    /// No server, a protocol that is not understood, or something else than a PCI device.
    pub fn connect(path: &Path, timeouts: VfioUserTimeouts) -> Result<Self, ChipError> {
        Self::start(Socket::connect(path)?, timeouts)
    }

    /// As [`Self::connect`], over a socket that is connected already.
    ///
    /// # Errors
    ///
    /// As [`Self::connect`].
    pub fn from_stream(stream: UnixStream, timeouts: VfioUserTimeouts) -> Result<Self, ChipError> {
        Self::start(Socket::from_stream(stream)?, timeouts)
    }

    fn start(socket: Socket, timeouts: VfioUserTimeouts) -> Result<Self, ChipError> {
        let link = Arc::new(Link { channel: Mutex::new(Channel::negotiate(socket, timeouts.reply)?) });
        let ask = DeviceInfo { argsz: len32(DeviceInfo::LEN), ..DeviceInfo::default() };
        let reply = link.lock().call(Command::DeviceGetInfo, &ask.encode(), None, INFO_CAP)?;
        let info = DeviceInfo::take(&mut Reader::new(&reply)).map_err(malformed("DEVICE_GET_INFO"))?;
        if info.flags & DEVICE_FLAG_PCI == 0 {
            return Err(protocol("PCI flag of the device", DEVICE_FLAG_PCI.into(), info.flags.into()));
        }
        if info.num_regions <= PCI_CONFIG_REGION || info.num_irqs <= PCI_MSIX_IRQ {
            let least = u64::from(PCI_CONFIG_REGION) + 1;
            return Err(protocol("number of regions", least, info.num_regions.into()));
        }
        let device = Self { dma: SocketDma { link: Arc::clone(&link) }, link };
        device.enable()?;
        Ok(device)
    }

    /// Lets the device decode memory and be bus master.
    fn enable(&self) -> Result<(), ChipError> {
        let mut command = [0; 2];
        self.link.read(PCI_CONFIG_REGION, CONFIG_COMMAND, &mut command)?;
        let command = u16::from_le_bytes(command) | COMMAND_MEMORY_AND_BUS_MASTER;
        self.link.write(PCI_CONFIG_REGION, CONFIG_COMMAND, &command.to_le_bytes())
    }
}

impl DeviceBacking for VfioUserDevice {
    fn presence(&self) -> Result<PciIdentity, ChipError> {
        let mut ids = [0; 4];
        self.link.read(PCI_CONFIG_REGION, CONFIG_VENDOR, &mut ids)?;
        let [a, b, c, d] = ids;
        Ok(PciIdentity { vendor: u16::from_le_bytes([a, b]), device: u16::from_le_bytes([c, d]) })
    }

    fn map_bar(&self, bar: u8) -> Result<Box<dyn Registers>, ChipError> {
        let ask = RegionInfo { argsz: len32(RegionInfo::LEN), index: bar.into(), ..RegionInfo::default() };
        let reply = self.link.lock().call(Command::DeviceGetRegionInfo, &ask.encode(), None, INFO_CAP)?;
        let info = RegionInfo::take(&mut Reader::new(&reply)).map_err(malformed("DEVICE_GET_REGION_INFO"))?;
        let needed = REGION_FLAG_READ | REGION_FLAG_WRITE;
        if info.index != u32::from(bar) || info.flags & needed != needed {
            return Err(protocol("flags of the BAR", needed.into(), info.flags.into()));
        }
        Ok(Box::new(SocketBar { link: Arc::clone(&self.link), region: bar.into(), size: info.size }))
    }

    fn dma(&self) -> &dyn DmaSpace {
        &self.dma
    }

    fn interrupts(&self, count: u16) -> Result<Vec<Interrupt>, ChipError> {
        let ask = IrqInfo { argsz: len32(IrqInfo::LEN), index: PCI_MSIX_IRQ, ..IrqInfo::default() };
        let mut channel = self.link.lock();
        let reply = channel.call(Command::DeviceGetIrqInfo, &ask.encode(), None, INFO_CAP)?;
        let info = IrqInfo::take(&mut Reader::new(&reply)).map_err(malformed("DEVICE_GET_IRQ_INFO"))?;
        if info.flags & IRQ_FLAG_EVENTFD == 0 || info.count < u32::from(count) {
            return Err(protocol("number of MSI-X vectors", count.into(), info.count.into()));
        }
        // One descriptor a message: what every server takes.
        let mut interrupts = Vec::new();
        for vector in 0..count {
            let interrupt = Interrupt::new()?;
            let arm = SetIrqs {
                argsz: len32(SetIrqs::LEN),
                flags: IRQ_SET_DATA_EVENTFD | IRQ_SET_ACTION_TRIGGER,
                index: PCI_MSIX_IRQ,
                start: vector.into(),
                count: 1,
            };
            channel.call(Command::DeviceSetIrqs, &arm.encode(), Some(interrupt.as_fd()), 0)?;
            interrupts.push(interrupt);
        }
        Ok(interrupts)
    }

    fn reset(&self) -> Result<(), ChipError> {
        self.link.lock().call(Command::DeviceReset, &[], None, 0)?;
        self.enable()
    }
}

impl Drop for VfioUserDevice {
    fn drop(&mut self) {
        let disarm = SetIrqs {
            argsz: len32(SetIrqs::LEN),
            flags: IRQ_SET_DATA_NONE | IRQ_SET_ACTION_TRIGGER,
            index: PCI_MSIX_IRQ,
            start: 0,
            count: 0,
        };
        let _ = self.link.lock().call(Command::DeviceSetIrqs, &disarm.encode(), None, 0);
    }
}

impl fmt::Debug for VfioUserDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VfioUserDevice(..)")
    }
}

struct Link {
    channel: Mutex<Channel>,
}

impl Link {
    fn lock(&self) -> MutexGuard<'_, Channel> {
        self.channel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a few bytes of a region.
    fn read(&self, region: u32, offset: u64, to: &mut [u8]) -> Result<(), ChipError> {
        let ask = RegionAccess { offset, region, count: len32(to.len()) };
        let mut channel = self.lock();
        debug_assert!(ask.count <= channel.max_transfer());
        let reply = channel.call(Command::RegionRead, &ask.encode(), None, RegionAccess::LEN + to.len())?;
        let mut reader = Reader::new(&reply);
        let echo = RegionAccess::take(&mut reader).map_err(malformed("REGION_READ"))?;
        let data = reader.bytes("data of a register", to.len()).map_err(malformed("REGION_READ"))?;
        if echo.count != ask.count {
            return Err(protocol("count of a region read", ask.count.into(), echo.count.into()));
        }
        to.copy_from_slice(data);
        Ok(())
    }

    /// Writes a few bytes of a region.
    fn write(&self, region: u32, offset: u64, from: &[u8]) -> Result<(), ChipError> {
        let ask = RegionAccess { offset, region, count: len32(from.len()) };
        let body = [ask.encode().as_slice(), from].concat();
        let reply = self.lock().call(Command::RegionWrite, &body, None, RegionAccess::LEN)?;
        let echo = RegionAccess::take(&mut Reader::new(&reply)).map_err(malformed("REGION_WRITE"))?;
        if echo.count != ask.count {
            return Err(protocol("count of a region write", ask.count.into(), echo.count.into()));
        }
        Ok(())
    }
}

struct SocketBar {
    link: Arc<Link>,
    region: u32,
    size: u64,
}

impl Registers for SocketBar {
    fn size(&self) -> u64 {
        self.size
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

struct SocketDma {
    link: Arc<Link>,
}

impl DmaSpace for SocketDma {
    fn map(&self, iova: Iova, region: &DmaRegion<'_>, access: DmaAccess) -> Result<(), ChipError> {
        let map = DmaMap {
            argsz: len32(DmaMap::LEN),
            flags: match access {
                DmaAccess::Read => DMA_READ,
                DmaAccess::ReadWrite => DMA_READ | DMA_WRITE,
            },
            offset: region.offset(),
            address: iova.0,
            size: region.len(),
        };
        self.link.lock().call(Command::DmaMap, &map.encode(), Some(region.fd().as_fd()), 0)?;
        Ok(())
    }

    fn unmap(&self, iova: Iova, len: u64) -> Result<(), ChipError> {
        let unmap = DmaUnmap { argsz: len32(DmaUnmap::LEN), flags: 0, address: iova.0, size: len };
        let reply = self.link.lock().call(Command::DmaUnmap, &unmap.encode(), None, DmaUnmap::LEN)?;
        if reply.is_empty() {
            return Ok(());
        }
        let echo = DmaUnmap::take(&mut Reader::new(&reply)).map_err(malformed("DMA_UNMAP"))?;
        // GUARD: transport-unmap-echo -> evil_transport_unmaps_another_range
        if (echo.address, echo.size) != (iova.0, len) {
            return Err(protocol("size of an unmapped range", len, echo.size));
        }
        Ok(())
    }
}

fn len32(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Link(..)")
    }
}
