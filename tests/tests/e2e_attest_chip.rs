//! Evidence and the chip: a confidential guest that the policy names gets its model, and no other guest, host or collateral gets anything.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]

use tests::attested::Attested;
use tests::emulator::Emulator;
use tests::payload::Payload;
use tests::scene::{Artifact, UnsealSpec};
use tests::tee::{Guest, Kind};
use tests::{CHIP_FAULT, REFUSED, UNFIT, USAGE, args};

const EVIDENCE: &str = "CHIP_EVIDENCE_REFUSED";

fn by_key(guest: &Guest) -> UnsealSpec {
    Attested::spec(guest, "key-release")
}

/// An artifact under the usual policy.
fn artifact(attested: &Attested) -> Artifact {
    attested.sealed("model", &Payload::random(1, 200_000))
}

/// A guest that differs in one thing is refused for that thing, and the reference guest lands before and after.
fn refused_for(kind: Kind, others: &[(&str, &str, &str)]) {
    let attested = Attested::start(kind);
    let payload = Payload::random(1, 200_000);
    let artifact = attested.sealed("model", &payload);
    attested.assert_lands(&artifact, &attested.guest, &by_key(&attested.guest), &payload);
    for (index, (top, sections, rule)) in others.iter().enumerate() {
        let guest = attested.guest(&format!("g{index}"), top, sections);
        attested.assert_refused(&artifact, &guest, &by_key(&guest), (REFUSED, EVIDENCE, rule));
    }
    attested.assert_lands(&artifact, &attested.guest, &by_key(&attested.guest), &payload);
}

/// On every path, with nothing insecure but the emulation, and the report says so.
fn unseals_on_every_path(kind: Kind) {
    let attested = Attested::start_with(kind, &args!["--insecure-emulated-dma"]);
    for path in ["key-release", "dma-sealed", "dma-direct"] {
        let payload = Payload::random(2, 300_001);
        let artifact = attested.sealed(path, &payload);
        let mut spec = Attested::spec(&attested.guest, path);
        if path != "dma-direct" {
            // The chip is in this mode whatever the path.
            spec.insecure.push("--insecure-emulated-dma");
        }
        let report = attested.assert_lands(&artifact, &attested.guest, &spec, &payload);
        assert_eq!(report["tee"], kind.name(), "{report}");
        let insecure: Vec<&str> =
            report["insecure"].as_array().unwrap().iter().filter_map(|mode| mode.as_str()).collect();
        assert!(insecure.contains(&"emulated-tee"), "{report}");
        assert!(!insecure.contains(&"no-tee") && !insecure.contains(&"no-evidence"), "{report}");
    }
}

#[test]
fn unseal_with_evidence_of_a_tdx_guest() {
    unseals_on_every_path(Kind::Tdx);
}

#[test]
fn unseal_with_evidence_of_an_snp_guest() {
    unseals_on_every_path(Kind::Snp);
}

#[test]
fn unseal_without_an_event_log_rests_on_the_registers() {
    let attested = Attested::start(Kind::Tdx);
    let artifact = artifact(&attested);
    let said = attested.lie("no-log", &artifact, &attested.guest);
    assert_eq!(said.status, Some(0), "{said:?}");
}

#[test]
fn evil_guest_of_another_measurement() {
    let other = "22".repeat(48);
    let mrtd = format!("[tdx]\nmrtd = \"{other}\"");
    refused_for(
        Kind::Tdx,
        &[("", &mrtd, "mrtd"), ("", "[tdx]\ncommand_line = \"console=hvc0 init=/bin/sh\"", "rtmr2")],
    );
    refused_for(Kind::Snp, &[("", &format!("[snp]\nmeasurement = \"{other}\""), "measurement")]);
}

#[test]
fn evil_guest_that_the_host_can_debug() {
    for kind in Kind::ALL {
        refused_for(kind, &[("debug = true", "", "debug")]);
    }
}

#[test]
fn evil_platform_with_an_old_tcb() {
    refused_for(
        Kind::Tdx,
        &[
            ("", "[tdx]\ntee_tcb_svn = \"04000700000000000000000000000000\"", "min_tee_tcb_svn"),
            ("", "[tdx]\ntcb_status = \"OutOfDate\"", "tcb_refused"),
            // A revoked PCK certificate is told like every other broken chain of Intel's.
            ("", "[tdx]\npck_revoked = true", "signature_invalid"),
        ],
    );
    refused_for(
        Kind::Snp,
        &[("", "[snp.tcb]\nsnp = 19", "min_tcb"), ("", "[snp]\nask_revoked = true", "revoked")],
    );
}

#[test]
fn evil_guest_with_other_initdata() {
    for kind in Kind::ALL {
        let attested = Attested::start(kind);
        let artifact = artifact(&attested);
        for (name, digest) in [("other", "ee".repeat(32)), ("none", String::new())] {
            let guest = attested.guest_with_initdata(name, &digest);
            attested.assert_refused(&artifact, &guest, &by_key(&guest), (REFUSED, EVIDENCE, "initdata"));
        }
    }
}

