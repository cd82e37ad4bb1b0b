//! Keys of a session and what they protect (interface spec §7.3, §7.4).

use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use chip_client::abi::{
    LABEL_COMPLETION_AAD, LABEL_KEY, LABEL_KEY_BULK, LABEL_KEY_COMPLETION, LABEL_KEY_SUBMISSION,
    LABEL_SUBMISSION_AAD, SUBMISSION_LEN, Status,
};
use hkdf::Hkdf;
use sha2::{Digest, Sha256, Sha512};
use zeroize::Zeroizing;

const TAG: usize = 16;

/// The three keys of a session; the library wipes them.
pub(crate) struct SessionKeys {
    submission: LessSafeKey,
    completion: LessSafeKey,
    bulk: LessSafeKey,
}

impl std::fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionKeys(..)")
    }
}

impl SessionKeys {
    /// `secret` is k1 ‖ k2 ‖ ss.
    pub(crate) fn derive(transcript: &[u8; 64], secret: &[u8]) -> Option<Self> {
        let kdf = Hkdf::<Sha512>::new(Some(transcript), secret);
        let key = |name: &[u8]| {
            let mut key = Zeroizing::new([0; 32]);
            kdf.expand_multi_info(&[LABEL_KEY, name], key.as_mut_slice()).ok()?;
            UnboundKey::new(&AES_256_GCM, key.as_slice()).ok().map(LessSafeKey::new)
        };
        Some(Self {
            submission: key(LABEL_KEY_SUBMISSION)?,
            completion: key(LABEL_KEY_COMPLETION)?,
            bulk: key(LABEL_KEY_BULK)?,
        })
    }

    /// Opens a submission's input: ciphertext ‖ tag. `None`: not authentic.
    pub(super) fn open_submission(
        &self,
        queue: u16,
        seq: u64,
        entry: &[u8; SUBMISSION_LEN],
        mut input: Vec<u8>,
    ) -> Option<Zeroizing<Vec<u8>>> {
        let aad = Aad::from([LABEL_SUBMISSION_AAD, entry.as_slice()].concat());
        let length = self.submission.open_in_place(nonce(queue.into(), seq), aad, &mut input).ok()?.len();
        input.truncate(length);
        Some(Zeroizing::new(input))
    }

    /// Encrypts in place under the bulk key. The nonce's first word is `0x80000000 + queue`.
    pub(crate) fn seal_bulk(
        &self,
        word: u32,
        counter: u64,
        aad: &[u8],
        data: &mut [u8],
    ) -> Option<[u8; TAG]> {
        let tag = self.bulk.seal_in_place_separate_tag(nonce(word, counter), Aad::from(aad), data).ok()?;
        tag.as_ref().try_into().ok()
    }
}

fn nonce(word: u32, counter: u64) -> Nonce {
    let [a, b, c, d] = word.to_le_bytes();
    let [e, f, g, h, i, j, k, l] = counter.to_le_bytes();
    Nonce::assume_unique_for_key([a, b, c, d, e, f, g, h, i, j, k, l])
}

/// What a completion says beside its output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CompletionHead {
    pub(crate) status: Status,
    pub(crate) cid: u16,
    pub(crate) detail: u32,
}

/// An authentic submission: what its completion is bound to. Sealing consumes it, so a nonce is used once.
#[derive(Debug)]
pub(crate) struct Protected {
    keys: Arc<SessionKeys>,
    queue: u16,
    seq: u64,
    /// H = SHA-256(entry ‖ input as sent).
    hash: [u8; 32],
}

impl Protected {
    pub(super) fn new(
        keys: Arc<SessionKeys>,
        queue: u16,
        seq: u64,
        entry: &[u8; SUBMISSION_LEN],
        input: &[u8],
    ) -> Self {
        let mut hash = Sha256::new();
        hash.update(entry);
        hash.update(input);
        Self { keys, queue, seq, hash: hash.finalize().into() }
    }

    pub(crate) fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    pub(crate) fn keys(&self) -> &SessionKeys {
        &self.keys
    }

    /// Encrypts the output in place and returns the completion's tag.
    pub(crate) fn seal(self, head: &CompletionHead, output: &mut [u8]) -> Option<[u8; TAG]> {
        let mut aad = Vec::with_capacity(64);
        aad.extend_from_slice(LABEL_COMPLETION_AAD);
        aad.extend_from_slice(&self.hash);
        aad.extend_from_slice(&head.status.as_u16().to_le_bytes());
        aad.extend_from_slice(&head.cid.to_le_bytes());
        aad.extend_from_slice(&u32::try_from(output.len()).ok()?.to_le_bytes());
        aad.extend_from_slice(&head.detail.to_le_bytes());
        let nonce = nonce(self.queue.into(), self.seq);
        let tag = self.keys.completion.seal_in_place_separate_tag(nonce, Aad::from(aad), output).ok()?;
        tag.as_ref().try_into().ok()
    }
}
