//! Physical unclonable function and fuzzy extractor (interface spec §6.1).
//!
//! `silicon` is the emulated response with its noise, `bch` the error-correcting code, `extractor` the code-offset construction
//! with authenticated helper data, [`measure`] the failure-rate measurement behind SPECIFICATION.md.
// Fixed-size tables and bit arithmetic over private, trusted values; nothing here parses bytes of the host.
#![expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "table arithmetic on fixed-size private arrays; indices are bounded by construction"
)]

pub(crate) mod bch;
pub(crate) mod extractor;
mod gf256;
pub mod measure;
pub(crate) mod noise;
pub(crate) mod silicon;

pub(crate) use extractor::{Extractor, HELPER_BYTES, HelperData, Root};
pub(crate) use silicon::Silicon;

/// Blocks of the response.
pub(crate) const BLOCKS: usize = 7;
/// Response bits: seven codewords.
pub(crate) const RESPONSE_BITS: usize = BLOCKS * bch::LENGTH;
/// Response packed most significant bit first, the last seven bits zero.
pub(crate) const RESPONSE_BYTES: usize = RESPONSE_BITS.div_ceil(8);

/// One reading of the response, or helper data of the same shape: seven words of 255 bits. Wiped on drop.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Response(pub(crate) [bch::Word; BLOCKS]);

impl Response {
    /// Bits in order, block after block, most significant bit of each byte first.
    pub(crate) fn pack(&self) -> zeroize::Zeroizing<[u8; RESPONSE_BYTES]> {
        let mut bytes = zeroize::Zeroizing::new([0; RESPONSE_BYTES]);
        for i in 0..RESPONSE_BITS {
            if self.0[i / bch::LENGTH].bit(i % bch::LENGTH) {
                bytes[i / 8] |= 0x80 >> (i % 8);
            }
        }
        bytes
    }

    pub(crate) fn unpack(bytes: &[u8; RESPONSE_BYTES]) -> Self {
        let mut response = Self::default();
        for i in 0..RESPONSE_BITS {
            if bytes[i / 8] & 0x80 >> (i % 8) != 0 {
                response.0[i / bch::LENGTH].flip(i % bch::LENGTH);
            }
        }
        response
    }
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Response(..)")
    }
}

impl Drop for Response {
    fn drop(&mut self) {
        for word in &mut self.0 {
            zeroize::Zeroize::zeroize(&mut word.0);
        }
    }
}
