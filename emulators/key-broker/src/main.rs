//! The emulated key broker as a process.

fn main() -> anyhow::Result<()> {
    key_broker_emulator::cli::run()
}
