//! Devices that a host plugs in for containers, disks that the guest verifies, and a chip that comes while it runs: over vsock, as the guest's
//! kernel shows them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use protocol::agent::{CreateContainerRequest, Device};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tests::agent_client::checks::{assert_mounted, assert_settles, ok, read_until, refused, state};
use tests::agent_client::requests::{create, read, remove, rootfs, sandbox, start, wait, write};
use tests::agent_client::storages::{bound, device, node, storage, volume};
use tests::agent_client::{ALLOW_ALL, AgentClient, serving, spec};
use tests::disk_images::{Verity, blank, ext4, find, flip, root_tree};
use tests::emulator::Emulator;
use tests::programs::{Programs, User};
use tests::vm::{bind_chips, shell};
use tests::work::Work;
use ttrpc::context::with_duration;
use xtask::vm::{Guest, Tools};

/// Ports into which something is plugged.
const PORTS: [u8; 5] = [0x13, 0x14, 0x15, 0x16, 0x17];
const CHIP_PORT: u8 = 0x18;
/// What is on the verified disk, so often that it takes whole blocks.
const MARK: &str = "what the guest verified before it was read\n";
const LONG: Duration = Duration::from_secs(60);

/// The host: its disks, and a chip that nobody has yet.
struct Host {
    programs: Programs,
    work: Work,
    verified: (PathBuf, Verity),
    chip: Emulator,
}

impl Host {
    fn new() -> Self {
        let (programs, work) = (Programs::built(), Work::create(User::Same));
        let tools = Tools::obtain(&|text| eprintln!("{text}")).unwrap();
        let tree = work.directory("tree");
        root_tree(&tree, &tools.busybox());
        std::fs::write(tree.join("data"), MARK.repeat(4096)).unwrap();
        std::fs::create_dir(tree.join("mnt")).unwrap();
        let image = ext4(&work, "verified", 16, &tree);
        let verity = Verity::append(&image, &[0xa5; 32]);
        let chip = Emulator::start(&programs, &work, "chip", &Emulator::INSECURE.map(OsString::from));
        Self { programs, work, verified: (image, verity), chip }
    }

    fn boot(&self) -> Guest {
        let mut spec = spec(&self.programs, &self.work, ALLOW_ALL)
            .modules(&["dm_verity", "vfio_iommu_type1", "vfio_pci"])
            .watch("chip", self.chip.id())
            .disk_at(&self.verified.0, 0x10)
            .disk_at(&self.disk("fixed"), 0x11)
            .scsi(&[]);
        for slot in PORTS.into_iter().chain([CHIP_PORT]) {
            spec = spec.port(slot);
        }
        serving(spec)
    }

    /// A disk that begins with its name.
    fn disk(&self, name: &str) -> PathBuf {
        let image = blank(&self.work, name, 4);
        let mut bytes = std::fs::read(&image).unwrap();
        bytes.splice(..16, format!("{name:<15}\n").into_bytes());
        self.work.write(format!("{name}.img"), bytes)
    }

    /// Plugs a disk in.
    fn plug(&self, guest: &mut Guest, name: &str, device: Value) {
        let drive = json!({
            "driver": "raw", "node-name": name,
            "file": { "driver": "file", "filename": self.disk(name) },
        });
        guest.qmp("blockdev-add", &drive).unwrap();
        let mut device = device;
        let members = device.as_object_mut().unwrap();
        members.insert("drive".to_owned(), name.into());
        members.insert("id".to_owned(), name.into());
        guest.qmp("device_add", &device).unwrap();
    }
}

/// A container with this device at `/dev/given`, whose specification has it with the host's numbers.
fn with_device(container: &str, root: &str, given: Device, script: &str) -> CreateContainerRequest {
    let mut request = create(container, root, &["sh", "-c", script]);
    let linux = request.OCI.as_mut().unwrap().Linux.as_mut().unwrap();
    linux.Devices.push(node(&given.container_path, "b", (8, 4000)));
    request.devices.push(given);
    request
}

fn said(guest: &Guest, client: &AgentClient, container: &str) -> (String, i32) {
    ok(guest, client.start_container(&start(container)));
    let said = read_until(client, container, "", "\0");
    (said, ok(guest, client.wait_process(&wait(container, ""))).status)
}

