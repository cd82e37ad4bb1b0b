//! Puts commands together.

use zeroize::Zeroizing;

use super::MESSAGE_MAX_BYTES;

/// Bytes in the making. They may carry a secret: wiped when dropped, and never moved while they grow.
pub(in super::super) struct Writer {
    bytes: Zeroizing<Vec<u8>>,
}

impl Writer {
    pub(in super::super) fn new() -> Self {
        Self { bytes: Zeroizing::new(Vec::with_capacity(MESSAGE_MAX_BYTES)) }
    }

    pub(in super::super) fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub(in super::super) fn u8(self, value: u8) -> Self {
        self.raw(&[value])
    }

    pub(in super::super) fn u16(self, value: u16) -> Self {
        self.raw(&value.to_be_bytes())
    }

    pub(in super::super) fn u32(self, value: u32) -> Self {
        self.raw(&value.to_be_bytes())
    }

    /// A TPM2B. Nothing that is sent comes near 2^16 bytes; the TPM refuses a length that lies.
    pub(in super::super) fn sized(self, bytes: &[u8]) -> Self {
        self.u16(u16::try_from(bytes.len()).unwrap_or(u16::MAX)).raw(bytes)
    }

    pub(in super::super) fn done(self) -> Zeroizing<Vec<u8>> {
        self.bytes
    }
}
