//! `ephemeral`: memory of the guest as a file system, with the options that the runtime asked for. Upstream's agent drops them.

use std::os::fd::AsFd as _;
use std::path::Path;

use protocol::agent::Storage;
use rustix::fs::{Gid, Mode, OFlags, fchmod, fchown, fstat, openat};

use super::huge_pages::{self, Pages};
use super::mount::{Detached, reconfigure};
use super::options::{Options, mode, number};
use super::request::Request;
use super::steps::{Step, Steps};
use super::{Site, StorageError, Storages};
use crate::hotplug::Hotplug;

const TMPFS: [&str; 9] =
    ["size", "nr_blocks", "nr_inodes", "mode", "uid", "gid", "huge", "inode32", "inode64"];
const HUGETLBFS: [&str; 6] = ["pagesize", "size", "nr_inodes", "mode", "uid", "gid"];
const SET_GROUP: u32 = 0o2000;

pub(super) async fn make(site: &Site<'_>, request: &Request, steps: &mut Steps) -> Result<(), StorageError> {
    check(request)?;
    let (request, sys) = (request.clone(), site.inner.sys.clone());
    let work = move |steps: &mut Steps| {
        if request.fs_type() == "hugetlbfs" {
            let pages = pages(&request.options)?;
            steps.push(Step::HugePages(huge_pages::reserve(&sys, &pages)?));
        }
        let mounted = Detached::new(request.fs_type(), source(&request), &request.options)?;
        if let Some(group) = request.directory_group {
            give(&mounted, group)?;
        }
        steps.attach(mounted, &request.place)
    };
    steps.blocking(work).await
}

fn check(request: &Request) -> Result<(), StorageError> {
    request.expect_type("ephemeral", &["tmpfs", "hugetlbfs"], "tmpfs, hugetlbfs")?;
    if request.fs_type() == "hugetlbfs" {
        request.options.only(&HUGETLBFS, "those of hugetlbfs")?;
        pages(&request.options)?;
    } else {
        request.options.only(&TMPFS, "those of tmpfs")?;
    }
    value(&request.options, "mode").map_or(Ok(0), mode)?;
    Ok(())
}

/// What the table of mounts shows as the source.
fn source(request: &Request) -> &str {
    match request.source() {
        "shm" => "shm",
        "nodev" => "nodev",
        _ => request.fs_type(),
    }
}

fn value<'o>(options: &'o Options, key: &str) -> Option<&'o str> {
    options.values.iter().rev().find(|(found, _)| found == key).map(|(_, value)| value.as_str())
}

/// Size of a page and of the whole, in bytes.
fn pages(options: &Options) -> Result<Pages, StorageError> {
    let of = |key: &'static str| {
        let missing = || StorageError::Option { option: key.to_owned(), expected: "a number of bytes" };
        number(key, value(options, key).ok_or_else(missing)?)
    };
    Pages::new(of("pagesize")?, of("size")?)
}

/// The root directory is the group's, and new files in it get that group.
fn give(mounted: &Detached, group: u32) -> Result<(), StorageError> {
    let failed = StorageError::errno("give to a group", Path::new("ephemeral"));
    let given = || {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(mounted.root(), ".", flags, Mode::empty())?;
        fchown(directory.as_fd(), None, Some(Gid::from_raw(group)))?;
        let found = fstat(&directory)?.st_mode & 0o7777;
        fchmod(&directory, Mode::from_raw_mode(found | SET_GROUP))
    };
    given().map_err(failed)
}

/// Gives those that are there other parameters; what came before a failure is given back.
pub(super) async fn update(
    storages: &Storages,
    wanted: &[Storage],
    hotplug: &Hotplug,
) -> Result<(), StorageError> {
    if let Some(other) = wanted.iter().find(|storage| storage.driver != "ephemeral") {
        return Err(StorageError::NotEphemeral { driver: other.driver.clone() });
    }
    let requests = wanted.iter().map(|storage| Request::parse(storage, None));
    let requests = requests.collect::<Result<Vec<_>, _>>()?;
    requests.iter().try_for_each(check)?;
    let (mut changes, mut new) = (Vec::new(), Vec::new());
    for (request, storage) in requests.into_iter().zip(wanted) {
        let found = storages.inner.table().ephemeral(&request.place);
        match found {
            // What huge pages are for is decided when they are reserved.
            Some(_) if request.fs_type() == "hugetlbfs" => {}
            Some((id, before)) => changes.push((request, id, before)),
            None => new.push(storage.clone()),
        }
    }
    let added = storages.add(&new, None, hotplug).await?;
    let inner = std::sync::Arc::clone(&storages.inner);
    let changed = tokio::task::spawn_blocking(move || {
        let mut done = Vec::new();
        for (request, id, before) in changes {
            let wanted = changeable(&request.options);
            if let Err(cause) = reconfigure(&inner.run, &request.place, id, &wanted) {
                let restored = done.iter().rev().try_for_each(|(place, id, before)| {
                    reconfigure(&inner.run, place, *id, &changeable(before))?;
                    inner.table().set_options(place, Options::clone(before));
                    Ok(())
                });
                return Err(match restored {
                    Ok(()) => cause,
                    Err(source) => {
                        StorageError::Rollback { cause: Box::new(cause), source: Box::new(source) }
                    }
                });
            }
            inner.table().set_options(&request.place, request.options);
            done.push((request.place, id, before));
        }
        Ok(())
    });
    match changed.await.map_err(|_| StorageError::Panicked)? {
        Ok(()) => {
            added.keep();
            Ok(())
        }
        Err(error) => {
            added.undo().await?;
            Err(error)
        }
    }
}

/// Parameters that a tmpfs takes while it is in use.
fn changeable(options: &Options) -> Options {
    let mut options = options.clone();
    options.flags.clear();
    options.values.retain(|(key, _)| matches!(key.as_str(), "size" | "nr_blocks" | "nr_inodes"));
    options
}
