//! Writes the vectors in `tests/vectors/composefs`: trees, and the digests of the images that the crate `composefs` makes of them.
//!
//! Trees are made from a fixed sequence of numbers, so that a second run writes the same bytes:
//!
//! ```text
//! cargo run --manifest-path tests/oracle/composefs/Cargo.toml -- tests/vectors/composefs
//! ```
//!
//! Each tree is a dump file (composefs-dump(5)); `digests` holds a line for each: name, size of the image, and the digests of the images
//! in format V0 and V1 with SHA-256 and in format V1 with SHA-512. The SHA-512 name of an object is its SHA-256 name twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use composefs::dumpfile::dumpfile_to_filesystem;
use composefs::erofs::format::FormatVersion;
use composefs::erofs::writer::{ValidatedFileSystem, mkfs_erofs_versioned};
use composefs::fsverity::{FsVerityHashValue, Sha256HashValue, Sha512HashValue, compute_verity};

fn main() -> Result<()> {
    let target = std::env::args().nth(1).context("expected a directory")?;
    let target = Path::new(&target);
    std::fs::create_dir_all(target)?;
    let mut digests = String::new();
    for (name, profile) in profiles() {
        let dump = Builder::new(&profile).build();
        std::fs::write(target.join(format!("{name}.dump")), &dump)?;
        let (v0, size) = image::<Sha256HashValue>(&dump, FormatVersion::V0)?;
        let (v1, _) = image::<Sha256HashValue>(&dump, FormatVersion::V1)?;
        let (wide, _) = image::<Sha512HashValue>(&doubled(&dump), FormatVersion::V1)?;
        writeln!(digests, "{name} {size} {v0} {v1} {wide}")?;
    }
    std::fs::write(target.join("digests"), digests)?;
    Ok(())
}

fn image<Id: FsVerityHashValue>(dump: &str, format: FormatVersion) -> Result<(String, usize)> {
    let tree = ValidatedFileSystem::new(dumpfile_to_filesystem::<Id>(dump)?)?;
    let image = mkfs_erofs_versioned(&tree, format);
    Ok((compute_verity::<Id>(&image).to_hex(), image.len()))
}

/// The dump with each object's digest twice as long.
fn doubled(dump: &str) -> String {
    let mut out = String::new();
    for line in dump.lines() {
        let mut fields: Vec<String> = line.split(' ').map(str::to_owned).collect();
        if fields[10] != "-" {
            fields[10] = fields[10].repeat(2);
            fields[8] = path_of(&fields[10]);
        }
        out.push_str(&fields.join(" "));
        out.push('\n');
    }
    out
}

fn path_of(digest: &str) -> String {
    format!("{}/{}", &digest[..2], &digest[2..])
}

/// What a tree is to be like.
#[derive(Clone, Default)]
struct Profile {
    seed: u64,
    entries: usize,
    directories: u64,
    whiteouts: u64,
    links: u64,
    attributes: u64,
    long_names: u64,
    long_targets: u64,
    hex_names: u64,
    times: u64,
    acl: bool,
}

fn profiles() -> Vec<(String, Profile)> {
    let mut all = Vec::new();
    for seed in 1..=18_u64 {
        all.push((
            format!("mixed-{seed:02}"),
            Profile {
                seed,
                entries: [0, 1, 3, 10, 40, 120][seed as usize % 6],
                directories: 20,
                whiteouts: if seed % 3 == 0 { 10 } else { 0 },
                links: 10,
                attributes: 40,
                long_names: 5,
                long_targets: 10,
                hex_names: 20,
                times: 60,
                acl: seed % 4 == 0,
            },
        ));
    }
    let flat = Profile { entries: 300, directories: 2, times: 20, ..Profile::default() };
    all.push(("wide".into(), Profile { seed: 101, long_names: 30, ..flat.clone() }));
    all.push((
        "deep".into(),
        Profile { seed: 102, entries: 150, directories: 70, links: 30, times: 50, ..Profile::default() },
    ));
    all.push((
        "links".into(),
        Profile { seed: 103, entries: 150, directories: 25, links: 60, attributes: 30, ..Profile::default() },
    ));
    all.push((
        "whiteouts".into(),
        Profile {
            seed: 104,
            entries: 150,
            directories: 6,
            whiteouts: 50,
            hex_names: 70,
            ..Profile::default()
        },
    ));
    all.push((
        "attributes".into(),
        Profile {
            seed: 105,
            entries: 120,
            directories: 15,
            attributes: 95,
            times: 30,
            acl: true,
            ..Profile::default()
        },
    ));
    all.push((
        "targets".into(),
        Profile {
            seed: 106,
            entries: 60,
            directories: 5,
            attributes: 70,
            long_targets: 100,
            ..Profile::default()
        },
    ));
    all
}

