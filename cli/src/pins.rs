//! Pins: which cores the caller accepts.

use sealed_artifact::digest::CoreDigest;
use sealed_artifact::names::{Counter, Family};
use sealed_artifact::signature::{Floors, Origin, Pin, verify_origin};

use crate::args::PinArgs;
use crate::cmd::key;
use crate::error::Failure;
use crate::store::Store;

/// Reads the pins; none is an error.
pub(crate) fn read(arguments: &PinArgs) -> Result<Vec<Pin>, Failure> {
    if let Some(core) = &arguments.core {
        return Ok(vec![Pin::Core(CoreDigest::parse(core)?)]);
    }
    // GUARD: cli-pin-demanded -> evil_landing_without_a_pin_is_refused
    if arguments.sealer_key.is_none() {
        return Err(Failure::NoPin);
    }
    let Some(sealer_key) = &arguments.sealer_key else { return Ok(Vec::new()) };
    let key = key::read_public(sealer_key)?.digest();
    let family = arguments.family.as_deref().map(Family::parse).transpose()?;
    Ok(vec![Pin::sealer(key, family, arguments.min_counter.map(Counter::new))?])
}

/// Decides whether the stored core may be landed.
pub(crate) fn verify(store: &Store, pins: &[Pin]) -> Result<Origin, Failure> {
    Ok(verify_origin(&store.core, store.signature.as_ref(), pins, &Floors::new())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evil_landing_without_a_pin_is_refused() {
        let none = PinArgs { core: None, sealer_key: None, family: None, min_counter: None };
        assert_eq!(read(&none).unwrap_err().code(), "NO_PIN");
    }
}
