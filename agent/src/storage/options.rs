//! Options of a mount: attributes of the mount, parameters of the file system, and what is the agent's own.

use rustix::mount::MountAttrFlags;

use super::StorageError;

/// Most options of a storage.
const MAXIMUM_OPTIONS: usize = 128;
/// Longest value of a parameter, its end included: the kernel's limit for fsconfig(2).
const MAXIMUM_VALUE_BYTES: usize = 255;

/// Options, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Attributes of the mount.
    pub(crate) attributes: u32,
    /// The superblock, too, is read-only.
    pub(crate) read_only: bool,
    /// Submounts come along (`rbind`).
    pub(crate) recursive: bool,
    /// Parameters without a value.
    pub(crate) flags: Vec<String>,
    /// Parameters with one.
    pub(crate) values: Vec<(String, String)>,
}

impl Options {
    /// Takes options apart. Later ones win. What names sources or asks for a remount is refused.
    pub(crate) fn parse<'o>(options: impl IntoIterator<Item = &'o str>) -> Result<Self, StorageError> {
        let mut parsed = Self::default();
        // A storage may have them in one string, as mount(8) does.
        let options = options.into_iter().flat_map(|option| option.split(','));
        for (count, option) in options.filter(|option| !option.is_empty()).enumerate() {
            parsed.take(count, option)?;
        }
        Ok(parsed)
    }

    fn take(&mut self, count: usize, option: &str) -> Result<(), StorageError> {
        let refuse = |expected| StorageError::Option { option: name(option).to_owned(), expected };
        if count >= MAXIMUM_OPTIONS {
            return Err(refuse("at most 128 options"));
        }
        if let Some((set, clear)) = attribute(option) {
            self.attributes = self.attributes & !clear.bits() | set.bits();
            match option {
                "ro" => self.read_only = true,
                "rw" => self.read_only = false,
                _ => {}
            }
            return Ok(());
        }
        match option {
            "defaults" | "auto" | "noauto" | "nofail" | "_netdev" | "bind" => return Ok(()),
            "rbind" => {
                self.recursive = true;
                return Ok(());
            }
            // Mounts here are private, as upstream's end up in a container.
            "private" | "rprivate" | "slave" | "rslave" | "shared" | "rshared" => return Ok(()),
            _ => {}
        }
        // GUARD: storage-mount-options -> evil_host_option_that_names_a_source
        if matches!(
            name(option),
            "source" | "remount" | "move" | "fd" | "journal_path" | "journal_dev" | "loop"
        ) {
            return Err(refuse("none that names a source, a descriptor or another mount"));
        }
        if option.len() > MAXIMUM_VALUE_BYTES || option.contains('\0') {
            return Err(refuse("at most 255 bytes"));
        }
        match option.split_once('=') {
            Some((key, value)) => self.values.push((key.to_owned(), value.to_owned())),
            None => self.flags.push(option.to_owned()),
        }
        Ok(())
    }

    /// Adds attributes.
    pub(crate) fn with(mut self, attributes: MountAttrFlags) -> Self {
        self.attributes |= attributes.bits();
        self
    }

    /// The last value of a parameter, which is taken out with all others of its name.
    pub(crate) fn take_value(&mut self, key: &str) -> Option<String> {
        let last = self.values.iter().rev().find(|(found, _)| found == key).map(|(_, value)| value.clone());
        self.values.retain(|(found, _)| found != key);
        last
    }

    /// Refuses parameters of the file system that are not listed.
    pub(crate) fn only(&self, keys: &[&str], expected: &'static str) -> Result<(), StorageError> {
        let found =
            self.flags.iter().map(String::as_str).chain(self.values.iter().map(|(key, _)| key.as_str()));
        for key in found {
            // GUARD: parameters-of-a-driver -> evil_host_parameters_of_another_file_system
            if !keys.contains(&key) {
                return Err(StorageError::Option { option: key.to_owned(), expected });
            }
        }
        Ok(())
    }

    pub(crate) fn attributes(&self) -> MountAttrFlags {
        MountAttrFlags::from_bits_retain(self.attributes)
    }
}

/// The name of an option: an error repeats nothing of a value.
pub(crate) fn name(option: &str) -> &str {
    option.split_once('=').map_or(option, |(name, _)| name)
}

