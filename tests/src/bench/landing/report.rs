//! The table on the terminal and the JSON beside it.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::plan::shown_size;
use super::promises::Verdict;
use super::rounds::{Results, Row};

/// Gigabytes (10^9) per second of a row's median.
pub(crate) fn rate(row: &Row) -> f64 {
    row.case.size as f64 / 1e9 / row.seconds.median()
}

/// Prints rows, what was left out, and promises.
pub(crate) fn print(results: &Results, verdicts: &[Verdict]) {
    println!(
        "{:<38} {:>8} {:>7} {:>9} {:>19} {:>7} {:>8} {:>7} {:>9}",
        "what", "size", "threads", "median s", "p10 … p90", "GB/s", "cpu s", "fill s", "alloc/seg"
    );
    for row in &results.rows {
        let spread = format!("{:.4} … {:.4}", row.seconds.quantile(0.1), row.seconds.quantile(0.9));
        let (cpu, fill, allocations) = match &row.detail {
            Some(detail) => {
                let segments = row.case.size.div_ceil(1 << 20) as f64;
                let allocations = format!("{:.4}", detail.fill_allocations as f64 / segments);
                (format!("{:.4}", detail.cpu_seconds), format!("{:.4}", detail.steps.fill), allocations)
            }
            None => ("-".to_owned(), "-".to_owned(), "-".to_owned()),
        };
        println!(
            "{:<38} {:>8} {:>7} {:>9.4} {:>19} {:>7.2} {:>8} {:>7} {:>9}",
            row.case.name(),
            shown_size(row.case.size),
            row.case.threads,
            row.seconds.median(),
            spread,
            rate(row),
            cpu,
            fill,
            allocations
        );
    }
    for (what, reason) in &results.skipped {
        println!("left out: {what}: {reason}");
    }
    println!();
    for verdict in verdicts {
        let spread = verdict.spread.map(|(low, high)| format!(" [{low:.2} … {high:.2}]")).unwrap_or_default();
        println!(
            "{:<8} {}: {:.2}{spread}, promised {} {}",
            if verdict.is_met() { "met" } else { "NOT MET" },
            verdict.promise,
            verdict.measured,
            if verdict.at_least { "≥" } else { "≤" },
            verdict.wanted
        );
    }
}

/// Writes `landing.json`.
pub(crate) fn write(out: &Path, results: &Results, verdicts: &[Verdict]) -> anyhow::Result<()> {
    let rows: Vec<Value> = results
        .rows
        .iter()
        .map(|row| {
            json!({
                "name": row.case.name(), "bytes": row.case.size, "threads": row.case.threads,
                "seconds": row.seconds.to_json(), "gb_per_s": rate(row), "median_round": row.detail, "memory": row.memory,
            })
        })
        .collect();
    let skipped: Vec<Value> =
        results.skipped.iter().map(|(what, reason)| json!({ "what": what, "reason": reason })).collect();
    let document = json!({
        "suite": "landing",
        "unix_time": SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
        "machine": machine(),
        "rows": rows,
        "left_out": skipped,
        "promises": verdicts.iter().map(Verdict::to_json).collect::<Vec<_>>(),
    });
    fs::write(out.join("landing.json"), serde_json::to_vec_pretty(&document)?)?;
    Ok(())
}

/// What the figures depend on.
pub(crate) fn machine() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let cpu = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    json!({
        "cpu": cpu.trim_start_matches([' ', '\t', ':']),
        "cores": std::thread::available_parallelism().map_or(0, |n| n.get()),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "load": read("/proc/loadavg").trim(),
        "shmem_enabled": read("/sys/kernel/mm/transparent_hugepage/shmem_enabled").trim(),
    })
}
