//! Conditions of a Rego rule. Whatever comes from a policy is bytes or a number here: only hex digits, decimal digits and
//! words of this source reach the text.

use crate::policy::{Choice, DebugRule, EvidenceRules, Hex, SnpRules, TcbLayout, TdxRules};

/// Conditions of one rule body, a line or a few for each.
#[derive(Debug, Default)]
pub(super) struct Body(String);

impl Body {
    pub(super) fn text(&self) -> &str {
        &self.0
    }

    /// A condition that is written here.
    pub(super) fn line(&mut self, condition: &'static str) {
        self.0 += &format!("    {condition}\n");
    }

    /// `term` is one of `values`. Values stand on lines of their own: readers of Rego limit the length of lines.
    fn one_of(&mut self, term: &'static str, values: impl IntoIterator<Item = String>) {
        let values: Vec<String> = values.into_iter().map(|value| format!("        {value}")).collect();
        self.0 += &format!("    {term} in {{\n{}\n    }}\n", values.join(",\n"));
    }

    /// `term` is one of the values of a choice, if the choice says anything.
    fn choice<T>(&mut self, term: &'static str, choice: &Choice<T>, text: impl Fn(&T) -> String) {
        match choice {
            Choice::Any => {}
            Choice::Exactly(only) => self.one_of(term, [text(only)]),
            Choice::OneOf(all) => self.one_of(term, all.iter().map(text)),
        }
    }

    /// `term` is a number of at least `minimum`: text compares above every number, so the type is asked too.
    fn at_least(&mut self, term: &'static str, minimum: u64) {
        if minimum > 0 {
            self.0 += &format!("    is_number({term})\n    {term} >= {minimum}\n");
        }
    }

    /// Each byte of the hex text `term` is at least that of `minimum`: hex digits of one case compare as numbers do.
    fn bytes_at_least<const N: usize>(&mut self, term: &'static str, minimum: &Hex<N>) {
        if minimum.is_zero() {
            return;
        }
        self.0 += &format!("    is_string({term})\n    count({term}) == {}\n", 2 * N);
        for (index, byte) in minimum.0.iter().enumerate().filter(|(_, byte)| **byte != 0) {
            self.0 += &format!("    substring({term}, {}, 2) >= \"{byte:02x}\"\n", 2 * index);
        }
    }

    /// Conditions for a TDX guest.
    pub(super) fn tdx(&mut self, evidence: &EvidenceRules, rules: &TdxRules) {
        self.line("tdx := evidence.tdx");
        self.line("tdx.tcb_status == \"UpToDate\"");
        self.line("tdx.collateral_expiration_status == \"0\"");
        if evidence.debug == DebugRule::Forbidden {
            self.line("tdx.td_attributes.debug == false");
            self.line("tdx.td_attributes.perfmon == false");
        }
        self.choice("tdx.quote.body.mr_config_id", &evidence.initdata, |digest| {
            fitted(digest.as_bytes(), 48)
        });
        self.choice("tdx.quote.body.mr_td", &rules.mrtd, quoted);
        let [rtmr0, rtmr1, rtmr2, rtmr3] = &rules.rtmr;
        self.choice("tdx.quote.body.rtmr_0", rtmr0, quoted);
        self.choice("tdx.quote.body.rtmr_1", rtmr1, quoted);
        self.choice("tdx.quote.body.rtmr_2", rtmr2, quoted);
        self.choice("tdx.quote.body.rtmr_3", rtmr3, quoted);
        self.bytes_at_least("tdx.quote.body.tcb_svn", &rules.min_tee_tcb_svn);
        self.at_least("tdx.tcb_eval_num", rules.min_tcb_evaluation);
        self.at_least("tdx.pck_crl_num", rules.min_pck_crl_number);
        self.at_least("tdx.root_ca_crl_num", rules.min_root_crl_number);
    }

    /// Conditions for an SEV-SNP guest.
    pub(super) fn snp(&mut self, evidence: &EvidenceRules, rules: &SnpRules) {
        self.line("snp := evidence.snp");
        if evidence.debug == DebugRule::Forbidden {
            self.line("snp.policy_debug_allowed == false");
        }
        self.choice("evidence.init_data", &evidence.initdata, |digest| fitted(digest.as_bytes(), 32));
        self.choice("snp.measurement", &rules.measurement, quoted);
        let terms = "[snp.policy_abi_major, snp.policy_abi_minor, snp.policy_smt_allowed, \
            snp.policy_migrate_ma, snp.policy_debug_allowed, snp.policy_single_socket]";
        self.choice(terms, &rules.guest_policy, guest_policy);
        let [first, second, third, fourth, .., last_but_one, last] = rules.min_tcb.0;
        let (bootloader, tee, snp) = match TcbLayout::of(&rules.generation) {
            Some(TcbLayout::Turin) => (second, third, fourth),
            Some(TcbLayout::Milan) | None => (first, second, last_but_one),
        };
        self.at_least("snp.reported_tcb_bootloader", bootloader.into());
        self.at_least("snp.reported_tcb_tee", tee.into());
        self.at_least("snp.reported_tcb_snp", snp.into());
        self.at_least("snp.reported_tcb_microcode", last.into());
    }
}

fn quoted<const N: usize>(value: &Hex<N>) -> String {
    format!("\"{}\"", hex::encode(value.0))
}

/// An initdata digest as it stands in a register: cut, or padded with zeros.
fn fitted(digest: &[u8], register: usize) -> String {
    let mut bytes: Vec<u8> = digest.iter().take(register).copied().collect();
    bytes.resize(register, 0);
    format!("\"{}\"", hex::encode(bytes))
}

/// The parts of a guest policy that are claims.
fn guest_policy(policy: &Hex<8>) -> String {
    let bits = u64::from_be_bytes(policy.0);
    let flag = |bit: u32| bits >> bit & 1 == 1;
    let (minor, major) = (bits & 0xff, bits >> 8 & 0xff);
    format!("[{major}, {minor}, {}, {}, {}, {}]", flag(16), flag(18), flag(19), flag(20))
}
