use proptest::prelude::*;

use crate::abi::tdx::{QuoteVersion, Td15, TdBody, TdExtension};
use crate::bytes::Octets;
use crate::error::{Class, EvidenceError};
use crate::fixture::{EXPIRES, ISSUED, NOW, body, code, tdx, tdx_root};
use crate::mint::der::Extension;
use crate::mint::tdx::{SEPT_VE_DISABLE, TdxPlatform, sgx_extension};
use crate::verify::roots::{RootSet, TdxRoot};
use crate::verify::tdx::{
    Appraisal, TcbStatus, VerifiedTdx, latest_issue_date, verify, verify_without_clock,
};

fn result_of(platform: &TdxPlatform, body: TdBody, now: u64) -> Result<VerifiedTdx, EvidenceError> {
    let quote = platform.quote(body).unwrap().encode();
    verify(&quote, &platform.collateral().unwrap(), &tdx_root(platform), &Appraisal::strict(), now)
}

#[test]
fn emulated_quotes_of_every_kind_verify() {
    let platform = tdx();
    let td15 = Td15::default();
    for extension in
        [TdExtension::Td10, TdExtension::Td15(td15), TdExtension::Td15Extended(td15, Octets([0; 237]))]
    {
        let verified = result_of(&platform, TdBody { extension, ..body() }, NOW).unwrap();
        assert_eq!(verified.roots, RootSet::InsecureEmulator);
        assert_eq!((verified.tcb_status, verified.tcb_evaluation_number), (TcbStatus::UpToDate, 17));
        assert_eq!((verified.pck_crl_number, verified.root_crl_number), (9, 7));
        assert_eq!(verified.fmspc.0, platform.fmspc);
        assert_eq!((verified.latest_issue_date, verified.earliest_expiration_date), (ISSUED, EXPIRES));
    }
    let quote = platform.quote_of_version(QuoteVersion::V5, body()).unwrap().encode();
    let (collateral, root) = (platform.collateral().unwrap(), tdx_root(&platform));
    let verified = verify_without_clock(&quote, &collateral, &root, &Appraisal::strict()).unwrap();
    assert_eq!(verified.quote.body.report_data, Octets([0x5a; 64]));
}

#[test]
fn evil_any_changed_byte_of_a_quote_is_refused() {
    let platform = tdx();
    let mut quote = platform.quote(body()).unwrap();
    quote.pck_chain.push(0);
    let (quote, collateral, root) = (quote.encode(), platform.collateral().unwrap(), tdx_root(&platform));
    let result = |quote: &[u8]| code(verify(quote, &collateral, &root, &Appraisal::strict(), NOW));
    assert_eq!(result(&quote), "OK");
    for offset in (0..quote.len()).step_by(13).chain([quote.len() - 1]) {
        let mut quote = quote.clone();
        quote[offset] ^= 0x58;
        assert_ne!(result(&quote), "OK", "{offset}");
    }
    for (offset, byte) in quote.iter().enumerate().filter(|(offset, byte)| *offset > 1258 && **byte == b'\n')
    {
        for to in [b' ', b'\r', b'\t', b'A', b'='] {
            let mut quote = quote.clone();
            quote[offset] = to;
            assert_ne!(result(&quote), "OK", "{offset}: {byte} to {to}");
        }
    }
}

