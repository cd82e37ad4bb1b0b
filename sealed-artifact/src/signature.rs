//! Sealer signatures and the decision about a core's origin.

use std::collections::BTreeMap;

use crate::core::Core;
use crate::digest::{CoreDigest, SealerKeyDigest};
use crate::error::{ArtifactError, Found};
use crate::json::Value;
use crate::names::{Counter, Family};
use crate::sealer_key::SignatureBytes;
pub use crate::sealer_key::{SealerPublicKey, SealerSigningKey};

#[cfg(test)]
pub(crate) mod tests;

const TYPE: &str = "innerkeep signature v1";
/// Largest signature object in bytes.
pub const MAXIMUM_SIGNATURE: u64 = 4_096;

/// A signature object. Parsing proves its form, not that it verifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    core: CoreDigest,
    key: SealerPublicKey,
    signature: SignatureBytes,
}

impl Signature {
    /// Signs a core whose parameters name this key.
    ///
    /// # Errors
    /// `SIGNATURE_INVALID` when the core names another sealer or none, `RANDOM_UNAVAILABLE`.
    pub fn sign(core: &Core, key: &SealerSigningKey) -> Result<Self, ArtifactError> {
        let public = key.public_key();
        require_sealer(core, public.digest())?;
        Ok(Self { core: core.digest(), signature: key.sign(&signed_message(core.digest()))?, key: public })
    }

    /// Parses untrusted bytes.
    ///
    /// # Errors
    /// `LIMIT_EXCEEDED`, `MALFORMED`, `NOT_CANONICAL`, `KEY_INVALID`.
    pub fn parse(bytes: &[u8]) -> Result<Self, ArtifactError> {
        let mut members = Value::parse("signature", bytes, MAXIMUM_SIGNATURE)?.into_members("signature")?;
        members.take_type(TYPE)?;
        let core = CoreDigest::parse(&members.take("core")?.into_text("signature.core")?)?;
        let key = members.take("key")?.into_base64("signature.key")?;
        let signature = members.take("signature")?.into_base64("signature.signature")?;
        members.finish()?;
        let found = Found::value(format_args!("{} bytes", signature.len()));
        let signature = signature.try_into().map_err(|_| ArtifactError::Malformed {
            what: "signature.signature",
            expected: "96 bytes",
            found,
        })?;
        Ok(Self { core, key: SealerPublicKey::from_spki_der(&key)?, signature })
    }

    /// The canonical bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        Value::object([
            ("@type", Value::text(TYPE)),
            ("core", Value::text(self.core.to_string())),
            ("key", Value::base64(self.key.spki_der())),
            ("signature", Value::base64(&self.signature)),
        ])
        .encode()
    }

    /// Which core the object says it signs.
    #[must_use]
    pub fn core(&self) -> CoreDigest {
        self.core
    }

    /// The key that the object names.
    #[must_use]
    pub fn key(&self) -> &SealerPublicKey {
        &self.key
    }

    /// The signature itself, `r ‖ s`.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.signature
    }

    /// Verifies that this is a signature of `core` by the key that `core` names. Whether that key is to be trusted is the pins' matter.
    ///
    /// # Errors
    /// `SIGNATURE_INVALID`.
    pub fn verify(&self, core: &Core) -> Result<SealerKeyDigest, ArtifactError> {
        // GUARD: signature-core -> evil_signature_of_another_core_is_refused
        if self.core != core.digest() {
            return Err(ArtifactError::SignatureInvalid {
                expected: Found::value(core.digest()),
                found: Found::value(self.core),
            });
        }
        let key = self.key.digest();
        // GUARD: signature-sealer -> evil_signature_by_a_key_that_the_core_does_not_name_is_refused
        require_sealer(core, key)?;
        // GUARD: signature-bytes -> evil_forged_signature_is_refused
        if !self.key.verifies(&signed_message(core.digest()), &self.signature) {
            return Err(ArtifactError::SignatureInvalid {
                expected: Found::value(format_args!("a signature by {key}")),
                found: Found::text("one that does not verify"),
            });
        }
        Ok(key)
    }
}

/// Refuses a core that names another sealer key, or none.
fn require_sealer(core: &Core, key: SealerKeyDigest) -> Result<(), ArtifactError> {
    let sealer = core.parameters().sealer();
    if sealer == Some(key) {
        return Ok(());
    }
    let expected = sealer.map_or_else(|| "no sealer".to_owned(), |sealer| sealer.to_string());
    Err(ArtifactError::SignatureInvalid { expected: Found::text(&expected), found: Found::value(key) })
}

