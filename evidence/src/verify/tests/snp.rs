use proptest::prelude::*;

use crate::abi::json::{SnpCertificate, SnpCertificateKind};
use crate::abi::snp::{Generation, KeyInfo, SnpReport};
use crate::bytes::Octets;
use crate::error::EvidenceError;
use crate::fixture::{EXPIRES, ISSUED, NOW, code, keys, milan, report, snp, snp_roots};
use crate::mint::der::{Extension, bit_string, integer, name, oid, sequence, tlv};
use crate::mint::snp::{SnpPlatform, rsa_public_key};
use crate::verify::pem;
use crate::verify::roots::{RootSet, SnpRoots};
use crate::verify::snp::{
    SnpCollateral, VekKind, VerifiedSnp, latest_issue_date, verify, verify_without_clock,
};

const INVALID: &str = "EVIDENCE_CERTIFICATE_INVALID";

/// Verifies a sound report of a platform that may have been changed.
fn result_of(platform: &SnpPlatform) -> Result<VerifiedSnp, EvidenceError> {
    result_with(platform, report(platform, 3))
}

fn result_with(platform: &SnpPlatform, report: SnpReport) -> Result<VerifiedSnp, EvidenceError> {
    let report = platform.sign(report).unwrap().encode();
    verify(&report, &platform.collateral().unwrap(), &snp_roots(platform), NOW)
}

/// RSASSA-PSS whose parameters say 32 bytes of salt.
fn weaker_pss() -> Vec<u8> {
    let sha384 = sequence(&[oid("2.16.840.1.101.3.4.2.2").unwrap(), tlv(0x05, &[])]);
    let mgf1 = sequence(&[oid("1.2.840.113549.1.1.8").unwrap(), sha384.clone()]);
    let parameters = sequence(&[tlv(0xa0, &sha384), tlv(0xa1, &mgf1), tlv(0xa2, &integer(&[32]))]);
    sequence(&[oid("1.2.840.113549.1.1.10").unwrap(), parameters])
}

fn rsa(modulus_bytes: usize, exponent: &[u8]) -> Vec<u8> {
    rsa_public_key(&sequence(&[integer(&vec![0xc1; modulus_bytes]), integer(exponent)])).unwrap()
}

fn set(extensions: &mut [Extension], id: &str, value: Vec<u8>) {
    extensions.iter_mut().find(|extension| extension.id.ends_with(id)).unwrap().value = value;
}

#[test]
fn emulated_reports_of_every_version_and_generation_verify() {
    for generation in [Generation::Milan, Generation::Genoa, Generation::Turin] {
        for kind in [VekKind::Vcek, VekKind::Vlek] {
            let platform = snp(generation, kind);
            for version in 2..=5 {
                let verified = result_with(&platform, report(&platform, version)).unwrap();
                assert_eq!((verified.generation, verified.kind), (generation, kind));
                assert_eq!((verified.roots, verified.crl_number), (RootSet::InsecureEmulator, Some(5)));
                assert_eq!(verified.vek_tcb, platform.tcb);
                assert_eq!(
                    (verified.latest_issue_date, verified.earliest_expiration_date),
                    (ISSUED, EXPIRES)
                );
            }
        }
    }
}

#[test]
fn evil_any_changed_byte_of_a_report_is_refused() {
    let platform = milan();
    let report = platform.sign(report(&platform, 5)).unwrap().encode();
    let (collateral, roots) = (platform.collateral().unwrap(), snp_roots(&platform));
    assert_eq!(code(verify(&report, &collateral, &roots, NOW)), "OK");
    for offset in (0..report.len()).step_by(5) {
        let mut report = report.clone();
        report[offset] ^= 0x10;
        assert_ne!(code(verify(&report, &collateral, &roots, NOW)), "OK", "{offset}");
    }
}

#[test]
fn evil_dates_of_every_snp_object_count() {
    type Change = fn(&mut SnpPlatform, (u64, u64));
    let changes: [(&str, Change); 4] = [
        ("ARK certificate", |p, w| (p.ark.not_before, p.ark.not_after) = w),
        ("ASK certificate", |p, w| (p.ask.not_before, p.ask.not_after) = w),
        ("VCEK certificate", |p, w| (p.vek.not_before, p.vek.not_after) = w),
        ("SNP revocation list", |p, w| (p.crl.this_update, p.crl.next_update) = w),
    ];
    for (name, change) in changes {
        for window in [(ISSUED, NOW - 1), (NOW + 1, EXPIRES)] {
            let mut platform = milan();
            change(&mut platform, window);
            match result_of(&platform) {
                Err(EvidenceError::NotInTime { what, .. }) => assert_eq!(what, name),
                other => panic!("{name}: {other:?}"),
            }
        }
        let mut platform = milan();
        change(&mut platform, (NOW + 5, EXPIRES));
        let report = platform.sign(report(&platform, 3)).unwrap().encode();
        let (collateral, roots) = (platform.collateral().unwrap(), snp_roots(&platform));
        assert_eq!(latest_issue_date(&report, &collateral, &roots).unwrap(), NOW + 5, "{name}");
        assert_eq!(code(verify_without_clock(&report, &collateral, &roots)), "OK", "{name}");
    }
}

