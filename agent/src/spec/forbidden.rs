//! Devices that no container has: they show or change memory, speak for the guest to the processor, or are the chip's.

use std::fs;
use std::io;
use std::path::Path;

use super::devices::DeviceKind;

/// Longest list of the kernel that is read.
const MAXIMUM_LIST_BYTES: usize = 64 * 1024;
/// Major number of the devices in `/proc/misc`.
const MISC: u32 = 10;
/// Those whose numbers do not change: memory, kernel memory, ports, the kernel's log, TPM, VFIO, hibernation, and the
/// processor's registers.
const FIXED: [(u32, Option<u32>); 8] = [
    (1, Some(1)),
    (1, Some(2)),
    (1, Some(4)),
    (1, Some(11)),
    (MISC, Some(224)),
    (MISC, Some(196)),
    (MISC, Some(231)),
    (202, None),
];
/// What their names begin with, in the kernel's lists and below `/dev`. The rest of a name is a number, a place in a
/// directory, or nothing.
const NAMES: [&str; 15] = [
    "mem",
    "kmem",
    "port",
    "kmsg",
    "sev",
    "sev-guest",
    "tdx_guest",
    "tdx-guest",
    "tpm",
    "tpmrm",
    "vfio",
    "iommu",
    "snapshot",
    "msr",
    "cpu/msr",
];

/// Devices that no container has, by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForbiddenDevices {
    numbers: Vec<(u32, Option<u32>)>,
}

impl Default for ForbiddenDevices {
    fn default() -> Self {
        Self { numbers: FIXED.to_vec() }
    }
}

impl ForbiddenDevices {
    /// Those with fixed numbers and those that the kernel lists: `misc` is the text of `/proc/misc`, `devices` that of
    /// `/proc/devices`.
    #[must_use]
    pub fn of_lists(misc: &str, devices: &str) -> Self {
        let mut numbers = FIXED.to_vec();
        let entry = |line: &str| {
            let (number, name) = line.trim().split_once(char::is_whitespace)?;
            let number: u32 = number.parse().ok()?;
            is_forbidden_name(name.trim()).then_some(number)
        };
        numbers.extend(misc.lines().filter_map(entry).map(|minor| (MISC, Some(minor))));
        let characters = devices.split("Block devices:").next().unwrap_or_default();
        // Major 1 holds `null` and `zero` too, and is listed above by number.
        numbers.extend(
            characters.lines().filter_map(entry).filter(|major| *major != 1).map(|major| (major, None)),
        );
        numbers.sort_unstable();
        numbers.dedup();
        Self { numbers }
    }

    /// Those of the running system; `proc` is where its process file system is.
    ///
    /// # Errors
    /// The system's, or a list that is longer than 64 KiB.
    pub fn of_system(proc: &Path) -> io::Result<Self> {
        let read = |name: &str| {
            let text = fs::read_to_string(proc.join(name))?;
            if text.len() > MAXIMUM_LIST_BYTES {
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, "list of devices"));
            }
            Ok(text)
        };
        Ok(Self::of_lists(&read("misc")?, &read("devices")?))
    }

    /// Character devices by major and minor number; without a minor number it is all of the major number.
    pub fn numbers(&self) -> impl Iterator<Item = (u32, Option<u32>)> + '_ {
        self.numbers.iter().copied()
    }

    /// Whether a device is one of them.
    #[must_use]
    pub fn contains(&self, kind: DeviceKind, major: u32, minor: u32) -> bool {
        kind == DeviceKind::Character
            && self.numbers().any(|(one, other)| one == major && other.is_none_or(|other| other == minor))
    }
}

/// Whether a path below `/dev`, or its name in a list of the kernel, is that of a device that no container has.
#[must_use]
pub fn is_forbidden_name(name: &str) -> bool {
    let name = name.strip_prefix("/dev/").unwrap_or(name);
    // `/dev/cpu/0/msr`
    if let Some(rest) = name.strip_prefix("cpu/") {
        return rest.ends_with("/msr");
    }
    NAMES.iter().any(|forbidden| {
        name.strip_prefix(forbidden).is_some_and(|rest| {
            rest.is_empty() || rest.starts_with('/') || rest.bytes().all(|byte| byte.is_ascii_digit())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MISC_LIST: &str =
        " 258 sev-guest\n 122 tdx_guest\n 196 vfio\n 229 fuse\n  62 iommu\n 127 vga_arbiter\n";
    const DEVICES: &str = "Character devices:\n  1 mem\n  5 /dev/tty\n136 pts\n240 vfio\n241 tpm\n\nBlock devices:\n  8 sd\n240 mem\n";

    #[test]
    fn evil_host_device_with_a_number_of_the_kernels() {
        let forbidden = ForbiddenDevices::of_lists(MISC_LIST, DEVICES);
        for (major, minor) in [
            (10, 258),
            (10, 122),
            (10, 196),
            (10, 62),
            (240, 7),
            (241, 0),
            (1, 1),
            (1, 11),
            (10, 224),
            (202, 3),
        ] {
            assert!(forbidden.contains(DeviceKind::Character, major, minor), "{major}:{minor}");
            assert!(!forbidden.contains(DeviceKind::Block, major, minor), "{major}:{minor}");
        }
        for (major, minor) in [(1, 3), (1, 5), (10, 229), (10, 127), (136, 0), (5, 2)] {
            assert!(!forbidden.contains(DeviceKind::Character, major, minor), "{major}:{minor}");
        }
        let lists = ForbiddenDevices::of_system(Path::new("/proc")).unwrap();
        assert!(lists.contains(DeviceKind::Character, 1, 1));
    }

    #[test]
    fn evil_host_device_by_name() {
        for name in [
            "/dev/mem",
            "/dev/kmsg",
            "/dev/port",
            "/dev/sev-guest",
            "/dev/sev",
            "/dev/tdx_guest",
            "/dev/tdx-guest",
            "/dev/tpm0",
            "/dev/tpmrm0",
            "/dev/vfio",
            "/dev/vfio/vfio",
            "/dev/vfio/12",
            "/dev/iommu",
            "/dev/cpu/3/msr",
            "/dev/vfio/devices/vfio0",
        ] {
            assert!(is_forbidden_name(name), "{name}");
        }
        for name in
            ["/dev/null", "/dev/memory_bandwidth", "/dev/fuse", "/dev/vda", "/dev/portal", "/dev/cpu/0/cpuid"]
        {
            assert!(!is_forbidden_name(name), "{name}");
        }
    }
}
