//! Times the parts: segments, grants, policies, cores; see `cargo xtask bench micro`.

#[path = "../bench/micro.rs"]
mod micro;
#[path = "../bench/statistics.rs"]
mod statistics;

use clap::Parser;

fn main() -> anyhow::Result<()> {
    micro::run(&micro::Arguments::parse())
}
