//! `cargo xtask guards`: takes each security check out of the source and requires its test to notice.
//!
//! A guard is one statement below a comment of the form
//!
//! ```text
//! // GUARD: <guard-name> -> <test name>[, <test name>]
//! if completion.mac != expected {
//!     return Err(Error::ForgedCompletion);
//! }
//! ```
//!
//! The statement is made unreachable (`if false { … }`) in a copy of the tree, and at least one of the named tests has
//! to fail. A copy that does not compile is no proof, so it fails the run: write the guard as a statement of its own.

mod mutate;
mod scan;
mod statement;

use crate::shell::Workspace;
use anyhow::bail;
use clap::Args;
use scan::Guard;
pub use scan::test_names;
use std::time::{SystemTime, UNIX_EPOCH};

/// Remove security checks one by one from a copy of the sources; each named test must then fail.
///
/// Without an option: all of them.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Every guard (the default).
    #[arg(long, conflicts_with = "sample")]
    all: bool,
    /// Only N guards: the same ones on one day, others on the next.
    #[arg(long, value_name = "N")]
    sample: Option<usize>,
    /// Only list guards and their tests.
    #[arg(long)]
    list: bool,
    /// Only guards whose name or file contains this.
    filter: Option<String>,
}

impl Arguments {
    /// What `cargo xtask test --long` asks for.
    pub fn all() -> Self {
        Self { all: true, sample: None, list: false, filter: None }
    }
}

/// Runs the subcommand.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<()> {
    let mut guards = scan::guards(workspace)?;
    if let Some(filter) = &arguments.filter {
        guards.retain(|guard| guard.matches(filter));
    }
    if let (Some(count), false) = (arguments.sample, arguments.all) {
        // Guests have a build of their own, which takes longer than the rest of a sample.
        guards.retain(|guard| !guard.in_guest);
        guards = sample(guards, count, today()?);
    }
    if arguments.list {
        for guard in &guards {
            println!(
                "{}  {}:{}  -> {}",
                guard.name,
                guard.file.display(),
                guard.line,
                guard.tests.join(", ")
            );
        }
        return Ok(());
    }
    if guards.is_empty() {
        println!("no guards to remove");
        return Ok(());
    }
    let survivors = mutate::run(workspace, &guards)?;
    if !survivors.is_empty() {
        bail!("guards that can go unnoticed:\n  {}", survivors.join("\n  "));
    }
    println!("{} guards removed, each was noticed", guards.len());
    Ok(())
}

/// The rules that need no compilation: well-formed, unique, tests exist, statements can be taken out.
pub fn lint(workspace: &Workspace) -> anyhow::Result<()> {
    let guards = scan::guards(workspace)?;
    println!("{} guards", guards.len());
    Ok(())
}

/// The `count` guards of the day, in an order that changes every day.
fn sample(mut guards: Vec<Guard>, count: usize, day: u64) -> Vec<Guard> {
    guards.sort_by_key(|guard| fnv1a(&format!("{day} {}", guard.name)));
    guards.truncate(count);
    guards
}

fn today() -> anyhow::Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() / 86_400)
}

fn fnv1a(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::{Guard, sample};

    fn names(count: usize, day: u64) -> Vec<String> {
        let guards = (0..20).map(|n| Guard { name: format!("guard-{n}"), ..Guard::default() }).collect();
        sample(guards, count, day).into_iter().map(|guard| guard.name).collect()
    }

    #[test]
    fn a_sample_is_the_same_all_day_and_another_the_next() {
        assert_eq!(names(5, 20_000), names(5, 20_000));
        assert_ne!(names(5, 20_000), names(5, 20_001));
        assert_eq!(names(50, 20_000).len(), 20);
    }
}
