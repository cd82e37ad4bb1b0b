//! What a group used, in the messages of the wire.
//!
//! | field | file | unit |
//! |---|---|---|
//! | `cpu_usage`, `throttling_data` | `cpu.stat` | ns (the kernel says µs) |
//! | `memory_stats.usage` | `memory.current`, `.peak`, `.max`, `max` of `memory.events` | bytes |
//! | `memory_stats.swap_usage` | `memory.swap.current`, `.peak`, `.max`, `max` of `memory.swap.events` | bytes, swap alone |
//! | `memory_stats.cache`, `.stats` | `file` of `memory.stat`, all of it | bytes, events |
//! | `pids_stats` | `pids.current`, `pids.max` (0 is no limit) | |
//! | `blkio_stats.io_service_bytes_recursive` | `io.stat`: `read`, `write`, `dbytes` in bytes, `rios`, `wios`, `dios` | |
//! | `hugetlb_stats` | `hugetlb.SIZE.current`, `max` of `hugetlb.SIZE.events` | bytes |
//!
//! A file that is not there leaves its fields 0: the kernel lacks the controller. No limit is the largest number, but for
//! processes. The network is not of the group: its field stays empty, as upstream's does.

use protocol::agent::{
    BlkioStats, BlkioStatsEntry, CgroupStats, CpuStats, CpuUsage, HugetlbStats, MemoryData, MemoryStats,
    PidsStats, StatsContainerResponse, ThrottlingData,
};

use crate::cgroup::directory::Directory;
use crate::cgroup::{Cgroup, CgroupError, number};

/// Devices of `io.stat`, sizes of huge pages, and lines of `memory.stat` that are told.
const MAXIMUM_DEVICES: usize = 256;
const MAXIMUM_PAGE_SIZES: usize = 16;
const NANOSECONDS_IN_A_MICROSECOND: u64 = 1000;

impl Cgroup {
    /// What it used until now.
    ///
    /// # Errors
    /// `CGROUP_FILE`, `CGROUP_MALFORMED`, `CGROUP_TOO_MANY`.
    pub fn stats(&self) -> Result<StatsContainerResponse, CgroupError> {
        let group = &self.directory;
        let stats = CgroupStats {
            cpu_stats: Some(cpu(group)?).into(),
            memory_stats: Some(memory(group)?).into(),
            pids_stats: Some(pids(group)?).into(),
            blkio_stats: Some(blkio(group)?).into(),
            hugetlb_stats: hugetlb(group)?,
            ..CgroupStats::default()
        };
        Ok(StatsContainerResponse { cgroup_stats: Some(stats).into(), ..StatsContainerResponse::default() })
    }
}

/// The number of a key in a file of pairs; 0 if either is not there.
fn value(text: Option<&str>, key: &str) -> u64 {
    number::pairs(text.unwrap_or_default()).find(|(found, _)| *found == key).map_or(0, |(_, value)| value)
}

/// The number that a file is; 0 if it is not there.
fn single(group: &Directory, file: &'static str) -> Result<u64, CgroupError> {
    group.read(file)?.map_or(Ok(0), |text| number::parse(file, &text))
}

/// The limit that a file is; the largest number if it is none or not there.
fn limit(group: &Directory, file: &'static str) -> Result<u64, CgroupError> {
    let limit = group.read(file)?.map_or(Ok(None), |text| number::parse_limit(file, &text))?;
    Ok(limit.unwrap_or(u64::MAX))
}

fn cpu(group: &Directory) -> Result<CpuStats, CgroupError> {
    let text = group.read("cpu.stat")?;
    let text = text.as_deref();
    let time = |key| value(text, key).saturating_mul(NANOSECONDS_IN_A_MICROSECOND);
    let usage = CpuUsage {
        total_usage: time("usage_usec"),
        usage_in_kernelmode: time("system_usec"),
        usage_in_usermode: time("user_usec"),
        ..CpuUsage::default()
    };
    let throttling = ThrottlingData {
        periods: value(text, "nr_periods"),
        throttled_periods: value(text, "nr_throttled"),
        throttled_time: time("throttled_usec"),
        ..ThrottlingData::default()
    };
    Ok(CpuStats {
        cpu_usage: Some(usage).into(),
        throttling_data: Some(throttling).into(),
        ..CpuStats::default()
    })
}

