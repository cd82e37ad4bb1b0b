//! The emulated TEE as a process.

fn main() -> anyhow::Result<std::process::ExitCode> {
    tee_emulator::cli::run()
}
