//! The command line.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

use crate::faults::Faults;
use crate::guest::Part;
use crate::launch::{Launch, MAXIMUM_LAUNCH_BYTES, TeeKind};
use crate::serve::Options;
use crate::state::{State, read_limited};
use crate::{guest, run, serve};

/// An emulated TEE below a directory. It protects nothing: for laptops and tests.
#[derive(Debug, Parser)]
#[command(name = "innerkeep-tee-emulator", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a platform: keys, trust-roots.json, collateral, launch.toml.
    Init {
        /// State directory.
        #[arg(long)]
        state: PathBuf,
        /// Kind of the guest in the launch file that is written.
        #[arg(long, value_enum, conflicts_with = "launch", default_value = "tdx")]
        tee: TeeKind,
        /// Take this launch file instead of a default one.
        #[arg(long, value_name = "FILE")]
        launch: Option<PathBuf>,
    },
    /// Boot a guest: mount ROOT/sys, serve it until SIGTERM or SIGINT. Needs the right to mount.
    Serve(ServeArguments),
    /// Boot a guest in a mount namespace of its own, also as an ordinary user, and run a command in it.
    Run {
        #[command(flatten)]
        serve: ServeArguments,
        /// The command and its arguments.
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<OsString>,
    },
    /// Boot a guest in a virtual machine that exists for tests: its files at their real paths below /sys, its driver's node in /dev, until
    /// SIGTERM or SIGINT; SIGHUP has the fault plan read anew. Needs root, mounted /proc, /sys and /dev (devtmpfs), and the kernel modules configfs, tsm_report and cuse.
    Guest {
        #[command(flatten)]
        launch: LaunchArguments,
        /// Where the files are mounted first.
        #[arg(long, value_name = "DIR", default_value = "/run/innerkeep-tee-emulator")]
        root: PathBuf,
        /// Leave a part away, as older kernels do; may be repeated.
        #[arg(long, value_enum, value_name = "PART")]
        without: Vec<Part>,
        /// Make this file when the guest is ready, beside the line `ready` on standard output, and again when a new fault plan holds.
        #[arg(long, value_name = "FILE")]
        ready_file: Option<PathBuf>,
    },
    /// What `run` starts its command with.
    #[command(hide = true)]
    Start {
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

#[derive(Args, Debug)]
struct ServeArguments {
    #[command(flatten)]
    launch: LaunchArguments,
    /// Directory below which the guest's files appear.
    #[arg(long)]
    root: PathBuf,
}

#[derive(Args, Debug)]
struct LaunchArguments {
    /// State directory.
    #[arg(long)]
    state: PathBuf,
    /// Launch file; default: launch.toml of the state directory.
    #[arg(long, value_name = "FILE")]
    launch: Option<PathBuf>,
    /// Misbehave as this TOML file says.
    #[arg(long, value_name = "FILE")]
    fault_plan: Option<PathBuf>,
    /// Write the guest's collateral to this file too.
    #[arg(long, value_name = "FILE")]
    collateral_out: Option<PathBuf>,
}

/// Runs the program.
///
/// # Errors
/// What went wrong, for a person.
pub fn run() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        Command::Init { state, tee, launch } => {
            let text = match launch {
                Some(path) => read_text(&path, MAXIMUM_LAUNCH_BYTES)?,
                None => Launch::template(tee),
            };
            State::init(&state, &text)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Serve(arguments) => {
            serve::serve(&arguments.launch.options(arguments.root)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Run { serve, command } => run::run(&serve.launch.options(serve.root)?, &command),
        Command::Guest { launch, root, without, ready_file } => {
            let fault_plan = launch.fault_plan.clone();
            let serve = launch.options(root)?;
            guest::guest(&guest::Options { serve, fault_plan, without, ready_file })?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Start { command } => run::start(&command),
    }
}

impl LaunchArguments {
    fn options(self, root: PathBuf) -> anyhow::Result<Options> {
        let launch = self.launch.unwrap_or_else(|| self.state.join("launch.toml"));
        let launch = Launch::parse(&read_text(&launch, MAXIMUM_LAUNCH_BYTES)?)
            .with_context(|| launch.display().to_string())?;
        let faults = match &self.fault_plan {
            Some(path) => Faults::read(path)?,
            None => Faults::default(),
        };
        let Self { state, collateral_out, .. } = self;
        Ok(Options { state, root, launch, faults: Arc::new(faults), collateral_out })
    }
}

fn read_text(path: &Path, maximum: u64) -> anyhow::Result<String> {
    String::from_utf8(read_limited(path, maximum)?).with_context(|| format!("{}: not UTF-8", path.display()))
}
