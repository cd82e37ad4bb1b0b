//! The choices that a caller must make by name, and what they came to.

use std::fmt;

use crate::PageClass;

/// What a landing insists on. There is no default: the caller states each choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LandingPolicy {
    /// Whether plaintext may land outside a trusted execution environment.
    pub tee: TeePolicy,
    /// Whether plaintext may land where the kernel could swap it out.
    pub swap: SwapPolicy,
}

impl LandingPolicy {
    /// The insecure choices that the policy allows, for printing and recording.
    pub fn insecure_choices(&self) -> impl Iterator<Item = InsecureChoice> + use<> {
        let tee = (self.tee == TeePolicy::InsecureNoTee).then_some(InsecureChoice::NoTee);
        let swap = (self.swap == SwapPolicy::InsecureSwap).then_some(InsecureChoice::Swap);
        tee.into_iter().chain(swap)
    }
}

/// Whether a trusted execution environment must be active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TeePolicy {
    /// Land without one. Prevents nothing but accidents: say it loudly.
    InsecureNoTee,
    /// Land only inside one.
    Require,
}

/// Whether swap is accepted where the kernel refuses to keep the landing out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SwapPolicy {
    /// Land although pages can be written to swap.
    InsecureSwap,
    /// Land only where no page can reach swap.
    Refuse,
}

/// A choice that weakens the promise of a landing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InsecureChoice {
    /// No trusted execution environment.
    NoTee,
    /// Swap is accepted.
    Swap,
}

impl InsecureChoice {
    /// The command line flag that makes this choice.
    pub fn flag(self) -> &'static str {
        match self {
            Self::NoTee => "--insecure-no-tee",
            Self::Swap => "--insecure-swap",
        }
    }
}

impl fmt::Display for InsecureChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoTee => "no trusted execution environment is active",
            Self::Swap => "pages of the landing can be written to swap",
        })
    }
}

/// The trusted execution environment that protects this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TeeState {
    /// None that this build can attest.
    None,
}

impl TeeState {
    /// The present state. Until attestation is part of this build, always [`TeeState::None`].
    pub fn current() -> Self {
        Self::None
    }

    pub(crate) fn is_active(self) -> bool {
        match self {
            Self::None => false,
        }
    }
}

/// What a landing came to, for printing and recording.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LandingReport {
    /// Pages of the files.
    pub page_class: PageClass,
    /// The kernel accepted `noswap` for the tmpfs.
    pub noswap: bool,
    /// Number of active swap areas when the landing was made.
    pub swap_areas: usize,
    /// The trusted execution environment.
    pub tee: TeeState,
    /// The insecure choices that had an effect: the landing would have been refused without them.
    pub insecure: Vec<InsecureChoice>,
}
