//! How full file systems are.

use std::collections::HashSet;
use std::path::Path;

use rustix::fs::{StatVfs, statvfs};

use crate::metrics::read;
use crate::metrics::text::Text;

/// Those that can be full, or that lie on one that can.
const TYPES: [&str; 5] = ["btrfs", "ext4", "overlay", "vfat", "xfs"];
const MAXIMUM_FILESYSTEMS: usize = 256;

/// A mounted file system that can be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mounted<'a> {
    place: &'a str,
    device: &'a str,
}

/// Of a line: number, parent, `MAJOR:MINOR`, root, place, options, …, ` - `, type, device, options of the file system.
fn mounted(line: &str) -> Option<(&str, Mounted<'_>)> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(2);
    let (number, place, options) = (mount.next()?, mount.nth(1)?, mount.next()?);
    let mut filesystem = filesystem.split(' ');
    let (kind, device, own_options) = (filesystem.next()?, filesystem.next()?, filesystem.next()?);
    let is_writable =
        [options, own_options].iter().all(|options| options.split(',').any(|word| word == "rw"));
    (TYPES.contains(&kind) && is_writable).then_some((number, Mounted { place, device }))
}

/// Each device once, at the place where it was mounted first.
pub(super) fn each_once(table: &str) -> Vec<Mounted<'_>> {
    let mut seen = HashSet::new();
    let found = table.lines().filter_map(mounted).filter(|(number, _)| seen.insert(*number));
    found.take(MAXIMUM_FILESYSTEMS).map(|(_, mounted)| mounted).collect()
}

pub(super) fn write(text: &mut Text, proc: &Path) {
    let table = read(&proc.join("self/mountinfo"));
    let found: Vec<(Mounted<'_>, StatVfs)> = each_once(&table)
        .into_iter()
        .filter_map(|mounted| {
            let full = statvfs(unescaped(mounted.place)).ok()?;
            Some((mounted, full))
        })
        .collect();
    let mut family = |name, help: &str, items: fn(&StatVfs) -> [(&'static str, u64); 3]| {
        text.gauges(name, help);
        for (mounted, full) in &found {
            for (item, value) in items(full) {
                let labels = [("mount", mounted.place), ("device", mounted.device), ("item", item)];
                text.sample(&labels, value);
            }
        }
    };
    family("kata_guest_filesystem_bytes", "Guest file systems, bytes.", |full| {
        let bytes = |blocks: u64| blocks.saturating_mul(full.f_frsize);
        [("total", bytes(full.f_blocks)), ("free", bytes(full.f_bfree)), ("available", bytes(full.f_bavail))]
    });
    family("kata_guest_filesystem_inodes", "Guest file systems, inodes.", |full| {
        [("total", full.f_files), ("free", full.f_ffree), ("available", full.f_favail)]
    });
}

/// The kernel writes a blank in a place as `\040`.
fn unescaped(place: &str) -> String {
    place.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}
