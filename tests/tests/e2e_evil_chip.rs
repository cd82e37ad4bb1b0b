//! Chips that lie, break, are replaced or belong to others; and guests that talk to genuine ones. Each attack goes through the real
//! processes, by the emulator's fault plan where the chip itself is the attacker.

use std::process::Stdio;
use tests::args;
use tests::emulator::Emulator;
use tests::innerkeep::finish;
use tests::payload::Payload;
use tests::scene::{Artifact, ENVIRONMENT, FAMILY, Scene, SealSpec, UnsealSpec};
use tests::trace::Trace;
use tests::{CHIP_FAULT, REFUSED, UNFIT};

const PATHS: [&str; 3] = ["key-release", "dma-sealed", "dma-direct"];

fn scene() -> (Scene, Artifact, Payload) {
    let scene = Scene::start();
    let payload = Payload::random(200, 3_000_000);
    let artifact = scene.sealed("store", &payload, &SealSpec::default());
    (scene, artifact, payload)
}

/// A fault of the handshake, each time.
fn handshake_fault(kind: &str) -> String {
    format!("[[fault]]\nkind = \"{kind}\"\ntimes = 0\n")
}

/// One fault at a command, each time.
fn fault(kind: &str, command: &str) -> String {
    format!("[[fault]]\nkind = \"{kind}\"\ncommand = \"{command}\"\ntimes = 0\n")
}

