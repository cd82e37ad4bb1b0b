//! The process: state directory, socket, connections, end on SIGTERM or SIGINT.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, bail};
use evidence::verify::roots::{MAXIMUM_BUNDLE_BYTES, Roots, TrustBundle};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use crate::admin::Admin;
use crate::broker::{Broker, RESOURCE_POLICY_FILE, stored_appraiser, stored_policy};
use crate::faults::{Faults, MAX_PLAN_BYTES};
use crate::handshake::Handshake;
use crate::http::{self, Resettable};
use crate::log::note;
use crate::rego::MAXIMUM_POLICY_BYTES;
use crate::session::Sessions;
use crate::signer::Signer;
use crate::store::Store;
use crate::token::Tokens;
use crate::verifier::{Collateral, Verifier};

/// Most connections at a time; further ones wait.
const MAXIMUM_CONNECTIONS: usize = 256;
const TLS_TIMEOUT: Duration = Duration::from_secs(10);
const SWEEP: Duration = Duration::from_secs(60);
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// How to run the broker.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) listen: SocketAddr,
    pub(crate) state: PathBuf,
    pub(crate) port_file: Option<PathBuf>,
    /// Certificate chain and key, PEM.
    pub(crate) tls: Option<(PathBuf, PathBuf)>,
    pub(crate) plain_http: bool,
    pub(crate) trust_roots: Option<PathBuf>,
    pub(crate) allow_sample: bool,
    pub(crate) collateral: Vec<PathBuf>,
    pub(crate) policy: Option<PathBuf>,
    pub(crate) admin_token: Option<PathBuf>,
    pub(crate) session_minutes: u64,
    pub(crate) fault_plan: Option<PathBuf>,
}

/// Serves until SIGTERM or SIGINT.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    confine()?;
    announce(options);
    let broker = Arc::new(broker(options)?);
    let tls = options.tls.as_ref().map(|(chain, key)| acceptor(chain, key)).transpose()?;
    if tls.is_none() && !options.listen.ip().is_loopback() && !options.plain_http {
        bail!("{}: without TLS only loopback is served, or --insecure-plain-http", options.listen);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("threads")?;
    let result = runtime.block_on(serve(options, &broker, tls));
    runtime.shutdown_timeout(END_TIMEOUT);
    result
}

/// Core dumps off, not traceable: the process holds resources and keys.
fn confine() -> anyhow::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).context("RLIMIT_CORE")?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("PR_SET_DUMPABLE")
}

/// The first line of the log names every insecure mode.
fn announce(options: &Options) {
    let modes = [
        (options.trust_roots.is_some(), "INSECURE: EMULATED ROOTS ARE BELIEVED (--insecure-trust-roots)"),
        (options.allow_sample, "INSECURE: SAMPLE EVIDENCE COUNTS (--insecure-allow-sample)"),
        (options.plain_http && options.tls.is_none(), "INSECURE: NO TLS (--insecure-plain-http)"),
    ];
    let modes: Vec<&str> = modes.into_iter().filter(|(on, _)| *on).map(|(_, text)| text).collect();
    let modes = if modes.is_empty() { "no insecure mode".to_owned() } else { modes.join("; ") };
    note(&format!("EMULATED KEY BROKER, keeps resources in files; {modes}"));
}

