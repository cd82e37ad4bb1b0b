//! `cargo xtask fuzz`: runs the targets of `fuzz/` and writes down what happened.

use crate::shell::{self, Workspace};
use anyhow::{Context, bail};
use cargo_metadata::MetadataCommand;
use clap::Args;
use std::fmt::Write as _;
use std::process::Command;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Fuzz every parser (or one target), with a nightly toolchain and cargo-fuzz.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Runs for each target.
    #[arg(long, default_value_t = 1_000_000)]
    runs: u64,
    /// Compile cargo-fuzz first if it is missing.
    #[arg(long)]
    install: bool,
    /// Only this target.
    target: Option<String>,
}

/// What the file of results begins with.
const HEADING: &str = "# Fuzzing results\n\nOne row for each finished or failed run of `cargo xtask fuzz`.\n\n\
     | date (UTC) | commit | target | runs | seconds | result |\n|---|---|---|---|---|---|\n";

/// Runs the subcommand.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<()> {
    let manifest = workspace.path("fuzz/Cargo.toml");
    if !manifest.is_file() {
        bail!("not built yet: there is no fuzz/Cargo.toml");
    }
    require_tools(workspace, arguments.install)?;
    let targets = targets(workspace, arguments.target.as_deref())?;
    let mut failed = Vec::new();
    for target in targets {
        let mut build = workspace.command("cargo");
        shell::run(build.args(["+nightly", "fuzz", "build", "--fuzz-dir", "fuzz", &target]))?;
        let start = Instant::now();
        let mut cargo = workspace.command("cargo");
        cargo.args(["+nightly", "fuzz", "run", "--fuzz-dir", "fuzz", &target, "--"]);
        cargo.arg(format!("-runs={}", arguments.runs));
        // A hang is 20 s for one input, an allocation above any cap of the formats is 512 MiB at once.
        cargo.args(["-timeout=20", "-malloc_limit_mb=512", "-rss_limit_mb=3072", "-print_final_stats=1"]);
        let outcome = shell::run(&mut cargo);
        let result = if outcome.is_ok() { "no crash, hang or allocation above cap" } else { "FAILED" };
        record(workspace, &target, arguments.runs, start.elapsed().as_secs(), result)?;
        if let Err(error) = outcome {
            eprintln!("{error:#}");
            failed.push(target);
        }
    }
    if !failed.is_empty() {
        bail!("findings in {failed:?}: the inputs are in fuzz/artifacts/");
    }
    Ok(())
}

fn require_tools(workspace: &Workspace, install: bool) -> anyhow::Result<()> {
    let mut nightly = Command::new("cargo");
    nightly.args(["+nightly", "--version"]).stdout(std::process::Stdio::null());
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

fn record(workspace: &Workspace, target: &str, runs: u64, seconds: u64, result: &str) -> anyhow::Result<()> {
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
        "| {} | {} | `{target}` | {runs} | {seconds} | {result} |",
        civil_date(days),
        commit.trim()
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
