//! A guest under QEMU without hardware virtualisation: boot, requests over vsock, landing inside against the same program outside.
//!
//! Every figure contains an emulated processor: what travels is the ratio, and that nothing stalls.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Parser;
use serde_json::{Value, json};
use tests::agent_client::{ALLOW_ALL, confidential};
use tests::payload::Payload;
use tests::programs::{Programs, User};
use tests::protobuf::field;
use tests::scene::{Artifact, Scene, SealSpec, UnsealSpec};
use tests::tee::Kind;
use tests::vm::{bind_chips, spec};
use tests::work::Work;
use xtask::vm::{Guest, Init, Tools};

use crate::statistics::Samples;

/// Time guests: boot to ready, requests over vsock, landing.
#[derive(Debug, Parser)]
#[command(name = "bench-vm")]
pub(crate) struct Arguments {
    /// Directory for results.
    #[arg(long)]
    out: PathBuf,
    /// Boots that are timed, of each kind.
    #[arg(long, default_value_t = 5)]
    boots: usize,
    /// Requests in all.
    #[arg(long, default_value_t = 10_000)]
    requests: usize,
    /// Connections that they go over.
    #[arg(long, default_value_t = 20)]
    connections: usize,
    /// Connections that are opened, asked once and closed.
    #[arg(long, default_value_t = 500)]
    reconnects: usize,
    /// Size of the artifact in MiB.
    #[arg(long, default_value_t = 128)]
    size: usize,
    /// Landings of each kind.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

const PORT: u32 = 1024;
const PATHS: [&str; 3] = ["key-release", "dma-sealed", "dma-direct"];
const ANSWER: Duration = Duration::from_secs(60);

/// Runs everything, prints the table and writes `vm.json`.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let tools = Tools::obtain(&|text| eprintln!("{text}"))?;
    println!("{}", tools.describe());
    let mut rows = Vec::new();
    boots(arguments, &tools, &mut rows)?;
    attested(arguments, &tools, &mut rows)?;
    requests(arguments, &tools, &mut rows)?;
    landing(arguments, &tools, &mut rows)?;
    fs::create_dir_all(&arguments.out)?;
    let path = arguments.out.join("vm.json");
    let report = json!({ "suite": "vm", "tools": tools.describe(), "rows": rows });
    fs::write(&path, serde_json::to_vec_pretty(&report)?)?;
    println!("\n{}", path.display());
    Ok(())
}

fn row(rows: &mut Vec<Value>, name: &str, unit: (&str, f64), samples: &Samples, more: Value) {
    let (unit, scale) = unit;
    let [median, low, high] = [0.5, 0.1, 0.99].map(|share| samples.quantile(share) * scale);
    println!("{name:<44} {median:>10.3} {unit} [p10 {low:.3}, p99 {high:.3}] {more}");
    rows.push(
        json!({ "name": name, "unit": unit, "scale": scale, "samples": samples.to_json(), "more": more }),
    );
}

fn agent(tools: &Tools) -> anyhow::Result<(Guest, Duration)> {
    let started = Instant::now();
    let guest = spec(&Programs::built(), &["innerkeep-agent"]).init(Init::Agent).vsock().boot(tools)?;
    let mut stream = guest.vsock(PORT, ANSWER)?;
    check(&mut stream, 1)?;
    Ok((guest, started.elapsed()))
}

fn boots(arguments: &Arguments, tools: &Tools, rows: &mut Vec<Value>) -> anyhow::Result<()> {
    let (mut command, mut serving) = (Samples::default(), Samples::default());
    for _ in 0..arguments.boots {
        let guest = spec(&Programs::built(), &[]).boot(tools)?;
        command.0.push(guest.boot.as_secs_f64());
        guest.power_off()?;
        let (guest, took) = agent(tools)?;
        serving.0.push(took.as_secs_f64());
        drop(guest);
    }
    row(rows, "boot to a command", ("s", 1.0), &command, json!({}));
    row(rows, "boot to the agent's first answer by vsock", ("s", 1.0), &serving, json!({}));
    Ok(())
}