fn broker(options: &Options) -> anyhow::Result<Broker> {
    let faults = match &options.fault_plan {
        Some(path) => {
            let text = String::from_utf8(read_file(path, MAX_PLAN_BYTES)?.to_vec())?;
            Faults::parse(&text).with_context(|| path.display().to_string())?
        }
        None => Faults::default(),
    };
    if faults.len() > 0 {
        note(&format!("{} faults are planned: this broker misbehaves on purpose", faults.len()));
    }
    let roots = match &options.trust_roots {
        Some(path) => {
            let bundle = TrustBundle::parse(&read_file(path, MAXIMUM_BUNDLE_BYTES as u64)?);
            bundle.with_context(|| path.display().to_string())?.danger_roots()
        }
        None => Roots::builtin()?,
    };
    let mut collateral = Collateral::default();
    for path in &options.collateral {
        collateral.read(path)?;
    }
    note(&format!("{} collateral files", collateral.len()));
    let admin = match &options.admin_token {
        Some(path) => {
            Admin::with_token(&read_file(path, 4096)?).with_context(|| path.display().to_string())?
        }
        None => Admin::nobody(),
    };
    let store = Store::open(&options.state)?;
    let policy = stored_policy(&store).context("resource policy")?;
    if let Some(path) = &options.policy {
        let text = String::from_utf8(read_file(path, MAXIMUM_POLICY_BYTES as u64)?.to_vec())?;
        policy.replace(&text).with_context(|| path.display().to_string())?;
        store.write(RESOURCE_POLICY_FILE, text.as_bytes())?;
    }
    let lifetime = Duration::from_secs(options.session_minutes.saturating_mul(60));
    Ok(Broker {
        handshake: Handshake {
            sessions: Sessions::new(lifetime),
            verifier: Verifier { roots, collateral, allow_sample: options.allow_sample },
            appraiser: stored_appraiser(&store).context("attestation policy")?,
            tokens: Tokens::new(Signer::open(&store)?),
        },
        policy,
        store,
        admin,
        faults,
        tls: options.tls.is_some(),
        changes: Mutex::default(),
    })
}

/// Reads a file of at most `maximum` bytes.
pub(crate) fn read_file(path: &Path, maximum: u64) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let describe = || path.display().to_string();
    let file = std::fs::File::open(path).with_context(describe)?;
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(maximum.saturating_add(1)).read_to_end(&mut bytes).with_context(describe)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > maximum {
        bail!("{}: larger than {maximum} bytes", path.display());
    }
    Ok(bytes)
}

fn acceptor(chain: &Path, key: &Path) -> anyhow::Result<TlsAcceptor> {
    let certificates = CertificateDer::pem_slice_iter(&read_file(chain, 1 << 20)?)
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| chain.display().to_string())?;
    let key_der = PrivateKeyDer::from_pem_slice(&read_file(key, 1 << 16)?)
        .with_context(|| key.display().to_string())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, key_der)
        .context("TLS certificate and key")?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn serve(options: &Options, broker: &Arc<Broker>, tls: Option<TlsAcceptor>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let listener = TcpListener::bind(options.listen).await.with_context(|| options.listen.to_string())?;
    let address = listener.local_addr()?;
    if let Some(path) = &options.port_file {
        write_port(path, address.port())?;
    }
    ready(address, tls.is_some())?;
    let places = Arc::new(Semaphore::new(MAXIMUM_CONNECTIONS));
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = sweep.tick() => broker.handshake.sessions.sweep(),
            accepted = accept(&listener, &places) => {
                let (stream, place) = accepted;
                tokio::spawn(connection(Arc::clone(broker), stream, tls.clone(), place));
            }
        }
    }
}

/// The next connection, when there is a place for it. Errors of a single connection end nothing.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, Option<OwnedSemaphorePermit>) {
    // The semaphore is never closed.
    let place = Arc::clone(places).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            Err(error) => {
                note(&format!("accept: {error}"));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(
    broker: Arc<Broker>,
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    _place: Option<OwnedSemaphorePermit>,
) {
    let _ = stream.set_nodelay(true);
    let (stream, reset) = Resettable::new(stream);
    match tls {
        None => http::serve(broker, stream, reset).await,
        Some(acceptor) => match tokio::time::timeout(TLS_TIMEOUT, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => http::serve(broker, stream, reset).await,
            Ok(Err(error)) => note(&format!("TLS: {error}")),
            Err(_elapsed) => note("TLS: no handshake in time"),
        },
    }
}

/// Written beside and moved into place: whoever sees the file sees all of it.
fn write_port(path: &Path, port: u16) -> anyhow::Result<()> {
    let describe = || path.display().to_string();
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    std::fs::write(&temporary, format!("{port}\n")).with_context(describe)?;
    std::fs::rename(&temporary, path).with_context(describe)
}

/// One line on standard output tells whoever started the process where it listens.
fn ready(address: SocketAddr, tls: bool) -> anyhow::Result<()> {
    let scheme = if tls { "https" } else { "http" };
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready {scheme}://{address}").and_then(|()| out.flush()).context("standard output")
}
