//! `cargo xtask vm demo`: the model of the demo unsealed inside a guest with a kernel of its own, by a chip that is a PCI device there.
//!
//! The chip emulator is attached as `vfio-user-pci` behind `intel-iommu`; in the guest the kernel's VFIO hands it to the shipped `innerkeep`. The
//! TEE is emulated at the paths where the kernel shows a real one: the program in the guest cannot tell, so that every insecure mode it
//! accepts is in the initdata that the register vouches for.

use super::actors::{Chip, Innerkeep, PreparedModel, Said, WorkDirectory};
use super::guest::{Launch, Platform, Tee};
use super::refusals::{Expected, Judge, REFUSED};
use super::scene::{Policy, Scene};
use super::{DataPath, PACKAGES, float, model, provision, tamper, write_chain};
use crate::shell::{self, Workspace};
use anyhow::{Context, ensure};
use clap::Args;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;
use xtask::vm::{self, Guest, Programs, Service, Spec, Tools};

/// Unseal the demo's model inside a guest under QEMU, by a chip behind the guest kernel's VFIO, and see attacks refused there.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Seal this file instead of the default model (any bytes).
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// Print one JSON object instead of progress.
    #[arg(long)]
    json: bool,
    /// The way the plaintext takes from the chip.
    #[arg(long, value_enum, default_value_t = DataPath::DmaDirect)]
    path: DataPath,
    /// The kind of guest that the emulated TEE is.
    #[arg(long, value_enum, default_value_t = Tee::Tdx)]
    tee: Tee,
    /// Use programs that are already built (tests).
    #[arg(long, hide = true)]
    no_build: bool,
}

/// Exit status of an unfit configuration.
const UNFIT: i32 = 78;
/// Exit status of a damaged or forged artifact.
const DAMAGED: i32 = 65;
/// Longest run of one command in the guest.
const COMMAND: Duration = Duration::from_secs(300);
/// Where the guest's launch lies in the guest.
const LAUNCH: &str = "/tee";
const COLLATERAL: &str = "/run/collateral.json";

/// Runs the subcommand.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<()> {
    let say = |text: &str| {
        if !arguments.json {
            println!("{text}");
        }
    };
    super::guest::require_fuse()?;
    let tools = Tools::obtain(&say)?;
    say(&format!("tools      {}", tools.describe()));
    let programs = if arguments.no_build {
        Programs::beside(&workspace.ci_bin_dir())
    } else {
        say("building innerkeep, the emulators and what runs in the guest …");
        let mut build = workspace.cargo("build");
        build.args(["--quiet", "--locked", "--profile", "ci", "--bins"]);
        build.args(PACKAGES.iter().flat_map(|package| ["--package", package]));
        shell::run(&mut build)?;
        vm::build(workspace, &[])?
    };
    let model = model::obtain(arguments.file.as_deref(), &say)?;
    say(&format!("model      {} ({} bytes; {})", model.path.display(), model.size, model.origin));
    let work = WorkDirectory::create(workspace)?;
    let innerkeep = Innerkeep::new(workspace, arguments.json)?;
    let stage = Stage {
        workspace,
        arguments,
        innerkeep: &innerkeep,
        work: work.path(),
        tools: &tools,
        programs: &programs,
    };
    let outcome = stage.play(&model, &say);
    if let Err(error) = &outcome {
        eprintln!("the demo failed; its files are kept in {}: {error:#}", work.keep().display());
    }
    let report = outcome?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!(
            "\nthe file that landed inside the guest equals the sealed one, and every attack was refused"
        );
    }
    Ok(())
}

struct Stage<'a> {
    workspace: &'a Workspace,
    arguments: &'a Arguments,
    innerkeep: &'a Innerkeep,
    work: &'a Path,
    tools: &'a Tools,
    programs: &'a Programs,
}

/// A guest that runs, and how its programs are called.
struct Inside {
    guest: Guest,
    chip: String,
}