// COMPAT: CreateContainer same: devices by PCI path, SCSI address and name are waited for; the text where one does not come
// COMPAT: CreateContainer stricter: no group of VFIO and no sealing chip is a container's
#[test]
fn devices_verified_disks_and_a_chip_that_comes_late() {
    let host = Host::new();
    let mut guest = host.boot();
    let client = AgentClient::connect(&guest);
    ok(&guest, client.create_sandbox(&sandbox("pod1")));
    let root = rootfs(&guest, "root");
    ok(&guest, client.create_container(&create("warm", &root, &["true"])));
    assert_eq!(said(&guest, &client, "warm").1, 0);
    ok(&guest, client.remove_container(&remove("warm")));
    shell(&guest, "mkdir -p /run/kata-containers/sandbox/storage");
    let before = state(&guest);

    a_disk_that_comes_during_the_call(&host, &mut guest, &client, &root);
    assert_settles(&guest, &before, "devices that were plugged in");
    devices_that_nobody_gets(&guest, &client, &root, &before);
    a_verified_root(&host, &guest, &client, &before);
    assert_settles(&guest, &before, "mounts into a verified root");
    evil_host_flips_a_bit(&host, &guest, &client, &before);
    evil_host_names_another_tree(&host, &guest, &client, &before);
    evil_host_hot_adds_a_chip(&host, &mut guest, &client, &root);
    guest.power_off().unwrap();
}

const LOOK: &str = "stat -c '%F %t:%T %a' /dev/given; head -c 16 /dev/given; \
                    echo written | dd of=/dev/given bs=512 seek=1 conv=notrunc 2>/dev/null; \
                    dd if=/dev/given bs=512 skip=1 count=1 2>/dev/null | head -c 8; echo; \
                    mknod /dev/other b $OTHER && head -c 1 /dev/other > /dev/null || echo only this one";

/// Each kind of disk is plugged in after the runtime has asked for the container.
fn a_disk_that_comes_during_the_call(host: &Host, guest: &mut Guest, client: &AgentClient, root: &str) {
    let other = shell(guest, "cat /sys/class/block/vda/dev | tr : ' '").trim().to_owned();
    let ports = PORTS.map(|slot| {
        let path = format!("{slot:02x}/00");
        let bus = json!({ "driver": "virtio-blk-pci", "bus": format!("port{slot:02x}") });
        (device("blk", &path, "", "/dev/given"), bus)
    });
    let units = [3_u32, 4].map(|unit| {
        let bus = json!({ "driver": "scsi-hd", "bus": "scsi.0", "channel": 0, "scsi-id": 2, "lun": unit });
        (device("scsi", &format!("2:{unit}"), "", "/dev/given"), bus)
    });
    for (kind, places) in [("blk", &ports[..]), ("scsi", &units[..])] {
        // A machine that is too busy finds the device behind the deadline: it is told, and the next one is tried.
        let came = places.iter().enumerate().any(|(turn, (given, bus))| {
            let name = format!("{kind}{turn}");
            let mut request = with_device(&name, root, given.clone(), LOOK);
            let process = request.OCI.as_mut().unwrap().Process.as_mut().unwrap();
            process.Env.push(format!("OTHER={other}"));
            let call = request.clone();
            let pending = client
                .spawn(|service| async move { service.create_container(with_duration(LONG), &call).await });
            host.plug(guest, &name, bus.clone());
            match client.join(pending) {
                Ok(_) => {
                    let (text, status) = said(guest, client, &name);
                    let expected = format!("{name:<15}\nwritten\n\nonly this one\n");
                    assert!(text.starts_with("block special file "), "{text}");
                    assert!(text.ends_with(&expected) && status == 0, "{text:?} {status}");
                    let image = std::fs::read(host.work.join(format!("{name}.img"))).unwrap();
                    assert_eq!(image.get(512..520), Some(&b"written\n"[..]));
                    ok(guest, client.remove_container(&remove(&name)));
                    true
                }
                Err(error) => {
                    assert!(error.says("Timeout after 3s waiting for uevent "), "{error}");
                    false
                }
            }
        });
        assert!(came, "no {kind} device came in time\n{}", guest.serial());
    }
}

