use super::{
    DebugRule, Expect, GuestRules, InitdataDigest, Judgement, SnpRules, TdxRules, validate_snp, validate_tdx,
};
use crate::abi::snp::{Generation, GuestPolicy, SnpReport};
use crate::abi::tdx::TdBody;
use crate::bytes::Octets;
use crate::error::EvidenceError;
use crate::fixture::{NOW, body, code, report, snp, snp_roots, tdx, tdx_root};
use crate::mint::tdx::SEPT_VE_DISABLE;
use crate::verify::snp::{VekKind, VerifiedSnp};
use crate::verify::tdx::{Appraisal, VerifiedTdx};

fn verified_tdx() -> VerifiedTdx {
    let platform = tdx();
    let mut attributes = SEPT_VE_DISABLE;
    attributes.0[0] = 1;
    let body = TdBody { td_attributes: attributes, ..body() };
    let quote = platform.quote(body).unwrap().encode();
    let appraisal = Appraisal { debug: true, ..Appraisal::strict() };
    let (collateral, root) = (platform.collateral().unwrap(), tdx_root(&platform));
    crate::verify::tdx::verify(&quote, &collateral, &root, &appraisal, NOW).unwrap()
}

fn verified_snp() -> VerifiedSnp {
    let platform = snp(Generation::Milan, VekKind::Vcek);
    let debug = SnpReport { policy: GuestPolicy(0xb_0000), vmpl: 1, ..report(&platform, 3) };
    let report = platform.sign(debug).unwrap().encode();
    let (collateral, roots) = (platform.collateral().unwrap(), snp_roots(&platform));
    crate::verify::snp::verify(&report, &collateral, &roots, NOW).unwrap()
}

fn any_guest() -> GuestRules {
    GuestRules {
        certificate_chain: Expect::Any,
        debug: DebugRule::Allowed,
        initdata: Expect::Any,
        report_data: Expect::Any,
    }
}

fn other_guest() -> GuestRules {
    GuestRules {
        certificate_chain: Expect::Exactly(Octets([1; 32])),
        debug: DebugRule::Forbidden,
        initdata: Expect::Exactly(InitdataDigest::new(&[1; 48]).unwrap()),
        report_data: Expect::Exactly(Octets([1; 64])),
    }
}

fn any_tdx() -> TdxRules {
    TdxRules {
        min_pck_crl_number: 0,
        min_root_crl_number: 0,
        min_tcb_evaluation: 0,
        min_tee_tcb_svn: Octets([0; 16]),
        mr_td: Expect::Any,
        mr_owner: Expect::Any,
        mr_owner_config: Expect::Any,
        rtmr: [Expect::Any, Expect::Any, Expect::Any, Expect::Any],
        xfam: Expect::Any,
    }
}

fn any_snp() -> SnpRules {
    SnpRules {
        author_key_digest: Expect::Any,
        chip_id: Expect::Any,
        generation: Expect::Any,
        guest_policy: Expect::Any,
        id_key_digest: Expect::Any,
        max_vmpl: 3,
        measurement: Expect::Any,
        min_crl_number: 0,
        min_guest_svn: 0,
        min_tcb: Octets([0; 8]),
    }
}

fn denied(judgement: &Judgement) -> Vec<&'static str> {
    judgement.denials().map(|finding| finding.rule).collect()
}

