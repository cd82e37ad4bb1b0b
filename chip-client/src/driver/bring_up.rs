//! Finding the chip and making its controller ready.

use std::time::{Duration, Instant};

use super::{Driver, arena};
use crate::abi::{
    BAR_REGISTERS, BAR0_SIZE, CTRL_EN, CTRL_RESET, Cap, DEVICE_ID, MAGIC, QREG_CQ_BASE, QREG_CQ_SIZE,
    QREG_SQ_BASE, QREG_SQ_SIZE, QUEUES, READY_UNIT_MS, REG_CAP, REG_CTRL, REG_FATAL_CODE, REG_MAGIC,
    REG_STATUS, REG_VERSION, STATUS_FATAL, STATUS_RDY, VENDOR_ID, VERSION, queue_register,
};
use crate::backing::{DeviceBacking, Registers};
use crate::error::{ChipError, DeviceError};
use crate::ring::RingSize;

const ALL_ONES: u32 = u32::MAX;
const RESET_TIMEOUT: Duration = Duration::from_secs(5);
const LEAST_READY_TIMEOUT: Duration = Duration::from_secs(1);
const LEAST_ENTRIES: u16 = 4;

pub(super) struct Found {
    pub(super) registers: Box<dyn Registers>,
    pub(super) cap: Cap,
    pub(super) ring_size: RingSize,
}

/// Looks at identity, magic, version and abilities.
pub(super) fn find(backing: &dyn DeviceBacking) -> Result<Found, ChipError> {
    let identity = backing.presence()?;
    if identity.vendor == u16::MAX {
        return Err(DeviceError::Gone { what: "vendor id reads all ones" }.into());
    }
    expect("vendor id", VENDOR_ID.into(), identity.vendor.into())?;
    expect("device id", DEVICE_ID.into(), identity.device.into())?;
    let registers = backing.map_bar(BAR_REGISTERS)?;
    if registers.size() < BAR0_SIZE {
        return Err(capability("BAR0 of bytes", BAR0_SIZE, registers.size()));
    }
    let magic = registers.read32(REG_MAGIC)?;
    if magic == ALL_ONES {
        return Err(DeviceError::Gone { what: "MAGIC reads all ones" }.into());
    }
    expect("MAGIC", MAGIC.into(), magic.into())?;
    expect("VERSION", VERSION.into(), registers.read32(REG_VERSION)?.into())?;
    let low = registers.read32(REG_CAP)?;
    let high = registers.read32(REG_CAP + 4)?;
    let cap = Cap::from_bits(u64::from(high) << 32 | u64::from(low));
    if u16::from(cap.queues) < QUEUES {
        return Err(capability("queue pairs:", QUEUES.into(), cap.queues.into()));
    }
    let ring_size = RingSize::fitting(arena::RING_ENTRIES, cap.max_entries)
        .filter(|size| size.entries() >= LEAST_ENTRIES)
        .ok_or_else(|| capability("queue entries:", LEAST_ENTRIES.into(), cap.max_entries.into()))?;
    Ok(Found { registers, cap, ring_size })
}

impl Driver {
    /// Reset, rings, enable, ready.
    pub(super) fn start_controller(&mut self) -> Result<(), ChipError> {
        self.registers.write32(REG_CTRL, CTRL_RESET)?;
        self.wait_not_ready()?;
        self.queues.iter_mut().for_each(super::Queue::clear);
        self.arena.clear_rings()?;
        for queue in 0..QUEUES {
            let base = queue_register(queue);
            let size = self.queue_mut(queue)?.size().entries();
            self.write64(base + QREG_SQ_BASE, self.arena.iova(arena::submission_ring(queue)))?;
            self.write64(base + QREG_CQ_BASE, self.arena.iova(arena::completion_ring(queue)))?;
            self.registers.write32(base + QREG_SQ_SIZE, size.into())?;
            self.registers.write32(base + QREG_CQ_SIZE, size.into())?;
        }
        self.registers.write32(REG_CTRL, CTRL_EN)?;
        self.wait_ready()
    }

    /// STATUS, unless the device is gone or stopped.
    pub(super) fn read_status(&self) -> Result<u32, ChipError> {
        let status = self.registers.read32(REG_STATUS)?;
        // GUARD: all-ones -> evil_device_gone_under_a_command
        if status == ALL_ONES {
            return Err(DeviceError::Gone { what: "STATUS reads all ones" }.into());
        }
        if status & STATUS_FATAL != 0 {
            let code = self.registers.read32(REG_FATAL_CODE)?;
            return Err(DeviceError::Fatal { code }.into());
        }
        Ok(status)
    }

    fn wait_ready(&self) -> Result<(), ChipError> {
        let stated = Duration::from_millis(u64::from(self.cap.ready_units) * READY_UNIT_MS);
        let timeout = stated.max(LEAST_READY_TIMEOUT).min(self.options.ready_timeout);
        poll_until(timeout, "readiness of the controller", || Ok(self.read_status()? & STATUS_RDY != 0))
    }

    /// Waits until the device has stopped: no DMA happens any more.
    pub(super) fn wait_not_ready(&self) -> Result<(), ChipError> {
        let timeout = RESET_TIMEOUT.min(self.options.ready_timeout);
        poll_until(timeout, "stop of the controller", || {
            let status = self.registers.read32(REG_STATUS)?;
            if status == ALL_ONES {
                return Err(DeviceError::Gone { what: "STATUS reads all ones" }.into());
            }
            Ok(status & STATUS_RDY == 0)
        })
    }

    fn write64(&self, offset: u32, value: u64) -> Result<(), ChipError> {
        let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
        self.registers.write32(offset, u32::from_le_bytes([a, b, c, d]))?;
        self.registers.write32(offset + 4, u32::from_le_bytes([e, f, g, h]))
    }
}

fn poll_until(
    timeout: Duration,
    what: &'static str,
    mut done: impl FnMut() -> Result<bool, ChipError>,
) -> Result<(), ChipError> {
    let deadline = Instant::now() + timeout;
    let mut pause = Duration::from_micros(200);
    loop {
        if done()? {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let after_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
            return Err(DeviceError::Timeout { what, after_ms }.into());
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn expect(what: &'static str, expected: u64, found: u64) -> Result<(), ChipError> {
    if expected == found { Ok(()) } else { Err(DeviceError::NotAChip { what, expected, found }.into()) }
}

fn capability(what: &'static str, expected: u64, found: u64) -> ChipError {
    DeviceError::Capability { what, expected, found }.into()
}
