//! `cargo xtask vm demo`: the model of the demo in a guest with a kernel of its own, by a chip that is a PCI device there, for one container.
//!
//! Process 1 of the guest is the shipped `innerkeep-agent`, which takes nothing from its host but what bound initdata allows: it has the model
//! landed by the chip, and shows it to the container whose root it verified itself. The host side speaks ttrpc over vsock, as runtimes do. Then
//! the shipped `innerkeep` unseals the same model on the command line of the guest.
//!
//! The chip emulator is attached as `vfio-user-pci` behind `intel-iommu`; in the guest the kernel's VFIO hands it over. The TEE is emulated at the
//! paths where the kernel shows a real one: programs in the guest cannot tell, so that every insecure mode they accept is in the initdata that the
//! register vouches for.

mod audit;
mod beside;
mod images;
mod initdata;
mod pod;
mod runtime;

use super::actors::{Chip, Innerkeep, PreparedModel, Said, WorkDirectory};
use super::guest::{Launch, Platform, Tee};
use super::refusals::{Expected, Judge, REFUSED};
use super::scene::{Policy, Scene};
use super::{DataPath, PACKAGES, float, model, provision, tamper, write_chain};
use crate::shell::{self, Workspace};
use anyhow::{Context, ensure};
use clap::Args;
use runtime::Runtime;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;
use xtask::vm::{self, Guest, Init, Programs, Service, Spec, Tools, VerityRoot};

