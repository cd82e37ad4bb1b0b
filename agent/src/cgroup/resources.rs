//! New limits for a group that is in use: all of them, or none.
//!
//! What is 0 or empty in the request is absent, as everywhere on the wire, and stays as it is; -1 is no limit. What version 2 of
//! control groups cannot hold at all is refused and not passed over; only a limit of the kernel's own memory is part of the
//! limit of memory there.

use protocol::oci::{
    LinuxBlockIO, LinuxCPU, LinuxHugepageLimit, LinuxMemory, LinuxResources, LinuxThrottleDevice,
};

use crate::cgroup::directory::Directory;
use crate::cgroup::{Cgroup, CgroupError, convert, number};

/// Sizes of huge pages.
const MAXIMUM_PAGE_SIZES: usize = 16;
const IO_MAX: &str = "io.max";
/// No limit for a device.
const NO_IO_LIMIT: &str = "rbps=max wbps=max riops=max wiops=max";

/// A value for a file.
#[derive(Debug)]
struct Change {
    file: String,
    value: String,
    /// What of the file this value replaces.
    scope: Scope,
    /// The field of the request, for a file that is not there.
    field: &'static str,
}

/// What of a file a value replaces.
#[derive(Debug)]
enum Scope {
    /// All of it.
    Whole,
    /// The line with this key; what stands for its absence.
    Line(String, &'static str),
}

/// What was there before: to be put back, or let go.
#[derive(Debug, Default)]
#[must_use]
pub struct Applied(Vec<(String, String)>);

impl Cgroup {
    /// Applies all limits of `resources` but device rules, which are a program and no file. If one cannot be applied, those before
    /// it are taken back.
    ///
    /// # Errors
    /// `CGROUP_VALUE`, `CGROUP_UNSUPPORTED`, `CGROUP_FILE`: nothing is changed then. `CGROUP_NOT_RESTORED`: something is.
    pub fn apply(&self, resources: &LinuxResources) -> Result<Applied, CgroupError> {
        let changes = plan(&self.directory, resources)?;
        let mut applied = Applied::default();
        for change in changes {
            let outcome = earlier(&self.directory, &change).and_then(|earlier| {
                self.directory.write(&change.file, &change.value).map(|()| (change.file, earlier))
            });
            match outcome {
                Ok(done) => applied.0.push(done),
                Err(error) => {
                    self.put_back(applied).map_err(|unrestored| CgroupError::NotRestored {
                        file: file_of(&unrestored),
                        source: Box::new(error_of(&error)),
                    })?;
                    return Err(error);
                }
            }
        }
        Ok(applied)
    }

