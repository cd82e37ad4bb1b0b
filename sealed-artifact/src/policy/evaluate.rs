//! Evaluation of what needs no evidence: environment, tier, family, link mode, counter.

use std::fmt::Display;

use super::{Choice, LinkMode, PolicyRules};
use crate::core::Core;
use crate::error::{ArtifactError, Found};
use crate::names::{Counter, EnvironmentTag, Family};

/// What is, beside evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticFacts {
    /// Counter of the core.
    pub counter: Counter,
    /// Environment tag of the core.
    pub environment: EnvironmentTag,
    /// Family of the core.
    pub family: Family,
    /// How key or plaintext would reach the guest.
    pub link_mode: LinkMode,
    /// What the recipient was provisioned for.
    pub tier: EnvironmentTag,
}

impl StaticFacts {
    /// The facts of a core at a recipient.
    #[must_use]
    pub fn of(core: &Core, tier: EnvironmentTag, link_mode: LinkMode) -> Self {
        let parameters = core.parameters();
        Self {
            counter: parameters.counter(),
            environment: parameters.environment().clone(),
            family: parameters.family().clone(),
            link_mode,
            tier,
        }
    }
}

pub(super) fn evaluate(rules: &PolicyRules, facts: &StaticFacts) -> Result<(), ArtifactError> {
    // GUARD: policy-environment -> evil_core_of_another_environment_is_denied
    allow("environment", &rules.environment, &facts.environment)?;
    // GUARD: policy-tier -> evil_recipient_of_another_tier_is_denied
    allow("tier", &rules.environment, &facts.tier)?;
    // GUARD: policy-family -> evil_core_of_another_family_is_denied
    allow("family", &rules.family, &facts.family)?;
    // GUARD: policy-link-mode -> evil_other_link_mode_is_denied
    allow("link_mode", &rules.link_mode, &facts.link_mode)?;
    // GUARD: policy-min-counter -> evil_counter_below_the_policy_is_denied
    if facts.counter < rules.min_counter {
        return Err(ArtifactError::PolicyDenied {
            rule: "min_counter",
            expected: Found::value(format_args!("{} or more", rules.min_counter)),
            found: Found::value(facts.counter),
        });
    }
    Ok(())
}

fn allow<T: PartialEq + Display>(
    rule: &'static str,
    allowed: &Choice<T>,
    found: &T,
) -> Result<(), ArtifactError> {
    if allowed.allows(found) {
        return Ok(());
    }
    Err(ArtifactError::PolicyDenied { rule, expected: Found::value(allowed), found: Found::value(found) })
}
