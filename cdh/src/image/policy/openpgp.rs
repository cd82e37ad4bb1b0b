//! A small, strict reader of OpenPGP (RFC 4880; algorithms of RFC 6637 and of the EdDSA draft that GnuPG writes).
//!
//! ```text
//!  Keyring::parse: armor ─▶ packets ─▶ keys, names, self-signatures ─▶ which keys may sign, from when until when
//!                                                                        │
//!  Keyring::verify: packets ─▶ [inflate] ─▶ one-pass, literal, signature ┴▶ what was signed, and by whom
//! ```
//!
//! # What counts
//!
//! * Keys of version 4: RSA of 2048 bits or more, ECDSA on P-256 and P-384, EdDSA on Ed25519. Hashes: SHA-256, SHA-384, SHA-512.
//! * A message is one one-pass signature, one literal of kind `b`, one signature of type 0x00, and nothing else; the three may lie in one
//!   compressed packet (ZIP or ZLIB). It is not armored.
//! * A primary key needs a self-signature that verifies, over a name or the key itself. Of each name's the newest counts. A subkey needs a
//!   binding signature with the flag for signing, and the signature back that is in it.
//! * A key with a revocation beside it is revoked, whoever made the revocation and whatever date it has: a keyring is the operator's own
//!   word, and the safe reading of it costs nothing.
//!
//! # No clock
//!
//! A guest has no clock that it can trust. A key's period of validity is therefore held against the date in the signature: what was signed
//! before a key was made or after it expired is refused. Whoever holds an expired key can still write an earlier date; a key that must not
//! be used any more has to be revoked or leave the policy. A signature that says that it expires itself is refused.

mod armor;
mod compressed;
mod error;
mod key;
mod keyring;
mod message;
mod packet;
mod signature;

pub use error::OpenPgpFault;
pub use keyring::{KEYRING_MAX, Keyring};
pub use message::{MESSAGE_MAX, Verified};

#[cfg(test)]
mod tests;
