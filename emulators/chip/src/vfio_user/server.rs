//! Dispatch of one client's commands.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use chip_client::abi::{BAR_MSIX, BAR_REGISTERS, BAR0_SIZE, BAR4_SIZE, MSIX_PBA_OFFSET, Reader, WireError};
use chip_client::vfio_user::wire::{
    Command, DEVICE_FLAG_PCI, DEVICE_FLAG_RESET, DMA_READ, DMA_UNMAP_ALL, DMA_WRITE, DeviceInfo, DmaMap,
    DmaUnmap, IrqInfo, MAJOR, MAX_DATA_XFER, MAX_MSG_FDS, MAX_VERSION_JSON, MINOR, PCI_CONFIG_REGION,
    PCI_NUM_IRQS, PCI_NUM_REGIONS, REGION_FLAG_READ, REGION_FLAG_WRITE, RegionAccess, RegionInfo, SetIrqs,
    VersionHeader,
};
use rustix::io::Errno;

use super::config_space::{self, ConfigSpace, Effect};
use super::connection::{Connection, Disconnected, Message};
use super::irqs;
use crate::controller::Controller;
use crate::dma::MapRequest;

const REGISTERS: u32 = BAR_REGISTERS as u32;
const MSIX: u32 = BAR_MSIX as u32;
/// Bytes that name what is asked for in GET_INFO commands, beyond which clients differ in what they send.
const ARGSZ: usize = 4;
const MSIX_BYTES: usize = 4_096;
const _: () = assert!(MSIX_BYTES as u64 == BAR4_SIZE);

/// The device as one client sees it.
#[derive(Debug)]
pub(crate) struct Server {
    controller: Arc<Controller>,
    config: ConfigSpace,
    /// MSI-X table, which is memory (a vfio client delivers interrupts itself), and pending bits.
    msix: Box<[u8; MSIX_BYTES]>,
    negotiated: bool,
}

fn invalid(_error: WireError) -> Errno {
    Errno::INVAL
}

impl Server {
    pub(crate) fn new(controller: Arc<Controller>) -> Self {
        Self { controller, config: ConfigSpace::new(), msix: Box::new([0; MSIX_BYTES]), negotiated: false }
    }

    /// Serves until the client is gone. Nothing of the client is left in the device afterwards.
    pub(crate) fn serve(&mut self, connection: &Connection<'_>) -> Disconnected {
        let Ok(socket) = connection.try_clone_socket() else { return Disconnected::Closed };
        self.controller.attach(socket);
        let reason = loop {
            let message = match connection.receive() {
                Ok(message) => message,
                Err(reason) => break reason,
            };
            let header = message.header;
            let result = self.dispatch(message);
            if let Err(reason) = connection.reply(&header, result) {
                break reason;
            }
        };
        self.controller.detach();
        reason
    }

    /// Whether the client was one of this protocol, and not somebody who only looked whether the socket listens.
    pub(crate) fn has_negotiated(&self) -> bool {
        self.negotiated
    }

    fn dispatch(&mut self, message: Message) -> Result<Vec<u8>, Errno> {
        if message.too_many_descriptors {
            return Err(Errno::INVAL);
        }
        let Message { header, body, descriptors, .. } = message;
        let command = Command::from_u16(header.command).ok_or(Errno::OPNOTSUPP)?;
        if !descriptors.is_empty() && !matches!(command, Command::DmaMap | Command::DeviceSetIrqs) {
            return Err(Errno::INVAL);
        }
        match command {
            Command::Version => version(&body).inspect(|_reply| self.negotiated = true),
            Command::DmaMap => self.dma_map(&body, descriptors),
            Command::DmaUnmap => self.dma_unmap(&body),
            Command::DeviceGetInfo => device_info(&body),
            Command::DeviceGetRegionInfo => region_info(&body),
            Command::DeviceGetIrqInfo => {
                let mut reader = Reader::new(&body);
                let request = IrqInfo::take(&mut reader).map_err(invalid)?;
                irqs::info(request.index).map(|info| info.encode())
            }
            Command::DeviceSetIrqs => {
                let mut reader = Reader::new(&body);
                let request = SetIrqs::take(&mut reader).map_err(invalid)?;
                let data = body.get(SetIrqs::LEN..).unwrap_or_default();
                irqs::set(&self.controller.interrupts, &request, data, descriptors).map(|()| Vec::new())
            }
            Command::RegionRead => self.region_read(&body),
            Command::RegionWrite => self.region_write(&body),
            Command::DeviceReset => {
                self.config = ConfigSpace::new();
                self.controller.reset();
                Ok(Vec::new())
            }
            _ => Err(Errno::OPNOTSUPP),
        }
    }

