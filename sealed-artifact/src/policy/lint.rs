//! Weaknesses of a policy: what it fails to demand.

use super::{DebugRule, EvidenceRules, Policy, PolicyRules, SnpRules, TdxRules};

/// One weakness, with a stable code and a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weakness {
    code: &'static str,
    sentence: &'static str,
}

impl Weakness {
    /// Stable code, `WEAK_…`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.code
    }

    /// What the weakness means.
    #[must_use]
    pub const fn sentence(&self) -> &'static str {
        self.sentence
    }
}

macro_rules! weakness {
    ($name:ident, $sentence:literal) => {
        const $name: Weakness = Weakness { code: stringify!($name), sentence: $sentence };
    };
}

weakness!(WEAK_DEBUG, "a guest whose memory the host may read with a debugger is accepted");
weakness!(WEAK_ENVIRONMENT, "cores and recipients of every environment, test ones included, are accepted");
weakness!(WEAK_FAMILY, "cores of every family are accepted");
weakness!(WEAK_INITDATA, "a guest with any configuration is accepted");
weakness!(WEAK_MAX_VMPL, "reports from software below the most privileged level are accepted");
weakness!(WEAK_MEASUREMENT, "a SEV-SNP guest with any firmware and kernel is accepted");
weakness!(WEAK_MIN_COUNTER, "every earlier version of the artifact is accepted");
weakness!(WEAK_MIN_TCB, "SEV-SNP platforms with every known vulnerability are accepted");
weakness!(WEAK_MIN_TCB_EVALUATION, "TDX platforms judged by TCB information of any age are accepted");
weakness!(WEAK_MIN_TEE_TCB_SVN, "TDX modules with every known vulnerability are accepted");
weakness!(WEAK_MRTD, "a TDX guest with any firmware is accepted");
weakness!(WEAK_NO_EVIDENCE, "nothing is demanded of the guest");
weakness!(WEAK_OPAQUE, "the policy binds by its digest only: recipients do not evaluate it");
weakness!(WEAK_RTMR1, "a TDX guest with any kernel is accepted");
weakness!(WEAK_RTMR2, "a TDX guest with any kernel command line or initial file system is accepted");
weakness!(
    WEAK_SNP_COLLATERAL,
    "SEV-SNP certificates and revocation lists of any age and generation are accepted"
);
weakness!(WEAK_TDX_COLLATERAL, "TDX collateral and revocation lists of any age are accepted");

pub(super) fn weaknesses(policy: &Policy) -> Vec<Weakness> {
    match policy {
        Policy::Opaque(_) => vec![WEAK_OPAQUE],
        Policy::Rules(rules) => of_rules(rules),
    }
}

fn of_rules(rules: &PolicyRules) -> Vec<Weakness> {
    let mut found = Vec::new();
    match &rules.evidence {
        None => found.push(WEAK_NO_EVIDENCE),
        Some(evidence) => of_evidence(evidence, &mut found),
    }
    let checks = [
        (rules.environment.is_any(), WEAK_ENVIRONMENT),
        (rules.family.is_any(), WEAK_FAMILY),
        (rules.min_counter.value() == 0, WEAK_MIN_COUNTER),
    ];
    add(&checks, &mut found);
    found
}

fn of_evidence(evidence: &EvidenceRules, found: &mut Vec<Weakness>) {
    let checks =
        [(evidence.debug == DebugRule::Any, WEAK_DEBUG), (evidence.initdata.is_any(), WEAK_INITDATA)];
    add(&checks, found);
    if let Some(snp) = &evidence.snp {
        of_snp(snp, found);
    }
    if let Some(tdx) = &evidence.tdx {
        of_tdx(tdx, found);
    }
}

fn of_snp(snp: &SnpRules, found: &mut Vec<Weakness>) {
    let checks = [
        (snp.measurement.is_any(), WEAK_MEASUREMENT),
        (snp.min_tcb.is_zero(), WEAK_MIN_TCB),
        (snp.max_vmpl > 0, WEAK_MAX_VMPL),
        // A recipient without a clock refuses old collateral by these minimums alone.
        (snp.min_tcb.is_zero() && snp.min_crl_number == 0 && snp.generation.is_any(), WEAK_SNP_COLLATERAL),
    ];
    add(&checks, found);
}

fn of_tdx(tdx: &TdxRules, found: &mut Vec<Weakness>) {
    let [_, rtmr1, rtmr2, _] = &tdx.rtmr;
    let checks = [
        (tdx.mrtd.is_any(), WEAK_MRTD),
        (rtmr1.is_any(), WEAK_RTMR1),
        (rtmr2.is_any(), WEAK_RTMR2),
        (tdx.min_tee_tcb_svn.is_zero(), WEAK_MIN_TEE_TCB_SVN),
        (tdx.min_tcb_evaluation == 0, WEAK_MIN_TCB_EVALUATION),
        (
            tdx.min_tcb_evaluation == 0 && tdx.min_pck_crl_number == 0 && tdx.min_root_crl_number == 0,
            WEAK_TDX_COLLATERAL,
        ),
    ];
    add(&checks, found);
}

fn add(checks: &[(bool, Weakness)], found: &mut Vec<Weakness>) {
    found.extend(checks.iter().filter(|(weak, _)| *weak).map(|(_, weakness)| *weakness));
}
