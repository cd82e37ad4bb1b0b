//! Kinds of platforms, by the names that upstream's protocols give them.

use std::fmt;

/// A platform that gives evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Tee {
    /// No TEE at all: evidence that proves nothing, behind an insecure flag.
    Sample,
    /// AMD SEV-SNP.
    Snp,
    /// Intel TDX.
    Tdx,
    /// A TPM 2.0: found beside a TEE, never counts as one.
    Tpm,
}

impl Tee {
    /// The name in `GetTeeType` and in the protocols of Trustee.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sample => "sample",
            Self::Snp => "snp",
            Self::Tdx => "tdx",
            Self::Tpm => "tpm",
        }
    }

    /// Whether evidence of this kind can prove memory that the host cannot read.
    #[must_use]
    pub const fn is_confidential(self) -> bool {
        matches!(self, Self::Snp | Self::Tdx)
    }
}

impl fmt::Display for Tee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
