//! What is judged before the first byte.

use super::{HostFacts, InsecureChoice, LandingError, LandingPlan, LandingPolicy, SwapPolicy, TeeState};

/// Judges everything that can be judged before the tmpfs exists.
pub(crate) fn before_mount(
    plan: &LandingPlan,
    policy: LandingPolicy,
    facts: &HostFacts,
    tee: TeeState,
) -> Result<(), LandingError> {
    // GUARD: active-tee -> landing_without_tee_is_refused_without_the_choice
    if let Some(needed) = policy.tee.missing_choice(tee) {
        return Err(LandingError::NoActiveTee { needed });
    }
    let (needed, available) = (plan.needed_bytes(), facts.available_bytes());
    // GUARD: memory-preflight -> too_small_memory_is_refused_with_both_numbers
    if needed > available {
        return Err(LandingError::NotEnoughMemory { needed, available });
    }
    Ok(())
}

/// Judges swap, once it is known whether the kernel keeps the tmpfs out of it.
pub(crate) fn after_noswap(
    noswap: bool,
    policy: LandingPolicy,
    facts: &HostFacts,
) -> Result<(), LandingError> {
    let areas = facts.swap().areas();
    // GUARD: swap -> swap_is_refused_without_the_choice
    if areas > 0 && !noswap && policy.swap != SwapPolicy::InsecureSwap {
        return Err(LandingError::SwapOn { areas });
    }
    Ok(())
}

/// The insecure choices without which the landing would have been refused.
pub(crate) fn insecure_in_effect(noswap: bool, facts: &HostFacts, tee: TeeState) -> Vec<InsecureChoice> {
    let swap = (facts.swap().areas() > 0 && !noswap).then_some(InsecureChoice::Swap);
    tee.choice().into_iter().chain(swap).collect()
}

#[cfg(test)]
mod tests;
