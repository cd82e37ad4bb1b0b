//! What the machine says about its memory and swap.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::LandingError;

/// No file under `/proc` or `/sys` that is read here is longer.
const READ_CAP_BYTES: u64 = 1 << 20;

/// Facts about the machine that the preflight judges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFacts {
    /// Bytes that this process may still use: the least of the machine's and of its control groups'.
    available_bytes: u64,
    swap: SwapTable,
}

impl HostFacts {
    /// Facts that were read elsewhere.
    pub fn new(available_bytes: u64, swap: SwapTable) -> Self {
        Self { available_bytes, swap }
    }

    /// Reads the facts from `/proc` and the control groups.
    ///
    /// # Errors
    ///
    /// `/proc/meminfo` or `/proc/swaps` cannot be read or understood. Control groups that are not readable are skipped.
    pub fn read() -> Result<Self, LandingError> {
        let meminfo =
            read_capped(Path::new("/proc/meminfo")).map_err(LandingError::system("read of /proc/meminfo"))?;
        let machine = mem_available(&meminfo).ok_or_else(|| malformed("MemAvailable in /proc/meminfo"))?;
        let swap = match read_capped(Path::new("/proc/swaps")) {
            Ok(text) => SwapTable::parse(&text)?,
            // A kernel that was built without swap has no such file, while /proc/meminfo was just there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => SwapTable { areas: 0 },
            Err(error) => return Err(LandingError::system("read of /proc/swaps")(error)),
        };
        let available_bytes = cgroup_headroom().map_or(machine, |headroom| headroom.min(machine));
        Ok(Self { available_bytes, swap })
    }

    /// Bytes that this process may still use.
    pub fn available_bytes(&self) -> u64 {
        self.available_bytes
    }

    /// The swap areas.
    pub fn swap(&self) -> SwapTable {
        self.swap
    }
}

/// The active swap areas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwapTable {
    areas: usize,
}

impl SwapTable {
    /// Parses the text of `/proc/swaps`.
    ///
    /// # Errors
    ///
    /// The text does not begin with the kernel's heading.
    pub fn parse(text: &str) -> Result<Self, LandingError> {
        let mut lines = text.lines();
        if !lines.next().is_some_and(|heading| heading.starts_with("Filename")) {
            return Err(malformed("heading of /proc/swaps"));
        }
        Ok(Self { areas: lines.filter(|line| !line.trim().is_empty()).count() })
    }

    /// The number of active areas.
    pub fn areas(self) -> usize {
        self.areas
    }
}

fn malformed(purpose: &'static str) -> LandingError {
    LandingError::System { purpose, source: io::ErrorKind::InvalidData.into() }
}

pub(crate) fn read_capped(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(READ_CAP_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

fn mem_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The least room of all control groups of this process, where they can be read.
fn cgroup_headroom() -> Option<u64> {
    let memberships = read_capped(Path::new("/proc/self/cgroup")).ok()?;
    memberships.lines().filter_map(hierarchy_headroom).min()
}

/// The least room of one line of `/proc/self/cgroup` and of all groups above it.
fn hierarchy_headroom(line: &str) -> Option<u64> {
    let (controllers, group) = line.split_once(':')?.1.split_once(':')?;
    let (roots, version): (&[&str], _) = match controllers {
        "" => (&["/sys/fs/cgroup", "/sys/fs/cgroup/unified"], CgroupVersion::Two),
        _ if controllers.split(',').any(|name| name == "memory") => {
            (&["/sys/fs/cgroup/memory"], CgroupVersion::One)
        }
        _ => return None,
    };
    let group = Path::new(group.trim_start_matches('/'));
    let groups = group.ancestors();
    groups
        .flat_map(|group| roots.iter().map(move |root| Path::new(root).join(group)))
        .filter_map(|dir| version.headroom(&dir))
        .min()
}

enum CgroupVersion {
    One,
    Two,
}

impl CgroupVersion {
    /// Limit minus use; page cache that the kernel would drop first does not count as used.
    fn headroom(&self, group: &Path) -> Option<u64> {
        let (limit, usage, cache) = match self {
            Self::One => ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "),
            Self::Two => ("memory.max", "memory.current", "inactive_file "),
        };
        let number = |path: PathBuf| read_capped(&path).ok()?.trim().parse::<u64>().ok();
        let limit = number(group.join(limit))?;
        let usage = number(group.join(usage))?;
        let statistics = read_capped(&group.join("memory.stat")).unwrap_or_default();
        let cache =
            statistics.lines().find_map(|line| line.strip_prefix(cache)?.trim().parse().ok()).unwrap_or(0);
        Some(limit.saturating_sub(usage.saturating_sub(cache)))
    }
}

#[cfg(test)]
mod tests;
