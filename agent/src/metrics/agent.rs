//! Figures of this process.

use std::path::Path;

use rustix::param::{clock_ticks_per_second, page_size};

use crate::metrics::text::Text;
use crate::metrics::{number, read};

/// Of `/proc/self/status`, whose names upstream has in small letters.
const STATUS: [&str; 18] = [
    "VmPeak",
    "VmSize",
    "VmLck",
    "VmPin",
    "VmHWM",
    "VmRSS",
    "RssAnon",
    "RssFile",
    "RssShmem",
    "VmData",
    "VmStk",
    "VmExe",
    "VmLib",
    "VmPTE",
    "VmSwap",
    "HugetlbPages",
    "voluntary_ctxt_switches",
    "nonvoluntary_ctxt_switches",
];

/// Places in `/proc/self/stat`, counted behind the name of the program (proc_pid_stat(5), less 3).
const UTIME: usize = 11;
const STIME: usize = 12;
const CUTIME: usize = 13;
const CSTIME: usize = 14;
const THREADS: usize = 17;
const VSIZE: usize = 20;
const RSS: usize = 21;

pub(super) fn write(text: &mut Text, proc: &Path) {
    let own = proc.join("self");
    let stat = read(&own.join("stat"));
    // The name may have spaces and brackets.
    let words: Vec<&str> =
        stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace().collect();
    if !words.is_empty() {
        let at = |place: usize| number(words.get(place).copied());
        text.gauges("kata_agent_threads", "Agent process threads");
        text.sample(&[], at(THREADS));
        text.gauges("kata_agent_total_time", "Agent process total time");
        text.sample(&[], seconds(at(UTIME).saturating_add(at(STIME))));
        text.gauges("kata_agent_total_vm", "Agent process total VM size");
        text.sample(&[], at(VSIZE));
        text.gauges("kata_agent_total_rss", "Agent process total RSS size");
        text.sample(&[], at(RSS).saturating_mul(u64::try_from(page_size()).unwrap_or(4096)));
        text.gauges("kata_agent_proc_stat", "Agent process statistics.");
        for (item, place) in [("utime", UTIME), ("stime", STIME), ("cutime", CUTIME), ("cstime", CSTIME)] {
            text.sample(&[("item", item)], at(place));
        }
    }
    text.gauges("kata_agent_proc_status", "Agent process status.");
    let status = read(&own.join("status"));
    for name in STATUS {
        if let Some(value) = keyed(&status, name) {
            text.sample(&[("item", &name.to_ascii_lowercase())], value);
        }
    }
    text.gauges("kata_agent_io_stat", "Agent process IO statistics.");
    for line in read(&own.join("io")).lines() {
        if let Some((item, value)) = line.split_once(": ") {
            text.sample(&[("item", item)], number(Some(value)));
        }
    }
}

/// The number behind `NAME:`.
pub(super) fn keyed(text: &str, name: &str) -> Option<u64> {
    let mut values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    values.next()?.split_ascii_whitespace().next()?.parse().ok()
}

/// With two digits.
fn seconds(ticks: u64) -> String {
    let hundredths = u128::from(ticks) * 100 / u128::from(clock_ticks_per_second().max(1));
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}
