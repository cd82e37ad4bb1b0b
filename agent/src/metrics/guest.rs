//! Figures of the guest.

use std::path::Path;

use rustix::param::clock_ticks_per_second;

use crate::metrics::agent::keyed;
use crate::metrics::text::Text;
use crate::metrics::{number, read};

/// Names in `/proc/meminfo`, and upstream's.
const MEMINFO: [(&str, &str); 52] = [
    ("MemTotal", "mem_total"),
    ("MemFree", "mem_free"),
    ("MemAvailable", "mem_available"),
    ("Buffers", "buffers"),
    ("Cached", "cached"),
    ("SwapCached", "swap_cached"),
    ("Active", "active"),
    ("Inactive", "inactive"),
    ("Active(anon)", "active_anon"),
    ("Inactive(anon)", "inactive_anon"),
    ("Active(file)", "active_file"),
    ("Inactive(file)", "inactive_file"),
    ("Unevictable", "unevictable"),
    ("Mlocked", "mlocked"),
    ("HighTotal", "high_total"),
    ("HighFree", "high_free"),
    ("LowTotal", "low_total"),
    ("LowFree", "low_free"),
    ("MmapCopy", "mmap_copy"),
    ("SwapTotal", "swap_total"),
    ("SwapFree", "swap_free"),
    ("Dirty", "dirty"),
    ("Writeback", "writeback"),
    ("AnonPages", "anon_pages"),
    ("Mapped", "mapped"),
    ("Shmem", "shmem"),
    ("Slab", "slab"),
    ("SReclaimable", "s_reclaimable"),
    ("SUnreclaim", "s_unreclaim"),
    ("KernelStack", "kernel_stack"),
    ("PageTables", "page_tables"),
    ("Quicklists", "quicklists"),
    ("NFS_Unstable", "nfs_unstable"),
    ("Bounce", "bounce"),
    ("WritebackTmp", "writeback_tmp"),
    ("CommitLimit", "commit_limit"),
    ("Committed_AS", "committed_as"),
    ("VmallocTotal", "vmalloc_total"),
    ("VmallocUsed", "vmalloc_used"),
    ("VmallocChunk", "vmalloc_chunk"),
    ("HardwareCorrupted", "hardware_corrupted"),
    ("AnonHugePages", "anon_hugepages"),
    ("ShmemHugePages", "shmem_hugepages"),
    ("ShmemPmdMapped", "shmem_pmd_mapped"),
    ("CmaTotal", "cma_total"),
    ("CmaFree", "cma_free"),
    ("Hugepagesize", "hugepagesize"),
    ("DirectMap4k", "direct_map_4k"),
    ("DirectMap4M", "direct_map_4M"),
    ("DirectMap2M", "direct_map_2M"),
    ("DirectMap1G", "direct_map_1G"),
    ("Hugetlb", "hugetlb"),
];
/// The same, of what is no size.
const MEMINFO_COUNTS: [(&str, &str); 4] = [
    ("HugePages_Total", "hugepages_total"),
    ("HugePages_Free", "hugepages_free"),
    ("HugePages_Rsvd", "hugepages_rsvd"),
    ("HugePages_Surp", "hugepages_surp"),
];
/// And those that upstream names differently.
const MEMINFO_LATER: [(&str, &str); 2] = [("Percpu", "per_cpu"), ("KReclaimable", "k_reclaimable")];
const BYTES_IN_A_KILOBYTE: u64 = 1024;

/// Columns of `/proc/stat`.
const CPU: [&str; 10] =
    ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice"];
/// Columns of `/proc/diskstats` behind the name.
const DISK: [&str; 17] = [
    "reads",
    "merged",
    "sectors_read",
    "time_reading",
    "writes",
    "writes_merged",
    "sectors_written",
    "time_writing",
    "in_progress",
    "time_in_progress",
    "weighted_time_in_progress",
    "discards",
    "discards_merged",
    "sectors_discarded",
    "time_discarding",
    "flushes",
    "time_flushing",
];
/// Columns of `/proc/net/dev` behind the name.
const NETDEV: [&str; 16] = [
    "recv_bytes",
    "recv_packets",
    "recv_errs",
    "recv_drop",
    "recv_fifo",
    "recv_frame",
    "recv_compressed",
    "recv_multicast",
    "sent_bytes",
    "sent_packets",
    "sent_errs",
    "sent_drop",
    "sent_fifo",
    "sent_colls",
    "sent_carrier",
    "sent_compressed",
];

pub(super) fn write(text: &mut Text, proc: &Path) {
    load(text, &read(&proc.join("loadavg")));
    cpu(text, &read(&proc.join("stat")));
    text.gauges("kata_guest_vm_stat", "Guest virtual memory statistics.");
    for line in read(&proc.join("vmstat")).lines() {
        if let Some((item, value)) = line.split_once(' ') {
            text.sample(&[("item", item)], number(Some(value)));
        }
    }
    meminfo(text, &read(&proc.join("meminfo")));
    disks(text, &read(&proc.join("diskstats")));
    network(text, &read(&proc.join("net/dev")));
}

fn load(text: &mut Text, file: &str) {
    let mut words = file.split_ascii_whitespace();
    text.gauges("kata_guest_load", "Guest system load.");
    for item in ["load1", "load5", "load15"] {
        let is_number = |word: &&str| word.parse::<f64>().is_ok_and(f64::is_finite);
        if let Some(word) = words.next().filter(is_number) {
            text.sample(&[("item", item)], word);
        }
    }
    text.gauges("kata_guest_tasks", "Guest system load.");
    if let Some((current, maximum)) = words.next().and_then(|word| word.split_once('/')) {
        text.sample(&[("item", "cur")], number(Some(current)));
        text.sample(&[("item", "max")], number(Some(maximum)));
    }
}

fn cpu(text: &mut Text, file: &str) {
    let milliseconds = 1000 / clock_ticks_per_second().max(1);
    text.gauges("kata_guest_cpu_time", "Guest CPU statistics.");
    for line in file.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(cpu) = words.next().and_then(|word| word.strip_prefix("cpu")) else { continue };
        let cpu = if cpu.is_empty() { "total" } else { cpu };
        for item in CPU {
            text.sample(&[("cpu", cpu), ("item", item)], number(words.next()).saturating_mul(milliseconds));
        }
    }
}

fn meminfo(text: &mut Text, file: &str) {
    text.gauges("kata_guest_meminfo", "Statistics about memory usage in the system.");
    let sizes = MEMINFO.iter().chain(&MEMINFO_LATER).map(|names| (names, BYTES_IN_A_KILOBYTE));
    for ((name, item), unit) in sizes.chain(MEMINFO_COUNTS.iter().map(|names| (names, 1))) {
        if let Some(value) = keyed(file, name) {
            text.sample(&[("item", item)], value.saturating_mul(unit));
        }
    }
}

fn disks(text: &mut Text, file: &str) {
    text.gauges("kata_guest_diskstat", "Disks statistics in system.");
    for line in file.lines() {
        let mut words = line.split_ascii_whitespace().skip(2);
        let Some(disk) = words.next() else { continue };
        for item in DISK {
            text.sample(&[("disk", disk), ("item", item)], number(words.next()));
        }
    }
}

fn network(text: &mut Text, file: &str) {
    text.gauges("kata_guest_netdev_stat", "Guest net devices statistics.");
    for line in file.lines() {
        let Some((interface, values)) = line.split_once(':') else { continue };
        let mut words = values.split_ascii_whitespace();
        for item in NETDEV {
            text.sample(&[("interface", interface.trim()), ("item", item)], number(words.next()));
        }
    }
}
