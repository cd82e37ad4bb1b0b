//! From an artifact whose origin is proven to a landing that nobody can write any more.
//!
//! Order: landing preflight, session with evidence about itself (or the broker, processor, TPM), release, landing, read-only. Nothing is
//! released before the landing has its memory; on every failure the landing is wiped.

use std::fmt;
use std::time::{Duration, Instant};

use chip_client::abi::DataPath;
use chip_client::session::UnwrapRequest;
use protected_memory::landing::{Complete, Filling, Landing};
use sealed_artifact::keys::ContentKey;
use sealed_artifact::parallel::Observer;
use sealed_artifact::policy::PolicyDocument;

use super::chip::Chip;
use super::fill;
use super::guest::{Choices, Facts, Guest};
use super::keys::{self, KeySource};
use super::prepared::Prepared;
use crate::Error;

/// What is to be landed, by whose key, how.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    prepared: &'a Prepared,
    source: &'a KeySource,
    guest: &'a Guest,
    choices: Choices,
}

impl<'a> Order<'a> {
    /// An order; nothing happens yet.
    #[must_use]
    pub const fn new(
        prepared: &'a Prepared,
        source: &'a KeySource,
        guest: &'a Guest,
        choices: Choices,
    ) -> Self {
        Self { prepared, source, guest, choices }
    }

    /// Asks the machine: whether it may land at all, and for memory of the artifact's final size.
    ///
    /// # Errors
    ///
    /// No active TEE, not enough memory, swap, each without the choice that allows it.
    pub fn reserve(self) -> Result<Reserved<'a>, Error> {
        let start = Instant::now();
        let plan = fill::plan(&self.prepared.store().core)?;
        let landing = Landing::create(&plan, self.choices.landing_policy(), self.guest.tee)?;
        let allocated = start.elapsed();
        let facts = Facts::new(&self.choices, self.source, self.guest, Some(landing.report()));
        Ok(Reserved { order: self, landing, allocated, facts })
    }

    /// The content key alone, for plaintext that is not landed. Insecure: the caller's choice, named in `facts`.
    ///
    /// # Errors
    ///
    /// As [`Reserved::land`].
    pub fn release_key(self, facts: &Facts) -> Result<Released, Error> {
        let start = Instant::now();
        let KeySource::Chip { address, root } = self.source else {
            let (key, _) = keys::content_key(self.prepared, self.source, self.guest)?;
            return Ok(Released { key, session: start.elapsed() });
        };
        let mut chip = Chip::open(address, root, self.choices.path, facts.guest)?;
        let grant = self.prepared.grant_for(chip.identity())?;
        let request = UnwrapRequest::new(&self.prepared.store().core, grant, self.prepared.proof());
        let mut session = chip.session(&self.choices, self.guest, grant)?;
        let key = session.release_key(&request)?;
        session.close()?;
        Ok(Released { key, session: start.elapsed() })
    }
}

/// A content key that was released.
pub struct Released {
    /// The key.
    pub key: ContentKey,
    /// How long that took.
    pub session: Duration,
}

impl fmt::Debug for Released {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Released(..)")
    }
}

/// An order that has its memory. Dropped, it gives it back.
#[derive(Debug)]
pub struct Reserved<'a> {
    order: Order<'a>,
    landing: Landing<Filling>,
    allocated: Duration,
    facts: Facts,
}

impl Reserved<'_> {
    /// The insecure modes that would be in effect.
    #[must_use]
    pub const fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Gets the key and lands. The observer is told of each verified segment.
    ///
    /// # Errors
    ///
    /// Whatever refuses or fails; the landing is wiped then.
    pub fn land(mut self, observer: &impl Observer) -> Result<Landed, Error> {
        let Order { prepared, source, guest, choices } = self.order;
        let mut chip = match source {
            KeySource::Chip { address, root } => {
                Some(Chip::open(address, root, choices.path, self.facts.guest)?)
            }
            _ => None,
        };
        let (filled, session, policy) = match &mut chip {
            Some(chip) => self.fill_by_chip(chip, observer)?,
            None => {
                let start = Instant::now();
                let (key, policy) = keys::content_key(prepared, source, guest)?;
                let asked = start.elapsed();
                (self.decrypt(&key, observer)?, asked, Some(policy))
            }
        };
        let start = Instant::now();
        // The chip stays connected meanwhile: one that kept memory of the landing has to be seen here.
        let landing = self.landing.complete()?;
        let notifications = chip.as_ref().map(Chip::notifications);
        drop(chip);
        if choices.path == DataPath::DmaDirect {
            // Until now the device could still write: only what cannot change any more is hashed.
            fill::verify_landed(prepared.store(), &landing)?;
        }
        let spent = prepared.opened() + self.allocated + filled + start.elapsed();
        Ok(Landed { landing, facts: self.facts, spent, session, notifications, policy })
    }

    /// Asks the chip and fills the landing: time spent on landing, and on the session; and the policy that the chip judged.
    fn fill_by_chip(
        &mut self,
        chip: &mut Chip<'_>,
        observer: &impl Observer,
    ) -> Result<(Duration, Duration, Option<PolicyDocument>), Error> {
        let Order { prepared, guest, choices, .. } = self.order;
        let store = prepared.store();
        let start = Instant::now();
        let grant = prepared.grant_for(chip.identity())?;
        let request = UnwrapRequest::new(&store.core, grant, prepared.proof());
        // What cannot be read here, the chip refuses.
        let policy = PolicyDocument::parse(grant.preimage()).ok();
        let mut session = chip.session(&choices, guest, grant)?;
        if choices.path != DataPath::KeyRelease {
            let handle = session.unwrap_grant(&request)?;
            let asked = start.elapsed();
            let start = Instant::now();
            fill::fill_by_dma(store, &mut session, handle, choices.path, &mut self.landing, observer)?;
            session.close()?;
            return Ok((start.elapsed(), asked, policy));
        }
        let key = session.release_key(&request)?;
        session.close()?;
        let asked = start.elapsed();
        Ok((self.decrypt(&key, observer)?, asked, policy))
    }

    fn decrypt(&mut self, key: &ContentKey, observer: &impl Observer) -> Result<Duration, Error> {
        let Order { prepared, choices, .. } = self.order;
        let start = Instant::now();
        let openers = fill::openers(prepared.store(), key)?;
        fill::fill(prepared.store(), &openers, &mut self.landing, choices.threads(), observer)?;
        Ok(start.elapsed())
    }
}

/// What landed.
#[derive(Debug)]
pub struct Landed {
    /// The files, complete, read-only, without a path.
    pub landing: Landing<Complete>,
    /// The insecure modes in effect.
    pub facts: Facts,
    /// Time spent on the landing, from opening of the artifact.
    pub spent: Duration,
    /// Time spent on session or key.
    pub session: Duration,
    /// Interrupts of the chip, if there is one.
    pub notifications: Option<u64>,
    /// The policy of the grant that opened it.
    pub policy: Option<PolicyDocument>,
}
