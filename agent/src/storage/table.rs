//! Which storage is at which place, and who uses it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd as _;
use std::path::Path;

use protocol::ids::ContainerId;

use super::beneath::Beneath;
use super::mount::MountId;
use super::options::Options;
use super::place::{Place, RUN};
use super::request::{Driver, Identity, Request};
use super::steps::Steps;
use super::{StorageError, VerifiedRoot};

/// Who uses a storage.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum User {
    Sandbox,
    Container(ContainerId),
}

/// What was found at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reuse {
    /// Nothing.
    Free,
    /// The storage, which has one user more now.
    NewUser,
    /// The storage, which had this user already.
    SameUser,
}

/// Storages by place.
#[derive(Debug, Default)]
pub(super) struct Table {
    next: u64,
    entries: BTreeMap<Place, Entry>,
}

#[derive(Debug)]
struct Entry {
    /// The order in which they came.
    number: u64,
    identity: Identity,
    options: Options,
    shared: bool,
    users: BTreeSet<User>,
    steps: Steps,
    root: Option<VerifiedRoot>,
}

impl Table {
    /// Looks whether a storage may be where it is to be, and joins it if it is there.
    pub(super) fn join(&mut self, request: &Request, user: &User) -> Result<Reuse, StorageError> {
        let place = &request.place;
        let refuse =
            |reason| StorageError::Place { place: place.on_the_wire().display().to_string(), reason };
        let below = self.entries.keys().any(|other| other.is_below(place));
        // GUARD: mount-hides-nothing -> evil_host_mounts_over_a_storage
        if below && !self.entries.contains_key(place) {
            return Err(refuse("storages are mounted below it, which it would hide"));
        }
        let inside = self.entries.iter().any(|(other, entry)| entry.root.is_some() && place.is_below(other));
        // GUARD: verified-root-is-whole -> evil_host_mounts_into_a_verified_root
        if inside {
            return Err(refuse("it lies in a root that was verified"));
        }
        let Some(entry) = self.entries.get_mut(place) else { return Ok(Reuse::Free) };
        // GUARD: image-of-its-own -> evil_host_image_where_a_storage_is, evil_host_layers_where_a_storage_is
        if matches!(request.driver, Driver::Image | Driver::Layers) {
            return Err(refuse("a root has a place of its own, and a storage is mounted there"));
        }
        let differs = entry.identity.differs(&request.identity);
        // GUARD: same-storage -> evil_host_another_storage_at_the_same_place
        if let Some(field) = differs {
            return Err(StorageError::Conflict { place: place.on_the_wire().display().to_string(), field });
        }
        Ok(if entry.users.insert(user.clone()) { Reuse::NewUser } else { Reuse::SameUser })
    }

    /// Records one that was made.
    pub(super) fn insert(&mut self, request: Request, user: User, steps: Steps, root: Option<VerifiedRoot>) {
        let Request { place, identity, options, shared, .. } = request;
        let users = BTreeSet::from([user]);
        let entry = Entry { number: self.next, identity, options, shared, users, steps, root };
        self.next += 1;
        self.entries.insert(place, entry);
    }

    /// A user leaves everything.
    pub(super) fn leave_all(&mut self, user: &User) -> Result<(), StorageError> {
        let used = self.entries.iter().filter(|(_, entry)| entry.users.contains(user));
        let places = used.map(|(place, _)| place.clone()).collect::<Vec<_>>();
        self.leave(user, &places, &[])
    }

    /// A user leaves these; those that were `created` for it go even if they would be shared.
    pub(super) fn leave(
        &mut self,
        user: &User,
        joined: &[Place],
        created: &[Place],
    ) -> Result<(), StorageError> {
        let mut last = Vec::new();
        for (places, is_new) in [(joined, false), (created, true)] {
            for place in places {
                let Some(entry) = self.entries.get_mut(place) else { continue };
                entry.users.remove(user);
                if entry.users.is_empty() && (is_new || !entry.shared) {
                    last.push((entry.number, place.clone()));
                }
            }
        }
        last.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        let mut result = Ok(());
        for (_, place) in last {
            if let Some(mut entry) = self.entries.remove(&place) {
                let undone = entry.steps.undo();
                result = result.and(undone);
            }
        }
        result
    }

    /// The tree that is mounted at a place.
    pub(super) fn verified_at(&self, place: &Place) -> Option<VerifiedRoot> {
        self.entries.get(place).and_then(|entry| entry.root.clone())
    }

    pub(super) fn verified_root(
        &self,
        run: &Path,
        root: &Path,
        container: &ContainerId,
    ) -> Option<VerifiedRoot> {
        let place = Place::own(root.strip_prefix(RUN).ok()?.components().collect());
        let entry = self.entries.get(&place)?;
        // GUARD: verified-root-is-own -> evil_host_shares_a_verified_root
        if entry.users != BTreeSet::from([User::Container(container.clone())]) {
            return None;
        }
        let mounted = entry.steps.mount_at(&place)?;
        let found = Beneath::open(run).and_then(|run| run.place(place.as_path())).ok()?;
        // GUARD: verified-root-is-on-top -> evil_mount_over_a_verified_root
        if MountId::of(found.as_fd()) != Ok(mounted) {
            return None;
        }
        entry.root.clone()
    }

    /// As if what is mounted there were verified: tests have no device-mapper.
    #[cfg(test)]
    pub(super) fn set_root(&mut self, place: &str, root: VerifiedRoot) {
        let below = Path::new(place).strip_prefix(RUN).map(Path::to_owned).unwrap_or_default();
        if let Some(entry) = self.entries.get_mut(&Place::own(below)) {
            entry.root = Some(root);
        }
    }

    /// The mount and the options of an ephemeral storage.
    pub(super) fn ephemeral(&self, place: &Place) -> Option<(MountId, Options)> {
        let entry = self.entries.get(place).filter(|entry| entry.identity.driver == Driver::Ephemeral)?;
        Some((entry.steps.mount_at(place)?, entry.options.clone()))
    }

    /// An ephemeral storage has other options now.
    pub(super) fn set_options(&mut self, place: &Place, options: Options) {
        if let Some(entry) = self.entries.get_mut(place) {
            entry.options = options;
        }
    }
}
