//! `erofs.multi-layer`: a root of several storages. Each lower one is an EROFS on a disk of the host, or on a partition of one; what the
//! container writes is above them, in memory of the guest.
//!
//! ```text
//!  Storages with X-kata.multi-layer=true, all those of a request, the topmost layer first
//!    ─▶ one place? one role each? in a confidential guest: a root hash each?     nothing has been looked at yet
//!    ─▶ disk claimed, once ─▶ partition ─▶ dm-verity ─▶ EROFS, at no path        each layer
//!    ─▶ overlay: memory of the guest │ layer │ layer │ …  ─▶ attached            [`VerifiedRoot::Layers`], if each layer has a tree
//! ```
//! An upper layer on a disk of the host (`X-kata.overlay-upper`) is asked for and not opened: what a container writes would be the host's to
//! read and to change, and its file system the host's to make. Its directories are the guest's own, as are those of [`cdh::image::pull`].

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use cdh::composefs::mount::{PrivateMemory, half_of_memory, layered};
use protocol::agent::Storage;
use protocol::ids::ContainerId;
use rustix::fs::OFlags;
use rustix::mount::MountAttrFlags;

use super::beneath::Beneath;
use super::block::refuse_in_use;
use super::mount::Detached;
use super::options::{Options, name, number};
use super::place::Place;
use super::request::{Driver, Request};
use super::steps::{Step, Steps};
use super::verity::{self, VerityOptions};
use super::{Site, StorageError, VerifiedRoot};
use crate::dm::Mapper;
use crate::hotplug::BlockDevice;

/// The driver that some runtimes name; others name that of the disk.
pub(super) const DRIVER: &str = "erofs.multi-layer";
const MARK: &str = "X-kata.multi-layer";
const UPPER: &str = "X-kata.overlay-upper";
const LOWER: &str = "X-kata.overlay-lower";
const PARTITIONED: &str = "X-kata.gpt-partitioned";
const PARTITION: &str = "X-kata.partition-number";
const MAKE: &str = "X-kata.mkdir.path";
/// The upper layer and the first lower one in a path that is to be made.
const UPPER_ROOT: &str = "{{ mount 0 }}/";
const LOWER_ROOT: &str = "{{ mount 1 }}/";
/// What is made in every upper layer.
const UPPER_DIRECTORIES: [&str; 2] = ["upper", "work"];
/// Entries of a partition table as everybody writes it.
const MAXIMUM_PARTITION: u64 = 128;
const MAXIMUM_DIRECTORIES: usize = 16;

/// Lower layers of a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layers {
    /// The topmost first.
    lower: Vec<Lower>,
    /// Directories that are to be in the first of them.
    present: Vec<PathBuf>,
}

/// A lower layer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Lower {
    driver: Driver,
    source: String,
    partition: Option<u32>,
    verity: Option<VerityOptions>,
}

/// What a storage is among the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Upper,
    Lower,
}

/// Whether a storage is one of several that are a root together.
pub(super) fn is_layer(storage: &Storage) -> bool {
    storage.driver == DRIVER || storage.options.iter().any(|option| name(option) == MARK)
}

const fn wrong(expected: &'static str) -> StorageError {
    StorageError::Layers { expected }
}

fn flag(option: &str, value: &str) -> Result<bool, StorageError> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(StorageError::Option { option: option.to_owned(), expected: "true or false" }),
    }
}

impl Layers {
    /// Takes storages of the wire that are a root together, and where it is to be.
    pub(super) fn parse(
        storages: &[&Storage],
        container: Option<&ContainerId>,
        may_be_unverified: bool,
    ) -> Result<(Place, Self), StorageError> {
        let (Some(first), Some(_)) = (storages.first(), container) else {
            return Err(wrong("the root of a container"));
        };
        let place = Place::parse(&first.mount_point, container)?;
        let (mut layers, mut uppers) = (Self { lower: Vec::new(), present: Vec::new() }, 0_usize);
        for storage in storages {
            // GUARD: layers-one-place -> evil_host_layers_at_two_places
            if Place::parse(&storage.mount_point, container)? != place {
                return Err(wrong("one place for all of them"));
            }
            if layers.take(storage)? == Role::Upper {
                uppers += 1;
            }
        }
        if uppers > 1 || !(1..=initdata::MAXIMUM_LAYERS).contains(&layers.lower.len()) {
            return Err(wrong("1 to 128 lower layers, and one upper layer or none"));
        }
        // GUARD: layers-verified -> evil_host_layer_that_nobody_verifies
        if !may_be_unverified && layers.lower.iter().any(|lower| lower.verity.is_none()) {
            return Err(StorageError::Verity {
                field: "root hash",
                expected: "one for each layer, in a confidential guest",
            });
        }
        Ok((place, layers))
    }

