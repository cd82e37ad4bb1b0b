//! The main job: sealed files land in front of a consumer, on every data path, from every carrier, with and without root.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]

use rustix::process::{Pid, Signal, kill_process};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tests::args;
use tests::innerkeep::finish;
use tests::layout::Layout;
use tests::payload::Payload;
use tests::scan::Needles;
use tests::scene::{Carrier, ENVIRONMENT, FAMILY, Pin, Scene, SealSpec, UnsealSpec};
use tests::trace::{Trace, mounts};

const CARRIERS: [Carrier; 2] = [Carrier::Layout, Carrier::File];
const PATHS: [&str; 3] = ["key-release", "dma-sealed", "dma-direct"];

fn spec(carrier: Carrier) -> SealSpec {
    SealSpec { carrier, ..SealSpec::default() }
}

fn lands_on_every_carrier(path: &'static str) {
    let scene = Scene::start();
    // Not a multiple of the segment size.
    let payload = Payload::random(1, 3_000_001);
    for (name, carrier) in ["layout", "file"].into_iter().zip(CARRIERS) {
        let artifact = scene.sealed(name, &payload, &spec(carrier));
        let seen = scene.assert_lands(&artifact, &UnsealSpec::by(path), &payload);
        let landed = format!("/{name}.bin");
        assert!(seen["path"].as_str().unwrap().ends_with(&landed), "{seen}");
        assert_eq!(seen["path"], seen["file_variable"]);
        assert_eq!(
            format!("{}{landed}", seen["directory_variable"].as_str().unwrap()),
            seen["path"].as_str().unwrap()
        );
    }
}

#[test]
fn unseal_by_key_release() {
    lands_on_every_carrier("key-release");
}

#[test]
fn unseal_by_dma_sealed() {
    lands_on_every_carrier("dma-sealed");
}

#[test]
fn unseal_by_dma_direct() {
    lands_on_every_carrier("dma-direct");
}

#[test]
fn unseal_as_nobody_where_root_runs_the_tests() {
    let scene = Scene::start_as_nobody();
    let payload = Payload::random(2, 1_000_000);
    let artifact = scene.sealed("model", &payload, &SealSpec::default());
    for path in PATHS {
        scene.assert_lands(&artifact, &UnsealSpec::by(path), &payload);
    }
}

#[test]
fn unseal_many_payloads() {
    let scene = Scene::start();
    let payloads =
        [0, 1, 65_536, 65_537, 1_000_000].map(|length| Payload::random(10 + length as u64, length));
    let inputs: Vec<_> =
        payloads.iter().map(|one| scene.input(&format!("part-{}", one.bytes().len()), one)).collect();
    let inputs: Vec<_> = inputs.iter().map(|path| path.as_path()).collect();
    for (name, carrier) in ["layout", "file"].into_iter().zip(CARRIERS) {
        let artifact = scene.seal(name, &inputs, &spec(carrier));
        scene.grant_usual(&artifact);
        for path in PATHS {
            let unsealed = scene.unseal(&artifact, &UnsealSpec::by(path));
            let seen = unsealed.seen();
            let files = seen["files"].as_object().unwrap();
            assert_eq!(files.len(), payloads.len(), "{seen}");
            for payload in &payloads {
                let file = &files[&format!("part-{}", payload.bytes().len())];
                assert_eq!(file["sha256"], payload.sha256(), "{path}");
            }
            let report = unsealed.said.report();
            let names: Vec<_> =
                report["files"].as_array().unwrap().iter().map(|file| &file["name"]).collect();
            assert_eq!(names, ["part-0", "part-1", "part-65536", "part-65537", "part-1000000"]);
        }
        scene.assert_no_plaintext(&artifact);
    }
}

#[test]
fn unseal_an_empty_payload() {
    let scene = Scene::start();
    let payload = Payload::random(3, 0);
    for (name, carrier) in ["layout", "file"].into_iter().zip(CARRIERS) {
        let artifact = scene.sealed(name, &payload, &spec(carrier));
        for path in PATHS {
            scene.assert_lands(&artifact, &UnsealSpec::by(path), &payload);
        }
    }
}

