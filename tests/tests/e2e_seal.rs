//! Sealing: fresh keys at every attempt, interrupted or not; nothing overwritten; what is not fit to be sealed.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tests::args;
use tests::layout::Layout;
use tests::payload::{Payload, Random};
use tests::scene::{Carrier, Pin, Scene, SealSpec, UnsealSpec};
use tests::sealed::SealedFile;
use tests::trace::Trace;
use tests::{DAMAGED, IO};

/// How many blocks of 16 bytes two ciphertexts have in common at the same place. By chance: none.
fn common_blocks(left: &[u8], right: &[u8]) -> usize {
    left.chunks_exact(16)
        .zip(right.chunks_exact(16))
        .filter(|(left, right)| left == right && **left != [0; 16])
        .count()
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    if let Ok(entries) = std::fs::read_dir(directory) {
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
        }
    }
    files
}

/// The ciphertext of the first payload.
fn ciphertext(reference: &Path, carrier: Carrier) -> Vec<u8> {
    match carrier {
        Carrier::Layout => std::fs::read(Layout::at(reference).payload(0)).unwrap(),
        Carrier::File => {
            let file = SealedFile::read(reference);
            file.bytes[file.region("payloads/0")].to_vec()
        }
    }
}

#[test]
fn sealing_twice_repeats_no_key_and_no_nonce() {
    let scene = Scene::start();
    let payload = Payload::random(300, 1_000_000);
    let input = scene.input("model.bin", &payload);
    let mut seen = BTreeSet::new();
    let mut ciphertexts: Vec<Vec<u8>> = Vec::new();
    for round in 0..3 {
        for (carrier, kind) in [(Carrier::Layout, "l"), (Carrier::File, "f")] {
            let spec = SealSpec { carrier, ..SealSpec::default() };
            let artifact = scene.seal(&format!("{kind}{round}"), &[&input], &spec);
            let said = scene.innerkeep.run(&args!["inspect", &artifact.reference]);
            assert!(seen.insert(artifact.core.clone()), "a core twice");
            assert!(seen.insert(said["id"].as_str().unwrap().to_owned()), "an id twice");
            assert!(seen.insert(hex::encode(std::fs::read(&artifact.key).unwrap())), "a key twice");
            let bytes = ciphertext(&artifact.reference, carrier);
            for other in &ciphertexts {
                assert_eq!(common_blocks(&bytes, other), 0);
            }
            assert_eq!(common_blocks(&bytes, payload.bytes()), 0);
            ciphertexts.push(bytes);
        }
    }
}