    fn take(&mut self, storage: &Storage) -> Result<Role, StorageError> {
        let refuse = |option: &str, expected| StorageError::Option { option: option.to_owned(), expected };
        let driver = Driver::parse(&storage.driver)?;
        if !driver.is_block() && driver != Driver::Layers {
            return Err(wrong("disks"));
        }
        if storage.shared || storage.fs_group.is_some() {
            return Err(wrong("layers of one container, whose files have their groups"));
        }
        if let Some(option) = storage.driver_options.iter().find(|option| !option.is_empty()) {
            return Err(refuse(name(option), "no option of a driver, for a layer"));
        }
        if storage.source.len() > protocol::ids::MAXIMUM_PATH_BYTES {
            return Err(refuse("source", "at most 4095 bytes"));
        }
        let mut words = storage.options.iter().map(String::as_str).collect::<Vec<_>>();
        let mut own = Own::default();
        for word in words.extract_if(.., |word| is_own(name(word))) {
            own.take(word)?;
        }
        self.present.append(&mut own.present);
        if self.present.len() > MAXIMUM_DIRECTORIES {
            return Err(refuse(MAKE, "at most 16"));
        }
        let role = own.role.or(match storage.fstype.as_str() {
            "ext4" => Some(Role::Upper),
            "erofs" => Some(Role::Lower),
            _ => None,
        });
        match role {
            Some(Role::Upper) if storage.fstype == "ext4" && !own.partitioned && own.partition.is_none() => {
                // How a disk would be mounted that is not.
                Options::parse(words)?;
                Ok(Role::Upper)
            }
            Some(Role::Lower) if storage.fstype == "erofs" => {
                let verity = verity::take(&mut words)?;
                Options::parse(words)?.only(&[], "those of every mount")?;
                let partition = own.partition_number()?;
                let source = storage.source.clone();
                self.lower.push(Lower { driver, source, partition, verity });
                Ok(Role::Lower)
            }
            _ => Err(wrong("lower layers of erofs, and an upper one of ext4")),
        }
    }
}

fn is_own(name: &str) -> bool {
    matches!(name, MARK | UPPER | LOWER | PARTITIONED | PARTITION | MAKE)
}

/// What the agent's own options of a layer say.
#[derive(Default)]
struct Own {
    role: Option<Role>,
    partitioned: bool,
    partition: Option<u32>,
    present: Vec<PathBuf>,
}

impl Own {
    fn take(&mut self, option: &str) -> Result<(), StorageError> {
        let (key, value) = option.split_once('=').unwrap_or((option, "true"));
        match key {
            UPPER | LOWER if flag(key, value)? => {
                let role = if key == UPPER { Role::Upper } else { Role::Lower };
                if self.role.replace(role).is_some_and(|before| before != role) {
                    return Err(wrong("upper or lower"));
                }
            }
            MARK if flag(key, value)? => {}
            PARTITIONED => self.partitioned = flag(key, value)?,
            PARTITION => {
                let found =
                    number(PARTITION, value).ok().filter(|found| (1..=MAXIMUM_PARTITION).contains(found));
                // GUARD: layer-partition -> evil_host_partition_that_is_none
                if found.is_none() || self.partition.is_some() {
                    return Err(StorageError::Option {
                        option: key.to_owned(),
                        expected: "one from 1 to 128",
                    });
                }
                self.partition = found.and_then(|found| u32::try_from(found).ok());
            }
            MAKE => self.present.extend(directory(value)?),
            _ => return Err(StorageError::Option { option: key.to_owned(), expected: "true" }),
        }
        Ok(())
    }

    fn partition_number(&self) -> Result<Option<u32>, StorageError> {
        match (self.partitioned, self.partition) {
            (true, Some(number)) => Ok(Some(number)),
            (false, None) => Ok(None),
            _ => Err(StorageError::Option {
                option: PARTITION.to_owned(),
                expected: "a partition of a disk with partitions, and the whole of one without",
            }),
        }
    }
}

