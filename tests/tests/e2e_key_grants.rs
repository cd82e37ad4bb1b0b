//! Keys without a chip: from a key broker, from the SEV-SNP processor, from a TPM. Who gets them, and who does not.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]

use serde_json::json;
use std::ffi::OsString;
use std::path::Path;
use tests::broker::KeyBroker;
use tests::keyed::{BROKER, Keyed};
use tests::payload::Payload;
use tests::scene::Artifact;
use tests::swtpm::Swtpm;
use tests::tee::{Guest, Kind};
use tests::{CHIP_FAULT, DAMAGED, REFUSED, UNFIT, USAGE, args};

/// A payload in an artifact that is granted to a broker, and the broker that keeps the key.
struct Kept {
    keyed: Keyed,
    payload: Payload,
    artifact: Artifact,
    resource: String,
    kek: Vec<u8>,
    broker: KeyBroker,
}

impl Kept {
    fn start(kind: Kind) -> Self {
        let keyed = Keyed::start(kind);
        let payload = Payload::random(1, 200_000);
        let artifact = keyed.seal("model", &payload);
        let policy = keyed.policy("policy.toml", 5);
        let (report, kek, rego) = keyed.grant_to_broker(&artifact, &policy, "model");
        let resource = report["resource"].as_str().unwrap().to_owned();
        let broker = keyed.broker("broker", &rego);
        broker.store(&resource, &kek);
        Self { keyed, payload, artifact, resource, kek, broker }
    }

    fn source(&self, guest: &Guest) -> Vec<OsString> {
        self.keyed.from_broker(&self.broker, guest)
    }

    #[track_caller]
    fn assert_lands(&self) {
        let guest = &self.keyed.guest;
        let report = self.keyed.assert_lands(&self.artifact, guest, &self.source(guest), &self.payload);
        assert_eq!(
            (&report["key_from"], &report["path"]),
            (&json!("kbs"), &json!("key-release")),
            "{report}"
        );
        assert!(report["insecure"].as_array().unwrap().contains(&json!("emulated-tee")), "{report}");
    }

    #[track_caller]
    fn assert_refused(&self, guest: &Guest, (status, code): (i32, &str)) {
        self.keyed.assert_refused(
            &self.artifact,
            Some(guest),
            &self.source(guest),
            &self.broker.paths(),
            (status, code),
        );
    }
}

#[test]
fn unseal_by_a_key_broker() {
    for kind in Kind::ALL {
        Kept::start(kind).assert_lands();
    }
}

#[test]
fn evil_guest_other_measurement_gets_no_kek() {
    let other = "22".repeat(48);
    for (kind, member) in [(Kind::Tdx, "[tdx]\nmrtd"), (Kind::Snp, "[snp]\nmeasurement")] {
        let kept = Kept::start(kind);
        let guest = kept.keyed.guest_with("other", &format!("{member} = \"{other}\""));
        kept.assert_refused(&guest, (REFUSED, "KBS_REFUSED_POLICY"));
        kept.assert_lands();
    }
}

#[test]
fn evil_guest_that_the_host_can_debug_gets_no_kek() {
    for kind in Kind::ALL {
        let kept = Kept::start(kind);
        let guest = kept.keyed.guest_with("debugged", "debug = true");
        kept.assert_refused(&guest, (REFUSED, "KBS_REFUSED_POLICY"));
    }
}

#[test]
fn evil_guest_with_other_initdata_gets_no_kek() {
    for kind in Kind::ALL {
        let kept = Kept::start(kind);
        let keyed = &kept.keyed;
        let text = "algorithm = \"sha384\"\nversion = \"0.1.0\"\n\n[data]\n\"other\" = \"\"\n";
        let guest = keyed.guest_of("other", text);
        // It says so, or it says nothing: the policy compares the register.
        let file = keyed.work.write("other.toml", text);
        let source = |more: &[OsString]| {
            let base =
                args!["--kbs", &kept.broker.url, "--broker", BROKER, "--insecure-tee-root", &guest.root];
            [base, more.to_vec()].concat()
        };
        for more in [args!["--initdata", &file], Vec::new()] {
            let refused = (REFUSED, "KBS_REFUSED_POLICY");
            keyed.assert_refused(&kept.artifact, Some(&guest), &source(&more), &kept.broker.paths(), refused);
        }
        // Claiming the usual initdata ends before anything is sent.
        let requests = kept.broker.log().lines().count();
        kept.assert_refused(&guest, (CHIP_FAULT, "ATTEST_INITDATA_MISMATCH"));
        assert_eq!(kept.broker.log().lines().count(), requests, "{}", kept.broker.log());
    }
}

