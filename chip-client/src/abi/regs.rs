//! PCI identity and registers (spec §1, §2).

/// PCI vendor id (a placeholder until one is assigned).
pub const VENDOR_ID: u16 = 0x494B;
/// PCI device id.
pub const DEVICE_ID: u16 = 0x0001;
/// PCI revision.
pub const REVISION: u8 = 0x01;
/// PCI class code.
pub const CLASS_CODE: u32 = 0x10_8000;
/// The BAR with the registers.
pub const BAR_REGISTERS: u8 = 0;
/// The BAR with MSI-X table and pending bits.
pub const BAR_MSIX: u8 = 4;
/// Size of BAR0.
pub const BAR0_SIZE: u64 = 0x4000;
/// Size of BAR4.
pub const BAR4_SIZE: u64 = 0x1000;
/// Offset of the MSI-X pending bits in BAR4; the table is at 0.
pub const MSIX_PBA_OFFSET: u32 = 0x800;
/// MSI-X vectors: vector q belongs to queue pair q.
pub const MSIX_VECTORS: u16 = 2;

/// Queue pairs.
pub const QUEUES: u16 = 2;
/// Queue pair of control commands.
pub const QUEUE_CONTROL: u16 = 0;
/// Queue pair of bulk jobs.
pub const QUEUE_BULK: u16 = 1;

/// Register MAGIC.
pub const REG_MAGIC: u32 = 0x000;
/// Register VERSION.
pub const REG_VERSION: u32 = 0x004;
/// Register CAP (8 bytes).
pub const REG_CAP: u32 = 0x008;
/// Register CTRL.
pub const REG_CTRL: u32 = 0x010;
/// Register STATUS.
pub const REG_STATUS: u32 = 0x014;
/// Register FATAL_CODE.
pub const REG_FATAL_CODE: u32 = 0x018;

/// Value of MAGIC ("IKIP").
pub const MAGIC: u32 = 0x5049_4B49;
/// Value of VERSION.
pub const VERSION: u32 = 0x0001_0000;

/// CTRL: controller enabled.
pub const CTRL_EN: u32 = 1 << 0;
/// CTRL: controller reset; reads 0.
pub const CTRL_RESET: u32 = 1 << 1;

/// STATUS: ready.
pub const STATUS_RDY: u32 = 1 << 0;
/// STATUS: stopped by a fatal error, see FATAL_CODE.
pub const STATUS_FATAL: u32 = 1 << 1;
/// STATUS: the chip has its certificates.
pub const STATUS_PROVISIONED: u32 = 1 << 2;
/// STATUS: lowest bit of the TDISP state (4 bits).
pub const STATUS_TDISP_SHIFT: u32 = 8;

/// Unit of the worst-case time to ready in CAP, in milliseconds.
pub const READY_UNIT_MS: u64 = 500;

/// Queue register: base of the submission ring (8 bytes), relative to [`queue_register`].
pub const QREG_SQ_BASE: u32 = 0x00;
/// Queue register: base of the completion ring (8 bytes).
pub const QREG_CQ_BASE: u32 = 0x08;
/// Queue register: entries of the submission ring.
pub const QREG_SQ_SIZE: u32 = 0x10;
/// Queue register: entries of the completion ring.
pub const QREG_CQ_SIZE: u32 = 0x14;

/// Offset of the first register of queue pair `queue`.
pub const fn queue_register(queue: u16) -> u32 {
    0x100 + 0x40 * queue as u32
}

/// Offset of the submission doorbell of queue pair `queue`.
pub const fn sq_tail_doorbell(queue: u16) -> u32 {
    0x1000 + 8 * queue as u32
}

/// Offset of the completion doorbell of queue pair `queue`.
pub const fn cq_head_doorbell(queue: u16) -> u32 {
    0x1004 + 8 * queue as u32
}

/// The CAP register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cap {
    /// Largest queue size in entries.
    pub max_entries: u16,
    /// Queue pairs (4 bits).
    pub queues: u8,
    /// Data paths: bit 0 `key-release`, 1 `dma-direct`, 2 `dma-sealed` (4 bits).
    pub paths: u8,
    /// Worst-case time to ready, in units of 500 ms.
    pub ready_units: u8,
    /// Size of the shared window in 4 KiB pages; 0: absent.
    pub window_pages: u32,
}

impl Cap {
    /// Takes the register apart.
    pub const fn from_bits(bits: u64) -> Self {
        let [e0, e1, qp, ready, w0, w1, w2, w3] = bits.to_le_bytes();
        Self {
            max_entries: u16::from_le_bytes([e0, e1]),
            queues: qp & 0x0F,
            paths: qp >> 4,
            ready_units: ready,
            window_pages: u32::from_le_bytes([w0, w1, w2, w3]),
        }
    }

    /// Puts the register together.
    pub const fn to_bits(self) -> u64 {
        let [e0, e1] = self.max_entries.to_le_bytes();
        let [w0, w1, w2, w3] = self.window_pages.to_le_bytes();
        let qp = (self.queues & 0x0F) | (self.paths << 4);
        u64::from_le_bytes([e0, e1, qp, self.ready_units, w0, w1, w2, w3])
    }
}

/// TDISP state of the interface, as the chip sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TdispState {
    /// Not locked.
    ConfigUnlocked = 0,
    /// Locked: the device may still do unencrypted operations.
    ConfigLocked = 1,
    /// Running.
    Run = 2,
    /// Error.
    Error = 3,
}

impl TdispState {
    /// The state with this number.
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::ConfigUnlocked),
            1 => Some(Self::ConfigLocked),
            2 => Some(Self::Run),
            3 => Some(Self::Error),
            _ => None,
        }
    }

    /// The state in a STATUS register.
    pub const fn from_status(status: u32) -> Option<Self> {
        let [_, low, _, _] = status.to_le_bytes();
        Self::from_u8(low & 0x0F)
    }

    /// The number.
    pub const fn as_u8(self) -> u8 {
        self as u8
    }

    /// Name in the words of the TDISP specification.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ConfigUnlocked => "CONFIG_UNLOCKED",
            Self::ConfigLocked => "CONFIG_LOCKED",
            Self::Run => "RUN",
            Self::Error => "ERROR",
        }
    }
}
