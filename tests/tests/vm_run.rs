//! `cargo xtask vm`, as it is typed: a guest under QEMU, commands inside, and what happens when a part of it dies.

#![expect(clippy::expect_used, clippy::panic, reason = "tests")]

use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use tests::programs::Programs;
use tests::vm;
use xtask::vm::End;

fn xtask() -> Command {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above");
    let mut command = Command::new(Programs::built().path("xtask"));
    // As `cargo run` sets it. Tests fetch nothing.
    command.env("CARGO_MANIFEST_DIR", workspace.join("xtask")).env("CI", "true");
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn run_with_input(arguments: &[&str], input: &[u8]) -> Output {
    let mut command = xtask();
    command.args(["vm", "run", "--no-build"]).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("start xtask");
    let mut stdin = child.stdin.take().expect("its standard input");
    stdin.write_all(input).expect("write to it");
    drop(stdin);
    child.wait_with_output().expect("wait for xtask")
}

/// Streams, status, standard input, a shared directory and a file taken along.
#[test]
fn a_command_in_the_guest_is_run_as_one_outside() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let shared = scratch.path().join("out");
    std::fs::create_dir(&shared).expect("a shared directory");
    let taken = scratch.path().join("taken");
    std::fs::write(&taken, "taken along").expect("a file");
    let line = "cat > /out/copy; cat /etc/taken; echo to standard error >&2; uname -r; exit 7";
    let arguments = [
        "--out",
        shared.to_str().expect("a path"),
        "--file",
        &format!("{}:/etc/taken", taken.display()),
        "--",
        "/bin/sh",
        "-c",
        line,
    ];
    let input: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let output = run_with_input(&arguments, &input);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(7), "{stdout}{stderr}");
    let manifest = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("this kernel");
    let release = stdout.strip_prefix("taken along").expect("the file that was taken along").trim();
    assert_ne!(release, manifest.trim(), "the command ran under this machine's kernel");
    assert!(stderr.contains("to standard error") && stderr.contains("guest up after"), "{stderr}");
    let copied = std::fs::read(shared.join("copy")).expect("what the guest wrote");
    assert!(copied == input, "{} bytes came back of {}", copied.len(), input.len());
}

#[test]
fn a_command_that_is_not_there_is_an_error_of_the_guest() {
    let output = run_with_input(&["--", "/bin/no-such-program"], b"");
    assert_eq!(output.status.code(), Some(125), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("could not be started"), "{}", text(&output.stderr));
}

#[test]
fn a_command_over_its_time_is_ended_with_a_status_of_its_own() {
    let output = run_with_input(&["--timeout", "2", "--", "/bin/sleep", "600"], b"");
    assert_eq!(output.status.code(), Some(124), "{}", text(&output.stderr));
}

#[test]
fn a_mirror_that_does_not_answer_has_a_status_of_its_own() {
    let cache = tempfile::tempdir().expect("an empty cache");
    let output = xtask()
        .args(["vm", "fetch"])
        .env("XDG_CACHE_HOME", cache.path())
        // Nobody listens there.
        .env("http_proxy", "http://127.0.0.1:9")
        .env("https_proxy", "http://127.0.0.1:9")
        .output()
        .expect("start xtask");
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(75), "{stderr}");
    assert!(stderr.contains("trixie-backports") && stderr.contains("forky"), "both were tried: {stderr}");
    assert!(!cache.path().join("innerkeep/vm/packages").exists(), "half a cache was left");
}

