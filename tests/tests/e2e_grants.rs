//! Grants come and go beside an artifact that stays as it is.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use tests::args;
use tests::layout::{ARTIFACT, GRANT, Layout, SIGNATURE};
use tests::payload::Payload;
use tests::scene::{Artifact, Carrier, ENVIRONMENT, Scene, SealSpec, UnsealSpec};
use tests::sealed::SealedFile;
use tests::trace::{Mark, Trace};
use tests::{DAMAGED, REFUSED, UNFIT, USAGE};

/// Size, time and inode of every blob but those of grants, and the digests of core and signature.
fn fixed(layout: &Layout) -> (Vec<(std::path::PathBuf, Mark)>, String, serde_json::Value) {
    let blobs = layout.path().join("blobs");
    let trace = Trace::of(&blobs, &[]);
    let grants: Vec<_> = layout.descriptors(GRANT).iter().map(|one| layout.blob_path(one)).collect();
    let objects: Vec<_> = layout
        .descriptors(GRANT)
        .iter()
        .map(|one| layout.blob_path(&layout.json(one)["layers"][0]))
        .collect();
    let files = trace.files().iter().filter(|(path, mark)| {
        // Directories are marked by their inode alone.
        mark.1 != 0 && !grants.contains(path) && !objects.contains(path)
    });
    let empty_object =
        layout.path().join("blobs/sha256/44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a");
    let files = files.filter(|(path, _)| **path != empty_object);
    let signature = layout.manifest(SIGNATURE)["layers"][0].clone();
    (files.map(|(path, mark)| (path.clone(), *mark)).collect(), layout.core_digest(), signature)
}

