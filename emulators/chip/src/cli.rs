//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::firmware::Modes;
use crate::puf::measure::{Measurement, measure};
use crate::serve::{Options, init, raise_epoch, serve};

/// An emulated sealing chip behind a vfio-user socket. It protects nothing: for laptops and tests.
#[derive(Debug, Parser)]
#[command(name = "innerkeep-chip-emulator", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Option<ServeArguments>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a chip in an empty directory.
    Init {
        /// State directory.
        #[arg(long)]
        state: PathBuf,
    },
    /// Serve the device (also without naming this command); makes a chip when the directory has none.
    Serve(ServeArguments),
    /// Raise the key epoch: former grants become useless, the chip needs new certificates, floors stay.
    RaiseEpoch {
        /// State directory.
        #[arg(long)]
        state: PathBuf,
    },
    /// Measure how often the PUF's root cannot be reconstructed.
    PufMeasure {
        /// Number of reconstructions.
        #[arg(long, default_value_t = 1_000_000)]
        reconstructions: u64,
        /// Bit error rate of each reading.
        #[arg(long, default_value_t = 0.03)]
        ber: f64,
        /// Threads.
        #[arg(long, default_value_t = 2)]
        threads: u32,
        /// Decides silicon and noise.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args, Debug)]
struct ServeArguments {
    /// Path of the UNIX socket.
    #[arg(long)]
    socket: PathBuf,
    /// State directory.
    #[arg(long)]
    state: PathBuf,
    /// Do not demand evidence of guests that say the same. A policy that demands evidence is refused without it all the same.
    #[arg(long)]
    insecure_no_evidence: bool,
    /// Believe the emulated trust roots of this file instead of Intel's and AMD's.
    #[arg(long, value_name = "FILE")]
    insecure_trust_roots: Option<PathBuf>,
    /// Write plaintext to memory that a guest calls private, without TDISP.
    #[arg(long)]
    insecure_emulated_dma: bool,
    /// Misbehave as this TOML file says; read again at SIGHUP.
    #[arg(long, value_name = "FILE")]
    fault_plan: Option<PathBuf>,
    /// Bit error rate of the PUF's readings.
    #[arg(long, default_value_t = 0.015)]
    puf_noise: f64,
    /// End when the first client is gone.
    #[arg(long)]
    once: bool,
}

impl From<ServeArguments> for Options {
    fn from(arguments: ServeArguments) -> Self {
        Self {
            socket: arguments.socket,
            state: arguments.state,
            modes: Modes {
                no_evidence: arguments.insecure_no_evidence,
                emulated_dma: arguments.insecure_emulated_dma,
            },
            trust_roots: arguments.insecure_trust_roots,
            fault_plan: arguments.fault_plan,
            puf_noise: arguments.puf_noise,
            once: arguments.once,
        }
    }
}

/// Runs the program.
#[expect(clippy::print_stdout, reason = "output of a command-line program")]
pub fn run() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let command = match (arguments.command, arguments.serve) {
        (Some(command), _) => command,
        (None, Some(serve)) => Command::Serve(serve),
        (None, None) => anyhow::bail!("--socket and --state are needed, or a command: see --help"),
    };
    match command {
        Command::Init { state } => init(&state),
        Command::Serve(arguments) => serve(&arguments.into()),
        Command::RaiseEpoch { state } => {
            println!("{}", raise_epoch(&state)?);
            Ok(())
        }
        Command::PufMeasure { reconstructions, ber, threads, seed, json } => {
            let outcome = measure(Measurement { reconstructions, bit_error_rate: ber, threads, seed })?;
            if json {
                println!("{}", serde_json::to_string(&outcome)?);
            } else {
                println!(
                    "{} failures in {} reconstructions at bit error rate {} ({:.1} s)",
                    outcome.failures, outcome.reconstructions, outcome.bit_error_rate, outcome.seconds
                );
            }
            Ok(())
        }
    }
}