/// What an option sets and clears, if it is about the mount and not about the file system.
fn attribute(option: &str) -> Option<(MountAttrFlags, MountAttrFlags)> {
    use MountAttrFlags as Flags;
    let none = Flags::empty();
    Some(match option {
        "ro" => (Flags::MOUNT_ATTR_RDONLY, none),
        "rw" => (none, Flags::MOUNT_ATTR_RDONLY),
        "nosuid" => (Flags::MOUNT_ATTR_NOSUID, none),
        "suid" => (none, Flags::MOUNT_ATTR_NOSUID),
        "nodev" => (Flags::MOUNT_ATTR_NODEV, none),
        "dev" => (none, Flags::MOUNT_ATTR_NODEV),
        "noexec" => (Flags::MOUNT_ATTR_NOEXEC, none),
        "exec" => (none, Flags::MOUNT_ATTR_NOEXEC),
        "nosymfollow" => (Flags::MOUNT_ATTR_NOSYMFOLLOW, none),
        "symfollow" => (none, Flags::MOUNT_ATTR_NOSYMFOLLOW),
        "nodiratime" => (Flags::MOUNT_ATTR_NODIRATIME, none),
        "diratime" => (none, Flags::MOUNT_ATTR_NODIRATIME),
        "noatime" => (Flags::MOUNT_ATTR_NOATIME, Flags::MOUNT_ATTR__ATIME),
        "strictatime" => (Flags::MOUNT_ATTR_STRICTATIME, Flags::MOUNT_ATTR__ATIME),
        "atime" | "relatime" | "norelatime" | "nostrictatime" => (none, Flags::MOUNT_ATTR__ATIME),
        _ => return None,
    })
}

/// An octal mode of at most 07777.
pub(crate) fn mode(text: &str) -> Result<u32, StorageError> {
    let is_octal = (1..=5).contains(&text.len()) && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    let mode = is_octal.then(|| u32::from_str_radix(text, 8).ok()).flatten().filter(|mode| *mode <= 0o7777);
    mode.ok_or_else(|| StorageError::Option {
        option: "mode".to_owned(),
        expected: "an octal mode up to 7777",
    })
}

/// A number.
pub(crate) fn number(option: &'static str, text: &str) -> Result<u64, StorageError> {
    let is_number = (1..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = is_number.then(|| text.parse().ok()).flatten();
    number.ok_or_else(|| StorageError::Option { option: option.to_owned(), expected: "a decimal number" })
}

/// The id of a group.
pub(crate) fn group(option: &'static str, text: &str) -> Result<u32, StorageError> {
    let id = u32::try_from(number(option, text)?).ok().filter(|id| *id != u32::MAX);
    id.ok_or_else(|| StorageError::Option { option: option.to_owned(), expected: "the id of a group" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Result<Options, StorageError> {
        Options::parse(options.iter().copied())
    }

    #[test]
    fn options_of_runtimes_are_taken_apart() {
        let mut options = parse(&[
            "noexec,nosuid",
            "nodev",
            "mode=1777",
            "size=64k",
            "size=128k",
            "inode64",
            "ro",
            "noatime",
        ])
        .unwrap();
        let expected = MountAttrFlags::MOUNT_ATTR_NOEXEC
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NOATIME;
        assert_eq!(options.attributes(), expected);
        assert!(options.read_only);
        assert_eq!(options.take_value("size").as_deref(), Some("128k"));
        assert_eq!(options.values, [("mode".to_owned(), "1777".to_owned())]);
        assert_eq!(options.flags, ["inode64"]);
        let options =
            parse(&["ro", "rw", "noexec", "exec", "defaults", "rbind", "rprivate", "relatime"]).unwrap();
        assert_eq!((options.attributes, options.read_only, options.recursive), (0, false, true));
    }

    #[test]
    fn evil_host_option_that_names_a_source() {
        for option in
            ["source=/dev/vda", "remount", "fd=3", "journal_path=/dev/vda", "move", "loop=/dev/loop0"]
        {
            assert_eq!(parse(&["ro", option]).unwrap_err().code(), "STORAGE_OPTION", "{option}");
        }
    }

    #[test]
    fn evil_host_options_without_end() {
        let long = "x".repeat(256);
        assert_eq!(parse(&[&long]).unwrap_err().code(), "STORAGE_OPTION");
        assert_eq!(parse(&["a,".repeat(200).as_str()]).unwrap_err().code(), "STORAGE_OPTION");
        let error = parse(&[&format!("password={}", "x".repeat(300))]).unwrap_err().to_string();
        assert!(error.contains("password") && !error.contains('='), "{error}");
    }

    #[test]
    fn evil_host_parameters_of_another_file_system() {
        let options = parse(&["size=1m", "upperdir=/x"]).unwrap();
        assert_eq!(options.only(&["size", "mode"], "those of tmpfs").unwrap_err().code(), "STORAGE_OPTION");
        assert!(options.only(&["size", "upperdir"], "").is_ok());
    }

    #[test]
    fn numbers_have_their_ends() {
        assert_eq!(mode("1777").unwrap(), 0o1777);
        for text in ["", "8", "17777", "-1", "0x1", "+7"] {
            assert!(mode(text).is_err(), "{text}");
        }
        assert_eq!(group("fsgid", "4294967294").unwrap(), u32::MAX - 1);
        for text in ["4294967295", "-1", "", "x", "99999999999999999999999"] {
            assert!(group("fsgid", text).is_err(), "{text}");
        }
    }
}
