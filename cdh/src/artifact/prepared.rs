//! What is known before anything is asked of machine, chip or broker: an artifact whose origin is proven.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use chip_client::abi::DataPath;
use chip_client::chain::ChipIdentity;
use sealed_artifact::ArtifactError;
use sealed_artifact::digest::{CoreDigest, SealerKeyDigest};
use sealed_artifact::grant::{Grant, GrantKind, GrantSuite};
use sealed_artifact::names::{Counter, Family};
use sealed_artifact::policy::{LinkMode, PolicyDocument, StaticFacts};
use sealed_artifact::signature::{Floors, Origin, Pin, Signature, verify_origin};

use super::store::{Beside, Parts, Reference, Store};
use crate::Error;

/// An artifact whose origin is proven. There is no other way to one: nothing is asked of anybody for a core that no pin accepts.
#[derive(Debug)]
pub struct Prepared {
    store: Store,
    origin: Origin,
    opened: Duration,
}

impl Prepared {
    /// Opens an artifact and judges its origin.
    ///
    /// # Errors
    ///
    /// It cannot be read, is not of its form, or no pin accepts it.
    pub fn open(reference: &Reference, pins: &[Pin]) -> Result<Self, Error> {
        let start = Instant::now();
        Self::judge(Store::open(reference)?, pins, start)
    }

    /// As [`Prepared::open`], for a relative reference below a directory that somebody else fills: see [`Store::open_below`].
    ///
    /// # Errors
    ///
    /// As [`Prepared::open`].
    pub fn open_below(
        directory: &File,
        root: &Path,
        reference: &Reference,
        pins: &[Pin],
    ) -> Result<Self, Error> {
        let start = Instant::now();
        Self::judge(Store::open_below(directory, root, reference)?, pins, start)
    }

    /// As [`Prepared::open`], for a `.sealed` file that is open. `name` is for messages.
    ///
    /// # Errors
    ///
    /// As [`Prepared::open`].
    pub fn of_file(file: File, name: &Path, pins: &[Pin]) -> Result<Self, Error> {
        let start = Instant::now();
        Self::judge(Store::of_file(file, name)?, pins, start)
    }

    /// From small objects that somebody fetched: nothing else has to be here before its origin is proven.
    ///
    /// # Errors
    ///
    /// As [`Prepared::open`].
    pub fn of_parts(beside: Beside, pins: &[Pin]) -> Result<Self, Error> {
        let start = Instant::now();
        Self::judge(Store::of_parts(beside)?, pins, start)
    }

    /// With these payloads.
    #[must_use]
    pub fn with_parts(self, parts: Box<dyn Parts>) -> Self {
        Self { store: self.store.with_parts(parts), ..self }
    }

    fn judge(store: Store, pins: &[Pin], start: Instant) -> Result<Self, Error> {
        let origin = verify_origin(&store.core, store.signature.as_ref(), pins, &Floors::new())?;
        Ok(Self { store, origin, opened: start.elapsed() })
    }

    /// Compares each blob with the digest that its carrier states.
    ///
    /// # Errors
    ///
    /// `CARRIER_CORRUPT`.
    pub fn verify_blob_digests(&mut self) -> Result<(), Error> {
        let start = Instant::now();
        for index in 0..self.store.core.payloads().len() {
            self.store.payload(index)?.verify_digest(|_| ())?;
        }
        self.opened += start.elapsed();
        Ok(())
    }

    /// The artifact.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// By whose word it is acceptable.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// How long that took.
    #[must_use]
    pub const fn opened(&self) -> Duration {
        self.opened
    }

    /// Plaintext bytes of all payloads.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.store.core.parameters().payloads().iter().map(|payload| payload.layout.size()).sum()
    }

    /// The sealer's signature for the chip's own floor, if it is one: beside a core that is pinned by digest anything may lie.
    #[must_use]
    pub fn proof(&self) -> Option<&Signature> {
        self.store.signature.as_ref().filter(|signature| signature.verify(&self.store.core).is_ok())
    }

    /// The first of these data paths that a grant of a chip permits: its policy's static members hold for this core there. What the chip was
    /// provisioned for is the chip's to compare.
    #[must_use]
    pub fn data_path(&self, among: &[DataPath]) -> Option<DataPath> {
        let core = &self.store.core;
        let tier = core.parameters().environment();
        let permits = |path: DataPath| {
            let Ok(mode) = LinkMode::parse(path.name()) else { return false };
            let facts = StaticFacts::of(core, tier.clone(), mode);
            let of_chips = self.store.grants.iter().map(|stored| &stored.grant);
            of_chips
                .filter(|grant| grant.kind() == GrantKind::Chip && grant.require_object(core).is_ok())
                .any(|grant| {
                    PolicyDocument::parse(grant.preimage())
                        .is_ok_and(|policy| policy.evaluate_static(&facts).is_ok())
                })
        };
        among.iter().copied().find(|path| permits(*path))
    }

    /// The grant for this chip: of its epoch, the post-quantum one if there are two.
    ///
    /// # Errors
    ///
    /// `NO_GRANT_FOR_CHIP`.
    pub fn grant_for(&self, chip: &ChipIdentity) -> Result<&Grant, Error> {
        let fitting = |grant: &&Grant| {
            grant.recipient().as_bytes() == chip.id().as_bytes()
                && grant.key_epoch().value() == chip.key_epoch()
                && grant.require_object(&self.store.core).is_ok()
        };
        self.store
            .grants
            .iter()
            .map(|stored| &stored.grant)
            .filter(fitting)
            .max_by_key(|grant| grant.suite() == GrantSuite::XWing)
            .ok_or_else(|| Error::NoGrantForChip {
                chip: chip.id().to_string(),
                found: self.store.grants.len(),
            })
    }
}

/// The origin in a word for people and programs.
#[must_use]
pub fn describe_origin(origin: &Origin) -> String {
    match origin {
        Origin::PinnedCore => "pinned core digest".to_owned(),
        Origin::PinnedSealer { key, family, counter } => {
            format!("signed by {key}, family {family}, counter {}", counter.value())
        }
        _ => "accepted".to_owned(),
    }
}

/// What `sealed.toml` of bound initdata says about an artifact's origin, as a pin.
///
/// # Errors
///
/// A kind of origin that this version does not know: it accepts nothing.
pub fn pin_of(origin: &initdata::Origin) -> Result<Pin, Error> {
    match origin {
        initdata::Origin::Core(digest) => Ok(Pin::Core(CoreDigest::new(*digest.as_bytes()))),
        initdata::Origin::Sealer { key, family, min_counter } => Ok(Pin::Sealer {
            key: SealerKeyDigest::new(*key.as_bytes()),
            family: Family::parse(family.as_str())?,
            min_counter: Counter::new(*min_counter),
        }),
        _ => Err(ArtifactError::PinIncomplete { missing: "origin" }.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_of_configuration_are_pins() {
        let digest = initdata::Sha256Digest::new([7; 32]);
        let core = pin_of(&initdata::Origin::Core(digest)).unwrap();
        assert_eq!(core, Pin::Core(CoreDigest::new([7; 32])));
        let family = initdata::Tag::parse("acme/ranker").unwrap();
        let sealer = initdata::Origin::Sealer { key: digest, family, min_counter: 3 };
        let Pin::Sealer { key, family, min_counter } = pin_of(&sealer).unwrap() else {
            panic!("another pin")
        };
        let found = (key, family.as_str(), min_counter.value());
        assert_eq!(found, (SealerKeyDigest::new([7; 32]), "acme/ranker", 3));
    }
}
