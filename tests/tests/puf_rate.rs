//! The fuzzy extractor fails as rarely as the chip's specification says (section 6.1): at a bit error rate of 3 % less than once in 10^8
//! reconstructions.

#![expect(clippy::panic, reason = "tests")]

use std::process::Command;
use tests::innerkeep::run_to_end;
use tests::programs::Programs;

fn measure(reconstructions: u64, bit_error_rate: &str) -> serde_json::Value {
    let mut command = Command::new(Programs::built().path("innerkeep-chip-emulator"));
    command.args([
        "puf-measure",
        "--reconstructions",
        &reconstructions.to_string(),
        "--ber",
        bit_error_rate,
        "--json",
    ]);
    let said = run_to_end(&mut command);
    assert_eq!(said.status, Some(0), "{said:?}");
    serde_json::from_str(said.stdout.trim()).unwrap_or_else(|error| panic!("{error}: {}", said.stdout))
}

#[test]
fn puf_fails_as_rarely_as_stated() {
    let reconstructions = if tests::long_run() { 3_000_000 } else { 100_000 };
    let outcome = measure(reconstructions, "0.03");
    println!("{outcome}");
    assert_eq!(outcome.get("reconstructions").unwrap().as_u64(), Some(reconstructions), "{outcome}");
    // Below 10^-8 each: even one failure in 3 × 10^6 would have a chance of 3 %.
    assert_eq!(outcome.get("failures").unwrap().as_u64(), Some(0), "{outcome}");
}

#[test]
fn puf_measurement_can_fail() {
    // The control: far above the stated error rate the code cannot correct.
    let outcome = measure(2_000, "0.15");
    assert!(outcome.get("failures").unwrap().as_u64().unwrap() > 1_000, "{outcome}");
}
