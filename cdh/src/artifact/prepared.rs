//! What is known before anything is asked of machine, chip or broker: an artifact whose origin is proven.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use chip_client::chain::ChipIdentity;
use sealed_artifact::grant::{Grant, GrantSuite};
use sealed_artifact::signature::{Floors, Origin, Pin, Signature, verify_origin};

use super::store::{Reference, Store};
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