#[test]
fn unseal_without_payload_digest() {
    let scene = Scene::start();
    let payload = Payload::random(4, 500_000);
    let with = scene.sealed("with", &payload, &SealSpec::default());
    let without = scene.sealed(
        "without",
        &payload,
        &SealSpec { more: args!["--no-payload-digest"], ..SealSpec::default() },
    );
    let digest = |artifact: &tests::scene::Artifact| {
        Layout::at(&artifact.reference).core()["payloads"][0]["blake3"].clone()
    };
    assert!(digest(&with).is_string() && digest(&without).is_null());
    for path in PATHS {
        scene.assert_lands(&without, &UnsealSpec::by(path), &payload);
    }
}

#[test]
fn unseal_with_small_and_large_segments_and_any_number_of_threads() {
    let scene = Scene::start();
    let payload = Payload::random(5, 9_000_000);
    for (size, threads) in
        [("65536", "1"), ("65536", "5"), ("1048576", "2"), ("4194304", "1"), ("4194304", "5")]
    {
        let more = args!["--segment-size", size, "--threads", threads];
        let artifact =
            scene.sealed(&format!("s{size}t{threads}"), &payload, &SealSpec { more, ..SealSpec::default() });
        let more = args!["--threads", threads];
        scene.assert_lands(&artifact, &UnsealSpec { more, ..UnsealSpec::default() }, &payload);
    }
}

#[test]
fn unseal_under_grants_of_both_suites() {
    let scene = Scene::start();
    let payload = Payload::random(6, 100_000);
    let input = scene.input("model.bin", &payload);
    let policy = scene.policy("policy.toml", ENVIRONMENT, "any", 5);
    for (suite, form) in [("classical", "HPKE P-384 "), ("hybrid", "HPKE X-Wing ")] {
        let artifact = scene.seal(suite, &[&input], &SealSpec::default());
        let more = args!["--allow-weak-policy", "--suite", suite];
        scene.innerkeep.run(&scene.grant_arguments(&artifact, &policy, &more));
        let grants = Layout::at(&artifact.reference).grants();
        assert!(grants[0]["suite"].as_str().unwrap().starts_with(form), "{grants:?}");
        scene.assert_lands(&artifact, &UnsealSpec::default(), &payload);
    }
}

#[test]
fn unseal_by_pinned_core_needs_no_signature() {
    let scene = Scene::start();
    let payload = Payload::random(7, 100_000);
    let artifact = scene.sealed("model", &payload, &SealSpec { signed: false, ..SealSpec::default() });
    let spec = UnsealSpec { pin: Pin::Core(artifact.core.clone()), ..UnsealSpec::default() };
    scene.assert_lands(&artifact, &spec, &payload);
}

#[test]
fn unseal_tagged_artifacts_of_one_layout() {
    let scene = Scene::start();
    for (tag, seed) in [("v1", 20), ("v2", 21)] {
        let payload = Payload::random(seed, 200_000);
        let input = scene.input(&format!("{tag}.bin"), &payload);
        let artifact = scene.seal(&format!("store:{tag}"), &[&input], &SealSpec::default());
        scene.grant_usual(&artifact);
    }
    for (tag, seed) in [("v1", 20), ("v2", 21)] {
        let payload = Payload::random(seed, 200_000);
        let mut arguments = args!["inspect", scene.work.join(format!("store:{tag}"))];
        let core = scene.innerkeep.run(&arguments);
        assert!(core.to_string().contains(&format!("{tag}.bin")), "{core}");
        arguments.clear();
        let artifact = tests::scene::Artifact::unsearched(&scene.work.join(format!("store:{tag}")));
        scene.assert_lands(&artifact, &UnsealSpec::default(), &payload);
    }
}

