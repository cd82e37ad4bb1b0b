use super::*;
use crate::testing::{NOW, directory_with_keys, platform};
use evidence::verify::collateral::TdxCollateral;

#[test]
fn a_platform_is_made_once() {
    let (directory, state) = platform();
    assert!(State::init(directory.path(), "").is_err());
    assert_eq!(State::open(directory.path()).unwrap().bundle(), state.bundle());
    assert!(State::open(directory_with_keys().path()).is_err());
    let foreign = platform();
    fs::copy(foreign.0.path().join(ROOTS), directory.path().join(ROOTS)).unwrap();
    assert!(State::open(directory.path()).is_err());
}

#[test]
fn a_launch_changes_numbers_and_no_root() {
    let (_directory, state) = platform();
    let launch = Launch::parse(
        "[dates]\nissued = 2026-01-01T00:00:00Z\nexpires = 2026-02-01T00:00:00Z\n\
         [tdx]\ntcb_evaluation = 3\npck_crl = 4\nroot_crl = 5\ntcb_status = \"OutOfDate\"\n[snp]\ncrl = 6\n",
    )
    .unwrap();
    let changed = state.tdx(&launch, NOW).unwrap();
    assert_eq!((changed.tcb_evaluation, changed.pck_crl.number, changed.root_crl.number), (3, 4, 5));
    assert_eq!(changed.tcb_info_window, (1_767_225_600, 1_769_904_000));
    assert_eq!(Some(changed.root_der().unwrap()), state.bundle().tdx);
    let (snp, collateral) = state.snp(&launch, NOW).unwrap();
    assert_eq!((snp.crl.number, snp.crl.this_update), (6, 1_767_225_600));
    assert_eq!(collateral.ark.as_ref(), Some(&state.bundle().snp[0].ark));
}

#[test]
fn the_chain_of_a_launch_stays_the_same() {
    let (_directory, state) = platform();
    for launch in ["", "[snp]\nkey = \"vlek\"\n", "[snp]\ngeneration = \"turin\"\n[snp.tcb]\nsnp = 9\n"] {
        let launch = Launch::parse(launch).unwrap();
        let (_, first) = state.snp(&launch, NOW).unwrap();
        let (_, again) = state.snp(&launch, NOW + 1_000_000).unwrap();
        assert_eq!((&first.vek, &first.ask, &first.ark), (&again.vek, &again.ask, &again.ark));
        assert_ne!(first.crl, again.crl);
    }
}

#[test]
fn collateral_files_have_their_forms() {
    let (directory, state) = platform();
    let out = directory.path().join("out.json");
    state.write_collateral(&Launch::default(), NOW, Some(&out)).unwrap();
    let tdx = fs::read(directory.path().join("collateral-tdx.json")).unwrap();
    assert_eq!(fs::read(out).unwrap(), tdx);
    TdxCollateral::parse(&tdx).unwrap();
    let snp = fs::read(directory.path().join("collateral-snp.json")).unwrap();
    let snp: serde_json::Value = serde_json::from_slice(&snp).unwrap();
    let certificates: Vec<SnpCertificate> = serde_json::from_value(snp["certificates"].clone()).unwrap();
    let collateral = SnpCollateral::sort(&certificates).unwrap();
    assert_eq!(collateral.vek, state.snp(&Launch::default(), NOW).unwrap().1.vek);
    assert!(!STANDARD.decode(snp["crl"].as_str().unwrap()).unwrap().is_empty());
}
