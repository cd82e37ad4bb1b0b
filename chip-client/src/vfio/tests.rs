//! Trees of sysfs that a host arranged, and numbers that a kernel could give.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::device::Region;
use super::dma::{confirm_unmapped, usable};
use super::leave::Leave;
use super::sysfs::{Group, Tree};
use super::*;
use crate::backing::Interrupt;
use crate::error::ChipError;

const CHIP: &str = "0000:01:00.0";

/// A tree with a chip that may be driven; each test spoils one thing.
struct Fake {
    root: PathBuf,
}

impl Fake {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("ik-vfio-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let fake = Self { root };
        fake.device(CHIP, Some("vfio-pci"), Some(7));
        fake.write("sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "N\n");
        fake.write("sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts", "N\n");
        fake.directory("dev/vfio");
        fake
    }

    fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.root.join(below)
    }

    fn directory(&self, below: impl AsRef<Path>) -> PathBuf {
        let path = self.path(below);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn write(&self, below: &str, text: &str) {
        let path = self.path(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A device as the kernel shows it.
    fn device(&self, address: &str, driver: Option<&str>, group: Option<u32>) {
        let device = self.directory(format!("sys/devices/pci0000:00/{address}"));
        self.directory("sys/bus/pci/devices");
        symlink(&device, self.path(format!("sys/bus/pci/devices/{address}"))).unwrap();
        if let Some(driver) = driver {
            let driver = self.directory(format!("sys/bus/pci/drivers/{driver}"));
            symlink(driver, device.join("driver")).unwrap();
        }
        if let Some(group) = group {
            let group = self.directory(format!("sys/kernel/iommu_groups/{group}"));
            fs::create_dir_all(group.join("devices")).unwrap();
            symlink(&group, device.join("iommu_group")).unwrap();
            symlink(&device, group.join("devices").join(address)).unwrap();
        }
    }

    /// A tree in which no driver has the chip.
    fn unbound(name: &str, vendor: &str, device: &str) -> Self {
        let fake = Self::new(name);
        fs::remove_file(fake.path(format!("sys/devices/pci0000:00/{CHIP}/driver"))).unwrap();
        fake.write(&format!("sys/devices/pci0000:00/{CHIP}/vendor"), vendor);
        fake.write(&format!("sys/devices/pci0000:00/{CHIP}/device"), device);
        fake.write(&format!("sys/devices/pci0000:00/{CHIP}/driver_override"), "(null)");
        fake.write("sys/bus/pci/drivers_probe", "");
        fake
    }

    /// What was asked of the kernel: which driver, and which device to look at.
    fn written(&self) -> [String; 2] {
        let read = |below: String| fs::read_to_string(self.path(below)).unwrap();
        let driver = read(format!("sys/devices/pci0000:00/{CHIP}/driver_override"));
        [driver, read("sys/bus/pci/drivers_probe".to_owned())]
    }

    fn group(&self) -> Result<Group, VfioError> {
        Tree::new(&self.root).group_of(CHIP.parse().unwrap())
    }

    /// Refused with this code; no device file was touched, because there is none.
    #[track_caller]
    fn assert_refused(&self, code: &str) -> VfioError {
        let error = self.group().unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        let opened = VfioDevice::open_below(&self.root, CHIP.parse().unwrap()).unwrap_err();
        assert_eq!(opened.code(), code, "{opened}");
        error
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

#[test]
fn a_chip_alone_in_its_group_is_accepted() {
    let fake = Fake::new("alone");
    assert_eq!(fake.group().unwrap(), Group(7));
    // Then the device files are asked for.
    let error = VfioDevice::open_below(&fake.root, CHIP.parse().unwrap()).unwrap_err();
    assert!(
        matches!(&error, ChipError::Vfio(VfioError::Open { path, .. }) if path.ends_with("dev/vfio/vfio"))
    );
}

#[test]
fn bridges_and_idle_devices_in_the_group_do_no_harm() {
    let fake = Fake::new("bridge");
    fake.device("0000:00:1c.0", Some("pcieport"), Some(7));
    fake.device("0000:01:00.1", Some("vfio-pci"), Some(7));
    fake.device("0000:01:00.2", None, Some(7));
    assert_eq!(fake.group().unwrap(), Group(7));
}

#[test]
fn a_device_that_is_not_there_is_an_error() {
    let fake = Fake::new("absent");
    let error = Tree::new(&fake.root).group_of("0000:02:00.0".parse().unwrap()).unwrap_err();
    assert_eq!(error.code(), "CHIP_VFIO_NO_DEVICE");
}

#[test]
fn a_device_without_an_iommu_is_refused() {
    let fake = Fake::new("bare");
    fs::remove_file(fake.path(format!("sys/devices/pci0000:00/{CHIP}/iommu_group"))).unwrap();
    fake.assert_refused("CHIP_VFIO_NO_IOMMU");
}

#[test]
fn a_device_of_another_driver_is_refused() {
    for driver in [None, Some("nvme")] {
        let fake = Fake::new("driver");
        let link = fake.path(format!("sys/devices/pci0000:00/{CHIP}/driver"));
        fs::remove_file(&link).unwrap();
        if let Some(driver) = driver {
            symlink(fake.directory(format!("sys/bus/pci/drivers/{driver}")), &link).unwrap();
        }
        let text = fake.assert_refused("CHIP_VFIO_NOT_BOUND").to_string();
        assert!(text.contains(driver.unwrap_or("none")) && text.contains("driver_override"), "{text}");
    }
}

#[test]
fn evil_host_offers_no_iommu_mode_by_group() {
    let fake = Fake::new("noiommu-group");
    fake.write("sys/kernel/iommu_groups/7/name", "vfio-noiommu\n");
    fake.assert_refused("CHIP_VFIO_NO_IOMMU_MODE");
}

#[test]
fn evil_host_offers_no_iommu_mode_by_device_node() {
    let fake = Fake::new("noiommu-node");
    fake.write("dev/vfio/noiommu-7", "");
    fake.assert_refused("CHIP_VFIO_NO_IOMMU_MODE");
}

#[test]
fn evil_host_offers_no_iommu_mode_by_parameter() {
    for value in ["Y\n", "1\n", "\n", "maybe"] {
        let fake = Fake::new("noiommu-parameter");
        fake.write("sys/module/vfio/parameters/enable_unsafe_noiommu_mode", value);
        fake.assert_refused("CHIP_VFIO_NO_IOMMU_MODE");
    }
    // A kernel that was built without the mode has no such parameter.
    let fake = Fake::new("noiommu-absent");
    fs::remove_file(fake.path("sys/module/vfio/parameters/enable_unsafe_noiommu_mode")).unwrap();
    fake.group().unwrap();
}

#[test]
fn evil_host_allows_unsafe_interrupts() {
    let fake = Fake::new("interrupts");
    let parameter = "sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts";
    fake.write(parameter, "Y\n");
    fake.assert_refused("CHIP_VFIO_UNSAFE_INTERRUPTS");
    // The module may come later, with the container; then its parameter must be there.
    fs::remove_file(fake.path(parameter)).unwrap();
    fake.group().unwrap();
    let error = Tree::new(&fake.root).refuse_unsafe_interrupts(true).unwrap_err();
    assert_eq!(error.code(), "CHIP_VFIO_UNSAFE_INTERRUPTS");
}

#[test]
fn evil_host_puts_another_device_into_the_group() {
    let fake = Fake::new("company");
    fake.device("0000:01:00.1", Some("nvme"), Some(7));
    fake.device("0000:01:00.2", Some("virtio-pci"), Some(7));
    let text = fake.assert_refused("CHIP_VFIO_GROUP_SHARED").to_string();
    assert!(text.contains("0000:01:00.1 (nvme), 0000:01:00.2 (virtio-pci)"), "{text}");
    // A group that the device is not in is no group to rely on.
    let fake = Fake::new("stranger");
    fs::remove_file(fake.path(format!("sys/kernel/iommu_groups/7/devices/{CHIP}"))).unwrap();
    fake.assert_refused("CHIP_VFIO_GROUP_SHARED");
}

#[test]
fn nothing_but_a_chip_is_bound() {
    for (vendor, device) in [("0x8086", "0x0001"), ("0x494b", "0x0002"), ("", "0x0001"), ("0x494b", "chip")] {
        let fake = Fake::unbound("stranger-unbound", vendor, device);
        let error = Tree::new(&fake.root).bind(CHIP.parse().unwrap()).unwrap_err();
        assert_eq!(error.code(), "CHIP_NOT_A_CHIP");
        assert_eq!(fake.written(), ["(null)", ""], "nothing was asked of the kernel");
    }
}

#[test]
fn an_idle_chip_is_given_to_vfio_pci() {
    let fake = Fake::unbound("idle", "0x494b\n", "0x0001\n");
    // No kernel acts on it here.
    let error = Tree::new(&fake.root).bind(CHIP.parse().unwrap()).unwrap_err();
    assert_eq!(error.code(), "CHIP_VFIO_NOT_BOUND");
    assert_eq!(fake.written(), ["vfio-pci", CHIP]);
    // A chip that some driver has is not taken away from it.
    for (driver, code) in [("vfio-pci", None), ("nvme", Some("CHIP_VFIO_NOT_BOUND"))] {
        let fake = Fake::unbound("taken", "0x494b\n", "0x0001\n");
        let link = fake.path(format!("sys/devices/pci0000:00/{CHIP}/driver"));
        symlink(fake.directory(format!("sys/bus/pci/drivers/{driver}")), link).unwrap();
        let result = Tree::new(&fake.root).bind(CHIP.parse().unwrap());
        assert_eq!(result.err().map(|error| error.code()), code);
        assert_eq!(fake.written(), ["(null)", ""]);
    }
}

#[test]
fn chips_are_found_by_what_they_say() {
    for (name, vendor, device, found) in [
        ("found", "0x494b\n", "0x0001\n", true),
        ("other-vendor", "0x8086\n", "0x0001\n", false),
        ("other-device", "0x494b\n", "0x0002\n", false),
        ("no-number", "494b\n", "chip\n", false),
    ] {
        let fake = Fake::unbound(name, vendor, device);
        let expected: Vec<PciAddress> = found.then(|| CHIP.parse().unwrap()).into_iter().collect();
        assert_eq!(Tree::new(&fake.root).chips().unwrap(), expected, "{name}");
    }
}

#[test]
fn addresses_have_one_form() {
    let address: PciAddress = "00aF:01:1f.7".parse().unwrap();
    assert_eq!(address.to_string(), "00af:01:1f.7");
    for text in [
        "",
        "01:00.0",
        "0000:01:00",
        "0000:01:20.0",
        "0000:01:00.8",
        "0000:1:00.0",
        "0000:01:00.0/..",
        "../:01:00.0",
        "+000:01:00.0",
        "0000:01:00.0 ",
        "000g:01:00.0",
    ] {
        assert_eq!(text.parse::<PciAddress>().unwrap_err().code(), "CHIP_VFIO_ADDRESS", "{text}");
    }
}

#[test]
fn unmapping_of_less_is_an_error() {
    confirm_unmapped(8_192, 8_192).unwrap();
    for found in [0, 4_096, 12_288] {
        assert_eq!(confirm_unmapped(8_192, found).unwrap_err().code(), "CHIP_VFIO_UNMAP");
    }
}

#[test]
fn accesses_stay_inside_their_region() {
    let region = Region { offset: 7 << 40, size: 0x1000 };
    assert_eq!(region.place(0xFFC, 4).unwrap(), (7 << 40) + 0xFFC);
    for (offset, len) in [(0xFFD, 4), (0x1000, 1), (u64::MAX, 4), (1 << 40, 4)] {
        assert_eq!(region.place(offset, len).unwrap_err().code(), "CHIP_VFIO_INTERFACE");
    }
}

#[test]
fn a_device_that_is_asked_back_is_gone() {
    let request = Interrupt::new().unwrap();
    let bell = std::os::fd::AsFd::as_fd(&request).try_clone_to_owned().unwrap();
    let leave = Leave::new(Some(request));
    let mut silenced = 0;
    leave.require_ours(|| silenced += 1).unwrap();
    rustix::io::write(&bell, &1u64.to_ne_bytes()).unwrap();
    for _ in 0..3 {
        assert_eq!(leave.require_ours(|| silenced += 1).unwrap_err().code(), "CHIP_GONE");
    }
    assert_eq!(silenced, 1, "its DMA was ended once");
    Leave::new(None).require_ours(|| unreachable!()).unwrap();
}

/// `struct vfio_iommu_type1_info` with capabilities behind it.
fn info(page_sizes: u64, capabilities: &[(u16, &[u8])]) -> Vec<u8> {
    let flags = 1 | if capabilities.is_empty() { 0 } else { 2u32 };
    let mut bytes = [24u32.to_ne_bytes(), flags.to_ne_bytes()].concat();
    bytes.extend(page_sizes.to_ne_bytes());
    bytes.extend([24u32.to_ne_bytes(), [0; 4]].concat());
    for (index, (id, content)) in capabilities.iter().enumerate() {
        let next = bytes.len() + 8 + content.len();
        let next = if index + 1 == capabilities.len() { 0 } else { u32::try_from(next).unwrap() };
        bytes.extend(id.to_ne_bytes());
        bytes.extend(1u16.to_ne_bytes());
        bytes.extend(next.to_ne_bytes());
        bytes.extend(*content);
    }
    bytes
}

fn ranges(ranges: &[(u64, u64)]) -> Vec<u8> {
    let mut bytes = u32::try_from(ranges.len()).unwrap().to_ne_bytes().to_vec();
    bytes.extend([0; 4]);
    bytes.extend(ranges.iter().flat_map(|(first, last)| [first.to_ne_bytes(), last.to_ne_bytes()].concat()));
    bytes
}

#[test]
fn ranges_of_the_iommu_are_read() {
    let two = ranges(&[(0, 0xFEDF_FFFF), (0xFEF0_0000, (1 << 39) - 1)]);
    let migration = [0; 24];
    let found = usable(&info(0x4020_1000, &[(2, &migration), (1, &two)])).unwrap();
    assert_eq!(found, [0..=0xFEDF_FFFF, 0xFEF0_0000..=(1 << 39) - 1]);
    assert_eq!(usable(&info(4_096, &[])).unwrap(), [0..=u64::MAX]);
    assert_eq!(usable(&info(4_096, &[(3, &[0; 8])])).unwrap(), [0..=u64::MAX]);
}

#[test]
fn descriptions_of_the_iommu_that_do_not_hold_are_refused() {
    let refused = |bytes: &[u8]| assert_eq!(usable(bytes).unwrap_err().code(), "CHIP_VFIO_INTERFACE");
    refused(&info(1 << 16, &[]));
    let whole = info(4_096, &[(1, &ranges(&[(0, 1 << 30)]))]);
    for len in 0..whole.len() {
        refused(&whole[..len]);
    }
    let mut many = ranges(&[(0, 1)]);
    many[..4].copy_from_slice(&u32::MAX.to_ne_bytes());
    refused(&info(4_096, &[(1, &many)]));
    // A chain that leads back to itself.
    let mut circle = info(4_096, &[(9, &[0; 8]), (9, &[0; 8])]);
    circle[44..48].copy_from_slice(&24u32.to_ne_bytes());
    refused(&circle);
}