#[test]
fn unseal_a_safetensors_file_that_still_opens() {
    let scene = Scene::start();
    let payload = Payload::safetensors(8);
    let artifact = scene.sealed("model", &payload, &SealSpec::default());
    scene.assert_lands(&artifact, &UnsealSpec::default(), &payload);
    let plain = scene.work.join("input/plain.safetensors");
    let mut arguments = scene.unseal_options(&artifact, &UnsealSpec::default());
    arguments.extend(args!["--insecure-to-disk", &plain]);
    let said = scene.innerkeep.attempt(&arguments);
    assert_eq!(said.status, Some(0), "{said:?}");
    let bytes = std::fs::read(plain).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.tensor("encoder.weight").unwrap().shape(), [257, 384]);
    assert_eq!(bytes, payload.bytes());
}

#[test]
fn unseal_a_file_that_is_no_safetensors() {
    let scene = Scene::start();
    let payload =
        Payload::of(b"any bytes whatever, of no known form, a little longer than a window\n".to_vec());
    let artifact = scene.sealed("notes", &payload, &SealSpec::default());
    scene.assert_lands(&artifact, &UnsealSpec::default(), &payload);
}

#[test]
fn unseal_to_disk_only_when_asked_for_by_name() {
    let scene = Scene::start();
    let payload = Payload::random(9, 700_000);
    let artifact = scene.sealed("model", &payload, &SealSpec::default());
    let plain = scene.work.join("input/plain");
    let to_disk = |spec: &UnsealSpec| {
        let mut arguments = scene.unseal_options(&artifact, spec);
        arguments.extend(args!["--insecure-to-disk", &plain]);
        scene.innerkeep.attempt(&arguments)
    };
    let said = to_disk(&UnsealSpec::default());
    assert_eq!(said.status, Some(0), "{said:?}");
    assert!(said.report()["insecure"].to_string().contains("to-disk"), "{said:?}");
    assert_eq!(std::fs::read(&plain).unwrap(), payload.bytes());
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&plain).unwrap().permissions());
    assert_eq!(mode & 0o077, 0, "others may read it");
    // Never over something that is there.
    let before = std::fs::metadata(&plain).unwrap().modified().unwrap();
    to_disk(&UnsealSpec::default()).assert_refused(tests::IO, "FILE");
    assert_eq!(std::fs::metadata(&plain).unwrap().modified().unwrap(), before);
    std::fs::remove_file(&plain).unwrap();
    // Only by the path and with the flag that are honest about it.
    to_disk(&UnsealSpec::by("dma-sealed")).assert_refused(tests::USAGE, "USAGE");
    to_disk(&UnsealSpec::default().without("--insecure-no-tee")).assert_refused(tests::USAGE, "USAGE");
    assert!(!plain.exists());
    // And a file that turns out wrong at its last byte does not stay.
    let blob = Layout::at(&artifact.reference).payload(0);
    tests::layout::flip(&blob, payload.bytes().len() - 1);
    to_disk(&UnsealSpec::default()).assert_refused(tests::DAMAGED, "SEGMENT_AUTH_FAILED");
    assert!(!plain.exists(), "something partial stayed");
    // Neither a command nor a file: a usage error.
    let said = scene.innerkeep.attempt(&scene.unseal_options(&artifact, &UnsealSpec::default()));
    assert_eq!(said.status, Some(tests::USAGE), "{said:?}");
}

#[test]
fn unseal_reports_what_it_did_and_what_was_insecure() {
    let scene = Scene::start();
    let payload = Payload::random(11, 5_000_000);
    let artifact = scene.sealed("model", &payload, &SealSpec::default());
    for path in PATHS {
        let unsealed = scene.unseal(&artifact, &UnsealSpec::by(path));
        unsealed.seen();
        let report = unsealed.said.report();
        assert_eq!(report["bytes"], payload.bytes().len());
        assert_eq!(report["path"], path);
        assert_eq!(report["core"], artifact.core);
        assert_eq!(report["files"][0]["name"], "model.bin");
        assert_eq!(report["files"][0]["size"], payload.bytes().len());
        assert!(report["seconds"].is_number() && report["gb_per_s"].is_number(), "{report}");
        assert!(["huge-2m", "base-4k"].contains(&report["pages"].as_str().unwrap()), "{report}");
        let insecure = report["insecure"].to_string();
        for mode in ["no-tee", "no-evidence", "emulated-dma"] {
            assert!(insecure.contains(mode), "expected {mode} in {insecure}");
        }
    }
}