/// From the agent's first line to evidence that commits to its audit: both as its log dates them, inside the guest.
fn attested(arguments: &Arguments, tools: &Tools, rows: &mut Vec<Value>) -> anyhow::Result<()> {
    let programs = Programs::built();
    let mut samples = Samples::default();
    for _ in 0..arguments.boots {
        let work = Work::create(User::Same);
        let spec = confidential::spec(&programs, &work, Kind::Tdx, &[("policy.rego", ALLOW_ALL)]);
        let guest = spec.boot(tools)?;
        let said = guest.wait_serial("\"msg\":\"attested\"", ANSWER)?;
        samples.0.push(dated(&said, "attested")? - dated(&said, "innerkeep-agent starts")?);
    }
    row(rows, "start to attested audit", ("s", 1.0), &samples, json!({}));
    Ok(())
}

/// Seconds within the day of a line of the log.
fn dated(log: &str, message: &str) -> anyhow::Result<f64> {
    let wanted = format!("\"msg\":\"{message}\"");
    let line =
        log.lines().find(|line| line.contains(&wanted)).with_context(|| format!("no line {wanted}"))?;
    let (_, time) = line.split_once("\"ts\":\"").context("a line without a date")?;
    let time = time.split_once('T').and_then(|(_, time)| time.split_once('Z')).context("a date")?.0;
    let mut parts = time.split(':').map(str::parse::<f64>);
    let mut next = || parts.next().context("a time")?.context("a number");
    Ok(next()? * 3600.0 + next()? * 60.0 + next()?)
}

/// `grpc.Health/Check`: a decision and no work.
fn request(call: u32) -> Vec<u8> {
    let body = [field(1, b"grpc.Health"), field(2, b"Check")].concat();
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], &call.to_be_bytes(), &[1, 0], &body].concat()
}

fn answer(from: &mut UnixStream) -> anyhow::Result<()> {
    let mut header = [0; 10];
    from.read_exact(&mut header).context("an answer")?;
    let [a, b, c, d, ..] = header;
    let mut body = vec![0; u32::from_be_bytes([a, b, c, d]) as usize];
    from.read_exact(&mut body).context("an answer's body")?;
    // Status OK is absent or empty; the payload says SERVING.
    ensure!(body.ends_with(&[8, 1]), "not healthy: {body:?}");
    Ok(())
}

fn check(on: &mut UnixStream, call: u32) -> anyhow::Result<()> {
    on.set_read_timeout(Some(ANSWER))?;
    on.write_all(&request(call))?;
    answer(on)
}