fn signed_message(core: CoreDigest) -> Vec<u8> {
    [b"innerkeep sealer signature v1\0".as_slice(), core.as_bytes()].concat()
}

/// What a user trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pin {
    /// One core.
    Core(CoreDigest),
    /// Cores of one family by one sealer, from a counter on.
    Sealer {
        /// Digest of the sealer's public key.
        key: SealerKeyDigest,
        /// The family.
        family: Family,
        /// Lowest counter.
        min_counter: Counter,
    },
}

impl Pin {
    /// A pin by sealer key from a user's options.
    ///
    /// # Errors
    /// `PIN_INCOMPLETE` when family or minimum counter is missing.
    pub fn sealer(
        key: SealerKeyDigest,
        family: Option<Family>,
        min_counter: Option<Counter>,
    ) -> Result<Self, ArtifactError> {
        let family = family.ok_or(ArtifactError::PinIncomplete { missing: "family" })?;
        let min_counter = min_counter.ok_or(ArtifactError::PinIncomplete { missing: "minimum counter" })?;
        Ok(Self::Sealer { key, family, min_counter })
    }
}

/// Highest counters known per sealer key and family. They only go up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Floors(BTreeMap<(SealerKeyDigest, Family), Counter>);

impl Floors {
    /// No floor.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Raises a floor; a lower counter changes nothing.
    pub fn raise(&mut self, key: SealerKeyDigest, family: Family, counter: Counter) {
        let floor = self.0.entry((key, family)).or_default();
        *floor = counter.max(*floor);
    }

    /// The floor of a family, zero when none is known.
    #[must_use]
    pub fn floor(&self, key: SealerKeyDigest, family: &Family) -> Counter {
        self.0.get(&(key, family.clone())).copied().unwrap_or_default()
    }

    /// All floors.
    pub fn iter(&self) -> impl Iterator<Item = (SealerKeyDigest, &Family, Counter)> {
        self.0.iter().map(|((key, family), counter)| (*key, family, *counter))
    }
}

/// Why a core is acceptable.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// Its digest is pinned.
    PinnedCore,
    /// It is signed by a pinned sealer key, in the pinned family, not below any floor.
    PinnedSealer {
        /// Digest of the sealer's public key.
        key: SealerKeyDigest,
        /// The family.
        family: Family,
        /// The core's counter, for raising floors.
        counter: Counter,
    },
}

/// Decides whether a core may be landed.
///
/// # Errors
/// `ORIGIN_UNPROVEN`, `SIGNATURE_INVALID`, `ROLLBACK`.
pub fn verify_origin(
    core: &Core,
    signature: Option<&Signature>,
    pins: &[Pin],
    floors: &Floors,
) -> Result<Origin, ArtifactError> {
    if pins.contains(&Pin::Core(core.digest())) {
        return Ok(Origin::PinnedCore);
    }
    let unproven = |expected: &str, found: &dyn std::fmt::Display| ArtifactError::OriginUnproven {
        expected: Found::text(expected),
        found: Found::value(found),
    };
    if !pins.iter().any(|pin| matches!(pin, Pin::Sealer { .. })) {
        return Err(unproven("a core that is pinned", &core.digest()));
    }
    let Some(signature) = signature else {
        return Err(unproven("a pinned core or a sealer signature", &core.digest()));
    };
    let key = signature.verify(core)?;
    let family = core.parameters().family();
    let matching = pins.iter().filter_map(|pin| match pin {
        Pin::Sealer { key: pinned, family: pinned_family, min_counter }
            if *pinned == key && pinned_family == family =>
        {
            Some(*min_counter)
        }
        _ => None,
    });
    let pinned = matching.max();
    // GUARD: origin-pinned-key -> evil_core_by_an_unpinned_sealer_is_refused, evil_core_of_an_unpinned_family_is_refused
    if pinned.is_none() {
        return Err(unproven("a pinned sealer key and family", &format_args!("{key}, family {family}")));
    }
    let floor = floors.floor(key, family).max(pinned.unwrap_or_default());
    let counter = core.parameters().counter();
    // GUARD: rollback -> evil_older_counter_is_refused
    if counter < floor {
        return Err(ArtifactError::Rollback {
            family: Found::value(family),
            expected: floor.value(),
            found: counter.value(),
        });
    }
    Ok(Origin::PinnedSealer { key, family: family.clone(), counter })
}
