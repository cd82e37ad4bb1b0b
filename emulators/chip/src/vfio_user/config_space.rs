//! PCI configuration space: type 0 header, power management, PCI Express endpoint with FLR, MSI-X (interface spec §1).

use chip_client::abi::{
    BAR_MSIX, BAR0_SIZE, BAR4_SIZE, CLASS_CODE, DEVICE_ID, MSIX_PBA_OFFSET, MSIX_VECTORS, REVISION, VENDOR_ID,
};

/// Bytes of the space.
pub(super) const SIZE: usize = 4_096;

const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const REVISION_AND_CLASS: usize = 0x08;
const CACHE_LINE: usize = 0x0c;
const BARS: usize = 0x10;
const SUBSYSTEM: usize = 0x2c;
const CAPABILITIES: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;

const POWER: usize = 0x40;
const EXPRESS: usize = 0x50;
const DEVICE_CONTROL: usize = EXPRESS + 0x08;
const MSIX: usize = 0x90;

/// Memory space, bus master, parity, SERR, INTx disable.
const COMMAND_WRITABLE: u16 = 0x0546;
const STATUS_CAPABILITIES: u16 = 0x0010;
/// Bit 15 of device control, as bit 7 of its second byte.
const INITIATE_FLR: u8 = 0x80;

/// The space with the bits that a driver can change.
pub(super) struct ConfigSpace {
    bytes: Box<[u8; SIZE]>,
    writable: Box<[u8; SIZE]>,
}

impl std::fmt::Debug for ConfigSpace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConfigSpace").finish_non_exhaustive()
    }
}

/// What a write asked for beside changing bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    FunctionLevelReset,
    None,
}

impl ConfigSpace {
    pub(super) fn new() -> Self {
        let mut space = Self { bytes: Box::new([0; SIZE]), writable: Box::new([0; SIZE]) };
        space.header();
        space.capabilities();
        space
    }

    fn set(&mut self, offset: usize, value: &[u8]) {
        for (to, from) in self.bytes.iter_mut().skip(offset).zip(value) {
            *to = *from;
        }
    }

    fn allow(&mut self, offset: usize, mask: &[u8]) {
        for (to, from) in self.writable.iter_mut().skip(offset).zip(mask) {
            *to = *from;
        }
    }

    fn header(&mut self) {
        self.set(0, &VENDOR_ID.to_le_bytes());
        self.set(2, &DEVICE_ID.to_le_bytes());
        self.allow(COMMAND, &COMMAND_WRITABLE.to_le_bytes());
        self.set(STATUS, &STATUS_CAPABILITIES.to_le_bytes());
        let [interface, subclass, class, _] = CLASS_CODE.to_le_bytes();
        self.set(REVISION_AND_CLASS, &[REVISION, interface, subclass, class]);
        self.allow(CACHE_LINE, &[0xff]);
        // A 32-bit memory BAR has its size in the bits that stay zero.
        let bar = |size: u64| u32::try_from(size).map_or(0, |size| !size.wrapping_sub(1)).to_le_bytes();
        self.allow(BARS, &bar(BAR0_SIZE));
        self.allow(BARS + 4 * usize::from(BAR_MSIX), &bar(BAR4_SIZE));
        self.set(SUBSYSTEM, &VENDOR_ID.to_le_bytes());
        self.set(SUBSYSTEM + 2, &DEVICE_ID.to_le_bytes());
        self.set(CAPABILITIES, &[0x40]);
        self.allow(INTERRUPT_LINE, &[0xff]);
    }

    fn capabilities(&mut self) {
        // Power management 1.2; D0 and D3hot; no soft reset.
        self.set(POWER, &[0x01, 0x50, 0x03, 0x00, 0x08, 0x00]);
        self.allow(POWER + 4, &[0x03]);
        // PCI Express 2, endpoint; role-based error reporting, FLR; one lane at 2.5 GT/s.
        self.set(EXPRESS, &[0x10, 0x90, 0x02, 0x00, 0x00, 0x80, 0x00, 0x10]);
        self.allow(DEVICE_CONTROL, &[0xff, 0x7f]);
        self.set(EXPRESS + 0x0c, &[0x11, 0x00, 0x00, 0x00]);
        self.set(EXPRESS + 0x12, &[0x11, 0x00]);
        // MSI-X: table and pending bits in BAR4; enable and function mask writable.
        let [size, _] = MSIX_VECTORS.wrapping_sub(1).to_le_bytes();
        self.set(MSIX, &[0x11, 0x00, size, 0x00]);
        self.allow(MSIX + 2, &[0x00, 0xc0]);
        let bar = u32::from(BAR_MSIX);
        self.set(MSIX + 4, &bar.to_le_bytes());
        self.set(MSIX + 8, &(MSIX_PBA_OFFSET | bar).to_le_bytes());
    }

