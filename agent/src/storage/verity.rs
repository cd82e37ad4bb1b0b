//! Storages that are verified when they are read: options of the wire, and the superblock of the tree.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::StorageError;
use crate::dm::{BLOCK_BYTES, VerityParameters};

const ENABLED: &str = "X-kata.dmverity-enabled";
const PREFIX: &str = "X-kata.dmverity.";
/// Everything of this kind that is no option of a file system.
const OWN: &str = "X-kata.";
const MAXIMUM_SALT_BYTES: usize = 256;
/// The superblock that `veritysetup` writes in front of a tree.
const SUPERBLOCK_BYTES: usize = 512;
const MAGIC: &[u8; 8] = b"verity\0\0";

/// What the host says about the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VerityOptions {
    root_hash: [u8; 32],
    salt: Option<Vec<u8>>,
    hash_offset: u64,
    superblock: bool,
}

/// Takes what is the agent's own out of the options: a tree, or none.
pub(crate) fn take(options: &mut Vec<&str>) -> Result<Option<VerityOptions>, StorageError> {
    let own = options.extract_if(.., |option| option.starts_with(OWN)).collect::<Vec<_>>();
    let mut found = Found::default();
    for option in own {
        found.take(option)?;
    }
    found.options()
}

#[derive(Default)]
struct Found {
    enabled: Option<bool>,
    root_hash: Option<[u8; 32]>,
    salt: Option<Vec<u8>>,
    hash_offset: Option<u64>,
    no_superblock: bool,
    any: bool,
}

impl Found {
    fn take(&mut self, option: &str) -> Result<(), StorageError> {
        let (key, value) = option.split_once('=').unwrap_or((option, "true"));
        if key == ENABLED {
            self.enabled = Some(boolean("enabled", value)?);
            return Ok(());
        }
        let Some(field) = key.strip_prefix(PREFIX) else { return Err(not_here(key)) };
        self.any = true;
        match field {
            "roothash" => self.root_hash = Some(hash(value)?),
            "salt" if value == "-" => self.salt = Some(Vec::new()),
            "salt" => self.salt = Some(salt(value)?),
            "hashoffset" => self.hash_offset = Some(super::options::number("hashoffset", value)?),
            "blocksize" | "hashsize" => {
                expect("block size", value == "4096", "4096 bytes, of data and of hashes alike")?;
            }
            "algorithm" => expect("algorithm", value == "sha256", "sha256")?,
            "hashtype" => expect("version", value == "1", "1")?,
            "no-superblock" => self.no_superblock = boolean("no-superblock", value)?,
            _ => {
                return Err(StorageError::Option {
                    option: key.to_owned(),
                    expected: "a parameter of dm-verity",
                });
            }
        }
        Ok(())
    }

    fn options(self) -> Result<Option<VerityOptions>, StorageError> {
        // GUARD: verity-all-or-nothing -> evil_host_verity_that_is_switched_off
        if self.enabled != Some(true) && self.any {
            return Err(StorageError::Verity { field: "enabled", expected: "true beside other parameters" });
        }
        if self.enabled != Some(true) {
            return Ok(None);
        }
        let missing = |field| StorageError::Verity { field, expected: "a value" };
        let options = VerityOptions {
            root_hash: self.root_hash.ok_or(missing("root hash"))?,
            salt: self.salt,
            hash_offset: self.hash_offset.ok_or(missing("hash offset"))?,
            superblock: !self.no_superblock,
        };
        let aligned = options.hash_offset >= BLOCK_BYTES && options.hash_offset.is_multiple_of(BLOCK_BYTES);
        expect("hash offset", aligned, "a multiple of 4096 behind the data")?;
        Ok(Some(options))
    }
}

fn not_here(key: &str) -> StorageError {
    StorageError::Option { option: key.to_owned(), expected: "an option that this storage has" }
}

fn expect(field: &'static str, is_so: bool, expected: &'static str) -> Result<(), StorageError> {
    if is_so { Ok(()) } else { Err(StorageError::Verity { field, expected }) }
}

fn boolean(field: &'static str, value: &str) -> Result<bool, StorageError> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(StorageError::Verity { field, expected: "true or false" }),
    }
}

fn digits(text: &str) -> Option<Vec<u8>> {
    let bytes = text.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair)
            .ok()
            .filter(|pair| pair.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        (pair.len() == 2).then(|| u8::from_str_radix(pair, 16).ok()).flatten()
    });
    bytes.collect()
}