    /// Takes back what was applied, the last first.
    ///
    /// # Errors
    /// `CGROUP_FILE`; the others are taken back all the same.
    pub fn put_back(&self, applied: Applied) -> Result<(), CgroupError> {
        let mut outcome = Ok(());
        for (file, value) in applied.0.into_iter().rev() {
            outcome = outcome.and(self.directory.write(&file, &value));
        }
        outcome
    }
}

fn file_of(error: &CgroupError) -> String {
    match error {
        CgroupError::File { file, .. } => file.clone(),
        _ => String::new(),
    }
}

/// The same error, for another one to carry.
fn error_of(error: &CgroupError) -> CgroupError {
    match error {
        CgroupError::File { action, file, source } => {
            CgroupError::File { action, file: file.clone(), source: source.kind().into() }
        }
        _ => CgroupError::Malformed { file: "" },
    }
}

/// What has to be written to bring back what the change replaces.
fn earlier(group: &Directory, change: &Change) -> Result<String, CgroupError> {
    let text = group.read(&change.file)?.ok_or(CgroupError::Unsupported { field: change.field })?;
    Ok(match &change.scope {
        // An empty list is written as an empty line: nothing at all would not be written.
        Scope::Whole => format!("{}\n", text.trim_end_matches('\n')),
        Scope::Line(key, absent) => {
            let begins = |line: &&str| line.split_once(' ').is_some_and(|(found, _)| found == key);
            text.lines().find(begins).map_or_else(|| format!("{key} {absent}"), str::to_owned)
        }
    })
}

fn whole(file: &str, value: String, field: &'static str) -> Change {
    Change { file: file.to_owned(), value, scope: Scope::Whole, field }
}

/// What is to be written, in this order.
fn plan(group: &Directory, resources: &LinuxResources) -> Result<Vec<Change>, CgroupError> {
    refuse_unsupported(resources)?;
    let mut changes = Vec::new();
    if let Some(limit) = convert::limit("Pids.Limit", resources.Pids.Limit)? {
        changes.push(whole("pids.max", convert::written(limit), "Pids.Limit"));
    }
    memory(group, &resources.Memory, &mut changes)?;
    block_io(group, &resources.BlockIO, &mut changes)?;
    cpu(group, &resources.CPU, &mut changes)?;
    huge_pages(group, &resources.HugepageLimits, &mut changes)?;
    Ok(changes)
}

/// What version 2 has no file for. To say that it was applied would be untrue.
fn refuse_unsupported(resources: &LinuxResources) -> Result<(), CgroupError> {
    let (memory, cpu) = (&resources.Memory, &resources.CPU);
    let found = [
        ("Memory.Swappiness", memory.Swappiness != 0),
        ("Memory.DisableOOMKiller", memory.DisableOOMKiller),
        ("CPU.RealtimeRuntime", cpu.RealtimeRuntime != 0),
        ("CPU.RealtimePeriod", cpu.RealtimePeriod != 0),
        ("BlockIO.LeafWeight", resources.BlockIO.LeafWeight != 0),
        ("Network.ClassID", resources.Network.ClassID != 0),
        ("Network.Priorities", !resources.Network.Priorities.is_empty()),
    ];
    match found.into_iter().find(|(_, is_there)| *is_there) {
        Some((field, _)) => Err(CgroupError::Unsupported { field }),
        None => Ok(()),
    }
}

fn memory(group: &Directory, memory: &LinuxMemory, changes: &mut Vec<Change>) -> Result<(), CgroupError> {
    const MAX: &str = "memory.max";
    let wanted = convert::limit("Memory.Limit", memory.Limit)?;
    let both = memory.Swap;
    if both != 0 {
        // The limit that swap is counted on top of: the new one, else the one that is in force.
        let limit = match wanted {
            Some(limit) => limit,
            None => number::parse_limit(MAX, &group.need(MAX)?)?,
        };
        swap(group, convert::swap_of_both(both, limit)?, changes)?;
    } else if wanted == Some(None) {
        // As version 1 had it: no limit of memory is none of both.
        swap(group, None, changes)?;
    }
    if let Some(limit) = wanted {
        changes.push(whole(MAX, convert::written(limit), "Memory.Limit"));
    }
    if let Some(reservation) = convert::limit("Memory.Reservation", memory.Reservation)? {
        changes.push(whole("memory.low", convert::written(reservation), "Memory.Reservation"));
    }
    Ok(())
}

fn swap(group: &Directory, limit: Option<u64>, changes: &mut Vec<Change>) -> Result<(), CgroupError> {
    const FILE: &str = "memory.swap.max";
    // A kernel without swap gives none: there is nothing to limit, nor to forbid.
    if group.read(FILE)?.is_none() && matches!(limit, None | Some(0)) {
        return Ok(());
    }
    changes.push(whole(FILE, convert::written(limit), "Memory.Swap"));
    Ok(())
}

fn cpu(group: &Directory, cpu: &LinuxCPU, changes: &mut Vec<Change>) -> Result<(), CgroupError> {
    const MAX: &str = "cpu.max";
    if cpu.Shares != 0 {
        let weight = convert::weight_of_shares(cpu.Shares);
        changes.push(whole("cpu.weight", weight.to_string(), "CPU.Shares"));
    }
    if cpu.Quota != 0 || cpu.Period != 0 {
        // One of the two alone leaves the other as it is.
        let current = group.read(MAX)?.unwrap_or_default();
        let (quota, period) = current.trim_end().split_once(' ').unwrap_or(("max", ""));
        let quota = match cpu.Quota {
            0 => quota.to_owned(),
            quota => convert::written(u64::try_from(quota).ok()),
        };
        let period = match cpu.Period {
            0 => period.parse().unwrap_or(convert::DEFAULT_PERIOD),
            period => period,
        };
        changes.push(whole(MAX, format!("{quota} {period}"), "CPU.Quota"));
    }
    for (file, value, field) in
        [("cpuset.cpus", &cpu.Cpus, "CPU.Cpus"), ("cpuset.mems", &cpu.Mems, "CPU.Mems")]
    {
        if !value.is_empty() {
            changes.push(whole(file, value.clone(), field));
        }
    }
    Ok(())
}

fn block_io(group: &Directory, io: &LinuxBlockIO, changes: &mut Vec<Change>) -> Result<(), CgroupError> {
    const BFQ: &str = "io.bfq.weight";
    // The scheduler's own file takes the numbers of version 1; the kernel's cost model has others.
    let has_bfq = group.read(BFQ)?.is_some();
    let file = if has_bfq { BFQ } else { "io.weight" };
    let weight = |weight: u32| if has_bfq { weight } else { convert::io_weight(weight) };
    if io.Weight != 0 {
        let value = format!("default {}", weight(io.Weight));
        let scope = Scope::Line("default".to_owned(), "100");
        changes.push(Change { file: file.to_owned(), value, scope, field: "BlockIO.Weight" });
    }
    for device in &io.WeightDevice {
        let field = "BlockIO.WeightDevice";
        if device.LeafWeight != 0 {
            return Err(CgroupError::Unsupported { field });
        }
        let key = device_key(device.Major, device.Minor, field)?;
        let value = if device.Weight == 0 { "default".to_owned() } else { weight(device.Weight).to_string() };
        let value = format!("{key} {value}");
        let scope = Scope::Line(key, "default");
        changes.push(Change { file: file.to_owned(), value, scope, field });
    }
    let throttles: [(&[LinuxThrottleDevice], _, _); 4] = [
        (&io.ThrottleReadBpsDevice, "rbps", "BlockIO.ThrottleReadBpsDevice"),
        (&io.ThrottleWriteBpsDevice, "wbps", "BlockIO.ThrottleWriteBpsDevice"),
        (&io.ThrottleReadIOPSDevice, "riops", "BlockIO.ThrottleReadIOPSDevice"),
        (&io.ThrottleWriteIOPSDevice, "wiops", "BlockIO.ThrottleWriteIOPSDevice"),
    ];
    for (devices, name, field) in throttles {
        for device in devices {
            let key = device_key(device.Major, device.Minor, field)?;
            let rate = convert::written(Some(device.Rate).filter(|rate| *rate != 0));
            let value = format!("{key} {name}={rate}");
            let scope = Scope::Line(key, NO_IO_LIMIT);
            changes.push(Change { file: IO_MAX.to_owned(), value, scope, field });
        }
    }
    Ok(())
}

fn device_key(major: i64, minor: i64, field: &'static str) -> Result<String, CgroupError> {
    let number = |number: i64| {
        u32::try_from(number)
            .map_err(|_| CgroupError::Value { field, reason: "expected the number of a device" })
    };
    Ok(format!("{}:{}", number(major)?, number(minor)?))
}

fn huge_pages(
    group: &Directory,
    limits: &[LinuxHugepageLimit],
    changes: &mut Vec<Change>,
) -> Result<(), CgroupError> {
    const FIELD: &str = "HugepageLimits";
    if limits.is_empty() {
        return Ok(());
    }
    let sizes = group.page_sizes(MAXIMUM_PAGE_SIZES)?;
    for limit in limits {
        // GUARD: page-size-known -> evil_host_page_size_that_is_a_path
        if !sizes.contains(&limit.Pagesize) {
            return Err(CgroupError::Unsupported { field: FIELD });
        }
        for file in ["max", "rsvd.max"] {
            let file = format!("hugetlb.{}.{file}", limit.Pagesize);
            if group.read(&file)?.is_some() {
                changes.push(whole(&file, limit.Limit.to_string(), FIELD));
            }
        }
    }
    Ok(())
}
