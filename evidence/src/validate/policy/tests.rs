use sealed_artifact::policy::{EvidenceRules, PolicyDocument, TEMPLATE};

use super::{Floors, judge};
use crate::abi::presentation::{Presentation, PresentedEvidence};
use crate::abi::snp::{Generation, GuestPolicy, SnpReport};
use crate::abi::tdx::TdBody;
use crate::fixture::{body, milan, report, snp, snp_roots, tdx, tdx_root};
use crate::mint::tdx::SEPT_VE_DISABLE;
use crate::validate::Judgement;
use crate::verify::roots::Roots;
use crate::verify::snp::{SnpCollateral, VekKind};
use crate::verify::tdx::Appraisal;
use crate::verify::{Clock, VerifiedEvidence, verify_presentation};

const REPORT_DATA: [u8; 64] = [0x5a; 64];
const NONE: Floors =
    Floors { min_pck_crl_number: 0, min_root_crl_number: 0, min_snp_crl_number: 0, min_tcb_evaluation: 0 };

fn verified(evidence: PresentedEvidence, roots: &Roots) -> VerifiedEvidence {
    let presentation = Presentation { evidence, event_log: None };
    let appraisal = Appraisal { debug: true, ..Appraisal::strict() };
    verify_presentation(&presentation, roots, Clock::LatestIssueDate, &appraisal).unwrap()
}

fn tdx_guest(debug: bool) -> VerifiedEvidence {
    let platform = tdx();
    let mut attributes = SEPT_VE_DISABLE;
    attributes.0[0] = u8::from(debug);
    let quote = platform.quote(TdBody { td_attributes: attributes, ..body() }).unwrap().encode();
    let collateral = platform.collateral().unwrap().encode();
    let roots = Roots { snp: snp_roots(&milan()), tdx: Some(tdx_root(&platform)) };
    verified(PresentedEvidence::Tdx { quote, collateral }, &roots)
}

fn snp_guest(
    generation: Generation,
    change: impl FnOnce(&mut SnpReport),
    with_list: bool,
) -> VerifiedEvidence {
    let platform = snp(generation, VekKind::Vcek);
    let mut report = report(&platform, 3);
    change(&mut report);
    let report = platform.sign(report).unwrap().encode();
    let SnpCollateral { ask, crl, kind, vek, .. } = platform.collateral().unwrap();
    let crl = crl.filter(|_| with_list);
    let roots = Roots { snp: snp_roots(&platform), tdx: None };
    verified(PresentedEvidence::Snp { report, kind, vek, ask, crl }, &roots)
}

/// The template with some lines replaced: each change is the whole new line, found by its member.
fn rules(changes: &[&str]) -> EvidenceRules {
    let mut text = TEMPLATE.to_owned();
    for change in changes {
        let member = change.split('=').next().unwrap();
        let line = text.lines().find(|line| line.starts_with(member)).unwrap().to_owned();
        text = text.replace(&line, change);
    }
    PolicyDocument::from_toml(&text).unwrap().evidence().unwrap().clone()
}

fn without(mut rules: EvidenceRules, tee: &str) -> EvidenceRules {
    match tee {
        "snp" => rules.snp = None,
        _ => rules.tdx = None,
    }
    rules
}

fn denied(judgement: &Judgement) -> Vec<&'static str> {
    judgement.denials().map(|finding| finding.rule).collect()
}

fn judged(rules: &EvidenceRules, verified: &VerifiedEvidence) -> Vec<&'static str> {
    denied(&judge(Some(rules), verified, &REPORT_DATA, &NONE))
}

fn no_change(_report: &mut SnpReport) {}

#[test]
fn the_template_accepts_guests_of_both_kinds() {
    let template = rules(&[]);
    for guest in [tdx_guest(false), snp_guest(Generation::Milan, no_change, true)] {
        assert_eq!(judged(&template, &guest), [""; 0]);
        assert_eq!(denied(&judge(None, &guest, &REPORT_DATA, &NONE)), [""; 0]);
        let other = judge(Some(&template), &guest, &[0; 64], &NONE);
        assert_eq!(denied(&other), ["report_data"]);
        assert_eq!(denied(&judge(None, &guest, &[0; 64], &NONE)), ["report_data"]);
    }
}

