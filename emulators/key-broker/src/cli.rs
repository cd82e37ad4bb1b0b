//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::serve::{self, Options};

/// An emulated key broker that speaks the protocol of Trustee's KBS. For laptops and tests.
#[derive(Debug, Parser)]
#[command(name = "innerkeep-key-broker", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT; prints `ready URL` when it listens.
    Serve(ServeArguments),
}

#[derive(Args, Debug)]
struct ServeArguments {
    /// Address and port; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// State directory: resources, policies, reference values, the token key.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Write the port to this file.
    #[arg(long, value_name = "FILE")]
    port_file: Option<PathBuf>,
    /// Certificate chain for TLS.
    #[arg(long, value_name = "PEM", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key for TLS.
    #[arg(long, value_name = "PEM", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Serve without TLS on an address that is not loopback.
    #[arg(long)]
    insecure_plain_http: bool,
    /// Believe the emulated roots of this file instead of those of AMD and Intel.
    #[arg(long, value_name = "FILE")]
    insecure_trust_roots: Option<PathBuf>,
    /// Accept sample evidence, which proves nothing.
    #[arg(long)]
    insecure_allow_sample: bool,
    /// Collateral for TDX, or certificates and revocation list for SNP; may be given several times.
    #[arg(long, value_name = "FILE")]
    collateral: Vec<PathBuf>,
    /// Resource policy in Rego; replaces the one of the state directory.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Whoever has the token of this file is administrator; without it nobody is.
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// How long a session holds.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1440))]
    session_minutes: u64,
    /// Misbehave as this TOML file says.
    #[arg(long, value_name = "FILE")]
    fault_plan: Option<PathBuf>,
}

impl From<ServeArguments> for Options {
    fn from(arguments: ServeArguments) -> Self {
        Self {
            listen: arguments.listen,
            state: arguments.state,
            port_file: arguments.port_file,
            tls: arguments.tls_cert.zip(arguments.tls_key),
            plain_http: arguments.insecure_plain_http,
            trust_roots: arguments.insecure_trust_roots,
            allow_sample: arguments.insecure_allow_sample,
            collateral: arguments.collateral,
            policy: arguments.policy,
            admin_token: arguments.admin_token_file,
            session_minutes: arguments.session_minutes,
            fault_plan: arguments.fault_plan,
        }
    }
}

/// Runs the program.
///
/// # Errors
/// When the broker cannot start.
pub fn run() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Serve(arguments) => serve::run(&arguments.into()),
    }
}
