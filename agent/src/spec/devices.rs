//! Which devices a container may use: an ordered list for the program that the kernel asks.

use protocol::oci;

use super::forbidden::ForbiddenDevices;
use super::{Limits, SpecError, within};

/// Major number of pseudo-terminals.
const PTS: u32 = 136;
/// What every container may use: null, zero, full, random, urandom, tty, console, ptmx, and its terminals.
const ALWAYS: [(u32, Option<u32>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (PTS, None),
];

/// Which kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceKind {
    /// Both kinds: of rules only.
    All,
    /// `b`
    Block,
    /// `c`, `u`
    Character,
}

/// What may be done with a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Access {
    /// `r`
    pub read: bool,
    /// `w`
    pub write: bool,
    /// `m`: make a node for it.
    pub mknod: bool,
}

impl Access {
    /// Everything.
    pub const ALL: Self = Self { read: true, write: true, mknod: true };
    /// Making nodes.
    pub const MKNOD: Self = Self { read: false, write: false, mknod: true };

    fn parse(text: &str) -> Option<Self> {
        let mut access = Self::default();
        for letter in text.bytes() {
            match letter {
                b'r' => access.read = true,
                b'w' => access.write = true,
                b'm' => access.mknod = true,
                _ => return None,
            }
        }
        Some(access)
    }

    /// What is in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            read: self.read && other.read,
            write: self.write && other.write,
            mknod: self.mknod && other.mknod,
        }
    }

    /// What is in `self` and not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self {
            read: self.read && !other.read,
            write: self.write && !other.write,
            mknod: self.mknod && !other.mknod,
        }
    }

    /// Whether it is nothing.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        !self.read && !self.write && !self.mknod
    }

    /// As bits of the kernel's `bpf_cgroup_dev_ctx`: 1 makes nodes, 2 reads, 4 writes.
    #[must_use]
    pub const fn bits(self) -> u32 {
        (self.mknod as u32) | ((self.read as u32) << 1) | ((self.write as u32) << 2)
    }
}

/// One rule. Of the rules for a device the **last** decides, for each of read, write and mknod by itself; where none does,
/// the answer is no. A program: go from the last rule to the first with the access that is asked for; at a rule for this device,
/// if it denies any of what is left, the answer is no; if it allows, that is no longer left; nothing left is yes; at the end, no.
/// [`allows`] is that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceRule {
    /// Whether it allows.
    pub allow: bool,
    /// Of which kind.
    pub kind: DeviceKind,
    /// Major number; all where there is none.
    pub major: Option<u32>,
    /// Minor number; all where there is none.
    pub minor: Option<u32>,
    /// What it says yes or no to.
    pub access: Access,
}

impl DeviceRule {
    /// Whether it is about this device.
    #[must_use]
    pub fn covers(&self, kind: DeviceKind, major: u32, minor: u32) -> bool {
        (self.kind == DeviceKind::All || self.kind == kind)
            && self.major.is_none_or(|own| own == major)
            && self.minor.is_none_or(|own| own == minor)
    }
}

/// What the rules say about a device.
#[must_use]
pub fn allows(rules: &[DeviceRule], kind: DeviceKind, major: u32, minor: u32, asked: Access) -> bool {
    let mut left = asked;
    for rule in rules.iter().rev().filter(|rule| rule.covers(kind, major, minor)) {
        if left.and(rule.access).is_empty() {
            continue;
        }
        if !rule.allow {
            return false;
        }
        left = left.without(rule.access);
        if left.is_empty() {
            return true;
        }
    }
    false
}

/// The rules of a specification, with what every container may use behind them, and what none may use behind that.
///
/// The list begins with "no". Making nodes is allowed for all devices, using them is not, as in other runtimes.
pub(super) fn rules(
    asked: &[oci::LinuxDeviceCgroup],
    forbidden: &ForbiddenDevices,
    tee_active: bool,
) -> Result<Vec<DeviceRule>, SpecError> {
    within("linux.resources.devices", asked.len(), Limits::DEVICE_RULES)?;
    let character = |allow, (major, minor), access| DeviceRule {
        allow,
        kind: DeviceKind::Character,
        major: Some(major),
        minor,
        access,
    };
    let any = |allow, access| DeviceRule { allow, kind: DeviceKind::All, major: None, minor: None, access };
    let mut rules = vec![any(false, Access::ALL)];
    for (index, rule) in asked.iter().enumerate() {
        let at = || format!("linux.resources.devices[{index}]");
        let parsed = parse(rule).ok_or_else(|| SpecError::Value {
            at: at(),
            expected: "a type of a, b, c or u, numbers from 0 on or -1, and access of r, w, m",
        })?;
        let wide = match parsed.kind {
            DeviceKind::All | DeviceKind::Block => parsed.major.is_none() || parsed.minor.is_none(),
            DeviceKind::Character => parsed.major.is_none(),
        };
        // GUARD: tee-all-devices -> evil_host_all_devices_in_a_tee
        if tee_active && parsed.allow && wide && !parsed.access.without(Access::MKNOD).is_empty() {
            return Err(SpecError::Tee { at: at(), what: "use all devices of a kind" });
        }
        rules.push(parsed);
    }
    rules.push(any(true, Access::MKNOD));
    rules.extend(ALWAYS.into_iter().map(|numbers| character(true, numbers, Access::ALL)));
    let never = forbidden.numbers().map(|numbers| character(false, numbers, Access::ALL));
    // GUARD: forbidden-device-rules -> evil_host_device_rule_for_memory
    rules = rules.into_iter().chain(never).collect();
    Ok(rules)
}

fn parse(rule: &oci::LinuxDeviceCgroup) -> Option<DeviceRule> {
    let kind = match rule.Type.as_str() {
        "" | "a" => DeviceKind::All,
        "b" => DeviceKind::Block,
        "c" | "u" => DeviceKind::Character,
        _ => return None,
    };
    let number = |number: i64| match number {
        -1 => Some(None),
        _ => u32::try_from(number).ok().map(Some),
    };
    // A rule for everything has no numbers, and the wire has no way to leave them out: 0 comes. With numbers it denies everything
    // all the same, and allows only these.
    let without_numbers = matches!((rule.Major, rule.Minor), (0 | -1, 0 | -1));
    let (major, minor) = match kind {
        DeviceKind::All if without_numbers || !rule.Allow => (None, None),
        _ => (number(rule.Major)?, number(rule.Minor)?),
    };
    let access = if rule.Access.is_empty() { Access::ALL } else { Access::parse(&rule.Access)? };
    Some(DeviceRule { allow: rule.Allow, kind, major, minor, access })
}