/// `PATH[:MODE…]`: the upper layer's two directories are made anyway, by their modes of ours. In a lower one nothing can be made, but a
/// directory may be there. Upstream makes directories wherever the host says.
fn directory(value: &str) -> Result<Option<PathBuf>, StorageError> {
    let refuse = || StorageError::Option {
        option: MAKE.to_owned(),
        expected: "'{{ mount 0 }}/upper', '{{ mount 0 }}/work' or a directory of '{{ mount 1 }}'",
    };
    let path = value.split(':').next().unwrap_or_default();
    if let Some(below) = path.strip_prefix(UPPER_ROOT) {
        // GUARD: layers-upper-is-empty -> evil_host_makes_directories_in_the_upper_layer
        if !UPPER_DIRECTORIES.contains(&below) {
            return Err(refuse());
        }
        return Ok(None);
    }
    let below = path.strip_prefix(LOWER_ROOT).map(Path::new).ok_or_else(refuse)?;
    let is_plain = below.components().all(|component| matches!(component, Component::Normal(_)));
    if below.as_os_str().is_empty() || !is_plain {
        return Err(refuse());
    }
    Ok(Some(below.to_owned()))
}

pub(super) async fn make(
    site: &Site<'_>,
    request: &Request,
    steps: &mut Steps,
) -> Result<Option<VerifiedRoot>, StorageError> {
    let Some(layers) = request.layers.clone() else { return Err(wrong("the root of a container")) };
    let devices = devices(site, request, &layers, steps).await?;
    let (request, dev) = (request.clone(), site.inner.dev.clone());
    steps.blocking(move |steps| mount(&request, &layers, &devices, &dev, steps)).await
}

/// The device of each layer. A disk is one root's, whose layers may be its partitions.
async fn devices(
    site: &Site<'_>,
    request: &Request,
    layers: &Layers,
    steps: &mut Steps,
) -> Result<Vec<BlockDevice>, StorageError> {
    let user = request.place.on_the_wire().display().to_string();
    let taken =
        |device: &BlockDevice| StorageError::DeviceTaken { device: device.name.clone(), user: user.clone() };
    let (mut disks, mut devices) = (BTreeMap::new(), Vec::<BlockDevice>::new());
    for lower in &layers.lower {
        let disk = site.disk(lower.driver, &lower.source).await?;
        refuse_in_use(site, &disk)?;
        let device = match lower.partition {
            Some(number) => site.hotplug.partition(&disk, number).await?,
            None => disk.clone(),
        };
        refuse_in_use(site, &device)?;
        // GUARD: layer-once -> evil_host_gives_one_layer_twice
        if devices.contains(&device) {
            return Err(taken(&device));
        }
        // Another partition of a disk of ours needs no claim of its own, the whole of one does.
        let is_ours = disks.insert((disk.major, disk.minor), lower.partition.is_some());
        if !(is_ours == Some(true) && lower.partition.is_some()) {
            steps.push(Step::Claimed(site.inner.claims.take(&disk, &user)?));
        }
        devices.push(device);
    }
    Ok(devices)
}

fn mount(
    request: &Request,
    layers: &Layers,
    devices: &[BlockDevice],
    dev: &Path,
    steps: &mut Steps,
) -> Result<Option<VerifiedRoot>, StorageError> {
    let read_only = Options { read_only: true, ..Options::default() };
    let read_only = read_only.with(MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV);
    let (mut mounts, mut trees) = (Vec::new(), Vec::new());
    for (lower, device) in layers.lower.iter().zip(devices) {
        let node = match &lower.verity {
            Some(options) => {
                let parameters = options.parameters(&device.node)?;
                let mapped = Mapper::open(dev)?.verity(device, &parameters)?;
                let node = mapped.node().to_owned();
                steps.push(Step::Mapped(mapped));
                trees.push(parameters);
                node
            }
            None => device.node.clone(),
        };
        mounts.push(Detached::new("erofs", &node.to_string_lossy(), &read_only)?);
    }
    if let Some(top) = mounts.first() {
        are_there(top, &layers.present)?;
    }
    let (bytes, files) = half_of_memory();
    let roots = mounts.iter().map(Detached::root).collect::<Vec<_>>();
    let root = layered(&roots, PrivateMemory::create(bytes, files)?)?;
    steps.attach(Detached::of(root.into_root(), &request.options)?, &request.place)?;
    Ok((trees.len() == layers.lower.len()).then(|| VerifiedRoot::of_layers(&trees)))
}

/// In an EROFS nothing is made.
fn are_there(layer: &Detached, directories: &[PathBuf]) -> Result<(), StorageError> {
    let root = layer.root().try_clone_to_owned().map_err(StorageError::io("open", Path::new("layer")))?;
    let root = Beneath::of(root);
    for path in directories {
        let found = root.at(path, OFlags::PATH | OFlags::DIRECTORY, rustix::fs::Mode::empty());
        found.map_err(StorageError::io("find the directory", path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
