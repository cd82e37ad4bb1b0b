//! The chip behind a guest kernel's VFIO and a virtual IOMMU: the driver's suite, what operators get wrong, chips that misbehave, are
//! taken away, or die.

#![expect(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;
use tests::args;
use tests::chip_suite::CASES;
use tests::emulator::Emulator;
use tests::payload::Payload;
use tests::scene::{Artifact, Scene, SealSpec};
use tests::vm::{self, bind_chips, boot, exec, shell};
use tests::{CHIP_FAULT, UNFIT};
use xtask::vm::{End, Guest, Said, Spec};

const PATHS: [&str; 3] = ["key-release", "dma-sealed", "dma-direct"];
/// One command's worth and a half: both commands of a job write into one huge page.
const SIZE: usize = 1_500_000;

/// A chip whose misbehaviour can be changed while a machine holds it, and an artifact for it.
struct Stage {
    scene: Scene,
    artifact: Artifact,
    payload: Payload,
    plan: PathBuf,
    plans: usize,
}

impl Stage {
    fn new(seed: u64) -> Self {
        let mut scene = Scene::start();
        let payload = Payload::random(seed, SIZE);
        let artifact = scene.sealed("store", &payload, &SealSpec::default());
        let plan = scene.work.write("faults.toml", "");
        let mut arguments: Vec<OsString> = Emulator::INSECURE.map(OsString::from).into();
        arguments.extend(args!["--fault-plan", &plan]);
        scene.restart_chip(&arguments);
        Self { scene, artifact, payload, plan, plans: 0 }
    }

    /// Has the running chip follow another plan.
    fn misbehave(&mut self, plan: &str) {
        std::fs::write(&self.plan, plan).unwrap();
        let chip = i32::try_from(self.scene.chip.id()).ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(chip.unwrap(), rustix::process::Signal::HUP).unwrap();
        self.plans += 1;
        self.scene.chip.wait_for_count("fault plan read again", self.plans);
    }

    /// A machine with what is needed to unseal, and no chip yet.
    fn spec(&self) -> Spec {
        let input = self.scene.work.join("input/store.bin");
        vm::spec(&self.scene.programs, &["innerkeep", "test-consumer", "chip-suite"])
            .copy_directory(&self.artifact.reference, "/store")
            .unwrap()
            .copy(&self.scene.root, "/etc/root.pem", 0o644)
            .copy(&input, "/etc/plaintext", 0o600)
    }

    fn boot(&self) -> Guest {
        boot(self.spec().chip(&self.scene.chip.socket, Some(self.scene.chip.id())))
    }

    fn arguments(&self, chip: &str, path: &str) -> Vec<String> {
        let words = [
            "innerkeep",
            "--json",
            "unseal",
            "/store",
            "--core",
            &self.artifact.core,
            "--chip",
            chip,
            "--chip-root",
            "/etc/root.pem",
            "--path",
            path,
            "--insecure-no-tee",
            "--insecure-no-evidence",
            "--insecure-emulated-dma",
            "--",
            "/bin/test-consumer",
            "look",
            "/tmp/ran",
            "{}",
        ];
        words.map(str::to_owned).into()
    }