#[test]
fn evil_dates_of_every_tdx_object_count() {
    type Change = fn(&mut TdxPlatform, (u64, u64));
    let changes: [(&str, Change); 8] = [
        ("Intel root certificate", |p, w| (p.root.not_before, p.root.not_after) = w),
        ("PCK CA certificate", |p, w| (p.ca.not_before, p.ca.not_after) = w),
        ("PCK certificate", |p, w| (p.pck.not_before, p.pck.not_after) = w),
        ("TCB info signer", |p, w| (p.signer.not_before, p.signer.not_after) = w),
        ("root revocation list", |p, w| (p.root_crl.this_update, p.root_crl.next_update) = w),
        ("PCK revocation list", |p, w| (p.pck_crl.this_update, p.pck_crl.next_update) = w),
        ("TCB info", |p, w| p.tcb_info_window = w),
        ("QE identity", |p, w| p.qe_identity_window = w),
    ];
    for (name, change) in changes {
        for window in [(ISSUED, NOW - 1), (NOW + 1, EXPIRES)] {
            let mut platform = tdx();
            change(&mut platform, window);
            match result_of(&platform, body(), NOW) {
                Err(error @ EvidenceError::NotInTime { what, .. }) => {
                    assert_eq!((what, error.class()), (name, Class::Unavailable));
                }
                other => panic!("{name}: {other:?}"),
            }
        }
        // The latest date counts where there is no clock, whichever object has it.
        let mut platform = tdx();
        change(&mut platform, (NOW + 5, EXPIRES));
        let quote = platform.quote(body()).unwrap().encode();
        let (collateral, root) = (platform.collateral().unwrap(), tdx_root(&platform));
        assert_eq!(latest_issue_date(&quote, &collateral, &root).unwrap(), NOW + 5, "{name}");
        let verified = verify_without_clock(&quote, &collateral, &root, &Appraisal::strict()).unwrap();
        assert_eq!(verified.latest_issue_date, NOW + 5, "{name}");
    }
}

#[test]
fn evil_tdx_evidence_under_another_root_is_refused() {
    let platform = tdx();
    let other = TdxPlatform::new("another", ISSUED, EXPIRES).unwrap();
    let quote = platform.quote(body()).unwrap().encode();
    let collateral = platform.collateral().unwrap();
    for root in [TdxRoot::intel(), tdx_root(&other)] {
        let found = verify(&quote, &collateral, &root, &Appraisal::strict(), NOW);
        assert_eq!(code(found), "EVIDENCE_ROOT_UNTRUSTED");
    }
    let (foreign, root) = (other.collateral().unwrap(), tdx_root(&platform));
    assert_eq!(code(verify(&quote, &foreign, &root, &Appraisal::strict(), NOW)), "EVIDENCE_ROOT_UNTRUSTED");
}

#[test]
fn evil_extra_certificate_in_a_chain_is_refused() {
    let platform = tdx();
    let (mut collateral, root) = (platform.collateral().unwrap(), tdx_root(&platform));
    let twice = collateral.tcb_info_issuer_chain.repeat(2);
    collateral.tcb_info_issuer_chain = twice;
    let quote = platform.quote(body()).unwrap().encode();
    let found = verify(&quote, &collateral, &root, &Appraisal::strict(), NOW);
    assert_eq!(code(found), "EVIDENCE_CERTIFICATE_INVALID");
}

#[test]
fn evil_absent_collateral_is_unavailable_not_untrusted() {
    let platform = tdx();
    let quote = platform.quote(body()).unwrap().encode();
    let mut collateral = platform.collateral().unwrap();
    collateral.pck_crl.clear();
    let error = verify(&quote, &collateral, &tdx_root(&platform), &Appraisal::strict(), NOW).unwrap_err();
    assert_eq!((error.code(), error.class()), ("EVIDENCE_COLLATERAL_MISSING", Class::Unavailable));
    let mut collateral = platform.collateral().unwrap();
    collateral.tcb_info = "x".repeat(65_537);
    let error = verify(&quote, &collateral, &tdx_root(&platform), &Appraisal::strict(), NOW).unwrap_err();
    assert_eq!(error.code(), "EVIDENCE_TOO_LARGE");
}

#[test]
fn evil_tcb_status_out_of_date_is_refused() {
    let mut platform = tdx();
    platform.tcb_status = "OutOfDate";
    let error = result_of(&platform, body(), NOW).unwrap_err();
    assert_eq!((error.code(), error.class()), ("EVIDENCE_TCB_REFUSED", Class::PolicyDenied));
    let quote = platform.quote(body()).unwrap().encode();
    let named = Appraisal { accepted_statuses: vec![TcbStatus::OutOfDate], ..Appraisal::strict() };
    let verified =
        verify(&quote, &platform.collateral().unwrap(), &tdx_root(&platform), &named, NOW).unwrap();
    assert_eq!(verified.tcb_status, TcbStatus::OutOfDate);
    platform.tcb_status = "Revoked";
    assert_eq!(code(result_of(&platform, body(), NOW)), "EVIDENCE_SIGNATURE_INVALID");
}

