//! Sealed artifacts in a guest whose process 1 is `innerkeep-agent`: landed by a chip behind the guest's VFIO as bound initdata says, and what
//! becomes of stored artifacts that the host swapped, damaged, rolled back or withholds.

#![expect(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use initdata::{Algorithm, Package, Packed};
use serde_json::Value;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;
use tests::payload::Payload;
use tests::scene::{Artifact, Scene, SealSpec};
use tests::tee::{Kind, Platform};
use tests::vm::{self, boot, shell};
use xtask::vm::{Guest, Init, Service, Spec};

const AGENT: &str = "innerkeep-agent";
/// Where the host puts stored artifacts: in what it shares with the guest.
const CACHE: &str = "/run/kata-containers/shared/containers/innerkeep-artifacts";
/// The agent tries again after pauses that double, up to this many times.
const ATTEMPTS: usize = 12;
const SOON: Duration = Duration::from_secs(90);

/// An artifact in `sealed.toml`.
struct Named<'a> {
    name: &'a str,
    origin: String,
}

fn sealed_toml(scene: &Scene, artifacts: &[Named<'_>]) -> String {
    let root = std::fs::read_to_string(&scene.root).unwrap();
    let mut text = format!("environment = \"development\"\nchip_root = \"\"\"{root}\"\"\"\n");
    for Named { name, origin } in artifacts {
        let hash = "01".repeat(32);
        text.push_str(&format!(
            "\n[[artifact]]\nname = \"{name}\"\nreference = \"registry.example/acme/{name}:latest\"\n{origin}\npath = \"/models/{name}\"\n\
             container = {{ verity = {{ root_hash = \"sha256:{hash}\", salt = \"\", data_blocks = 8 }}, policy_container = 0 }}\n"
        ));
    }
    text
}

fn core(artifact: &Artifact) -> String {
    format!("core = \"{}\"", artifact.core)
}

fn initdata(sealed: &str) -> Packed {
    let mut package = Package::new(Algorithm::Sha384);
    package.insert("policy.rego", "package agent_policy\n").unwrap();
    package.insert("sealed.toml", sealed).unwrap();
    let modes = "insecure = [\"emulated-chip\", \"emulated-dma\", \"no-evidence\"]\n";
    package.insert("innerkeep.toml", modes).unwrap();
    package.pack().unwrap()
}

/// A confidential guest that was launched with this initdata, with a chip.
fn confidential(scene: &Scene, packed: &Packed) -> Spec {
    let _keys = Platform::with_keys_of_vectors(&scene.programs, &scene.work, "tee", Kind::Tdx);
    let digest = Kind::Tdx.initdata_digest(packed.text().as_bytes());
    let argv = ["/bin/innerkeep-tee-emulator", "guest", "--state", "/tee", "--launch", "/launch.toml"];
    let argv = argv.iter().chain(&["--ready-file", "/ready"]).map(|word| (*word).to_owned());
    let service = Service { argv: argv.collect(), ready: "/ready".to_owned() };
    vm::spec(&scene.programs, &[AGENT, "innerkeep-tee-emulator"])
        .init(Init::Agent)
        .vsock()
        .memory_mib(1536)
        .modules(&["configfs", "tsm_report", "cuse"])
        .copy_directory(&scene.work.join("tee"), "/tee")
        .unwrap()
        .file("/launch.toml", 0o644, format!("tee = \"tdx\"\ninitdata_digest = \"{digest}\"\n"))
        .plan(|plan| plan.services.push(service))
        .disk(&scene.work.write("initdata.img", packed.image()))
        .chip(&scene.chip.socket, Some(scene.chip.id()))
}

/// Lines of the agent about one artifact.
fn lines(guest: &Guest, name: &str) -> Vec<Value> {
    let serial = guest.serial();
    let lines = serial.lines().filter_map(|line| serde_json::from_str::<Value>(line.trim()).ok());
    lines.filter(|line| line["subsystem"] == "sealed" && line["artifact"] == name).collect()
}

/// The first line with this text about an artifact.
#[track_caller]
fn wait(guest: &Guest, name: &str, text: &str) -> Value {
    let begun = std::time::Instant::now();
    loop {
        if let Some(line) = lines(guest, name).into_iter().find(|line| line["msg"] == text) {
            return line;
        }
        assert!(begun.elapsed() < SOON, "no {text:?} about {name} in:\n{}", guest.serial());
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Puts an artifact where the guest looks for it, as the host would.
fn offer(guest: &Guest, from: &str, name: &str) {
    shell(
        guest,
        &format!(
            "mkdir -p {CACHE}/registry.example/acme && cp -r {from} {CACHE}/registry.example/acme/{name}"
        ),
    );
}

fn flip_a_bit(store: &Path, size: u64) {
    let blobs = std::fs::read_dir(store.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path());
    let payload = blobs.into_iter().find(|path| path.metadata().unwrap().len() == size).unwrap();
    let file = std::fs::File::options().read(true).write(true).open(payload).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, size / 2).unwrap();
    file.write_all_at(&[byte[0] ^ 1], size / 2).unwrap();
}

fn sealed(scene: &Scene, name: &str, seed: u64, spec: &SealSpec) -> Artifact {
    scene.sealed(name, &Payload::random(seed, 300_000), spec)
}

#[test]
fn evil_host_artifacts_swapped_stale_damaged_withheld() {
    let scene = Scene::start();
    let spec = SealSpec::default();
    let good = sealed(&scene, "good", 501, &spec);
    let other = sealed(&scene, "other", 502, &spec);
    let damaged = sealed(&scene, "damaged", 503, &spec);
    let input = scene.input("foreign.bin", &Payload::random(504, 300_000));
    let foreign =
        scene.seal("foreign", &[&input], &SealSpec { environment: "staging".into(), ..spec.clone() });
    flip_a_bit(&damaged.reference, 300_000);
    let key = sealer_digest(&scene);
    let sealer = |counter: u64| {
        format!("sealer = {{ key = \"{key}\", family = \"acme/ranker\", min_counter = {counter} }}")
    };
    let named = [
        Named { name: "good", origin: core(&good) },
        Named { name: "signed", origin: sealer(7) },
        Named { name: "stale", origin: sealer(8) },
        Named { name: "swapped", origin: core(&good) },
        Named { name: "damaged", origin: core(&damaged) },
        Named { name: "foreign", origin: core(&foreign) },
        Named { name: "withheld", origin: core(&good) },
    ];
    let packed = initdata(&sealed_toml(&scene, &named));
    let mut machine = confidential(&scene, &packed);
    for (artifact, to) in [(&good, "good"), (&other, "other"), (&damaged, "damaged"), (&foreign, "foreign")] {
        machine = machine.copy_directory(&artifact.reference, &format!("/stores/{to}")).unwrap();
    }
    let guest = boot(machine);
    guest.wait_serial("\"msg\":\"serving\"", Duration::from_secs(60)).unwrap();
    // The port is served whatever becomes of artifacts. Nothing is offered yet.
    let waiting = wait(&guest, "good", "artifact not landed, to be tried again");
    assert_eq!(waiting["code"], "SEALED_NO_CACHE", "{waiting}");

    for (from, name) in [
        ("good", "good"),
        ("other", "signed"),
        ("other", "stale"),
        ("other", "swapped"),
        ("damaged", "damaged"),
        ("foreign", "foreign"),
    ] {
        offer(&guest, &format!("/stores/{from}"), name);
    }
    for name in ["good", "signed"] {
        let landed = wait(&guest, name, "artifact landed");
        assert!(landed["insecure"].as_str().unwrap().contains("no-evidence"), "said aloud: {landed}");
    }
    let refused = [
        ("stale", "ROLLBACK"),
        ("swapped", "ORIGIN_UNPROVEN"),
        ("damaged", "CHIP_SEGMENT_AUTH"),
        ("foreign", "SEALED_ENVIRONMENT"),
        ("withheld", "SEALED_NOT_IN_CACHE"),
    ];
    for (name, code) in refused {
        let begun = std::time::Instant::now();
        while !lines(&guest, name).iter().any(|line| line["code"] == code) {
            assert!(begun.elapsed() < SOON, "{name}: expected {code} in {:#?}", lines(&guest, name));
            std::thread::sleep(Duration::from_millis(200));
        }
        assert!(lines(&guest, name).iter().all(|line| line["msg"] != "artifact landed"), "{name}");
        assert!(lines(&guest, name).len() <= 2 * ATTEMPTS, "{name} is tried for ever");
    }
    // No mount of a landing is in the table of anybody but the agent, whose own places only root reads.
    let seen = shell(&guest, "grep -l innerkeep /proc/[0-9]*/mountinfo | grep -v '^/proc/1/' || true");
    for process in seen.split_whitespace() {
        let own =
            shell(&guest, &format!("readlink {} /proc/1/ns/mnt", process.replace("mountinfo", "ns/mnt")));
        let spaces: Vec<&str> = own.split_whitespace().collect();
        assert_eq!(spaces.first(), spaces.last(), "a mount namespace that is not the agent's: {process}");
    }
    guest.power_off().unwrap();
    scene.assert_no_plaintext(&good);
}

fn sealer_digest(scene: &Scene) -> String {
    let mut public = scene.sealer.clone().into_os_string();
    public.push(".pub");
    let shown = scene.innerkeep.run(&tests::args!["key", "show", &public]);
    shown["digest"].as_str().unwrap_or_else(|| panic!("no digest in {shown}")).to_owned()
}
