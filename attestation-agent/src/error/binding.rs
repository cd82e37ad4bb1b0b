//! Errors of what is bound to the guest: initdata and configuration.

use std::io;

use super::Class;

/// Initdata or configuration is not what the platform vouches for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindingError {
    /// A configuration file without the form of one.
    #[error("configuration: {reason}")]
    ConfigInvalid {
        /// What is wrong.
        reason: String,
    },
    /// A configuration file that nothing vouches for.
    #[error("configuration {path}: expected {expected}, found a file that nothing vouches for")]
    ConfigUnbound {
        /// The file.
        path: String,
        /// What would vouch for it.
        expected: &'static str,
    },
    /// Initdata that matches the register and has no valid form.
    #[error("initdata: {reason}")]
    Invalid {
        /// What is wrong.
        reason: String,
    },
    /// A file cannot be read.
    #[error("read {path}")]
    Io {
        /// The file.
        path: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Initdata or a digest that the register does not hold.
    #[error("initdata: expected the digest in {register}, {expected}, found {found}")]
    Mismatch {
        /// Name of the register.
        register: &'static str,
        /// What it holds.
        expected: String,
        /// What was given.
        found: String,
    },
    /// Initdata where the platform has no register for it.
    #[error("initdata: {platform} has no register that could vouch for it")]
    NoRegister {
        /// The platform.
        platform: &'static str,
    },
    /// A register that names initdata which nobody handed over.
    #[error("initdata: {register} holds {found}, and no initdata was given; the host may be withholding it")]
    Withheld {
        /// Name of the register.
        register: &'static str,
        /// What it holds.
        found: String,
    },
}

impl BindingError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::ConfigInvalid { .. } => "ATTEST_CONFIG_INVALID",
            Self::ConfigUnbound { .. } => "ATTEST_CONFIG_UNBOUND",
            Self::Invalid { .. } => "ATTEST_INITDATA_INVALID",
            Self::Io { .. } => "ATTEST_CONFIG_IO",
            Self::Mismatch { .. } => "ATTEST_INITDATA_MISMATCH",
            Self::NoRegister { .. } => "ATTEST_INITDATA_NO_REGISTER",
            Self::Withheld { .. } => "ATTEST_INITDATA_WITHHELD",
        }
    }

    /// Who misbehaved.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Mismatch { .. } | Self::Withheld { .. } => Class::HostFault,
            _ => Class::Config,
        }
    }
}
