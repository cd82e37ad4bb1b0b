//! Encrypted layers (ocicrypt): what their annotations say, who opens them, and plaintext that was verified before it was given.
//!
//! ```text
//!  media type, annotations ─▶ EncryptedLayer ─KeyUnwrap: provider, packet─▶ LayerKey
//!                                                                            │ verify: the whole blob once
//!                                                                            ▼
//!                                                     VerifiedLayer: Read, the same bytes once more
//! ```
//!
//! The cipher is AES-256-CTR with HMAC-SHA256 over the ciphertext, by one key; the authenticator covers neither nonce nor options. The
//! nonce may stand in the public options, where nobody signs it. So the digest of the plaintext, which came with the key, is the proof
//! that counts: the first pass computes both, decrypting into a buffer that is wiped and goes nowhere, and nothing is readable
//! unless both are right. Upstream compares the first at the end of the stream, when the bytes have been unpacked, and the second never.
//!
//! The second pass reads the blob again. Of each MiB it keeps a tag by a key of its own that was made for this one layer, so that a store
//! that answers with other bytes the second time gets an error for them and no plaintext.
//!
//! Differences from ocicrypt: only key providers (`…enc.keys.provider.…`), only this cipher; recipients are tried in the order of the
//! providers' names; options that nobody knows are refused, and so is a layer whose annotations say that it is encrypted and whose media type
//! says that it is not.
//!
//! # Codes
//!
//! | code | means |
//! |---|---|
//! | `OCICRYPT_AUTHENTICATION` | other bytes than were encrypted, or another key; also when the store changed them between the passes |
//! | `OCICRYPT_CRYPTO` | the cryptographic library failed |
//! | `OCICRYPT_DIGEST` | authentic bytes whose plaintext is not the one for which the key was given: another nonce or layer |
//! | `OCICRYPT_INCONSISTENT` | media type and annotations contradict one another |
//! | `OCICRYPT_IO` | the blob cannot be read |
//! | `OCICRYPT_LENGTH` | another length than the descriptor says |
//! | `OCICRYPT_MALFORMED` | options of another form |
//! | `OCICRYPT_MEMORY` | no pages for the key |
//! | `OCICRYPT_NO_RECIPIENT` | nobody here can open it |
//! | `OCICRYPT_TOO_LARGE` | above a cap |
//! | `OCICRYPT_UNSUPPORTED` | another cipher |
//! | `OCICRYPT_UNWRAP` | no recipient could be opened |

mod error;
mod layer;
mod options;

pub use error::OcicryptError;
pub use layer::{LAYER_MAX, VerifiedLayer};
pub use options::{
    EncryptedLayer, KeyUnwrap, LayerKey, PACKET_MAX, RECIPIENTS_MAX, Recipient, UNWRAPPED_MAX,
};

#[cfg(test)]
mod tests;
