//! Unpacked images in memory: which there are, what they take together, and which one goes when another needs room.
//!
//! ```text
//!  reserve ─▶ what is bound − what images have − what others reserved ─▶ enough? ── no: oldest that nobody uses goes, others are waited for
//!                                                                          │ yes                                        └ PULL_ROOM
//!                                                                          ▼
//!                                     a tmpfs of that size, and no larger ─▶ fill: what it has counts from now on
//! ```
//!
//! An image is used while somebody holds it, or while the kernel has it mounted, whoever did that and wherever it is: a mount shows its metadata
//! by a loop device. Its memory counts until neither is so; taking it out of here before would free nothing.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::Notify;
use tokio::task::spawn_blocking;

use super::{Key, PullError, lock};
use crate::Error;
use crate::composefs::ComposefsError;
use crate::composefs::mount::{Shown, Verified};

/// How many times its compressed size is plenty for an image.
const EXPANSION: u64 = 8;

/// All unpacked images of a puller.
#[derive(Debug)]
pub(super) struct Kept {
    state: Mutex<State>,
    freed: Notify,
    /// Bytes of all of them.
    total: u64,
    /// Images that are kept although nobody uses them.
    most: usize,
}

#[derive(Debug, Default)]
struct State {
    /// That which was used last is at the end.
    images: VecDeque<Image>,
    /// Bytes for images that are being made.
    reserved: u64,
}

#[derive(Debug)]
struct Image {
    held: Held,
    shown: Shown,
    bytes: u64,
}

#[derive(Debug)]
enum Held {
    /// For whoever pulls it again.
    Kept(Key, Arc<Verified>),
    /// By others; it counts for as long as they have it.
    Passing(Weak<Verified>),
}

impl Image {
    /// What cannot be found out is a use.
    fn is_used(&self) -> bool {
        let is_held = match &self.held {
            Held::Kept(_, image) => Arc::strong_count(image) > 1,
            Held::Passing(image) => image.strong_count() > 0,
        };
        is_held || self.shown.is_mounted().unwrap_or(true)
    }

    fn is_unused_and_kept(&self) -> bool {
        matches!(self.held, Held::Kept(..)) && !self.is_used()
    }
}

impl State {
    fn free(&self, total: u64) -> u64 {
        let taken = self.images.iter().fold(self.reserved, |sum, image| sum.saturating_add(image.bytes));
        total.saturating_sub(taken)
    }

    /// Takes out those that were passing and are gone.
    fn forget(&mut self, gone: &mut Vec<Image>) {
        let (left, over) = std::mem::take(&mut self.images)
            .into_iter()
            .partition(|image| matches!(image.held, Held::Kept(..)) || image.is_used());
        self.images = left;
        gone.extend::<VecDeque<_>>(over);
    }

    /// Takes out the oldest of those that nobody uses, until there are no more of them than may be kept.
    fn trim(&mut self, most: usize, gone: &mut Vec<Image>) {
        let unused = self.images.iter().filter(|image| image.is_unused_and_kept()).count();
        for _ in most..unused {
            self.evict(gone);
        }
    }

    /// Takes out the oldest that nobody uses.
    fn evict(&mut self, gone: &mut Vec<Image>) -> bool {
        let Some(at) = self.images.iter().position(Image::is_unused_and_kept) else { return false };
        gone.extend(self.images.remove(at));
        true
    }
}

/// Room for one image, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    kept: Arc<Kept>,
    bytes: u64,
}

