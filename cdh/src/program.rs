//! The data hub as a process of its own, with upstream's flag: the program `confidential-data-hub`, and the role of that name of the guest
//! agent's.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use attestation_agent::config::LogLevel;
use attestation_agent::program::{runtime, told_to_stop};
use clap::Parser;
use initdata::InsecureMode;

use crate::hub_error::HubError;
use crate::launch::{HubLaunch, launch};
use crate::resources::Refreshed;

const FAILURE: u8 = 1;

/// Confidential data hub: secrets, keys of image layers, images, volumes and sealed artifacts for the processes of a confidential guest.
#[derive(Debug, Parser)]
#[command(name = "confidential-data-hub", version)]
struct Args {
    /// Configuration; it has to be the cdh.toml of bound initdata.
    #[arg(short, long, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Initdata: counts only if the platform's register holds its digest. Without it, the file that the guest agent writes.
    #[arg(short = 't', long, value_name = "PATH")]
    initdata_toml: Option<PathBuf>,
    /// Errors as one line of JSON: {"error":{"code":…,"message":…}}.
    #[arg(long)]
    json: bool,
    /// Insecure: an emulated platform below this directory. Refused inside a TEE.
    #[arg(long, value_name = "DIR")]
    insecure_tee_root: Option<PathBuf>,
    /// Insecure: evidence that proves nothing. Refused inside a TEE.
    #[arg(long)]
    insecure_sample: bool,
    /// Insecure, only with one of the two above: a configuration that nothing vouches for.
    #[arg(long)]
    insecure_unbound_config: bool,
    /// Insecure: secrets from files of the image (offline_fs_kbc). Refused inside a TEE.
    #[arg(long)]
    insecure_offline_kbc: bool,
    /// Insecure: the key broker by http. Refused inside a TEE.
    #[arg(long)]
    insecure_plain_http: bool,
    /// Insecure: secrets and keys under ciphers that do not authenticate. Refused inside a TEE.
    #[arg(long)]
    insecure_unauthenticated_secrets: bool,
    /// Insecure: skip_sealed_secret_verification counts. Refused inside a TEE.
    #[arg(long)]
    insecure_unverified_secrets: bool,
}

impl Args {
    fn modes(&self) -> Vec<(&'static str, InsecureMode)> {
        let flags = [
            (self.insecure_offline_kbc, "--insecure-offline-kbc", InsecureMode::OfflineKbc),
            (self.insecure_plain_http, "--insecure-plain-http", InsecureMode::PlainHttp),
            (
                self.insecure_unauthenticated_secrets,
                "--insecure-unauthenticated-secrets",
                InsecureMode::UnauthenticatedSecrets,
            ),
            (
                self.insecure_unverified_secrets,
                "--insecure-unverified-secrets",
                InsecureMode::UnverifiedSecrets,
            ),
        ];
        flags.into_iter().filter(|(on, ..)| *on).map(|(_, flag, mode)| (flag, mode)).collect()
    }

    fn insecure(&self) -> Vec<&'static str> {
        let flags = [
            (self.insecure_tee_root.is_some(), "--insecure-tee-root"),
            (self.insecure_sample, "--insecure-sample"),
            (self.insecure_unbound_config, "--insecure-unbound-config"),
        ];
        let named = flags.into_iter().filter(|(on, _)| *on).map(|(_, flag)| flag);
        named.chain(self.modes().into_iter().map(|(flag, _)| flag)).collect()
    }
}

/// Why it ended: a code and one line.
struct Failure {
    code: &'static str,
    message: String,
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        Self { code: error.code(), message: chain(&error) }
    }
}

fn failure(code: &'static str) -> impl Fn(&dyn std::error::Error) -> Failure {
    move |error| Failure { code, message: chain(error) }
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
    let Err(Failure { code, message }) = run(&args) else { return 0 };
    if args.json {
        eprintln!("{}", serde_json::json!({ "error": { "code": code, "message": message } }));
    } else {
        eprintln!("confidential-data-hub: {code}: {message}");
    }
    FAILURE
}

fn run(args: &Args) -> Result<(), Failure> {
    let insecure = args.insecure();
    if !insecure.is_empty() {
        eprintln!("confidential-data-hub: INSECURE: {}: nothing here is protected", insecure.join(" "));
    }
    protected_memory::harden::harden_process().map_err(|error| failure("CDH_HARDENING")(&error))?;
    let launched = launch(&HubLaunch {
        config_file: args.config.clone(),
        initdata_toml: args.initdata_toml.clone(),
        insecure_tee_root: args.insecure_tee_root.clone(),
        insecure_sample: args.insecure_sample,
        insecure_unbound_config: args.insecure_unbound_config,
        insecure: args.modes(),
    })?;
    let modes: Vec<_> = launched.modes.names().collect();
    if !modes.is_empty() {
        eprintln!("confidential-data-hub: INSECURE modes in effect: {}", modes.join(" "));
    }
    let talkative = launched.config.log.level >= LogLevel::Info;
    let (service, tee) = (launched.service, launched.tee);
    let socket = Path::new(launched.config.socket());
    runtime().map_err(|error| failure("CDH_RUNTIME")(&error))?.block_on(async {
        let stop = told_to_stop().map_err(|error| failure("CDH_RUNTIME")(&error))?;
        service.write_credentials().await?;
        let ready = || {
            if talkative {
                eprintln!("confidential-data-hub: {tee}: serving {}", socket.display());
            }
        };
        let refreshed = move |refreshed: Refreshed| {
            for error in refreshed.failed {
                eprintln!(
                    "confidential-data-hub: credential not refreshed: {}: {}",
                    error.code(),
                    chain(&error)
                );
            }
            if talkative && refreshed.replaced > 0 {
                eprintln!("confidential-data-hub: credentials replaced: {}", refreshed.replaced);
            }
        };
        Ok(service.serve(socket, ready, refreshed, stop).await?)
    })
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
