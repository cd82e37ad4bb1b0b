//! `cargo xtask demo`: a real model sealed, granted to a chip under a policy about the guest, unsealed by that guest, and every attack refused.
//!
//! Sealer, TEE, chip and unsealer are separate processes: the shipped `innerkeep` and the emulators. This program only plays the people: the
//! operator who provisions chips, the team that seals, the host that launches guests, and the thief. What the shipped program refuses to do,
//! such as presenting somebody else's quote, is done by `test-guest`, a guest that lies, and the output says so.

mod actors;
pub mod consumer;
mod evidence;
pub mod guest;
mod model;
mod refusals;
mod scene;
mod tamper;
pub mod vm;

use crate::shell::{self, Workspace};
use actors::{Chip, Innerkeep, PreparedModel};
use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use guest::{Launch, Platform, Tee};
use refusals::Judge;
use scene::Scene;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Seal a model, unseal it in an emulated confidential guest through an emulated chip, and see every attack refused.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Seal this file instead of the default model (any bytes).
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// Print one JSON object instead of progress.
    #[arg(long)]
    json: bool,
    /// The way the plaintext takes from the chip.
    #[arg(long, value_enum, default_value_t = DataPath::KeyRelease)]
    path: DataPath,
    /// The kind of guest that the emulated TEE is.
    #[arg(long, value_enum, default_value_t = Tee::Tdx)]
    tee: Tee,
    /// Use programs that are already built (tests).
    #[arg(long, hide = true)]
    no_build: bool,
}

/// The chip's data paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DataPath {
    /// The chip releases the key to the session and the CPU decrypts.
    KeyRelease,
    /// The chip writes plaintext into private memory.
    DmaDirect,
    /// The chip re-seals to the session through a shared window.
    DmaSealed,
}

impl DataPath {
    fn name(self) -> &'static str {
        match self {
            Self::KeyRelease => "key-release",
            Self::DmaDirect => "dma-direct",
            Self::DmaSealed => "dma-sealed",
        }
    }
}

/// The packages whose programs take part.
const PACKAGES: [&str; 4] = ["cli", "chip-emulator", "tee-emulator", "tests"];

/// Runs the subcommand.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<()> {
    let say = |text: &str| {
        if !arguments.json {
            println!("{text}");
        }
    };
    guest::require_fuse()?;
    if !arguments.no_build {
        say("building innerkeep and the emulators …");
        let mut build = workspace.cargo("build");
        build.args(["--quiet", "--locked", "--profile", "ci", "--bins"]);
        build.args(PACKAGES.iter().flat_map(|package| ["--package", package]));
        shell::run(&mut build)?;
    }
    let model = model::obtain(arguments.file.as_deref(), &say)?;
    say(&format!("model      {} ({} bytes; {})", model.path.display(), model.size, model.origin));

    let work = actors::WorkDirectory::create(workspace)?;
    let innerkeep = Innerkeep::new(workspace, arguments.json)?;
    let outcome = play(workspace, arguments, &innerkeep, work.path(), &model, &say);
    if let Err(error) = &outcome {
        eprintln!("the demo failed; its files are kept in {}: {error:#}", work.keep().display());
    }
    let report = outcome?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("\nthe landed file equals the sealed one, and every attack was refused");
    }
    Ok(())
}

