//! The figures that SPECIFICATION.md promises, judged on what was measured. A promise that is not met is printed, not hidden.

use serde_json::{Value, json};

use super::plan::{Kind, TOOL_SIZE, shown_size};
use super::rounds::{Results, Row};
use super::worker::Work;
use crate::statistics::Samples;

/// Extra resident memory while landing.
const EXTRA_RESIDENT_BYTES: u64 = 16 << 20;
/// Time per byte at one size against another: what still counts as linear.
const LINEAR: f64 = 1.10;

/// One promise and what became of it.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) promise: String,
    pub(crate) measured: f64,
    pub(crate) spread: Option<(f64, f64)>,
    pub(crate) wanted: f64,
    pub(crate) at_least: bool,
}

impl Verdict {
    /// Whether the promise is met by the median.
    pub(crate) fn is_met(&self) -> bool {
        if self.at_least { self.measured >= self.wanted } else { self.measured <= self.wanted }
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "promise": self.promise, "measured": self.measured, "wanted": self.wanted,
            "comparison": if self.at_least { "at least" } else { "at most" }, "met": self.is_met(),
            "p10": self.spread.map(|s| s.0), "p90": self.spread.map(|s| s.1),
        })
    }
}

/// Judges everything that can be judged.
pub(crate) fn judge(results: &Results) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    against_memcpy(results, &mut verdicts);
    scaling(results, &mut verdicts);
    memory(results, &mut verdicts);
    tools(results, &mut verdicts);
    verdicts
}

fn plain(work: Work) -> Kind {
    Kind::Work { work, digest: false, base_pages: false }
}

fn find(results: &Results, kind: Kind, size: u64, threads: usize) -> Option<&Row> {
    let fits =
        |row: &&Row| row.case.kind == kind && row.case.size == size && row.case.threads.get() == threads;
    results.rows.iter().find(fits)
}

/// Sizes that were measured, ascending.
fn sizes(results: &Results) -> Vec<u64> {
    let mut sizes: Vec<u64> = results.rows.iter().map(|row| row.case.size).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// The times of one case over those of another, round by round.
fn over(theirs: &Row, ours: &Row) -> Samples {
    Samples(theirs.seconds.0.iter().zip(&ours.seconds.0).map(|(theirs, ours)| theirs / ours).collect())
}

fn ratio(promise: String, ratios: &Samples, wanted: f64) -> Verdict {
    let spread = Some((ratios.quantile(0.1), ratios.quantile(0.9)));
    Verdict { promise, measured: ratios.median(), spread, wanted, at_least: true }
}

fn against_memcpy(results: &Results, verdicts: &mut Vec<Verdict>) {
    for size in sizes(results) {
        for (threads, wanted) in [(2, 0.85), (1, 0.80)] {
            let ours = find(results, plain(Work::KeyRelease), size, threads);
            let memcpy = find(results, plain(Work::Copy), size, threads);
            if let (Some(ours), Some(memcpy)) = (ours, memcpy) {
                let promise =
                    format!("key-release, {}, {threads} threads: share of memcpy", shown_size(size));
                verdicts.push(ratio(promise, &over(memcpy, ours), wanted));
            }
        }
    }
}

fn scaling(results: &Results, verdicts: &mut Vec<Verdict>) {
    let sizes = sizes(results);
    for &size in &sizes {
        let one = find(results, plain(Work::KeyRelease), size, 1);
        let two = find(results, plain(Work::KeyRelease), size, 2);
        if let (Some(one), Some(two)) = (one, two) {
            let promise = format!("key-release, {}: 2 threads against 1", shown_size(size));
            verdicts.push(ratio(promise, &over(one, two), 1.6));
        }
    }
    for pair in sizes.windows(2) {
        let &[small, large] = pair else { continue };
        let rows = (
            find(results, plain(Work::KeyRelease), small, 2),
            find(results, plain(Work::KeyRelease), large, 2),
        );
        if let (Some(a), Some(b)) = rows {
            let measured = b.seconds.median() / large as f64 / (a.seconds.median() / small as f64);
            let promise = format!(
                "key-release, 2 threads: time per byte at {} against {}",
                shown_size(large),
                shown_size(small)
            );
            verdicts.push(Verdict { promise, measured, spread: None, wanted: LINEAR, at_least: false });
        }
    }
}

fn memory(results: &Results, verdicts: &mut Vec<Verdict>) {
    for row in &results.rows {
        let Kind::Work { work: Work::KeyRelease, digest, base_pages: false } = row.case.kind else {
            continue;
        };
        let Some(memory) = &row.memory else { continue };
        let digest = if digest { ", payload digest" } else { "" };
        let promise = format!(
            "extra resident MiB, {}, {} threads{digest}",
            shown_size(row.case.size),
            row.case.threads
        );
        let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
        let (measured, wanted) = (mib(memory.extra_resident_bytes), mib(EXTRA_RESIDENT_BYTES));
        verdicts.push(Verdict { promise, measured, spread: None, wanted, at_least: false });
    }
}

fn tools(results: &Results, verdicts: &mut Vec<Verdict>) {
    let ours = [
        ("landing, 2 threads", find(results, plain(Work::KeyRelease), TOOL_SIZE, 2)),
        ("whole process, 2 threads", find(results, Kind::Command, TOOL_SIZE, 2)),
    ];
    for (name, wanted) in
        [("age -d", 7.0), ("openssl enc -d -aes-256-ctr", 4.5), ("gpg -d", 10.0), ("cp", 1.0)]
    {
        let Some(tool) = find(results, Kind::Tool { name }, TOOL_SIZE, 1) else { continue };
        for (what, row) in &ours {
            if let Some(row) = row {
                let promise = format!("{name} against {what}, {}", shown_size(TOOL_SIZE));
                verdicts.push(ratio(promise, &over(tool, row), wanted));
            }
        }
    }
}
