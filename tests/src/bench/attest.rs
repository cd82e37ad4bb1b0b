//! What attestation costs: evidence parsed and verified, a handshake with a key broker, secrets after it.
//!
//! The broker is the repository's own, in a process of its own, over http on loopback. Quotes are made in this process: on hardware the
//! quoting enclave or the secure processor adds its own time, which is not ours.

use std::fs;
use std::hint::black_box;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use attestation_agent::kbs::{EvidenceSource, KbsClient, KbsOptions, KbsUrl, ResourceUri};
use attestation_agent::report_data::KbsDigest;
use attestation_agent::{Claim, kbs::TeeKeyKind};
use clap::Parser;
use evidence::Octets;
use evidence::abi::json::TdxEvidence;
use evidence::abi::presentation::{Presentation, PresentedEvidence};
use evidence::abi::snp::{Generation, SnpReport};
use evidence::abi::tdx::{QuoteVersion, TdBody, TdxQuote};
use evidence::mint::snp::{RsaKey, SnpPlatform};
use evidence::mint::tdx::TdxPlatform;
use evidence::verify::roots::{Roots, SnpRoots, TdxRoot, TrustBundle};
use evidence::verify::snp::VekKind;
use evidence::verify::tdx::Appraisal;
use evidence::verify::{Clock, verify_presentation};
use serde_json::{Value, json};

use crate::counting;
use crate::statistics::Samples;

/// Time attestation: evidence, handshakes, secrets.
#[derive(Debug, Parser)]
#[command(name = "bench-attest")]
pub(crate) struct Arguments {
    /// Directory for results.
    #[arg(long)]
    out: PathBuf,
    /// Handshakes that are timed.
    #[arg(long, default_value_t = 50)]
    handshakes: usize,
    /// Secrets that are read after one attestation.
    #[arg(long, default_value_t = 2_000)]
    secrets: usize,
    /// How often each kind of evidence is verified.
    #[arg(long, default_value_t = 50)]
    rounds: usize,
}

/// Keys of emulated platforms, which anybody has.
const ARK: &[u8] = include_bytes!("../../vectors/evidence/keys/insecure-test-ark.pk8");
const ASK: &[u8] = include_bytes!("../../vectors/evidence/keys/insecure-test-ask.pk8");
/// Promise of the specification: p50 of a secret after the first.
const PROMISED_SECRET_SECONDS: f64 = 0.002;

/// Runs everything, prints the table and writes `attest.json`.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    kinds(arguments.rounds, &mut rows)?;
    broker(arguments, &mut rows)?;
    fs::create_dir_all(&arguments.out)?;
    let path = arguments.out.join("attest.json");
    fs::write(&path, serde_json::to_vec_pretty(&json!({ "suite": "attest", "rows": rows }))?)?;
    println!("\n{}", path.display());
    Ok(())
}

/// One row: seconds of each round, allocations of one.
fn row(rows: &mut Vec<Value>, name: &str, seconds: &Samples, allocations: u64, more: Value) {
    let (median, low, high) = (seconds.median(), seconds.quantile(0.1), seconds.quantile(0.9));
    println!(
        "{name:<48} {:>10.1} µs [{:.1} … {:.1}] {allocations:>8} allocations",
        median * 1e6,
        low * 1e6,
        high * 1e6
    );
    rows.push(
        json!({ "name": name, "seconds": seconds.to_json(), "allocations": allocations, "more": more }),
    );
}

