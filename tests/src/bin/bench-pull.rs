//! Times pulls of images and artifacts from a registry; see `cargo xtask bench pull`.

#[path = "../bench/pull/mod.rs"]
mod pull;
#[path = "../bench/statistics.rs"]
mod statistics;

use clap::Parser;

fn main() -> anyhow::Result<()> {
    if let Some(status) = cdh::worker::main() {
        std::process::exit(status);
    }
    pull::run(&pull::Arguments::parse())
}
