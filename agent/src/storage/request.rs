//! A storage of the wire, checked: nothing has been done for it yet.

use protocol::agent::{FSGroup, Storage};
use protocol::ids::ContainerId;
use protocol::types::FSGroupChangePolicy;

use super::image::{self, Image};
use super::options::{self, Options, name};
use super::place::Place;
use super::verity::{self, VerityOptions};
use super::{StorageError, layers, overlay};

/// Who mounts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Driver {
    Bind,
    Blk,
    Ephemeral,
    Image,
    Layers,
    Local,
    MmioBlk,
    Nvdimm,
    Overlay,
    Scsi,
    VirtioFs,
    WatchableBind,
}

impl Driver {
    pub(super) const NAMES: [&str; 12] = [
        "bind",
        "blk",
        "ephemeral",
        layers::DRIVER,
        image::DRIVER,
        "local",
        "mmioblk",
        "nvdimm",
        "overlayfs",
        "scsi",
        "virtio-fs",
        "watchable-bind",
    ];

    pub(super) fn parse(driver: &str) -> Result<Self, StorageError> {
        Ok(match driver {
            "bind" => Self::Bind,
            "blk" => Self::Blk,
            "ephemeral" => Self::Ephemeral,
            "local" => Self::Local,
            "mmioblk" => Self::MmioBlk,
            "nvdimm" => Self::Nvdimm,
            "overlayfs" => Self::Overlay,
            "scsi" => Self::Scsi,
            "virtio-fs" => Self::VirtioFs,
            "watchable-bind" => Self::WatchableBind,
            image::DRIVER => Self::Image,
            layers::DRIVER => Self::Layers,
            other => return Err(StorageError::Driver { driver: other.to_owned() }),
        })
    }

    pub(super) const fn is_block(self) -> bool {
        matches!(self, Self::Blk | Self::MmioBlk | Self::Nvdimm | Self::Scsi)
    }

    /// Whether a program in the storage may find devices in it. Roots may have some: what opens them is the device rules' to say.
    const fn may_have_devices(self) -> bool {
        self.is_block() || matches!(self, Self::Overlay | Self::Bind)
    }
}

/// Whose group files get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) id: u32,
    /// Nothing is done where the root directory has the group already.
    pub(super) only_on_mismatch: bool,
}

/// What two requests for the same place have to agree in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) driver: Driver,
    pub(super) source: String,
    fs_type: String,
    driver_options: Vec<String>,
    verity: Option<VerityOptions>,
}

impl Identity {
    /// The first field in which they differ.
    pub(super) fn differs(&self, other: &Self) -> Option<&'static str> {
        let fields = [
            ("driver", self.driver == other.driver),
            ("source", self.source == other.source),
            ("type of file system", self.fs_type == other.fs_type),
            ("driver's options", self.driver_options == other.driver_options),
            ("verity parameters", self.verity == other.verity),
        ];
        fields.into_iter().find_map(|(field, is_same)| (!is_same).then_some(field))
    }
}

/// A storage.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) driver: Driver,
    pub(super) place: Place,
    pub(super) identity: Identity,
    pub(super) options: Options,
    /// `fsgid=`: the group of the root directory.
    pub(super) directory_group: Option<u32>,
    pub(super) group: Option<Group>,
    /// A file system is made first.
    pub(super) make_file_system: bool,
    /// It is made on a device under a key that nobody keeps.
    pub(super) encrypted: bool,
    pub(super) overlay: Option<overlay::Layers>,
    pub(super) layers: Option<layers::Layers>,
    /// What was pulled for it.
    pub(super) image: Option<Image>,
    pub(super) shared: bool,
    container: Option<ContainerId>,
}

impl Request {
    /// Takes a storage of the wire, for a container or for the sandbox.
    pub(super) fn parse(storage: &Storage, container: Option<&ContainerId>) -> Result<Self, StorageError> {
        let driver = Driver::parse(&storage.driver)?;
        let place = Place::parse(&storage.mount_point, container)?;
        for (what, value) in [("source", &storage.source), ("fstype", &storage.fstype)] {
            if value.len() > protocol::ids::MAXIMUM_PATH_BYTES || value.contains('\0') {
                return Err(StorageError::Option {
                    option: what.to_owned(),
                    expected: "at most 4095 bytes without NUL",
                });
            }
        }
        let mut words = storage.options.iter().map(String::as_str).collect::<Vec<_>>();
        let verity = verity::take(&mut words)?;
        let overlay = if driver == Driver::Overlay {
            Some(overlay::Layers::take(&mut words, &storage.driver_options, container)?)
        } else {
            None
        };
        let mut options = Options::parse(words)?;
        if !driver.may_have_devices() {
            options = options.with(rustix::mount::MountAttrFlags::MOUNT_ATTR_NODEV);
        }
        let directory_group = match options.take_value("fsgid") {
            Some(id) if matches!(driver, Driver::Ephemeral | Driver::Local) => {
                Some(options::group("fsgid", &id)?)
            }
            Some(_) => return Err(not_here("fsgid")),
            None => None,
        };
        let DriverOptions { make_file_system, encrypted } = driver_options(driver, &storage.driver_options)?;
        if encrypted {
            options = options.with(of_encrypted());
        }
        let group = storage.fs_group.as_ref().map(group).transpose()?;
        if group.is_some() && !driver.is_block() {
            return Err(not_here("fs_group"));
        }
        // GUARD: verity-of-disks -> evil_host_verity_without_a_disk
        if verity.is_some() && (!driver.is_block() || make_file_system || group.is_some()) {
            return Err(StorageError::Verity { field: "enabled", expected: "a disk that is not written" });
        }
        if verity.is_some() {
            options.read_only = true;
            options = options.with(rustix::mount::MountAttrFlags::MOUNT_ATTR_RDONLY);
        }
        let identity = Identity {
            driver,
            source: storage.source.clone(),
            fs_type: storage.fstype.clone(),
            driver_options: storage.driver_options.clone(),
            verity,
        };
        Ok(Self {
            driver,
            place,
            identity,
            options,
            directory_group,
            group,
            make_file_system,
            encrypted,
            overlay,
            layers: None,
            image: None,
            shared: storage.shared,
            container: container.cloned(),
        })
    }

