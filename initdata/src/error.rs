//! What is refused, by whose fault, and the stable code of each case.

use std::io;

/// Who misbehaved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Class {
    /// A mistake of the program that calls.
    Bug,
    /// The operator wrote a document that cannot work.
    Config,
    /// Host, hypervisor or runtime: what it handed over is not what the guest was launched with.
    HostFault,
}

/// Why initdata is refused. Every variant has a stable [`code`](InitdataError::code), listed in `docs/spec/initdata.md`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitdataError {
    /// The document names another algorithm than the one whose digest the register holds, or one that nobody knows.
    #[error("initdata: algorithm: expected {expected}, found {found:?}")]
    Algorithm {
        /// The algorithm of the matching digest, or those that there are.
        expected: &'static str,
        /// What the document says.
        found: String,
    },
    /// More than one device offers initdata.
    #[error(
        "initdata: expected one device with it, found {first} and {second}; the host decides which came first"
    )]
    Ambiguous {
        /// One of them.
        first: String,
        /// Another.
        second: String,
    },
    /// An annotation that is no base64.
    #[error("initdata annotation: expected {expected}, found {found}")]
    Annotation {
        /// What it has to be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// The bytes around the document: header, gzip stream.
    #[error("initdata container: expected {expected}, found {found}")]
    Container {
        /// What has to be there.
        expected: &'static str,
        /// What is.
        found: String,
    },
    /// The document as a whole is not of its form.
    #[error("initdata document: {reason}")]
    Document {
        /// What is wrong.
        reason: String,
    },
    /// A file of the document is not of its form.
    #[error("initdata file {file:?}: {reason}")]
    File {
        /// Its name.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// A device cannot be listed or read.
    #[error("initdata: {purpose}")]
    Io {
        /// What was to be done.
        purpose: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The register holds no digest of these bytes.
    #[error("initdata: expected the digest in {register}, {expected}, found {found}")]
    Mismatch {
        /// Name of the register.
        register: String,
        /// What it holds, hex.
        expected: String,
        /// The SHA-256 digest of what was handed over, hex.
        found: String,
    },
    /// Initdata where no register could vouch for it.
    #[error("initdata: expected a platform that vouches for it, found {platform}")]
    NoRegister {
        /// What there is.
        platform: String,
    },
    /// A register that cannot hold a digest.
    #[error("register {register}: expected 32 to 64 bytes, found {found}")]
    Register {
        /// Its name.
        register: String,
        /// Its length in bytes.
        found: usize,
    },
    /// More than the limit, found before anything was allocated for it.
    #[error("initdata: {what}: expected at most {maximum}, found {found}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The limit.
        maximum: u64,
        /// What was found, where it is known.
        found: String,
    },
    /// A device with initdata, in a guest that was launched without.
    #[error("initdata: {register} is zero: expected no device with initdata, found {device}")]
    Unbound {
        /// Name of the register.
        register: String,
        /// The device.
        device: String,
    },
    /// A document of another version.
    #[error("initdata: version: expected {expected}, found {found:?}")]
    Version {
        /// The version that there is.
        expected: &'static str,
        /// What the document says.
        found: String,
    },
    /// A register that names initdata which nobody handed over.
    #[error(
        "initdata: {register} holds {found}: expected a device with it, found none; the host may be withholding it{unreadable}"
    )]
    Withheld {
        /// Name of the register.
        register: String,
        /// What it holds, hex.
        found: String,
        /// Devices that could not be read, as the end of a sentence; empty if there is none.
        unreadable: String,
    },
}

impl InitdataError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Algorithm { .. } => "INITDATA_ALGORITHM",
            Self::Ambiguous { .. } => "INITDATA_AMBIGUOUS",
            Self::Annotation { .. } => "INITDATA_ANNOTATION",
            Self::Container { .. } => "INITDATA_CONTAINER",
            Self::Document { .. } => "INITDATA_DOCUMENT",
            Self::File { .. } => "INITDATA_FILE",
            Self::Io { .. } => "INITDATA_IO",
            Self::Mismatch { .. } => "INITDATA_MISMATCH",
            Self::NoRegister { .. } => "INITDATA_NO_REGISTER",
            Self::Register { .. } => "INITDATA_REGISTER",
            Self::TooLarge { .. } => "INITDATA_TOO_LARGE",
            Self::Unbound { .. } => "INITDATA_UNBOUND",
            Self::Version { .. } => "INITDATA_VERSION",
            Self::Withheld { .. } => "INITDATA_WITHHELD",
        }
    }

    /// Who misbehaved.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Register { .. } => Class::Bug,
            Self::Algorithm { .. }
            | Self::Annotation { .. }
            | Self::Document { .. }
            | Self::File { .. }
            | Self::Version { .. } => Class::Config,
            _ => Class::HostFault,
        }
    }

    pub(crate) fn too_large(what: &'static str, maximum: usize, found: impl ToString) -> Self {
        Self::TooLarge { what, maximum: u64::try_from(maximum).unwrap_or(u64::MAX), found: found.to_string() }
    }
}

/// What was found, short enough for a log line; the error prints it quoted.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// Words in `text` that are codes.
    fn codes(text: &str) -> BTreeSet<&str> {
        let words = text.split(|c: char| !(c.is_ascii_uppercase() || c == '_'));
        words.filter(|word| word.starts_with("INITDATA_")).collect()
    }

    #[test]
    fn the_specification_lists_every_code() {
        let ours = codes(include_str!("error.rs").split("mod tests").next().unwrap());
        let (_, section) = include_str!("../../docs/spec/initdata.md").split_once("## Codes").unwrap();
        assert_eq!(ours, codes(section));
    }
}
