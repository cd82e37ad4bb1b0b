//! LOAD_TAGS, REGISTER, UNSEAL: bulk data by scatter lists (interface spec §4, §8.2, §8.3).

mod job;
mod scatter;
mod transfer;

use std::sync::{Arc, Mutex, PoisonError};

use chip_client::abi::limits::MAX_TAGS;
use chip_client::abi::{DataPath, LoadTags, Status, parse_register};
use sealed_artifact::core::Core;
use sealed_artifact::names::PayloadIndex;
use sealed_artifact::open::{PayloadOpener, Unlocked};
use zeroize::Zeroizing;

use crate::dma::Direction;
use crate::firmware::{Context, Failure, Firmware, Output};
use crate::session::LiveSession;
use scatter::Cursor;

/// What UNWRAP opened on a DMA path: keys whose commitments hold, and the tags of one payload at a time.
pub(crate) struct Handle {
    unlocked: Unlocked,
    core: Core,
    loaded: Mutex<Option<Loaded>>,
}

#[derive(Clone)]
struct Loaded {
    payload: u32,
    opener: Arc<PayloadOpener>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("core", &self.core.digest()).finish_non_exhaustive()
    }
}

impl Handle {
    pub(crate) fn new(unlocked: Unlocked, core: Core) -> Self {
        Self { unlocked, core, loaded: Mutex::new(None) }
    }

    fn load(&self, loaded: Loaded) {
        *self.loaded.lock().unwrap_or_else(PoisonError::into_inner) = Some(loaded);
    }

    fn loaded(&self, payload: u32) -> Option<Arc<PayloadOpener>> {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        (loaded.payload == payload).then_some(loaded.opener)
    }
}

fn handle(session: &LiveSession, number: u32) -> Result<Arc<Handle>, Failure> {
    if session.path() == DataPath::KeyRelease {
        return Err(Status::Path.into());
    }
    Ok(session.handle(number).ok_or(Status::NoHandle)?)
}

impl Firmware {
    /// Copies a tag table once and keeps it when it is the core's.
    pub(crate) fn load_tags(&self, context: &Context<'_>, session: &LiveSession, input: &[u8]) -> Output {
        let body = LoadTags::parse(input)?;
        let handle = handle(session, body.handle)?;
        let payloads = handle.core.parameters().payloads();
        let parameters = usize::try_from(body.payload).ok().and_then(|index| payloads.get(index));
        let expected = parameters.ok_or(Status::BadField)?.layout.tag_table_length();
        if body.table.total() != Some(expected) || expected > MAX_TAGS as u64 {
            return Err(Status::BadLength.into());
        }
        context.bus.covers(&body.table, Direction::Read)?;
        let mut table = vec![0; usize::try_from(expected).unwrap_or(0)];
        Cursor::new(&body.table).read(&context.bus, &mut table)?;
        // The opener compares the table's digest with the core's before it exists.
        let opener = handle.unlocked.opener(PayloadIndex::new(body.payload), &table);
        let opener = opener.map_err(|_digest| Failure::from(Status::TagsMismatch))?;
        handle.load(Loaded { payload: body.payload, opener: Arc::new(opener) });
        Ok(Zeroizing::default())
    }

    /// Replaces the set of private destination ranges.
    pub(crate) fn register(&self, session: &LiveSession, input: &[u8]) -> Output {
        if session.path() != DataPath::DmaDirect {
            return Err(Status::Path.into());
        }
        session.register(parse_register(input)?);
        Ok(Zeroizing::default())
    }
}

#[cfg(test)]
mod tests;