/// The demo of the README, with a small file: everything that it does is judged by itself.
fn demo(path: &str, tee: &str) {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let file = scratch.path().join("model");
    let bytes: Vec<u8> =
        (0..3_000_000_u32).flat_map(|word| word.wrapping_mul(0x9E37_79B1).to_le_bytes()).collect();
    std::fs::write(&file, bytes).expect("a file to seal");
    let output = xtask()
        .args(["vm", "demo", "--no-build", "--json", "--path", path, "--tee", tee, "--file"])
        .arg(&file)
        .output()
        .expect("start xtask");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("the demo's report");
    let at = |pointer: &str| report.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}: {report}"));
    assert_eq!(at("/input_sha256").as_str().map(str::len), Some(64));
    assert_eq!(at("/input_sha256"), at("/landed_sha256"));
    assert_eq!(at("/input_sha256"), at("/container_sha256"));
    assert!(at("/container_mount").as_str().is_some_and(|mount| mount.contains(" ro,nosuid,nodev,noexec")));
    assert_eq!(at("/audit/attested"), tee);
    let denied = at("/denials").to_string();
    assert!(denied.contains("/ExecProcess") && denied.contains("/ReadStdout"), "{denied}");
    assert_eq!(at("/unseal/tee"), tee);
    assert_eq!(at("/unseal/path"), path);
    assert_eq!(at("/unseal/pages"), "huge-2m");
    assert!(at("/unseal/chip_interrupts").as_u64() > Some(0));
    let insecure = at("/unseal/insecure").to_string();
    assert!(insecure.contains("emulated-tee") && insecure.contains("emulated-chip"), "{insecure}");
    assert!(!insecure.contains("no-evidence") && !insecure.contains("no-tee"), "{insecure}");
    let refusals = at("/refusals").as_array().expect("refusals");
    let codes: Vec<_> = refusals.iter().filter_map(|refusal| refusal.get("code")?.as_str()).collect();
    let audit = ["AUDIT_EDITED", "AUDIT_REORDERED", "AUDIT_MISSING"];
    let artifact = ["CHIP_SEGMENT_AUTH", "INSECURE_UNBOUND", "CHIP_EVIDENCE_REFUSED"];
    assert_eq!(codes, [audit, artifact].concat());
    let answered = |text: &str| {
        refusals.iter().any(|told| told["message"].as_str().is_some_and(|message| message.contains(text)))
    };
    for text in [
        "ExecProcessRequest is blocked by policy",
        "POLICY_NOT_LISTED",
        "prefix from",
        "SEALED_IMPOSTOR",
        "STORAGE_",
        "IMAGE_UNSIGNED",
        "REGISTRY_DIGEST",
    ] {
        assert!(answered(text), "{text} in {refusals:#?}");
    }
}

#[test]
fn the_demo_lands_in_a_tdx_guest_by_dma() {
    demo("dma-direct", "tdx");
}

#[test]
fn the_demo_lands_in_an_snp_guest_by_sealed_dma() {
    demo("dma-sealed", "snp");
}

/// A machine whose device is gone would only hang: it is ended, and it is said by whom.
#[test]
fn a_dead_back_end_ends_the_machine() {
    let mut server = Command::new("sleep").arg("600").spawn().expect("start a process to watch");
    let mut guest = {
        // Watched like one that serves a chip; the machine has none.
        let spec = vm::spec(&Programs::built(), &[]).watch("chip", server.id());
        vm::boot(spec)
    };
    let running = guest.spawn(&["/bin/sleep", "600"]).expect("a command");
    server.kill().expect("kill it");
    server.wait().expect("wait for it");
    let end = guest.wait_end(Duration::from_secs(20)).expect("the machine ends");
    assert_eq!(end, End::BackendDied("chip".to_owned()));
    let error = running.wait(Duration::from_secs(5)).expect_err("nobody is left to answer");
    assert!(format!("{error:#}").contains("the guest ended under"), "{error:#}");
}

/// A kernel that panics ends the machine too, and the console tells.
#[test]
fn a_kernel_that_panics_ends_the_machine() {
    let mut guest = vm::boot(vm::spec(&Programs::built(), &[]));
    let _ = guest.spawn(&["/bin/sh", "-c", "echo c > /proc/sysrq-trigger"]).expect("a command");
    assert_eq!(guest.wait_end(Duration::from_secs(30)).expect("the machine ends"), End::Reset);
    assert!(guest.serial().contains("Kernel panic"), "{}", guest.serial());
}