/// Exact errors, and nothing that stays.
fn devices_that_nobody_gets(guest: &Guest, client: &AgentClient, root: &str, before: &str) {
    let given = "/dev/given";
    let fixed = shell(guest, "ls /sys/bus/pci/devices/0000:00:11.0/virtio*/block").trim().to_owned();
    for (asked, expected) in [
        (
            device("blk", "1d/00", "", given),
            "Timeout after 3s waiting for uevent block device at PCI path 00/1d.0/00.0",
        ),
        (
            device("mmioblk", "", "/dev/vdq", given),
            "Timeout after 3s waiting for uevent block device /dev/vdq",
        ),
        (device("blk", "../../etc", "", given), "HOTPLUG_ADDRESS"),
        (device("mmioblk", "", "/dev/../etc/passwd", given), "HOTPLUG_ADDRESS"),
        (device("mmioblk", "", "/dev/mem", given), "HOTPLUG_ADDRESS"),
        (device("floppy", "1", "", given), "Failed to find the device handler floppy"),
        (device("vfio-pci", "1", "", given), "DEVICE_FLOOR"),
        (device("blk", "", "", given), "DEVICE_FORM"),
    ] {
        let what = format!("{} {} {}", asked.type_, asked.id, asked.vm_path);
        refused(client.create_container(&with_device("none", root, asked, "true")), "INTERNAL", expected);
        assert_settles(guest, before, &what);
    }
    let mut request = create("none", root, &["true"]);
    request.devices.push(device("blk", "11", "", "/dev/absent"));
    refused(client.create_container(&request), "INTERNAL", "Missing devices in OCI spec: /dev/absent");
    // By name, where there is no other address; and not what a storage of the same container has.
    let by_name = device("mmioblk", "", &format!("/dev/{fixed}"), given);
    let request = with_device("named", root, by_name.clone(), "head -c 16 /dev/given");
    ok(guest, client.create_container(&request));
    assert_eq!(said(guest, client, "named"), ("fixed          \n".to_owned(), 0));
    ok(guest, client.remove_container(&remove("named")));
    let mut holder = create("holder", root, &["sleep", "1000"]);
    holder.storages.push(storage("blk", "10", "ext4", &volume("held"), &["ro"]));
    ok(guest, client.create_container(&holder));
    let request = with_device("thief", root, device("blk", "10", "", given), "true");
    refused(client.create_container(&request), "INTERNAL", "DEVICE_TAKEN");
    ok(guest, client.remove_container(&remove("holder")));
    // A device of the guest's own, whatever the specification calls it.
    let mut request = create("memory", root, &["true"]);
    request.OCI.as_mut().unwrap().Linux.as_mut().unwrap().Devices.push(node("/dev/harmless", "c", (1, 1)));
    refused(client.create_container(&request), "INTERNAL", "SPEC_");
    assert_settles(guest, before, "devices that nobody gets");
    addresses_are_those_of_the_guest(guest, client, root);
}

/// Devices that the kernel of the guest drives: the workload is told where they are here.
fn addresses_are_those_of_the_guest(guest: &Guest, client: &AgentClient, root: &str) {
    let mut asked = device("vfio-pci-gk", "gpu", "", "/dev/vfio/7");
    asked.options = vec!["0000:65:00.0=11".to_owned(), "0000:66:00.0=".to_owned()];
    let mut request = create("plugin", root, &["sh", "-c", "echo $PCIDEVICE_ACME_NIC"]);
    request.devices.push(asked);
    let process = request.OCI.as_mut().unwrap().Process.as_mut().unwrap();
    process.Env.push("PCIDEVICE_ACME_NIC=0000:65:00.0,0000:66:00.0".to_owned());
    ok(guest, client.create_container(&request));
    assert_eq!(said(guest, client, "plugin"), ("0000:00:11.0,0000:66:00.0\n".to_owned(), 0));
    ok(guest, client.remove_container(&remove("plugin")));
}

fn on_verified(host: &Host, container: &str, script: &str) -> CreateContainerRequest {
    let place = format!("/run/kata-containers/{container}/rootfs");
    let mut request = create(container, &place, &["sh", "-c", script]);
    request.OCI.as_mut().unwrap().Root.as_mut().unwrap().Readonly = true;
    let options = host.verified.1.options();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    request.storages.push(storage("blk", "10", "ext4", &place, &options));
    request
}

/// The name of the one device of device-mapper, and what lies below it.
fn mapped(guest: &Guest) -> String {
    shell(
        guest,
        "for d in /sys/class/block/dm-*; do [ -e $d ] || continue; cut -d- -f1,2 $d/dm/name; ls $d/slaves; cat $d/ro; done",
    )
}