struct Builder<'a> {
    profile: &'a Profile,
    state: u64,
    directories: Vec<String>,
    leaves: Vec<String>,
    taken: BTreeSet<String>,
    root: String,
    out: String,
}

impl<'a> Builder<'a> {
    fn new(profile: &'a Profile) -> Self {
        let state = profile.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Self {
            profile,
            state,
            directories: vec![String::new()],
            leaves: vec![],
            taken: BTreeSet::new(),
            root: String::new(),
            out: String::new(),
        }
    }

    fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn build(mut self) -> String {
        let metadata = self.metadata(0o040_755);
        let attributes = self.attributes(true);
        self.root.clone_from(&metadata);
        writeln!(self.out, "/ 0 {metadata} - - -{attributes}").unwrap();
        for _ in 0..self.profile.entries {
            self.entry();
        }
        self.out
    }

    fn entry(&mut self) {
        let at = self.below(self.directories.len() as u64) as usize;
        let parent = self.directories[at].clone();
        let name = self.name(parent.is_empty());
        let path = format!("{parent}/{name}");
        if !self.taken.insert(path.clone()) {
            return;
        }
        let profile = self.profile;
        if self.chance(profile.directories) {
            let (metadata, attributes) = (self.metadata(0o040_755), self.attributes(false));
            writeln!(self.out, "{path} 0 {metadata} - - -{attributes}").unwrap();
            self.directories.push(path);
        } else if self.chance(profile.whiteouts) {
            // Some look like the devices that hide an object store.
            let (_, like_root) = self.root.split_once(' ').unwrap();
            let like_root = format!("20644 {like_root}");
            let metadata = if self.chance(50) { like_root } else { self.metadata(0o020_000) };
            let attributes = self.attributes(false);
            writeln!(self.out, "{path} 0 {metadata} - - -{attributes}").unwrap();
        } else if self.chance(profile.links) && !self.leaves.is_empty() {
            let at = self.below(self.leaves.len() as u64) as usize;
            let target = self.leaves[at].clone();
            writeln!(self.out, "{path} 0 @120000 - - - - 0.0 {target} - -").unwrap();
        } else {
            self.leaf(&path);
            self.leaves.push(path);
        }
    }

    fn leaf(&mut self, path: &str) {
        let attributes = self.attributes(false);
        let kind = if self.chance(self.profile.long_targets) { 5 } else { self.below(10) };
        let line = match kind {
            0 | 1 => {
                let size = self.below(65);
                let content: String = (0..size).map(|_| format!("\\x{:02x}", self.below(256))).collect();
                let content = if content.is_empty() { "-" } else { &content };
                format!("{path} {size} {} - {content} -{attributes}", self.metadata(0o100_644))
            }
            5 | 6 => {
                let length = if self.chance(self.profile.long_targets) {
                    900 + self.below(124)
                } else {
                    1 + self.below(60)
                };
                let target: String = (0..length).map(|_| char::from(b'a' + self.below(26) as u8)).collect();
                format!("{path} {length} {} {target} - -{attributes}", self.metadata(0o120_777))
            }
            7 => {
                let metadata = self.device();
                format!("{path} 0 {metadata} - - -{attributes}")
            }
            8 => {
                let mode = if self.chance(50) { 0o010_600 } else { 0o140_600 };
                format!("{path} 0 {} - - -{attributes}", self.metadata(mode))
            }
            _ => {
                let bits = self.below(43);
                let size = 65 + self.next() % (1 << bits);
                let digest: String = if self.chance(10) {
                    "ab".repeat(32)
                } else {
                    (0..32).map(|_| format!("{:02x}", self.below(256))).collect()
                };
                format!(
                    "{path} {size} {} {} - {digest}{attributes}",
                    self.metadata(0o100_755),
                    path_of(&digest)
                )
            }
        };
        writeln!(self.out, "{line}").unwrap();
    }

