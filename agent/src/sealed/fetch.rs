//! From a registry, where the host's directory has not the artifact: into the guest's memory, and judged like any other.

use std::fs::{DirBuilder, remove_dir_all};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::Duration;

use cdh::artifact::{Pin, Prepared, Reference};
use initdata::Artifact;
use tokio::time::Instant;

use super::error::SealedError;
use crate::hub::DataHub;

/// How long one attempt may take; what came is continued by the next one.
const PATIENCE: Duration = Duration::from_secs(3600);
/// The name in the layout: there is one artifact in each.
const TAG: &str = "fetched";

/// Fetches an artifact into `directory`, which nobody else writes, and opens it if a pin accepts it. For threads that may block.
pub(super) fn fetch(
    hub: &DataHub,
    artifact: &Artifact,
    directory: &Path,
    pins: &[Pin],
) -> Result<Prepared, SealedError> {
    let from = cdh::registry::Reference::parse(artifact.reference.as_str()).map_err(cdh::Error::from)?;
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(SealedError::system("make a place for an artifact"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(SealedError::system("start the network"))?;
    let deadline = Instant::now() + PATIENCE;
    runtime.block_on(hub.fetch(&from, directory, TAG, deadline))??;
    judged(directory, pins)
}

/// What no pin accepts is not kept: a registry could fill the guest's memory with it, one attempt after the other.
fn judged(directory: &Path, pins: &[Pin]) -> Result<Prepared, SealedError> {
    let layout = Reference::Layout(directory.to_owned(), Some(TAG.to_owned()));
    Prepared::open(&layout, pins).map_err(|error| {
        // GUARD: fetched-refused-forgotten -> evil_registry_fills_memory_with_refused_artifacts
        forget(directory);
        error.into()
    })
}

/// Nothing of it is needed any more.
pub(super) fn forget(directory: &Path) {
    // What is not there was not fetched; what cannot be removed is ciphertext.
    let _: io::Result<()> = remove_dir_all(directory);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evil_registry_fills_memory_with_refused_artifacts() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("0");
        std::fs::create_dir_all(directory.join("blobs/sha256")).unwrap();
        std::fs::write(directory.join("blobs/sha256/aa"), [0; 4096]).unwrap();
        std::fs::write(directory.join("index.json"), "{}").unwrap();
        let error = judged(&directory, &[]).unwrap_err();
        assert_eq!(error.code(), "MALFORMED");
        assert!(!directory.exists());
    }
}