fn memory(group: &Directory) -> Result<MemoryStats, CgroupError> {
    let (events, swap_events) = (group.read("memory.events")?, group.read("memory.swap.events")?);
    let stat = group.read("memory.stat")?.unwrap_or_default();
    let usage = MemoryData {
        usage: single(group, "memory.current")?,
        max_usage: single(group, "memory.peak")?,
        failcnt: value(events.as_deref(), "max"),
        limit: limit(group, "memory.max")?,
        ..MemoryData::default()
    };
    let swap = MemoryData {
        usage: single(group, "memory.swap.current")?,
        max_usage: single(group, "memory.swap.peak")?,
        failcnt: value(swap_events.as_deref(), "max"),
        limit: limit(group, "memory.swap.max")?,
        ..MemoryData::default()
    };
    // The kernel's own memory has no limit of its own in version 2.
    let kernel = MemoryData { usage: value(Some(&stat), "kernel"), limit: u64::MAX, ..MemoryData::default() };
    Ok(MemoryStats {
        cache: value(Some(&stat), "file"),
        usage: Some(usage).into(),
        swap_usage: Some(swap).into(),
        kernel_usage: Some(kernel).into(),
        // Version 2 has nothing else.
        use_hierarchy: true,
        stats: number::pairs(&stat).map(|(key, value)| (key.to_owned(), value)).collect(),
        ..MemoryStats::default()
    })
}

fn pids(group: &Directory) -> Result<PidsStats, CgroupError> {
    const LIMIT: &str = "pids.max";
    let limit = group.read(LIMIT)?.map_or(Ok(None), |text| number::parse_limit(LIMIT, &text))?;
    Ok(PidsStats {
        current: single(group, "pids.current")?,
        limit: limit.unwrap_or_default(),
        ..PidsStats::default()
    })
}

/// Names of `io.stat`, and what upstream's agent calls them.
const OPERATIONS: [(&str, &str); 6] = [
    ("rbytes", "read"),
    ("wbytes", "write"),
    ("rios", "rios"),
    ("wios", "wios"),
    ("dbytes", "dbytes"),
    ("dios", "dios"),
];

fn blkio(group: &Directory) -> Result<BlkioStats, CgroupError> {
    let text = group.read("io.stat")?.unwrap_or_default();
    let mut entries = Vec::new();
    for line in text.lines().take(MAXIMUM_DEVICES) {
        let mut words = line.split_ascii_whitespace();
        let Some((major, minor)) = words.next().and_then(device) else { continue };
        let values: Vec<(&str, u64)> = words.take(32).filter_map(key_value).collect();
        for (name, operation) in OPERATIONS {
            let value = values.iter().find(|(found, _)| *found == name).map_or(0, |(_, value)| *value);
            let entry =
                BlkioStatsEntry { major, minor, op: operation.to_owned(), value, ..Default::default() };
            entries.push(entry);
        }
    }
    Ok(BlkioStats { io_service_bytes_recursive: entries, ..BlkioStats::default() })
}

fn device(word: &str) -> Option<(u64, u64)> {
    let (major, minor) = word.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn key_value(word: &str) -> Option<(&str, u64)> {
    let (key, value) = word.split_once('=')?;
    Some((key, value.parse().ok()?))
}

fn hugetlb(group: &Directory) -> Result<std::collections::HashMap<String, HugetlbStats>, CgroupError> {
    let mut stats = std::collections::HashMap::new();
    for size in group.page_sizes(MAXIMUM_PAGE_SIZES)? {
        let events = group.read(&format!("hugetlb.{size}.events"))?;
        let usage = group.read(&format!("hugetlb.{size}.current"))?;
        let usage = usage.map_or(Ok(0), |text| number::parse("hugetlb.SIZE.current", &text))?;
        let failcnt = value(events.as_deref(), "max");
        stats.insert(size, HugetlbStats { usage, failcnt, ..HugetlbStats::default() });
    }
    Ok(stats)
}
