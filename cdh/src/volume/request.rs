//! A volume as it was asked for, checked before anything is done. Upstream ignores options that it does not know; here they are refused: one
//! of them may have been meant to protect something.

use std::path::PathBuf;

use super::VolumeError;
use super::ext4::{self, Ext4Options};
use super::place;
use crate::hub_error::shown;
use crate::service::Volume;

/// Longest value of an option. A sealed secret is the longest there is.
const MAXIMUM_VALUE_BYTES: usize = 32 << 10;
/// Longest name of a mapping: the kernel's is 127.
const MAXIMUM_NAME_BYTES: usize = 64;

/// Which disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DeviceName {
    /// Major and minor number.
    Numbers(u32, u32),
    /// The name below `/dev`.
    Node(String),
}

/// What is on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Nothing that counts; without a key it is gone with the guest.
    Empty(Option<String>),
    /// A volume of this key.
    Encrypted(String),
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A link to the device.
    Device,
    /// A mount.
    FileSystem,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) device: DeviceName,
    pub(super) source: Source,
    pub(super) target: Target,
    pub(super) ext4: Ext4Options,
    pub(super) mapper_name: Option<String>,
    pub(super) read_only: bool,
    pub(super) no_programs: bool,
    pub(super) place: PathBuf,
}

pub(super) fn refuse(option: &str, expected: &'static str) -> VolumeError {
    VolumeError::Option { option: shown(option), expected }
}

impl Order {
    /// Takes a request.
    pub(super) fn parse(volume: Volume) -> Result<Self, VolumeError> {
        let Volume { kind, mut options, flags, mount_point } = volume;
        if kind != "block-device" {
            return Err(VolumeError::NotServed { what: "this type of volume", expected: "block-device" });
        }
        // GUARD: volume-option-length -> evil_peer_oversize_options
        if let Some((key, _)) = options.iter().find(|(_, value)| value.len() > MAXIMUM_VALUE_BYTES) {
            return Err(refuse(key, "at most 32768 bytes"));
        }
        let mut take = |key: &str| options.remove(key);
        match take("encryptionType").as_deref() {
            Some("luks2") => {}
            Some("zfs") => {
                return Err(VolumeError::NotServed { what: "encryption by zfs", expected: "luks2" });
            }
            _ => return Err(refuse("encryptionType", "luks2")),
        }
        let key = take("key");
        if let Some(key) = &key {
            check_key_name(key)?;
        }
        let source = match (take("sourceType").as_deref(), key) {
            (Some("empty"), key) => Source::Empty(key),
            (Some("encrypted"), Some(key)) => Source::Encrypted(key),
            (Some("encrypted"), None) => return Err(refuse("key", "one, for a volume that has one")),
            _ => return Err(refuse("sourceType", "empty or encrypted")),
        };
        let target = match take("targetType").as_deref() {
            Some("device") => Target::Device,
            Some("fileSystem") => Target::FileSystem,
            _ => return Err(refuse("targetType", "device or fileSystem")),
        };
        match (take("filesystemType").as_deref(), &target) {
            (Some("ext4"), Target::FileSystem) | (None, _) => {}
            (Some(_), _) => return Err(refuse("filesystemType", "ext4, for a file system")),
        }
        // Integrity is on in any case: what says so, and what says the contrary.
        if !matches!(take("dataIntegrity").as_deref(), None | Some("true" | "false")) {
            return Err(refuse("dataIntegrity", "true or false"));
        }
        let ext4 = take("mkfsOpts").map_or_else(|| Ok(Ext4Options::default()), |text| ext4::parse(&text))?;
        let device = device(take("deviceId"), take("devicePath"))?;
        let mapper_name = take("mapperName");
        if let Some(name) = &mapper_name {
            check_mapper_name(name)?;
        }
        // GUARD: volume-unknown-option -> evil_peer_option_that_nobody_knows
        if let Some((key, _)) = options.first_key_value() {
            return Err(refuse(key, "an option of a block-device with luks2"));
        }
        let (mut read_only, mut no_programs) = (false, false);
        for flag in &flags {
            match flag.as_str() {
                "ro" => read_only = true,
                "noexec" => no_programs = true,
                "rw" | "nodev" | "nosuid" | "noatime" => {}
                other => {
                    return Err(refuse(other, "one of the flags ro, rw, noexec, nodev, nosuid, noatime"));
                }
            }
        }
        if read_only && matches!(source, Source::Empty(_)) {
            return Err(refuse("ro", "a volume that is not empty"));
        }
        let place = place::parse(&mount_point)?;
        Ok(Self { device, source, target, ext4, mapper_name, read_only, no_programs, place })
    }
}

