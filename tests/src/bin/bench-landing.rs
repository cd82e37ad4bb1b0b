//! Times landings against memcpy and other programs; see `cargo xtask bench landing`.

#[path = "../bench/counting.rs"]
mod counting;
#[path = "../bench/landing/mod.rs"]
mod landing;
#[path = "../bench/statistics.rs"]
mod statistics;

use clap::Parser;
use landing::plan::Arguments;
use landing::{chart, promises, report, rounds};

#[global_allocator]
static HEAP: counting::Counting = counting::Counting;

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(ask) = &arguments.worker {
        println!("{}", rounds::answer(ask)?);
        return Ok(());
    }
    std::fs::create_dir_all(&arguments.out)?;
    let results = rounds::run(&arguments)?;
    let verdicts = promises::judge(&results);
    report::print(&results, &verdicts);
    report::write(&arguments.out, &results, &verdicts)?;
    chart::write(&arguments.out, &results)?;
    println!("\n{0}/landing.json, {0}/landing.svg", arguments.out.display());
    Ok(())
}