#[test]
fn evil_collateral_below_what_a_fresh_chip_was_provisioned_with() {
    for (kind, older, rule, lenient) in [
        (Kind::Tdx, "[tdx]\ntcb_evaluation = 14", "min_tcb_evaluation", "1"),
        (Kind::Snp, "[snp]\ncrl = 2", "min_crl_number", "0"),
    ] {
        let attested = Attested::start(kind);
        let payload = Payload::random(3, 100_000);
        let artifact = attested.sealed_under("lenient", &payload, &attested.policy_with(rule, lenient));
        let guest = attested.guest("older", "", older);
        // Nothing was released yet: the chip has seen no number.
        attested.assert_refused(&artifact, &guest, &by_key(&guest), (REFUSED, EVIDENCE, rule));
        attested.assert_lands(&artifact, &attested.guest, &by_key(&attested.guest), &payload);
    }
}

#[test]
fn evil_collateral_below_what_the_chip_has_seen() {
    for (kind, older, rule, lenient) in [
        (Kind::Tdx, "[tdx]\ntcb_evaluation = 16", "min_tcb_evaluation", "1"),
        (Kind::Snp, "[snp]\ncrl = 4", "min_crl_number", "0"),
    ] {
        let mut attested = Attested::start(kind);
        let payload = Payload::random(4, 100_000);
        let artifact = attested.sealed_under("lenient", &payload, &attested.policy_with(rule, lenient));
        let guest = attested.guest("older", "", older);
        attested.assert_lands(&artifact, &guest, &by_key(&guest), &payload);
        // Newer collateral makes the older one useless, and a power cut changes nothing about it.
        attested.assert_lands(&artifact, &attested.guest, &by_key(&attested.guest), &payload);
        attested.assert_refused(&artifact, &guest, &by_key(&guest), (REFUSED, EVIDENCE, rule));
        attested.scene.restart_chip(&args!["--insecure-trust-roots", attested.platform.trust_roots()]);
        attested.assert_refused(&artifact, &guest, &by_key(&guest), (REFUSED, EVIDENCE, rule));
    }
}

#[test]
fn evil_collateral_below_the_policy_s_minimum() {
    for (kind, rule, higher, newer) in [
        (Kind::Tdx, "min_tcb_evaluation", "18", "[tdx]\ntcb_evaluation = 18"),
        (Kind::Tdx, "min_pck_crl_number", "10", "[tdx]\npck_crl = 10"),
        (Kind::Snp, "min_crl_number", "6", "[snp]\ncrl = 6"),
    ] {
        let attested = Attested::start(kind);
        let payload = Payload::random(5, 100_000);
        let artifact = attested.sealed_under("strict", &payload, &attested.policy_with(rule, higher));
        attested.assert_refused(
            &artifact,
            &attested.guest,
            &by_key(&attested.guest),
            (REFUSED, EVIDENCE, rule),
        );
        let guest = attested.guest("newer", "", newer);
        attested.assert_lands(&artifact, &guest, &by_key(&guest), &payload);
    }
}

#[test]
fn evil_guest_replays_evidence_of_an_earlier_session() {
    for kind in Kind::ALL {
        Attested::start(kind).assert_seen_through("replayed", "report_data");
    }
}

#[test]
fn evil_workload_fetches_a_quote_for_the_chip_s_transcript() {
    for kind in Kind::ALL {
        let attested = Attested::start(kind);
        attested.assert_seen_through("workload", "report_data");
        attested.assert_seen_through("other-form", "report_data");
    }
}

#[test]
fn evil_guest_forges_a_quote() {
    for kind in Kind::ALL {
        let attested = Attested::start(kind);
        attested.assert_seen_through("forged", "signature_invalid");
        attested.assert_seen_through("trailing", "trailing_bytes");
    }
}

#[test]
fn evil_guest_tampers_with_its_event_log() {
    let attested = Attested::start(Kind::Tdx);
    attested.assert_seen_through("tampered-log", "log_mismatch");
    attested.assert_seen_through("cut-log", "log_mismatch");
    // SNP has no registers that a log could lead to.
    Attested::start(Kind::Snp).assert_seen_through("tampered-log", "unsupported");
}

#[test]
fn evil_guest_presents_nothing() {
    // Our own session refuses to send it; the chip would refuse it too (its own tests).
    let attested = Attested::start(Kind::Tdx);
    let artifact = artifact(&attested);
    let said = attested.lie("nothing", &artifact, &attested.guest);
    assert_eq!(said.code(), "CHIP_EVIDENCE_MISSING", "{said:?}");
}

