use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use protocol::oci::{Linux, LinuxDevice, LinuxDeviceCgroup, LinuxResources, Process};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use super::*;
use crate::log::{Level, Log};
use crate::reaper::Reaper;

struct Room {
    directory: tempfile::TempDir,
    hotplug: Hotplug,
    storages: Storages,
}

impl Room {
    /// With a disk `vdb`, 254:16, and a PCI device at slot 3.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir_all(at("sys/class/block/vdb")).unwrap();
        fs::create_dir_all(at("dev")).unwrap();
        fs::write(at("sys/class/block/vdb/dev"), "254:16\n").unwrap();
        mknodat(CWD, at("dev/vdb"), FileType::BlockDevice, Mode::RUSR, makedev(254, 16)).unwrap();
        let log = Log::console();
        log.set_level(Level::Critical);
        let reaper = Arc::new(Reaper::start(&log).unwrap());
        let storages = Storages::new(&at("run"), &at("sys"), &at("dev"), reaper, &log);
        let hotplug = Hotplug::looking(&at("sys"), &at("dev"), Duration::ZERO);
        let room = Self { directory, hotplug, storages };
        room.pci(0x1234, 0x5678);
        room
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn pci(&self, vendor: u16, device: u16) {
        let directory = self.at("sys/devices/pci0000:00/0000:00:03.0");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("vendor"), format!("{vendor:#06x}\n")).unwrap();
        fs::write(directory.join("device"), format!("{device:#06x}\n")).unwrap();
    }

    async fn apply(&self, devices: &[Device], spec: &mut Spec) -> Result<(), DeviceError> {
        let before = spec.clone();
        let result = apply(devices, spec, &self.hotplug, &self.storages).await;
        assert!(result.is_ok() || *spec == before, "as before");
        result
    }
}

fn disk() -> Device {
    Device {
        type_: "mmioblk".to_owned(),
        vm_path: "/dev/vdb".to_owned(),
        container_path: "/dev/xvda".to_owned(),
        ..Device::default()
    }
}

fn passed(option: &str) -> Device {
    Device {
        type_: "vfio-pci-gk".to_owned(),
        id: "group".to_owned(),
        container_path: "/dev/vfio/1".to_owned(),
        options: vec![option.to_owned()],
        ..Device::default()
    }
}

fn rule(allow: bool, major: i64, minor: i64) -> LinuxDeviceCgroup {
    LinuxDeviceCgroup {
        Allow: allow,
        Type: "b".to_owned(),
        Major: major,
        Minor: minor,
        Access: "rw".to_owned(),
        ..LinuxDeviceCgroup::default()
    }
}

fn spec() -> Spec {
    let device = LinuxDevice {
        Path: "/dev/xvda".to_owned(),
        Type: "b".to_owned(),
        Major: 8,
        Minor: 3,
        ..LinuxDevice::default()
    };
    let resources = LinuxResources {
        Devices: vec![rule(false, -1, -1), rule(true, 8, 3), rule(true, 8, 4)],
        ..LinuxResources::default()
    };
    let linux = Linux { Devices: vec![device], Resources: Some(resources).into(), ..Linux::default() };
    let process = Process {
        Env: vec!["PCIDEVICE_X=0000:aa:00.0,0000:bb:00.0".to_owned(), "OTHER=0000:aa:00.0".to_owned()],
        ..Process::default()
    };
    Spec { Linux: Some(linux).into(), Process: Some(process).into(), ..Spec::default() }
}

