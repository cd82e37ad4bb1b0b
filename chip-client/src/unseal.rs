//! Unseal jobs over the DMA paths (spec §8.2, §8.3): several commands outstanding, memory bounded whatever the size.
//!
//! ```text
//!  dma-sealed   source ─▶ shared staging ─▶ chip ─▶ shared staging ─copied once─▶ destination, opened in place
//!  dma-direct   source ─▶ shared staging ─▶ chip ─▶ the landing file itself
//! ```
//!
//! Any failure ends the session and resets the controller before memory is unmapped: nothing is written late.

mod direct;
mod lanes;
mod sealed;
mod staging;

use std::io;

use protected_memory::dma::SharedMemoryProvider;
use sealed_artifact::core::Core;
use sealed_artifact::layout::Layout;
use sealed_artifact::names::PayloadIndex;

use crate::abi::limits::TAG;
use crate::abi::{DataPath, Opcode, parse_handle};
use crate::error::{ChipError, JobError};
use crate::session::{Presented, Session, UnwrapRequest};

/// A content key that stays inside the chip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle(u32);

/// One payload to be unsealed.
#[derive(Clone, Copy, Debug)]
pub struct UnsealJob<'a> {
    /// The key, from [`Session::unwrap_grant`].
    pub handle: Handle,
    /// The core.
    pub core: &'a Core,
    /// Which of its payloads.
    pub payload: PayloadIndex,
    /// The payload's tag table.
    pub tag_table: &'a [u8],
    /// Where shared memory for ciphertext comes from.
    pub staging: SharedMemoryProvider,
}

/// Fills the buffer with ciphertext from this offset of the payload's blob; called once for each byte.
pub type ReadCiphertext<'a> = dyn FnMut(u64, &mut [u8]) -> io::Result<()> + 'a;

/// Is told how many more bytes have landed.
pub type Progress<'a> = dyn FnMut(u64) + 'a;

impl Session<'_, Presented> {
    /// Opens a grant; the content key stays inside the chip. For the paths `dma-direct` and `dma-sealed`.
    ///
    /// # Errors
    ///
    /// The session is one of `key-release`; the chip denies, with the code of its status.
    pub fn unwrap_grant(&mut self, request: &UnwrapRequest<'_>) -> Result<Handle, ChipError> {
        if self.agreement().path == DataPath::KeyRelease {
            self.inner.require_path("unwrapping to a handle", DataPath::DmaSealed)?;
        }
        let answer = self.inner.call(Opcode::Unwrap, &request.encode(), 4)?;
        let handle = parse_handle(&answer.output).map_err(ChipError::malformed(Opcode::Unwrap));
        handle.map(Handle).map_err(|e| self.inner.end(e))
    }
}

/// Compares the BLAKE3 digest of a whole plaintext with the core's; a core without one is satisfied by everything.
///
/// For `dma-direct`, after the landing is complete and before it is attached: until then the device could still write.
///
/// # Errors
///
/// `CHIP_PAYLOAD_DIGEST`; no such payload.
pub fn verify_payload_digest(core: &Core, payload: PayloadIndex, plaintext: &[u8]) -> Result<(), ChipError> {
    let seal = core.payloads().get(payload.as_usize()).ok_or_else(|| no_payload(core, payload))?;
    if let Some(expected) = seal.blake3 {
        let found = blake3::hash(plaintext);
        // GUARD: direct-payload-digest -> evil_other_plaintext_under_the_same_tags
        if found.as_bytes() != expected.as_bytes() {
            return Err(JobError::PayloadDigest { payload: payload.value() }.into());
        }
    }
    Ok(())
}

impl UnsealJob<'_> {
    /// The payload's layout, after the lengths of what the caller gave fit it.
    fn layout(&self, destination: u64) -> Result<Layout, ChipError> {
        let parameters = self.core.parameters().payloads().get(self.payload.as_usize());
        let layout = parameters.ok_or_else(|| no_payload(self.core, self.payload))?.layout;
        let tags = u64::from(layout.segments()) * TAG as u64;
        require_length("tag table", tags, self.tag_table.len() as u64)?;
        require_length("destination", layout.size(), destination)?;
        Ok(layout)
    }
}

fn no_payload(core: &Core, payload: PayloadIndex) -> ChipError {
    JobError::NoPayload { expected: core.payloads().len(), found: payload.value() }.into()
}

fn require_length(what: &'static str, expected: u64, found: u64) -> Result<(), ChipError> {
    if expected != found {
        return Err(JobError::Length { what, expected, found }.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
