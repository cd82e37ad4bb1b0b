//! The table, on the terminal and as JSON.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::measured::Measured;
use crate::statistics::Samples;

/// Rounds of one thing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rounds {
    pub(crate) seconds: Samples,
    cpu: Samples,
    anonymous: u64,
    resident: u64,
}

impl Rounds {
    pub(crate) fn add(&mut self, measured: &Measured) {
        self.seconds.0.push(measured.seconds);
        self.cpu.0.push(measured.cpu_seconds);
        self.anonymous = self.anonymous.max(measured.anonymous);
        self.resident = self.resident.max(measured.resident);
    }

    /// The times of another over these, round by round.
    fn ratio(&self, other: &Self) -> Samples {
        Samples(other.seconds.0.iter().zip(&self.seconds.0).map(|(theirs, ours)| theirs / ours).collect())
    }
}

/// Rows so far.
#[derive(Debug)]
pub(crate) struct Report(Vec<Value>);

impl Report {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    /// What something took.
    pub(crate) fn row(&mut self, name: &str, bytes: u64, rounds: &Rounds) {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let (wall, cpu) = (&rounds.seconds, &rounds.cpu);
        println!(
            "{name:<52} {:>7.2} s [{:.2}, {:.2}]  {:>5.0} MB/s  cpu {:>6.2} s  memory {:>6.1} MiB (resident {:.1})",
            wall.median(),
            wall.quantile(0.1),
            wall.quantile(0.9),
            bytes as f64 / 1e6 / wall.median(),
            cpu.median(),
            mib(rounds.anonymous),
            mib(rounds.resident)
        );
        self.0.push(json!({
            "name": name, "bytes": bytes, "seconds": wall.to_json(), "cpu_seconds": cpu.to_json(),
            "anonymous_bytes": rounds.anonymous, "resident_bytes": rounds.resident,
        }));
    }

    /// A promise that is a ratio of times in the same rounds: the peer's over ours, at least.
    pub(crate) fn promise(&mut self, name: &str, wanted: f64, ours: &Rounds, theirs: &Rounds) {
        let ratio = ours.ratio(theirs);
        let met = ratio.median() >= wanted;
        let word = if met { "met" } else { "NOT MET" };
        let (low, high) = (ratio.quantile(0.1), ratio.quantile(0.9));
        println!("{name:<52} {:>7.2} × [{low:.2}, {high:.2}]  ≥ {wanted} ×: {word}", ratio.median());
        self.0.push(json!({ "name": name, "ratio": ratio.to_json(), "promise": wanted, "met": met }));
    }

    /// A promise about memory, in bytes, at most.
    pub(crate) fn memory(&mut self, name: &str, wanted: u64, ours: &Rounds) {
        let (found, met) = (ours.anonymous, ours.anonymous <= wanted);
        let word = if met { "met" } else { "NOT MET" };
        println!("{name:<52} {:>7.1} MiB  ≤ {} MiB: {word}", found as f64 / f64::from(1 << 20), wanted >> 20);
        self.0.push(json!({ "name": name, "anonymous_bytes": found, "promise": wanted, "met": met }));
    }

    /// Steps of one thing, for whoever looks for the cause.
    pub(crate) fn note(&mut self, name: &str, text: &str) {
        println!("{name:<52} {text}");
        self.0.push(json!({ "name": name, "note": text }));
    }

    /// A peer that was not run, and why.
    pub(crate) fn absent(&mut self, name: &str, why: &str) {
        println!("{name:<52} peer not run: {why}");
        self.0.push(json!({ "name": name, "peer_not_run": why }));
    }

    pub(crate) fn write(&self, out: &Path) -> anyhow::Result<()> {
        let path = out.join("pull.json");
        fs::write(&path, serde_json::to_vec_pretty(&json!({ "suite": "pull", "rows": self.0 }))?)?;
        println!("\n{}", path.display());
        Ok(())
    }
}
