//! The pod annotation: base64 of the gzip stream.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::container::MAXIMUM_GZIP_BYTES;
use crate::error::InitdataError;
use crate::unverified::Unverified;

/// The annotation that runtimes take initdata from.
pub const ANNOTATION_KEY: &str = "io.katacontainers.config.hypervisor.cc_init_data";

/// What Kubernetes allows for all annotations of an object, keys and values together, in bytes.
pub const OBJECT_ANNOTATIONS_LIMIT: usize = 256 * 1024;

/// Longest annotation in bytes.
const MAXIMUM_ANNOTATION_BYTES: usize = MAXIMUM_GZIP_BYTES.div_ceil(3) * 4;

impl Unverified {
    /// Decodes an annotation: standard base64 with padding, of one gzip member. White space around it is ignored.
    ///
    /// # Errors
    /// `INITDATA_ANNOTATION`, `INITDATA_CONTAINER`, `INITDATA_TOO_LARGE`.
    pub fn from_annotation(text: &str) -> Result<Self, InitdataError> {
        let text = text.trim_ascii();
        // GUARD: initdata-annotation-cap -> evil_host_oversize_annotation
        if text.len() > MAXIMUM_ANNOTATION_BYTES {
            return Err(InitdataError::too_large("annotation", MAXIMUM_ANNOTATION_BYTES, text.len()));
        }
        let stream = STANDARD.decode(text).map_err(|error| InitdataError::Annotation {
            expected: "standard base64 with padding",
            found: error.to_string(),
        })?;
        Self::from_gzip(&stream)
    }
}

/// The annotation with this gzip stream.
pub(crate) fn encode(stream: &[u8]) -> String {
    STANDARD.encode(stream)
}