#[test]
fn evil_broker_answers_with_the_key_of_another_core() {
    let kept = Kept::start(Kind::Tdx);
    let other = kept.keyed.seal("other", &Payload::random(2, 1000));
    let policy = kept.keyed.policy("again.toml", 5);
    let (report, kek, _) = kept.keyed.grant_to_broker(&other, &policy, "other");
    assert_ne!(report["resource"], json!(kept.resource));
    for wrong in [kek, vec![7; 32]] {
        kept.broker.store(&kept.resource, &wrong);
        kept.assert_refused(&kept.keyed.guest, (DAMAGED, "GRANT_OPEN_FAILED"));
    }
    for no_key in [vec![0; 32], vec![1; 31], Vec::new()] {
        kept.broker.store(&kept.resource, &no_key);
        kept.assert_refused(&kept.keyed.guest, (UNFIT, "KEY_INVALID"));
    }
    kept.broker.store(&kept.resource, &kept.kek);
    kept.assert_lands();
}

#[test]
fn evil_policy_against_this_core_is_refused_before_anybody_is_asked() {
    let keyed = Keyed::start(Kind::Tdx);
    let artifact = keyed.seal("model", &Payload::random(1, 1000));
    // The core's counter is 7.
    let policy = keyed.policy("policy.toml", 8);
    let (report, kek, rego) = keyed.grant_to_broker(&artifact, &policy, "model");
    let broker = keyed.broker("broker", &rego);
    broker.store(report["resource"].as_str().unwrap(), &kek);
    let requests = broker.log().lines().count();
    let source = keyed.from_broker(&broker, &keyed.guest);
    let said = keyed.assert_refused(
        &artifact,
        Some(&keyed.guest),
        &source,
        &broker.paths(),
        (REFUSED, "POLICY_DENIED"),
    );
    assert!(said.report()["error"]["message"].to_string().contains("min_counter"), "{said:?}");
    assert_eq!(broker.log().lines().count(), requests, "{}", broker.log());
}

#[test]
fn unseal_asks_a_broker_only_for_grants_to_it() {
    let kept = Kept::start(Kind::Tdx);
    let (keyed, guest) = (&kept.keyed, &kept.keyed.guest);
    let base = args!["--kbs", &kept.broker.url, "--insecure-tee-root", &guest.root];
    let refused = |more: &[OsString], expected| {
        let source = [base.clone(), more.to_vec()].concat();
        keyed.assert_refused(&kept.artifact, Some(guest), &source, &kept.broker.paths(), expected)
    };
    let said = refused(&args!["--broker", "another.example"], (REFUSED, "NO_GRANT_FOR_KBS"));
    assert!(said.report()["error"]["message"].to_string().contains("1 of kind kbs"), "{said:?}");
    // A broker without TLS has no key that a grant could be bound to, and a name has to be given.
    refused(&args!["--broker", BROKER, "--broker-key", "11".repeat(32)], (USAGE, "USAGE"));
    refused(&[], (USAGE, "USAGE"));
    // Only a chip has other paths.
    refused(&args!["--broker", BROKER, "--path", "dma-direct"], (USAGE, "USAGE"));
}

/// A key of an SNP guest for itself.
struct Own {
    keyed: Keyed,
    payload: Payload,
    artifact: Artifact,
}

fn by_snp(guest: &Guest) -> Vec<OsString> {
    args!["--snp", "--insecure-tee-root", &guest.root]
}

impl Own {
    fn start() -> Self {
        let keyed = Keyed::start(Kind::Snp);
        let payload = Payload::random(3, 150_000);
        let artifact = keyed.seal("model", &payload);
        let policy = keyed.policy("policy.toml", 5);
        let root = args!["--insecure-tee-root", &keyed.guest.root];
        let report = keyed.run_in(&keyed.guest, &keyed.grant_arguments(&artifact, "snp", &policy, &root));
        assert_eq!(report["kind"], "snp", "{report}");
        Self { keyed, payload, artifact }
    }

