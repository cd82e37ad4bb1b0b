//! Times attestation: evidence, handshakes, secrets; see `cargo xtask bench attest`.

#[path = "../bench/attest.rs"]
mod attest;
#[path = "../bench/counting.rs"]
mod counting;
#[path = "../bench/statistics.rs"]
mod statistics;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

fn main() -> anyhow::Result<()> {
    attest::run(&attest::Arguments::parse())
}
