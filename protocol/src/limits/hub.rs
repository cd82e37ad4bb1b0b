//! What requests to the Confidential Data Hub hold. A message that is not named has texts and numbers alone.

use super::{Shape, entries, sized, texts};

/// Longest sealed secret.
pub const SEALED_SECRET_BYTES: usize = 1 << 20;
/// Longest request for a layer's key.
pub const KEY_REQUEST_BYTES: usize = 256 << 10;

pub(crate) static UNSEAL_SECRET: Shape = Shape(&[sized(1, "secret", SEALED_SECRET_BYTES)]);
pub(crate) static UNWRAP_KEY: Shape =
    Shape(&[sized(1, "KeyProviderKeyWrapProtocolInput", KEY_REQUEST_BYTES)]);
pub(crate) static SECURE_MOUNT: Shape =
    Shape(&[entries(2, "options", 64, SEALED_SECRET_BYTES), texts(3, "flags", 64)]);