#[test]
fn evil_tcb_info_of_another_pce_is_refused() {
    let mut platform = tdx();
    platform.tcb_info_pce_id = [1, 0];
    assert_eq!(code(result_of(&platform, body(), NOW)), "EVIDENCE_PLATFORM_MISMATCH");
    let mut platform = tdx();
    platform.pck.extensions[1].value = sgx_extension([9; 6], [0, 0]).unwrap();
    assert_eq!(code(result_of(&platform, body(), NOW)), "EVIDENCE_SIGNATURE_INVALID");
}

#[test]
fn evil_revoked_pck_is_refused() {
    let mut platform = tdx();
    platform.pck_crl.revoked = vec![vec![3]];
    assert_eq!(code(result_of(&platform, body(), NOW)), "EVIDENCE_SIGNATURE_INVALID");
    let mut platform = tdx();
    platform.root_crl.revoked = vec![vec![2]];
    assert_eq!(code(result_of(&platform, body(), NOW)), "EVIDENCE_SIGNATURE_INVALID");
}

#[test]
fn evil_debug_td_passes_only_by_its_own_choice() {
    let platform = tdx();
    let mut debug = SEPT_VE_DISABLE;
    debug.0[0] = 1;
    let debug = TdBody { td_attributes: debug, ..body() };
    assert_eq!(code(result_of(&platform, debug.clone(), NOW)), "EVIDENCE_SIGNATURE_INVALID");
    let quote = platform.quote(debug).unwrap().encode();
    let judged_later = Appraisal { debug: true, ..Appraisal::strict() };
    let verified = verify(&quote, &platform.collateral().unwrap(), &tdx_root(&platform), &judged_later, NOW);
    assert!(verified.unwrap().quote.body.is_debug());
}

#[test]
fn evil_edited_or_foreign_collateral_is_refused() {
    let platform = tdx();
    let quote = platform.quote(body()).unwrap().encode();
    let mut collateral = platform.collateral().unwrap();
    collateral.tcb_info =
        collateral.tcb_info.replace("\"tcbEvaluationDataNumber\":17", "\"tcbEvaluationDataNumber\":18");
    let found = verify(&quote, &collateral, &tdx_root(&platform), &Appraisal::strict(), NOW);
    assert_eq!(code(found), "EVIDENCE_SIGNATURE_INVALID");
    let mut platform = tdx();
    platform.pck.extensions.push(Extension::new("1.2.3.4", true, vec![5, 0]));
    assert_eq!(code(result_of(&platform, body(), NOW)), "EVIDENCE_SIGNATURE_INVALID");
}

#[test]
fn collateral_keeps_its_json_form() {
    use crate::verify::collateral::TdxCollateral;
    let collateral = tdx().collateral().unwrap();
    assert_eq!(TdxCollateral::parse(collateral.encode().as_bytes()).unwrap(), collateral);
    assert_eq!(code(TdxCollateral::parse(b"{}")), "EVIDENCE_MALFORMED");
    assert_eq!(code(TdxCollateral::parse(&vec![b' '; 600_000])), "EVIDENCE_TOO_LARGE");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_mutation_of_a_signed_quote_is_refused(offset in any::<proptest::sample::Index>(), flip in 1u8..) {
        let platform = tdx();
        let mut quote = platform.quote(body()).unwrap().encode();
        let offset = offset.index(quote.len());
        quote[offset] ^= flip;
        let (collateral, root) = (platform.collateral().unwrap(), tdx_root(&platform));
        prop_assert!(verify(&quote, &collateral, &root, &Appraisal::strict(), NOW).is_err());
    }
}
