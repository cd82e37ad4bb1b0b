//! `[innerkeep.images]`: how much of the guest's memory unpacked images have, and whether layers stay.

use serde::Deserialize;

use super::invalid;
use crate::hub_error::HubError;

/// Less is no room for any image.
const MINIMUM_BYTES: u64 = 1 << 20;

/// What upstream has no bounds for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImagesConfig {
    /// Bytes of all unpacked images together; half of the memory unless it is said.
    pub memory_bytes: Option<u64>,
    /// Whether layers stay in `work_dir` when their image is unpacked, for images that share them.
    pub keep_layers: bool,
}

impl ImagesConfig {
    pub(super) fn require_limits(&self) -> Result<(), HubError> {
        match self.memory_bytes {
            Some(bytes) if bytes < MINIMUM_BYTES => Err(invalid(format!(
                "innerkeep.images.memory_bytes: expected at least {MINIMUM_BYTES}, found {bytes}"
            ))),
            _ => Ok(()),
        }
    }
}