impl Stage<'_> {
    fn play(&self, model: &PreparedModel, say: &dyn Fn(&str)) -> anyhow::Result<Value> {
        let (tee, path) = (self.arguments.tee, self.arguments.path.name());
        let platform = Platform::create(self.workspace, self.work, tee)?;
        let roots = platform.trust_roots();
        // What host and guest share; the host can change it at any time.
        let share = self.work.join("share");
        std::fs::create_dir(&share).context("make the shared directory")?;
        let chip = Chip::start(self.workspace, self.work, "chip-a", path, &roots)?;
        let ca = self.work.join("ca");
        provision(self.innerkeep, &chip, &ca)?;
        let (root, chain) = (share.join("root.pem"), self.work.join("chip-a.pem"));
        std::fs::copy(ca.join("root.pem"), &root).context("copy the chip's root certificate")?;
        write_chain(self.innerkeep, &chip, &root, &chain)?;
        say("chip       one emulated chip, provisioned for \"development\"; it demands evidence");

        let sealer = share.join("sealer.pem");
        self.innerkeep.run(&["key".as_ref(), "new".as_ref(), "--output".as_ref(), sealer.as_os_str()])?;
        let scene = Scene { work: self.work, root: &root, chain: &chain, sealer: &sealer, path };
        let store = share.join("store");
        let sealed = scene.seal(self.innerkeep, &model.path, &store, true)?;
        let core = sealed["core"].as_str().context("the core's digest")?;
        say(&format!("sealed     {} bytes, core {core}", sealed["bytes"]));

        let initdata = self.write_initdata(&share.join("initdata.toml"), core, "tenant")?;
        let launch = Launch::new(tee, &initdata);
        let inside = self.boot(&platform, "guest", &launch, &chip, &share)?;
        say(&format!(
            "guest      kernel {}, up after {:.1} s; emulated {} at the real paths; chip at {}, its IOMMU group: {}",
            inside.guest.ready.kernel,
            inside.guest.boot.as_secs_f64(),
            tee.name(),
            inside.chip,
            inside
                .guest
                .shell(&format!("ls /sys/bus/pci/devices/{}/iommu_group/devices", inside.chip))?
                .trim()
                .replace('\n', " ")
        ));
        let policy = self.policy(&scene, &inside, &share, &roots)?;
        ensure!(
            policy.contains(&initdata),
            "the policy does not name the digest of the initdata, {initdata}"
        );
        let granted = scene.grant(self.innerkeep, &store, &policy)?;
        ensure!(granted["weaknesses"] == json!([]), "the policy is weak: {}", granted["weaknesses"]);
        say("granted    to the chip under a policy from this guest's verified evidence; nothing weak in it");

        let landed = inside.unseal(self.arguments, &[])?;
        ensure!(landed.status == Some(0), "unseal in the guest failed: {}", landed.stderr);
        let seen: Value = serde_json::from_str(landed.stdout.trim()).context("the consumer's report")?;
        let report = landed.report()?;
        say(&format!(
            "landed     {} bytes in {:.3} s by {path}, {} pages, {} MSI-X interrupts waited for, after the chip verified evidence",
            report["bytes"],
            float(&report, "seconds")?,
            report["pages"].as_str().unwrap_or("?"),
            report["chip_interrupts"],
        ));
        say(&format!("insecure   {}", report["insecure"]));
        ensure!(report["pages"] == "huge-2m", "the landing file has no huge pages: {report}");
        ensure!(
            report["chip_interrupts"].as_u64().is_some_and(|count| count > 0),
            "no interrupt came: {report}"
        );
        ensure!(
            seen["sha256"].as_str() == Some(&model.sha256),
            "the landed file differs: sealed sha256 {}, landed {}",
            model.sha256,
            seen["sha256"]
        );
        say(&format!("sha256     {} sealed\n           {} landed in the guest", model.sha256, model.sha256));

        let mut judge = Judge::new(say);
        say("\nattacks inside the guest, each through the real commands:");
        self.attacks(&inside, &store, &mut judge)?;
        inside.guest.power_off()?;
        let foreign = self.write_initdata(&share.join("initdata.toml"), core, "somebody else")?;
        let inside = self.boot(&platform, "foreign", &Launch::new(tee, &foreign), &chip, &share)?;
        let expected = Expected { status: REFUSED, code: "CHIP_EVIDENCE_REFUSED", reason: "initdata" };
        judge.refusal(
            "the same guest launched with other initdata",
            &inside.unseal(self.arguments, &[])?,
            &expected,
        )?;
        let boot = inside.guest.boot.as_secs_f64();
        inside.guest.power_off()?;
        Ok(json!({
            "model": { "path": model.path, "origin": model.origin, "size": model.size },
            "input_sha256": model.sha256,
            "landed_sha256": seen["sha256"],
            "path": path,
            "tee": tee.name(),
            "tools": self.tools.describe(),
            "boot_seconds": boot,
            "unseal": report,
            "refusals": judge.refused(),
        }))
    }

    fn attacks(&self, inside: &Inside, store: &Path, judge: &mut Judge<'_>) -> anyhow::Result<()> {
        let flip = tamper::FlippedBit::flip(store)?;
        let said = inside.unseal(self.arguments, &[]);
        flip.restore()?;
        let code = if self.arguments.path == DataPath::KeyRelease {
            "SEGMENT_AUTH_FAILED"
        } else {
            "CHIP_SEGMENT_AUTH"
        };
        judge.refusal(
            "the host flips a bit of the ciphertext",
            &said?,
            &Expected { status: DAMAGED, code, reason: "segment" },
        )?;
        let said = inside.unseal(self.arguments, &["--insecure-no-evidence"])?;
        let expected = Expected { status: UNFIT, code: "INSECURE_UNBOUND", reason: "no-evidence" };
        judge.refusal("an insecure flag that bound initdata does not list", &said, &expected)
    }

    /// Initdata that names the core and the insecure modes of emulated silicon; its digest, hex.
    fn write_initdata(&self, file: &Path, core: &str, tenant: &str) -> anyhow::Result<String> {
        let tee = self.arguments.tee;
        let algorithm = match tee {
            Tee::Tdx => "sha384",
            Tee::Snp => "sha256",
        };
        let modes = match self.arguments.path {
            DataPath::DmaDirect => "\"emulated-chip\", \"emulated-dma\", \"emulated-tee\"",
            _ => "\"emulated-chip\", \"emulated-tee\"",
        };
        let core = core.trim_start_matches("sha256:");
        let image = "0".repeat(64);
        let text = format!(
            "# {tenant}\nalgorithm = \"{algorithm}\"\nversion = \"0.1.0\"\n\n[data]\n\"innerkeep.toml\" = '''\ninsecure = [{modes}]\n'''\n\
             \"sealed.toml\" = '''\nenvironment = \"development\"\n\n[[artifact]]\nname = \"model\"\nreference = \"registry.example/demo/model:v7\"\n\
             core = \"sha256:{core}\"\npath = \"/models/model\"\ncontainer = {{ image = \"sha256:{image}\", policy_container = 0 }}\n'''\n"
        );
        std::fs::write(file, &text).with_context(|| format!("write {}", file.display()))?;
        Ok(tee.initdata_digest(text.as_bytes()))
    }

    fn boot(
        &self,
        platform: &Platform,
        name: &str,
        launch: &Launch,
        chip: &Chip,
        share: &Path,
    ) -> anyhow::Result<Inside> {
        let launch = platform.write_launch(name, launch)?;
        let service = ["/bin/innerkeep-tee-emulator", "guest", "--state", LAUNCH, "--launch", "/tee.toml"];
        let service =
            service.iter().chain(&["--collateral-out", COLLATERAL, "--ready-file", "/run/tee.ready"]);
        let service = Service {
            argv: service.map(|word| (*word).to_owned()).collect(),
            ready: "/run/tee.ready".to_owned(),
        };
        let guest = Spec::new(self.programs.clone())
            .program("innerkeep")?
            .program("innerkeep-tee-emulator")?
            .program("test-consumer")?
            .copy_directory(platform.state(), LAUNCH)?
            .copy(&launch, "/tee.toml", 0o644)
            .modules(&["configfs", "tsm_report", "cuse"])
            .memory_mib(1536)
            .chip(&chip.socket, Some(chip.id()))
            .share(share)
            .plan(|plan| plan.services.push(service))
            .boot(self.tools)?;
        let chip = guest.shell(BIND)?.trim().to_owned();
        ensure!(!chip.is_empty(), "the guest sees no chip");
        Ok(Inside { guest, chip })
    }

    fn policy(
        &self,
        scene: &Scene<'_>,
        inside: &Inside,
        share: &Path,
        roots: &Path,
    ) -> anyhow::Result<Policy> {
        let challenge = "00".repeat(32);
        let made = inside.innerkeep(&[
            "attest",
            "--nonce",
            &challenge,
            "--presentation",
            "/out/evidence",
            "--collateral",
            COLLATERAL,
        ])?;
        ensure!(made.status == Some(0), "the guest made no evidence: {}", made.stderr);
        scene.policy_from(self.innerkeep, &share.join("evidence"), roots)
    }
}

