//! Limits of a container. Control groups are version 2: what only version 1 had is refused when asked for.

use oci_spec::runtime as run;
use protocol::oci;

use super::{Limits, SpecError, within};

/// Bounds of a weight of block devices; 0 is none.
const BLOCK_WEIGHTS: std::ops::RangeInclusive<u32> = 10..=1000;
/// Longest list of processors or memory nodes.
const MAXIMUM_SET_BYTES: usize = 4096;

/// Converts limits. 0 is absent, as everything that is empty on the wire. -1 is "no limit" and stays: in an update it takes a limit
/// away, which upstream's agent loses. Device rules are not among the result.
pub(super) fn convert(asked: &oci::LinuxResources) -> Result<run::LinuxResources, SpecError> {
    within("linux.resources.hugepageLimits", asked.HugepageLimits.len(), Limits::RESOURCES)?;
    let mut resources = run::LinuxResources::default();
    resources
        .set_devices(None)
        .set_memory(asked.Memory.as_ref().map(memory).transpose()?.flatten())
        .set_cpu(asked.CPU.as_ref().map(cpu).transpose()?.flatten())
        .set_pids(asked.Pids.as_ref().map(pids).transpose()?.flatten())
        .set_block_io(asked.BlockIO.as_ref().map(block_io).transpose()?.flatten())
        .set_hugepage_limits(hugepages(&asked.HugepageLimits)?)
        .set_network(None)
        .set_rdma(None)
        .set_unified(None);
    if let Some(network) = asked.Network.as_ref() {
        // GUARD: network-classes -> evil_host_limits_that_nobody_enforces
        if network.ClassID != 0 || !network.Priorities.is_empty() {
            return Err(not_enforced("network", "classes and priorities of packets"));
        }
    }
    Ok(resources)
}

fn at(field: &str) -> String {
    format!("linux.resources.{field}")
}

fn value(field: &str, expected: &'static str) -> SpecError {
    SpecError::Value { at: at(field), expected }
}

fn not_enforced(field: &str, what: &'static str) -> SpecError {
    SpecError::NotEnforced { at: at(field), what }
}

/// An amount: absent, no limit, or a limit.
fn amount(field: &str, asked: i64) -> Result<Option<i64>, SpecError> {
    match asked {
        0 => Ok(None),
        -1.. => Ok(Some(asked)),
        _ => Err(value(field, "an amount, or -1 for no limit")),
    }
}

/// Nothing instead of a message without content.
fn unless_empty<T: Default + PartialEq>(message: T) -> Option<T> {
    (message != T::default()).then_some(message)
}

fn memory(asked: &oci::LinuxMemory) -> Result<Option<run::LinuxMemory>, SpecError> {
    // GUARD: memory-of-version-1 -> evil_host_limits_that_nobody_enforces
    if asked.Kernel > 0 || asked.KernelTCP > 0 || asked.Swappiness > 0 || asked.DisableOOMKiller {
        return Err(not_enforced("memory", "kernel memory, swappiness, or memory without an end"));
    }
    let mut memory = run::LinuxMemory::default();
    memory
        .set_limit(amount("memory.limit", asked.Limit)?)
        .set_reservation(amount("memory.reservation", asked.Reservation)?)
        .set_swap(amount("memory.swap", asked.Swap)?)
        .set_kernel(None)
        .set_kernel_tcp(None)
        .set_swappiness(None)
        .set_disable_oom_killer(None)
        .set_use_hierarchy(None)
        .set_check_before_update(None);
    Ok(unless_empty(memory))
}

fn cpu(asked: &oci::LinuxCPU) -> Result<Option<run::LinuxCpu>, SpecError> {
    // GUARD: real-time-processors -> evil_host_limits_that_nobody_enforces
    if asked.RealtimeRuntime > 0 || asked.RealtimePeriod > 0 {
        return Err(not_enforced("cpu", "real-time processor time"));
    }
    let mut cpu = run::LinuxCpu::default();
    cpu.set_shares((asked.Shares > 0).then_some(asked.Shares))
        .set_quota(amount("cpu.quota", asked.Quota)?)
        .set_idle(None)
        .set_burst(None)
        .set_period((asked.Period > 0).then_some(asked.Period))
        .set_realtime_runtime(None)
        .set_realtime_period(None)
        .set_cpus(set("cpu.cpus", &asked.Cpus)?)
        .set_mems(set("cpu.mems", &asked.Mems)?);
    Ok(unless_empty(cpu))
}

/// A list of processors or memory nodes: `0-3,5`.
fn set(field: &str, asked: &str) -> Result<Option<String>, SpecError> {
    // GUARD: processor-list -> evil_host_resources_of_another_form
    if asked.len() > MAXIMUM_SET_BYTES
        || !asked.bytes().all(|byte| byte.is_ascii_digit() || b",-".contains(&byte))
    {
        return Err(value(field, "a list of numbers and ranges"));
    }
    Ok((!asked.is_empty()).then(|| asked.to_owned()))
}