fn check_key_name(key: &str) -> Result<(), VolumeError> {
    let served = ["sealed.", "kbs:///"].iter().any(|prefix| key.starts_with(prefix));
    if key.starts_with("file://") {
        return Err(VolumeError::NotServed {
            what: "a key in a file",
            expected: "the resource or the sealed secret itself",
        });
    }
    if served { Ok(()) } else { Err(refuse("key", "kbs:///… or sealed.…")) }
}

fn check_mapper_name(name: &str) -> Result<(), VolumeError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_name = (1..=MAXIMUM_NAME_BYTES).contains(&name.len())
        && name.bytes().all(allowed)
        && name.bytes().any(|byte| byte.is_ascii_alphanumeric())
        && name != "control";
    // GUARD: volume-mapper-name -> evil_peer_names_that_lead_elsewhere
    if !is_name {
        return Err(refuse("mapperName", "1 to 64 letters, digits, '-', '_', '.'"));
    }
    Ok(())
}

fn device(numbers: Option<String>, path: Option<String>) -> Result<DeviceName, VolumeError> {
    if let Some(numbers) = numbers {
        let parsed = numbers
            .split_once(':')
            .filter(|(major, minor)| {
                [major, minor].iter().all(|text| text.bytes().all(|it| it.is_ascii_digit()))
            })
            .and_then(|(major, minor)| Some(DeviceName::Numbers(major.parse().ok()?, minor.parse().ok()?)));
        return parsed.ok_or(refuse("deviceId", "MAJOR:MINOR"));
    }
    let path = path.ok_or(refuse("deviceId", "one, or devicePath"))?;
    let name = path.strip_prefix("/dev/").unwrap_or_default();
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    // GUARD: volume-device-path -> evil_peer_device_of_another_directory
    if name.is_empty() || name.len() > MAXIMUM_NAME_BYTES || !name.bytes().all(allowed) {
        return Err(refuse("devicePath", "/dev/NAME"));
    }
    Ok(DeviceName::Node(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;

    /// What Kata's agent asks for.
    fn kata() -> Volume {
        let options = [
            ("deviceId", "254:16"),
            ("sourceType", "empty"),
            ("targetType", "fileSystem"),
            ("filesystemType", "ext4"),
            ("mkfsOpts", "-E lazy_journal_init"),
            ("encryptionType", "luks2"),
            ("dataIntegrity", "false"),
        ];
        let options = options.map(|(key, value)| (key.to_owned(), value.to_owned()));
        Volume {
            kind: "block-device".to_owned(),
            options: BTreeMap::from(options),
            flags: Vec::new(),
            mount_point: "/run/kata-containers/image/".to_owned(),
        }
    }

    fn with(options: &[(&str, &str)]) -> Result<Order, VolumeError> {
        let mut volume = kata();
        for (key, value) in options {
            volume.options.insert((*key).to_owned(), (*value).to_owned());
        }
        Order::parse(volume)
    }

    fn code(options: &[(&str, &str)]) -> &'static str {
        with(options).map_or_else(|error| error.code(), |_| "OK")
    }

    #[test]
    fn requests_of_upstream_are_understood() {
        let order = Order::parse(kata()).unwrap();
        assert_eq!(order.device, DeviceName::Numbers(254, 16));
        assert_eq!((order.source, order.target), (Source::Empty(None), Target::FileSystem));
        assert_eq!(
            (order.place.as_path(), order.read_only),
            (Path::new("/run/kata-containers/image"), false)
        );
        let order = with(&[("sourceType", "encrypted"), ("key", "kbs:///a/b/c"), ("mapperName", "models-1")]);
        assert_eq!(order.unwrap().source, Source::Encrypted("kbs:///a/b/c".to_owned()));
        let mut volume = kata();
        volume.options.remove("deviceId");
        volume.options.insert("devicePath".to_owned(), "/dev/vdb".to_owned());
        assert_eq!(Order::parse(volume).unwrap().device, DeviceName::Node("vdb".to_owned()));
    }

    #[test]
    fn what_is_not_served_is_said() {
        for options in [&[("encryptionType", "zfs")][..], &[("key", "file:///etc/key")]] {
            assert_eq!(code(options), "VOLUME_NOT_SERVED");
        }
        let oss = Volume { kind: "alibaba-cloud-oss".to_owned(), ..kata() };
        assert_eq!(Order::parse(oss).unwrap_err().code(), "VOLUME_NOT_SERVED");
    }

    #[test]
    fn evil_peer_option_that_nobody_knows() {
        for options in [
            &[("cipher", "cipher_null")][..],
            &[("pool", "zpool")],
            &[("encryptionType", "luks1")],
            &[("encryptionType", "")],
            &[("sourceType", "Encrypted")],
            &[("sourceType", "encrypted")],
            &[("targetType", "")],
            &[("filesystemType", "xfs")],
            &[("targetType", "device"), ("filesystemType", "ext4")],
            &[("dataIntegrity", "no")],
            &[("key", "password")],
            &[("key", "/etc/passwd")],
        ] {
            assert_eq!(code(options), "VOLUME_OPTION", "{options:?}");
        }
        for flag in ["suid", "loop", "rw,suid"] {
            let volume = Volume { flags: vec![flag.to_owned()], ..kata() };
            assert_eq!(Order::parse(volume).unwrap_err().code(), "VOLUME_OPTION", "{flag}");
        }
        let read_only = Volume { flags: vec!["ro".to_owned()], ..kata() };
        assert_eq!(Order::parse(read_only).unwrap_err().code(), "VOLUME_OPTION");
    }

    #[test]
    fn evil_peer_device_of_another_directory() {
        for id in ["254", "254:", ":1", "a:b", "254:16:1", "+1:2", "4294967296:1", "-1:2", ""] {
            assert_eq!(code(&[("deviceId", id)]), "VOLUME_OPTION", "{id}");
        }
        for path in
            ["/dev/../etc/passwd", "/etc/passwd", "vda", "/dev/", "/dev/disk/by-id/x", "/dev/./vda", ""]
        {
            let mut volume = kata();
            volume.options.remove("deviceId");
            volume.options.insert("devicePath".to_owned(), path.to_owned());
            assert_eq!(Order::parse(volume).unwrap_err().code(), "VOLUME_OPTION", "{path}");
        }
    }

    #[test]
    fn evil_peer_names_that_lead_elsewhere() {
        let long = "x".repeat(65);
        for name in ["", ".", "..", "../x", "a/b", "a b", "control", &long, "-", "é"] {
            assert_eq!(code(&[("mapperName", name)]), "VOLUME_OPTION", "{name}");
        }
    }

    #[test]
    fn evil_peer_oversize_options() {
        let long = format!("sealed.{}", "x".repeat(MAXIMUM_VALUE_BYTES));
        assert_eq!(code(&[("key", &long)]), "VOLUME_OPTION");
        assert_eq!(code(&[("key", &long[..1000])]), "OK");
    }
}
