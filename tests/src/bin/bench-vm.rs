//! Times guests under QEMU; see `cargo xtask bench vm`.

#[path = "../bench/statistics.rs"]
mod statistics;
#[path = "../bench/vm.rs"]
mod vm;

use clap::Parser;

fn main() -> anyhow::Result<()> {
    vm::run(&vm::Arguments::parse())
}