/// Have the demo's model read by one container of a confidential guest under QEMU, by a chip behind the guest kernel's VFIO, and see what its
/// host tries refused.
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
/// In what the host offers.
const COLLATERAL: &str = "/out/innerkeep-artifacts/collateral.json";
/// Where in it the model is.
const REPOSITORY: &str = "registry.example/demo";

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
            "\nwhat the container read inside the guest equals what was sealed, every attack was refused, and the audit names them"
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
        let offered = share.join("innerkeep-artifacts");
        std::fs::create_dir_all(offered.join(REPOSITORY)).context("make the shared directory")?;
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
        let store = offered.join(REPOSITORY).join("model");
        let sealed = scene.seal(self.innerkeep, &model.path, &store, true)?;
        let core = sealed["core"].as_str().context("the core's digest")?;
        say(&format!("sealed     {} bytes, core {core}", sealed["bytes"]));

        // A container's root that the guest verifies at each read, one of the host, and the operator's key for the audit.
        let disk = self.work.join("root.img");
        let verified = VerityRoot::create(self.tools, &disk, &[pod::PLACE], b"innerkeep demo")?;
        pod::foreign_root(self.tools, &share)?;
        let images = images::Images::prepare(self.tools, self.work)?;
        let beside = beside::Beside::seal(
            self.innerkeep,
            &scene,
            &images.to_seal(self.tools)?,
            &offered.join(REPOSITORY),
        )?;
        let (operator, public) = audit::operators_key(self.innerkeep, self.work)?;
        let named = pod::Model::of(model)?;
        let mut contents = initdata::Contents {
            tenant: "tenant",
            core,
            model: &named,
            root: &verified,
            images: &images,
            beside: &beside,
            chip_root: &root,
            audit: &public,
        };
        let pack = |name: &str, contents: &initdata::Contents<'_>| {
            initdata::pack(self.innerkeep, tee, self.arguments.path, &share, name, contents)
        };
        let bound = pack("initdata", &contents)?;
        let launch = Launch::new(tee, &bound.digest);
        let inside = self.boot(&platform, "guest", &launch, &chip, &share, Some((&bound, &verified)))?;
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
        inside.guest.wait_serial("\"msg\":\"serving\"", COMMAND)?;
        say(&format!(
            "initdata   bound: {} holds {}…",
            inside.register()?,
            bound.digest.get(..16).unwrap_or_default()
        ));
        let policy = self.policy(&scene, &inside, &share, &roots)?;
        ensure!(
            policy.contains(&bound.digest),
            "the policy does not name the digest of the initdata, {}",
            bound.digest
        );
        let granted = scene.grant(self.innerkeep, &store, &policy)?;
        ensure!(granted["weaknesses"] == json!([]), "the policy is weak: {}", granted["weaknesses"]);
        let secrets = beside.grant(self.innerkeep, &scene, &policy)?;
        images.push_sealed(self.innerkeep, beside.layers())?;
        say("granted    to the chip under a policy from this guest's verified evidence; nothing weak in it");

        let mut judge = Judge::new(say);
        let mut runtime = Runtime::start(self.workspace, &inside.guest)?;
        let mut pod = pod::Pod::create(&inside.guest, &mut runtime, &named, &verified)?;
        let served = pod.serve()?;
        say(&format!(
            "container  on a root that the guest verifies (dm-verity, {}…): it reads the model, landed by the agent in {} ms\n           {}",
            verified.root_hash.get(..16).unwrap_or_default(),
            served.landed_ms,
            served.mount
        ));
        ensure!(
            served.sha256 == model.sha256,
            "the container read another file: sealed sha256 {}, read {}",
            model.sha256,
            served.sha256
        );
        say(&format!(
            "sha256     {} sealed\n           {} computed in the container",
            model.sha256, served.sha256
        ));
        say("\nwhat the host tries, by ttrpc over vsock, and what the agent answers:");
        pod.attacks(&mut judge)?;
        pod.impostors(&mut judge)?;
        say("\na container on a signed image that the guest pulls from a registry of the host:");
        let pulled = pod.pulled(&images, &secrets)?;
        say(&format!("pulled     {}\n           {} computed in the container", images.digest, pulled.sha256));
        ensure!(
            pulled.sha256 == model.sha256,
            "the container on the pulled image read another file: {}",
            pulled.sha256
        );
        ensure!(
            pulled.secret == beside.secret_sha256,
            "the container's secret is another one: sealed sha256 {}, found {}",
            beside.secret_sha256,
            pulled.secret
        );
        say(&format!(
            "secret     sealed for the chip, carried by the host in the container's environment: opened\n           {} computed in the container",
            pulled.secret
        ));
        let layers = pod.sealed_layers(&images)?;
        ensure!(layers == "layers", "the container with sealed layers runs another image: {layers:?}");
        say(&format!(
            "layers     {}: sealed in the registry, opened by the chip; the container runs",
            images.sealed()
        ));
        pod.evil_secrets(&images, &secrets, &mut judge)?;
        let mut second = Runtime::start(self.workspace, &inside.guest)?;
        pod.evil_artifacts(&images, &mut second, &mut judge)?;
        drop(second);
        pod.evil_images(&images, &mut judge)?;
        say("\nthe audit, carried by the host:");
        let evidence = audit::Operator {
            innerkeep: self.innerkeep,
            work: self.work,
            key: &operator,
            initdata: &bound.text,
            policy: &store.with_extension("policy.toml"),
            collateral: &offered.join("collateral.json"),
            roots: &roots,
        };
        let audited = evidence.verify(&inside.guest, &mut judge, say)?;

        say("\nthe same model on the guest's command line:");
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
        say(&format!("sha256     {} landed\n\nattacks on the artifact:", model.sha256));
        self.attacks(&inside, &store, &mut judge)?;
        let boot = inside.guest.boot.as_secs_f64();
        inside.guest.power_off()?;
        contents.tenant = "somebody else";
        let foreign = pack("foreign", &contents)?;
        std::fs::copy(&foreign.text, share.join("initdata.toml")).context("give the guest its initdata")?;
        let launch = Launch::new(tee, &foreign.digest);
        let inside = self.boot(&platform, "foreign", &launch, &chip, &share, None)?;
        let expected = Expected { status: REFUSED, code: "CHIP_EVIDENCE_REFUSED", reason: "initdata" };
        judge.refusal(
            "the same guest launched with other initdata",
            &inside.unseal(self.arguments, &[])?,
            &expected,
        )?;
        inside.guest.power_off()?;
        Ok(json!({
            "model": { "path": model.path, "origin": model.origin, "size": model.size },
            "input_sha256": model.sha256,
            "container_sha256": served.sha256,
            "container_mount": served.mount,
            "pulled_image": images.digest,
            "pulled_sha256": pulled.sha256,
            "landed_sha256": seen["sha256"],
            "path": path,
            "tee": tee.name(),
            "tools": self.tools.describe(),
            "boot_seconds": boot,
            "initdata_digest": bound.digest,
            "root_hash": verified.root_hash,
            "audit": audited.report,
            "denials": audited.denials,
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

    /// Boots a guest with the shipped agent as its process 1 and these disks, or one that only runs commands.
    fn boot(
        &self,
        platform: &Platform,
        name: &str,
        launch: &Launch,
        chip: &Chip,
        share: &Path,
        disks: Option<(&initdata::Initdata, &VerityRoot)>,
    ) -> anyhow::Result<Inside> {
        let launch = platform.write_launch(name, launch)?;
        let service = ["/bin/innerkeep-tee-emulator", "guest", "--state", LAUNCH, "--launch", "/tee.toml"];
        let service = service.iter().chain(&["--collateral-out", COLLATERAL, "--ready-file", "/tee.ready"]);
        let service = Service {
            argv: service.map(|word| (*word).to_owned()).collect(),
            ready: "/tee.ready".to_owned(),
        };
        let mut spec = Spec::new(self.programs.clone())
            .program("innerkeep")?
            .program("innerkeep-agent")?
            .program("innerkeep-tee-emulator")?
            .program("test-consumer")?
            .copy_directory(platform.state(), LAUNCH)?
            .copy(&launch, "/tee.toml", 0o644)
            .modules(&[
                "configfs",
                "tsm_report",
                "cuse",
                "dm_verity",
                "erofs",
                "overlay",
                "loop",
                "virtio_net",
            ])
            .qemu(&["-netdev", "user,id=net,ipv6=off"])
            .qemu(&["-device", &format!("virtio-net-pci,netdev=net,mac={},romfile=", images::HARDWARE)])
            .memory_mib(1536)
            .chip(&chip.socket, Some(chip.id()))
            .share(share)
            .plan(|plan| plan.services.push(service));
        if let Some((initdata, root)) = disks {
            spec = spec.init(Init::Agent).vsock().disk(&initdata.image).disk(&root.image);
        }
        let guest = spec.boot(self.tools)?;
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
        let mut words = vec![
            "unseal",
            "/out/innerkeep-artifacts/registry.example/demo/model",
            "--sealer-key",
            "/out/sealer.pem.pub",
            "--family",
            "demo/model",
        ];
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

    /// The register that vouches for initdata, by the agent's own words.
    fn register(&self) -> anyhow::Result<String> {
        let serial = self.guest.serial();
        let mut lines = serial.lines().filter_map(|line| serde_json::from_str::<Value>(line.trim()).ok());
        let register = lines.find_map(|line| line["register"].as_str().map(str::to_owned));
        register.context("the agent did not say which register vouches for initdata")
    }
}