#[test]
fn unseal_passes_on_the_status_of_its_command() {
    let scene = Scene::start();
    let artifact = scene.sealed("model", &Payload::random(12, 100_000), &SealSpec::default());
    let unsealed = scene.unseal(&artifact, &UnsealSpec { task: "fail", ..UnsealSpec::default() });
    assert!(unsealed.consumer_ran());
    assert_eq!(unsealed.said.status, Some(42), "{unsealed:?}");
}

#[test]
fn unseal_puts_the_path_where_the_command_wants_it() {
    let scene = Scene::start();
    let artifact = scene.sealed("model", &Payload::random(13, 100_000), &SealSpec::default());
    let run = |command: Vec<std::ffi::OsString>| {
        let mut arguments = scene.unseal_options(&artifact, &UnsealSpec::default());
        arguments.extend(command);
        let said = scene.innerkeep.attempt(&arguments);
        assert_eq!(said.status, Some(0), "{said:?}");
        said.stdout.trim().to_owned()
    };
    let inside = run(args!["--", "echo", "--model={}", "x"]);
    assert!(inside.starts_with("--model=/") && inside.ends_with("/model.bin x"), "{inside}");
    let appended = run(args!["--", "echo", "first"]);
    assert!(appended.starts_with("first /") && appended.ends_with("/model.bin"), "{appended}");
}

#[test]
fn unseal_lets_the_consumer_read_and_nothing_else() {
    let scene = Scene::start();
    let payload = Payload::random(14, 300_000);
    let artifact = scene.sealed("model", &payload, &SealSpec::default());
    for path in PATHS {
        let seen = scene.unseal(&artifact, &UnsealSpec { task: "attack", ..UnsealSpec::by(path) }).seen();
        let attempts = seen["attempts"].as_object().unwrap();
        assert!(attempts.len() >= 20, "{seen}");
        for (attempt, outcome) in attempts {
            assert!(outcome.is_string(), "{attempt} succeeded on {path}");
        }
        assert_eq!(seen["sha256"], payload.sha256(), "{path}");
    }
}

#[test]
fn unseal_runs_the_consumer_without_rights() {
    let scene = Scene::start();
    let payload = Payload::random(15, 300_000);
    let artifact = scene.sealed("model", &payload, &SealSpec::default());
    let seen = scene.assert_lands(&artifact, &UnsealSpec::default(), &payload);
    let status = seen["status"].as_str().unwrap();
    for line in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert!(status.contains(&format!("{line}\t0000000000000000")), "{status}");
    }
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    let limits = seen["limits"].as_str().unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    let descriptors: Vec<_> = seen["descriptors"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(descriptors, ["0", "1", "2"], "{}", seen["descriptors"]);
    // The landing is one mount, read-only twice over, of a tmpfs that is in no other place.
    let directory = seen["directory_variable"].as_str().unwrap();
    let entries: Vec<_> =
        seen["mountinfo"].as_str().unwrap().lines().filter(|line| line.contains(directory)).collect();
    assert_eq!(entries.len(), 1, "{entries:?}");
    let (mount, superblock) = entries[0].split_once(" - ").unwrap();
    let options: Vec<_> = mount.split(' ').nth(5).unwrap().split(',').collect();
    for option in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(options.contains(&option), "{entries:?}");
    }
    assert!(
        superblock.starts_with("tmpfs ") && superblock.split([' ', ',']).any(|option| option == "ro"),
        "{superblock}"
    );
}