fn hash(text: &str) -> Result<[u8; 32], StorageError> {
    let bytes = digits(text).and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or(StorageError::Verity { field: "root hash", expected: "64 hexadecimal digits" })
}

fn salt(text: &str) -> Result<Vec<u8>, StorageError> {
    let bytes = digits(text).filter(|bytes| bytes.len() <= MAXIMUM_SALT_BYTES);
    bytes.ok_or(StorageError::Verity { field: "salt", expected: "hexadecimal digits of at most 256 bytes" })
}

impl VerityOptions {
    /// The parameters of the tree. What the device says of itself is read once, and has to agree with what the host says; what the data
    /// are is decided by all of it together, which is what is recorded.
    pub(crate) fn parameters(&self, node: &Path) -> Result<VerityParameters, StorageError> {
        let hash_block = self.hash_offset / BLOCK_BYTES;
        if !self.superblock {
            return Ok(VerityParameters {
                root_hash: self.root_hash,
                salt: self.salt.clone().unwrap_or_default(),
                data_blocks: hash_block,
                hash_start_block: hash_block,
            });
        }
        let mut bytes = [0; SUPERBLOCK_BYTES];
        let read = File::open(node).and_then(|device| device.read_exact_at(&mut bytes, self.hash_offset));
        read.map_err(StorageError::io("read the superblock of the tree on", node))?;
        let (salt, data_blocks) = superblock(&bytes)?;
        // GUARD: verity-salt -> evil_host_salt_of_another_tree
        if self.salt.as_ref().is_some_and(|expected| *expected != salt) {
            return Err(StorageError::Verity { field: "salt", expected: "that of the superblock" });
        }
        expect(
            "data blocks",
            (1..=hash_block).contains(&data_blocks),
            "from 1 to the beginning of the tree",
        )?;
        Ok(VerityParameters {
            root_hash: self.root_hash,
            salt,
            data_blocks,
            hash_start_block: hash_block + 1,
        })
    }
}

