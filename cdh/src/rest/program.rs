//! The role `api-server-rest`: the front as a process of its own, with upstream's flags, a hub and an attester of its own.

use std::ffi::OsString;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use attestation_agent::TeeRoot;
use attestation_agent::config::LogLevel;
use attestation_agent::program::{runtime, told_to_stop};
use clap::Parser;
use initdata::InsecureMode;

use super::peers::{Bundles, ProcPeers};
use super::{DEFAULT_ADDRESS, Features, Front, RestError, ThisGuest, event_register};
use crate::hub_error::HubError;
use crate::launch::{HubLaunch, launch};

/// Where guest agents keep what they know of containers.
const BUNDLES: &str = "/run/kata-containers";
/// How often resources that were kept are looked at.
const WIPE_INTERVAL: Duration = Duration::from_secs(5);

/// REST front of a confidential guest: secrets and evidence for containers, each route only for those that bound configuration lists.
#[derive(Debug, Parser)]
#[command(name = "api-server-rest", version)]
struct Args {
    /// Loopback address to listen on.
    #[arg(short, long, value_name = "IP:PORT", default_value = DEFAULT_ADDRESS)]
    bind: SocketAddr,
    /// What is served of what bound configuration lists.
    #[arg(short, long, value_enum, default_value_t)]
    features: Features,
    /// Accepted for the sake of upstream's callers: nobody connects there.
    #[arg(short, long = "cdh_addr", value_name = "unix://PATH")]
    cdh_addr: Option<String>,
    /// Accepted for the sake of upstream's callers: nobody connects there.
    #[arg(short, long = "aa_addr", value_name = "unix://PATH")]
    aa_addr: Option<String>,
    /// Initdata: counts only if the platform's register holds its digest. Without it, the file that the guest agent writes.
    #[arg(short = 't', long, value_name = "PATH")]
    initdata_toml: Option<PathBuf>,
    /// Configuration; it has to be the cdh.toml of bound initdata.
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
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
}

impl Args {
    fn launch(&self) -> HubLaunch {
        let flags = [
            (self.insecure_offline_kbc, "--insecure-offline-kbc", InsecureMode::OfflineKbc),
            (self.insecure_plain_http, "--insecure-plain-http", InsecureMode::PlainHttp),
        ];
        HubLaunch {
            config_file: self.config.clone(),
            initdata_toml: self.initdata_toml.clone(),
            insecure_tee_root: self.insecure_tee_root.clone(),
            insecure_sample: self.insecure_sample,
            insecure_unbound_config: self.insecure_unbound_config,
            insecure: flags.into_iter().filter(|(on, ..)| *on).map(|(_, flag, mode)| (flag, mode)).collect(),
        }
    }

    fn insecure(&self) -> Vec<&'static str> {
        let flags = [
            (self.insecure_tee_root.is_some(), "--insecure-tee-root"),
            (self.insecure_sample, "--insecure-sample"),
            (self.insecure_unbound_config, "--insecure-unbound-config"),
        ];
        let named = flags.into_iter().filter(|(on, _)| *on).map(|(_, flag)| flag);
        named.chain(self.launch().insecure.into_iter().map(|(flag, _)| flag)).collect()
    }
}

/// Why it ended: a code and one line.
struct Failure(&'static str, String);

fn failure(code: &'static str) -> impl Fn(&dyn std::error::Error) -> Failure {
    move |error| Failure(code, chain(error))
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        Self(error.code(), chain(&error))
    }
}

impl From<RestError> for Failure {
    fn from(error: RestError) -> Self {
        Self(error.code(), chain(&error))
    }
}

/// Runs the role until it is told to stop. `args` begin with the name of the program; the answer is the process's exit status: 0, or 1 after
/// one line on standard error, `api-server-rest: CODE: …`.
pub fn main<T: Into<OsString> + Clone>(args: impl IntoIterator<Item = T>) -> u8 {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return u8::from(error.use_stderr());
        }
    };
    let Err(Failure(code, message)) = hardened(&args) else { return 0 };
    eprintln!("api-server-rest: {code}: {message}");
    1
}

fn hardened(args: &Args) -> Result<(), Failure> {
    let insecure = args.insecure();
    if !insecure.is_empty() {
        eprintln!("api-server-rest: INSECURE: {}: nothing here is protected", insecure.join(" "));
    }
    protected_memory::harden::harden_process().map_err(|error| failure("REST_HARDENING")(&error))?;
    runtime().map_err(|error| failure("REST_RUNTIME")(&error))?.block_on(async {
        let stop = told_to_stop().map_err(|error| failure("REST_RUNTIME")(&error))?;
        run(args, |_| (), stop).await
    })
}