/// Many requests on one connection: seconds of each.
fn ask(stream: &mut UnixStream, count: usize) -> anyhow::Result<Vec<f64>> {
    let mut seconds = Vec::with_capacity(count);
    for index in 0..count {
        let start = Instant::now();
        check(stream, u32::try_from(2 * index + 1)?)?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    Ok(seconds)
}

fn requests(arguments: &Arguments, tools: &Tools, rows: &mut Vec<Value>) -> anyhow::Result<()> {
    let (guest, _) = agent(tools)?;
    let mut one = guest.vsock(PORT, ANSWER)?;
    let alone = Samples(ask(&mut one, arguments.requests / arguments.connections.max(1))?);
    row(rows, "request, one connection", ("ms", 1e3), &alone, json!({}));
    let many = |guest: &Guest| -> anyhow::Result<(Samples, f64)> {
        let each = arguments.requests / arguments.connections.max(1);
        let streams = (0..arguments.connections).map(|_| guest.vsock(PORT, ANSWER));
        let streams = streams.collect::<anyhow::Result<Vec<_>>>()?;
        let start = Instant::now();
        let workers: Vec<_> = streams
            .into_iter()
            .map(|mut stream| std::thread::spawn(move || ask(&mut stream, each)))
            .collect();
        let mut seconds = Vec::new();
        for worker in workers {
            match worker.join() {
                Ok(outcome) => seconds.extend(outcome?),
                Err(_) => bail!("a worker panicked"),
            }
        }
        Ok((Samples(seconds), start.elapsed().as_secs_f64()))
    };
    let (samples, wall) = many(&guest)?;
    let rate = |samples: &Samples, wall: f64| json!({ "requests": samples.0.len(), "per_second": (samples.0.len() as f64 / wall).round() });
    row(rows, "request, 20 connections", ("ms", 1e3), &samples, rate(&samples, wall));
    // A peer that sends and never reads holds up nobody but itself.
    let mut slow = guest.vsock(PORT, ANSWER)?;
    slow.set_write_timeout(Some(Duration::from_millis(200)))?;
    let mut sent = 0;
    while sent < 20_000 && slow.write_all(&request(2 * sent + 1)).is_ok() {
        sent += 1;
    }
    let (samples, wall) = many(&guest)?;
    let mut more = rate(&samples, wall);
    if let Some(more) = more.as_object_mut() {
        more.insert("unread_requests_beside".to_owned(), sent.into());
    }
    row(rows, "request, beside a reader that does not", ("ms", 1e3), &samples, more);
    drop(slow);
    let mut again = Samples::default();
    for _ in 0..arguments.reconnects {
        let start = Instant::now();
        check(&mut guest.vsock(PORT, ANSWER)?, 1)?;
        again.0.push(start.elapsed().as_secs_f64());
    }
    let stalls = json!({ "back_end_stalls": guest.vsock_stalls() });
    row(rows, "connect, one request, close", ("ms", 1e3), &again, stalls);
    Ok(())
}

fn landing(arguments: &Arguments, tools: &Tools, rows: &mut Vec<Value>) -> anyhow::Result<()> {
    let scene = Scene::start();
    let payload = Payload::random(4, arguments.size << 20);
    // The promise about landing is for cores without payload digests.
    let artifact = scene.sealed(
        "store",
        &payload,
        &SealSpec { more: vec!["--no-payload-digest".into()], ..SealSpec::default() },
    );
    let mut outside = Vec::new();
    for path in PATHS {
        let mut rates = Samples::default();
        for _ in 0..arguments.rounds {
            rates.0.push(land_outside(&scene, &artifact, path)?);
        }
        outside.push(rates);
    }
    let guest = spec(&Programs::built(), &["innerkeep", "test-consumer"])
        .copy_directory(&artifact.reference, "/store")?
        .copy(&scene.root, "/etc/root.pem", 0o644)
        .memory_mib(u32::try_from(1024 + 4 * arguments.size)?)
        .chip(&scene.chip.socket, Some(scene.chip.id()))
        .boot(tools)?;
    let chips = bind_chips(&guest);
    let chip = format!("pci:{}", chips.first().context("the guest sees no chip")?);
    for (path, outside) in PATHS.into_iter().zip(outside) {
        let mut inside = Samples::default();
        for _ in 0..arguments.rounds {
            let mut words =
                vec!["innerkeep", "--json", "unseal", "/store", "--core", &artifact.core, "--chip", &chip];
            words.extend(["--chip-root", "/etc/root.pem", "--path", path, "--insecure-no-tee"]);
            words.extend(["--insecure-no-evidence", "--insecure-emulated-dma", "--", "/bin/true"]);
            let said = guest.spawn(&words)?.wait(Duration::from_secs(300))?;
            ensure!(said.status == 0, "unseal in the guest: {}", said.stderr);
            inside.0.push(rate(&said.stderr)?);
        }
        let ratio = inside.median() / outside.median();
        row(rows, &format!("landing outside, {path}"), ("GB/s", 1.0), &outside, json!({}));
        row(
            rows,
            &format!("landing in the guest, {path}"),
            ("GB/s", 1.0),
            &inside,
            json!({ "ratio": ratio }),
        );
    }
    guest.power_off()
}

/// The very program that runs inside.
fn land_outside(scene: &Scene, artifact: &Artifact, path: &'static str) -> anyhow::Result<f64> {
    let anchor = scene.programs.path("innerkeep");
    let directory = anchor.parent().context("a program is in a directory")?;
    let program = xtask::vm::Programs::beside(directory).stripped("innerkeep")?;
    let mut command = Command::new(program);
    command
        .arg("--json")
        .args(scene.unseal_options(artifact, &UnsealSpec::by(path)))
        .args(["--", "/bin/true"]);
    let output = command.output().context("start innerkeep")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "unseal: {said}");
    rate(&said)
}

/// GB/s of the last report.
fn rate(said: &str) -> anyhow::Result<f64> {
    let line = said.lines().rev().find(|line| line.starts_with('{')).context("no report")?;
    let report: Value = serde_json::from_str(line)?;
    report.get("gb_per_s").and_then(Value::as_f64).context("a report without a rate")
}