/// Salt and number of data blocks of a superblock of version 1.
fn superblock(bytes: &[u8; SUPERBLOCK_BYTES]) -> Result<(Vec<u8>, u64), StorageError> {
    let field = |at: usize, length: usize| bytes.get(at..at + length).unwrap_or_default();
    let number = |at: usize| field(at, 4).try_into().map_or(0, u32::from_le_bytes);
    expect("superblock", field(0, 8) == MAGIC && number(8) == 1, "one of version 1")?;
    expect("version", number(12) == 1, "1")?;
    let algorithm = field(32, 32).split(|byte| *byte == 0).next();
    expect("algorithm", algorithm == Some(b"sha256".as_slice()), "sha256")?;
    let block = u32::try_from(BLOCK_BYTES).unwrap_or_default();
    expect(
        "block size",
        number(64) == block && number(68) == block,
        "4096 bytes, of data and of hashes alike",
    )?;
    let data_blocks = field(72, 8).try_into().map_or(0, u64::from_le_bytes);
    let length = field(80, 2).try_into().map_or(0, u16::from_le_bytes);
    expect("salt", usize::from(length) <= MAXIMUM_SALT_BYTES, "at most 256 bytes")?;
    Ok((field(88, usize::from(length)).to_vec(), data_blocks))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use initdata::Root;

    use super::*;
    use crate::storage::VerifiedRoot;

    const HASH: &str = "abababababababababababababababababababababababababababababababab";

    fn of(options: &[&str]) -> Result<Option<VerityOptions>, StorageError> {
        let mut options = options.to_vec();
        let found = take(&mut options);
        assert!(found.is_err() || options.iter().all(|option| !option.starts_with(OWN)));
        found
    }

    fn tree(more: &[&str]) -> Result<VerityOptions, StorageError> {
        let hash = format!("X-kata.dmverity.roothash={HASH}");
        let options = [&["ro", "X-kata.dmverity-enabled=true", hash.as_str()], more].concat();
        of(&options).map(Option::unwrap)
    }

    fn device(superblock: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[7; 8192]).unwrap();
        file.write_all(superblock).unwrap();
        file
    }

    fn superblock(data_blocks: u64) -> Vec<u8> {
        let mut bytes =
            [&MAGIC[..], &1_u32.to_le_bytes(), &1_u32.to_le_bytes(), &[9; 16], b"sha256"].concat();
        bytes.resize(64, 0);
        bytes.extend([4096_u32.to_le_bytes(), 4096_u32.to_le_bytes()].concat());
        bytes.extend(data_blocks.to_le_bytes());
        bytes.extend(2_u16.to_le_bytes());
        bytes.resize(88, 0);
        bytes.extend([1, 2]);
        bytes.resize(512, 0);
        bytes
    }

    const AT: &str = "X-kata.dmverity.hashoffset=8192";

    #[test]
    fn parameters_are_those_of_host_and_device() {
        let bare = tree(&[AT, "X-kata.dmverity.no-superblock=true", "X-kata.dmverity.salt=0aff"]).unwrap();
        let found = bare.parameters(Path::new("/nonexistent")).unwrap();
        assert_eq!((found.data_blocks, found.hash_start_block, found.salt), (2, 2, vec![10, 255]));
        let file = device(&superblock(1));
        let found = tree(&[AT]).unwrap().parameters(file.path()).unwrap();
        assert_eq!((found.data_blocks, found.hash_start_block, found.salt.clone()), (1, 3, vec![1, 2]));
        let root = VerifiedRoot::from(&found);
        let [Root::Verity { root_hash, salt, data_blocks }] = &root.identities()[..] else { panic!() };
        assert_eq!((root_hash.as_bytes(), salt, data_blocks), (&[0xab; 32], &vec![1, 2], &1));
        assert_eq!(of(&["ro", "noatime", "X-kata.dmverity-enabled=false"]).unwrap(), None);
    }

    #[test]
    fn evil_host_salt_of_another_tree() {
        let file = device(&superblock(1));
        let error = tree(&[AT, "X-kata.dmverity.salt=0103"]).unwrap().parameters(file.path()).unwrap_err();
        assert_eq!(error.code(), "STORAGE_VERITY");
        assert!(tree(&[AT, "X-kata.dmverity.salt=0102"]).unwrap().parameters(file.path()).is_ok());
    }

    #[test]
    fn evil_device_superblock_that_lies() {
        let refuse = |bytes: &[u8]| {
            let file = device(bytes);
            let error = tree(&[AT]).unwrap().parameters(file.path()).unwrap_err();
            assert!(["STORAGE_VERITY", "STORAGE_IO"].contains(&error.code()), "{error}");
        };
        for data_blocks in [0, 3, u64::MAX] {
            refuse(&superblock(data_blocks));
        }
        let change = |at: usize, byte: u8| {
            let mut bytes = superblock(1);
            bytes[at] = byte;
            bytes
        };
        for (at, byte) in [(0, 0), (8, 2), (12, 0), (37, b'1'), (65, 1), (69, 1), (81, 2)] {
            refuse(&change(at, byte));
        }
        refuse(&superblock(1)[..511]);
        refuse(&[]);
    }

    #[test]
    fn evil_host_verity_that_is_switched_off() {
        let hash = format!("X-kata.dmverity.roothash={HASH}");
        for options in [
            &[hash.as_str()][..],
            &["X-kata.dmverity-enabled=false", &hash],
            &["X-kata.dmverity-enabled=yes", &hash, AT],
            &["X-kata.dmverity-enabled=true"],
            &["X-kata.dmverity-enabled=true", &hash],
            &["X-kata.dmverity-enabled=true", "X-kata.dmverity.roothash=abcd", AT],
            &["X-kata.dmverity-enabled=true", AT],
        ] {
            assert_eq!(of(options).unwrap_err().code(), "STORAGE_VERITY", "{options:?}");
        }
        for option in [
            "X-kata.dmverity.algorithm=sha1",
            "X-kata.dmverity.blocksize=512",
            "X-kata.dmverity.hashtype=0",
            "X-kata.dmverity.salt=xyz",
            "X-kata.dmverity.hashoffset=8193",
            "X-kata.dmverity.hashoffset=0",
        ] {
            assert_eq!(tree(&[AT, option]).unwrap_err().code(), "STORAGE_VERITY", "{option}");
        }
        assert_eq!(tree(&[AT, "X-kata.dmverity.ignore_corruption"]).unwrap_err().code(), "STORAGE_OPTION");
        for option in ["X-kata.new", "X-kata.overlay-lower", "X-kata.gpt-partitioned=true"] {
            assert_eq!(of(&[option]).unwrap_err().code(), "STORAGE_OPTION");
        }
    }
}