/// Under a fault plan, each of the paths is refused; without it, all land again.
#[track_caller]
fn refused_under(plan: &str, paths: &[&'static str], status: i32, code: &str) {
    let (mut scene, artifact, payload) = scene();
    scene.misbehave(plan);
    for path in paths {
        scene.assert_refused(&artifact, &UnsealSpec::by(path), status, code);
    }
    scene.restart_chip(&Emulator::INSECURE.map(std::ffi::OsString::from));
    for path in paths {
        scene.assert_lands(&artifact, &UnsealSpec::by(path), &payload);
    }
}

#[test]
fn evil_other_chip_has_no_grant() {
    let (scene, artifact, _) = scene();
    let other = scene.another_chip("other", "ca");
    for path in PATHS {
        let spec = UnsealSpec { chip: Some(other.socket.clone()), ..UnsealSpec::by(path) };
        scene.assert_refused(&artifact, &spec, REFUSED, "NO_GRANT_FOR_CHIP");
    }
}

#[test]
fn evil_other_chip_with_a_grant_that_is_made_to_name_it() {
    let (scene, artifact, _) = scene();
    let other = scene.another_chip("other", "ca");
    // The thief grants another artifact to the other chip, to learn how its recipient looks in a grant.
    let policy = scene.policy("policy.toml", ENVIRONMENT, "any", 5);
    let own = scene.seal("own", &[&scene.work.join("input/store.bin")], &SealSpec::default());
    let chain = scene.work.join("other.pem");
    scene.innerkeep.run(&scene.grant_arguments_to(&own, &chain, &policy, &args!["--allow-weak-policy"]));
    let recipient = tests::layout::Layout::at(&own.reference).grants()[0]["recipient"].clone();
    let copy = tests::layout::Layout::at(&artifact.reference).copy(&scene.work.join("renamed"));
    copy.alter_grant(0, |grant| grant["recipient"] = recipient);
    let spec = UnsealSpec { chip: Some(other.socket.clone()), ..UnsealSpec::default() };
    scene.assert_refused(&artifact.at(copy.path()), &spec, REFUSED, "CHIP_UNWRAP_FAILED");
}

#[test]
fn evil_device_wrong_root() {
    let (scene, artifact, _) = scene();
    let stranger = scene.another_chip("stranger", "other-ca");
    // A chip of another maker, and the right chip with another maker's root pinned.
    let spec = UnsealSpec { chip: Some(stranger.socket.clone()), ..UnsealSpec::default() };
    scene.assert_refused(&artifact, &spec, CHIP_FAULT, "CHIP_CHAIN_UNTRUSTED");
    let spec = UnsealSpec { root: Some(scene.work.join("other-ca/root.pem")), ..UnsealSpec::default() };
    scene.assert_refused(&artifact, &spec, CHIP_FAULT, "CHIP_CHAIN_UNTRUSTED");
}

#[test]
fn evil_device_relayed_session_with_another_chain() {
    refused_under(&handshake_fault("wrong-chain"), &PATHS, CHIP_FAULT, "CHIP_CHAIN_UNTRUSTED");
}

#[test]
fn evil_device_relayed_session_with_another_static_key() {
    refused_under(&handshake_fault("wrong-static-key"), &PATHS, CHIP_FAULT, "CHIP_STATIC_KEY");
}

#[test]
fn evil_device_relayed_session_with_another_signature() {
    refused_under(&handshake_fault("wrong-signature"), &PATHS, CHIP_FAULT, "CHIP_SESSION_SIGNATURE");
}

#[test]
fn evil_device_downgraded_suite() {
    refused_under(&handshake_fault("downgrade-suite"), &PATHS, CHIP_FAULT, "CHIP_DOWNGRADE_SUITE");
}

#[test]
fn evil_device_downgraded_path() {
    refused_under(&handshake_fault("lie-path"), &PATHS, CHIP_FAULT, "CHIP_DOWNGRADE_PATH");
}

#[test]
fn evil_device_replayed_completion() {
    // The answer before was of another length; then one of the same length, for another submission.
    refused_under(&fault("replay-completion", "UNWRAP"), &["key-release"], CHIP_FAULT, "CHIP_LENGTH_LIE");
    let second = "[[fault]]\nkind = \"replay-completion\"\ncommand = \"UNSEAL\"\nnth = 2\ntimes = 0\n";
    refused_under(second, &["dma-direct"], CHIP_FAULT, "CHIP_COMPLETION_FORGED");
}

#[test]
fn evil_device_forged_completion() {
    refused_under(&fault("forged-completion", "UNWRAP"), &PATHS, CHIP_FAULT, "CHIP_COMPLETION_FORGED");
}

#[test]
fn evil_device_forged_completion_of_a_job() {
    refused_under(
        &fault("forged-completion", "UNSEAL"),
        &["dma-sealed", "dma-direct"],
        CHIP_FAULT,
        "CHIP_COMPLETION_FORGED",
    );
}

#[test]
fn evil_device_forged_status() {
    // A refusal is as bound to its submission as success is.
    let plan = format!("{}value = 33\n", fault("wrong-status", "UNWRAP"));
    refused_under(&plan, &PATHS, CHIP_FAULT, "CHIP_COMPLETION_FORGED");
}

#[test]
fn evil_device_bad_tag() {
    refused_under(&fault("bad-tag", "PRESENT"), &PATHS, CHIP_FAULT, "CHIP_COMPLETION_FORGED");
}

#[test]
fn evil_device_rewritten_output() {
    refused_under(&fault("corrupt-output", "UNWRAP"), &PATHS, CHIP_FAULT, "CHIP_COMPLETION_FORGED");
}

#[test]
fn evil_device_lying_length() {
    refused_under(&fault("wrong-length", "UNWRAP"), &PATHS, CHIP_FAULT, "CHIP_LENGTH_LIE");
}

#[test]
fn evil_device_unknown_command_id() {
    refused_under(&fault("wrong-cid", "UNWRAP"), &PATHS, CHIP_FAULT, "CHIP_COMPLETION_UNKNOWN");
}

#[test]
fn evil_device_ring_head_outside_the_ring() {
    refused_under(&fault("wrong-head", "UNWRAP"), &PATHS, CHIP_FAULT, "CHIP_RING_HEAD");
}

#[test]
fn evil_device_corrupt_data() {
    // Wrong plaintext, sealed to the session as the right one would be: the payload digest is what tells.
    refused_under(&fault("corrupt-data", "UNSEAL"), &["dma-sealed"], CHIP_FAULT, "CHIP_PAYLOAD_DIGEST");
}

#[test]
fn evil_device_corrupt_data_in_private_memory_is_stopped_by_the_payload_digest() {
    refused_under(&fault("corrupt-data", "UNSEAL"), &["dma-direct"], CHIP_FAULT, "CHIP_PAYLOAD_DIGEST");
}

#[test]
fn evil_device_gone_before_and_in_the_middle_of_a_job() {
    refused_under(&fault("gone", "OPEN"), &PATHS, CHIP_FAULT, "CHIP_GONE");
    refused_under(&fault("gone", "UNSEAL"), &["dma-sealed", "dma-direct"], CHIP_FAULT, "CHIP_GONE");
}

#[test]
fn evil_device_lets_the_connection_go() {
    refused_under(&fault("disconnect", "UNWRAP"), &PATHS, CHIP_FAULT, "CHIP_GONE");
}

#[test]
fn evil_device_reset_in_the_middle_of_a_job() {
    refused_under(&fault("reset", "UNSEAL"), &["dma-direct"], CHIP_FAULT, "CHIP_GONE");
}

#[test]
fn evil_device_killed_in_the_middle_of_a_job() {
    let (mut scene, artifact, payload) = scene();
    for path in PATHS {
        let command = if path == "key-release" { "UNWRAP" } else { "UNSEAL" };
        scene.misbehave(&format!(
            "[[fault]]\nkind = \"stall\"\ncommand = \"{command}\"\nmilliseconds = 60000\n"
        ));
        let before = Trace::of(scene.work.path(), &scene.apart());
        let (arguments, marker) = scene.unseal_arguments(&artifact, &UnsealSpec::by(path));
        let faults = scene.chip.log().matches("FAULT Stall").count();
        let child = scene
            .innerkeep
            .command()
            .args(&arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        scene.chip.wait_for_count("FAULT Stall", faults + 1);
        scene.chip.end();
        finish(child).assert_refused(CHIP_FAULT, "CHIP_GONE");
        assert!(!marker.exists(), "the consumer ran");
        before.assert_unchanged(scene.work.path(), &scene.apart());
        scene.assert_no_plaintext(&artifact);
    }
    scene.restart_chip(&Emulator::INSECURE.map(std::ffi::OsString::from));
    scene.assert_lands(&artifact, &UnsealSpec::default(), &payload);
}

#[test]
fn evil_device_survived_nuisances() {
    // Missing, spurious and stormy interrupts: no harm.
    let (mut scene, artifact, payload) = scene();
    for kind in ["missing-interrupt", "spurious-interrupt", "interrupt-storm"] {
        scene.misbehave(&format!("[[fault]]\nkind = \"{kind}\"\ntimes = 3\n"));
        for path in PATHS {
            scene.assert_lands(&artifact, &UnsealSpec::by(path), &payload);
        }
    }
}

#[test]
fn evil_device_rewritten_memory() {
    // The chip rewrites answers while the driver may or may not have copied them: right bytes or a refusal, nothing else.
    let (mut scene, artifact, payload) = scene();
    scene.misbehave("[[fault]]\nkind = \"rewrite-after-completion\"\ntimes = 0\n");
    for path in PATHS {
        for _ in 0..3 {
            let unsealed = scene.unseal(&artifact, &UnsealSpec::by(path));
            if unsealed.said.status == Some(0) {
                assert_eq!(unsealed.seen()["sha256"], payload.sha256());
            } else {
                assert_eq!(unsealed.said.status, Some(CHIP_FAULT), "{unsealed:?}");
                assert!(!unsealed.consumer_ran());
            }
            scene.assert_no_plaintext(&artifact);
        }
    }
}

#[test]
fn evil_device_keeps_memory() {
    refused_under(
        "[[fault]]\nkind = \"hold-after-unmap\"\ntimes = 0\n",
        &["dma-direct"],
        CHIP_FAULT,
        "MEM-010",
    );
}

#[test]
fn evil_device_writes_after_unmap() {
    // It may be caught holding the memory, or by what it wrote, whichever is looked at first.
    let (mut scene, artifact, payload) = scene();
    scene.misbehave("[[fault]]\nkind = \"write-after-unmap\"\ntimes = 0\n");
    let before = Trace::of(scene.work.path(), &scene.apart());
    let unsealed = scene.unseal(&artifact, &UnsealSpec::by("dma-direct"));
    let code = unsealed.said.code();
    assert!(["MEM-010", "CHIP_PAYLOAD_DIGEST"].contains(&code.as_str()), "{unsealed:?}");
    unsealed.said.assert_refused(CHIP_FAULT, &code);
    assert!(!unsealed.consumer_ran());
    before.assert_unchanged(scene.work.path(), &scene.apart());
    scene.assert_no_plaintext(&artifact);
    scene.restart_chip(&Emulator::INSECURE.map(Into::into));
    scene.assert_lands(&artifact, &UnsealSpec::by("dma-direct"), &payload);
}

#[test]
fn evil_device_is_no_chip() {
    let (scene, artifact, _) = scene();
    // Nobody there; somebody there who does not speak; somebody who speaks nonsense.
    let spec =
        |socket: &std::path::Path| UnsealSpec { chip: Some(socket.to_owned()), ..UnsealSpec::default() };
    scene.assert_refused(&artifact, &spec(&scene.work.join("nowhere")), UNFIT, "CHIP_CONNECT");
    let path = scene.work.join("nonsense.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    scene.work.hand_over(&path, 0o777);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = std::io::Write::write_all(&mut stream, &[0xAA; 4096]);
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
    });
    scene.assert_refused(&artifact, &spec(&path), CHIP_FAULT, "CHIP_ANSWER_MALFORMED");
}

#[test]
fn evil_guest_false_condition() {
    let (scene, _, _) = scene();
    let input = scene.work.join("input/store.bin");
    let any = "environment = \"any\"\nfamily = \"any\"\nlink_mode = \"any\"\nmin_counter = 0\n";
    let policies = [
        ("environment", "environment = \"any\"", "environment = { exactly = \"production\" }"),
        ("family", "family = \"any\"", "family = { exactly = \"acme/other\" }"),
        ("link", "link_mode = \"any\"", "link_mode = { one_of = [\"dma-direct\", \"dma-sealed\"] }"),
        ("counter", "min_counter = 0", "min_counter = 8"),
    ];
    for (name, member, instead) in policies {
        assert!(any.contains(member));
        let artifact = scene.seal(name, &[&input], &SealSpec::default());
        let policy = scene.work.write(format!("{name}.toml"), any.replace(member, instead));
        scene.grant(&artifact, &policy);
        scene.assert_refused(&artifact, &UnsealSpec::default(), REFUSED, "CHIP_POLICY_DENIED");
    }
}

#[test]
fn evil_guest_chip_of_another_tier() {
    // The core says production, the policy allows production, but this chip was provisioned for development.
    let (scene, _, _) = scene();
    let input = scene.work.join("input/store.bin");
    let artifact =
        scene.seal("prod", &[&input], &SealSpec { environment: "production".into(), ..SealSpec::default() });
    let policy = scene.policy("prod.toml", "production", "any", 0);
    scene.grant(&artifact, &policy);
    scene.assert_refused(&artifact, &UnsealSpec::default(), REFUSED, "CHIP_POLICY_DENIED");
}

/// A policy that demands a TDX guest.
fn evidence_policy(scene: &Scene) -> std::path::PathBuf {
    let h96 = "ab".repeat(48);
    let text = format!(
        r#"environment = {{ exactly = "{ENVIRONMENT}" }}
family = {{ exactly = "{FAMILY}" }}
link_mode = "any"
min_counter = 5

[evidence]
certificate_chain = "any"
debug = {{ exactly = false }}
initdata = {{ exactly = "{}" }}
unsigned_manifest = "any"

[evidence.tdx]
min_pck_crl_number = 1
min_root_crl_number = 1
min_tcb_evaluation = 17
min_tee_tcb_svn = "05000000000000000000000000000000"
mrtd = {{ exactly = "{h96}" }}
rtmr0 = "any"
rtmr1 = {{ exactly = "{h96}" }}
rtmr2 = {{ exactly = "{h96}" }}
rtmr3 = "any"
"#,
        "cd".repeat(48)
    );
    scene.work.write("evidence.toml", text)
}

#[test]
fn evil_guest_evidence_missing_in_every_mode() {
    let (scene, _, _) = scene();
    let artifact = scene.seal("guarded", &[&scene.work.join("input/store.bin")], &SealSpec::default());
    let policy = evidence_policy(&scene);
    // A policy that demands evidence is not weak: no leave is needed.
    scene.innerkeep.run(&scene.grant_arguments(&artifact, &policy, &[]));
    for path in PATHS {
        scene.assert_refused(&artifact, &UnsealSpec::by(path), REFUSED, "CHIP_EVIDENCE_REQUIRED");
    }
}

#[test]
fn evil_guest_insecure_modes_are_not_assumed() {
    let (scene, artifact, payload) = scene();
    let refused = |spec: UnsealSpec, status, code| scene.assert_refused(&artifact, &spec, status, code);
    refused(UnsealSpec::default().without("--insecure-no-tee"), UNFIT, "MEM-003");
    // Evidence would be needed then, and there is no TEE to make it.
    refused(UnsealSpec::default().without("--insecure-no-evidence"), UNFIT, "ATTEST_NO_TEE");
    refused(UnsealSpec::by("dma-direct").without("--insecure-emulated-dma"), UNFIT, "CHIP_REQUIREMENT");
    // A chip in a mode that the guest did not accept by name, though its own path does not use it.
    refused(UnsealSpec::default().without("--insecure-emulated-dma"), REFUSED, "CHIP_INSECURE_REFUSED");
    scene.assert_lands(&artifact, &UnsealSpec::by("dma-direct"), &payload);
}

#[test]
fn evil_guest_insecure_against_a_chip_that_is_not() {
    let (mut scene, artifact, payload) = scene();
    scene.restart_chip(&[]);
    for path in PATHS {
        scene.assert_refused(&artifact, &UnsealSpec::by(path), REFUSED, "CHIP_INSECURE_REFUSED");
    }
    scene.restart_chip(&args!["--insecure-no-evidence"]);
    scene.assert_refused(&artifact, &UnsealSpec::by("dma-direct"), REFUSED, "CHIP_INSECURE_REFUSED");
    scene.assert_lands(&artifact, &UnsealSpec::default().without("--insecure-emulated-dma"), &payload);
}

#[test]
fn evil_guest_provisioning_is_once() {
    let (scene, artifact, payload) = scene();
    let ca = scene.work.join("evil-ca");
    let said = scene.innerkeep.attempt(&args![
        "chip",
        "provision",
        "--chip",
        &scene.chip.socket,
        "--ca",
        &ca,
        "--environment",
        "production"
    ]);
    said.assert_refused(REFUSED, "CHIP_ALREADY_PROVISIONED");
    scene.assert_lands(&artifact, &UnsealSpec::default(), &payload);
}

#[test]
fn evil_host_memory_of_the_chip_is_not_plain() {
    // The chip's state directory after a landing holds neither the content key nor plaintext.
    let (scene, artifact, payload) = scene();
    scene.assert_lands(&artifact, &UnsealSpec::default(), &payload);
    let needles = tests::scan::Needles::new(tests::scene::content_key(&artifact.key));
    assert_eq!(needles.below(&scene.work.join("chip")).0, []);
}

#[test]
fn evil_device_whose_silicon_gives_no_key() {
    // So much noise that the code cannot correct it: no key, no session.
    let (mut scene, artifact, payload) = scene();
    let mut arguments: Vec<std::ffi::OsString> = Emulator::INSECURE.map(Into::into).into();
    arguments.extend(args!["--puf-noise", "0.3"]);
    scene.restart_chip(&arguments);
    scene.assert_refused(&artifact, &UnsealSpec::default(), CHIP_FAULT, "CHIP_FATAL");
    scene.restart_chip(&Emulator::INSECURE.map(Into::into));
    scene.assert_lands(&artifact, &UnsealSpec::default(), &payload);
}

#[test]
fn evil_guest_stale_epoch() {
    // The key epoch was raised: the chip is provisioned anew, and former grants are useless.
    let (mut scene, artifact, payload) = scene();
    scene.chip.end();
    let mut raise = scene.programs.command("innerkeep-chip-emulator", &scene.work.join("tmp"));
    raise.args(["raise-epoch", "--state"]).arg(scene.work.join("chip"));
    assert_eq!(tests::innerkeep::run_to_end(&mut raise).status, Some(0));
    scene.restart_chip(&Emulator::INSECURE.map(Into::into));
    scene.provision(&scene.chip.socket, "ca", ENVIRONMENT);
    scene.innerkeep.run(&args![
        "chip",
        "info",
        "--chip",
        &scene.chip.socket,
        "--chip-root",
        &scene.root,
        "--chain-out",
        scene.work.join("new.pem")
    ]);
    scene.assert_refused(&artifact, &UnsealSpec::default(), REFUSED, "NO_GRANT_FOR_CHIP");
    // The thief writes the new epoch into the old grant.
    let copy = tests::layout::Layout::at(&artifact.reference).copy(&scene.work.join("raised"));
    copy.alter_grant(0, |grant| grant["recipient"]["key_epoch"] = 2.into());
    scene.assert_refused(&artifact.at(copy.path()), &UnsealSpec::default(), REFUSED, "CHIP_UNWRAP_FAILED");
    // A new grant lands.
    let policy = scene.policy("policy.toml", ENVIRONMENT, "any", 5);
    let chain = scene.work.join("new.pem");
    scene.innerkeep.run(&scene.grant_arguments_to(&artifact, &chain, &policy, &args!["--allow-weak-policy"]));
    scene.assert_lands(&artifact, &UnsealSpec::default(), &payload);
}
