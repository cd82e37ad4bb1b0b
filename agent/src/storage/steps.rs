//! What was done for a storage, and how it is undone: in reverse order, each step once.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use tokio::task::spawn_blocking;

use super::StorageError;
use super::beneath::Beneath;
use super::claims::Claim;
use super::huge_pages::Reserved;
use super::mount::{Detached, MountId, detach};
use super::place::Place;
use super::watch::Watcher;
use crate::dm;

/// Directories on the way to a mount point.
const DIRECTORY_MODE: Mode =
    Mode::RWXU.union(Mode::RGRP).union(Mode::XGRP).union(Mode::ROTH).union(Mode::XOTH);

/// One thing that was done.
#[derive(Debug)]
pub(crate) enum Step {
    /// A device is ours.
    Claimed(Claim),
    /// A device of device-mapper.
    Mapped(dm::Mapped),
    /// A directory was made; it goes when it is empty.
    Directory(PathBuf),
    /// A directory was made, and goes with all below it.
    Tree(PathBuf),
    /// Huge pages.
    HugePages(Reserved),
    /// A mount.
    Mounted(Place, MountId),
    /// Copies are kept up to date.
    Watched(Watcher),
}

/// What was done so far. Dropped, it is undone.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    run: PathBuf,
    steps: Vec<Step>,
}

impl Steps {
    /// Nothing yet, below this directory of the runtime.
    pub(crate) fn below(run: &Path) -> Self {
        Self { run: run.to_owned(), steps: Vec::new() }
    }

    /// The directory of the runtime.
    pub(crate) fn run(&self) -> &Path {
        &self.run
    }

    pub(crate) fn push(&mut self, step: Step) {
        self.steps.push(step);
    }

    /// The mount at a place.
    pub(crate) fn mount_at(&self, place: &Place) -> Option<MountId> {
        self.steps.iter().rev().find_map(|step| match step {
            Step::Mounted(found, id) if found == place => Some(*id),
            _ => None,
        })
    }

    /// Undoes everything; the first error is returned, and does not hold up the rest.
    pub(crate) fn undo(&mut self) -> Result<(), StorageError> {
        let mut result = Ok(());
        while let Some(step) = self.steps.pop() {
            let undone = self.undo_one(step);
            result = result.and(undone);
        }
        result
    }

    fn undo_one(&self, step: Step) -> Result<(), StorageError> {
        let removed = |path: &Path, remove: fn(&Beneath, &Path) -> std::io::Result<()>| {
            let removed = Beneath::open(&self.run).and_then(|root| remove(&root, path));
            removed.map_err(StorageError::io("remove", path))
        };
        match step {
            Step::Claimed(claim) => {
                drop(claim);
                Ok(())
            }
            Step::Mapped(device) => Ok(device.remove()?),
            Step::Directory(path) => removed(&path, Beneath::remove_empty),
            Step::Tree(path) => removed(&path, Beneath::remove_all),
            Step::HugePages(pages) => pages.give_back(),
            Step::Mounted(place, id) => detach(&self.run, &place, id),
            Step::Watched(watcher) => {
                watcher.stop();
                Ok(())
            }
        }
    }

    /// Does something that may wait for a disk or a file system of the host, on a thread where that holds up nobody.
    pub(crate) async fn blocking<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let mut own = std::mem::take(self);
        let done = spawn_blocking(move || {
            let result = work(&mut own);
            (own, result)
        });
        let (own, result) = done.await.map_err(|_| StorageError::Panicked)?;
        *self = own;
        result
    }

    /// Makes what is missing of the path of a directory.
    pub(crate) fn make_directory(&mut self, place: &Place) -> Result<std::os::fd::OwnedFd, StorageError> {
        let at = place.on_the_wire();
        let failed = |error: std::io::Error| StorageError::io("make directory", &at)(error);
        // What a sandbox shares is mounted before there is a container.
        DirBuilder::new().recursive(true).mode(0o755).create(&self.run).map_err(failed)?;
        let root = Beneath::open(&self.run).map_err(failed)?;
        let mut made = Vec::new();
        let directory = root.make_directories(place.as_path(), DIRECTORY_MODE, &mut made);
        self.steps.extend(made.into_iter().map(Step::Directory));
        directory.map_err(failed)
    }

    /// Attaches a mount to a directory, which is made where it is missing.
    pub(crate) fn attach(&mut self, mount: Detached, place: &Place) -> Result<(), StorageError> {
        let directory = self.make_directory(place)?;
        self.attach_to(mount, &directory, place)
    }

    /// Attaches a mount to what is open at a place.
    pub(crate) fn attach_to(
        &mut self,
        mount: Detached,
        target: &std::os::fd::OwnedFd,
        place: &Place,
    ) -> Result<(), StorageError> {
        use std::os::fd::AsFd as _;
        let id =
            mount.attach(target.as_fd()).map_err(StorageError::errno("mount on", &place.on_the_wire()))?;
        self.steps.push(Step::Mounted(place.clone(), id));
        Ok(())
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        // Who wants to know whether it worked calls `undo`.
        let _ = self.undo();
    }
}
