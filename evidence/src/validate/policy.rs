//! The rules of a policy document against verified evidence: one call for chip, broker and command line.

use std::fmt;

use sealed_artifact::policy as document;

use crate::abi::snp::{Generation, GuestPolicy};
use crate::bytes::Octets;
use crate::validate::{
    DebugRule, Expect, GuestRules, InitdataDigest, Judgement, SnpRules, TdxRules, validate_snp, validate_tdx,
};
use crate::verify::VerifiedEvidence;

/// The verifier's own minimums, beside those of the policy: provisioned, or the highest number seen of each series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floors {
    /// Lowest number of the PCK revocation list.
    pub min_pck_crl_number: u64,
    /// Lowest number of the revocation list of Intel's root.
    pub min_root_crl_number: u64,
    /// Lowest number of the SNP revocation list; above 0, one has to be presented.
    pub min_snp_crl_number: u64,
    /// Lowest TCB-evaluation number of TDX collateral.
    pub min_tcb_evaluation: u64,
}

impl Floors {
    /// The higher of each.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            min_pck_crl_number: self.min_pck_crl_number.max(other.min_pck_crl_number),
            min_root_crl_number: self.min_root_crl_number.max(other.min_root_crl_number),
            min_snp_crl_number: self.min_snp_crl_number.max(other.min_snp_crl_number),
            min_tcb_evaluation: self.min_tcb_evaluation.max(other.min_tcb_evaluation),
        }
    }
}

/// Judges verified evidence by the evidence rules of a policy ([`document::PolicyDocument::evidence`]). Every minimum
/// is the higher of the policy's and of `floors`.
///
/// Without rules nothing is demanded of the guest but that it attested `report_data`, cannot be debugged, and comes
/// with collateral that is not below `floors`.
///
/// The rule `tee_type` denies evidence of a kind that the policy has no rules for; `unsigned_manifest` denies unless
/// it allows every digest, because no evidence can show one yet.
pub fn judge(
    rules: Option<&document::EvidenceRules>,
    verified: &VerifiedEvidence,
    report_data: &[u8; 64],
    floors: &Floors,
) -> Judgement {
    let mut judgement = Judgement::new();
    let accepted = rules.map_or("tdx or snp", |rules| match (&rules.tdx, &rules.snp) {
        (Some(_), Some(_)) => "tdx or snp",
        (Some(_), None) => "tdx",
        (None, Some(_)) => "snp",
        (None, None) => "none",
    });
    let found = match verified {
        VerifiedEvidence::Snp(_) => "snp",
        VerifiedEvidence::Tdx(_) => "tdx",
    };
    // GUARD: rule-tee-type -> evil_tee_without_rules_is_not_accepted
    judgement.rule("tee_type", accepted, found, accepted.contains(found));
    let guest = guest_rules(rules, report_data);
    judgement.append(match verified {
        VerifiedEvidence::Snp(snp) => {
            validate_snp(snp, &guest, &snp_rules(rules.and_then(|rules| rules.snp.as_ref()), floors))
        }
        VerifiedEvidence::Tdx(tdx) => {
            validate_tdx(tdx, &guest, &tdx_rules(rules.and_then(|rules| rules.tdx.as_ref()), floors))
        }
    });
    let manifest = rules.map_or(Expect::Any, |rules| expect(&rules.unsigned_manifest, octets));
    // GUARD: rule-unsigned-manifest -> evil_unsigned_manifest_that_nothing_shows_is_denied
    judgement.rule("unsigned_manifest", &manifest, "none", manifest == Expect::Any);
    judgement
}

fn guest_rules(rules: Option<&document::EvidenceRules>, report_data: &[u8; 64]) -> GuestRules {
    let report_data = Expect::Exactly(Octets(*report_data));
    let Some(rules) = rules else {
        return GuestRules {
            certificate_chain: Expect::Any,
            debug: DebugRule::Forbidden,
            initdata: Expect::Any,
            report_data,
        };
    };
    GuestRules {
        certificate_chain: expect(&rules.certificate_chain, octets),
        debug: match rules.debug {
            document::DebugRule::Any => DebugRule::Allowed,
            document::DebugRule::Forbidden => DebugRule::Forbidden,
        },
        initdata: expect(&rules.initdata, InitdataDigest::of_policy),
        report_data,
    }
}

fn tdx_rules(rules: Option<&document::TdxRules>, floors: &Floors) -> TdxRules {
    let mut mapped = TdxRules {
        min_pck_crl_number: floors.min_pck_crl_number,
        min_root_crl_number: floors.min_root_crl_number,
        min_tcb_evaluation: floors.min_tcb_evaluation,
        min_tee_tcb_svn: Octets([0; 16]),
        mr_td: Expect::Any,
        mr_owner: Expect::Any,
        mr_owner_config: Expect::Any,
        rtmr: [Expect::Any, Expect::Any, Expect::Any, Expect::Any],
        xfam: Expect::Any,
    };
    let Some(rules) = rules else { return mapped };
    mapped.min_pck_crl_number = mapped.min_pck_crl_number.max(rules.min_pck_crl_number);
    mapped.min_root_crl_number = mapped.min_root_crl_number.max(rules.min_root_crl_number);
    mapped.min_tcb_evaluation = mapped.min_tcb_evaluation.max(rules.min_tcb_evaluation);
    mapped.min_tee_tcb_svn = Octets(rules.min_tee_tcb_svn.0);
    mapped.mr_td = expect(&rules.mrtd, octets);
    mapped.rtmr = rules.rtmr.each_ref().map(|register| expect(register, octets));
    mapped
}

fn snp_rules(rules: Option<&document::SnpRules>, floors: &Floors) -> SnpRules {
    let mut mapped = SnpRules {
        author_key_digest: Expect::Any,
        chip_id: Expect::Any,
        generation: Expect::Any,
        guest_policy: Expect::Any,
        id_key_digest: Expect::Any,
        max_vmpl: 3,
        measurement: Expect::Any,
        min_crl_number: floors.min_snp_crl_number,
        min_guest_svn: 0,
        min_tcb: Octets([0; 8]),
    };
    let Some(rules) = rules else { return mapped };
    mapped.author_key_digest = expect(&rules.author_key_digest, octets);
    mapped.generation = expect(&rules.generation, |generation| match generation {
        document::Generation::Milan => Generation::Milan,
        document::Generation::Genoa => Generation::Genoa,
        document::Generation::Turin => Generation::Turin,
    });
    // Written as a number, most significant digit first.
    mapped.guest_policy = expect(&rules.guest_policy, |bits| GuestPolicy(u64::from_be_bytes(bits.0)));
    mapped.id_key_digest = expect(&rules.id_key_digest, octets);
    mapped.max_vmpl = u32::from(rules.max_vmpl);
    mapped.measurement = expect(&rules.measurement, octets);
    mapped.min_crl_number = mapped.min_crl_number.max(rules.min_crl_number);
    mapped.min_tcb = Octets(rules.min_tcb.0);
    mapped
}

fn expect<T, U: fmt::Display>(choice: &document::Choice<T>, map: impl Fn(&T) -> U) -> Expect<U> {
    match choice {
        document::Choice::Any => Expect::Any,
        document::Choice::Exactly(value) => Expect::Exactly(map(value)),
        document::Choice::OneOf(values) => Expect::OneOf(values.iter().map(map).collect()),
    }
}

fn octets<const N: usize>(hex: &document::Hex<N>) -> Octets<N> {
    Octets(hex.0)
}

#[cfg(test)]
mod tests;
