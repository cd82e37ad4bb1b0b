//! `watchable-bind`: a small directory of the host as a copy that is kept up to date, since the kernel tells nobody of changes on the
//! host's side. What is not small is bound.

use std::os::fd::AsFd as _;

use super::mount::Detached;
use super::options::Options;
use super::request::Request;
use super::steps::{Step, Steps};
use super::watch::{Snapshot, Watcher};
use super::{Site, StorageError, bind};
use crate::sys::mount_attributes;

/// Twice what is copied, since old and new are there at once.
const SIZE: &str = "size=2200k,nr_inodes=160,mode=0755";

pub(super) async fn make(site: &Site<'_>, request: &Request, steps: &mut Steps) -> Result<(), StorageError> {
    request.expect_type("watchable-bind", &["", "bind", "none"], "bind")?;
    request.options.only(&[], "none: a bind mount has no parameters")?;
    let source = request.source_place()?;
    let request = request.clone();
    let (log, runtime) = (site.inner.log.clone(), tokio::runtime::Handle::current());
    let work = move |steps: &mut Steps| {
        let Some(snapshot) = Snapshot::of(steps.run(), &source)? else {
            return bind::bind(&request, &source, steps);
        };
        let mounted = Detached::new("tmpfs", "watchable", &Options::parse([SIZE])?)?;
        let at = request.place.on_the_wire();
        let shown = mounted.root().try_clone_to_owned().map_err(StorageError::io("hold", &at))?;
        steps.attach(mounted, &request.place)?;
        // A way of the agent's own, by which copies are written: what containers see is often read-only.
        let own = Detached::bind(shown.as_fd(), &Options::default())?;
        mount_attributes::set(shown.as_fd(), request.options.attributes(), false)
            .map_err(StorageError::io("set attributes of", &at))?;
        steps.push(Step::Watched(Watcher::start(steps.run(), source, own, snapshot, &runtime, &log)?));
        Ok(())
    };
    steps.blocking(work).await
}
