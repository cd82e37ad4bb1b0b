//! The ttrpc service as a process of its own, with upstream's flags: the program `attestation-agent`, and the role of that name of the
//! guest agent's.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::binding::{Binding, Launch};
use crate::config::LogLevel;
use crate::service::AttestationService;
use crate::{AttestationError, Attester, Options, TeeRoot};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Parser;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

const FAILURE: u8 = 1;
const SOCKET: &str = "unix:///run/confidential-containers/attestation-agent/attestation-agent.sock";

/// Attestation agent: evidence, runtime measurement and tokens for the processes of a confidential guest.
#[derive(Debug, Parser)]
#[command(name = "attestation-agent", version)]
struct Args {
    /// Socket of the service.
    #[arg(short, long = "attestation_sock", value_name = "unix://PATH", default_value = SOCKET)]
    attestation_sock: String,
    /// Configuration; inside a TEE it has to be the aa.toml of bound initdata.
    #[arg(short, long, value_name = "PATH")]
    config_file: Option<PathBuf>,
    /// Digest of initdata in base64: compared with the platform's register, never trusted.
    #[arg(short, long, value_name = "BASE64")]
    initdata_digest: Option<String>,
    /// Initdata: counts only if the platform's register holds its digest.
    #[arg(short = 't', long, value_name = "PATH")]
    initdata_toml: Option<PathBuf>,
    /// Insecure: an emulated platform below this directory. Refused inside a TEE.
    #[arg(long, value_name = "DIR")]
    insecure_tee_root: Option<PathBuf>,
    /// Insecure: evidence that proves nothing. Refused inside a TEE.
    #[arg(long)]
    insecure_sample: bool,
    /// Insecure, only with one of the two above: a configuration that nothing vouches for.
    #[arg(long)]
    insecure_unbound_config: bool,
}

/// The whole program, from its arguments, of which the first is its own name. Returns the exit status.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let args = match Args::try_parse_from(arguments) {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(FAILURE);
        }
    };
    match run(&args) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("attestation-agent: {error}");
            FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), String> {
    let insecure = [
        (args.insecure_tee_root.is_some(), "--insecure-tee-root"),
        (args.insecure_sample, "--insecure-sample"),
        (args.insecure_unbound_config, "--insecure-unbound-config"),
    ];
    let insecure: Vec<_> = insecure.into_iter().filter(|(on, _)| *on).map(|(_, flag)| flag).collect();
    if !insecure.is_empty() {
        eprintln!("attestation-agent: INSECURE: {}: nothing here is protected", insecure.join(" "));
    }
    protected_memory::harden::harden_process().map_err(|error| chain(&error))?;
    let path = args.attestation_sock.strip_prefix("unix://");
    let socket = Path::new(path.ok_or("--attestation_sock: expected unix://PATH")?);
    let digest = args.initdata_digest.as_ref().map(|digest| STANDARD.decode(digest)).transpose();
    let digest = digest.map_err(|error| format!("--initdata-digest: expected standard base64: {error}"))?;
    let root = args.insecure_tee_root.as_ref().map_or_else(TeeRoot::system, TeeRoot::insecure);
    let options = Options { insecure_sample: args.insecure_sample };
    let attester = Attester::detect(&root, options).map_err(with_code)?;
    let launch = Launch {
        config_file: args.config_file.as_deref(),
        initdata_digest: digest.as_deref(),
        initdata_toml: args.initdata_toml.as_deref(),
        insecure_unbound_config: args.insecure_unbound_config,
    };
    let binding = Binding::decide(&attester, &launch).map_err(with_code)?;
    let talkative = binding.config.log.level >= LogLevel::Info;
    let tee = attester.tee();
    let service = AttestationService::new(Arc::new(attester), &binding)
        .map_err(|error| format!("{}: {}", error.code(), chain(&error)))?;
    runtime().map_err(|error| chain(&error))?.block_on(async {
        let stop = told_to_stop().map_err(|error| chain(&error))?;
        let ready = || {
            if talkative {
                eprintln!("attestation-agent: {tee}: serving {}", socket.display());
            }
        };
        let served = service.serve(socket, ready, stop).await;
        served.map_err(|error| format!("{}: {}", error.code(), chain(&error)))
    })
}

/// What a program that serves runs in.
///
/// # Errors
///
/// The system makes no threads.
pub fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).max_blocking_threads(8).enable_all().build()
}

/// Ends at SIGTERM, SIGINT or SIGHUP, whichever comes first after this call. Inside a runtime.
///
/// # Errors
///
/// They cannot be waited for.
pub fn told_to_stop() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

fn with_code(error: AttestationError) -> String {
    format!("{}: {}", error.code(), chain(&error))
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