    fn device(&mut self) -> String {
        let mode = if self.chance(50) { 0o020_660 } else { 0o060_660 };
        let (major, minor) = (self.below(0x1000), self.below(0x10_0000));
        let number = (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12);
        let number = if number == 0 { 1 } else { number };
        self.with_number(mode, number)
    }

    /// `mode nlink uid gid rdev mtime`.
    fn metadata(&mut self, mode: u32) -> String {
        self.with_number(mode, 0)
    }

    fn with_number(&mut self, mode: u32, number: u64) -> String {
        let mode = if self.chance(10) { mode | 0o5000 } else { mode };
        let owner = |this: &mut Self| match this.below(10) {
            0 => 65_535,
            1 => 65_536,
            2 => this.below(u64::from(u32::MAX)),
            _ => 0,
        };
        let (uid, gid) = (owner(self), owner(self));
        let time = if self.chance(self.profile.times) {
            match self.below(5) {
                0 => "1000.1".to_owned(),
                1 => format!("{}.{}", self.below(1 << 40), self.below(1_000_000_000)),
                2 => "1700000000.0".to_owned(),
                3 => "1700000000.999999999".to_owned(),
                _ => "999.5".to_owned(),
            }
        } else {
            "1000.0".to_owned()
        };
        format!("{mode:o} 1 {uid} {gid} {number} {time}")
    }

    fn name(&mut self, root: bool) -> String {
        let profile = self.profile;
        if root && self.chance(profile.hex_names) {
            return format!("{:02x}", self.below(256));
        }
        let length = if self.chance(profile.long_names) { 150 + self.below(106) } else { 1 + self.below(9) };
        let mut name: Vec<u8> = (0..length)
            .map(|_| match self.below(12) {
                0 => 1 + self.below(0x2e) as u8,
                1 => 0x80 + self.below(0x80) as u8,
                2 => b'.',
                3 => b'\\',
                _ => b'a' + self.below(26) as u8,
            })
            .collect();
        if name == b"." || name == b".." {
            name.push(b'x');
        }
        escaped(&name)
    }

    fn attributes(&mut self, root: bool) -> String {
        if !self.chance(self.profile.attributes) {
            return String::new();
        }
        let mut all: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for _ in 0..1 + self.below(6) {
            let (name, value): (&[u8], Vec<u8>) = match self.below(14) {
                0 => (b"security.selinux", b"system_u:object_r:root_t:s0\0".to_vec()),
                1 => (b"security.selinux", b"system_u:object_r:etc_t:s0\0".to_vec()),
                2 => {
                    (b"security.capability", vec![1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
                }
                3 => (b"user.same", b"same".to_vec()),
                4 => (b"user.empty", vec![]),
                // With whiteouts there would be two attributes of that name, which is refused.
                5 if self.profile.whiteouts == 0 => (b"trusted.overlay.opaque", b"y".to_vec()),
                6 => (b"trusted.overlay.overlay.redirect", b"/x".to_vec()),
                7 => (b"lustre.lov", vec![7; 3]),
                8 => (b"odd", vec![0xee]),
                9 => (b"user.two", if self.chance(50) { vec![0, 0] } else { vec![0xee] }),
                10 if self.profile.acl => (b"system.posix_acl_access", vec![2, 0, 0, 0, 1, 0, 6, 0]),
                11 if self.profile.acl => (b"system.posix_acl_default", vec![2, 0, 0, 0, 1, 0, 7, 0]),
                12 => (
                    b"user.long",
                    vec![b'v'; self.below(2000) as usize + 1200 * usize::from(self.profile.seed == 106)],
                ),
                _ => (b"user.own", self.next().to_le_bytes().to_vec()),
            };
            all.insert(name.to_vec(), value);
        }
        if root && self.chance(50) {
            all.insert(b"security.selinux".to_vec(), b"system_u:object_r:root_t:s0\0".to_vec());
        }
        let mut out = String::new();
        for (name, value) in all {
            let value: String = if value.len() > 100 {
                // All the same, and nothing that is escaped.
                value.iter().map(|byte| char::from(*byte)).collect()
            } else {
                value.iter().map(|byte| format!("\\x{byte:02x}")).collect()
            };
            write!(out, " {}={value}", escaped(&name)).unwrap();
        }
        out
    }
}

fn escaped(name: &[u8]) -> String {
    name.iter()
        .map(|byte| match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' => char::from(*byte).to_string(),
            _ => format!("\\x{byte:02x}"),
        })
        .collect()
}
