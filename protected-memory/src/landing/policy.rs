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
        let swap = (self.swap == SwapPolicy::InsecureSwap).then_some(InsecureChoice::Swap);
        self.tee.choice().into_iter().chain(swap)
    }
}

/// Whether a trusted execution environment must be active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TeePolicy {
    /// Land beside an emulated one, which protects nothing; not without any.
    InsecureEmulatedTee,
    /// Land without one. Prevents nothing but accidents: say it loudly.
    InsecureNoTee,
    /// Land only inside one.
    Require,
}

impl TeePolicy {
    /// The insecure choice in it. It allows what it names and nothing else.
    fn choice(self) -> Option<InsecureChoice> {
        match self {
            Self::InsecureEmulatedTee => Some(InsecureChoice::EmulatedTee),
            Self::InsecureNoTee => Some(InsecureChoice::NoTee),
            Self::Require => None,
        }
    }

    /// The insecure choice that landing in this state needs and that was not made.
    pub(crate) fn missing_choice(self, tee: TeeState) -> Option<InsecureChoice> {
        tee.choice().filter(|needed| self.choice() != Some(*needed))
    }
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
    /// The trusted execution environment is an emulation.
    EmulatedTee,
    /// No trusted execution environment.
    NoTee,
    /// Swap is accepted.
    Swap,
}

impl InsecureChoice {
    /// The command line flag that makes this choice.
    pub fn flag(self) -> &'static str {
        match self {
            Self::EmulatedTee => "--insecure-tee-root",
            Self::NoTee => "--insecure-no-tee",
            Self::Swap => "--insecure-swap",
        }
    }
}

impl fmt::Display for InsecureChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EmulatedTee => "the trusted execution environment is an emulation",
            Self::NoTee => "no trusted execution environment is active",
            Self::Swap => "pages of the landing can be written to swap",
        })
    }
}

/// The trusted execution environment that protects this process, as whoever attests found it.
///
/// This crate does not look for one itself: the caller says what it found, with the name that attestation gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TeeState {
    /// One that can attest, for example `tdx`.
    Active(&'static str),
    /// An emulation of one, which protects nothing.
    Emulated(&'static str),
    /// None.
    None,
}

impl TeeState {
    /// Its name; `None` without one.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Active(name) | Self::Emulated(name) => Some(name),
            Self::None => None,
        }
    }

    /// The insecure choice without which nothing lands in this state.
    pub(crate) fn choice(self) -> Option<InsecureChoice> {
        match self {
            Self::Active(_) => None,
            Self::Emulated(_) => Some(InsecureChoice::EmulatedTee),
            Self::None => Some(InsecureChoice::NoTee),
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