#[test]
fn evil_tee_without_rules_is_not_accepted() {
    let (tdx, snp) = (tdx_guest(false), snp_guest(Generation::Milan, no_change, true));
    assert_eq!(judged(&without(rules(&[]), "snp"), &snp), ["tee_type"]);
    assert_eq!(judged(&without(rules(&[]), "tdx"), &tdx), ["tee_type"]);
    assert_eq!(judged(&without(rules(&[]), "snp"), &tdx), [""; 0]);
    assert_eq!(judged(&without(rules(&[]), "tdx"), &snp), [""; 0]);
}

#[test]
fn evil_unsigned_manifest_that_nothing_shows_is_denied() {
    let digest = "00".repeat(32);
    for choice in [
        format!("unsigned_manifest = {{ exactly = \"{digest}\" }}"),
        format!("unsigned_manifest = {{ one_of = [\"{digest}\"] }}"),
    ] {
        assert_eq!(judged(&rules(&[&choice]), &tdx_guest(false)), ["unsigned_manifest"]);
    }
}

#[test]
fn evil_debug_guest_is_judged_by_the_policy() {
    let snp = snp_guest(Generation::Milan, |report| report.policy = GuestPolicy(0xb_0000), true);
    for guest in [tdx_guest(true), snp] {
        assert_eq!(judged(&rules(&[]), &guest), ["debug"]);
        assert_eq!(judged(&rules(&["debug = \"any\""]), &guest), [""; 0]);
        assert_eq!(
            denied(&judge(None, &guest, &REPORT_DATA, &NONE)),
            ["debug"],
            "no rules are no permission"
        );
    }
}

#[test]
fn evil_every_mapped_tdx_rule_denies() {
    let other = |member: &str, bytes: usize| format!("{member} = {{ exactly = \"{}\" }}", "77".repeat(bytes));
    let (ones, zeros) = ("01".repeat(16), "00".repeat(16));
    for (change, rule) in [
        (other("certificate_chain", 32), "certificate_chain"),
        (other("initdata", 48), "initdata"),
        (other("mrtd", 48), "mrtd"),
        (other("rtmr0", 48), "rtmr0"),
        (other("rtmr1", 48), "rtmr1"),
        (other("rtmr2", 48), "rtmr2"),
        (other("rtmr3", 48), "rtmr3"),
        ("min_tcb_evaluation = 18".to_owned(), "min_tcb_evaluation"),
        ("min_pck_crl_number = 10".to_owned(), "min_pck_crl_number"),
        ("min_root_crl_number = 8".to_owned(), "min_root_crl_number"),
        (format!("min_tee_tcb_svn = \"{ones}\""), "min_tee_tcb_svn"),
    ] {
        assert_eq!(judged(&rules(&[&change]), &tdx_guest(false)), [rule], "{change}");
    }
    let chain = match tdx_guest(false) {
        VerifiedEvidence::Tdx(tdx) => tdx.certificate_chain,
        VerifiedEvidence::Snp(_) => panic!(),
    };
    let right = rules(&[
        &format!("certificate_chain = {{ exactly = \"{chain}\" }}"),
        &format!("initdata = {{ exactly = \"{}\" }}", "22".repeat(48)),
        &format!("mrtd = {{ one_of = [\"{}\", \"{}\"] }}", "10".repeat(48), "11".repeat(48)),
        &format!("rtmr0 = {{ exactly = \"{}\" }}", "01".repeat(48)),
        &format!("rtmr1 = {{ exactly = \"{}\" }}", "02".repeat(48)),
        &format!("rtmr2 = {{ exactly = \"{}\" }}", "03".repeat(48)),
        &format!("rtmr3 = {{ exactly = \"{}\" }}", "04".repeat(48)),
        "min_tcb_evaluation = 17",
        "min_pck_crl_number = 9",
        "min_root_crl_number = 7",
        &format!("min_tee_tcb_svn = \"{zeros}\""),
    ]);
    assert_eq!(judged(&right, &tdx_guest(false)), [""; 0]);
}

