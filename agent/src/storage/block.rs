//! What all disks have in common: claimed, given a file system or verified, mounted, given to a group.

use cdh::volume::ext4;

use super::request::Request;
use super::steps::{Step, Steps};
use super::{Site, StorageError, VerifiedRoot, fs_group, mkfs, mount};
use crate::dm::Mapper;
use crate::hotplug::{BlockDevice, sysfs};

/// What may be on a disk of the host.
const TYPES: [&str; 8] = ["ext4", "xfs", "btrfs", "erofs", "squashfs", "f2fs", "iso9660", "vfat"];
const TYPE_NAMES: &str = "ext4, xfs, btrfs, erofs, squashfs, f2fs, iso9660, vfat";

pub(super) async fn make(
    site: &Site<'_>,
    request: &Request,
    device: BlockDevice,
    steps: &mut Steps,
) -> Result<Option<VerifiedRoot>, StorageError> {
    request.expect_type("disk", &TYPES, TYPE_NAMES)?;
    refuse_in_use(site, &device)?;
    let user = request.place.on_the_wire().display().to_string();
    steps.push(Step::Claimed(site.inner.claims.take(&device, &user)?));
    let device = if request.encrypted {
        encrypted(site, request, device, steps).await?
    } else {
        if request.make_file_system {
            let arguments = mkfs::ARGUMENTS.map(str::to_owned);
            mkfs::ext4(&site.inner.reaper, request, &device, &arguments).await?;
        }
        device
    };
    let (root, node) = match request.verity().cloned() {
        Some(options) => {
            let dev = site.inner.dev.clone();
            let work = move |steps: &mut Steps| {
                let parameters = options.parameters(&device.node)?;
                let mapped = Mapper::open(&dev)?.verity(&device, &parameters)?;
                let node = mapped.node().to_owned();
                steps.push(Step::Mapped(mapped));
                Ok((Some(VerifiedRoot::from(&parameters)), node))
            };
            steps.blocking(work).await?
        }
        None => (None, device.node),
    };
    let request = request.clone();
    let work = move |steps: &mut Steps| {
        let source = node.to_string_lossy().into_owned();
        let mounted = mount::Detached::new(request.fs_type(), &source, &request.options)?;
        // Before anybody sees it.
        if let Some(group) = request.group {
            fs_group::apply(mounted.root(), group)?;
        }
        steps.attach(mounted, &request.place)
    };
    steps.blocking(work).await?;
    Ok(root)
}

/// A new file system on a device whose blocks are encrypted and authenticated under a key that nobody keeps.
async fn encrypted(
    site: &Site<'_>,
    request: &Request,
    device: BlockDevice,
    steps: &mut Steps,
) -> Result<BlockDevice, StorageError> {
    request.expect_type("create_filesystem", &["ext4"], "ext4")?;
    let dev = site.inner.dev.clone();
    let work = move |steps: &mut Steps| {
        let stack = cdh::volume::ephemeral(&dev, &device, None)?;
        ext4::prime(stack.node())?;
        let mut upper = None;
        for mapped in stack.into_devices() {
            upper = Some(mapped.device());
            steps.push(Step::Mapped(mapped));
        }
        upper.ok_or(StorageError::Panicked)
    };
    let upper = steps.blocking(work).await?;
    let arguments = ext4::Ext4Options::of_a_sandbox().arguments(false);
    mkfs::ext4(&site.inner.reaper, request, &upper, &arguments).await?;
    Ok(upper)
}

/// What the kernel itself has put something on, such as a device of device-mapper, is nobody's to mount.
pub(super) fn refuse_in_use(site: &Site<'_>, device: &BlockDevice) -> Result<(), StorageError> {
    let holders = sysfs::names(&site.inner.sys.join("class/block").join(&device.name).join("holders"))?;
    // GUARD: device-without-holders -> evil_host_mounts_what_lies_below_a_verified_device
    if let Some(user) = holders.into_iter().next() {
        return Err(StorageError::DeviceTaken { device: device.name.clone(), user });
    }
    Ok(())
}
