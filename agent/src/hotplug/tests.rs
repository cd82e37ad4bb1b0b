//! Devices in a tree that looks like `/sys`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use tempfile::TempDir;

use super::*;

const SHORT: Duration = Duration::from_millis(150);
const LONG: Duration = Duration::from_secs(20);

struct Tree(TempDir);

impl Tree {
    fn new() -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(tree.path("dev")).unwrap();
        tree
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn hotplug(&self, limit: Duration) -> Hotplug {
        Hotplug::looking(&self.path("sys"), &self.path("dev"), limit)
    }

    /// A disk below a directory of a device.
    fn disk(&self, device: &str, name: &str, minor: u32) {
        let directory = format!("sys/{device}/block/{name}");
        self.file(&format!("{directory}/dev"), &format!("254:{minor}\n"));
        fs::create_dir_all(self.path("sys/class/block")).unwrap();
        symlink(self.path(&directory), self.path(&format!("sys/class/block/{name}"))).unwrap();
        let node = self.path(&format!("dev/{name}"));
        mknodat(CWD, &node, FileType::BlockDevice, Mode::RUSR, makedev(254, minor)).unwrap();
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, HotplugError>) -> &'static str {
    result.unwrap_err().code()
}

#[test]
fn addresses_of_runtimes_are_taken() {
    assert_eq!(PciPath::parse("02/03").unwrap().to_string(), "00/02.0/03.0");
    assert_eq!(PciPath::parse("1f.7").unwrap().to_string(), "00/1f.7");
    assert_eq!(PciPath::parse("20/00/01").unwrap().to_string(), "20/00.0/01.0");
    assert_eq!(PciPath::of_slots(&[2, 3]).unwrap(), PciPath::parse("02/03").unwrap());
    assert_eq!(ScsiAddress::parse("0:12").unwrap().scan(), "0 0 12");
    assert!(ScsiAddress::parse("0:12").unwrap().is("6:0:0:12"));
    assert!(!ScsiAddress::parse("0:12").unwrap().is("6:0:0:1"));
    assert_eq!(BlockName::of_node("/dev/vda").unwrap().as_str(), "vda");
}

#[test]
fn evil_host_device_address_that_is_a_path() {
    let many = ["01"; 17].join("/");
    let endless = "/".repeat(1 << 20);
    for path in
        ["", "/", "..", "02/..", "../../class", "20", "02/3g", "123", "02/-1", "02.8", "+2", &many, &endless]
    {
        assert_eq!(code(PciPath::parse(path)), "HOTPLUG_ADDRESS", "{path:.20}");
    }
    assert_eq!(code(PciPath::of_slots(&[])), "HOTPLUG_ADDRESS");
    assert_eq!(code(PciPath::of_slots(&[32])), "HOTPLUG_ADDRESS");
    assert_eq!(code(PciPath::of_slots(&[256])), "HOTPLUG_ADDRESS");
    for address in ["", ":", "0", "0:1:2", "-1:0", "0:16384", "+1:0", "0:../1", "0: 1"] {
        assert_eq!(code(ScsiAddress::parse(address)), "HOTPLUG_ADDRESS", "{address}");
    }
    let long = format!("/dev/{}", "a".repeat(33));
    for node in
        ["", "vda", "/dev/", "/dev/..", "/dev/mapper/x", "/dev/../etc/passwd", "/dev/a b", long.as_str()]
    {
        assert_eq!(code(BlockName::of_node(node)), "HOTPLUG_ADDRESS", "{node}");
    }
    assert_eq!(code(BlockName::of_node_with("/dev/sda", "pmem", "pmem")), "HOTPLUG_ADDRESS");
}

#[tokio::test]
async fn disks_and_links_are_found_behind_bridges() {
    let tree = Tree::new();
    let bridge = "sys/devices/pci0000:00/0000:00:02.0";
    fs::create_dir_all(tree.path(&format!("{bridge}/pci_bus/0000:01"))).unwrap();
    tree.disk("devices/pci0000:00/0000:00:02.0/0000:01:03.0/virtio4", "vdb", 16);
    fs::create_dir_all(tree.path(&format!("{bridge}/0000:01:04.0/virtio5/net/eth7"))).unwrap();
    let expander = "sys/devices/pci0000:20/0000:20:00.0";
    fs::create_dir_all(tree.path(&format!("{expander}/pci_bus/0000:21"))).unwrap();
    fs::create_dir_all(tree.path(&format!("{expander}/0000:21:01.0"))).unwrap();
    tree.file("sys/devices/pci0000:20/0000:20:00.0/0000:21:01.0/vendor", "0x1af4\n");
    let hotplug = tree.hotplug(SHORT);
    let path = |text| PciPath::parse(text).unwrap();

    let disk = hotplug.block_by_pci(&path("02/03")).await.unwrap();
    assert_eq!((disk.name.as_str(), disk.major, disk.minor), ("vdb", 254, 16));
    assert_eq!(disk.node, tree.path("dev/vdb"));
    assert_eq!(hotplug.net_by_pci(&path("02/04")).await.unwrap(), "eth7");
    let device = hotplug.pci(&path("20/00/01")).await.unwrap();
    assert_eq!(device.address, "0000:21:01.0");
    assert_eq!(device.number("vendor").unwrap(), 0x1af4);
    // Another kind of device, and another place.
    for absent in ["02/04", "02/05", "03/03"] {
        let error = hotplug.block_by_pci(&path(absent)).await.unwrap_err();
        assert_eq!(error.code(), "HOTPLUG_TIMEOUT");
    }
}

