//! vfio-user protocol 0.0: numbers and bytes, nothing else. Client and server are written separately above this.
//!
//! All fields are little-endian (the host's order in the protocol; this project runs on little-endian machines).

use crate::abi::{Reader, WireError};

/// Major version of the protocol.
pub const MAJOR: u16 = 0;
/// Minor version of the protocol.
pub const MINOR: u16 = 0;
/// Bytes of a header.
pub const HEADER_LEN: usize = 16;
/// Largest number of data bytes in one REGION_READ or REGION_WRITE that this project uses and accepts.
pub const MAX_DATA_XFER: u32 = 1_048_576;
/// Largest message: header, fixed part and data.
pub const MAX_MESSAGE: u32 = MAX_DATA_XFER + 4_096;
/// Largest number of descriptors beside one message that is accepted.
pub const MAX_MSG_FDS: usize = 8;
/// Largest version JSON, its NUL included.
pub const MAX_VERSION_JSON: usize = 4_096;

/// Command numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
#[expect(missing_docs, reason = "the names are the protocol's")]
pub enum Command {
    Version = 1,
    DmaMap = 2,
    DmaUnmap = 3,
    DeviceGetInfo = 4,
    DeviceGetRegionInfo = 5,
    DeviceGetRegionIoFds = 6,
    DeviceGetIrqInfo = 7,
    DeviceSetIrqs = 8,
    RegionRead = 9,
    RegionWrite = 10,
    DmaRead = 11,
    DmaWrite = 12,
    DeviceReset = 13,
    RegionWriteMulti = 15,
    DeviceFeature = 16,
    MigDataRead = 17,
    MigDataWrite = 18,
}

impl Command {
    const ALL: [Self; 17] = [
        Self::Version,
        Self::DmaMap,
        Self::DmaUnmap,
        Self::DeviceGetInfo,
        Self::DeviceGetRegionInfo,
        Self::DeviceGetRegionIoFds,
        Self::DeviceGetIrqInfo,
        Self::DeviceSetIrqs,
        Self::RegionRead,
        Self::RegionWrite,
        Self::DmaRead,
        Self::DmaWrite,
        Self::DeviceReset,
        Self::RegionWriteMulti,
        Self::DeviceFeature,
        Self::MigDataRead,
        Self::MigDataWrite,
    ];

    /// The command with this number.
    pub fn from_u16(value: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.as_u16() == value)
    }

    /// The number.
    pub const fn as_u16(self) -> u16 {
        self as u16
    }
}

/// Header flags: the bits of the message type.
pub const FLAG_TYPE_MASK: u32 = 0xF;
/// Header flags, type: command.
pub const FLAG_COMMAND: u32 = 0;
/// Header flags, type: reply.
pub const FLAG_REPLY: u32 = 1;
/// Header flags: the sender wants no reply.
pub const FLAG_NO_REPLY: u32 = 1 << 4;
/// Header flags: the reply reports an error.
pub const FLAG_ERROR: u32 = 1 << 5;

/// Message header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Chosen by the sender of a command, repeated in its reply.
    pub message_id: u16,
    /// Command number.
    pub command: u16,
    /// Bytes of the whole message, header included.
    pub message_size: u32,
    /// Flags.
    pub flags: u32,
    /// errno of an error reply.
    pub error: u32,
}

impl Header {
    /// The 16 bytes.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let [a, b] = self.message_id.to_le_bytes();
        let [c, d] = self.command.to_le_bytes();
        let [e, f, g, h] = self.message_size.to_le_bytes();
        let [i, j, k, l] = self.flags.to_le_bytes();
        let [m, n, o, p] = self.error.to_le_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    /// Takes a header apart; a size that no message has is refused.
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        let header = Self {
            message_id: r.u16("message id")?,
            command: r.u16("command")?,
            message_size: r.u32("message size")?,
            flags: r.u32("flags")?,
            error: r.u32("error")?,
        };
        r.finish("header")?;
        if (header.message_size as usize) < HEADER_LEN || header.message_size > MAX_MESSAGE {
            return Err(WireError::Field { what: "message size", found: header.message_size.into() });
        }
        Ok(header)
    }

    /// Bytes after the header.
    pub const fn body_len(&self) -> usize {
        (self.message_size as usize).saturating_sub(HEADER_LEN)
    }
}

/// DMA_MAP: the device may read.
pub const DMA_READ: u32 = 1 << 0;
/// DMA_MAP: the device may write.
pub const DMA_WRITE: u32 = 1 << 1;
/// DMA_UNMAP: everything is meant (address and size are 0).
pub const DMA_UNMAP_ALL: u32 = 1 << 1;

/// DEVICE_GET_INFO: the device can be reset.
pub const DEVICE_FLAG_RESET: u32 = 1 << 0;
/// DEVICE_GET_INFO: a PCI device.
pub const DEVICE_FLAG_PCI: u32 = 1 << 1;
/// Regions of a PCI device: 6 BARs, ROM, configuration space, VGA.
pub const PCI_NUM_REGIONS: u32 = 9;
/// Interrupt indices of a PCI device: INTx, MSI, MSI-X, error, request.
pub const PCI_NUM_IRQS: u32 = 5;
/// Region of the configuration space.
pub const PCI_CONFIG_REGION: u32 = 7;
/// Interrupt index of MSI-X.
pub const PCI_MSIX_IRQ: u32 = 2;
/// Interrupt index of device errors.
pub const PCI_ERR_IRQ: u32 = 3;
/// Interrupt index of release requests.
pub const PCI_REQ_IRQ: u32 = 4;