#[test]
fn evil_presented_root_is_compared_never_believed() {
    let platform = milan();
    let (ark, ask) = keys();
    let other =
        SnpPlatform::new((ask, ark), (Generation::Milan, VekKind::Vcek), "tests", ISSUED, EXPIRES).unwrap();
    let report = platform.sign(report(&platform, 3)).unwrap().encode();
    let mut collateral = platform.collateral().unwrap();
    collateral.ark = other.collateral().unwrap().ark;
    assert_eq!(code(verify(&report, &collateral, &snp_roots(&platform), NOW)), "EVIDENCE_ROOT_UNTRUSTED");
    // A complete chain of its own does not help: neither against another emulator nor against AMD.
    let foreign = other.collateral().unwrap();
    let signed = other.sign(self::report(&other, 3)).unwrap().encode();
    for roots in [snp_roots(&platform), SnpRoots::amd().unwrap()] {
        assert_eq!(code(verify(&signed, &foreign, &roots, NOW)), "EVIDENCE_ROOT_UNTRUSTED");
    }
    let empty = SnpRoots::danger_emulator(Vec::new());
    assert_eq!(code(verify(&signed, &foreign, &empty, NOW)), "EVIDENCE_COLLATERAL_MISSING");
}

#[test]
fn evil_chain_signed_by_another_root_is_refused() {
    let platform = milan();
    let (ark, ask) = keys();
    let other =
        SnpPlatform::new((ask, ark), (Generation::Milan, VekKind::Vcek), "tests", ISSUED, EXPIRES).unwrap();
    let mut collateral = other.collateral().unwrap();
    (collateral.ark, collateral.crl) = (None, None);
    let report = other.sign(report(&other, 3)).unwrap().encode();
    let found = verify(&report, &collateral, &snp_roots(&platform), NOW);
    assert_eq!(code(found), "EVIDENCE_SIGNATURE_INVALID");
}

#[test]
fn evil_authority_with_a_short_key_is_refused() {
    let mut platform = milan();
    let sound = platform.ask.public_key.clone();
    platform.ask.public_key = rsa(256, &[1, 0, 1]);
    assert_eq!(code(result_of(&platform)), INVALID);
    // The very key, said to be of another algorithm (RSASSA-PSS).
    let [from, to] = [1, 10].map(|last| tlv(0x06, &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, last]));
    let at = sound.windows(from.len()).position(|window| window == from).unwrap();
    platform.ask.public_key = sound;
    platform.ask.public_key[at..at + to.len()].copy_from_slice(&to);
    assert_eq!(code(result_of(&platform)), INVALID);
}

#[test]
fn evil_authority_with_another_exponent_is_refused() {
    let mut platform = milan();
    platform.ask.public_key = rsa(512, &[3]);
    assert_eq!(code(result_of(&platform)), INVALID);
}

#[test]
fn evil_authority_that_is_no_ca_is_refused() {
    let mut platform = milan();
    platform.ask.extensions.remove(0);
    assert_eq!(code(result_of(&platform)), INVALID);
}

#[test]
fn evil_authority_that_may_not_sign_is_refused() {
    let mut platform = milan();
    set(&mut platform.ask.extensions, "2.5.29.15", tlv(0x03, &[1, 0x02]));
    assert_eq!(code(result_of(&platform)), INVALID);
}

#[test]
fn evil_vcek_under_the_authority_of_vleks_is_refused() {
    let mut platform = milan();
    platform.ask.subject = name("SEV-VLEK-Milan").unwrap();
    platform.vek.issuer = platform.ask.subject.clone();
    assert_eq!(code(result_of(&platform)), INVALID);
}

