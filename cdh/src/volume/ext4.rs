//! New file systems of ext4: options that are known, the blocks that a program reads before it wrote them, and the program itself.

use std::fs::OpenOptions;
use std::io::{Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::VolumeError;
use super::request::refuse;

/// Where the program is in the image.
pub const PROGRAM: &str = "/usr/sbin/mkfs.ext4";
/// A disk that does not answer does not hold up anybody for ever.
const LIMIT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(20);
const BLOCK: usize = 4096;
/// Blocks of a group: 8 bits of each byte of one block.
const GROUP_BLOCKS: u64 = 8 * 4096;
/// At each end of a device, where programs look for other file systems.
const ENDS_BLOCKS: u64 = 32;
/// Features that a caller may switch on or off.
const FEATURES: [&str; 6] =
    ["has_journal", "metadata_csum", "64bit", "resize_inode", "dir_index", "sparse_super2"];

/// What a caller may say about a file system. The rest is ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ext4Options {
    lazy_journal: bool,
    features: Vec<String>,
    reserved_percent: Option<u32>,
    bytes_per_inode: Option<u32>,
    inode_bytes: Option<u32>,
}

/// Takes `mkfsOpts`. What is not known is refused: the words become arguments of a program.
pub(super) fn parse(text: &str) -> Result<Ext4Options, VolumeError> {
    let wrong =
        |word: &str| refuse(word, "a known option of mkfs.ext4: -E lazy_journal_init, -O, -m, -i, -I");
    let mut options = Ext4Options::default();
    let mut words = text.split_ascii_whitespace();
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| wrong(word))?;
        let number = |allowed: std::ops::RangeInclusive<u32>| {
            let digits = value.bytes().all(|byte| byte.is_ascii_digit());
            value.parse().ok().filter(|number| digits && allowed.contains(number)).ok_or_else(|| wrong(value))
        };
        // GUARD: volume-mkfs-options -> evil_peer_arguments_of_mkfs
        match word {
            "-E" => match value {
                "lazy_journal_init" | "lazy_journal_init=1" => options.lazy_journal = true,
                "lazy_journal_init=0" | "nodiscard" | "lazy_itable_init=0" => {}
                other => return Err(wrong(other)),
            },
            "-O" => {
                for feature in value.split(',') {
                    if !FEATURES.contains(&feature.strip_prefix('^').unwrap_or(feature)) {
                        return Err(wrong(feature));
                    }
                    if options.features.len() > FEATURES.len() {
                        return Err(wrong(feature));
                    }
                    options.features.push(feature.to_owned());
                }
            }
            "-m" => options.reserved_percent = Some(number(0..=50)?),
            "-i" => options.bytes_per_inode = Some(number(1024..=67_108_864)?),
            "-I" => {
                let size = number(128..=1024)?;
                options.inode_bytes = Some(size).filter(|size| size.is_power_of_two());
                options.inode_bytes.ok_or_else(|| wrong(value))?;
            }
            other => return Err(wrong(other)),
        }
    }
    Ok(options)
}

impl Ext4Options {
    /// Upstream's, for what does not outlive a sandbox: no journal.
    #[must_use]
    pub fn of_a_sandbox() -> Self {
        Self {
            lazy_journal: false,
            features: vec!["^has_journal".to_owned()],
            reserved_percent: Some(0),
            bytes_per_inode: Some(163_840),
            inode_bytes: Some(128),
        }
    }

    /// The arguments, but for the device. All that will be read is written: a block that never was has no tag. The journal of a volume that is
    /// opened again is read after a crash.
    #[must_use]
    pub fn arguments(&self, is_opened_again: bool) -> Vec<String> {
        let lazy = u8::from(self.lazy_journal && !is_opened_again);
        let mut arguments: Vec<String> = ["-q", "-F", "-b", "4096", "-E"].map(str::to_owned).into();
        arguments.push(format!("lazy_itable_init=0,lazy_journal_init={lazy},nodiscard,root_owner=0:0"));
        let mut put = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                arguments.extend([name.to_owned(), value]);
            }
        };
        put("-O", (!self.features.is_empty()).then(|| self.features.join(",")));
        put("-m", self.reserved_percent.map(|number| number.to_string()));
        put("-i", self.bytes_per_inode.map(|number| number.to_string()));
        put("-I", self.inode_bytes.map(|number| number.to_string()));
        arguments
    }
}

/// Writes zeroes where the program will write less than a block: the kernel reads a block before it alters a part of it.
///
/// # Errors
/// `VOLUME_IO`.
pub fn prime(node: &Path) -> Result<(), VolumeError> {
    let primed = || {
        let mut device = OpenOptions::new().write(true).open(node)?;
        let blocks = device.seek(SeekFrom::End(0))? / BLOCK as u64;
        let zeroes = [0; BLOCK];
        let ends = (0..ENDS_BLOCKS.min(blocks)).chain(blocks.saturating_sub(ENDS_BLOCKS)..blocks);
        let groups = (0..blocks.div_ceil(GROUP_BLOCKS)).map(|group| group * GROUP_BLOCKS);
        for block in ends.chain(groups) {
            device.write_all_at(&zeroes, block * BLOCK as u64)?;
        }
        device.sync_all()
    };
    primed().map_err(VolumeError::io("write", node))
}

