//! `cargo xtask demo`: a real model sealed, granted to a chip, unsealed through it, and five refusals.
//!
//! Sealer, chip and unsealer are separate processes: the shipped `innerkeep` and the chip emulator. This program only plays the people:
//! the operator who provisions chips, the team that seals, the guest that unseals, and the thief.

mod actors;
pub mod consumer;
mod model;
mod refusals;
mod tamper;

use crate::shell::{self, Workspace};
use actors::{Chip, Innerkeep, PreparedModel};
use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Seal a model, unseal it through an emulated chip, and see five attacks refused.
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

/// Runs the subcommand.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<()> {
    let say = |text: &str| {
        if !arguments.json {
            println!("{text}");
        }
    };
    if !arguments.no_build {
        say("building innerkeep and the chip emulator …");
        let mut build = workspace.cargo("build");
        build.args([
            "--quiet",
            "--locked",
            "--profile",
            "ci",
            "--package",
            "cli",
            "--package",
            "chip-emulator",
        ]);
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
    // Silicon and certificates: two chips of one model, provisioned for the environment "development".
    let ca = work.join("ca");
    let chip = Chip::start(workspace, work, "chip-a", arguments.path.name())?;
    let other = Chip::start(workspace, work, "chip-b", arguments.path.name())?;
    for each in [&chip, &other] {
        innerkeep.run(&[
            "chip".as_ref(),
            "provision".as_ref(),
            "--chip".as_ref(),
            each.socket.as_os_str(),
            "--ca".as_ref(),
            ca.as_os_str(),
            "--environment".as_ref(),
            "development".as_ref(),
        ])?;
    }
    let root = ca.join("root.pem");
    let chain = work.join("chip-a.pem");
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
    say("chips      two emulated chips, provisioned for \"development\" under one root");

    // The ML team's pipeline: key, seal, policy, grant.
    let sealer = work.join("sealer.pem");
    innerkeep.run(&["key".as_ref(), "new".as_ref(), "--output".as_ref(), sealer.as_os_str()])?;
    let scene =
        actors::Scene { work, root: &root, chain: &chain, sealer: &sealer, path: arguments.path.name() };
    let store = work.join("store");
    let sealed = scene.seal(innerkeep, &model.path, &store, true)?;
    say(&format!(
        "sealed     {} bytes in {:.2} s, {:.2} GB/s, core {}",
        sealed["bytes"],
        float(&sealed, "seconds")?,
        float(&sealed, "gb_per_s")?,
        sealed["core"].as_str().unwrap_or("?")
    ));
    let policy = scene.policy("development", "policy.toml")?;
    scene.grant(innerkeep, &store, &policy)?;
    say("granted    to chip-a under policy.toml (--allow-weak-policy: evidence is not demanded yet)");

    // The guest: unseal into protected memory, the consumer opens the landed file.
    let landed = scene.unseal(innerkeep, &chip, &store)?;
    ensure!(landed.status == Some(0), "unseal failed: {}", landed.stderr);
    let seen: Value = serde_json::from_str(landed.stdout.trim()).context("the consumer's report")?;
    let report = landed.report()?;
    say(&format!(
        "landed     {} bytes in {:.3} s, {:.2} GB/s by {}, {} pages",
        report["bytes"],
        float(&report, "seconds")?,
        float(&report, "gb_per_s")?,
        arguments.path.name(),
        report["pages"].as_str().unwrap_or("?")
    ));
    say(&format!("insecure   {}", report["insecure"]));
    describe(&seen, say);
    if seen["sha256"].as_str() != Some(&model.sha256) {
        bail!("the landed file differs: sealed sha256 {}, landed {}", model.sha256, seen["sha256"]);
    }
    say(&format!(
        "sha256     {} sealed\n           {} landed",
        model.sha256,
        seen["sha256"].as_str().unwrap_or("?")
    ));

    say("\nfive attacks, each through the real commands:");
    let refused = refusals::play(innerkeep, &scene, &chip, &other, &store, &model.path, say)?;
    Ok(json!({
        "model": { "path": model.path, "origin": model.origin, "size": model.size },
        "input_sha256": model.sha256,
        "landed_sha256": seen["sha256"],
        "tensors": seen["tensors"],
        "path": arguments.path.name(),
        "seal": sealed,
        "unseal": report,
        "insecure": report["insecure"],
        "refusals": refused,
    }))
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
