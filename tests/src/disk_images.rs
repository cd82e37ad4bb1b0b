//! Disks as a host prepares them: file systems with files in them, and trees of hashes behind them, by the form that `veritysetup` writes.

use crate::work::Work;
use sha2::{Digest, Sha256};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use xtask::vm::Spec;

/// Bytes of a block, of data and of hashes alike.
const BLOCK: usize = 4096;
const MKFS: &str = "/usr/sbin/mkfs.ext4";

/// An ext4 of so many MiB without a journal, with what is in a directory; `NAME.img` of the scratch directory.
#[track_caller]
pub fn ext4(work: &Work, name: &str, mib: u32, from: &Path) -> PathBuf {
    let image = work.write(format!("{name}.img"), b"");
    let mut make = Command::new(MKFS);
    make.args(["-q", "-F", "-O", "^has_journal", "-b", "4096", "-m", "0", "-E", "root_owner=0:0", "-d"]);
    make.arg(from).arg(&image).arg(format!("{mib}M")).stdin(Stdio::null());
    let output = make.output().unwrap_or_else(|error| panic!("start {MKFS} (package e2fsprogs): {error}"));
    assert!(output.status.success(), "{make:?}: {}", String::from_utf8_lossy(&output.stderr));
    image
}

/// As [`ext4`], with these files.
#[track_caller]
pub fn ext4_with(work: &Work, name: &str, mib: u32, files: &[(&str, &[u8])]) -> PathBuf {
    let from = work.directory(format!("{name}.files"));
    for (file, bytes) in files {
        let path = from.join(file);
        std::fs::create_dir_all(path.parent().expect("a file is in a directory")).expect("make a directory");
        std::fs::write(path, bytes).expect("write a file of an image");
    }
    ext4(work, name, mib, &from)
}

/// An EROFS of what is in a directory, without compression, all of it root's; `NAME.img` of the scratch directory.
#[track_caller]
pub fn erofs(work: &Work, name: &str, from: &Path) -> PathBuf {
    let image = work.join(format!("{name}.img"));
    let mut make = Command::new("mkfs.erofs");
    make.args(["-d0", "-T0", "--all-root"]).arg(&image).arg(from).stdin(Stdio::null());
    let output =
        make.output().unwrap_or_else(|error| panic!("start mkfs.erofs (package erofs-utils): {error}"));
    assert!(output.status.success(), "{make:?}: {}", String::from_utf8_lossy(&output.stderr));
    let file = std::fs::File::options().write(true).open(&image).expect("open an image");
    let length = file.metadata().expect("look at an image").len();
    file.set_len(length.next_multiple_of(BLOCK as u64)).expect("make an image longer");
    image
}

/// A disk with these images as its partitions, in this order, and where each one begins: a table of GPT without its second copy, as runtimes
/// make one of several files. `NAME.img` of the scratch directory.
#[track_caller]
pub fn partitions(work: &Work, name: &str, images: &[&Path]) -> (PathBuf, Vec<u64>) {
    const SECTOR: usize = 512;
    const FIRST: usize = 2048;
    let mut data = vec![0_u8; FIRST * SECTOR];
    let (mut entries, mut places) = (Vec::new(), Vec::new());
    for (number, image) in images.iter().enumerate() {
        let bytes = std::fs::read(image).expect("read an image");
        data.resize(data.len().next_multiple_of(FIRST * SECTOR), 0);
        places.push(data.len() as u64);
        let first = data.len() / SECTOR;
        data.extend(&bytes);
        data.resize(data.len().next_multiple_of(SECTOR), 0);
        // Linux file system data, 0FC63DAF-8483-4772-8E79-3D69D8477DE4.
        entries.extend(0x0FC6_3DAF_u32.to_le_bytes());
        entries.extend([0x83, 0x84, 0x72, 0x47, 0x8E, 0x79, 0x3D, 0x69, 0xD8, 0x47, 0x7D, 0xE4]);
        entries.extend([u8::try_from(number + 1).expect("few partitions"); 16]);
        entries.extend((first as u64).to_le_bytes());
        entries.extend((data.len() as u64 / SECTOR as u64 - 1).to_le_bytes());
        entries.extend([0; 80]);
    }
    entries.resize(128 * 128, 0);
    // Room for the second copy.
    data.resize(data.len().next_multiple_of(FIRST * SECTOR) + 33 * SECTOR, 0);
    let last = (data.len() / SECTOR - 1) as u64;
    let mut header = [&b"EFI PART"[..], &[0, 0, 1, 0], &92_u32.to_le_bytes(), &[0; 8]].concat();
    for number in [1, last, 34, last - 33] {
        header.extend(number.to_le_bytes());
    }
    header.extend([0x5A; 16]);
    header.extend(2_u64.to_le_bytes());
    for number in [128, 128, crc32(&entries)] {
        header.extend(u32::to_le_bytes(number));
    }
    let sum = crc32(&header);
    header.splice(16..20, sum.to_le_bytes());
    // The table of before, which says that all of the disk is taken.
    let mut before = vec![0_u8; SECTOR];
    before.splice(446..462, [0, 0, 2, 0, 0xEE, 0xFF, 0xFF, 0xFF, 1, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF]);
    before.splice(510..512, [0x55, 0xAA]);
    for (at, bytes) in [(0, &before), (SECTOR, &header), (2 * SECTOR, &entries)] {
        data.splice(at..at + bytes.len(), bytes.iter().copied());
    }
    (work.write(format!("{name}.img"), data), places)
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |sum: u32| if sum & 1 == 1 { (sum >> 1) ^ 0xEDB8_8320 } else { sum >> 1 };
    !bytes.iter().fold(!0, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), |sum, _| step(sum)))
}

