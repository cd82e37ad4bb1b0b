//! Material that nobody here signed.

use crate::abi::snp::Generation;
use crate::abi::tdx::TdxQuote;
use crate::error::EvidenceError;
use crate::fixture::{code, genuine};
use crate::verify::certificate::Parsed;
use crate::verify::collateral::TdxCollateral;
use crate::verify::roots::{RootSet, SnpRoots, TdxRoot};
use crate::verify::snp::{self, SnpCollateral, VekKind};
use crate::verify::tdx::{self, Appraisal, TcbStatus};
use crate::verify::vek;

fn tdx_material(name: &str) -> (Vec<u8>, TdxCollateral) {
    let quote = genuine(&format!("{name}-quote.bin"));
    let quote = TdxQuote::without_padding(&quote).unwrap().to_vec();
    (quote, TdxCollateral::parse(&genuine(&format!("{name}-collateral.json"))).unwrap())
}

#[test]
fn genuine_intel_quotes_verify_without_a_clock() {
    for (name, evaluation) in [("tdx-v4", 17), ("tdx-v5-td15ex", 20)] {
        let (quote, collateral) = tdx_material(name);
        let result = |appraisal: &Appraisal| {
            tdx::verify_without_clock(&quote, &collateral, &TdxRoot::intel(), appraisal)
        };
        // These servers can be extended by packages and use cached keys: accepted only by name.
        assert_eq!(code(result(&Appraisal::strict())), "EVIDENCE_TCB_REFUSED");
        let verified = result(&Appraisal::servers()).unwrap();
        assert_eq!(verified.roots, RootSet::Builtin);
        assert_eq!(verified.tcb_status, TcbStatus::UpToDate, "{name}");
        assert_eq!(verified.tcb_evaluation_number, evaluation);
        assert_eq!(verified.fmspc.to_string(), "b0c06f000000");
        assert!(verified.pck_crl_number > 0 && verified.root_crl_number > 0);
        assert!(!verified.quote.body.is_debug());
    }
}

#[test]
fn genuine_intel_quote_of_an_old_platform_is_refused() {
    let (quote, collateral) = tdx_material("tdx-v5-td15");
    let found = tdx::verify_without_clock(&quote, &collateral, &TdxRoot::intel(), &Appraisal::strict());
    assert_eq!(code(found), "EVIDENCE_SIGNATURE_INVALID");
}

#[test]
fn evil_genuine_quote_under_other_collateral_or_time_is_refused() {
    let (quote, collateral) = tdx_material("tdx-v4");
    let root = TdxRoot::intel();
    let now = tdx::latest_issue_date(&quote, &collateral, &root).unwrap();
    for when in [now - 1, now + 40 * 86_400] {
        let found = tdx::verify(&quote, &collateral, &root, &Appraisal::strict(), when);
        assert_eq!(code(found), "EVIDENCE_NOT_IN_TIME");
    }
    assert_eq!(code(tdx::verify(&quote, &collateral, &root, &Appraisal::servers(), now)), "OK");
    for offset in (0..quote.len()).step_by(61) {
        let mut quote = quote.clone();
        quote[offset] ^= 1;
        assert_ne!(
            code(tdx::verify(&quote, &collateral, &root, &Appraisal::servers(), now)),
            "OK",
            "{offset}"
        );
    }
}

fn milan() -> (Vec<u8>, SnpCollateral) {
    let report = hex::decode(genuine("snp-milan-v2-report.hex").trim_ascii()).unwrap();
    let vek = genuine("vcek_milan.der");
    (report, SnpCollateral { ark: None, ask: None, crl: None, kind: VekKind::Vcek, vek })
}

#[test]
fn genuine_milan_report_verifies() {
    let (report, collateral) = milan();
    let verified = snp::verify_without_clock(&report, &collateral, &SnpRoots::amd().unwrap()).unwrap();
    assert_eq!(verified.roots, RootSet::Builtin);
    assert_eq!(verified.generation, Generation::Milan);
    assert_eq!(verified.vek_tcb, verified.report.reported_tcb);
    assert_eq!(verified.crl_number, None);
}

#[test]
fn evil_genuine_milan_report_changed_or_in_2040_is_refused() {
    let (report, collateral) = milan();
    let roots = SnpRoots::amd().unwrap();
    let now = snp::latest_issue_date(&report, &collateral, &roots).unwrap();
    for when in [now - 1, 2_208_988_800] {
        assert_eq!(code(snp::verify(&report, &collateral, &roots, when)), "EVIDENCE_NOT_IN_TIME");
    }
    for offset in (0..report.len()).step_by(37) {
        let mut report = report.clone();
        report[offset] ^= 1;
        assert_ne!(code(snp::verify(&report, &collateral, &roots, now)), "OK", "{offset}");
    }
}

#[test]
fn genuine_turin_certificate_has_the_form_of_its_kind() -> Result<(), EvidenceError> {
    let vcek = Parsed::parse("VCEK certificate", &genuine("vcek_turin.der"))?;
    assert_eq!(vek::product(&vcek)?, Generation::Turin);
    vek::end_entity(&vcek, VekKind::Vcek)?;
    assert!(vek::tcb(&vcek, Generation::Turin)?.fmc.is_some());
    for root in SnpRoots::amd()?.roots {
        let ark = Parsed::parse("ARK certificate", &root.ark)?;
        let ask = Parsed::parse("ASK certificate", &root.ask)?;
        vek::authority(&ark, &format!("ARK-{}", root.generation))?;
        vek::authority(&ask, &format!("SEV-{}", root.generation))?;
        ask.named_as_issuer(&ark)?;
        if root.generation == Generation::Turin {
            vcek.named_as_issuer(&ask)?;
        }
    }
    Ok(())
}