    /// Bytes at any offset. `None`: outside the space.
    pub(super) fn read(&self, offset: u64, count: u32) -> Option<&[u8]> {
        let start = usize::try_from(offset).ok()?;
        self.bytes.get(start..start.checked_add(count as usize)?)
    }

    /// Changes what is writable. `None`: outside the space.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> Option<Effect> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(bytes.len()).filter(|end| *end <= SIZE)?;
        let mut effect = Effect::None;
        let places = self.bytes.iter_mut().zip(self.writable.iter()).enumerate().skip(start);
        for ((at, (byte, mask)), new) in places.zip(bytes) {
            if at == DEVICE_CONTROL + 1 && new & INITIATE_FLR != 0 {
                effect = Effect::FunctionLevelReset;
            }
            let mut new = new & mask;
            // D1 and D2 do not exist.
            if at == POWER + 4 && (new == 1 || new == 2) {
                new = *byte & mask;
            }
            *byte = *byte & !mask | new;
        }
        debug_assert!(end <= SIZE);
        if effect == Effect::FunctionLevelReset {
            *self = Self::new();
        }
        Some(effect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(space: &ConfigSpace, offset: u64) -> u32 {
        u32::from_le_bytes(space.read(offset, 4).unwrap().try_into().unwrap())
    }

    #[test]
    fn identity_and_capability_list() {
        let space = ConfigSpace::new();
        assert_eq!(word(&space, 0), 0x0001_494b);
        assert_eq!(word(&space, 8), 0x1080_0001);
        let mut at = space.read(0x34, 1).unwrap()[0];
        let mut ids = Vec::new();
        while at != 0 {
            ids.push(space.read(at.into(), 1).unwrap()[0]);
            at = space.read(u64::from(at) + 1, 1).unwrap()[0];
        }
        assert_eq!(ids, [0x01, 0x10, 0x11]);
        assert_eq!(word(&space, 0x90) >> 16, 1, "two vectors");
        assert_eq!((word(&space, 0x94), word(&space, 0x98)), (4, 0x804));
    }

    #[test]
    fn bars_tell_their_size() {
        let mut space = ConfigSpace::new();
        for (bar, size) in [(0x10, 0x4000u32), (0x14, 0), (0x18, 0), (0x20, 0x1000), (0x24, 0)] {
            space.write(bar, &[0xff; 4]).unwrap();
            assert_eq!(word(&space, bar), if size == 0 { 0 } else { !(size - 1) }, "{bar:#x}");
        }
        space.write(0x10, &0xfebf_0000u32.to_le_bytes()).unwrap();
        assert_eq!(word(&space, 0x10), 0xfebf_0000);
    }

    #[test]
    fn flr_by_a_write_of_any_width_resets_the_space() {
        for (offset, bytes) in
            [(0x58, &[0u8, 0x80][..]), (0x59, &[0x80][..]), (0x58, &[0x10, 0xa8, 0, 0][..])]
        {
            let mut space = ConfigSpace::new();
            space.write(4, &[0x06]).unwrap();
            assert_eq!(space.write(offset, bytes), Some(Effect::FunctionLevelReset));
            assert_eq!(word(&space, 4) & 0xffff, 0);
            assert_eq!(word(&space, 0x58) & 0x8000, 0, "the bit reads as zero");
        }
    }

    #[test]
    fn read_only_bits_stay_and_ranges_are_bounded() {
        let mut space = ConfigSpace::new();
        let before = space.bytes.clone();
        space.write(0, &[0xff; 4]).unwrap();
        space.write(0x34, &[0xff; 4]).unwrap();
        assert_eq!(space.bytes, before);
        space.write(0x44, &[0x02]).unwrap();
        assert_eq!(space.bytes, before, "no D2");
        space.write(0x44, &[0x03]).unwrap();
        assert_eq!(space.read(0x44, 1).unwrap(), [0x0b]);
        assert_eq!(space.read(4_095, 1).unwrap(), [0]);
        assert!(space.read(4_095, 2).is_none());
        assert!(space.read(u64::MAX, 1).is_none());
        assert!(space.write(4_093, &[0; 4]).is_none());
        assert!(space.write(u64::MAX, &[0]).is_none());
    }
}
