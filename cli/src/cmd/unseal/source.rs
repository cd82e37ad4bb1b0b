//! Where the content key comes from: exactly one place, named on the command line.

use cdh::artifact::KeySource;
use sealed_artifact::kbs::KbsRecipient;

use crate::args::{PathArg, UnsealArgs};
use crate::broker::Named;
use crate::certificates;
use crate::cmd::grant;
use crate::error::Failure;

use super::data_path;

/// The source that the arguments name. Nothing is asked of it yet.
pub(super) fn of(arguments: &UnsealArgs) -> Result<KeySource, Failure> {
    if let (Some(address), Some(root)) = (&arguments.chip, &arguments.chip_root) {
        return Ok(KeySource::Chip { address: address.clone(), root: certificates::read_root(root)? });
    }
    if arguments.path != PathArg::KeyRelease {
        return Err(Failure::Usage {
            argument: "--path",
            expected: "key-release: without a chip this CPU decrypts",
            found: data_path(arguments.path).name().to_owned(),
        });
    }
    match (&arguments.broker.url, arguments.snp, arguments.tpm) {
        (Some(url), _, _) => {
            let access = Box::new(Named(arguments.broker.clone()));
            Ok(KeySource::Broker { recipient: broker(arguments, url)?, access })
        }
        (None, true, _) => Ok(KeySource::Snp),
        (None, false, true) => {
            Ok(KeySource::Tpm { insecure_below: arguments.platform.insecure_tee_root.clone() })
        }
        (None, false, false) => Err(Failure::Usage {
            argument: "--chip, --kbs, --snp, --tpm",
            expected: "one of them",
            found: String::new(),
        }),
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