impl Kept {
    pub(super) fn new(total: u64, most: usize) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), freed: Notify::new(), total, most })
    }

    /// The image of this key, which was used now.
    pub(super) async fn find(self: &Arc<Self>, key: Key) -> Result<Option<Arc<Verified>>, Error> {
        let kept = Arc::clone(self);
        Ok(spawn_blocking(move || kept.find_now(key)).await.map_err(|_| PullError::Interrupted)?)
    }

    fn find_now(&self, key: Key) -> Option<Arc<Verified>> {
        let mut gone = Vec::new();
        let mut state = lock(&self.state);
        state.trim(self.most, &mut gone);
        let is_it = |image: &Image| matches!(&image.held, Held::Kept(found, _) if *found == key);
        let at = state.images.iter().position(is_it)?;
        let image = state.images.remove(at)?;
        let found = match &image.held {
            Held::Kept(_, image) => Arc::clone(image),
            Held::Passing(_) => return None,
        };
        state.images.push_back(image);
        Some(found)
    }

    /// Refuses an image of at least so many bytes that there will be no room for, before anything of it is fetched.
    ///
    /// # Errors
    ///
    /// `PULL_ROOM`.
    pub(super) async fn require(self: &Arc<Self>, least: u64) -> Result<(), Error> {
        let kept = Arc::clone(self);
        let looked = spawn_blocking(move || {
            let mut gone = Vec::new();
            let mut state = lock(&kept.state);
            state.forget(&mut gone);
            let unused = state.images.iter().filter(|image| image.is_unused_and_kept());
            let has = unused.fold(state.free(kept.total), |sum, image| sum.saturating_add(image.bytes));
            // GUARD: pull-room -> evil_image_that_is_larger_than_memory
            if least > has && state.reserved == 0 {
                return Err(PullError::Room { needs: least, has });
            }
            Ok(())
        });
        Ok(looked.await.map_err(|_| PullError::Interrupted)??)
    }

    /// Room for an image of at least `least` and at most `most` bytes. Waits for others that are being made.
    ///
    /// # Errors
    ///
    /// `PULL_ROOM`.
    pub(super) async fn reserve(self: &Arc<Self>, least: u64, most: u64) -> Result<Reservation, Error> {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // Before the look: whoever frees something after it is heard.
            freed.as_mut().enable();
            let kept = Arc::clone(self);
            let attempt = spawn_blocking(move || kept.attempt(least, most));
            if let Some(reservation) = attempt.await.map_err(|_| PullError::Interrupted)?? {
                return Ok(reservation);
            }
            freed.await;
        }
    }

    fn attempt(self: Arc<Self>, least: u64, most: u64) -> Result<Option<Reservation>, PullError> {
        // Freed when the lock is not held any more.
        let mut gone = Vec::new();
        let mut state = lock(&self.state);
        state.forget(&mut gone);
        let plenty = least.saturating_mul(EXPANSION).min(most);
        while state.free(self.total) < plenty && state.evict(&mut gone) {}
        let free = state.free(self.total);
        if free < least.max(1) {
            if state.reserved > 0 {
                return Ok(None);
            }
            return Err(PullError::Room { needs: least, has: free });
        }
        // All of it for one image, unless half is plenty.
        let bytes = if free / 2 >= plenty { free / 2 } else { free }.min(most);
        state.reserved = state.reserved.saturating_add(bytes);
        drop(state);
        Ok(Some(Reservation { kept: self, bytes }))
    }
}

impl Reservation {
    /// Most bytes of the image.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The image that was made in it. With a key it is kept for others.
    ///
    /// # Errors
    ///
    /// `COMPOSEFS_SYSTEM`.
    pub(super) async fn fill(self, key: Option<Key>, image: &Arc<Verified>) -> Result<(), Error> {
        let image = Arc::clone(image);
        let filled = spawn_blocking(move || self.fill_now(key, &image));
        Ok(filled.await.map_err(|_| PullError::Interrupted)??)
    }

    fn fill_now(self, key: Option<Key>, image: &Arc<Verified>) -> Result<(), ComposefsError> {
        let (bytes, shown) = (image.used()?, image.shown()?);
        let held = match key {
            Some(key) => Held::Kept(key, Arc::clone(image)),
            None => Held::Passing(Arc::downgrade(image)),
        };
        let mut gone = Vec::new();
        let mut state = lock(&self.kept.state);
        if let Some(key) = key {
            // Another one of the same key has lost its place: there was a pin that it could not be compared with.
            for other in &mut state.images {
                match &other.held {
                    Held::Kept(found, image) if *found == key => {
                        other.held = Held::Passing(Arc::downgrade(image));
                    }
                    _ => {}
                }
            }
        }
        state.images.push_back(Image { held, shown, bytes });
        state.trim(self.kept.most, &mut gone);
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut state = lock(&self.kept.state);
        state.reserved = state.reserved.saturating_sub(self.bytes);
        drop(state);
        self.kept.freed.notify_waiters();
    }
}
