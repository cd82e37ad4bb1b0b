//! From a registry, where the host's directory has not the artifact: by ranges, into the landing itself. Nothing of it is stored, so that the
//! guest's memory holds the plaintext and a segment for each thread, whatever the size.

use std::time::Duration;

use cdh::artifact::{Pin, Prepared, prepare_remote};
use cdh::registry::Reference;
use initdata::Artifact;
use tokio::time::Instant;

use super::error::SealedError;
use crate::hub::DataHub;

/// How long one attempt may take, the landing included.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Finds an artifact at its registry, and proves its origin before anything but small objects is asked for. For threads that may block.
pub(super) fn prepare(hub: &DataHub, artifact: &Artifact, pins: &[Pin]) -> Result<Prepared, SealedError> {
    let from = Reference::parse(artifact.reference.as_str()).map_err(cdh::Error::from)?;
    // Beside the agent's own: threads that land ask it for their ranges, each for itself.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(SealedError::system("start the network"))?;
    let deadline = Instant::now() + PATIENCE;
    let registry = runtime.block_on(hub.registry(deadline))??;
    Ok(prepare_remote(registry, runtime, &from, pins, deadline)?)
}