fn grant_digests(scene: &Scene, artifact: &Artifact) -> Vec<String> {
    let listed = scene.innerkeep.run(&args!["grant", "list", &artifact.reference]);
    let grants = listed["grants"].as_array().unwrap();
    grants.iter().map(|grant| grant["digest"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn grants_leave_a_layout_as_it_is() {
    let scene = Scene::start();
    let payload = Payload::random(30, 800_000);
    let input = scene.input("model.bin", &payload);
    let artifact = scene.seal("store", &[&input], &SealSpec::default());
    let layout = Layout::at(&artifact.reference);
    let before = fixed(&layout);
    let manifest = layout.descriptors(ARTIFACT);
    assert_eq!(before.1, artifact.core);
    for (round, minimum) in (0..3).enumerate() {
        let policy = scene.policy(&format!("p{round}.toml"), ENVIRONMENT, "any", minimum);
        scene.grant(&artifact, &policy);
        assert_eq!(fixed(&layout), before, "after grant add {round}");
        assert_eq!(layout.descriptors(ARTIFACT), manifest);
        assert_eq!(layout.grants().len(), round + 1);
    }
    scene.assert_lands(&artifact, &UnsealSpec::default(), &payload);
    for digest in grant_digests(&scene, &artifact) {
        scene.innerkeep.run(&args!["grant", "remove", &artifact.reference, digest]);
        assert_eq!(fixed(&layout), before, "after grant remove");
        assert_eq!(layout.descriptors(ARTIFACT), manifest);
    }
    assert_eq!(layout.grants().len(), 0);
    scene.assert_refused(&artifact, &UnsealSpec::default(), REFUSED, "NO_GRANT_FOR_CHIP");
    // Granted anew, it lands again: nothing was lost.
    scene.grant_usual(&artifact);
    scene.assert_lands(&artifact, &UnsealSpec::default(), &payload);
}

#[test]
fn grants_leave_a_sealed_file_as_it_is() {
    let scene = Scene::start();
    let payload = Payload::random(31, 800_000);
    let input = scene.input("model.bin", &payload);
    let artifact =
        scene.seal("model", &[&input], &SealSpec { carrier: Carrier::File, ..SealSpec::default() });
    let regions = |file: &SealedFile| {
        ["core", "signature", "payloads/0", "tags/0"].map(|name| {
            let range = file.region(name);
            (range.clone(), file.bytes[range].to_vec())
        })
    };
    let before = regions(&SealedFile::read(&artifact.reference));
    for round in 0..3 {
        let policy = scene.policy(&format!("p{round}.toml"), ENVIRONMENT, "any", round);
        scene.grant(&artifact, &policy);
        assert!(regions(&SealedFile::read(&artifact.reference)) == before, "after grant add {round}");
    }
    scene.assert_lands(&artifact, &UnsealSpec::default(), &payload);
    let digests = grant_digests(&scene, &artifact);
    assert_eq!(digests.len(), 3);
    for digest in digests {
        scene.innerkeep.run(&args!["grant", "remove", &artifact.reference, digest]);
        assert!(regions(&SealedFile::read(&artifact.reference)) == before, "after grant remove");
    }
    scene.assert_refused(&artifact, &UnsealSpec::default(), REFUSED, "NO_GRANT_FOR_CHIP");
    scene.grant_usual(&artifact);
    scene.assert_lands(&artifact, &UnsealSpec::default(), &payload);
}

#[test]
fn grants_are_listed_with_what_they_bind() {
    let scene = Scene::start();
    let artifact = scene.sealed("store", &Payload::random(32, 70_000), &SealSpec::default());
    let policy = scene.policy("more.toml", ENVIRONMENT, "any", 6);
    scene.innerkeep.run(&scene.grant_arguments(
        &artifact,
        &policy,
        &args!["--allow-weak-policy", "--suite", "classical"],
    ));
    let digest = scene.innerkeep.run(&args!["policy", "digest", &policy]);
    let listed = scene.innerkeep.run(&args!["grant", "list", &artifact.reference]);
    let grants = listed["grants"].as_array().unwrap();
    assert_eq!(grants.len(), 2, "{listed}");
    for grant in grants {
        assert_eq!(grant["kind"], "chip");
        assert_eq!(grant["key_epoch"], 1);
        assert_eq!(grant["recipient"].as_str().unwrap().len(), 64);
        assert!(grant["digest"].as_str().unwrap().starts_with("sha256:"));
    }
    let classical = grants.iter().find(|grant| grant["suite"].as_str().unwrap().contains("P-384")).unwrap();
    let text = digest.to_string();
    assert!(text.contains(classical["policy_digest"].as_str().unwrap()), "{text} and {classical}");
}

#[test]
fn a_grant_is_rotated_without_a_gap() {
    let scene = Scene::start();
    let payload = Payload::random(33, 100_000);
    let artifact = scene.sealed("store", &payload, &SealSpec::default());
    let old = grant_digests(&scene, &artifact);
    let policy = scene.policy("new.toml", ENVIRONMENT, "key-release", 7);
    scene.grant(&artifact, &policy);
    scene.assert_lands(&artifact, &UnsealSpec::default(), &payload);
    scene.innerkeep.run(&args!["grant", "remove", &artifact.reference, &old[0]]);
    scene.assert_lands(&artifact, &UnsealSpec::default(), &payload);
    // The new policy allows one path only.
    scene.assert_refused(&artifact, &UnsealSpec::by("dma-sealed"), REFUSED, "CHIP_POLICY_DENIED");
}

#[test]
fn a_grant_that_is_not_there_cannot_be_removed() {
    let scene = Scene::start();
    let artifact = scene.sealed("store", &Payload::random(34, 70_000), &SealSpec::default());
    let before = Trace::of(&artifact.reference, &[]);
    let said = scene.innerkeep.attempt(&args![
        "grant",
        "remove",
        &artifact.reference,
        format!("sha256:{}", "0".repeat(64))
    ]);
    said.assert_refused(USAGE, "USAGE");
    before.assert_unchanged(&artifact.reference, &[]);
}

#[test]
fn evil_holder_second_recipient_without_payload_digest_is_refused() {
    let scene = Scene::start();
    let other = scene.another_chip("other", "ca");
    let payload = Payload::random(35, 200_000);
    let input = scene.input("model.bin", &payload);
    let spec = SealSpec { more: args!["--no-payload-digest"], ..SealSpec::default() };
    let policy = scene.policy("policy.toml", ENVIRONMENT, "any", 5);
    for (name, carrier) in [("store", Carrier::Layout), ("model", Carrier::File)] {
        let artifact = scene.seal(name, &[&input], &SealSpec { carrier, ..spec.clone() });
        scene.grant(&artifact, &policy);
        let chain = scene.work.join("other.pem");
        let before = std::fs::metadata(if carrier == Carrier::File {
            artifact.reference.clone()
        } else {
            artifact.reference.join("index.json")
        })
        .unwrap();
        let said = scene.innerkeep.attempt(&scene.grant_arguments_to(
            &artifact,
            &chain,
            &policy,
            &args!["--allow-weak-policy"],
        ));
        said.assert_refused(UNFIT, "GRANT_FORGEABLE");
        assert_eq!(grant_digests(&scene, &artifact).len(), 1);
        let after = std::fs::metadata(if carrier == Carrier::File {
            artifact.reference.clone()
        } else {
            artifact.reference.join("index.json")
        })
        .unwrap();
        assert_eq!(before.modified().unwrap(), after.modified().unwrap());
        let spec = UnsealSpec { chip: Some(other.socket.clone()), ..UnsealSpec::default() };
        scene.assert_refused(&artifact, &spec, REFUSED, "NO_GRANT_FOR_CHIP");
        // Named, it works for both.
        let more = args!["--allow-weak-policy", "--allow-forgeable"];
        scene.innerkeep.run(&scene.grant_arguments_to(&artifact, &chain, &policy, &more));
        scene.assert_lands(&artifact, &spec, &payload);
        scene.assert_lands(&artifact, &UnsealSpec::default(), &payload);
    }
}

#[test]
fn a_second_recipient_of_an_artifact_with_payload_digest_is_welcome() {
    let scene = Scene::start();
    let other = scene.another_chip("other", "ca");
    let payload = Payload::random(36, 200_000);
    let artifact = scene.sealed("store", &payload, &SealSpec::default());
    let policy = scene.policy("policy.toml", ENVIRONMENT, "any", 5);
    let chain = scene.work.join("other.pem");
    scene.innerkeep.run(&scene.grant_arguments_to(&artifact, &chain, &policy, &args!["--allow-weak-policy"]));
    scene.assert_lands(&artifact, &UnsealSpec::default(), &payload);
    scene.assert_lands(
        &artifact,
        &UnsealSpec { chip: Some(other.socket.clone()), ..UnsealSpec::default() },
        &payload,
    );
}

/// Attempts a grant that must be refused and leave no trace.
#[track_caller]
fn grant_is_refused(
    scene: &Scene,
    artifact: &Artifact,
    arguments: &[std::ffi::OsString],
    status: i32,
    code: &str,
) {
    let before = Trace::of(&artifact.reference, &[]);
    scene.innerkeep.attempt(arguments).assert_refused(status, code);
    before.assert_unchanged(&artifact.reference, &[]);
}

#[test]
fn evil_guest_weak_policy_is_refused_without_leave() {
    let scene = Scene::start();
    let input = scene.input("model.bin", &Payload::random(37, 70_000));
    let artifact = scene.seal("store", &[&input], &SealSpec::default());
    let policy = scene.policy("policy.toml", ENVIRONMENT, "any", 5);
    grant_is_refused(
        &scene,
        &artifact,
        &scene.grant_arguments(&artifact, &policy, &[]),
        UNFIT,
        "POLICY_WEAK",
    );
    assert_eq!(Layout::at(&artifact.reference).grants().len(), 0);
}

#[test]
fn evil_device_wrong_root_gets_no_grant() {
    let scene = Scene::start();
    let _stranger = scene.another_chip("stranger", "other-ca");
    let input = scene.input("model.bin", &Payload::random(38, 70_000));
    let artifact = scene.seal("store", &[&input], &SealSpec::default());
    let policy = scene.policy("policy.toml", ENVIRONMENT, "any", 5);
    let chain = scene.work.join("stranger.pem");
    let arguments = scene.grant_arguments_to(&artifact, &chain, &policy, &args!["--allow-weak-policy"]);
    grant_is_refused(&scene, &artifact, &arguments, tests::CHIP_FAULT, "CHIP_CHAIN_UNTRUSTED");
}

#[test]
fn evil_holder_key_of_another_artifact_gives_no_grant() {
    let scene = Scene::start();
    let input = scene.input("model.bin", &Payload::random(39, 70_000));
    let one = scene.seal("one", &[&input], &SealSpec::default());
    let two = scene.seal("two", &[&input], &SealSpec::default());
    let policy = scene.policy("policy.toml", ENVIRONMENT, "any", 5);
    let mixed = Artifact { key: two.key.clone(), ..one.clone() };
    let arguments = scene.grant_arguments(&mixed, &policy, &args!["--allow-weak-policy"]);
    grant_is_refused(&scene, &one, &arguments, DAMAGED, "INPUT_UNFIT");
    // The key file can be edited to name the core; the key itself then does not fit.
    let text = std::fs::read_to_string(&two.key).unwrap().replace(&two.core, &one.core);
    let mixed = Artifact { key: scene.work.write("mixed.key", text), ..one.clone() };
    let arguments = scene.grant_arguments(&mixed, &policy, &args!["--allow-weak-policy"]);
    grant_is_refused(&scene, &one, &arguments, DAMAGED, "COMMITMENT_MISMATCH");
}

#[test]
fn evil_registry_ambiguous_policies_are_refused() {
    let scene = Scene::start();
    let input = scene.input("model.bin", &Payload::random(40, 70_000));
    let artifact = scene.seal("store", &[&input], &SealSpec::default());
    let base = "environment = \"any\"\nfamily = \"any\"\nlink_mode = \"any\"\nmin_counter = 5\n";
    let cases = [
        ("unknown", format!("{base}expiry = 3\n")),
        ("missing", base.replace("family = \"any\"\n", "")),
        ("repeated", format!("{base}min_counter = 6\n")),
        ("float", base.replace("= 5", "= 5.0")),
        ("date", base.replace("= 5", "= 2026-01-01")),
        ("choice", base.replacen("\"any\"", "\"anything\"", 1)),
        ("link", base.replace("link_mode = \"any\"", "link_mode = { exactly = \"dma\" }")),
    ];
    for (name, text) in cases {
        let policy = scene.work.write(format!("{name}.toml"), text);
        let arguments = scene.grant_arguments(&artifact, &policy, &args!["--allow-weak-policy"]);
        grant_is_refused(&scene, &artifact, &arguments, DAMAGED, "MALFORMED");
    }
    assert!(Path::new(&artifact.key).is_file());
}
