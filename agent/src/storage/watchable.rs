//! `watchable-bind`: a small directory of the host as a copy that is kept up to date, since the kernel tells nobody of changes on the
//! host's side. What is not small is bound.

use super::mount::Detached;
use super::options::Options;
use super::request::Request;
use super::steps::{Step, Steps};
use super::watch::{Snapshot, Watcher};
use super::{Site, StorageError, bind};

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
        let options = Options { attributes: request.options.attributes, ..Options::parse([SIZE])? };
        let mounted = Detached::new("tmpfs", "watchable", &options)?;
        let watcher = Watcher::start(steps.run(), source, &mounted, snapshot, &runtime, &log)?;
        steps.push(Step::Watched(watcher));
        steps.attach(mounted, &request.place)
    };
    steps.blocking(work).await
}
