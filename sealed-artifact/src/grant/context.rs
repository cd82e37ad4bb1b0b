//! The context of a grant: what its wrapped key is bound to.

use super::{GrantKind, GrantObject, KeyEpoch, RecipientId, WrapSuite};
use crate::digest::{CoreDigest, RecipientKeyDigest};
use crate::policy::PolicyDigest;

/// Everything that a grant is bound to; one encoding for all kinds.
pub(super) struct Context {
    pub(super) kind: GrantKind,
    pub(super) suite: WrapSuite,
    pub(super) object: GrantObject,
    pub(super) core: CoreDigest,
    pub(super) recipient: RecipientId,
    pub(super) recipient_key: RecipientKeyDigest,
    pub(super) key_epoch: KeyEpoch,
    pub(super) policy: PolicyDigest,
}

impl Context {
    /// Parts with their lengths: HPKE `info`, associated data or KDF info, by kind.
    pub(super) fn encode(&self) -> Vec<u8> {
        let epoch = self.key_epoch.value().to_be_bytes();
        let parts: [&[u8]; 10] = [
            b"innerkeep grant",
            b"v1",
            self.kind.as_str().as_bytes(),
            self.suite.as_str().as_bytes(),
            self.object.as_str().as_bytes(),
            self.core.as_bytes(),
            self.recipient.as_bytes(),
            self.recipient_key.as_bytes(),
            &epoch,
            self.policy.as_bytes(),
        ];
        let mut info = Vec::new();
        for part in parts {
            info.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            info.extend_from_slice(part);
        }
        info
    }
}
