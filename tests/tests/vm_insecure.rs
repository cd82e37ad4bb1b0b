//! Insecure modes inside a TEE: whoever types the command may be the host, so that only bound initdata permits them.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value;
use tests::UNFIT;
use tests::payload::Payload;
use tests::scene::{Scene, SealSpec};
use tests::tee::Kind;
use tests::vm::{self, boot, exec, shell};
use xtask::vm::{Guest, Said};

/// Initdata that permits sessions without evidence, and nothing else.
const INITDATA: &str = "algorithm = \"sha384\"\nversion = \"0.1.0\"\n\n[data]\n\"innerkeep.toml\" = '''\ninsecure = [\"no-evidence\"]\n'''\n";
/// Mounts and files, without the lock that every program of the platform makes.
const TRACE: &str =
    "cat /proc/self/mountinfo; find / -xdev -type f ! -path /run/attestation-agent/lock | sort";

fn unseal(guest: &Guest, core: &str, more: &[&str]) -> Said {
    let mut words = vec!["innerkeep", "--json", "unseal", "/store", "--core", core];
    words.extend(["--chip", "/no-chip.sock", "--chip-root", "/etc/root.pem"]);
    words.extend(more);
    exec(guest, &words)
}

#[track_caller]
fn code(said: &Said) -> String {
    let line = said.stderr.lines().rev().find(|line| line.starts_with('{'));
    let report: Value = serde_json::from_str(line.unwrap_or_else(|| panic!("no report: {said:?}"))).unwrap();
    report.pointer("/error/code").and_then(Value::as_str).unwrap_or_else(|| panic!("{report}")).to_owned()
}

#[test]
fn evil_host_flag_weakens_a_tee() {
    let scene = Scene::start();
    let payload = Payload::random(11, 70_000);
    let artifact = scene.sealed("store", &payload, &SealSpec::default());
    let digest = Kind::Tdx.initdata_digest(INITDATA.as_bytes());
    let spec = vm::spec(&scene.programs, &["innerkeep", "innerkeep-tee-emulator"]);
    let spec = vm::with_tee(spec, &scene.programs, &scene.work, Kind::Tdx, &digest)
        .copy_directory(&artifact.reference, "/store")
        .unwrap()
        .copy(&scene.root, "/etc/root.pem", 0o644)
        .file("/etc/initdata.toml", 0o644, INITDATA)
        .file("/etc/other.toml", 0o644, INITDATA.replace("[\"", "[\"swap\", \""));
    let guest = boot(spec);
    let before = shell(&guest, TRACE);
    let core = artifact.core.as_str();
    let consume = ["--", "/bin/true"];
    let disk = ["--insecure-no-tee", "--insecure-to-disk", "/tmp/plaintext"];
    let initdata = ["--initdata", "/etc/initdata.toml"];
    let refusals: [&[&[&str]]; 5] = [
        // Nothing vouches for anything.
        &[&["--insecure-no-evidence"], &consume],
        // Bound initdata lists another mode.
        &[&initdata, &["--collateral", "/etc/root.pem", "--insecure-swap"], &consume],
        &[
            &initdata,
            &["--insecure-no-evidence", "--insecure-emulated-dma", "--path", "dma-direct"],
            &consume,
        ],
        // No document can ask for plaintext on a disk.
        &[&initdata, &["--insecure-no-evidence"], &disk],
        &[&["--insecure-no-evidence"], &disk],
    ];
    for more in refusals {
        let more = more.concat();
        let said = unseal(&guest, core, &more);
        assert_eq!((said.status, code(&said).as_str()), (UNFIT, "INSECURE_UNBOUND"), "{more:?}: {said:?}");
        assert_eq!(said.stdout, "");
    }
    // Initdata of somebody's choice is not bound.
    let said =
        unseal(&guest, core, &[&["--initdata", "/etc/other.toml", "--insecure-swap"][..], &consume].concat());
    assert_ne!(said.status, 0, "{said:?}");
    assert!(code(&said).contains("INITDATA"), "{said:?}");
    assert_eq!(shell(&guest, TRACE), before, "nothing was left");
    // What bound initdata lists is permitted: the next thing that is missing is the chip.
    let said = unseal(&guest, core, &[&initdata[..], &["--insecure-no-evidence"], &consume].concat());
    assert_eq!(code(&said), "CHIP_CONNECT", "{said:?}");
    guest.power_off().unwrap();
}