/// A disk of so many MiB with nothing on it.
#[track_caller]
pub fn blank(work: &Work, name: &str, mib: u64) -> PathBuf {
    let image = work.write(format!("{name}.img"), b"");
    let file = std::fs::File::options().write(true).open(&image).expect("open an image");
    file.set_len(mib << 20).expect("make an image longer");
    image
}

/// What a container needs: busybox by the names of its programs, and directories to mount on.
#[track_caller]
pub fn root_tree(root: &Path, busybox: &Path) {
    for name in ["bin", "dev", "etc", "proc", "root", "sys", "tmp"] {
        std::fs::create_dir_all(root.join(name)).expect("make a directory of a root");
    }
    let program = root.join("bin/busybox");
    std::fs::copy(busybox, &program).expect("copy busybox");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("set a mode");
    for name in [
        "cat",
        "chmod",
        "cut",
        "dd",
        "echo",
        "env",
        "false",
        "grep",
        "head",
        "id",
        "ls",
        "mkdir",
        "mknod",
        "od",
        "readlink",
        "rm",
        "sh",
        "sha256sum",
        "sleep",
        "stat",
        "tail",
        "touch",
        "tr",
        "true",
        "wc",
    ] {
        let link = root.join("bin").join(name);
        if !link.is_symlink() {
            symlink("busybox", &link).expect("link a name of busybox");
        }
    }
    std::fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").expect("write passwd");
}

/// `mkfs.ext4` of this machine in a guest.
#[track_caller]
pub fn with_mkfs(spec: Spec) -> Spec {
    spec.host_program(Path::new(MKFS), MKFS).unwrap_or_else(|error| panic!("{error:#}"))
}

/// A tree of hashes behind the data of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verity {
    /// The hash that leads to all others, hex.
    pub root_hash: String,
    /// Where its superblock is: behind the data.
    pub hash_offset: u64,
    /// Salt, hex.
    pub salt: String,
    /// Blocks of data.
    pub data_blocks: u64,
}

impl Verity {
    /// Writes superblock and tree behind the image, SHA-256 with this salt.
    #[track_caller]
    pub fn append(image: &Path, salt: &[u8]) -> Self {
        let data = std::fs::read(image).expect("read an image");
        assert!(!data.is_empty() && data.len().is_multiple_of(BLOCK), "an image of whole blocks");
        let hash = |block: &[u8]| Sha256::new().chain_update(salt).chain_update(block).finalize();
        let mut levels: Vec<Vec<u8>> = Vec::new();
        let mut below = data.clone();
        while levels.is_empty() || below.len() > BLOCK {
            let mut level: Vec<u8> = below.chunks(BLOCK).flat_map(hash).collect();
            level.resize(level.len().next_multiple_of(BLOCK), 0);
            levels.push(level.clone());
            below = level;
        }
        let data_blocks = (data.len() / BLOCK) as u64;
        let mut file = std::fs::File::options().append(true).open(image).expect("open an image");
        file.write_all(&superblock(data_blocks, salt)).expect("write a superblock");
        // The topmost level first.
        levels.iter().rev().for_each(|level| file.write_all(level).expect("write a tree"));
        Self {
            root_hash: hex::encode(hash(&below)),
            hash_offset: data.len() as u64,
            salt: hex::encode(salt),
            data_blocks,
        }
    }

    /// The options of a storage that is verified by it.
    pub fn options(&self) -> Vec<String> {
        vec![
            "ro".to_owned(),
            "X-kata.dmverity-enabled=true".to_owned(),
            format!("X-kata.dmverity.roothash={}", self.root_hash),
            format!("X-kata.dmverity.hashoffset={}", self.hash_offset),
        ]
    }

    /// As a table of initdata names it.
    pub fn toml(&self) -> String {
        let Self { root_hash, salt, data_blocks, .. } = self;
        format!("{{ root_hash = \"sha256:{root_hash}\", salt = \"{salt}\", data_blocks = {data_blocks} }}")
    }
}

fn superblock(data_blocks: u64, salt: &[u8]) -> Vec<u8> {
    let mut bytes = [&b"verity\0\0"[..], &1_u32.to_le_bytes(), &1_u32.to_le_bytes(), &[0x11; 16]].concat();
    bytes.extend(b"sha256");
    bytes.resize(64, 0);
    bytes.extend([4096_u32.to_le_bytes(), 4096_u32.to_le_bytes()].concat());
    bytes.extend(data_blocks.to_le_bytes());
    bytes.extend(u16::try_from(salt.len()).expect("a salt").to_le_bytes());
    bytes.resize(88, 0);
    bytes.extend(salt);
    bytes.resize(BLOCK, 0);
    bytes
}

/// Where these bytes are in an image, the first time.
#[track_caller]
pub fn find(image: &Path, bytes: &[u8]) -> u64 {
    let all = std::fs::read(image).expect("read an image");
    let at = all.windows(bytes.len()).position(|window| window == bytes);
    at.unwrap_or_else(|| panic!("{} has not what is looked for", image.display())) as u64
}

/// Flips one bit of an image that a guest may have.
#[track_caller]
pub fn flip(image: &Path, at: u64) {
    let mut file = std::fs::File::options().read(true).write(true).open(image).expect("open an image");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("read an image");
    file.seek(SeekFrom::Start(at)).expect("seek in an image");
    file.write_all(&[byte[0] ^ 1]).expect("write an image");
}