    fn dma_map(&self, body: &[u8], descriptors: Vec<OwnedFd>) -> Result<Vec<u8>, Errno> {
        let mut reader = Reader::new(body);
        let request = DmaMap::take(&mut reader).map_err(invalid)?;
        reader.finish("dma map").map_err(invalid)?;
        let mut descriptors = descriptors.into_iter();
        let file = descriptors.next();
        if descriptors.next().is_some() || request.flags & !(DMA_READ | DMA_WRITE) != 0 {
            return Err(Errno::INVAL);
        }
        self.controller.memory.map(MapRequest {
            iova: request.address,
            length: request.size,
            readable: request.flags & DMA_READ != 0,
            writable: request.flags & DMA_WRITE != 0,
            offset: request.offset,
            file,
        })?;
        Ok(Vec::new())
    }

    fn dma_unmap(&self, body: &[u8]) -> Result<Vec<u8>, Errno> {
        let mut reader = Reader::new(body);
        let request = DmaUnmap::take(&mut reader).map_err(invalid)?;
        reader.finish("dma unmap").map_err(invalid)?;
        let last = request.size.checked_sub(1).and_then(|more| request.address.checked_add(more));
        let (address, size) = match request.flags {
            // A range may end at 2^64.
            0 if last.is_some() => (request.address, request.size),
            DMA_UNMAP_ALL if request.address == 0 && request.size == 0 => (0, u64::MAX),
            _ => return Err(Errno::INVAL),
        };
        self.controller.unmap(address, size);
        Ok(request.encode())
    }

    fn region_read(&mut self, body: &[u8]) -> Result<Vec<u8>, Errno> {
        let mut reader = Reader::new(body);
        let request = RegionAccess::take(&mut reader).map_err(invalid)?;
        reader.finish("region read").map_err(invalid)?;
        let RegionAccess { offset, region, count } = request;
        if count > MAX_DATA_XFER || !is_inside(region, offset, count) {
            return Err(Errno::INVAL);
        }
        let mut reply = request.encode();
        let data = reply.len();
        match region {
            REGISTERS => {
                reply.resize(data + count as usize, 0);
                let out = reply.get_mut(data..).unwrap_or_default();
                self.controller.read_registers(offset, out)?;
            }
            _ if self.controller.is_gone() => reply.resize(data + count as usize, 0xff),
            PCI_CONFIG_REGION => {
                reply.extend_from_slice(self.config.read(offset, count).ok_or(Errno::INVAL)?)
            }
            MSIX => {
                let pending = self.controller.interrupts.pending().to_le_bytes();
                if let Some(bits) = self.msix.get_mut(MSIX_PBA_OFFSET as usize..) {
                    bits.iter_mut().zip(pending).for_each(|(bit, now)| *bit = now);
                }
                let start = usize::try_from(offset).map_err(|_large| Errno::INVAL)?;
                let bytes = self.msix.get(start..).and_then(|rest| rest.get(..count as usize));
                reply.extend_from_slice(bytes.ok_or(Errno::INVAL)?);
            }
            _ => return Err(Errno::INVAL),
        }
        Ok(reply)
    }

