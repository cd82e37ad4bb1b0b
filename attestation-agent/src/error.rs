//! What can go wrong, who misbehaved, and the stable code of each case.

mod binding;
mod measure;
mod tee;

pub use binding::BindingError;
pub use measure::MeasureError;
pub use tee::TeeError;

use evidence::EvidenceError;

/// Who misbehaved. The class alone decides whether to retry and how loud to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Class {
    /// Something that the operator asked for or set up cannot work.
    Config,
    /// The machine below: host, hypervisor, firmware.
    HostFault,
    /// A decision against whoever asked.
    PolicyDenied,
    /// May work when tried again.
    Transient,
}

/// An error of the attestation agent. Every variant has a stable [`code`](AttestationError::code).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttestationError {
    /// Initdata or configuration is not what the platform vouches for.
    #[error(transparent)]
    Binding(#[from] BindingError),
    /// A file with collateral cannot be used.
    #[error("collateral {path}: {reason}")]
    Collateral {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// The runtime log or a register.
    #[error(transparent)]
    Measure(#[from] MeasureError),
    /// Evidence cannot be presented with this collateral.
    #[error("presentation")]
    Presentation(#[source] EvidenceError),
    /// The trusted execution environment.
    #[error(transparent)]
    Tee(#[from] TeeError),
}

impl AttestationError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Binding(error) => error.code(),
            Self::Collateral { .. } => "ATTEST_COLLATERAL_INVALID",
            Self::Measure(error) => error.code(),
            Self::Presentation(error) => error.code(),
            Self::Tee(error) => error.code(),
        }
    }

    /// Who misbehaved.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Binding(error) => error.class(),
            Self::Collateral { .. } | Self::Presentation(_) => Class::Config,
            Self::Measure(error) => error.class(),
            Self::Tee(error) => error.class(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// Words in `text` that are codes.
    fn codes(text: &str) -> BTreeSet<&str> {
        let words = text.split(|c: char| !(c.is_ascii_uppercase() || c == '_'));
        words.filter(|word| word.starts_with("ATTEST_")).collect()
    }

    #[test]
    fn the_specification_lists_every_code() {
        let sources = [
            include_str!("error/binding.rs"),
            include_str!("error/measure.rs"),
            include_str!("error/tee.rs"),
            include_str!("service/error.rs"),
            "ATTEST_COLLATERAL_INVALID",
        ];
        let ours: BTreeSet<_> = sources.into_iter().flat_map(codes).collect();
        let specification = include_str!("../../docs/spec/attestation-v1.md");
        let (_, section) = specification.split_once("Codes of the attestation agent").unwrap();
        assert_eq!(ours, codes(section));
    }
}