#[tokio::test]
async fn a_disk_without_its_node_is_not_there() {
    let tree = Tree::new();
    tree.disk("devices/platform/x", "vdc", 32);
    let name = BlockName::of_node("/dev/vdc").unwrap();
    assert_eq!(tree.hotplug(SHORT).block_by_name(&name).await.unwrap().minor, 32);
    // Of another device.
    tree.file("sys/devices/platform/x/block/vdc/dev", "254:33\n");
    let error = tree.hotplug(SHORT).block_by_name(&name).await.unwrap_err();
    assert_eq!(error.code(), "HOTPLUG_TIMEOUT");
    fs::remove_file(tree.path("dev/vdc")).unwrap();
    fs::write(tree.path("dev/vdc"), "no device").unwrap();
    assert_eq!(code(tree.hotplug(SHORT).block_by_name(&name).await), "HOTPLUG_TIMEOUT");
}

#[tokio::test]
async fn a_late_disk_is_waited_for() {
    let tree = Tree::new();
    let hotplug = tree.hotplug(LONG);
    let name = BlockName::of_node("/dev/pmem1").unwrap();
    let waiting = {
        let (hotplug, name) = (hotplug.clone(), name.clone());
        tokio::spawn(async move { hotplug.block_by_name(&name).await })
    };
    tokio::task::yield_now().await;
    tree.disk("devices/x", "pmem1", 1);
    assert_eq!(waiting.await.unwrap().unwrap().name, "pmem1");
}

#[tokio::test]
async fn runtimes_are_told_what_was_waited_for() {
    let tree = Tree::new();
    let error = tree.hotplug(SHORT).block_by_pci(&PciPath::parse("02").unwrap()).await.unwrap_err();
    let (_, text) = RpcError::from(error).status();
    assert_eq!(text, "Timeout after 0s waiting for uevent block device at PCI path 00/02.0");
    assert_eq!(LIMIT.as_secs(), 3);
}

#[tokio::test]
async fn scsi_buses_are_searched() {
    let tree = Tree::new();
    tree.file("sys/class/scsi_host/host6/scan", "");
    tree.disk("bus/scsi/devices/6:0:1:2", "sda", 0);
    let address = ScsiAddress::parse("1:2").unwrap();
    assert_eq!(tree.hotplug(SHORT).block_by_scsi(&address).await.unwrap().name, "sda");
    let scan = || fs::read_to_string(tree.path("sys/class/scsi_host/host6/scan")).unwrap();
    assert_eq!(scan(), "", "nothing is searched for what is there");

    let absent = ScsiAddress::parse("1:3").unwrap();
    assert_eq!(code(tree.hotplug(SHORT).block_by_scsi(&absent).await), "HOTPLUG_TIMEOUT");
    assert_eq!(scan(), "0 1 3");
    // Two buses with a disk of this address: nobody says which is meant.
    tree.disk("bus/scsi/devices/7:0:1:2", "sdb", 1);
    assert_eq!(code(tree.hotplug(SHORT).block_by_scsi(&address).await), "HOTPLUG_AMBIGUOUS");
}

#[test]
fn memory_that_came_is_put_online() {
    let tree = Tree::new();
    let state = |name: &str| format!("sys/devices/system/memory/{name}/state");
    tree.file(&state("memory32"), "offline\n");
    tree.file(&state("memory33"), "online\n");
    tree.file(&state("memoryx"), "offline\n");
    assert_eq!(memory::online(&tree.path("sys")), 1);
    let read = |name: &str| fs::read_to_string(tree.path(&state(name))).unwrap();
    assert!(read("memory32").starts_with("online"));
    assert_eq!(read("memoryx"), "offline\n");
    assert_eq!(memory::online(Path::new("/nonexistent")), 0);
}