/// The guest itself vouches for every block of the container's root.
fn a_verified_root(host: &Host, guest: &Guest, client: &AgentClient, before: &str) {
    let lower = shell(guest, "ls /sys/bus/pci/devices/0000:00:10.0/virtio*/block").trim().to_owned();
    let script = "wc -l < /data; head -n 1 /data; touch /x 2>/dev/null || echo read-only";
    let request = on_verified(host, "verified", script);
    ok(guest, client.create_container(&request));
    assert_mounted(guest, "/run/kata-containers/verified/rootfs", &["ro", "- ext4 /dev/dm-0 ro"]);
    assert_eq!(mapped(guest), format!("innerkeep-verity\n{lower}\n1\n"));
    assert_eq!(said(guest, client, "verified"), (format!("4096\n{MARK}read-only\n"), 0));
    // What lies below it is nobody's: not another storage's, and no container's device.
    let below = storage("blk", "10", "ext4", &volume("below"), &["ro"]);
    let root = rootfs(guest, "root");
    let mut request = create("below", &root, &["true"]);
    request.storages.push(below);
    refused(client.create_container(&request), "INTERNAL", "STORAGE_DEVICE_TAKEN");
    let mapper = storage("blk", "/dev/dm-0", "ext4", &volume("mapped"), &["ro"]);
    let mut request = create("mapped", &root, &["true"]);
    request.storages.push(mapper);
    refused(client.create_container(&request), "INTERNAL", "STORAGE_DEVICE_TAKEN: device dm-0");
    let request = with_device("device", &root, device("blk", "10", "", "/dev/given"), "true");
    refused(client.create_container(&request), "INTERNAL", "DEVICE_TAKEN");
    ok(guest, client.remove_container(&remove("verified")));
    assert_settles(guest, before, "a verified root");
    assert_eq!(mapped(guest), "");
    // Nothing is mounted into it.
    let mut request = on_verified(host, "inside", "true");
    let place = "/run/kata-containers/inside/rootfs/mnt";
    request.storages.push(storage("ephemeral", "tmpfs", "tmpfs", place, &[]));
    refused(client.create_container(&request), "INTERNAL", "STORAGE_PLACE");
}

/// One bit of the disk, while the container runs: a read is an error, and never other bytes.
fn evil_host_flips_a_bit(host: &Host, guest: &Guest, client: &AgentClient, before: &str) {
    let (image, verity) = &host.verified;
    let script = "head -n 1 /data; read line; cat /data > /dev/null || echo refused; read line; \
                  wc -l < /data; read line";
    let at = find(image, MARK.repeat(200).as_bytes()) + 100_000;
    ok(guest, client.create_container(&on_verified(host, "flipped", script)));
    ok(guest, client.start_container(&start("flipped")));
    assert_eq!(read_until(client, "flipped", "", MARK), MARK);
    let drop_caches = "sync; echo 3 > /proc/sys/vm/drop_caches";
    flip(image, at);
    shell(guest, drop_caches);
    ok(guest, client.write_stdin(&write("flipped", "", b"go\n")));
    assert_eq!(read_until(client, "flipped", "", "refused\n"), "refused\n");
    let error = ok(guest, client.read_stderr(&read("flipped", "", 4096))).data;
    let error = String::from_utf8_lossy(&error);
    assert!(error.contains("Input/output error"), "{error}");
    // As it was: it can be read again.
    flip(image, at);
    shell(guest, drop_caches);
    ok(guest, client.write_stdin(&write("flipped", "", b"go\n")));
    assert_eq!(read_until(client, "flipped", "", "4096\n"), "4096\n");
    ok(guest, client.remove_container(&remove("flipped")));
    assert_settles(guest, before, "a bit that was flipped");
    // In the tree: nothing below it is given out, from the superblock on.
    let tree = verity.hash_offset + 4096;
    flip(image, tree);
    refused(client.create_container(&on_verified(host, "tree", "true")), "INTERNAL", "STORAGE_IO");
    flip(image, tree);
    assert_settles(guest, before, "a bit of the tree");
}

/// The data are what the root hash says, or nothing.
fn evil_host_names_another_tree(host: &Host, guest: &Guest, client: &AgentClient, before: &str) {
    let (image, verity) = &host.verified;
    let with = |change: &dyn Fn(&mut Vec<String>)| {
        let mut request = on_verified(host, "another", "true");
        let options = &mut request.storages.first_mut().unwrap().options;
        change(options);
        client.create_container(&request)
    };
    let replaced = |key: &'static str, value: String| {
        move |options: &mut Vec<String>| {
            options.retain(|option| !option.starts_with(key));
            options.push(format!("{key}={value}"));
        }
    };
    let hash = "X-kata.dmverity.roothash";
    refused(with(&replaced(hash, "5a".repeat(32))), "INTERNAL", "STORAGE_IO");
    refused(with(&replaced(hash, "5a".repeat(31))), "INTERNAL", "STORAGE_VERITY");
    let salt = "X-kata.dmverity.salt";
    refused(with(&replaced(salt, "00".repeat(32))), "INTERNAL", "STORAGE_VERITY");
    refused(with(&replaced("X-kata.dmverity-enabled", "false".to_owned())), "INTERNAL", "STORAGE_VERITY");
    let offset = "X-kata.dmverity.hashoffset";
    refused(with(&replaced(offset, (verity.hash_offset - 4096).to_string())), "INTERNAL", "STORAGE_VERITY");
    assert_settles(guest, before, "other trees");
    // Salt and length as they are: the same options are taken.
    ok(guest, with(&replaced(salt, verity.salt.clone())));
    ok(guest, client.remove_container(&remove("another")));
    // The superblock says that there is less of it than the tree is over.
    flip(image, verity.hash_offset + 73);
    refused(with(&|_| ()), "INTERNAL", "STORAGE_");
    flip(image, verity.hash_offset + 73);
    assert_settles(guest, before, "a superblock that lies");
}

