//! Collateral that is older than a floor, than the policy, or than itself; or is not there.

use super::*;

/// TCB evaluation, PCK list, root list, SNP list.
type Numbers = (u32, u64, u64, u64);

/// Sets the numbers of the platforms.
fn number(tees: &mut Tees, numbers: Numbers) {
    let (evaluation, pck, root, snp) = numbers;
    tees.tdx.tcb_evaluation = evaluation;
    (tees.tdx.pck_crl.number, tees.tdx.root_crl.number, tees.snp.crl.number) = (pck, root, snp);
}

const OLD: Numbers = (17, 9, 7, 5);
/// Newer than `OLD` in one series each, and what the older evidence is refused for.
const NEWER: [(Numbers, bool, Detail); 4] = [
    ((18, 9, 7, 5), false, Detail::MinTcbEvaluation),
    ((17, 10, 7, 5), false, Detail::MinPckCrlNumber),
    ((17, 9, 8, 5), false, Detail::MinRootCrlNumber),
    ((17, 9, 7, 6), true, Detail::MinCrlNumber),
];

#[test]
fn evil_guest_collateral_below_floor() {
    for (newer, of_snp, detail) in NEWER {
        let mut world = World::new();
        let policy = demanding(&[]);
        for numbers in [OLD, newer] {
            number(&mut world.tees, numbers);
            let mut guest = world.guest();
            let evidence = made(&world.tees, of_snp, &guest);
            assert_eq!(world.release(&mut guest, &evidence, &policy), Ok(()), "a fresh chip accepts");
        }
        // The chip has seen newer: older collateral is refused, under every policy, and after power was lost.
        number(&mut world.tees, OLD);
        for policy in [&policy, &crate::testing::policy(&[])] {
            let mut guest = world.guest();
            let evidence = made(&world.tees, of_snp, &guest);
            world.refused_at_unwrap(&mut guest, &evidence, policy, detail);
        }
        world.bench.power_cycle(Modes::default());
        let mut guest = world.guest();
        let evidence = made(&world.tees, of_snp, &guest);
        world.refused_at_unwrap(&mut guest, &evidence, &policy, detail);
        // The other kind of TEE is not touched.
        let mut guest = world.guest();
        let evidence = made(&world.tees, !of_snp, &guest);
        assert_eq!(world.release(&mut guest, &evidence, &policy), Ok(()));
    }
}

#[test]
fn evil_guest_collateral_below_the_policy_or_the_provisioning() {
    let mut world = World::new();
    for (member, of_snp, detail) in [
        ("min_tcb_evaluation = 18", false, Detail::MinTcbEvaluation),
        ("min_pck_crl_number = 10", false, Detail::MinPckCrlNumber),
        ("min_root_crl_number = 8", false, Detail::MinRootCrlNumber),
        ("min_crl_number = 6", true, Detail::MinCrlNumber),
    ] {
        let mut guest = world.guest();
        let evidence = made(&world.tees, of_snp, &guest);
        world.refused_at_unwrap(&mut guest, &evidence, &demanding(&[member]), detail);
    }
    for (newer, of_snp, detail) in NEWER {
        let (evaluation, pck_crl, root_crl, snp_crl) = newer;
        let tcb_evaluation = u64::from(evaluation);
        let mut world = World::provisioned(Minimums { tcb_evaluation, pck_crl, root_crl, snp_crl });
        for policy in [demanding(&[]), policy(&[])] {
            let mut guest = world.guest();
            let evidence = made(&world.tees, of_snp, &guest);
            world.refused_at_unwrap(&mut guest, &evidence, &policy, detail);
        }
        number(&mut world.tees, newer);
        let mut guest = world.guest();
        let evidence = made(&world.tees, of_snp, &guest);
        assert_eq!(world.release(&mut guest, &evidence, &demanding(&[])), Ok(()));
    }
}

#[test]
fn evil_guest_older_list_below_a_renewed_certificate() {
    let mut world = World::new();
    let mut guest = world.guest();
    let evidence = world.tees.of_tdx(&guest, |_| {});
    assert_eq!(world.release(&mut guest, &evidence, &demanding(&[])), Ok(()));
    let before = world.floors();
    world.tees.tdx.ca.serial = vec![0x77];
    let mut guest = world.guest();
    let evidence = world.tees.of_tdx(&guest, |_| {});
    assert_eq!(world.release(&mut guest, &evidence, &demanding(&[])), Ok(()));
    assert_eq!(world.floors(), before, "a renewed certificate over the same key goes on counting");
    world.tees.tdx.pck_crl.number = 8;
    let mut guest = world.guest();
    let evidence = world.tees.of_tdx(&guest, |_| {});
    world.refused_at_unwrap(&mut guest, &evidence, &demanding(&[]), Detail::MinPckCrlNumber);
}

#[test]
fn evil_guest_missing_revocation_list() {
    let without_list = |tees: &Tees, guest: &Guest| {
        let mut evidence = tees.of_snp(guest, |_| {});
        if let PresentedEvidence::Snp { crl, .. } = &mut evidence.evidence {
            *crl = None;
        }
        evidence
    };
    let mut world = World::new();
    let mut guest = world.guest();
    let evidence = without_list(&world.tees, &guest);
    world.refused_at_unwrap(&mut guest, &evidence, &demanding(&["min_crl_number = 1"]), Detail::MinCrlNumber);
    // Without any minimum it passes, until the chip has seen a list of that root.
    let mut guest = world.guest();
    let evidence = without_list(&world.tees, &guest);
    assert_eq!(world.release(&mut guest, &evidence, &demanding(&[])), Ok(()));
    assert_eq!(numbers(&world.floors()), []);
    let mut guest = world.guest();
    let evidence = world.tees.of_snp(&guest, |_| {});
    assert_eq!(world.release(&mut guest, &evidence, &demanding(&[])), Ok(()));
    let mut guest = world.guest();
    let evidence = without_list(&world.tees, &guest);
    world.refused_at_unwrap(&mut guest, &evidence, &demanding(&[]), Detail::MinCrlNumber);

    let mut guest = world.guest();
    let mut evidence = world.tees.of_tdx(&guest, |_| {});
    if let PresentedEvidence::Tdx { collateral, .. } = &mut evidence.evidence {
        let mut absent = world.tees.tdx.collateral().unwrap();
        absent.pck_crl = Vec::new();
        *collateral = absent.encode();
    }
    world.refused_at_present(&mut guest, &evidence, refused(Detail::CollateralMissing));
}