#[test]
fn evil_host_hands_over_evidence_of_something_else() {
    // These never reach a chip: the guest compares what it got with what it asked for.
    for kind in Kind::ALL {
        let attested = Attested::start(kind);
        let artifact = artifact(&attested);
        for (name, code) in [
            ("other-report-data", "ATTEST_REPORT_DATA_MISMATCH"),
            ("empty-quote", "ATTEST_EVIDENCE_EMPTY"),
            ("zero-quote", "ATTEST_EVIDENCE_EMPTY"),
            ("io-error", "ATTEST_TEE_IO"),
        ] {
            let guest = attested.guest_under(name, &format!("[[fault]]\nkind = \"{name}\"\ntimes = 0\n"));
            attested.assert_refused(&artifact, &guest, &by_key(&guest), (CHIP_FAULT, code, ""));
        }
    }
}

#[test]
fn evil_host_tampers_with_the_firmware_s_log() {
    let attested = Attested::start(Kind::Tdx);
    let artifact = artifact(&attested);
    let plan = "[[fault]]\nkind = \"ccel-tampered\"\ntimes = 0\nvalue = 200\n";
    let guest = attested.guest_under("ccel", plan);
    attested.assert_refused(&artifact, &guest, &by_key(&guest), (CHIP_FAULT, "ATTEST_LOG_INVALID", ""));
}

#[test]
fn evil_platform_whose_roots_the_chip_does_not_believe() {
    for kind in Kind::ALL {
        let attested = Attested::start(kind);
        let artifact = artifact(&attested);
        // Another processor, whose keys sign the same claims.
        let work = &attested.scene.work;
        let foreign = tests::tee::Platform::create(&attested.scene.programs, work, "foreign", kind);
        let launch = format!("initdata_digest = \"{}\"\n", attested.initdata);
        let guest = foreign.guest(work, "f", &launch, None);
        let spec = UnsealSpec { more: guest.flags(), ..by_key(&guest) };
        let unsealed = attested.unseal(&artifact, &guest, &spec);
        unsealed.said.assert_refused(REFUSED, EVIDENCE);
        assert!(!unsealed.consumer_ran());
        attested.scene.assert_no_plaintext(&artifact);
    }
}

#[test]
fn evil_guest_with_an_emulated_tee_before_a_chip_that_believes_hardware_alone() {
    let mut attested = Attested::start(Kind::Tdx);
    let artifact = artifact(&attested);
    attested.scene.restart_chip(&[]);
    let spec = by_key(&attested.guest);
    attested.assert_refused(&artifact, &attested.guest, &spec, (REFUSED, "CHIP_INSECURE_REFUSED", ""));
    // A chip that demands no evidence is a mode that this guest did not accept.
    attested.scene.restart_chip(&Emulator::INSECURE.map(Into::into));
    attested.assert_refused(&artifact, &attested.guest, &spec, (REFUSED, "CHIP_INSECURE_REFUSED", ""));
}

#[test]
fn unseal_without_tee_or_collateral_says_what_is_missing() {
    let attested = Attested::start(Kind::Tdx);
    let payload = Payload::random(1, 200_000);
    let artifact = attested.sealed("model", &payload);
    let refused = |spec: &UnsealSpec, status, code| {
        let unsealed = attested.unseal(&artifact, &attested.guest, spec);
        unsealed.said.assert_refused(status, code);
        assert!(!unsealed.consumer_ran());
    };
    let spec = |more| UnsealSpec { more, ..by_key(&attested.guest) };
    // No TEE here, and no leave to do without one.
    refused(&spec(Vec::new()), UNFIT, "ATTEST_NO_TEE");
    let empty = attested.scene.work.directory("empty");
    refused(&spec(args!["--insecure-tee-root", &empty]), UNFIT, "ATTEST_NO_TEE");
    // A quote that nobody could verify is not presented.
    let root = args!["--insecure-tee-root", &attested.guest.root];
    refused(&spec(root.clone()), UNFIT, "NO_COLLATERAL");
    let garbage = attested.scene.work.write("garbage", "{}");
    let with = |file: &std::path::Path| [root.clone(), args!["--collateral", file]].concat();
    refused(&spec(with(&garbage)), UNFIT, "ATTEST_COLLATERAL_INVALID");
    refused(&spec(with(&empty.join("none"))), UNFIT, "ATTEST_COLLATERAL_INVALID");
    // Two stories about the same thing.
    let mut both = by_key(&attested.guest);
    both.insecure.push("--insecure-no-tee");
    refused(&both, USAGE, "USAGE");
    attested.assert_lands(&artifact, &attested.guest, &by_key(&attested.guest), &payload);
}

#[test]
fn unseal_without_a_file_presents_the_certificates_of_the_snp_report() {
    let attested = Attested::start(Kind::Snp);
    let artifact = artifact(&attested);
    let spec =
        UnsealSpec { more: args!["--insecure-tee-root", &attested.guest.root], ..by_key(&attested.guest) };
    // They verify; this chip was provisioned to want a revocation list besides, and refuses for that alone.
    attested.assert_refused(&artifact, &attested.guest, &spec, (REFUSED, EVIDENCE, "min_crl_number"));
}
