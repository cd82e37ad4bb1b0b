//! The README's first command, as it is typed: the demo ends well only if the model landed whole and every attack was refused.

#![expect(clippy::expect_used, reason = "tests")]

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tests::programs::Programs;

fn play(path: &str) -> Value {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above");
    let output = Command::new(Programs::built().path("xtask"))
        .args(["demo", "--no-build", "--json", "--path", path])
        // As `cargo run` sets it.
        .env("CARGO_MANIFEST_DIR", workspace.join("xtask"))
        // Tests fetch nothing.
        .env("CI", "true")
        .output()
        .expect("start xtask");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("the demo's report")
}

fn verify(report: &Value, path: &str) {
    assert_eq!(report["path"], path);
    assert_eq!(report["input_sha256"].as_str().map(str::len), Some(64));
    assert_eq!(report["input_sha256"], report["landed_sha256"]);
    assert!(report["tensors"].as_array().is_some_and(|tensors| tensors.len() > 100), "{}", report["tensors"]);
    let codes: Vec<&str> = report["refusals"]
        .as_array()
        .expect("refusals")
        .iter()
        .filter_map(|refusal| refusal["code"].as_str())
        .collect();
    assert_eq!(codes.len(), 5, "{codes:?}");
}

#[test]
fn demo_by_key_release_lands_the_model_and_refuses_five_attacks() {
    verify(&play("key-release"), "key-release");
}

#[test]
fn demo_by_sealed_dma_lands_the_model_and_refuses_five_attacks() {
    verify(&play("dma-sealed"), "dma-sealed");
}

#[test]
fn demo_by_direct_dma_lands_the_model_and_refuses_five_attacks() {
    verify(&play("dma-direct"), "dma-direct");
}