    #[track_caller]
    fn assert_refused(&self, guest: &Guest, expected: (i32, &str)) {
        self.keyed.assert_refused(&self.artifact, Some(guest), &by_snp(guest), &[], expected);
    }

    #[track_caller]
    fn assert_lands(&self, guest: &Guest) {
        let report = self.keyed.assert_lands(&self.artifact, guest, &by_snp(guest), &self.payload);
        assert_eq!((&report["key_from"], &report["tee"]), (&json!("snp"), &json!("snp")), "{report}");
    }
}

#[test]
fn unseal_by_a_key_of_the_processor_survives_an_update_of_its_tcb() {
    let own = Own::start();
    own.assert_lands(&own.keyed.guest);
    own.assert_lands(&own.keyed.guest_with("updated", "[snp.tcb]\nmicrocode = 210"));
    // What was granted at a newer TCB is not for an older one.
    own.assert_refused(
        &own.keyed.guest_with("older", "[snp.tcb]\nmicrocode = 208"),
        (CHIP_FAULT, "ATTEST_FIRMWARE_REFUSED"),
    );
}

#[test]
fn evil_initdata_derives_foreign_snp_key() {
    let own = Own::start();
    let other = own.keyed.guest_of("other", "algorithm = \"sha384\"\nversion = \"0.1.0\"\n[data]\n");
    own.assert_refused(&other, (DAMAGED, "GRANT_OPEN_FAILED"));
    own.assert_refused(&own.keyed.guest_of("none", ""), (DAMAGED, "GRANT_OPEN_FAILED"));
    own.assert_lands(&own.keyed.guest);
}

#[test]
fn evil_guest_or_chip_of_another_kind_has_no_snp_grant() {
    let own = Own::start();
    let others = [
        ("measurement", format!("[snp]\nmeasurement = \"{}\"", "33".repeat(48))),
        ("chip", format!("[snp]\nchip_id = \"{}\"", "44".repeat(64))),
        ("policy", "[snp]\nguest_policy = 0x30001".to_owned()),
        ("debug", "debug = true".to_owned()),
    ];
    for (name, more) in others {
        own.assert_refused(&own.keyed.guest_with(name, &more), (REFUSED, "NO_GRANT_FOR_SNP"));
    }
    own.assert_lands(&own.keyed.guest);
}

#[test]
fn unseal_by_snp_needs_an_snp_guest() {
    let keyed = Keyed::start(Kind::Tdx);
    let artifact = keyed.seal("model", &Payload::random(3, 1000));
    let guest = &keyed.guest;
    keyed.assert_refused(&artifact, Some(guest), &by_snp(guest), &[], (USAGE, "USAGE"));
    let no_tee = args!["--snp", "--insecure-no-tee"];
    keyed.assert_refused(&artifact, None, &no_tee, &[], (UNFIT, "ATTEST_NO_TEE"));
    // Exactly one source.
    let both = args!["--snp", "--tpm", "--insecure-tee-root", &guest.root];
    keyed.assert_refused(&artifact, Some(guest), &both, &[], (USAGE, "USAGE"));
    keyed.assert_refused(&artifact, Some(guest), &[], &[], (USAGE, "USAGE"));
}

/// Grants to the TPM below a root.
#[track_caller]
fn grant_to_tpm(keyed: &Keyed, artifact: &Artifact, policy: &Path, root: &Path) {
    let arguments = keyed.grant_arguments(artifact, "tpm", policy, &args!["--insecure-tee-root", root]);
    let report = keyed.innerkeep.run(&arguments);
    assert_eq!((&report["kind"], &report["pcrs"]), (&json!("tpm"), &json!([0, 2, 4, 7, 8])), "{report}");
}