#[test]
fn evil_every_tdx_rule_denies() {
    let verified = verified_tdx();
    let accepted = validate_tdx(&verified, &any_guest(), &any_tdx());
    assert_eq!(code(accepted.require()), "OK");
    let other = || Expect::Exactly(Octets([0x77; 48]));
    let rules = TdxRules {
        min_pck_crl_number: 10,
        min_root_crl_number: 8,
        min_tcb_evaluation: 18,
        min_tee_tcb_svn: Octets([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        mr_td: other(),
        mr_owner: other(),
        mr_owner_config: other(),
        rtmr: [other(), other(), other(), other()],
        xfam: Expect::OneOf(vec![Octets([1; 8])]),
    };
    let judgement = validate_tdx(&verified, &other_guest(), &rules);
    let all = [
        "report_data",
        "initdata",
        "debug",
        "mrtd",
        "rtmr0",
        "rtmr1",
        "rtmr2",
        "rtmr3",
        "xfam",
        "mrowner",
        "mrownerconfig",
        "min_tee_tcb_svn",
        "min_tcb_evaluation",
        "min_pck_crl_number",
        "min_root_crl_number",
        "certificate_chain",
    ];
    assert_eq!(denied(&judgement), all);
    assert_eq!(accepted.findings().len(), all.len());
    match judgement.require() {
        Err(EvidenceError::PolicyDenied { rule, expected, found }) => {
            assert_eq!(rule, "report_data");
            assert_eq!((expected.to_string(), found.to_string()), ("01".repeat(64), "5a".repeat(64)));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn evil_every_snp_rule_denies() {
    let verified = verified_snp();
    let accepted = validate_snp(&verified, &any_guest(), &any_snp());
    assert_eq!(code(accepted.require()), "OK");
    let other = || Expect::Exactly(Octets([0x77; 48]));
    let rules = SnpRules {
        author_key_digest: other(),
        chip_id: Expect::OneOf(Vec::new()),
        generation: Expect::OneOf(vec![Generation::Genoa, Generation::Turin]),
        guest_policy: Expect::Exactly(GuestPolicy(0x3_0000)),
        id_key_digest: other(),
        max_vmpl: 0,
        measurement: other(),
        min_crl_number: 6,
        min_guest_svn: 4,
        min_tcb: Octets([3, 2, 0, 0, 0, 0, 21, 0]),
    };
    let judgement = validate_snp(&verified, &other_guest(), &rules);
    let all = [
        "report_data",
        "initdata",
        "debug",
        "measurement",
        "guest_policy",
        "max_vmpl",
        "generation",
        "min_tcb",
        "id_key_digest",
        "author_key_digest",
        "chip_id",
        "min_guest_svn",
        "min_crl_number",
        "certificate_chain",
    ];
    assert_eq!(denied(&judgement), all);
    assert_eq!(code(judgement.require()), "EVIDENCE_POLICY_DENIED");
}

#[test]
fn minimum_tcb_counts_each_part() {
    let verified = verified_snp();
    for (minimum, holds) in [
        ([3, 2, 0, 0, 0, 0, 20, 209], true),
        ([4, 0, 0, 0, 0, 0, 0, 0], false),
        ([0, 3, 0, 0, 0, 0, 0, 0], false),
        ([0, 0, 0, 0, 0, 0, 21, 0], false),
        ([0, 0, 0, 0, 0, 0, 0, 210], false),
    ] {
        let rules = SnpRules { min_tcb: Octets(minimum), ..any_snp() };
        let judgement = validate_snp(&verified, &any_guest(), &rules);
        assert_eq!(denied(&judgement).is_empty(), holds, "{minimum:?}");
    }
    let turin = SnpRules { min_tcb: Octets([1, 3, 2, 20, 0, 0, 0, 0]), ..any_snp() };
    assert_eq!(denied(&validate_snp(&verified, &any_guest(), &turin)), ["min_tcb"], "another layout");
}

#[test]
fn evil_minimum_list_number_needs_a_list() {
    let mut verified = verified_snp();
    verified.crl_number = None;
    let rules = SnpRules { min_crl_number: 1, ..any_snp() };
    assert_eq!(denied(&validate_snp(&verified, &any_guest(), &rules)), ["min_crl_number"]);
}

#[test]
fn initdata_digests_fit_the_register() {
    let vectors = include_str!("../../../tests/vectors/evidence/aael.json");
    let vectors: serde_json::Value = serde_json::from_str(vectors).unwrap();
    let initdata = &vectors["initdata"];
    let hex = |name: &str| hex::decode(initdata[name].as_str().unwrap()).unwrap();
    let digest = InitdataDigest::new(&hex("sha384_hex")).unwrap();
    assert_eq!(digest.fitted::<48>().0.to_vec(), hex("tdx_mrconfigid_hex"));
    assert_eq!(digest.fitted::<32>().0.to_vec(), hex("snp_hostdata_hex"));
    let short = InitdataDigest::new(&[7; 32]).unwrap().fitted::<48>();
    assert_eq!((&short.0[..32], &short.0[32..]), ([7; 32].as_slice(), [0; 16].as_slice()));

    let guest = |length| GuestRules {
        initdata: Expect::OneOf(vec![
            InitdataDigest::new(&[0; 32]).unwrap(),
            InitdataDigest::new(&vec![0x22; length]).unwrap(),
        ]),
        ..any_guest()
    };
    for length in [32, 48, 64] {
        let snp = validate_snp(&verified_snp(), &guest(length), &any_snp());
        assert_eq!(code(snp.require()), "OK");
        let tdx = validate_tdx(&verified_tdx(), &guest(length), &any_tdx());
        assert_eq!(denied(&tdx).is_empty(), length >= 48);
    }
}

#[test]
fn evil_initdata_digests_of_other_lengths_are_refused() {
    for length in [0, 20, 31, 33, 47, 49, 63, 65] {
        assert_eq!(code(InitdataDigest::new(&vec![0; length])), "EVIDENCE_MALFORMED");
    }
}