    /// What storages of the wire are together, for a container.
    pub(super) fn of_layers(
        storages: &[&Storage],
        container: Option<&ContainerId>,
        may_be_unverified: bool,
    ) -> Result<Self, StorageError> {
        let (place, layers) = layers::Layers::parse(storages, container, may_be_unverified)?;
        Ok(Self {
            driver: Driver::Layers,
            place,
            identity: Identity {
                driver: Driver::Layers,
                source: String::new(),
                fs_type: String::new(),
                driver_options: Vec::new(),
                verity: None,
            },
            // Devices in it are the agent's to give.
            options: Options::default().with(rustix::mount::MountAttrFlags::MOUNT_ATTR_NODEV),
            directory_group: None,
            group: None,
            make_file_system: false,
            encrypted: false,
            overlay: None,
            layers: Some(layers),
            image: None,
            shared: false,
            container: container.cloned(),
        })
    }

    /// The store of images on a disk of the host, under a key that nobody keeps. It is the sandbox's, not a container's.
    pub(super) fn trusted_store(node: &str) -> Result<Self, StorageError> {
        let driver_options = vec!["create_filesystem".to_owned(), ENCRYPTION.to_owned()];
        Ok(Self {
            driver: Driver::Blk,
            place: Place::store(),
            identity: Identity {
                driver: Driver::Blk,
                source: node.to_owned(),
                fs_type: "ext4".to_owned(),
                driver_options,
                verity: None,
            },
            options: Options::parse(Vec::new())?.with(of_encrypted()),
            directory_group: None,
            group: None,
            make_file_system: true,
            encrypted: true,
            overlay: None,
            layers: None,
            image: None,
            shared: true,
            container: None,
        })
    }

    /// A place that the storage is taken from.
    pub(super) fn source_place(&self) -> Result<Place, StorageError> {
        Place::parse(self.source(), self.container.as_ref())
    }

    pub(super) fn source(&self) -> &str {
        &self.identity.source
    }

    pub(super) fn fs_type(&self) -> &str {
        &self.identity.fs_type
    }

    pub(super) fn verity(&self) -> Option<&VerityOptions> {
        self.identity.verity.as_ref()
    }

    /// Refuses another type of file system.
    pub(super) fn expect_type(
        &self,
        driver: &'static str,
        types: &[&str],
        expected: &'static str,
    ) -> Result<(), StorageError> {
        // GUARD: type-of-a-driver -> evil_host_mounts_another_type
        if !types.contains(&self.fs_type()) {
            return Err(StorageError::FileSystem { driver, expected });
        }
        Ok(())
    }
}

fn not_here(option: &str) -> StorageError {
    StorageError::Option { option: option.to_owned(), expected: "an option of this driver" }
}

fn group(group: &FSGroup) -> Result<Group, StorageError> {
    let policy = group.group_change_policy.enum_value();
    let policy = policy.map_err(|_| StorageError::Option {
        option: "group_change_policy".to_owned(),
        expected: "Always or OnRootMismatch",
    })?;
    let id = options::group("fs_group", &group.group_id.to_string())?;
    Ok(Group { id, only_on_mismatch: policy == FSGroupChangePolicy::OnRootMismatch })
}

/// What is on a disk of the host for nobody else gets neither devices nor set-user-id programs.
fn of_encrypted() -> rustix::mount::MountAttrFlags {
    use rustix::mount::MountAttrFlags;
    MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOATIME
}

/// Upstream's word for a key that nobody keeps.
const ENCRYPTION: &str = "encryption_key=ephemeral";

/// What has to be done with a disk first.
#[derive(Clone, Copy, Debug, Default)]
struct DriverOptions {
    make_file_system: bool,
    encrypted: bool,
}

/// What has to be done with a disk first. What is not understood is refused: it may have been meant to protect something.
fn driver_options(driver: Driver, found: &[String]) -> Result<DriverOptions, StorageError> {
    let mut options = DriverOptions::default();
    for option in found.iter().filter(|option| !option.is_empty()) {
        match (option.as_str(), name(option)) {
            ("create_filesystem", _) | ("create_filesystem=true", _) if driver.is_block() => {
                options.make_file_system = true
            }
            (ENCRYPTION, _) if driver.is_block() => options.encrypted = true,
            (_, "encryption_key") => {
                return Err(StorageError::Option {
                    option: "encryption_key".to_owned(),
                    expected: "ephemeral, on a disk",
                });
            }
            (_, overlay::CREATE_DIRECTORY) if driver == Driver::Overlay => {}
            (_, image::DRIVER) if driver == Driver::Image => {}
            (_, key) => {
                return Err(StorageError::Option {
                    option: key.to_owned(),
                    expected: "an option that this driver has",
                });
            }
        }
    }
    // GUARD: encrypted-is-new -> evil_host_encryption_of_what_is_there
    if options.encrypted && !options.make_file_system {
        return Err(StorageError::Option {
            option: "encryption_key".to_owned(),
            expected: "create_filesystem beside it",
        });
    }
    Ok(options)
}