#[test]
fn unseal_by_a_tpm_beside_a_tee() {
    let keyed = Keyed::start(Kind::Tdx);
    let payload = Payload::random(4, 100_000);
    let artifact = keyed.seal("model", &payload);
    let policy = keyed.policy("policy.toml", 5);
    let tpm = Swtpm::start(&keyed.work, "tpm", &keyed.guest.root);
    grant_to_tpm(&keyed, &artifact, &policy, &keyed.guest.root);
    let source = args!["--tpm", "--insecure-tee-root", &keyed.guest.root];
    let report = keyed.assert_lands(&artifact, &keyed.guest, &source, &payload);
    assert_eq!(report["key_from"], "tpm", "{report}");
    assert!(!report["insecure"].as_array().unwrap().contains(&json!("tpm-only")), "{report}");
    // Something else was started: a later grant is for the machine as it is now, and the earlier one does not stand in its way.
    tpm.extend(4, &[1; 32]);
    let refused = (REFUSED, "TPM_SEALED_PCRS");
    keyed.assert_refused(&artifact, Some(&keyed.guest), &source, &[tpm.state()], refused);
    grant_to_tpm(&keyed, &artifact, &policy, &keyed.guest.root);
    keyed.assert_lands(&artifact, &keyed.guest, &source, &payload);
    // Another TPM has no grant.
    drop(tpm);
    let _ = std::fs::remove_file(keyed.guest.root.join("dev/tpm0"));
    let other = Swtpm::start(&keyed.work, "other", &keyed.guest.root);
    let refused = (REFUSED, "NO_GRANT_FOR_TPM");
    keyed.assert_refused(&artifact, Some(&keyed.guest), &source, &[other.state()], refused);
}

#[test]
fn evil_host_tpm_with_another_storage_key_gets_no_secret() {
    let keyed = Keyed::start(Kind::Tdx);
    let artifact = keyed.seal("model", &Payload::random(4, 1000));
    let policy = keyed.policy("policy.toml", 5);
    let root = &keyed.guest.root;
    let add = |more: &[OsString]| {
        let more = [args!["--insecure-tee-root", root], more.to_vec()].concat();
        keyed.grant_arguments(&artifact, "tpm", &policy, &more)
    };
    let tpm = Swtpm::start(&keyed.work, "tpm", root);
    let first = keyed.innerkeep.run(&add(&[]));
    assert_eq!(first["storage_key_pinned"], false, "{first}");
    let pinned = add(&args!["--tpm-storage-key", first["storage_key"].as_str().unwrap()]);
    assert_eq!(keyed.innerkeep.run(&pinned)["storage_key_pinned"], true);
    drop(tpm);
    let _ = std::fs::remove_file(root.join("dev/tpm0"));
    let _other = Swtpm::start(&keyed.work, "other", root);
    let said = keyed.innerkeep.attempt(&pinned);
    assert_eq!((said.status, said.code()), (Some(REFUSED), "TPM_STORAGE_KEY_FOREIGN".to_owned()), "{said:?}");
    let grants = keyed.innerkeep.run(&args!["grant", "list", &artifact.reference]);
    assert_eq!(grants["grants"].as_array().unwrap().len(), 2, "nothing was granted: {grants}");
}

#[test]
fn evil_unseal_by_a_tpm_alone_is_refused() {
    let keyed = Keyed::start(Kind::Tdx);
    let payload = Payload::random(5, 100_000);
    let artifact = keyed.seal("model", &payload);
    let policy = keyed.policy("policy.toml", 5);
    let root = keyed.work.directory("machine");
    let tpm = Swtpm::start(&keyed.work, "tpm", &root);
    grant_to_tpm(&keyed, &artifact, &policy, &root);
    let with = |more: &[OsString]| [args!["--tpm"], more.to_vec()].concat();
    let below = args!["--insecure-tee-root", &root];
    let apart = [tpm.state()];
    // Leave to land without a TEE is no leave to take a TPM for one.
    for more in [&below, &args!["--insecure-no-tee"], &Vec::new()] {
        keyed.assert_refused(&artifact, None, &with(more), &apart, (UNFIT, "TPM_ALONE"));
    }
    let report = keyed.assert_lands_outside(
        &artifact,
        &with(&[below, args!["--insecure-tpm-only"]].concat()),
        &payload,
    );
    let insecure = report["insecure"].as_array().unwrap();
    assert!(insecure.contains(&json!("tpm-only")) && insecure.contains(&json!("no-tee")), "{report}");
    assert_eq!((&report["key_from"], &report["tee"]), (&json!("tpm"), &json!(null)), "{report}");
}