/// A chip is the guest's own, whenever it came: no way of asking for it gives it to a container.
fn evil_host_hot_adds_a_chip(host: &Host, guest: &mut Guest, client: &AgentClient, root: &str) {
    let port = format!("port{CHIP_PORT:02x}");
    let chip = json!({
        "driver": "vfio-user-pci", "id": "chip", "bus": port,
        "socket": { "type": "unix", "path": host.chip.socket },
    });
    guest.qmp("device_add", &chip).unwrap();
    let begun = Instant::now();
    let address = loop {
        // As a landing takes it.
        if let Some(address) = bind_chips(guest).into_iter().next() {
            break address;
        }
        assert!(begun.elapsed() < LONG, "the chip never came\n{}", guest.serial());
        std::thread::sleep(Duration::from_millis(100));
    };
    let group = shell(guest, &format!("basename $(readlink /sys/bus/pci/devices/{address}/iommu_group)"));
    let group = group.trim();
    let file = format!("/dev/vfio/{group}");
    let numbers = shell(guest, &format!("stat -c '%t %T' {file}"));
    let mut numbers = numbers.split_whitespace().map(|number| i64::from_str_radix(number, 16).unwrap());
    let numbers = (numbers.next().unwrap(), numbers.next().unwrap());
    let before = state(guest);
    let path = format!("{CHIP_PORT:02x}/00");
    let mut by_driver = device("vfio-pci-gk", "chip", "", &file);
    by_driver.options = vec![format!("0000:01:00.0={path}")];
    let mut by_group = device("vfio-pci", "chip", "", &file);
    by_group.options.clone_from(&by_driver.options);
    let with = |change: &dyn Fn(&mut CreateContainerRequest)| {
        let mut request = create("taker", root, &["true"]);
        change(&mut request);
        client.create_container(&request)
    };
    for asked in [by_driver, by_group] {
        refused(with(&|request| request.devices.push(asked.clone())), "INTERNAL", "DEVICE_FLOOR");
    }
    for path in [file.as_str(), "/dev/harmless"] {
        let in_spec = |request: &mut CreateContainerRequest| {
            let linux = request.OCI.as_mut().unwrap().Linux.as_mut().unwrap();
            linux.Devices.push(node(path, "c", numbers));
        };
        refused(with(&in_spec), "INTERNAL", "SPEC_");
    }
    for source in [file.as_str(), "/dev/vfio", "/dev", "/sys/bus/pci/devices"] {
        let in_mounts = |request: &mut CreateContainerRequest| {
            request.OCI.as_mut().unwrap().Mounts.push(bound(source, "/mnt/chip"));
        };
        refused(with(&in_mounts), "INTERNAL", "SPEC_FLOOR");
    }
    assert_settles(guest, &before, "a chip that no container got");
    // A container that may make any node and asks for a rule for this one cannot open it.
    let script = format!(
        "mknod /dev/chip c {} {}; head -c 1 /dev/chip; test -e {file} || echo none",
        numbers.0, numbers.1
    );
    let mut request = create("maker", root, &["sh", "-c", &script]);
    let linux = request.OCI.as_mut().unwrap().Linux.as_mut().unwrap();
    linux.Resources.as_mut().unwrap().Devices.push(protocol::oci::LinuxDeviceCgroup {
        Allow: true,
        Type: "c".to_owned(),
        Major: numbers.0,
        Minor: numbers.1,
        Access: "rwm".to_owned(),
        ..Default::default()
    });
    ok(guest, client.create_container(&request));
    ok(guest, client.start_container(&start("maker")));
    assert!(read_until(client, "maker", "", "none\n").ends_with("none\n"));
    let error = ok(guest, client.read_stderr(&read("maker", "", 4096))).data;
    let error = String::from_utf8_lossy(&error);
    assert!(error.contains("mknod: /dev/chip: Operation not permitted"), "{error}");
    ok(guest, client.remove_container(&remove("maker")));
    assert_settles(guest, &before, "a container that made a node for a chip");
}
