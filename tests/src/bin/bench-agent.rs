//! Times the guest agent over its socket: decisions, starts, sizes; see `cargo xtask bench agent`.

#[path = "../bench/agent/mod.rs"]
mod agent;
#[path = "../bench/statistics.rs"]
mod statistics;

use clap::Parser;

fn main() -> anyhow::Result<()> {
    agent::run(&agent::Arguments::parse())
}
