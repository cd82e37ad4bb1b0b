//! Messages to device-mapper (linux/dm-ioctl.h).

use std::ops::BitOr;
use std::ops::BitOrAssign;

use zeroize::Zeroizing;

use super::Target;
use protected_memory::device_mapper::HEADER_BYTES;

/// Version 4.0: all that is used here has been there since then, deferred removal since 4.27.
const VERSION: [u32; 3] = [4, 0, 0];
const NAME_AT: usize = 48;
/// Its end included.
const MAXIMUM_NAME_BYTES: usize = 128;
/// `struct dm_target_spec`.
const TARGET_BYTES: usize = 40;
const TARGET_TYPE_AT: usize = HEADER_BYTES + 24;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Command {
    /// `DM_DEV_CREATE`.
    Create = 3,
    /// `DM_DEV_REMOVE`.
    Remove = 4,
    /// `DM_DEV_SUSPEND`, which also resumes.
    Suspend = 6,
    /// `DM_TABLE_LOAD`.
    Load = 9,
}

/// How.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flags(u32);

impl Flags {
    pub(super) const NONE: Self = Self(0);
    /// The kernel chooses the number of a device.
    pub(super) const EXACT_NUMBER_IS_NOT_GIVEN: Self = Self(0);
    /// `DM_READONLY_FLAG`.
    pub(super) const READ_ONLY: Self = Self(1);
    /// `DM_SECURE_DATA_FLAG`: the kernel wipes its copy of this message.
    pub(super) const SECURE_DATA: Self = Self(1 << 15);
    /// `DM_DEFERRED_REMOVE`.
    pub(super) const DEFERRED_REMOVE: Self = Self(1 << 17);
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Flags {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// A message. It may hold a key: it is wiped.
pub(super) struct Message {
    command: Command,
    bytes: Zeroizing<Vec<u8>>,
}

impl Message {
    /// About a device.
    pub(super) fn new(command: Command, name: &str, flags: Flags) -> Self {
        let mut message = Self { command, bytes: Zeroizing::new(vec![0; HEADER_BYTES]) };
        let [major, minor, patch] = VERSION;
        for (at, value) in [
            (0, major),
            (4, minor),
            (8, patch),
            (16, u32::try_from(HEADER_BYTES).unwrap_or_default()),
            (28, flags.0),
        ] {
            message.put(at, &value.to_ne_bytes());
        }
        let name = name.as_bytes();
        message.put(NAME_AT, name.get(..name.len().min(MAXIMUM_NAME_BYTES - 1)).unwrap_or_default());
        message
    }

    /// A table of one target.
    pub(super) fn load(name: &str, flags: Flags, target: &Target) -> Self {
        let mut message = Self::new(Command::Load, name, flags);
        message.put(20, &1_u32.to_ne_bytes());
        // Never moved while it is filled, so that no copy of a key stays behind.
        let length = (HEADER_BYTES + TARGET_BYTES + target.parameters.len() + 1).next_multiple_of(8);
        let mut bytes = Zeroizing::new(Vec::with_capacity(length));
        bytes.extend_from_slice(&message.bytes);
        bytes.resize(length, 0);
        message.bytes = bytes;
        message.put(HEADER_BYTES + 8, &target.sectors.to_ne_bytes());
        message.put(TARGET_TYPE_AT, target.kind.as_bytes());
        message.put(HEADER_BYTES + TARGET_BYTES, target.parameters.as_bytes());
        message
    }

    fn put(&mut self, at: usize, value: &[u8]) {
        if let Some(place) = self.bytes.get_mut(at..at + value.len()) {
            place.copy_from_slice(value);
        }
    }

    pub(super) fn command(&self) -> u8 {
        self.command as u8
    }

    pub(super) fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Major and minor number in the kernel's answer (`huge_encode_dev`).
    pub(super) fn device(&self) -> (u32, u32) {
        let number =
            self.bytes.get(40..44).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes);
        ((number >> 8) & 0xfff, (number & 0xff) | ((number >> 12) & 0xf_ff00))
    }
}