#[test]
fn evil_every_mapped_snp_rule_denies() {
    let guest = || snp_guest(Generation::Milan, |report| report.vmpl = 1, true);
    let other = |member: &str, bytes: usize| format!("{member} = {{ exactly = \"{}\" }}", "77".repeat(bytes));
    let milan = "generation = { one_of = [\"genoa\", \"milan\"] }".to_owned();
    let vmpl = || "max_vmpl = 1".to_owned();
    for (changes, rule) in [
        (vec![vmpl(), other("certificate_chain", 32)], "certificate_chain"),
        (vec![vmpl(), other("initdata", 32)], "initdata"),
        (vec![vmpl(), other("author_key_digest", 48)], "author_key_digest"),
        (vec![vmpl(), other("id_key_digest", 48)], "id_key_digest"),
        (vec![vmpl(), other("guest_policy", 8)], "guest_policy"),
        (vec![vmpl(), other("measurement", 48)], "measurement"),
        (vec![], "max_vmpl"),
        (vec![vmpl(), "generation = { exactly = \"turin\" }".to_owned()], "generation"),
        (vec![vmpl(), "min_crl_number = 6".to_owned()], "min_crl_number"),
        (vec![vmpl(), milan.clone(), "min_tcb = \"0400000000000000\"".to_owned()], "min_tcb"),
    ] {
        let changes: Vec<&str> = changes.iter().map(String::as_str).collect();
        assert_eq!(judged(&rules(&changes), &guest()), [rule], "{changes:?}");
    }
    let right = rules(&[
        "max_vmpl = 1",
        &milan,
        "min_tcb = \"03020000000014d1\"",
        "min_crl_number = 5",
        "guest_policy = { exactly = \"0000000000030000\" }",
        &format!("measurement = {{ exactly = \"{}\" }}", "11".repeat(48)),
        &format!("initdata = {{ exactly = \"{}\" }}", "22".repeat(48)),
    ]);
    assert_eq!(judged(&right, &guest()), [""; 0]);
}

#[test]
fn evil_minimum_tcb_of_another_generation_is_no_minimum() {
    let turin = rules(&["generation = { exactly = \"turin\" }", "min_tcb = \"0000000100000000\""]);
    assert_eq!(judged(&turin, &snp_guest(Generation::Turin, no_change, true)), [""; 0]);
    assert_eq!(
        judged(&turin, &snp_guest(Generation::Milan, no_change, true)),
        ["generation", "min_tcb"],
        "a byte of one layout is not compared with one of the other"
    );
}

#[test]
fn evil_collateral_below_a_floor_is_denied_whatever_the_policy_says() {
    let at = |min_pck_crl_number, min_root_crl_number, min_snp_crl_number, min_tcb_evaluation| Floors {
        min_pck_crl_number,
        min_root_crl_number,
        min_snp_crl_number,
        min_tcb_evaluation,
    };
    let template = rules(&[]);
    let lower = rules(&["min_tcb_evaluation = 1", "min_pck_crl_number = 1", "min_root_crl_number = 1"]);
    for (floors, rule) in [
        (at(10, 0, 0, 0), "min_pck_crl_number"),
        (at(0, 8, 0, 0), "min_root_crl_number"),
        (at(0, 0, 0, 18), "min_tcb_evaluation"),
    ] {
        for rules in [Some(&template), Some(&lower), None] {
            assert_eq!(denied(&judge(rules, &tdx_guest(false), &REPORT_DATA, &floors)), [rule]);
        }
    }
    let guest = tdx_guest(false);
    assert_eq!(denied(&judge(Some(&template), &guest, &REPORT_DATA, &at(9, 7, 99, 17))), [""; 0]);
    // A floor does not lower what the policy demands.
    let higher = rules(&["min_pck_crl_number = 10"]);
    assert_eq!(denied(&judge(Some(&higher), &guest, &REPORT_DATA, &at(1, 1, 1, 1))), ["min_pck_crl_number"]);

    for (with_list, floor, holds) in [(true, 5, true), (true, 6, false), (false, 0, true), (false, 1, false)]
    {
        let guest = snp_guest(Generation::Milan, no_change, with_list);
        for rules in [Some(&template), None] {
            let judgement = judge(rules, &guest, &REPORT_DATA, &at(99, 99, floor, 99));
            assert_eq!(denied(&judgement).is_empty(), holds, "{with_list} {floor}");
            assert!(holds || denied(&judgement) == ["min_crl_number"]);
        }
    }
}

#[test]
fn the_higher_floor_counts() {
    let one = Floors { min_pck_crl_number: 1, min_root_crl_number: 9, ..NONE };
    let two = Floors { min_pck_crl_number: 5, min_snp_crl_number: 2, min_tcb_evaluation: 3, ..NONE };
    let both = Floors {
        min_pck_crl_number: 5,
        min_root_crl_number: 9,
        min_snp_crl_number: 2,
        min_tcb_evaluation: 3,
    };
    assert_eq!((one.and(two), two.and(one)), (both, both));
}
