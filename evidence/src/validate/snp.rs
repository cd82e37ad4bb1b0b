//! Rules for SEV-SNP guests.

use crate::abi::snp::{Generation, GuestPolicy, Tcb};
use crate::bytes::Octets;
use crate::validate::{Expect, GuestRules, Judgement};
use crate::verify::snp::VerifiedSnp;

/// Rules for SEV-SNP reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnpRules {
    /// Digest of the author key.
    pub author_key_digest: Expect<Octets<48>>,
    /// Id of the chip.
    pub chip_id: Expect<Octets<64>>,
    /// Generation of the processor.
    pub generation: Expect<Generation>,
    /// Guest policy, all bits.
    pub guest_policy: Expect<GuestPolicy>,
    /// Digest of the id key.
    pub id_key_digest: Expect<Octets<48>>,
    /// Highest VMPL of the report.
    pub max_vmpl: u32,
    /// Launch measurement.
    pub measurement: Expect<Octets<48>>,
    /// Lowest number of the revocation list; above 0, one has to be presented.
    pub min_crl_number: u64,
    /// Lowest security version of the guest.
    pub min_guest_svn: u32,
    /// Lowest reported TCB in the raw layout of the report's generation, componentwise.
    pub min_tcb: Octets<8>,
}

/// Judges a verified report. A `min_tcb` that is not a TCB of the report's generation denies.
pub fn validate_snp(verified: &VerifiedSnp, guest: &GuestRules, rules: &SnpRules) -> Judgement {
    let report = &verified.report;
    let mut judgement = Judgement::new();
    // GUARD: rule-snp-report-data -> evil_every_snp_rule_denies
    judgement.expect("report_data", &guest.report_data, &report.report_data);
    // GUARD: rule-snp-initdata -> evil_every_snp_rule_denies
    judgement.initdata(&guest.initdata, &report.host_data);
    // GUARD: rule-snp-debug -> evil_every_snp_rule_denies
    judgement.debug(guest.debug, report.policy.is_debug());
    // GUARD: rule-measurement -> evil_every_snp_rule_denies
    judgement.expect("measurement", &rules.measurement, &report.measurement);
    // GUARD: rule-guest-policy -> evil_every_snp_rule_denies
    judgement.expect("guest_policy", &rules.guest_policy, &report.policy);
    let maximum = rules.max_vmpl;
    // GUARD: rule-vmpl -> evil_every_snp_rule_denies
    judgement.rule("max_vmpl", format_args!("{maximum} or less"), report.vmpl, report.vmpl <= maximum);
    // GUARD: rule-generation -> evil_every_snp_rule_denies
    judgement.expect("generation", &rules.generation, &verified.generation);
    // GUARD: rule-min-tcb -> evil_every_snp_rule_denies
    min_tcb(&mut judgement, rules.min_tcb, verified);
    // GUARD: rule-id-key-digest -> evil_every_snp_rule_denies
    judgement.expect("id_key_digest", &rules.id_key_digest, &report.id_key_digest);
    // GUARD: rule-author-key-digest -> evil_every_snp_rule_denies
    judgement.expect("author_key_digest", &rules.author_key_digest, &report.author_key_digest);
    // GUARD: rule-chip-id -> evil_every_snp_rule_denies
    judgement.expect("chip_id", &rules.chip_id, &report.chip_id);
    let svn = Some(u64::from(report.guest_svn));
    // GUARD: rule-guest-svn -> evil_every_snp_rule_denies
    judgement.at_least("min_guest_svn", u64::from(rules.min_guest_svn), svn);
    // GUARD: rule-snp-crl-number -> evil_every_snp_rule_denies
    judgement.at_least("min_crl_number", rules.min_crl_number, verified.crl_number);
    // GUARD: rule-snp-certificate-chain -> evil_every_snp_rule_denies
    judgement.expect("certificate_chain", &guest.certificate_chain, &verified.certificate_chain);
    judgement
}

fn min_tcb(judgement: &mut Judgement, minimum: Octets<8>, verified: &VerifiedSnp) {
    let reported = verified.report.reported_tcb;
    match Tcb::parse(minimum, verified.generation) {
        Ok(minimum) => {
            let holds = reported.is_at_least(minimum);
            judgement.rule("min_tcb", format_args!("each of {minimum} or more"), reported, holds);
        }
        Err(_layout) => {
            let expected = format_args!("each of {minimum} or more, a TCB of another generation");
            judgement.rule("min_tcb", expected, reported, false);
        }
    }
}
