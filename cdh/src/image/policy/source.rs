//! Where signatures come from. Everything that comes is untrusted; what is missing makes a refusal, never a permission.

use async_trait::async_trait;

use super::cosign::CosignLayer;
use super::digest::Digest;
use super::error::Cause;
use super::name::ImageName;

/// Most signatures of one manifest that are looked at.
pub const SIGNATURES_MAX: usize = 64;

/// Gives the signatures of a manifest.
///
/// Both methods give an empty list when there are none, an error when that could not be found out, and at most [`SIGNATURES_MAX`]
/// signatures, each read up to its cap and no further.
#[async_trait]
pub trait SignatureSource: Send + Sync {
    /// Signatures of cosign: the layers of the manifest under [`super::cosign::signature_tag`] of this digest, in the repository of `name`
    /// or its mirror. Payloads are at most [`super::PAYLOAD_MAX`] long and were compared with the digests in their manifest.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from knowing them.
    async fn cosign(&self, name: &ImageName, digest: &Digest) -> Result<Vec<CosignLayer>, Cause>;

    /// Simple signatures: files of at most [`super::openpgp::MESSAGE_MAX`] beside the registry. [`super::LookasideConfig::read`] gives
    /// them.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from knowing them.
    async fn lookaside(&self, name: &ImageName, digest: &Digest) -> Result<Vec<Vec<u8>>, Cause>;
}

/// There are no signatures anywhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSignatures;

#[async_trait]
impl SignatureSource for NoSignatures {
    async fn cosign(&self, _: &ImageName, _: &Digest) -> Result<Vec<CosignLayer>, Cause> {
        Ok(Vec::new())
    }

    async fn lookaside(&self, _: &ImageName, _: &Digest) -> Result<Vec<Vec<u8>>, Cause> {
        Ok(Vec::new())
    }
}
