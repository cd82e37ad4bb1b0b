//! That an image was pulled, as an event of the runtime log.

use std::sync::Arc;

use async_trait::async_trait;
use attestation_agent::Attester;

use crate::image::policy::{Cause, Digest};

/// Who logs (upstream's data hub, `hub.rs`).
pub const DOMAIN: &str = "github.com/confidential-containers";
/// What was done.
pub const OPERATION: &str = "PullImage";
/// The PCR of the agent, too, unless it is told otherwise.
const PCR: u64 = 17;

/// The event of one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageEvent {
    content: String,
}

impl ImageEvent {
    /// `image` was read as a reference before, so that nothing in it has a meaning in JSON.
    pub(super) fn new(image: &str, digest: &Digest) -> Self {
        Self { content: format!("{{\"image\":\"{image}\", \"digest\":\"{digest}\"}}") }
    }

    /// `{"image":"<as it was asked for>", "digest":"<of the manifest>"}`, with exactly this one blank: as upstream writes it.
    #[must_use]
    pub fn content(&self) -> &str {
        &self.content
    }
}

/// Measures images.
#[async_trait]
pub trait Measure: Send + Sync {
    /// Extends a register with the event [`DOMAIN`], [`OPERATION`], [`ImageEvent::content`], before anything of the image is used.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from being done: nothing of the image is used then.
    async fn image(&self, event: &ImageEvent) -> Result<(), Cause>;
}

/// Measures with the platform's registers; where a platform has none, there is nothing to extend.
#[derive(Debug)]
pub struct Registers(Arc<Attester>);

impl Registers {
    /// Those of this attester.
    #[must_use]
    pub const fn new(attester: Arc<Attester>) -> Self {
        Self(attester)
    }
}

#[async_trait]
impl Measure for Registers {
    async fn image(&self, event: &ImageEvent) -> Result<(), Cause> {
        let (attester, content) = (Arc::clone(&self.0), event.content.clone());
        let extended =
            tokio::task::spawn_blocking(move || attester.extend(DOMAIN, OPERATION, &content, PCR)).await?;
        extended.map(drop).map_err(Into::into)
    }
}