/// GET_REGION_INFO: readable.
pub const REGION_FLAG_READ: u32 = 1 << 0;
/// GET_REGION_INFO: writable.
pub const REGION_FLAG_WRITE: u32 = 1 << 1;
/// GET_REGION_INFO: can be mapped.
pub const REGION_FLAG_MMAP: u32 = 1 << 2;
/// GET_REGION_INFO: capabilities follow.
pub const REGION_FLAG_CAPS: u32 = 1 << 3;

/// GET_IRQ_INFO: can be signalled by an eventfd.
pub const IRQ_FLAG_EVENTFD: u32 = 1 << 0;
/// GET_IRQ_INFO: can be masked.
pub const IRQ_FLAG_MASKABLE: u32 = 1 << 1;
/// GET_IRQ_INFO: masked by itself when it fires.
pub const IRQ_FLAG_AUTOMASKED: u32 = 1 << 2;
/// GET_IRQ_INFO: the number of vectors cannot be changed while enabled.
pub const IRQ_FLAG_NORESIZE: u32 = 1 << 3;

/// SET_IRQS: no data.
pub const IRQ_SET_DATA_NONE: u32 = 1 << 0;
/// SET_IRQS: one byte a vector.
pub const IRQ_SET_DATA_BOOL: u32 = 1 << 1;
/// SET_IRQS: descriptors.
pub const IRQ_SET_DATA_EVENTFD: u32 = 1 << 2;
/// SET_IRQS: mask.
pub const IRQ_SET_ACTION_MASK: u32 = 1 << 3;
/// SET_IRQS: unmask.
pub const IRQ_SET_ACTION_UNMASK: u32 = 1 << 4;
/// SET_IRQS: set the trigger, or trigger.
pub const IRQ_SET_ACTION_TRIGGER: u32 = 1 << 5;

macro_rules! wire_struct {
    ($(#[$doc:meta])* $name:ident, $len:literal, $what:literal { $($(#[$fdoc:meta])* $field:ident: $ty:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name { $($(#[$fdoc])* pub $field: $ty,)* }

        impl $name {
            /// Bytes on the wire.
            pub const LEN: usize = $len;

            /// Takes the struct off the front; what follows it is the caller's.
            pub fn take(r: &mut Reader<'_>) -> Result<Self, WireError> {
                Ok(Self { $($field: r.$ty($what)?,)* })
            }

            /// Appends the encoding.
            pub fn put(&self, out: &mut Vec<u8>) {
                $(out.extend_from_slice(&self.$field.to_le_bytes());)*
            }

            /// The bytes on the wire.
            pub fn encode(&self) -> Vec<u8> {
                let mut out = Vec::with_capacity(Self::LEN);
                self.put(&mut out);
                out
            }
        }
    };
}

wire_struct! {
    /// Fixed part of VERSION; JSON with a NUL at its end follows.
    VersionHeader, 4, "version" {
        /// Major version.
        major: u16,
        /// Minor version.
        minor: u16,
    }
}
wire_struct! {
    /// DMA_MAP; a descriptor goes beside it.
    DmaMap, 32, "dma map" {
        /// Bytes of this struct.
        argsz: u32,
        /// [`DMA_READ`], [`DMA_WRITE`].
        flags: u32,
        /// Offset in the file.
        offset: u64,
        /// Address in the device's space.
        address: u64,
        /// Length.
        size: u64,
    }
}
wire_struct! {
    /// DMA_UNMAP; the reply repeats it.
    DmaUnmap, 24, "dma unmap" {
        /// Bytes of this struct.
        argsz: u32,
        /// [`DMA_UNMAP_ALL`] or 0.
        flags: u32,
        /// Address in the device's space.
        address: u64,
        /// Length.
        size: u64,
    }
}
wire_struct! {
    /// DEVICE_GET_INFO.
    DeviceInfo, 16, "device info" {
        /// Bytes of this struct.
        argsz: u32,
        /// [`DEVICE_FLAG_RESET`], [`DEVICE_FLAG_PCI`].
        flags: u32,
        /// Number of regions.
        num_regions: u32,
        /// Number of interrupt indices.
        num_irqs: u32,
    }
}
wire_struct! {
    /// DEVICE_GET_REGION_INFO.
    RegionInfo, 32, "region info" {
        /// Bytes of this struct and its capabilities.
        argsz: u32,
        /// `REGION_FLAG_…`.
        flags: u32,
        /// Region.
        index: u32,
        /// Offset of the first capability, or 0.
        cap_offset: u32,
        /// Size of the region.
        size: u64,
        /// Offset for mapping.
        offset: u64,
    }
}
wire_struct! {
    /// DEVICE_GET_IRQ_INFO.
    IrqInfo, 16, "irq info" {
        /// Bytes of this struct.
        argsz: u32,
        /// `IRQ_FLAG_…`.
        flags: u32,
        /// Interrupt index.
        index: u32,
        /// Number of vectors.
        count: u32,
    }
}
wire_struct! {
    /// DEVICE_SET_IRQS; data or descriptors go with it.
    SetIrqs, 20, "set irqs" {
        /// Bytes of this struct and its data.
        argsz: u32,
        /// `IRQ_SET_…`: one kind of data and one action.
        flags: u32,
        /// Interrupt index.
        index: u32,
        /// First vector.
        start: u32,
        /// Number of vectors; 0 with [`IRQ_SET_DATA_NONE`] and trigger: disable all.
        count: u32,
    }
}
wire_struct! {
    /// REGION_READ and REGION_WRITE; data follows in a write and in the reply to a read.
    RegionAccess, 16, "region access" {
        /// Offset in the region.
        offset: u64,
        /// Region.
        region: u32,
        /// Bytes.
        count: u32,
    }
}
