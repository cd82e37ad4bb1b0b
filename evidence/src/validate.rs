//! Policy only: the fields of verified evidence against explicit choices. No signature is looked at here, and there
//! is no way in but a [`VerifiedTdx`](crate::verify::tdx::VerifiedTdx) or
//! [`VerifiedSnp`](crate::verify::snp::VerifiedSnp).
//!
//! Every rule is evaluated. The result is the ordered list of findings, and the first one that denies is the error.

mod expect;
pub mod policy;
mod snp;
mod tdx;

#[cfg(test)]
mod tests;

use std::fmt;

use crate::bytes::Octets;
use crate::error::{EvidenceError, Found};

pub use expect::{Expect, InitdataDigest};
pub use policy::{Floors, judge};
pub use snp::{SnpRules, validate_snp};
pub use tdx::{TdxRules, validate_tdx};

/// Rules that hold for every kind of guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestRules {
    /// Fingerprint of the platform's certificate chain.
    pub certificate_chain: Expect<Octets<32>>,
    /// Guests that the host can debug.
    pub debug: DebugRule,
    /// Digest of the initdata, bound in MRCONFIGID or HOST_DATA.
    pub initdata: Expect<InitdataDigest>,
    /// What the guest had to have attested; the one form that this verifier expects.
    pub report_data: Expect<Octets<64>>,
}

/// Whether a guest that the host can debug is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DebugRule {
    /// Accepted.
    Allowed,
    /// Refused.
    Forbidden,
}

/// What one rule found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: &'static str,
    /// What it allows.
    pub expected: Found,
    /// What the evidence shows.
    pub found: Found,
    /// Whether the rule is met.
    pub holds: bool,
}

/// What all rules found, in a fixed order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Judgement {
    findings: Vec<Finding>,
}

impl Judgement {
    pub(crate) const fn new() -> Self {
        Self { findings: Vec::new() }
    }

    /// All findings, met and not met.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Those that deny.
    pub fn denials(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| !finding.holds)
    }

    /// The first denial as an error.
    ///
    /// # Errors
    /// `EVIDENCE_POLICY_DENIED`, naming the rule.
    pub fn require(&self) -> Result<(), EvidenceError> {
        // GUARD: judgement -> evil_every_tdx_rule_denies, evil_every_snp_rule_denies
        if let Some(Finding { rule, expected, found, .. }) = self.denials().next() {
            return Err(EvidenceError::PolicyDenied {
                rule,
                expected: expected.clone(),
                found: found.clone(),
            });
        }
        Ok(())
    }

    pub(crate) fn append(&mut self, other: Self) {
        self.findings.extend(other.findings);
    }

    fn push(
        &mut self,
        rule: &'static str,
        expected: impl fmt::Display,
        found: impl fmt::Display,
        holds: bool,
    ) {
        self.findings.push(Finding {
            rule,
            expected: Found::value(expected),
            found: Found::value(found),
            holds,
        });
    }

    /// A choice against a value.
    pub(crate) fn expect<T: PartialEq + fmt::Display>(
        &mut self,
        rule: &'static str,
        choice: &Expect<T>,
        found: &T,
    ) {
        self.push(rule, choice, found, choice.allows(found));
    }

    /// A minimum against a number.
    pub(crate) fn at_least(&mut self, rule: &'static str, minimum: u64, found: Option<u64>) {
        let holds = minimum == 0 || found.is_some_and(|found| found >= minimum);
        match found {
            Some(number) => self.push(rule, format_args!("{minimum} or more"), number, holds),
            None => self.push(rule, format_args!("{minimum} or more"), "none", holds),
        }
    }

    /// The initdata digest against a register that takes `N` bytes.
    pub(crate) fn initdata<const N: usize>(&mut self, choice: &Expect<InitdataDigest>, register: &Octets<N>) {
        let holds = match choice {
            Expect::Any => true,
            Expect::Exactly(digest) => digest.fitted() == *register,
            Expect::OneOf(digests) => digests.iter().any(|digest| digest.fitted() == *register),
        };
        self.push("initdata", choice, register, holds);
    }

    /// Whether the guest can be debugged.
    pub(crate) fn debug(&mut self, rule: DebugRule, is_debug: bool) {
        let (expected, holds) = match rule {
            DebugRule::Allowed => ("any", true),
            DebugRule::Forbidden => ("no debug", !is_debug),
        };
        self.push("debug", expected, if is_debug { "debug" } else { "no debug" }, holds);
    }

    /// Anything that is neither.
    pub(crate) fn rule(
        &mut self,
        rule: &'static str,
        expected: impl fmt::Display,
        found: impl fmt::Display,
        holds: bool,
    ) {
        self.push(rule, expected, found, holds);
    }
}