#[test]
fn evil_weaker_pss_parameters_are_refused() {
    let mut platform = milan();
    platform.vek.algorithm = weaker_pss();
    assert_eq!(code(result_of(&platform)), INVALID);
    let mut platform = milan();
    platform.ask.algorithm = weaker_pss();
    assert_eq!(code(result_of(&platform)), INVALID);
    // What is signed says 32 bytes of salt, what stands beside it 48.
    let mut platform = milan();
    let strong = platform.vek.algorithm.clone();
    let salt = strong.windows(3).position(|window| window == integer(&[48])).unwrap();
    platform.vek.algorithm[salt + 2] = 32;
    let weak = platform.vek.algorithm.clone();
    let report = platform.sign(report(&platform, 3)).unwrap().encode();
    let mut collateral = platform.collateral().unwrap();
    let outside = collateral.vek.windows(weak.len()).rposition(|window| window == weak).unwrap();
    collateral.vek[outside..outside + weak.len()].copy_from_slice(&strong);
    assert_eq!(code(verify(&report, &collateral, &snp_roots(&platform), NOW)), INVALID);
}

#[test]
fn evil_vek_on_another_curve_is_refused() {
    let mut platform = milan();
    let p256 = sequence(&[oid("1.2.840.10045.2.1").unwrap(), oid("1.2.840.10045.3.1.7").unwrap()]);
    let point = platform.vek.public_key[platform.vek.public_key.len() - 97..].to_vec();
    platform.vek.public_key = sequence(&[p256, bit_string(&point)]);
    assert_eq!(code(result_of(&platform)), INVALID);
    // A key for key agreement, and half a point.
    let curve = || oid("1.3.132.0.34").unwrap();
    let agreement = sequence(&[oid("1.3.132.1.12").unwrap(), curve()]);
    let signing = sequence(&[oid("1.2.840.10045.2.1").unwrap(), curve()]);
    let half = [&[2 | (point[96] & 1)], &point[1..49]].concat();
    for key in [sequence(&[agreement, bit_string(&point)]), sequence(&[signing, bit_string(&half)])] {
        platform.vek.public_key = key;
        match result_of(&platform) {
            Err(error @ EvidenceError::CertificateInvalid { .. }) => {
                assert!(error.to_string().contains("a P-384 key"), "{error}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn evil_vek_that_is_an_authority_is_refused() {
    let mut platform = milan();
    let constraints = sequence(&[tlv(0x01, &[0xff])]);
    platform.vek.extensions.push(Extension::new("2.5.29.19", true, constraints));
    assert_eq!(code(result_of(&platform)), INVALID);
}

#[test]
fn evil_vlek_presented_as_vcek_is_refused() {
    let mut platform = milan();
    platform.vek.subject = name("SEV-VLEK").unwrap();
    assert_eq!(code(result_of(&platform)), INVALID);
    let mut platform = milan();
    platform.vek.extensions.pop();
    platform.vek.extensions.push(Extension::new("1.3.6.1.4.1.3704.1.5", false, tlv(0x16, b"operator")));
    assert_eq!(code(result_of(&platform)), INVALID);
}

#[test]
fn evil_certificate_of_another_issuer_name_is_refused() {
    let mut platform = milan();
    platform.vek.issuer = name("SEV-Genoa").unwrap();
    assert_eq!(code(result_of(&platform)), INVALID);
    let mut platform = milan();
    platform.ask.issuer = name("ARK-Genoa").unwrap();
    assert_eq!(code(result_of(&platform)), INVALID);
}

#[test]
fn evil_repeated_extension_is_refused() {
    let mut platform = milan();
    let again = platform.vek.extensions[2].clone();
    platform.vek.extensions.push(again);
    assert_eq!(code(result_of(&platform)), INVALID);
}

#[test]
fn evil_unknown_critical_extension_is_refused() {
    let mut platform = milan();
    platform.vek.extensions.push(Extension::new("1.2.3.4", true, vec![5, 0]));
    assert_eq!(code(result_of(&platform)), INVALID);
}

#[test]
fn evil_vek_of_another_tcb_is_refused() {
    for (id, generation) in
        [("3.1", Generation::Milan), ("3.8", Generation::Genoa), ("3.9", Generation::Turin)]
    {
        let mut platform = snp(generation, VekKind::Vcek);
        set(&mut platform.vek.extensions, &format!("1.{id}"), integer(&[200]));
        assert_eq!(code(result_of(&platform)), "EVIDENCE_PLATFORM_MISMATCH", "{id}");
    }
    // The TCB that runs may be newer than the one the key was derived for.
    let platform = milan();
    let mut newer = report(&platform, 3);
    newer.current_tcb.snp += 1;
    assert_eq!(code(result_with(&platform, newer)), "OK");
}

#[test]
fn evil_vcek_of_another_chip_is_refused() {
    for generation in [Generation::Milan, Generation::Turin] {
        let platform = snp(generation, VekKind::Vcek);
        let mut other = report(&platform, 3);
        other.chip_id.0[7] ^= 1;
        assert_eq!(code(result_with(&platform, other)), "EVIDENCE_PLATFORM_MISMATCH");
        let masked = SnpReport { chip_id: Octets([0; 64]), ..report(&platform, 3) };
        assert_eq!(code(result_with(&platform, masked)), "EVIDENCE_PLATFORM_MISMATCH");
    }
    // An id of zeros is nobody's, and a short one is of another generation, whatever the report says.
    for id in [vec![0; 64], vec![7; 8]] {
        let mut platform = milan();
        set(&mut platform.vek.extensions, ".3704.1.4", id.clone());
        let same = SnpReport { chip_id: Octets::fitted(&id), ..report(&platform, 3) };
        assert_eq!(code(result_with(&platform, same)), "EVIDENCE_PLATFORM_MISMATCH");
    }
}

#[test]
fn evil_vek_of_another_generation_is_refused() {
    let platform = milan();
    let genoa = SnpReport { cpuid: Some([0x19, 0x11, 1]), ..report(&platform, 3) };
    assert_eq!(code(result_with(&platform, genoa)), "EVIDENCE_PLATFORM_MISMATCH");
}

#[test]
fn evil_report_without_signature_algorithm_is_refused() {
    let platform = milan();
    let none = SnpReport { signature_algorithm: 0, ..report(&platform, 3) };
    assert_eq!(code(result_with(&platform, none)), "EVIDENCE_UNSUPPORTED");
}

#[test]
fn evil_report_with_masked_chip_key_is_refused() {
    let platform = milan();
    let masked = SnpReport { key_info: KeyInfo(2), ..report(&platform, 3) };
    assert_eq!(code(result_with(&platform, masked)), "EVIDENCE_UNSUPPORTED");
}

#[test]
fn evil_report_of_another_signing_key_is_refused() {
    let platform = milan();
    for key in [1, 7] {
        let other = SnpReport { key_info: KeyInfo(key << 2), ..report(&platform, 3) };
        assert_eq!(code(result_with(&platform, other)), "EVIDENCE_PLATFORM_MISMATCH");
    }
}

#[test]
fn evil_revocation_list_of_another_issuer_is_refused() {
    let mut platform = milan();
    platform.crl.issuer = name("ARK-Genoa").unwrap();
    assert_eq!(code(result_of(&platform)), INVALID);
}

#[test]
fn evil_revocation_list_with_weaker_parameters_is_refused() {
    let mut platform = milan();
    platform.crl.algorithm = weaker_pss();
    assert_eq!(code(result_of(&platform)), INVALID);
}

#[test]
fn evil_forged_revocation_list_is_refused() {
    let platform = milan();
    let report = platform.sign(report(&platform, 3)).unwrap().encode();
    let mut collateral = platform.collateral().unwrap();
    *collateral.crl.as_mut().unwrap().last_mut().unwrap() ^= 1;
    assert_eq!(code(verify(&report, &collateral, &snp_roots(&platform), NOW)), "EVIDENCE_SIGNATURE_INVALID");
}

#[test]
fn evil_revoked_authority_is_refused() {
    let mut platform = milan();
    platform.crl.revoked = vec![vec![9], vec![2]];
    assert_eq!(code(result_of(&platform)), "EVIDENCE_REVOKED");
}

#[test]
fn certificates_of_the_host_are_sorted() {
    let collateral = milan().collateral().unwrap();
    let of = |kind, data: &[u8]| SnpCertificate { kind, data: data.to_vec() };
    let pem = pem::encode_chain(std::slice::from_ref(&collateral.vek)).into_bytes();
    let table = [
        of(SnpCertificateKind::Vcek, &pem),
        of(SnpCertificateKind::Ask, collateral.ask.as_ref().unwrap()),
        of(SnpCertificateKind::Ark, collateral.ark.as_ref().unwrap()),
        of(SnpCertificateKind::Crl, collateral.crl.as_ref().unwrap()),
    ];
    assert_eq!(SnpCollateral::sort(&table).unwrap(), collateral);
    assert_eq!(code(SnpCollateral::sort(&table[1..])), "EVIDENCE_COLLATERAL_MISSING");
    assert_eq!(code(SnpCollateral::sort(&[table[0].clone(), table[0].clone()])), INVALID);
    let both = [table[0].clone(), of(SnpCertificateKind::Vlek, &collateral.vek)];
    assert_eq!(code(SnpCollateral::sort(&both)), INVALID);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_mutation_of_a_signed_report_is_refused(offset in 0usize..1184, flip in 1u8..) {
        let platform = milan();
        let mut report = platform.sign(report(&platform, 3)).unwrap().encode();
        report[offset] ^= flip;
        let (collateral, roots) = (platform.collateral().unwrap(), snp_roots(&platform));
        prop_assert!(verify(&report, &collateral, &roots, NOW).is_err());
    }
}