    fn region_write(&mut self, body: &[u8]) -> Result<Vec<u8>, Errno> {
        let mut reader = Reader::new(body);
        let request = RegionAccess::take(&mut reader).map_err(invalid)?;
        let RegionAccess { offset, region, count } = request;
        let data = body.get(RegionAccess::LEN..).unwrap_or_default();
        if data.len() != count as usize || count > MAX_DATA_XFER || !is_inside(region, offset, count) {
            return Err(Errno::INVAL);
        }
        match region {
            REGISTERS => self.controller.write_registers(offset, data)?,
            PCI_CONFIG_REGION => match self.config.write(offset, data).ok_or(Errno::INVAL)? {
                Effect::FunctionLevelReset => self.controller.reset(),
                Effect::None => {}
            },
            MSIX => {
                let table = self.msix.get_mut(..MSIX_PBA_OFFSET as usize).unwrap_or_default();
                let start = usize::try_from(offset).map_err(|_large| Errno::INVAL)?;
                // Pending bits are read-only.
                for (byte, new) in table.iter_mut().skip(start).zip(data) {
                    *byte = *new;
                }
            }
            _ => return Err(Errno::INVAL),
        }
        Ok(request.encode())
    }
}

fn region_size(region: u32) -> Option<u64> {
    match region {
        REGISTERS => Some(BAR0_SIZE),
        MSIX => Some(BAR4_SIZE),
        PCI_CONFIG_REGION => Some(config_space::SIZE as u64),
        _ if region < PCI_NUM_REGIONS => Some(0),
        _ => None,
    }
}

fn is_inside(region: u32, offset: u64, count: u32) -> bool {
    let end = offset.checked_add(count.into());
    matches!((region_size(region), end), (Some(size), Some(end)) if end <= size && size > 0)
}

fn version(body: &[u8]) -> Result<Vec<u8>, Errno> {
    let mut reader = Reader::new(body);
    let header = VersionHeader::take(&mut reader).map_err(invalid)?;
    let json = body.get(VersionHeader::LEN..).unwrap_or_default();
    if header.major != MAJOR || json.len() > MAX_VERSION_JSON {
        return Err(Errno::INVAL);
    }
    // The data, its terminator and the capabilities in it are optional; what is there must be JSON.
    let json = json.strip_suffix(b"\0").unwrap_or(json);
    if !json.is_empty() && serde_json::from_slice::<serde_json::Value>(json).is_err() {
        return Err(Errno::INVAL);
    }
    // No number of DMA maps: QEMU refuses a server that takes more than 65,535, and sends more to one that says nothing.
    let capabilities = serde_json::json!({
        "capabilities": { "max_data_xfer_size": MAX_DATA_XFER, "max_msg_fds": MAX_MSG_FDS }
    });
    let mut reply = VersionHeader { major: MAJOR, minor: MINOR }.encode();
    reply.extend_from_slice(capabilities.to_string().as_bytes());
    reply.push(0);
    Ok(reply)
}

fn device_info(body: &[u8]) -> Result<Vec<u8>, Errno> {
    if body.len() < ARGSZ {
        return Err(Errno::INVAL);
    }
    let info = DeviceInfo {
        argsz: super::wire_size(DeviceInfo::LEN),
        flags: DEVICE_FLAG_RESET | DEVICE_FLAG_PCI,
        num_regions: PCI_NUM_REGIONS,
        num_irqs: PCI_NUM_IRQS,
    };
    Ok(info.encode())
}

fn region_info(body: &[u8]) -> Result<Vec<u8>, Errno> {
    let mut reader = Reader::new(body);
    let request = RegionInfo::take(&mut reader).map_err(invalid)?;
    let size = region_size(request.index).ok_or(Errno::INVAL)?;
    let flags = if size > 0 { REGION_FLAG_READ | REGION_FLAG_WRITE } else { 0 };
    let info = RegionInfo {
        argsz: super::wire_size(RegionInfo::LEN),
        flags,
        index: request.index,
        cap_offset: 0,
        size,
        // Where the region would lie in a device file; clients of the socket do not use it.
        offset: u64::from(request.index) << 40,
    };
    Ok(info.encode())
}
