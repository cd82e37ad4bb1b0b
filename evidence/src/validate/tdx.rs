//! Rules for TDX guests.

use crate::bytes::Octets;
use crate::validate::{Expect, GuestRules, Judgement};
use crate::verify::tdx::VerifiedTdx;

/// Rules for TDX quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TdxRules {
    /// Lowest number of the PCK revocation list.
    pub min_pck_crl_number: u64,
    /// Lowest number of the root's revocation list.
    pub min_root_crl_number: u64,
    /// Lowest TCB-evaluation number of the collateral.
    pub min_tcb_evaluation: u64,
    /// Lowest TEE TCB SVN, componentwise.
    pub min_tee_tcb_svn: Octets<16>,
    /// Build-time measurement.
    pub mr_td: Expect<Octets<48>>,
    /// Owner, chosen at launch.
    pub mr_owner: Expect<Octets<48>>,
    /// Owner's configuration, chosen at launch.
    pub mr_owner_config: Expect<Octets<48>>,
    /// Runtime measurement registers.
    pub rtmr: [Expect<Octets<48>>; 4],
    /// Extended features of the TD.
    pub xfam: Expect<Octets<8>>,
}

/// Judges a verified quote.
pub fn validate_tdx(verified: &VerifiedTdx, guest: &GuestRules, rules: &TdxRules) -> Judgement {
    let body = &verified.quote.body;
    let mut judgement = Judgement::new();
    // GUARD: rule-report-data -> evil_every_tdx_rule_denies
    judgement.expect("report_data", &guest.report_data, &body.report_data);
    // GUARD: rule-tdx-initdata -> evil_every_tdx_rule_denies
    judgement.initdata(&guest.initdata, &body.mr_config_id);
    // GUARD: rule-tdx-debug -> evil_every_tdx_rule_denies
    judgement.debug(guest.debug, body.is_debug());
    // GUARD: rule-mrtd -> evil_every_tdx_rule_denies
    judgement.expect("mrtd", &rules.mr_td, &body.mr_td);
    for ((rule, choice), found) in
        ["rtmr0", "rtmr1", "rtmr2", "rtmr3"].into_iter().zip(&rules.rtmr).zip(&body.rtmr)
    {
        // GUARD: rule-rtmr -> evil_every_tdx_rule_denies
        judgement.expect(rule, choice, found);
    }
    // GUARD: rule-xfam -> evil_every_tdx_rule_denies
    judgement.expect("xfam", &rules.xfam, &body.xfam);
    // GUARD: rule-mrowner -> evil_every_tdx_rule_denies
    judgement.expect("mrowner", &rules.mr_owner, &body.mr_owner);
    // GUARD: rule-mrownerconfig -> evil_every_tdx_rule_denies
    judgement.expect("mrownerconfig", &rules.mr_owner_config, &body.mr_owner_config);
    let minimum = &rules.min_tee_tcb_svn;
    let enough = body.tee_tcb_svn.0.iter().zip(&minimum.0).all(|(found, minimum)| found >= minimum);
    // GUARD: rule-tee-tcb-svn -> evil_every_tdx_rule_denies
    judgement.rule("min_tee_tcb_svn", format_args!("each of {minimum} or more"), body.tee_tcb_svn, enough);
    let evaluation = Some(u64::from(verified.tcb_evaluation_number));
    // GUARD: rule-tcb-evaluation -> evil_every_tdx_rule_denies
    judgement.at_least("min_tcb_evaluation", rules.min_tcb_evaluation, evaluation);
    // GUARD: rule-pck-crl-number -> evil_every_tdx_rule_denies
    judgement.at_least("min_pck_crl_number", rules.min_pck_crl_number, Some(verified.pck_crl_number));
    // GUARD: rule-root-crl-number -> evil_every_tdx_rule_denies
    judgement.at_least("min_root_crl_number", rules.min_root_crl_number, Some(verified.root_crl_number));
    // GUARD: rule-tdx-certificate-chain -> evil_every_tdx_rule_denies
    judgement.expect("certificate_chain", &guest.certificate_chain, &verified.certificate_chain);
    judgement
}