fn timed(rounds: usize, mut work: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<(Samples, u64)> {
    work()?;
    let before = counting::begin();
    work()?;
    let (allocations, _) = counting::since(before);
    let mut seconds = Samples::default();
    for _ in 0..rounds {
        let start = Instant::now();
        work()?;
        seconds.0.push(start.elapsed().as_secs_f64());
    }
    Ok((seconds, allocations))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The same platform for the same time: its certificates carry dates.
fn tdx_platform(at: u64) -> anyhow::Result<TdxPlatform> {
    Ok(TdxPlatform::new("bench", at - 86_400, at + 86_400)?)
}

fn body() -> TdBody {
    TdBody { td_attributes: evidence::mint::tdx::SEPT_VE_DISABLE, ..TdBody::default() }
}

/// Parse and verify, by kind. The reference is one signature verification of the kind's curve: what cannot be saved.
fn kinds(rounds: usize, rows: &mut Vec<Value>) -> anyhow::Result<()> {
    let platform = tdx_platform(now())?;
    let collateral = platform.collateral()?.encode();
    let roots = Roots {
        tdx: Some(TdxRoot::danger_emulator(platform.root_der()?)),
        snp: SnpRoots::danger_emulator(Vec::new()),
    };
    for (name, version) in [("TDX quote v4", QuoteVersion::V4), ("TDX quote v5", QuoteVersion::V5)] {
        let quote = platform.quote_of_version(version, body())?.encode();
        let (seconds, allocations) = timed(rounds, || {
            black_box(TdxQuote::parse(black_box(&quote))?);
            Ok(())
        })?;
        row(rows, &format!("parse {name}"), &seconds, allocations, json!({ "bytes": quote.len() }));
        let presented = Presentation {
            evidence: PresentedEvidence::Tdx { quote, collateral: collateral.clone() },
            event_log: None,
        };
        verify(rounds, rows, name, &presented, &roots)?;
    }
    for (name, generation, version) in [
        ("SNP report v3, Milan", Generation::Milan, 3),
        ("SNP report v3, Genoa", Generation::Genoa, 3),
        ("SNP report v5, Turin", Generation::Turin, 5),
    ] {
        let platform = SnpPlatform::new(
            (RsaKey::from_pkcs8(ARK)?, RsaKey::from_pkcs8(ASK)?),
            (generation, VekKind::Vcek),
            "bench",
            now() - 86_400,
            now() + 86_400,
        )?;
        let report = platform.sign(platform.report(version))?.encode();
        let (seconds, allocations) = timed(rounds, || {
            black_box(SnpReport::parse(black_box(&report))?);
            Ok(())
        })?;
        row(rows, &format!("parse {name}"), &seconds, allocations, json!({ "bytes": report.len() }));
        let parts = platform.collateral()?;
        let roots = Roots { tdx: None, snp: SnpRoots::danger_emulator(vec![platform.root()?]) };
        let presented = Presentation {
            evidence: PresentedEvidence::Snp {
                report,
                kind: parts.kind,
                vek: parts.vek,
                ask: parts.ask,
                crl: parts.crl,
            },
            event_log: None,
        };
        verify(rounds, rows, name, &presented, &roots)?;
    }
    Ok(())
}

fn verify(
    rounds: usize,
    rows: &mut Vec<Value>,
    name: &str,
    presented: &Presentation,
    roots: &Roots,
) -> anyhow::Result<()> {
    let bytes = presented.encode()?;
    let (seconds, allocations) = timed(rounds, || {
        let presented = Presentation::parse(&bytes)?;
        black_box(verify_presentation(&presented, roots, Clock::LatestIssueDate, &Appraisal::strict())?);
        Ok(())
    })?;
    row(rows, &format!("parse and verify {name}"), &seconds, allocations, json!({ "bytes": bytes.len() }));
    Ok(())
}

/// A guest whose quotes are made in this process.
struct Guest(TdxPlatform);

impl EvidenceSource for Guest {
    fn tee(&self) -> &str {
        "tdx"
    }

    fn evidence(&self, digest: KbsDigest) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        let report_data = Octets(*Claim::Kbs(digest).report_data().as_bytes());
        let quote = self.0.quote(TdBody { report_data, ..body() })?.encode();
        Ok(serde_json::from_str(&TdxEvidence { event_log: None, quote }.encode())?)
    }

    fn initdata(&self) -> Option<String> {
        None
    }
}

/// The broker's process; dropped, it is killed.
struct Broker {
    process: Child,
    url: String,
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn start_broker(directory: &Path, platform: &TdxPlatform) -> anyhow::Result<Broker> {
    let roots = directory.join("trust-roots.json");
    let bundle = TrustBundle { snp: Vec::new(), tdx: Some(platform.root_der()?) };
    fs::write(&roots, bundle.encode())?;
    let collateral = directory.join("collateral.json");
    fs::write(&collateral, platform.collateral()?.encode())?;
    let state = directory.join("state");
    let resource = state.join("resources/bench/key");
    fs::create_dir_all(&resource)?;
    fs::write(resource.join("one"), [0x5a; 32])?;
    let program = std::env::current_exe()?.with_file_name("innerkeep-key-broker");
    let mut command = Command::new(&program);
    command.args(["serve", "--listen", "127.0.0.1:0", "--state"]).arg(&state);
    command.arg("--insecure-trust-roots").arg(&roots).arg("--collateral").arg(&collateral);
    let log = fs::File::create(directory.join("broker.log"))?;
    let mut process = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .with_context(|| format!("start {}", program.display()))?;
    let stdout = process.stdout.take().context("the broker's standard output")?;
    let mut lines = BufReader::new(stdout).lines();
    let ready = lines.next().context("the broker said nothing")??;
    let url = ready.strip_prefix("ready ").context("the broker did not become ready")?.to_owned();
    Ok(Broker { process, url })
}

fn broker(arguments: &Arguments, rows: &mut Vec<Value>) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let at = now();
    let broker = start_broker(directory.path(), &tdx_platform(at)?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let uri = ResourceUri::parse("kbs:///bench/key/one").map_err(|fault| anyhow::anyhow!("{fault}"))?;
    let soon = || tokio::time::Instant::now() + Duration::from_secs(60);
    for (name, key) in
        [("P-256", TeeKeyKind::EcP256), ("P-521", TeeKeyKind::EcP521), ("ML-KEM-768", TeeKeyKind::MlKem768)]
    {
        let url = KbsUrl::parse(&broker.url).map_err(|fault| anyhow::anyhow!("{fault}"))?;
        let options = KbsOptions { key, ..KbsOptions::new(url, None) };
        let source: Arc<dyn EvidenceSource> = Arc::new(Guest(tdx_platform(at)?));
        let first = || -> anyhow::Result<KbsClient> {
            let client = KbsClient::background_check(&options, Arc::clone(&source))?;
            let secret = runtime.block_on(client.get(&uri, soon()))?;
            anyhow::ensure!(secret.expose() == [0x5a; 32], "the broker gave another secret");
            Ok(client)
        };
        let (seconds, allocations) = timed(arguments.handshakes, || first().map(|_| ()))?;
        let what = format!("attest and read a first secret, {name}");
        row(rows, &what, &seconds, allocations, json!({ "insecure_modes": ["emulated-tee"] }));
        let client = first()?;
        let (seconds, allocations) = timed(arguments.secrets, || {
            black_box(runtime.block_on(client.get(&uri, soon()))?);
            Ok(())
        })?;
        let rate = 1.0 / seconds.median();
        let met = seconds.median() <= PROMISED_SECRET_SECONDS;
        let what = format!("a further secret, {name}");
        row(rows, &what, &seconds, allocations, json!({ "per_second": rate, "promise_met": met }));
        println!(
            "{:<48} {rate:>10.0} a second; promise (p50 ≤ 2 ms): {}",
            "",
            if met { "met" } else { "NOT MET" }
        );
    }
    Ok(())
}