/// Who runs the program that makes file systems.
pub trait Helper: Send + Sync {
    /// Runs it to its end; on a thread that may wait.
    ///
    /// # Errors
    /// `VOLUME_HELPER`.
    fn make_ext4(&self, arguments: &[String], node: &Path) -> Result<(), VolumeError>;
}

fn failed(reason: &str) -> VolumeError {
    VolumeError::Helper { program: PROGRAM, reason: reason.to_owned() }
}

/// A program of the image: on the root file system, and nobody's to write but root's.
///
/// # Errors
/// `VOLUME_HELPER`.
pub fn trusted<'p>(program: &'p Path, root: &Path) -> Result<&'p Path, VolumeError> {
    let (Ok(found), Ok(root)) = (std::fs::metadata(program), std::fs::metadata(root)) else {
        return Err(failed("the image of this guest does not have it"));
    };
    // GUARD: volume-helper-of-the-image -> evil_host_mkfs_on_another_file_system
    if found.dev() != root.dev() || found.uid() != 0 || found.mode() & 0o022 != 0 || !found.is_file() {
        return Err(failed("expected a file of the image, owned and written by root alone"));
    }
    Ok(program)
}

/// Children of this process, for whom nobody else waits.
#[derive(Clone, Copy, Debug)]
pub struct OwnChildren;

impl Helper for OwnChildren {
    fn make_ext4(&self, arguments: &[String], node: &Path) -> Result<(), VolumeError> {
        let mut command = Command::new(trusted(Path::new(PROGRAM), Path::new("/"))?);
        command.env_clear().args(arguments).arg(node).current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|error| failed(&error.to_string()))?;
        let end = Instant::now() + LIMIT;
        loop {
            match child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(failed(&format!("ended with {status}"))),
                Ok(None) if Instant::now() < end => sleep(POLL),
                Ok(None) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(failed("took longer than 120 s"));
                }
                Err(error) => return Err(failed(&error.to_string())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn options_of_upstream_become_arguments() {
        let options = parse("-O ^has_journal -m 0 -i 163840 -I 128").unwrap();
        assert_eq!(options, Ext4Options::of_a_sandbox());
        let said = options.arguments(false).join(" ");
        assert!(said.ends_with("-O ^has_journal -m 0 -i 163840 -I 128"), "{said}");
        let lazy = parse("-E lazy_journal_init").unwrap();
        assert!(lazy.arguments(false).join(" ").contains("lazy_journal_init=1"));
        assert!(lazy.arguments(true).join(" ").contains("lazy_journal_init=0"));
        assert_eq!(parse("").unwrap(), Ext4Options::default());
    }

    #[test]
    fn evil_peer_arguments_of_mkfs() {
        for text in [
            "/dev/vda",
            "-d /etc",
            "-E root_owner=1000:1000",
            "-E lazy_journal_init,root_owner=1:1",
            "-E offset=4096",
            "-O encrypt",
            "-O has_journal,,",
            "-J device=/dev/vda",
            "-L label",
            "-m",
            "-m 51",
            "-m +1",
            "-m -1",
            "-i 0",
            "-b 1024",
            "-t ext2",
            "-U clear",
            "-I 128 -z undo",
            "-I 127",
            "-I 200",
            "--help x",
        ] {
            assert_eq!(parse(text).unwrap_err().code(), "VOLUME_OPTION", "{text}");
        }
        let many = "-O has_journal,".to_owned() + &"64bit,".repeat(100) + "64bit";
        assert_eq!(parse(&many).unwrap_err().code(), "VOLUME_OPTION");
    }

    #[test]
    fn evil_host_mkfs_on_another_file_system() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("mkfs");
        assert_eq!(trusted(&program, directory.path()).unwrap_err().code(), "VOLUME_HELPER");
        std::fs::write(&program, "").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let owner = std::fs::metadata(&program).unwrap().uid();
        assert_eq!(trusted(&program, directory.path()).is_ok(), owner == 0);
        assert_eq!(trusted(&program, Path::new("/proc")).unwrap_err().code(), "VOLUME_HELPER");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(trusted(&program, directory.path()).unwrap_err().code(), "VOLUME_HELPER");
    }

    #[test]
    fn what_is_altered_in_part_is_written_before() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let length = 3 * GROUP_BLOCKS * BLOCK as u64 / 2;
        file.as_file().set_len(length).unwrap();
        let marks =
            [0, length - BLOCK as u64, GROUP_BLOCKS * BLOCK as u64, (GROUP_BLOCKS / 2) * BLOCK as u64];
        for at in marks {
            file.as_file().write_all_at(b"x", at).unwrap();
        }
        prime(file.path()).unwrap();
        let left = marks.map(|at| {
            let mut byte = [0];
            file.as_file().read_exact_at(&mut byte, at).unwrap();
            byte[0]
        });
        assert_eq!(left, [0, 0, 0, b'x']);
    }
}
