//! All sessions of the chip.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chip_client::abi::limits::{MAX_HANDLES, MAX_SESSIONS};

use super::handshake::HalfOpen;
use super::live::LiveSession;

#[derive(Debug)]
enum Slot {
    HalfOpen(Box<HalfOpen>),
    Live(Arc<LiveSession>),
}

#[derive(Debug, Default)]
struct Table {
    slots: HashMap<u32, Slot>,
    last: u32,
}

/// At most eight sessions, half-open ones included.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    table: Mutex<Table>,
    handles: Arc<AtomicUsize>,
}

/// The right to one of the 64 live handles; given back on drop.
#[derive(Debug)]
pub(crate) struct HandleLimit(Arc<AtomicUsize>);

impl Drop for HandleLimit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Sessions {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for a new session. `None`: all eight are taken.
    pub(super) fn reserve(&self) -> Option<u32> {
        let mut table = self.table();
        if table.slots.len() >= MAX_SESSIONS {
            return None;
        }
        loop {
            table.last = table.last.wrapping_add(1);
            if table.last != 0 && !table.slots.contains_key(&table.last) {
                return Some(table.last);
            }
        }
    }

    /// False: all eight were taken in the meantime.
    pub(super) fn insert_half_open(&self, id: u32, half: HalfOpen) -> bool {
        let mut table = self.table();
        if table.slots.len() >= MAX_SESSIONS {
            return false;
        }
        table.slots.insert(id, Slot::HalfOpen(Box::new(half)));
        true
    }

    /// Takes a half-open session out: there is one attempt to finish it.
    pub(super) fn take_half_open(&self, id: u32) -> Option<Box<HalfOpen>> {
        let mut table = self.table();
        match table.slots.remove(&id)? {
            Slot::HalfOpen(half) => Some(half),
            live => {
                table.slots.insert(id, live);
                None
            }
        }
    }

    pub(super) fn insert_live(&self, id: u32, session: LiveSession) {
        self.table().slots.insert(id, Slot::Live(Arc::new(session)));
    }

    pub(crate) fn live(&self, id: u32) -> Option<Arc<LiveSession>> {
        match self.table().slots.get(&id)? {
            Slot::Live(session) => Some(Arc::clone(session)),
            Slot::HalfOpen(_) => None,
        }
    }

    pub(crate) fn end(&self, id: u32) {
        let slot = self.table().slots.remove(&id);
        if let Some(Slot::Live(session)) = slot {
            session.end();
        }
    }

    pub(crate) fn end_all(&self) {
        let slots = std::mem::take(&mut self.table().slots);
        for slot in slots.into_values() {
            if let Slot::Live(session) = slot {
                session.end();
            }
        }
    }

    /// A place for one more handle. `None`: all 64 are taken.
    pub(crate) fn handle_place(&self) -> Option<HandleLimit> {
        let taken = self.handles.fetch_update(Ordering::AcqRel, Ordering::Acquire, |live| {
            (live < MAX_HANDLES).then_some(live.saturating_add(1))
        });
        taken.ok().map(|_| HandleLimit(Arc::clone(&self.handles)))
    }
}
