//! The table, on the terminal and as JSON.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::statistics::Samples;

/// What a row says beside its figure.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    name: &'static str,
    promise_us: f64,
    upstream: &'static str,
    reference: Option<(&'static str, Samples)>,
}

impl Row {
    /// Microseconds; a promise that is not a number is none.
    pub(crate) fn micros(name: &'static str, promise_us: f64, upstream: &'static str) -> Self {
        Self { name, promise_us, upstream, reference: None }
    }

    /// Held against somebody in the same run.
    pub(crate) fn against(self, who: &'static str, samples: &Samples) -> Self {
        Self { reference: Some((who, samples.clone())), ..self }
    }
}

/// Rows so far.
#[derive(Debug)]
pub(crate) struct Report(Vec<Value>);

impl Report {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    /// A row of times, in seconds.
    pub(crate) fn row(&mut self, row: Row, samples: &Samples) {
        let [p50, p10, p99] = [0.5, 0.1, 0.99].map(|share| samples.quantile(share) * 1e6);
        let promise =
            verdict(row.promise_us.is_nan(), p50 <= row.promise_us, &format!("≤ {:.0} µs", row.promise_us));
        println!("{:<46} {p50:>10.1} µs p50 [p10 {p10:.1}, p99 {p99:.1}]  {promise}", row.name);
        let mut json = json!({
            "name": row.name, "unit": "µs", "p50": p50, "p10": p10, "p99": p99, "samples": samples.0.len(),
            "upstream": peer(row.upstream),
        });
        if let Some(members) = json.as_object_mut() {
            if !row.promise_us.is_nan() {
                members.insert("promise".to_owned(), row.promise_us.into());
                members.insert("met".to_owned(), (p50 <= row.promise_us).into());
            }
            if let Some((who, reference)) = &row.reference {
                let theirs = reference.median() * 1e6;
                println!("{:<46} {theirs:>10.1} µs p50: {who}; {:.2} ×", "", theirs / p50);
                let reference = json!({ "who": who, "seconds": reference.to_json(), "p50": theirs, "ratio": theirs / p50 });
                members.insert("reference".to_owned(), reference);
            }
        }
        if !row.upstream.is_empty() {
            println!("{:<46} {}", "", peer(row.upstream));
        }
        self.0.push(json);
    }

    /// A row of bytes.
    pub(crate) fn bytes(
        &mut self,
        name: &'static str,
        bytes: u64,
        promise: u64,
        upstream: &'static str,
        more: Value,
    ) {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let promised = verdict(false, bytes <= promise, &format!("≤ {:.0} MiB", mib(promise)));
        println!("{name:<46} {:>10.2} MiB  {promised}  {more}\n{:<46} {}", mib(bytes), "", peer(upstream));
        self.0.push(json!({
            "name": name, "unit": "bytes", "value": bytes, "promise": promise, "met": bytes <= promise,
            "upstream": peer(upstream), "more": more,
        }));
    }

    /// A row without a figure, and why.
    pub(crate) fn absent(&mut self, name: &'static str, why: &'static str) {
        println!("{name:<46} {why}");
        self.0.push(json!({ "name": name, "absent": why }));
    }

    pub(crate) fn write(&self, out: &Path, policy_bytes: usize) -> anyhow::Result<()> {
        fs::create_dir_all(out)?;
        let path = out.join("agent.json");
        let report = json!({ "suite": "agent", "policy_bytes": policy_bytes, "rows": self.0 });
        fs::write(&path, serde_json::to_vec_pretty(&report)?)?;
        println!("\n{}", path.display());
        Ok(())
    }
}

fn verdict(none: bool, met: bool, promise: &str) -> String {
    match (none, met) {
        (true, _) => String::new(),
        (false, true) => format!("{promise}: met"),
        (false, false) => format!("{promise}: NOT MET"),
    }
}

/// The figure that was recorded of upstream.
fn peer(figure: &str) -> String {
    if figure.is_empty() { String::new() } else { format!("peer not run; recorded of upstream: {figure}") }
}