#[tokio::test]
async fn devices_get_the_numbers_of_the_guest() {
    let (room, mut spec) = (Room::new(), spec());
    room.apply(&[disk(), passed("0000:aa:00.0=03")], &mut spec).await.unwrap();
    let device = &spec.Linux.Devices[0];
    assert_eq!((device.Major, device.Minor, device.Type.as_str()), (254, 16, "b"));
    let rules = &spec.Linux.Resources.Devices;
    let rules = rules.iter().map(|rule| (rule.Allow, rule.Major, rule.Minor, rule.Access.as_str()));
    let expected = [(false, -1, -1, "rw"), (true, 8, 4, "rw"), (true, 254, 16, "rwm")];
    assert_eq!(rules.collect::<Vec<_>>(), expected);
    assert_eq!(spec.Process.Env, ["PCIDEVICE_X=0000:00:03.0,0000:bb:00.0", "OTHER=0000:aa:00.0"]);
}

#[tokio::test]
async fn evil_host_hot_adds_a_chip() {
    let (room, mut spec) = (Room::new(), spec());
    room.pci(VENDOR_ID, DEVICE_ID);
    let error = room.apply(&[disk(), passed("0000:aa:00.0=03")], &mut spec).await.unwrap_err();
    assert_eq!(error.code(), "DEVICE_FLOOR");
    for kind in ["vfio-pci", "vfio"] {
        let group = Device { type_: kind.to_owned(), ..passed("0000:aa:00.0=03") };
        assert_eq!(room.apply(&[group], &mut spec).await.unwrap_err().code(), "DEVICE_FLOOR");
    }
}

#[tokio::test]
async fn a_device_that_the_specification_lacks_is_an_error() {
    let room = Room::new();
    let other = Device { container_path: "/dev/other".to_owned(), ..disk() };
    let error = room.apply(&[other], &mut spec()).await.unwrap_err();
    assert!(error.to_string().contains("Missing devices in OCI spec: /dev/other"));
    assert_eq!(room.apply(&[disk()], &mut Spec::default()).await.unwrap_err().code(), "DEVICE_MISSING");
    assert_eq!(room.apply(&[disk(), disk()], &mut spec()).await.unwrap_err().code(), "DEVICE_TWICE");
    let unknown = Device { type_: "warp".to_owned(), ..disk() };
    let error = room.apply(&[unknown], &mut spec()).await.unwrap_err();
    assert_eq!(RpcError::from(error).status().1, "Failed to find the device handler warp");
    let bare = Device { vm_path: String::new(), ..disk() };
    assert_eq!(room.apply(&[bare], &mut spec()).await.unwrap_err().code(), "DEVICE_FORM");
}

#[tokio::test]
async fn evil_host_gives_a_container_the_disk_of_a_storage() {
    let room = Room::new();
    let device = BlockDevice { name: "vdb".to_owned(), major: 254, minor: 16, node: room.at("dev/vdb") };
    let claim = room.storages.claims().take(&device, "/somewhere").unwrap();
    assert_eq!(room.apply(&[disk()], &mut spec()).await.unwrap_err().code(), "DEVICE_TAKEN");
    let as_store = || Device { container_path: TRUSTED_STORE.to_owned(), ..disk() };
    let mut with_store = spec();
    let node = with_store.Linux.as_mut().unwrap().Devices.first_mut().unwrap();
    TRUSTED_STORE.clone_into(&mut node.Path);
    assert_eq!(room.apply(&[as_store()], &mut with_store.clone()).await.unwrap_err().code(), "DEVICE_TAKEN");
    drop(claim);
    fs::create_dir_all(room.at("sys/class/block/vdb/holders/dm-3")).unwrap();
    assert_eq!(room.apply(&[disk()], &mut spec()).await.unwrap_err().code(), "DEVICE_TAKEN");
    assert_eq!(room.apply(&[as_store()], &mut with_store.clone()).await.unwrap_err().code(), "DEVICE_TAKEN");
    // Below the store it is asked for as the store, and as nothing else.
    let _store = room.storages.claims().take(&device, "/run/kata-containers/image").unwrap();
    assert_eq!(room.apply(&[disk()], &mut spec()).await.unwrap_err().code(), "DEVICE_TAKEN");
    room.apply(&[as_store()], &mut with_store).await.unwrap();
}