    fn unseal(&self, guest: &Guest, chip: &str, path: &str) -> Said {
        let arguments = self.arguments(chip, path);
        exec(guest, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The consumer saw what was sealed.
    #[track_caller]
    fn assert_lands(&self, guest: &Guest, chip: &str, path: &str) -> Value {
        let said = self.unseal(guest, chip, path);
        assert_eq!(said.status, 0, "{said:?}\nchip: {}", self.scene.chip.log());
        let seen: Value = serde_json::from_str(&said.stdout).unwrap();
        assert_eq!(seen["sha256"], self.payload.sha256(), "{seen}");
        shell(guest, "rm /tmp/ran");
        last_json(&said.stderr)
    }

    /// Refused with this code; the consumer did not run, no mount and no file was left.
    #[track_caller]
    fn assert_refused(&self, guest: &Guest, chip: &str, path: &str, status: i32, code: &str) {
        let before = shell(guest, TRACE);
        let said = self.unseal(guest, chip, path);
        assert_refused(&said, status, code);
        assert_eq!(shell(guest, TRACE), before);
        shell(guest, "[ ! -e /tmp/ran ]");
    }
}

/// Mounts, and files of everything that is not made up by the kernel.
const TRACE: &str = "cat /proc/self/mountinfo; find / -xdev -type f | sort";

#[track_caller]
fn assert_refused(said: &Said, status: i32, code: &str) {
    let report = last_json(&said.stderr);
    assert_eq!((said.status, report["error"]["code"].as_str()), (status, Some(code)), "{said:?}");
    assert_eq!(said.stdout, "", "a refusal says nothing on standard output");
    assert!(!said.stderr.contains("panicked"), "{said:?}");
}

#[track_caller]
fn last_json(text: &str) -> Value {
    let line = text.lines().rev().find(|line| line.starts_with('{'));
    serde_json::from_str(line.unwrap_or_else(|| panic!("no JSON in {text:?}"))).unwrap()
}

/// Binds the chip, and makes the directories that a machine has.
#[track_caller]
fn only_chip(guest: &Guest) -> String {
    shell(guest, "mkdir -p /mnt /tmp");
    let chips = bind_chips(guest);
    assert_eq!(chips.len(), 1, "{chips:?}");
    format!("pci:{}", chips[0])
}

#[test]
fn driver_suite_over_kernel_vfio() {
    let stage = Stage::new(420);
    let guest = boot(stage.spec().chip(&stage.scene.chip.socket, Some(stage.scene.chip.id())));
    let found = shell(
        &guest,
        "for d in /sys/bus/pci/devices/*; do cat $d/vendor | tr '\\n' ' '; echo ${d##*/}; done",
    );
    let bare = found.lines().find_map(|line| line.strip_prefix("0x494b ")).unwrap();
    // Before it is bound: an error that says how.
    let said = stage.unseal(&guest, &format!("pci:{bare}"), "key-release");
    assert_refused(&said, UNFIT, "CHIP_VFIO_NOT_BOUND");
    assert!(said.stderr.contains("driver_override"), "{said:?}");
    assert_refused(&stage.unseal(&guest, "pci:0000:ff:00.0", "key-release"), UNFIT, "CHIP_VFIO_NO_DEVICE");

    let chip = format!("pci:{bare}");
    let bound = exec(&guest, &["innerkeep", "--json", "chip", "bind", "--chip", &chip]);
    assert_eq!((bound.status, &*bound.stderr), (0, ""), "{bound:?}");
    assert_eq!(only_chip(&guest), chip);
    let suite = [
        "chip-suite",
        "--chip",
        &chip,
        "--chip-root",
        "/etc/root.pem",
        "--store",
        "/store",
        "--plaintext",
        "/etc/plaintext",
    ];
    let said = exec(&guest, &suite);
    assert_eq!(said.status, 0, "{}\n{}\nchip: {}", said.stdout, said.stderr, stage.scene.chip.log());
    let done = said.stdout.lines().filter(|line| line.contains("\"ok\":true")).count();
    assert_eq!(done, CASES.len(), "{}", said.stdout);

    // What would let the chip forge interrupts is refused, whoever switched it on.
    let parameter = "/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts";
    shell(&guest, &format!("echo 1 > {parameter}"));
    stage.assert_refused(&guest, &chip, "dma-direct", UNFIT, "CHIP_VFIO_UNSAFE_INTERRUPTS");
    shell(&guest, &format!("echo 0 > {parameter}"));

    for path in PATHS {
        let report = stage.assert_lands(&guest, &chip, path);
        assert_eq!(report["pages"], "huge-2m", "{report}");
    }
    guest.power_off().unwrap();
}

/// One machine, one chip after another that lies: the code of each, and right bytes again afterwards.
#[test]
fn evil_device_behind_kernel_vfio() {
    let mut stage = Stage::new(421);
    let guest = stage.boot();
    let chip = only_chip(&guest);
    let report = stage.assert_lands(&guest, &chip, "dma-direct");
    // The write beside the destination would otherwise hit memory of somebody else.
    assert_eq!(report["pages"], "huge-2m", "{report}");
    let lies = [
        ("wrong-length", "UNWRAP", "key-release", "CHIP_LENGTH_LIE"),
        ("wrong-length", "UNSEAL", "dma-sealed", "CHIP_LENGTH_LIE"),
        ("wrong-head", "UNSEAL", "dma-direct", "CHIP_RING_HEAD"),
        ("wrong-cid", "UNSEAL", "dma-direct", "CHIP_COMPLETION_UNKNOWN"),
        ("forged-completion", "UNSEAL", "dma-direct", "CHIP_COMPLETION_FORGED"),
        ("corrupt-data", "UNSEAL", "dma-sealed", "CHIP_PAYLOAD_DIGEST"),
        ("reset", "UNSEAL", "dma-direct", "CHIP_GONE"),
    ];
    for (kind, command, path, code) in lies {
        stage.misbehave(&format!("[[fault]]\nkind = \"{kind}\"\ncommand = \"{command}\"\n"));
        stage.assert_refused(&guest, &chip, path, CHIP_FAULT, code);
    }
    for kind in ["missing-interrupt", "spurious-interrupt", "interrupt-storm"] {
        stage.misbehave(&format!("[[fault]]\nkind = \"{kind}\"\ntimes = 3\n"));
        stage.assert_lands(&guest, &chip, "dma-direct");
    }
    stage.misbehave("");
    for path in PATHS {
        stage.assert_lands(&guest, &chip, path);
    }
    guest.power_off().unwrap();
}

/// Nothing in front of a vfio-user server stops it from writing where the guest's memory is shared, whatever the IOMMU was told: it writes
/// over what another command landed, after that was verified. Nobody gets to see it.
#[test]
fn evil_device_writes_outside_its_map() {
    let mut stage = Stage::new(422);
    let guest = stage.boot();
    let chip = only_chip(&guest);
    let report = stage.assert_lands(&guest, &chip, "dma-direct");
    assert_eq!(report["pages"], "huge-2m", "{report}");
    stage.misbehave("[[fault]]\nkind = \"write-beside-map\"\ncommand = \"UNSEAL\"\nnth = 2\n");
    stage.assert_refused(&guest, &chip, "dma-direct", CHIP_FAULT, "CHIP_PAYLOAD_DIGEST");
    assert!(stage.scene.chip.log().contains("bytes written outside the map"), "{}", stage.scene.chip.log());
    stage.misbehave("");
    stage.assert_lands(&guest, &chip, "dma-direct");
    guest.power_off().unwrap();
}

/// The chip is taken away under a job, by the guest's kernel and then by the host: the kernel asks for it back, the job fails, the device goes.
#[test]
fn evil_host_unplugs_the_chip_under_a_job() {
    let mut stage = Stage::new(423);
    let mut guest = boot(stage.spec().removable_chip(&stage.scene.chip.socket, Some(stage.scene.chip.id())));
    let chip = only_chip(&guest);
    let address = chip.trim_start_matches("pci:").to_owned();
    // Behind its own port it is alone in its group.
    let group = shell(&guest, &format!("ls /sys/bus/pci/devices/{address}/iommu_group/devices"));
    assert_eq!(group.split_whitespace().collect::<Vec<_>>(), [address.as_str()]);
    stage.assert_lands(&guest, &chip, "dma-direct");

    let before = shell(&guest, TRACE);
    let stall = "[[fault]]\nkind = \"stall\"\ncommand = \"UNSEAL\"\n";
    stage.misbehave(stall);
    let job = guest.spawn(&stage.arguments(&chip, "dma-direct")).unwrap();
    stage.scene.chip.wait_for_count("FAULT Stall", 1);
    // Returns once the device was given back.
    shell(&guest, &format!("echo {address} > /sys/bus/pci/drivers/vfio-pci/unbind"));
    assert_refused(&job.wait(Duration::from_secs(60)).unwrap(), CHIP_FAULT, "CHIP_GONE");
    assert_eq!(shell(&guest, TRACE), before);
    shell(&guest, "[ ! -e /tmp/ran ]");
    assert_eq!(only_chip(&guest), chip);
    stage.assert_lands(&guest, &chip, "dma-direct");

    stage.misbehave(stall);
    let job = guest.spawn(&stage.arguments(&chip, "dma-direct")).unwrap();
    stage.scene.chip.wait_for_count("FAULT Stall", 2);
    guest.qmp("device_del", &json!({ "id": "chip0" })).unwrap();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let status = job.stream(Duration::from_secs(60), &mut |is_error, bytes| {
        if is_error { &mut stderr } else { &mut stdout }.extend_from_slice(bytes);
    });
    let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert_eq!(stdout, "", "the consumer said something");
    match guest.wait_end(Duration::from_secs(20)) {
        // QEMU 11.1 does not survive the end of such a device (an assertion). What the job said may be lost with it.
        Ok(end) => assert!(
            matches!(end, End::Qemu(_)) && (stderr.is_empty() || stderr.contains("CHIP_GONE")),
            "{end:?} {stderr}"
        ),
        Err(_still_running) => {
            assert_refused(&Said { status: status.unwrap(), stdout, stderr }, CHIP_FAULT, "CHIP_GONE");
            assert_eq!(shell(&guest, TRACE), before);
            stage.assert_refused(&guest, &chip, "dma-direct", UNFIT, "CHIP_VFIO_NO_DEVICE");
        }
    }
    stage.scene.assert_no_plaintext(&stage.artifact);
}

/// QEMU does not survive a vfio-user server: the machine ends with it, and nothing had landed.
#[test]
fn evil_device_dies_under_a_job_and_the_machine_with_it() {
    let mut stage = Stage::new(424);
    let mut guest = stage.boot();
    let chip = only_chip(&guest);
    stage.assert_lands(&guest, &chip, "dma-direct");
    // After half of the plaintext is in the guest's memory.
    stage.misbehave("[[fault]]\nkind = \"stall\"\ncommand = \"UNSEAL\"\nnth = 2\n");
    let job = guest.spawn(&stage.arguments(&chip, "dma-direct")).unwrap();
    stage.scene.chip.wait_for_count("FAULT Stall", 1);
    stage.scene.chip.end();
    let end = guest.wait_end(Duration::from_secs(60)).unwrap();
    assert!(matches!(&end, End::BackendDied(name) if name.contains("chip0")), "{end:?}");
    // Either the job had still time for its error, or it ended with the machine. It never came to the consumer.
    if let Ok(said) = job.wait(Duration::from_secs(10)) {
        assert!(said.status == CHIP_FAULT && said.stdout.is_empty(), "{said:?}");
    }
    assert!(!guest.serial().contains("sha256"), "{}", guest.serial());
    stage.scene.assert_no_plaintext(&stage.artifact);
}
