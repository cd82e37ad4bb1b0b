//! What `/sys` shows of devices now.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

pub use cdh::dm::BlockDevice;
use rustix::fs::{FileType, major, minor, stat};
use rustix::io::Errno;

use super::HotplugError;
use super::address::{PciPath, ScsiAddress};

/// Longest attribute that is read: all that is needed here are numbers and names.
const ATTRIBUTE_BYTES: u64 = 256;

/// A device on the PCI bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciDevice {
    /// Domain, bus, device, function: `0000:01:02.0`.
    pub address: String,
    /// Its directory below `/sys`.
    pub directory: PathBuf,
}

impl PciDevice {
    /// A number that the device says of itself, such as `vendor`.
    ///
    /// # Errors
    /// `HOTPLUG_IO`.
    pub(crate) fn number(&self, attribute: &str) -> Result<u32, HotplugError> {
        let path = self.directory.join(attribute);
        let text = attribute_text(&path).map_err(HotplugError::io("read", &path))?;
        let number = text.strip_prefix("0x").and_then(|digits| u32::from_str_radix(digits, 16).ok());
        number.ok_or_else(|| HotplugError::io("read", &path)(io::ErrorKind::InvalidData.into()))
    }
}

/// An attribute without the end of its line.
pub(crate) fn attribute_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(ATTRIBUTE_BYTES).read_to_string(&mut text)?;
    Ok(text.trim_end().to_owned())
}

/// Names in a directory, in order; none if it is not there. A device may go while one looks.
pub(crate) fn names(directory: &Path) -> Result<Vec<String>, HotplugError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        Err(error) => return Err(HotplugError::io("list", directory)(error)),
    };
    let mut names = entries
        .filter_map(|entry| entry.ok().and_then(|entry| entry.file_name().into_string().ok()))
        .collect::<Vec<_>>();
    names.sort();
    Ok(names)
}

fn is_gone(error: &io::Error) -> bool {
    let gone = [Errno::NOENT, Errno::NOTDIR, Errno::NODEV, Errno::NXIO];
    Errno::from_io_error(error).is_some_and(|error| gone.contains(&error))
}

/// The device at the end of a path, if every bridge on the way and the device itself are there.
pub(super) fn pci(sys: &Path, path: &PciPath) -> Result<Option<PciDevice>, HotplugError> {
    let mut bus = format!("0000:{:02x}", path.root_bus);
    let mut directory = sys.join("devices").join(format!("pci{bus}"));
    for (count, slot) in path.hops.iter().enumerate() {
        let address = format!("{bus}:{slot}");
        directory.push(&address);
        if !directory.is_dir() {
            return Ok(None);
        }
        if count + 1 == path.hops.len() {
            return Ok(Some(PciDevice { address, directory }));
        }
        let buses = names(&directory.join("pci_bus"))?;
        let [below] = buses.as_slice() else { return Ok(None) };
        bus.clone_from(below);
    }
    Ok(None)
}

/// The disk of a virtio device on the PCI bus.
pub(super) fn block_below(
    sys: &Path,
    dev: &Path,
    device: &PciDevice,
) -> Result<Option<BlockDevice>, HotplugError> {
    let disks = children(device, "block")?;
    match disks.as_slice() {
        [] => Ok(None),
        [name] => block(sys, dev, name),
        more => Err(HotplugError::Ambiguous { what: device.address.clone(), found: more.len() }),
    }
}

/// The network device of a device on the PCI bus.
pub(super) fn net_below(device: &PciDevice) -> Result<Option<String>, HotplugError> {
    let own = names(&device.directory.join("net"))?;
    let found = if own.is_empty() { children(device, "net")? } else { own };
    match found.as_slice() {
        [] => Ok(None),
        [name] => Ok(Some(name.clone())),
        more => Err(HotplugError::Ambiguous { what: device.address.clone(), found: more.len() }),
    }
}

/// What the virtio device of a PCI device has of a class.
fn children(device: &PciDevice, class: &str) -> Result<Vec<String>, HotplugError> {
    let mut found = Vec::new();
    for child in names(&device.directory)?.iter().filter(|name| name.starts_with("virtio")) {
        found.extend(names(&device.directory.join(child).join(class))?);
    }
    Ok(found)
}

/// A disk by its name. It is there when its device file is.
pub(crate) fn block(sys: &Path, dev: &Path, name: &str) -> Result<Option<BlockDevice>, HotplugError> {
    let path = sys.join("class/block").join(name).join("dev");
    let text = match attribute_text(&path) {
        Ok(text) => text,
        Err(error) if is_gone(&error) => return Ok(None),
        Err(error) => return Err(HotplugError::io("read", &path)(error)),
    };
    let numbers =
        text.split_once(':').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    let Some((major, minor)) = numbers else {
        return Err(HotplugError::io("read", &path)(io::ErrorKind::InvalidData.into()));
    };
    let node = dev.join(name);
    Ok(is_node(&node, major, minor).then(|| BlockDevice { name: name.to_owned(), major, minor, node }))
}

/// A partition of a disk. What the table of the disk says is the host's word, and so is what is in the partition.
pub(super) fn partition(
    sys: &Path,
    dev: &Path,
    disk: &BlockDevice,
    number: u32,
) -> Result<Option<BlockDevice>, HotplugError> {
    let directory = sys.join("class/block").join(&disk.name);
    for name in names(&directory)?.iter().filter(|name| name.starts_with(&disk.name)) {
        let path = directory.join(name).join("partition");
        match attribute_text(&path) {
            Ok(text) if text.parse() == Ok(number) => return block(sys, dev, name),
            Ok(_) => {}
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(HotplugError::io("read", &path)(error)),
        }
    }
    Ok(None)
}

fn is_node(node: &Path, expected_major: u32, expected_minor: u32) -> bool {
    stat(node).is_ok_and(|found| {
        FileType::from_raw_mode(found.st_mode) == FileType::BlockDevice
            && (major(found.st_rdev), minor(found.st_rdev)) == (expected_major, expected_minor)
    })
}

/// A disk on any SCSI bus.
pub(super) fn scsi(
    sys: &Path,
    dev: &Path,
    address: &ScsiAddress,
) -> Result<Option<BlockDevice>, HotplugError> {
    let devices = sys.join("bus/scsi/devices");
    let mut disks = Vec::new();
    for name in names(&devices)?.iter().filter(|name| address.is(name)) {
        disks.extend(names(&devices.join(name).join("block"))?);
    }
    match disks.as_slice() {
        [] => Ok(None),
        [name] => block(sys, dev, name),
        more => Err(HotplugError::Ambiguous { what: format!("SCSI disk {address}"), found: more.len() }),
    }
}

/// Has every SCSI bus searched at this address. A bus that refuses is not the one.
pub(super) fn scan_scsi(sys: &Path, address: &ScsiAddress) {
    let hosts = sys.join("class/scsi_host");
    for host in names(&hosts).unwrap_or_default() {
        // Never made where it is not: a file of the kernel.
        let file = fs::OpenOptions::new().write(true).open(hosts.join(host).join("scan"));
        let _ = file.and_then(|mut file| io::Write::write_all(&mut file, address.scan().as_bytes()));
    }
}
