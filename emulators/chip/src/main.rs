//! The emulated sealing chip as a process.

fn main() -> anyhow::Result<()> {
    chip_emulator::cli::run()
}
