//! Where the content key comes from: exactly one place, named on the command line.

use chip_client::address::DeviceAddress;
use chip_client::chain::TrustRoot;
use sealed_artifact::grant::GrantKind;
use sealed_artifact::kbs::KbsRecipient;

use crate::args::{PathArg, UnsealArgs};
use crate::certificates;
use crate::cmd::grant;
use crate::error::Failure;

use super::data_path;

/// Where the content key comes from.
pub(super) enum Source {
    /// A chip, whose certificates end at this root.
    Chip { address: DeviceAddress, root: TrustRoot },
    /// A key broker, by the name and TLS key that this guest was configured with.
    Broker(KbsRecipient),
    /// A key that the SEV-SNP processor derives for this guest.
    Snp,
    /// A secret that the TPM unseals.
    Tpm,
}

impl Source {
    /// The source that the arguments name. Nothing is asked of it yet.
    pub(super) fn of(arguments: &UnsealArgs) -> Result<Self, Failure> {
        if let (Some(address), Some(root)) = (&arguments.chip, &arguments.chip_root) {
            return Ok(Self::Chip { address: address.clone(), root: certificates::read_root(root)? });
        }
        if arguments.path != PathArg::KeyRelease {
            return Err(Failure::Usage {
                argument: "--path",
                expected: "key-release: without a chip this CPU decrypts",
                found: data_path(arguments.path).name().to_owned(),
            });
        }
        match (&arguments.broker.url, arguments.snp, arguments.tpm) {
            (Some(url), _, _) => broker(arguments, url).map(Self::Broker),
            (None, true, _) => Ok(Self::Snp),
            (None, false, true) => Ok(Self::Tpm),
            (None, false, false) => Err(Failure::Usage {
                argument: "--chip, --kbs, --snp, --tpm",
                expected: "one of them",
                found: String::new(),
            }),
        }
    }

    /// The kind of grant that it opens.
    pub(super) const fn kind(&self) -> GrantKind {
        match self {
            Self::Chip { .. } => GrantKind::Chip,
            Self::Broker(_) => GrantKind::Kbs,
            Self::Snp => GrantKind::Snp,
            Self::Tpm => GrantKind::Tpm,
        }
    }
}

/// The broker as the guest's own configuration names it: never as a grant does.
fn broker(arguments: &UnsealArgs, url: &str) -> Result<KbsRecipient, Failure> {
    let refused =
        |argument, expected, found: &str| Err(Failure::Usage { argument, expected, found: found.to_owned() });
    let Some(name) = arguments.recipient.broker.as_deref() else {
        return refused("--broker", "the name that the sealer gave the key broker", "");
    };
    let (key, pins) = (arguments.recipient.broker_key.as_deref(), arguments.broker.spki.as_slice());
    let tls = url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"));
    match (tls, key, pins, &arguments.broker.ca) {
        (false, None, _, _) => grant::broker_recipient(name, None),
        (false, Some(key), _, _) => refused("--broker-key", "none: a broker without TLS has no key", key),
        (true, None, [pin], None) => grant::broker_recipient(name, Some(pin)),
        (true, None, _, _) => refused("--broker-key", "the key that grants for this broker name", ""),
        // What a grant is bound to is what the connection is held to: a CA vouches for keys that nobody here sees.
        (true, Some(key), _, Some(_)) => grant::broker_recipient(name, Some(key)),
        (true, Some(key), pins, None) if pins.iter().any(|pin| pin.eq_ignore_ascii_case(key)) => {
            grant::broker_recipient(name, Some(key))
        }
        (true, Some(key), _, None) => refused("--broker-key", "one of the keys of --kbs-spki", key),
    }
}