fn pids(asked: &oci::LinuxPids) -> Result<Option<run::LinuxPids>, SpecError> {
    Ok(amount("pids.limit", asked.Limit)?.map(|limit| {
        let mut pids = run::LinuxPids::default();
        pids.set_limit(limit);
        pids
    }))
}

fn block_io(asked: &oci::LinuxBlockIO) -> Result<Option<run::LinuxBlockIo>, SpecError> {
    // GUARD: leaf-weights -> evil_host_limits_that_nobody_enforces
    if asked.LeafWeight != 0 || asked.WeightDevice.iter().any(|device| device.LeafWeight != 0) {
        return Err(not_enforced("blockIO", "weights of leaves"));
    }
    within("linux.resources.blockIO.weightDevice", asked.WeightDevice.len(), Limits::RESOURCES)?;
    let weights: Result<Vec<_>, SpecError> = asked.WeightDevice.iter().map(weight_device).collect();
    let mut block_io = run::LinuxBlockIo::default();
    block_io
        .set_weight(weight("blockIO.weight", asked.Weight)?)
        .set_leaf_weight(None)
        .set_weight_device(Some(weights?).filter(|weights| !weights.is_empty()))
        .set_throttle_read_bps_device(throttles(&asked.ThrottleReadBpsDevice)?)
        .set_throttle_write_bps_device(throttles(&asked.ThrottleWriteBpsDevice)?)
        .set_throttle_read_iops_device(throttles(&asked.ThrottleReadIOPSDevice)?)
        .set_throttle_write_iops_device(throttles(&asked.ThrottleWriteIOPSDevice)?);
    Ok(unless_empty(block_io))
}

fn weight(field: &str, asked: u32) -> Result<Option<u16>, SpecError> {
    match u16::try_from(asked) {
        Ok(0) => Ok(None),
        Ok(weight) if BLOCK_WEIGHTS.contains(&asked) => Ok(Some(weight)),
        _ => Err(value(field, "10 to 1000, or 0 for none")),
    }
}

/// Numbers of a block device.
fn numbers(major: i64, minor: i64) -> Result<(i64, i64), SpecError> {
    if u32::try_from(major).is_err() || u32::try_from(minor).is_err() {
        return Err(value("blockIO", "numbers of devices from 0 on"));
    }
    Ok((major, minor))
}

fn weight_device(asked: &oci::LinuxWeightDevice) -> Result<run::LinuxWeightDevice, SpecError> {
    let (major, minor) = numbers(asked.Major, asked.Minor)?;
    let mut device = run::LinuxWeightDeviceBuilder::default().major(major).minor(minor);
    if let Some(weight) = weight("blockIO.weightDevice", asked.Weight)? {
        device = device.weight(weight);
    }
    device.build().map_err(|_| value("blockIO", "weights of devices"))
}

fn throttles(asked: &[oci::LinuxThrottleDevice]) -> Result<Option<Vec<run::LinuxThrottleDevice>>, SpecError> {
    within("linux.resources.blockIO.throttle", asked.len(), Limits::RESOURCES)?;
    let throttle = |asked: &oci::LinuxThrottleDevice| {
        let (major, minor) = numbers(asked.Major, asked.Minor)?;
        let device =
            run::LinuxThrottleDeviceBuilder::default().major(major).minor(minor).rate(asked.Rate).build();
        device.map_err(|_| value("blockIO", "rates of devices"))
    };
    let devices: Result<Vec<_>, SpecError> = asked.iter().map(throttle).collect();
    Ok(Some(devices?).filter(|devices| !devices.is_empty()))
}

fn hugepages(asked: &[oci::LinuxHugepageLimit]) -> Result<Option<Vec<run::LinuxHugepageLimit>>, SpecError> {
    let convert = |asked: &oci::LinuxHugepageLimit| {
        let size = asked.Pagesize.strip_suffix("KB").or_else(|| asked.Pagesize.strip_suffix("MB"));
        let size = size.or_else(|| asked.Pagesize.strip_suffix("GB")).unwrap_or_default();
        // GUARD: page-size -> evil_host_resources_of_another_form
        if size.is_empty()
            || size.len() > 8
            || size.starts_with('0')
            || !size.bytes().all(|byte| byte.is_ascii_digit())
        {
            return Err(value("hugepageLimits.pageSize", "a size as 2MB"));
        }
        let limit = i64::try_from(asked.Limit).unwrap_or(i64::MAX);
        let mut hugepage = run::LinuxHugepageLimit::default();
        hugepage.set_page_size(asked.Pagesize.clone()).set_limit(limit);
        Ok(hugepage)
    };
    let limits: Result<Vec<_>, SpecError> = asked.iter().map(convert).collect();
    Ok(Some(limits?).filter(|limits| !limits.is_empty()))
}