fn play(
    workspace: &Workspace,
    arguments: &Arguments,
    innerkeep: &Innerkeep,
    work: &Path,
    model: &PreparedModel,
    say: &dyn Fn(&str),
) -> anyhow::Result<Value> {
    let (tee, path) = (arguments.tee, arguments.path.name());
    let platform = Platform::create(workspace, work, tee)?;
    let roots = platform.trust_roots();
    // Silicon and certificates: two chips of one model, provisioned for the environment "development".
    let ca = work.join("ca");
    let chip = Chip::start(workspace, work, "chip-a", path, &roots)?;
    let other = Chip::start(workspace, work, "chip-b", path, &roots)?;
    for each in [&chip, &other] {
        provision(innerkeep, each, &ca)?;
    }
    let root = ca.join("root.pem");
    let chain = work.join("chip-a.pem");
    write_chain(innerkeep, &chip, &root, &chain)?;
    say(
        "chips      two emulated chips, provisioned for \"development\" under one root; they demand evidence",
    );

    // The ML team's pipeline: key, seal, initdata that names the core, policy that names guest and initdata, grant.
    let sealer = work.join("sealer.pem");
    innerkeep.run(&["key".as_ref(), "new".as_ref(), "--output".as_ref(), sealer.as_os_str()])?;
    let scene = Scene { work, root: &root, chain: &chain, sealer: &sealer, path };
    let store = work.join("store");
    let sealed = scene.seal(innerkeep, &model.path, &store, true)?;
    let core = sealed["core"].as_str().unwrap_or("?");
    say(&format!(
        "sealed     {} bytes in {:.2} s, {:.2} GB/s, core {core}",
        sealed["bytes"],
        float(&sealed, "seconds")?,
        float(&sealed, "gb_per_s")?,
    ));
    let initdata = write_initdata(work, tee, core)?;
    let launch = Launch::new(tee, &initdata);
    let guest = platform.guest("guest", &launch, None)?;
    let policy = scene.policy_of(innerkeep, &guest, &roots)?;
    ensure!(policy.contains(&initdata), "the policy does not name the digest of the initdata, {initdata}");
    say(&format!(
        "policy     from verified evidence of a reference guest ({}); it names measurement, minimum TCB and collateral,\n           and the initdata digest {}…",
        tee.name(),
        initdata.get(..16).unwrap_or(&initdata)
    ));
    let granted = scene.grant(innerkeep, &store, &policy)?;
    ensure!(granted["weaknesses"] == json!([]), "the policy is weak: {}", granted["weaknesses"]);
    say("granted    to chip-a under that policy; `policy lint` finds nothing weak in it");

    // The guest: evidence about this very session, the chip releases, the consumer opens the landed file.
    let landed = scene.unseal(innerkeep, &guest, &chip, &store)?;
    ensure!(landed.status == Some(0), "unseal failed: {}", landed.stderr);
    let seen: Value = serde_json::from_str(landed.stdout.trim()).context("the consumer's report")?;
    let report = landed.report()?;
    say(&format!(
        "landed     {} bytes in {:.3} s, {:.2} GB/s by {path}, {} pages, after the chip verified evidence of this session",
        report["bytes"],
        float(&report, "seconds")?,
        float(&report, "gb_per_s")?,
        report["pages"].as_str().unwrap_or("?")
    ));
    let insecure = insecure(&report, path);
    say(&format!("insecure   {insecure}"));
    describe(&seen, say);
    if seen["sha256"].as_str() != Some(&model.sha256) {
        bail!("the landed file differs: sealed sha256 {}, landed {}", model.sha256, seen["sha256"]);
    }
    say(&format!(
        "sha256     {} sealed\n           {} landed",
        model.sha256,
        seen["sha256"].as_str().unwrap_or("?")
    ));

    let mut judge = Judge::new(say);
    say("\nattacks on artifact and chip, each through the real commands:");
    let stage = refusals::Stage { innerkeep, scene: &scene, guest: &guest, policy: &policy, store: &store };
    refusals::play(&stage, &chip, &other, &model.path, &mut judge)?;
    say("\nattacks on evidence:");
    evidence::play(workspace, &stage, &platform, &launch, &chip, &mut judge)?;
    Ok(json!({
        "model": { "path": model.path, "origin": model.origin, "size": model.size },
        "input_sha256": model.sha256,
        "landed_sha256": seen["sha256"],
        "tensors": seen["tensors"],
        "path": path,
        "tee": tee.name(),
        "initdata_digest": initdata,
        "policy_digest": granted["policy_digest"],
        "seal": sealed,
        "unseal": report,
        "insecure": insecure,
        "refusals": judge.refused(),
    }))
}

/// What the guest says of itself, and what its chip is.
fn insecure(report: &Value, path: &str) -> Value {
    let mut modes: Vec<Value> = report["insecure"].as_array().cloned().unwrap_or_default();
    modes.push("emulated-chip".into());
    if path == "dma-direct" && !modes.contains(&"emulated-dma".into()) {
        modes.push("emulated-dma".into());
    }
    Value::Array(modes)
}

fn provision(innerkeep: &Innerkeep, chip: &Chip, ca: &Path) -> anyhow::Result<Value> {
    innerkeep.run(&[
        "chip".as_ref(),
        "provision".as_ref(),
        "--chip".as_ref(),
        chip.socket.as_os_str(),
        "--ca".as_ref(),
        ca.as_os_str(),
        "--environment".as_ref(),
        "development".as_ref(),
        // Older TDX collateral is refused from the first day on, SNP evidence without a revocation list too.
        "--min-tcb-evaluation".as_ref(),
        "15".as_ref(),
        "--min-snp-crl".as_ref(),
        "3".as_ref(),
    ])
}

/// Has the chip's verified certificate chain written: what grants are made to.
fn write_chain(innerkeep: &Innerkeep, chip: &Chip, root: &Path, chain: &Path) -> anyhow::Result<()> {
    innerkeep.run(&[
        "chip".as_ref(),
        "info".as_ref(),
        "--chip".as_ref(),
        chip.socket.as_os_str(),
        "--chip-root".as_ref(),
        root.as_os_str(),
        "--chain-out".as_ref(),
        chain.as_os_str(),
    ])?;
    Ok(())
}

/// Writes the guest's configuration, which names the core, and returns the digest of its bytes, hex.
fn write_initdata(work: &Path, tee: Tee, core: &str) -> anyhow::Result<String> {
    let algorithm = match tee {
        Tee::Tdx => "sha384",
        Tee::Snp => "sha256",
    };
    let text = format!(
        "algorithm = \"{algorithm}\"\nversion = \"0.1.0\"\n\n[data]\n\"sealed.toml\" = '''\n[[artifact]]\ncore = \"{core}\"\n'''\n"
    );
    let file = work.join("initdata.toml");
    std::fs::write(&file, &text).with_context(|| format!("write {}", file.display()))?;
    Ok(tee.initdata_digest(text.as_bytes()))
}

fn describe(seen: &Value, say: &dyn Fn(&str)) {
    let Some(tensors) = seen["tensors"].as_array() else {
        say(&format!(
            "opened     not a SafeTensors file ({}); compared by digest alone",
            seen["not_safetensors"]
        ));
        return;
    };
    say(&format!("opened     SafeTensors with {} tensors, among them", tensors.len()));
    for tensor in tensors.iter().take(5) {
        say(&format!(
            "           {} {} {}",
            tensor["name"].as_str().unwrap_or("?"),
            tensor["dtype"].as_str().unwrap_or("?"),
            tensor["shape"]
        ));
    }
}

fn float(value: &Value, name: &str) -> anyhow::Result<f64> {
    value[name].as_f64().with_context(|| format!("the report has no number `{name}`: {value}"))
}