#[test]
fn unseal_leaves_nothing_behind() {
    let scene = Scene::start();
    let payload = Payload::random(16, 4_000_000);
    let artifact = scene.sealed("model", &payload, &SealSpec::default());
    let mut apart = scene.apart();
    apart.push(scene.work.join("tmp"));
    let before = Trace::of(scene.work.path(), &apart);
    for path in PATHS {
        let seen = scene.assert_lands(&artifact, &UnsealSpec::by(path), &payload);
        before.assert_unchanged(scene.work.path(), &apart);
        assert!(
            !std::fs::exists(seen["path"].as_str().unwrap()).unwrap(),
            "the landed file is visible: {seen}"
        );
    }
    let left = std::fs::read_dir(scene.work.join("tmp"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect::<Vec<_>>();
    assert_eq!(left.len(), PATHS.len(), "only the consumer's markers: {left:?}");
}

#[test]
fn unseal_shows_the_file_to_nobody_else_while_the_consumer_runs() {
    let scene = Scene::start();
    let payload = Payload::random(17, 500_000);
    let artifact = scene.sealed("model", &payload, &SealSpec::default());
    let before = mounts();
    let (arguments, marker) =
        scene.unseal_arguments(&artifact, &UnsealSpec { task: "linger", ..UnsealSpec::default() });
    for signal in [Signal::TERM, Signal::KILL] {
        let mut child = scene.innerkeep.command();
        let child = child.args(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let id = child.id();
        wait_until("the consumer runs", || marker.exists());
        wait_until("the consumer is a child", || !children(id).is_empty());
        let consumers = children(id);
        assert_eq!(mounts(), before, "the landing is in our mount table");
        kill_process(Pid::from_raw(id.try_into().unwrap()).unwrap(), signal).unwrap();
        let said = finish(child);
        assert_ne!(said.status, Some(0), "{said:?}");
        for consumer in consumers {
            wait_until("the consumer ends", || !std::fs::exists(format!("/proc/{consumer}/stat")).unwrap());
        }
        assert_eq!(mounts(), before);
        std::fs::remove_file(&marker).unwrap();
        scene.assert_no_plaintext(&artifact);
    }
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(30), "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Processes below a process, whatever their depth.
fn children(parent: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let after = stat.rsplit_once(") ").map(|(_, after)| after).unwrap_or_default();
        if after.split(' ').nth(1).is_some_and(|id| id == parent.to_string()) {
            found.push(id);
            found.extend(children(id));
        }
    }
    found
}

#[test]
fn unseal_finds_bytes_through_the_consumer_only() {
    // The control of all searches for plaintext: what is on disk is found.
    let scene = Scene::start();
    let payload = Payload::random(18, 200_000);
    let window: [u8; 32] = payload.bytes()[70_000..70_032].try_into().unwrap();
    let needles = Needles::new([window]);
    assert_eq!(needles.below(&scene.work.join("tmp")).0, []);
    scene.work.write("tmp/leak", &payload.bytes()[69_000..71_000]);
    assert_eq!(needles.below(&scene.work.join("tmp")).0.len(), 1);
    std::fs::remove_file(scene.work.join("tmp/leak")).unwrap();
}

#[test]
fn unseal_verifies_blob_digests_when_asked_to() {
    let scene = Scene::start();
    let payload = Payload::random(19, 400_000);
    let artifact = scene.sealed("model", &payload, &SealSpec::default());
    let more = args!["--verify-blob-digests"];
    scene.assert_lands(&artifact, &UnsealSpec { more, ..UnsealSpec::default() }, &payload);
}

#[test]
fn unseal_accepts_the_sealer_whatever_the_counter_above_the_minimum() {
    let scene = Scene::start();
    for counter in [5, 6, u64::MAX] {
        let payload = Payload::random(counter, 70_000);
        let artifact =
            scene.sealed(&format!("c{counter}"), &payload, &SealSpec { counter, ..SealSpec::default() });
        scene.assert_lands(&artifact, &UnsealSpec::default(), &payload);
    }
    assert_eq!(FAMILY, "acme/ranker");
}
