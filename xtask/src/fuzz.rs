//! `cargo xtask fuzz`: runs the targets of `fuzz/` and writes down what happened.

use crate::shell::{self, Workspace};
use anyhow::{Context, bail};
use cargo_metadata::MetadataCommand;
use clap::Args;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Fuzz every parser (or one target), with a nightly toolchain and cargo-fuzz.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Runs for each target.
    #[arg(long, default_value_t = 1_000_000)]
    runs: u64,
    /// End a target after this many seconds even if runs are left; the runs that were made are recorded. 0: no limit.
    #[arg(long, default_value_t = 0)]
    max_seconds: u64,
    /// Compile cargo-fuzz first if it is missing.
    #[arg(long)]
    install: bool,
    /// Only this target.
    target: Option<String>,
}

/// What the file of results begins with.
const HEADING: &str = "# Fuzzing results\n\nOne row for each finished or failed run of `cargo xtask fuzz`.\n\n\
     | date (UTC) | commit | toolchain | target | runs | seconds | result |\n|---|---|---|---|---|---|---|\n";

/// Runs the subcommand.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<()> {
    let manifest = workspace.path("fuzz/Cargo.toml");
    if !manifest.is_file() {
        bail!("not built yet: there is no fuzz/Cargo.toml");
    }
    require_tools(workspace, arguments.install)?;
    let targets = targets(workspace, arguments.target.as_deref())?;
    let mut build = workspace.command("cargo");
    build.args(["+nightly", "fuzz", "build", "--fuzz-dir", "fuzz"]).args(&arguments.target);
    shell::stage("build", || shell::run(&mut build))?;
    let toolchain = shell::output(workspace.command("rustc").args(["+nightly", "--version"]))?;
    let mut failed = Vec::new();
    for target in targets {
        let outcome = fuzz(workspace, &target, arguments)?;
        let result = if outcome.passed { "no crash, hang or allocation above cap" } else { "FAILED" };
        record(workspace, toolchain.trim(), &target, &outcome, result)?;
        if !outcome.passed {
            failed.push(target);
        }
    }
    if !failed.is_empty() {
        bail!("findings in {failed:?}: the inputs are in fuzz/artifacts/");
    }
    Ok(())
}

/// What became of one target.
struct Outcome {
    passed: bool,
    runs: u64,
    seconds: u64,
}

/// Runs one target on its corpus and its seeds, with what it prints handed through.
fn fuzz(workspace: &Workspace, target: &str, arguments: &Arguments) -> anyhow::Result<Outcome> {
    let (corpus, seeds) = (format!("fuzz/corpus/{target}"), format!("fuzz/seeds/{target}"));
    std::fs::create_dir_all(workspace.path(&corpus))?;
    let mut cargo = workspace.command("cargo");
    cargo.args(["+nightly", "fuzz", "run", "--fuzz-dir", "fuzz", target, &corpus]);
    if workspace.path(&seeds).is_dir() {
        cargo.arg(&seeds);
    }
    cargo.arg("--").arg(format!("-runs={}", arguments.runs));
    cargo.arg(format!("-max_total_time={}", arguments.max_seconds));
    // A hang is 20 s for one input, an allocation above any cap of the formats is 512 MiB at once.
    cargo.args(["-timeout=20", "-malloc_limit_mb=512", "-rss_limit_mb=3072", "-print_final_stats=1"]);
    let words = workspace.path(format!("{seeds}.dict"));
    if words.is_file() {
        cargo.arg(format!("-dict={}", words.display()));
    }
    let start = Instant::now();
    let mut child = cargo
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {}", shell::shown(&cargo)))?;
    let mut runs = 0;
    for line in BufReader::new(child.stderr.take().context("no standard error")?).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        eprintln!("{line}");
        if let Some(number) = line.strip_prefix("stat::number_of_executed_units:") {
            runs = number.trim().parse().unwrap_or(0);
        }
    }
    Ok(Outcome { passed: child.wait()?.success(), runs, seconds: start.elapsed().as_secs() })
}

fn require_tools(workspace: &Workspace, install: bool) -> anyhow::Result<()> {
    let mut nightly = Command::new("cargo");
    nightly.args(["+nightly", "--version"]).stdout(Stdio::null());
    if !nightly.status().is_ok_and(|status| status.success()) {
        bail!("missing: a nightly toolchain (`rustup toolchain install nightly`)");
    }
    if shell::has_cargo_subcommand("fuzz") {
        return Ok(());
    }
    if !install {
        bail!("missing: cargo-fuzz; `cargo xtask fuzz --install` compiles it");
    }
    let mut cargo = workspace.command("cargo");
    cargo.args(["install", "--locked", "cargo-fuzz"]);
    shell::run(&mut cargo)
}

fn targets(workspace: &Workspace, only: Option<&str>) -> anyhow::Result<Vec<String>> {
    let metadata =
        MetadataCommand::new().manifest_path(workspace.path("fuzz/Cargo.toml")).no_deps().exec()?;
    let mut targets: Vec<String> = metadata
        .packages
        .iter()
        .flat_map(|package| &package.targets)
        .filter(|target| target.is_bin())
        .map(|target| target.name.clone())
        .collect();
    targets.sort();
    if let Some(only) = only {
        if !targets.iter().any(|target| target == only) {
            bail!("no fuzz target `{only}`; there are: {targets:?}");
        }
        targets.retain(|target| target == only);
    }
    Ok(targets)
}

fn record(
    workspace: &Workspace,
    toolchain: &str,
    target: &str,
    outcome: &Outcome,
    result: &str,
) -> anyhow::Result<()> {
    let path = workspace.path("fuzz/RESULTS.md");
    let mut text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => HEADING.to_owned(),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    let commit = shell::output(workspace.command("git").args(["rev-parse", "--short", "HEAD"]))?;
    let days = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() / 86_400;
    writeln!(
        text,
        "| {} | {} | {toolchain} | `{target}` | {} | {} | {result} |",
        civil_date(days),
        commit.trim(),
        outcome.runs,
        outcome.seconds
    )?;
    std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}

/// Days since 1970-01-01 as `YYYY-MM-DD` (Howard Hinnant's `civil_from_days`).
fn civil_date(days: u64) -> String {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::civil_date;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (days, date) in
            [(0, "1970-01-01"), (59, "1970-03-01"), (11_016, "2000-02-29"), (20_454, "2026-01-01")]
        {
            assert_eq!(civil_date(days), date);
        }
    }
}