/// `ready` gets the address when it is listened on.
async fn run(
    args: &Args,
    ready: impl FnOnce(SocketAddr),
    stop: impl Future<Output = ()>,
) -> Result<(), Failure> {
    // Before the platform is asked for anything.
    let listener = Front::listen(args.bind).await?;
    let launched = launch(&args.launch())?;
    let modes: Vec<_> = launched.modes.names().collect();
    if !modes.is_empty() {
        eprintln!("api-server-rest: INSECURE modes in effect: {}", modes.join(" "));
    }
    let register = event_register(launched.initdata.as_ref())?;
    let root = args.insecure_tee_root.as_ref().map_or_else(TeeRoot::system, TeeRoot::insecure);
    let containers = Arc::new(Bundles::new(root.join(BUNDLES)));
    let peers = Arc::new(ProcPeers::new("/proc", containers));
    let back_end =
        Arc::new(ThisGuest::new(Arc::clone(&launched.hub), Arc::clone(&launched.attester), register));
    let front = Arc::new(Front::new(launched.config.innerkeep.rest.clone(), args.features, back_end, peers));
    let bound = listener.local_addr().map_err(|error| failure("REST_BIND")(&error))?;
    if launched.config.log.level >= LogLevel::Info {
        eprintln!("api-server-rest: {}: serving {bound}", launched.tee);
    }
    ready(bound);
    let hub = launched.hub;
    let wipe = async {
        loop {
            tokio::time::sleep(WIPE_INTERVAL).await;
            hub.resources().wipe_expired();
        }
    };
    tokio::select! {
        () = front.serve(listener, stop) => {}
        () = wipe => {}
    }
    Ok(())
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn flags_are_upstreams() {
        let args = Args::try_parse_from(["api-server-rest"]).unwrap();
        assert_eq!((args.bind.to_string().as_str(), args.features), ("127.0.0.1:8006", Features::Resource));
        let words = "api-server-rest -b 127.0.0.1:9 -f all -c unix:///c --aa_addr unix:///a";
        let args = Args::try_parse_from(words.split(' ')).unwrap();
        assert_eq!((args.bind.port(), args.features), (9, Features::All));
        assert_eq!(main("api-server-rest --features everything".split(' ')), 1);
        assert_eq!(main("api-server-rest --version".split(' ')), 0);
    }

    #[tokio::test]
    async fn evil_host_opens_the_front_to_the_network() {
        for place in ["0.0.0.0:0", "192.0.2.1:0", "[::]:0", "[::ffff:192.0.2.1]:0"] {
            let args = Args::try_parse_from(["x", "--insecure-sample", "-b", place]).unwrap();
            let ended = run(&args, |_| panic!("it listens on {place}"), async {}).await;
            assert_eq!(ended.unwrap_err().0, "REST_BIND_PLACE", "{place}");
        }
    }

    #[tokio::test]
    async fn the_role_serves_nobody_without_a_list_and_stops() {
        let args = Args::try_parse_from("x --insecure-sample -f all -b 127.0.0.1:0".split(' ')).unwrap();
        let (ready, is_ready) = oneshot::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            run(&args, |bound| ready.send(bound).unwrap(), async move { drop(stopped.await) }).await
        });
        let bound = is_ready.await.unwrap();
        let mut stream = TcpStream::connect(bound).await.unwrap();
        stream.write_all(format!("GET /info HTTP/1.1\r\nHost: {bound}\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("\"REST_PEER_UNKNOWN\""), "{answer}");
        stop.send(()).unwrap();
        assert!(task.await.unwrap().is_ok());
    }

    #[test]
    fn events_count_only_where_bound_configuration_enables_them() {
        let register = |aa: &str| {
            let text = format!(
                "version = \"0.1.0\"\nalgorithm = \"sha384\"\n[data]\n\"aa.toml\" = '''\n{aa}\n'''\n"
            );
            let bound = initdata::Unverified::new(text.into_bytes()).unwrap().insecure_unbound().unwrap();
            event_register(Some(&bound)).map_err(|error| error.code())
        };
        assert_eq!(event_register(None).ok(), Some(None));
        assert_eq!(register(""), Ok(None));
        assert_eq!(register("[eventlog_config]\nenable_eventlog = true\ninit_pcr = 20"), Ok(Some(20)));
        assert_eq!(
            register("[eventlog_config]\nenable_eventlog = true\ninit_pcr = 7"),
            Err("ATTEST_CONFIG_INVALID")
        );
    }
}
