//! Storages, devices and files as runtimes send them.

use protocol::agent::{CopyFileRequest, Device, Storage};
use protocol::oci::{LinuxDevice, Mount};

/// Where storages of a sandbox are.
pub const SANDBOX: &str = "/run/kata-containers/sandbox";

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A storage.
pub fn storage(driver: &str, source: &str, kind: &str, place: &str, options: &[&str]) -> Storage {
    Storage {
        driver: driver.to_owned(),
        source: source.to_owned(),
        fstype: kind.to_owned(),
        mount_point: place.to_owned(),
        options: strings(options),
        ..Storage::default()
    }
}

/// A lower layer of a container's root, which is that of its bundle, on a disk, as runtimes ask for it.
pub fn layer(container: &str, source: &str, options: &[String]) -> Storage {
    let place = format!("/run/kata-containers/{container}/rootfs");
    let mut layer =
        storage("blk", source, "erofs", &place, &["X-kata.overlay-lower", "X-kata.multi-layer=true"]);
    layer.options.extend_from_slice(options);
    layer
}

/// A storage in the sandbox's directory of volumes; its place.
pub fn volume(name: &str) -> String {
    format!("{SANDBOX}/storage/{name}")
}

/// What is at a place of the guest, in a container.
pub fn bound(source: &str, destination: &str) -> Mount {
    Mount {
        destination: destination.to_owned(),
        source: source.to_owned(),
        type_: "bind".to_owned(),
        options: strings(&["rbind", "rprivate"]),
        ..Mount::default()
    }
}

/// A device of the host, for a path in a container.
pub fn device(kind: &str, id: &str, vm_path: &str, path: &str) -> Device {
    Device {
        type_: kind.to_owned(),
        id: id.to_owned(),
        vm_path: vm_path.to_owned(),
        container_path: path.to_owned(),
        ..Device::default()
    }
}

/// The device that a specification has for a path, with the numbers that it had on the host.
pub fn node(path: &str, kind: &str, (major, minor): (i64, i64)) -> LinuxDevice {
    LinuxDevice {
        Path: path.to_owned(),
        Type: kind.to_owned(),
        Major: major,
        Minor: minor,
        FileMode: 0o660,
        ..LinuxDevice::default()
    }
}

/// A piece of a file, as the Go runtime sends it; `kind` and mode are those of stat(2).
pub fn piece(path: &str, mode: u32, length: usize, offset: usize, data: &[u8]) -> CopyFileRequest {
    CopyFileRequest {
        path: path.to_owned(),
        file_size: i64::try_from(length).expect("a length"),
        file_mode: mode,
        dir_mode: 0o040_750,
        offset: i64::try_from(offset).expect("an offset"),
        data: data.to_vec(),
        ..CopyFileRequest::default()
    }
}
