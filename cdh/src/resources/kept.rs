//! Resources that were read a short while ago.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use attestation_agent::kbs::ResourceUri;
use protected_memory::secret::SECRET_MAX_BYTES;
use tokio::time::Instant;

use crate::plaintext::Plaintext;

/// Most resources that are kept: protected pages are few.
const MAXIMUM_KEPT: usize = 32;

/// Resources and when each is to be forgotten. A lifetime of nothing keeps nothing.
pub(super) struct Kept {
    lifetime: Duration,
    of_uris: Mutex<HashMap<ResourceUri, (Instant, Arc<Plaintext>)>>,
}

impl Kept {
    pub(super) fn new(lifetime: Duration) -> Self {
        Self { lifetime, of_uris: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ResourceUri, (Instant, Arc<Plaintext>)>> {
        self.of_uris.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that is not too old.
    pub(super) fn get(&self, uri: &ResourceUri, now: Instant) -> Option<Arc<Plaintext>> {
        let kept = self.lock();
        let (until, secret) = kept.get(uri)?;
        // GUARD: kept-lifetime -> a_resource_is_kept_for_its_lifetime_and_no_longer
        if now >= *until {
            return None;
        }
        Some(Arc::clone(secret))
    }

    pub(super) fn keep(&self, uri: &ResourceUri, secret: &Arc<Plaintext>, now: Instant) {
        if self.lifetime.is_zero() || secret.expose().len() > SECRET_MAX_BYTES {
            return;
        }
        self.wipe_expired(now);
        let mut kept = self.lock();
        if kept.len() >= MAXIMUM_KEPT && !kept.contains_key(uri) {
            return;
        }
        kept.insert(uri.clone(), (now + self.lifetime, Arc::clone(secret)));
    }

    /// Drops what is too old; with its last user it is wiped.
    pub(super) fn wipe_expired(&self, now: Instant) {
        self.lock().retain(|_, (until, _)| *until > now);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }
}
