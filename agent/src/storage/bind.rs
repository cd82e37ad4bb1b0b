//! `bind`: what is at one place is at another one, too.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, fstat, openat};

use super::StorageError;
use super::beneath::Beneath;
use super::mount::Detached;
use super::place::Place;
use super::request::Request;
use super::steps::{Step, Steps};

pub(super) async fn make(request: &Request, steps: &mut Steps) -> Result<(), StorageError> {
    request.expect_type("bind", &["", "bind", "none"], "bind")?;
    request.options.only(&[], "none: a bind mount has no parameters")?;
    let source = request.source_place()?;
    let request = request.clone();
    steps.blocking(move |steps| bind(&request, &source, steps)).await
}

/// Binds what is at `source` to the place of the request, which is made where it is missing: a directory, or a file.
pub(super) fn bind(request: &Request, source: &Place, steps: &mut Steps) -> Result<(), StorageError> {
    let at = source.on_the_wire();
    let failed = |error: std::io::Error| StorageError::io("bind", &at)(error);
    let root = Beneath::open(steps.run()).map_err(failed)?;
    let found = root.place(source.as_path()).map_err(failed)?;
    let kind = FileType::from_raw_mode(fstat(&found).map_err(|error| failed(error.into()))?.st_mode);
    let mounted = Detached::bind(found.as_fd(), &request.options)?;
    match kind {
        FileType::Directory => steps.attach(mounted, &request.place),
        FileType::RegularFile => {
            let target = file_at(&root, &request.place, steps)?;
            steps.attach_to(mounted, &target, &request.place)
        }
        _ => Err(StorageError::Place {
            place: at.display().to_string(),
            reason: "expected a directory or a regular file",
        }),
    }
}

/// An empty file to bind over, made where it is missing.
fn file_at(root: &Beneath, place: &Place, steps: &mut Steps) -> Result<OwnedFd, StorageError> {
    let at = place.on_the_wire();
    let failed = |error: std::io::Error| StorageError::io("make file", &at)(error);
    if let Some(parent) = place.as_path().parent() {
        steps.make_directory(&Place::own(parent.to_owned()))?;
    }
    let (parent, name) = root.parent(place.as_path()).map_err(failed)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(&parent, name, flags, Mode::RUSR | Mode::WUSR) {
        Ok(_) => steps.push(Step::Tree(place.as_path().to_owned())),
        Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(failed(error.into())),
    }
    root.place(place.as_path()).map_err(failed)
}