#[test]
fn killed_seal_changed_input_and_sealed_again_repeats_no_key_and_no_nonce() {
    let scene = Scene::start();
    // Larger, so that a kill finds it at work; the first half stays the same in both versions of the input.
    let first = Payload::random(301, 12 << 20);
    let mut changed = first.bytes().to_vec();
    let half = changed.len() / 2;
    changed.truncate(half);
    changed.extend_from_slice(Payload::random(302, half).bytes());
    let changed = Payload::of(changed);
    let mut random = Random::new(303);
    for (carrier, kind) in [(Carrier::Layout, "l"), (Carrier::File, "f")] {
        let (mut interrupted, mut partial) = (0, 0);
        for round in 0..8 {
            let name = format!("{kind}{round}");
            let input = scene.input("model.bin", &first);
            let spec = SealSpec { carrier, more: args!["--threads", "1"], ..SealSpec::default() };
            let (arguments, reference, key) = scene.seal_arguments(&name, &[&input], &spec);
            let mut child = scene.innerkeep.command();
            let mut child =
                child.args(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            // Killed when the store has so many bytes, or when it is through.
            let enough = random.below(first.bytes().len());
            let start = Instant::now();
            loop {
                let stored: u64 = files_below(scene.work.path())
                    .iter()
                    .filter(|path| path.starts_with(&reference) || path.parent() == reference.parent())
                    .filter_map(|path| std::fs::metadata(path).ok())
                    .map(|metadata| std::os::unix::fs::MetadataExt::blocks(&metadata) * 512)
                    .sum();
                if stored > enough as u64
                    || child.try_wait().unwrap().is_some()
                    || start.elapsed() > Duration::from_secs(60)
                {
                    break;
                }
            }
            let _ = child.kill();
            let killed = !child.wait().unwrap().success();
            interrupted += usize::from(killed);
            // Everything that the first attempt left, whatever it is called.
            let apart = scene.apart();
            let remains: Vec<Vec<u8>> = files_below(scene.work.path())
                .iter()
                .filter(|path| !apart.iter().any(|other| path.starts_with(other)))
                .map(|path| std::fs::read(path).unwrap())
                .filter(|bytes| bytes.len() >= 65_536)
                .collect();
            partial += usize::from(killed && !remains.is_empty());
            if key.exists() {
                std::fs::remove_file(&key).unwrap();
            }
            // Changed, and sealed again to the same place.
            scene.input("model.bin", &changed);
            if carrier == Carrier::File && reference.exists() {
                std::fs::remove_file(&reference).unwrap();
            }
            if carrier == Carrier::Layout && !killed {
                std::fs::remove_dir_all(&reference).unwrap();
            }
            let artifact = scene.seal(&name, &[&input], &spec);
            let bytes = ciphertext(&artifact.reference, carrier);
            for remain in &remains {
                assert_eq!(
                    common_blocks(&bytes, remain),
                    0,
                    "ciphertext of equal plaintext is equal: key and nonce came again"
                );
                // In a file, the ciphertext begins at some page of it.
                for page in (0..remain.len().min(65_536)).step_by(4096) {
                    assert_eq!(common_blocks(&bytes[..65_536], &remain[page..]), 0);
                }
            }
            scene.grant_usual(&artifact);
            scene.assert_lands(&artifact, &UnsealSpec::default(), &changed);
            for path in [&artifact.reference, &artifact.key] {
                if path.is_dir() {
                    std::fs::remove_dir_all(path).unwrap()
                } else {
                    std::fs::remove_file(path).unwrap()
                }
            }
        }
        assert!(
            interrupted >= 3 && partial >= 2,
            "of 8 seals {interrupted} were interrupted, {partial} left ciphertext"
        );
    }
}

#[test]
fn the_content_key_is_written_once_and_for_its_owner_alone() {
    let scene = Scene::start();
    let input = scene.input("model.bin", &Payload::random(304, 100_000));
    let artifact = scene.seal("store", &[&input], &SealSpec::default());
    assert_eq!(std::fs::metadata(&artifact.key).unwrap().permissions().mode() & 0o777, 0o600);
    let (_, _, key) = scene.seal_arguments("store", &[&input], &SealSpec::default());
    let (mut arguments, ..) = scene.seal_arguments("other", &[&input], &SealSpec::default());
    let at = arguments.iter().position(|argument| argument == "--key-out").unwrap();
    arguments[at + 1] = key.into();
    let before = Trace::of(scene.work.path(), &scene.apart());
    scene.innerkeep.attempt(&arguments).assert_refused(IO, "FILE");
    before.assert_unchanged(scene.work.path(), &scene.apart());
    // A sealer's key is as safe.
    assert_eq!(std::fs::metadata(&scene.sealer).unwrap().permissions().mode() & 0o777, 0o600);
    scene.innerkeep.attempt(&args!["key", "new", "--output", &scene.sealer]).assert_refused(IO, "FILE");
    before.assert_unchanged(scene.work.path(), &scene.apart());
}

#[test]
fn what_cannot_be_sealed_leaves_nothing() {
    let scene = Scene::start();
    let input = scene.input("model.bin", &Payload::random(305, 100_000));
    let before = Trace::of(scene.work.path(), &scene.apart());
    let refused = |arguments: &[std::ffi::OsString], status: i32, code: &str| {
        scene.innerkeep.attempt(arguments).assert_refused(status, code);
        before.assert_unchanged(scene.work.path(), &scene.apart());
    };
    let seal = |inputs: &[&Path], spec: &SealSpec| scene.seal_arguments("store", inputs, spec).0;
    let usual = SealSpec::default();
    refused(&seal(&[Path::new("/dev/null")], &usual), DAMAGED, "INPUT_UNFIT");
    refused(&seal(&[&scene.work.join("input")], &usual), DAMAGED, "INPUT_UNFIT");
    refused(&seal(&[&scene.work.join("nowhere")], &usual), IO, "FILE");
    refused(&seal(&[&input, &input], &usual), DAMAGED, "MALFORMED");
    let family = SealSpec { family: " acme".into(), ..usual.clone() };
    refused(&seal(&[&input], &family), DAMAGED, "MALFORMED");
    let environment = SealSpec { environment: "a b".into(), ..usual.clone() };
    refused(&seal(&[&input], &environment), DAMAGED, "MALFORMED");
    let size = SealSpec { more: args!["--segment-size", "65537"], ..usual.clone() };
    refused(&seal(&[&input], &size), DAMAGED, "LIMIT_EXCEEDED");
    let media = SealSpec { more: args!["--media-type", "application/x+sealed"], ..usual.clone() };
    refused(&seal(&[&input], &media), DAMAGED, "MALFORMED");
}

#[test]
fn a_second_artifact_in_a_layout_leaves_the_first_as_it_is() {
    let scene = Scene::start();
    let payloads = [306, 307].map(|seed| Payload::random(seed, 150_000));
    let one = scene.input("one.bin", &payloads[0]);
    let two = scene.input("two.bin", &payloads[1]);
    let first = scene.seal("store:v1", &[&one], &SealSpec::default());
    let before = Trace::of(&scene.work.join("store/blobs"), &[]);
    let second = scene.seal("store:v2", &[&two], &SealSpec::default());
    let after = Trace::of(&scene.work.join("store/blobs"), &[]);
    // Their common blob, the empty configuration of signatures, may be written twice.
    let empty = scene
        .work
        .join("store/blobs/sha256/44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a");
    for (path, mark) in before.files().iter().filter(|(path, _)| **path != empty) {
        assert_eq!(after.files().get(path), Some(mark), "{}", path.display());
    }
    for (artifact, payload) in [(&first, &payloads[0]), (&second, &payloads[1])] {
        scene.grant_usual(artifact);
        let spec = UnsealSpec { pin: Pin::Core(artifact.core.clone()), ..UnsealSpec::default() };
        scene.assert_lands(artifact, &spec, payload);
    }
    // A tag that is not there is not found; and which artifact is meant has to be said.
    let nowhere = first.at(&scene.work.join("store:v3"));
    scene.assert_refused(&nowhere, &UnsealSpec::default(), DAMAGED, "NOT_FOUND");
}

#[test]
fn a_large_file_is_sealed_by_few_segments_of_more_bytes_when_asked() {
    let scene = Scene::start();
    let payload = Payload::random(308, 5_000_000);
    let spec = SealSpec { more: args!["--segment-size", "4194304"], ..SealSpec::default() };
    let artifact = scene.sealed("store", &payload, &spec);
    assert_eq!(artifact.report["payloads"][0]["segments"], 2, "{}", artifact.report);
    assert_eq!(artifact.report["bytes"], payload.bytes().len());
    assert_eq!(artifact.report["signed"], true);
    assert!(artifact.report["seconds"].is_number() && artifact.report["gb_per_s"].is_number());
    scene.assert_lands(&artifact, &UnsealSpec::default(), &payload);
}
