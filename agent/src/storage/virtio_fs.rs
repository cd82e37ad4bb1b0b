//! `virtio-fs`: a directory of the host.

use super::StorageError;
use super::mount::Detached;
use super::request::Request;
use super::steps::Steps;

/// Longest tag of the device.
const MAXIMUM_TAG_BYTES: usize = 36;

pub(super) async fn make(request: &Request, steps: &mut Steps) -> Result<(), StorageError> {
    request.expect_type("virtio-fs", &["virtiofs"], "virtiofs")?;
    if request.source().is_empty() || request.source().len() > MAXIMUM_TAG_BYTES {
        return Err(StorageError::Option { option: "source".to_owned(), expected: "a tag of 1 to 36 bytes" });
    }
    request.options.only(&["dax", "sync", "dirsync", "lazytime"], "those of virtiofs")?;
    let request = request.clone();
    let work = move |steps: &mut Steps| {
        let mounted = Detached::new("virtiofs", request.source(), &request.options)?;
        steps.attach(mounted, &request.place)
    };
    steps.blocking(work).await
}
