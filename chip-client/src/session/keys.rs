//! Transcript and keys (spec §7.2, §7.3).

use aws_lc_rs::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use aws_lc_rs::digest::{Context, SHA512};
use aws_lc_rs::hkdf::{HKDF_SHA512, KeyType, Prk, Salt};
use zeroize::Zeroizing;

use super::ReportData;
use crate::abi::{
    LABEL_KEY, LABEL_KEY_BULK, LABEL_KEY_COMPLETION, LABEL_KEY_SUBMISSION, LABEL_REPORT_DATA,
    LABEL_TRANSCRIPT,
};
use crate::error::{ChipError, SessionError};

const KEY_LEN: usize = 32;

/// Hash over everything that was said until message 3.
pub(super) struct Transcript([u8; 64]);

impl Transcript {
    pub(super) fn new(handshake_hash: &[u8], message_3: &[u8]) -> Self {
        Self(sha512(&[LABEL_TRANSCRIPT, handshake_hash, message_3]))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn report_data(&self) -> ReportData {
        ReportData { transcript: self.0, bytes: sha512(&[LABEL_REPORT_DATA, &self.0]) }
    }
}

/// The session's keys. They exist only inside the library's key objects, which wipe them.
pub(super) struct SessionSecrets {
    pub(super) submission: LessSafeKey,
    pub(super) completion: LessSafeKey,
    pub(super) bulk: LessSafeKey,
}

impl SessionSecrets {
    pub(super) fn derive(transcript: &Transcript, secrets: &[&[u8]]) -> Result<Self, ChipError> {
        let input = Zeroizing::new(secrets.concat());
        let prk = Salt::new(HKDF_SHA512, transcript.as_bytes()).extract(&input);
        Ok(Self {
            submission: expand(&prk, LABEL_KEY_SUBMISSION)?,
            completion: expand(&prk, LABEL_KEY_COMPLETION)?,
            bulk: expand(&prk, LABEL_KEY_BULK)?,
        })
    }
}

struct KeyLength;

impl KeyType for KeyLength {
    fn len(&self) -> usize {
        KEY_LEN
    }
}

fn expand(prk: &Prk, name: &[u8]) -> Result<LessSafeKey, ChipError> {
    let mut key = Zeroizing::new([0; KEY_LEN]);
    let info = [LABEL_KEY, name];
    let expanded = prk.expand(&info, KeyLength).and_then(|okm| okm.fill(key.as_mut_slice()));
    let unbound = expanded.and_then(|()| UnboundKey::new(&AES_256_GCM, key.as_slice()));
    unbound.map(LessSafeKey::new).map_err(|_| SessionError::Crypto { what: "session keys" }.into())
}

fn sha512(parts: &[&[u8]]) -> [u8; 64] {
    let mut context = Context::new(&SHA512);
    parts.iter().for_each(|part| context.update(part));
    let mut out = [0; 64];
    out.copy_from_slice(context.finish().as_ref());
    out
}
