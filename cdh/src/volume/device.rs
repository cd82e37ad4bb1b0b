//! The disk that a request means.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use super::VolumeError;
use super::request::DeviceName;
use crate::dm::BlockDevice;

const MAXIMUM_ATTRIBUTE_BYTES: u64 = 4096;

/// Finds it; `sys` and `dev` are where `/sys` and `/dev` are.
pub(super) fn find(name: &DeviceName, sys: &Path, dev: &Path) -> Result<BlockDevice, VolumeError> {
    let name = match name {
        DeviceName::Node(name) => name.clone(),
        DeviceName::Numbers(major, minor) => {
            let path = sys.join(format!("dev/block/{major}:{minor}/uevent"));
            let text = attribute(&path).map_err(VolumeError::io("read", &path))?;
            let name = text.lines().find_map(|line| line.strip_prefix("DEVNAME="));
            let name = name.filter(|name| !name.is_empty() && !name.contains(['/', '\0']) && *name != "..");
            name.ok_or(VolumeError::Device { expected: "a disk with a name" })?.to_owned()
        }
    };
    let node = dev.join(&name);
    // Not through a link: who makes links in /dev is not known.
    let found = std::fs::symlink_metadata(&node).map_err(VolumeError::io("look at", &node))?;
    // GUARD: volume-is-a-disk -> evil_peer_names_a_file_as_disk
    if !found.file_type().is_block_device() {
        return Err(VolumeError::Device { expected: "a block device" });
    }
    let numbers = found.rdev();
    let (major, minor) = (rustix::fs::major(numbers), rustix::fs::minor(numbers));
    Ok(BlockDevice { name, major, minor, node })
}

fn attribute(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAXIMUM_ATTRIBUTE_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evil_peer_names_a_file_as_disk() {
        let room = tempfile::tempdir().unwrap();
        let at = |name: &str| room.path().join(name);
        std::fs::create_dir_all(at("sys/dev/block/254:16")).unwrap();
        std::fs::create_dir(at("dev")).unwrap();
        std::fs::write(at("dev/vdb"), "").unwrap();
        std::os::unix::fs::symlink("/dev/null", at("dev/link")).unwrap();
        let code = |name: &DeviceName| find(name, &at("sys"), &at("dev")).unwrap_err().code();
        assert_eq!(code(&DeviceName::Node("vdb".to_owned())), "VOLUME_DEVICE");
        assert_eq!(code(&DeviceName::Node("link".to_owned())), "VOLUME_DEVICE");
        assert_eq!(code(&DeviceName::Node("none".to_owned())), "VOLUME_IO");
        assert_eq!(code(&DeviceName::Numbers(1, 1)), "VOLUME_IO");
        for text in [
            "MAJOR=254\nDEVNAME=vdb\n",
            "MAJOR=254\n",
            "DEVNAME=../../etc/passwd\n",
            "DEVNAME=\n",
            "DEVNAME=..\n",
        ] {
            std::fs::write(at("sys/dev/block/254:16/uevent"), text).unwrap();
            assert_eq!(code(&DeviceName::Numbers(254, 16)), "VOLUME_DEVICE", "{text}");
        }
    }
}