/// Hands every chip to vfio-pci and prints where it is.
const BIND: &str = "cd /sys/bus/pci/devices; for d in *; do [ $(cat $d/vendor) = 0x494b ] || continue; \
                    echo vfio-pci > $d/driver_override; echo $d > ../drivers_probe; echo $d; done";

impl Inside {
    fn innerkeep(&self, arguments: &[&str]) -> anyhow::Result<Said> {
        let words = ["/bin/innerkeep", "--json"].iter().chain(arguments).copied();
        let said = self.guest.spawn(&words.collect::<Vec<_>>())?.wait(COMMAND)?;
        Ok(Said { status: Some(said.status), stdout: said.stdout, stderr: said.stderr })
    }

    fn unseal(&self, arguments: &Arguments, more: &[&str]) -> anyhow::Result<Said> {
        let chip = format!("pci:{}", self.chip);
        let mut words =
            vec!["unseal", "/out/store", "--sealer-key", "/out/sealer.pem.pub", "--family", "demo/model"];
        words.extend(["--min-counter", "5", "--chip", &chip, "--chip-root", "/out/root.pem"]);
        words.extend(["--path", arguments.path.name(), "--initdata", "/out/initdata.toml"]);
        if !more.contains(&"--insecure-no-evidence") {
            words.extend(["--collateral", COLLATERAL]);
        }
        if arguments.path == DataPath::DmaDirect {
            words.push("--insecure-emulated-dma");
        }
        words.extend(more);
        words.extend(["--", "/bin/test-consumer", "look", "/run/marker", "{}"]);
        self.innerkeep(&words)
    }
}
