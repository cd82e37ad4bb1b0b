//! The README's first command, as it is typed: the demo ends well only if the model landed whole and every attack was refused.

#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tests::programs::Programs;

fn play(path: &str, tee: &str) -> Value {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above");
    let output = Command::new(Programs::built().path("xtask"))
        .args(["demo", "--no-build", "--json", "--path", path, "--tee", tee])
        // As `cargo run` sets it.
        .env("CARGO_MANIFEST_DIR", workspace.join("xtask"))
        // Tests fetch nothing.
        .env("CI", "true")
        .output()
        .expect("start xtask");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("the demo's report")
}

fn verify(path: &str, tee: &str, refusals: usize) {
    let report = play(path, tee);
    assert_eq!(report["path"], path);
    assert_eq!(report["tee"], tee);
    assert_eq!(report["unseal"]["tee"], tee);
    assert_eq!(report["input_sha256"].as_str().map(str::len), Some(64));
    assert_eq!(report["input_sha256"], report["landed_sha256"]);
    assert!(report["tensors"].as_array().is_some_and(|tensors| tensors.len() > 100), "{}", report["tensors"]);
    let insecure = report["insecure"].to_string();
    assert!(insecure.contains("emulated-tee") && insecure.contains("emulated-chip"), "{insecure}");
    assert!(!insecure.contains("no-evidence") && !insecure.contains("no-tee"), "{insecure}");
    let played = report["refusals"].as_array().expect("refusals");
    let codes: Vec<&str> = played.iter().filter_map(|refusal| refusal["code"].as_str()).collect();
    assert_eq!(codes.len(), refusals, "{codes:?}");
    assert!(played.iter().all(|refusal| refusal["message"].as_str().is_some_and(|text| !text.is_empty())));
}

#[test]
fn demo_by_key_release_lands_the_model_and_refuses_every_attack() {
    verify("key-release", "tdx", 19);
}

#[test]
fn demo_by_sealed_dma_lands_the_model_and_refuses_every_attack() {
    verify("dma-sealed", "tdx", 19);
}

#[test]
fn demo_by_direct_dma_lands_the_model_and_refuses_every_attack() {
    verify("dma-direct", "tdx", 19);
}

#[test]
fn demo_in_an_snp_guest_lands_the_model_and_refuses_every_attack() {
    verify("key-release", "snp", 16);
}
