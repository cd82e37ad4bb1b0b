//! How the host says which device: checked forms.

use std::fmt;

use super::HotplugError;

/// Longest name of a block device that is taken; the kernel's own limit is 32.
const MAXIMUM_NAME_BYTES: usize = 32;
/// Bridges on the way to a device, and the device.
const MAXIMUM_HOPS: usize = 16;
const MAXIMUM_SLOT: u8 = 0x1f;
const MAXIMUM_FUNCTION: u8 = 7;
/// From here on a first element names the bus of a root complex beside the first one.
const FIRST_EXPANDER: u8 = 0x20;
/// Elements of a path with such a first element: the bus, a port, the device.
const EXPANDER_ELEMENTS: usize = 3;

/// The way to a PCI device by slots: those of bridges, then its own. `02/03`, hexadecimal, each with `.FUNCTION` where it is not 0;
/// `20/00/01` on the root complex whose bus is 0x20.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PciPath {
    pub(super) root_bus: u8,
    pub(super) hops: Vec<Slot>,
}

/// A place on a bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Slot {
    pub(super) device: u8,
    pub(super) function: u8,
}

impl PciPath {
    const ERROR: HotplugError =
        HotplugError::Address { what: "PCI path", expected: "1 to 16 hexadecimal slots between '/'" };

    /// Takes a path of the wire.
    ///
    /// # Errors
    /// `HOTPLUG_ADDRESS`.
    pub fn parse(text: &str) -> Result<Self, HotplugError> {
        // Bounded before anything is kept.
        let elements = text.split('/').take(MAXIMUM_HOPS + 2).collect::<Vec<_>>();
        let (root_bus, slots) = match elements.as_slice() {
            [first, slots @ ..]
                if elements.len() >= EXPANDER_ELEMENTS && hex(first) >= Some(FIRST_EXPANDER) =>
            {
                (hex(first).ok_or(Self::ERROR)?, slots)
            }
            slots => (0, slots),
        };
        let hops = slots.iter().map(|slot| Slot::parse(slot)).collect::<Option<Vec<_>>>();
        Self::of(root_bus, hops.ok_or(Self::ERROR)?)
    }

    /// Takes the numbers of slots of the wire, on the first root complex.
    ///
    /// # Errors
    /// `HOTPLUG_ADDRESS`.
    pub fn of_slots(slots: &[u32]) -> Result<Self, HotplugError> {
        let slot = |slot: &u32| Some(Slot { device: u8::try_from(*slot).ok()?, function: 0 });
        let hops = slots.iter().take(MAXIMUM_HOPS + 1).map(slot).collect::<Option<Vec<_>>>();
        Self::of(0, hops.ok_or(Self::ERROR)?)
    }

    fn of(root_bus: u8, hops: Vec<Slot>) -> Result<Self, HotplugError> {
        let is_slot = |slot: &Slot| slot.device <= MAXIMUM_SLOT && slot.function <= MAXIMUM_FUNCTION;
        if hops.is_empty() || hops.len() > MAXIMUM_HOPS || !hops.iter().all(is_slot) {
            return Err(Self::ERROR);
        }
        Ok(Self { root_bus, hops })
    }
}

impl Slot {
    fn parse(text: &str) -> Option<Self> {
        let (device, function) = text.split_once('.').unwrap_or((text, "0"));
        Some(Self { device: hex(device)?, function: hex(function)? })
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}.{:x}", self.device, self.function)
    }
}

impl fmt::Display for PciPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}", self.root_bus)?;
        self.hops.iter().try_for_each(|slot| write!(f, "/{slot}"))
    }
}

/// One or two hexadecimal digits.
fn hex(text: &str) -> Option<u8> {
    let is_number = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_number.then(|| u8::from_str_radix(text, 16).ok()).flatten()
}

/// A disk on a SCSI bus: `ID:LUN`, decimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ScsiAddress {
    id: u32,
    unit: u32,
}

impl ScsiAddress {
    /// Takes an address of the wire.
    ///
    /// # Errors
    /// `HOTPLUG_ADDRESS`.
    pub fn parse(text: &str) -> Result<Self, HotplugError> {
        let error = HotplugError::Address { what: "SCSI address", expected: "ID:LUN, each 0 to 16383" };
        let number = |text: &str| {
            let is_number = (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| text.parse::<u32>().ok()).flatten().filter(|number| *number < 1 << 14)
        };
        let parts = text.split_once(':').and_then(|(id, unit)| Some((number(id)?, number(unit)?)));
        parts.map(|(id, unit)| Self { id, unit }).ok_or(error)
    }

    /// As the kernel's files of buses want it: channel, id, unit.
    pub(super) fn scan(&self) -> String {
        format!("0 {} {}", self.id, self.unit)
    }

    /// Whether a name of the kernel, `HOST:CHANNEL:ID:UNIT`, is this one's. Which host it is nobody says.
    pub(super) fn is(&self, name: &str) -> bool {
        let own = format!("0:{}:{}", self.id, self.unit);
        name.split_once(':').is_some_and(|(host, place)| host.parse::<u32>().is_ok() && place == own)
    }
}

impl fmt::Display for ScsiAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.id, self.unit)
    }
}

/// The name of a block device, one name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BlockName(String);

impl BlockName {
    /// Takes a path of the wire: `/dev/NAME`.
    ///
    /// # Errors
    /// `HOTPLUG_ADDRESS`.
    pub fn of_node(path: &str) -> Result<Self, HotplugError> {
        let is_name = |name: &&str| {
            let letters =
                name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
            (1..=MAXIMUM_NAME_BYTES).contains(&name.len()) && letters
        };
        let name = path.strip_prefix("/dev/").filter(is_name);
        let error = HotplugError::Address { what: "block device", expected: "/dev/ and one name" };
        name.map(|name| Self(name.to_owned())).ok_or(error)
    }

    /// As [`BlockName::of_node`], for names that begin in this way: a driver's disks, and no others.
    ///
    /// # Errors
    /// `HOTPLUG_ADDRESS`.
    pub fn of_node_with(path: &str, prefix: &str, expected: &'static str) -> Result<Self, HotplugError> {
        let name = Self::of_node(path)?;
        if !name.0.starts_with(prefix) {
            return Err(HotplugError::Address { what: "block device", expected });
        }
        Ok(name)
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BlockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
