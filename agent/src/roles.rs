//! One program for several services of the guest: which one it is now, by the name that it was started with, or by its first argument.
//!
//! Process 1 and the zygote are neither: what they are is decided before, and not by arguments.

use std::ffi::OsString;
use std::path::Path;

/// A service that runs as a process of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// `attestation-agent`: evidence, runtime measurement and tokens.
    AttestationAgent,
    /// `api-server-rest`: what bound configuration lists of it, for containers.
    RestFront,
    /// `confidential-data-hub`: secrets, keys of layers, credentials.
    DataHub,
}

impl Role {
    fn named(name: &std::ffi::OsStr) -> Option<Self> {
        match Path::new(name).file_name()?.to_str()? {
            "api-server-rest" => Some(Self::RestFront),
            "attestation-agent" => Some(Self::AttestationAgent),
            "confidential-data-hub" => Some(Self::DataHub),
            _ => None,
        }
    }

    /// The role that these words ask for, and its arguments, its own name first. Words of the guest agent ask for none.
    pub(crate) fn of(words: impl IntoIterator<Item = OsString>) -> Option<(Self, Vec<OsString>)> {
        let mut words: Vec<OsString> = words.into_iter().collect();
        if let Some(role) = Self::named(words.first()?) {
            return Some((role, words));
        }
        let word = words.get(1)?;
        // A name, not a path that ends in one.
        let role = Self::named(word).filter(|_| Path::new(word).components().count() == 1)?;
        words.remove(0);
        Some((role, words))
    }

    /// Runs it to its end. Returns the exit status.
    pub(crate) fn run(self, arguments: Vec<OsString>) -> i32 {
        match self {
            Self::RestFront => i32::from(cdh::rest::program::main(arguments)),
            Self::AttestationAgent => i32::from(attestation_agent::program::main(arguments)),
            Self::DataHub => i32::from(cdh::program::main(arguments)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> Option<(Role, Vec<OsString>)> {
        Role::of(words.iter().map(OsString::from))
    }

    #[test]
    fn a_role_is_chosen_by_name_or_first_argument() {
        let (role, words) = of(&["/usr/bin/attestation-agent", "-c", "x"]).unwrap();
        assert_eq!((role, words.len()), (Role::AttestationAgent, 3));
        let (role, words) = of(&["innerkeep-agent", "attestation-agent", "--help"]).unwrap();
        assert_eq!(
            (role, words),
            (Role::AttestationAgent, vec!["attestation-agent".into(), "--help".into()])
        );
        let (role, words) = of(&["/usr/local/bin/confidential-data-hub", "-c", "x"]).unwrap();
        assert_eq!((role, words.len()), (Role::DataHub, 3));
        let (role, words) = of(&["innerkeep-agent", "confidential-data-hub", "--version"]).unwrap();
        assert_eq!((role, words), (Role::DataHub, vec!["confidential-data-hub".into(), "--version".into()]));
        // Each is a program of its own, by its own interface.
        assert_eq!(Role::DataHub.run(vec!["confidential-data-hub".into(), "--no-such-flag".into()]), 2);
        assert_eq!(Role::DataHub.run(vec!["confidential-data-hub".into(), "--version".into()]), 0);
        assert_eq!(of(&["api-server-rest"]).unwrap().0, Role::RestFront);
        assert_eq!(
            Role::RestFront.run(vec!["api-server-rest".into(), "--features".into(), "other".into()]),
            1
        );
        assert!(of(&["innerkeep-agent", "--policy", "attestation-agent"]).is_none());
        assert!(of(&["innerkeep-agent", "/tmp/attestation-agent"]).is_none());
        assert!(of(&["kata-agent"]).is_none() && of(&[]).is_none());
    }
}
