//! Sessions salted to the storage key: who sits on the bus reads no secret and forges no response.
//!
//! The salt reaches the TPM by ECDH with its storage key (Part 1 §19.6.13, annex C.6.1). The session key that comes
//! of it authenticates commands and responses and encrypts the first parameter. Whoever replaces the storage key in
//! CreatePrimary's response would know the salt: the key is pinned (`seal`).

use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::TpmError;
use super::channel::{Channel, Command, HandleKind};
use super::commands::Key;
use super::kdf::{decrypt, encrypt, hmac_is, hmac_of, kdf_a, kdf_e};
use super::spki::uncompressed;
use super::wire::{
    ALG_AES, ALG_CFB, ALG_NULL, ALG_SHA256, Accepted, CommandCode, HANDLE_NULL, KeyKind, Name, Reader,
    WireError, Writer,
};

/// TPMA_SESSION continueSession: we flush it ourselves.
const CONTINUE: u8 = 0x01;
/// TPMA_SESSION decrypt: the TPM decrypts the command's first parameter.
const DECRYPT: u8 = 0x20;
/// TPMA_SESSION encrypt: the TPM encrypts the response's first parameter.
const ENCRYPT: u8 = 0x40;

/// TPM_SE.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionKind {
    Hmac = 0,
    Policy = 1,
}

/// Which parameter is encrypted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Encrypted {
    Command,
    Response,
}

/// A salted session.
pub(super) struct Session {
    pub(super) handle: u32,
    key: Zeroizing<[u8; 32]>,
    nonce_tpm: [u8; 32],
}

/// A command that is authorised by a session: one handle, named.
pub(super) struct Authorised {
    pub(super) code: CommandCode,
    pub(super) handle: u32,
    pub(super) name: Name,
    pub(super) encrypted: Encrypted,
}

impl Session {
    /// Starts a session that only the TPM with `storage` can take part in.
    pub(super) fn start(channel: &mut Channel, kind: SessionKind, storage: &Key) -> Result<Self, TpmError> {
        let salt = Salt::to(storage)?;
        let nonce = random()?;
        let parameters = Writer::new().sized(&nonce).sized(&salt.sent).u8(kind as u8);
        let parameters = parameters.u16(ALG_AES).u16(128).u16(ALG_CFB).u16(ALG_SHA256).done();
        let returns =
            if kind == SessionKind::Hmac { HandleKind::HmacSession } else { HandleKind::PolicySession };
        let (handle, nonce_tpm) = started(channel, &[storage.handle, HANDLE_NULL], &parameters, returns)?;
        let key = kdf_a(&*salt.secret, "ATH", &nonce_tpm, &nonce);
        Ok(Self { handle, key, nonce_tpm })
    }

    /// Sends one command; gives back its parameters, authenticated and decrypted.
    pub(super) fn call(
        &mut self,
        channel: &mut Channel,
        command: &Authorised,
        mut parameters: Zeroizing<Vec<u8>>,
    ) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        let nonce = random()?;
        let attributes = CONTINUE | if command.encrypted == Encrypted::Command { DECRYPT } else { ENCRYPT };
        if command.encrypted == Encrypted::Command {
            encrypt(&*self.key, &nonce, &self.nonce_tpm, first_parameter(&mut parameters)?)?;
        }
        let code = command.code.value().to_be_bytes();
        let hash = Sha256::new().chain_update(code).chain_update(command.name.0).chain_update(&*parameters);
        let hmac = hmac_of(&*self.key, &[&hash.finalize(), &nonce, &self.nonce_tpm, &[attributes]]);
        let auth = Writer::new().u32(self.handle).sized(&nonce).u8(attributes).sized(&hmac).done();
        let (handles, code) = ([command.handle], command.code);
        let wire =
            Command { code, handles: &handles, auth: Some(&auth), parameters: &parameters, returns: None };
        channel.call(&wire, |accepted| self.accept(command, attributes, &nonce, &accepted))
    }

    /// Authenticates a response, then decrypts it.
    fn accept(
        &mut self,
        command: &Authorised,
        attributes: u8,
        nonce: &[u8; 32],
        accepted: &Accepted<'_>,
    ) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        let forged = |expected| TpmError::SessionForged { command: command.code.name(), expected };
        let Some(auth) = accepted.auth else { return Err(forged("a session")) };
        let nonce_tpm = <[u8; 32]>::try_from(auth.nonce).map_err(|_| forged("a nonce of 32 bytes"))?;
        let code = command.code.value().to_be_bytes();
        let hash = Sha256::new().chain_update([0; 4]).chain_update(code).chain_update(accepted.parameters);
        let authentic =
            hmac_is(&*self.key, &[&hash.finalize(), &nonce_tpm, nonce, &[auth.attributes]], auth.hmac);
        // GUARD: session-response-hmac -> evil_host_tpm_secret_without_encryption, evil_host_tpm_response_with_wrong_hmac
        if !authentic {
            return Err(forged("an HMAC by the session's key"));
        }
        // Authentic, so the TPM itself says what it did; a TPM that did not encrypt would be out of its standard.
        if auth.attributes != attributes {
            return Err(forged("the attributes of the command"));
        }
        self.nonce_tpm = nonce_tpm;
        let mut parameters = Zeroizing::new(accepted.parameters.to_vec());
        if command.encrypted == Encrypted::Response {
            decrypt(&*self.key, &nonce_tpm, nonce, first_parameter(&mut parameters)?)?;
        }
        Ok(parameters)
    }
}

/// A trial session: computes a policy digest and authorises nothing.
pub(super) fn start_trial(channel: &mut Channel) -> Result<u32, TpmError> {
    const TRIAL: u8 = 3;
    let parameters =
        Writer::new().sized(&random()?).sized(&[]).u8(TRIAL).u16(ALG_NULL).u16(ALG_SHA256).done();
    started(channel, &[HANDLE_NULL, HANDLE_NULL], &parameters, HandleKind::PolicySession)
        .map(|(handle, _)| handle)
}

fn started(
    channel: &mut Channel,
    handles: &[u32],
    parameters: &[u8],
    returns: HandleKind,
) -> Result<(u32, [u8; 32]), TpmError> {
    let code = CommandCode::StartAuthSession;
    channel.call(&Command { code, handles, auth: None, parameters, returns: Some(returns) }, |accepted| {
        let mut reader = Reader::new("StartAuthSession", accepted.parameters);
        let mut nonce = Reader::new("nonce of a session", reader.sized(64)?);
        let nonce_tpm = nonce.array()?;
        nonce.finish()?;
        reader.finish()?;
        Ok((accepted.handle.unwrap_or_default(), nonce_tpm))
    })
}

/// A salt: what is sent, and what both sides get from it.
struct Salt {
    sent: Vec<u8>,
    secret: Zeroizing<[u8; 32]>,
}

impl Salt {
    fn to(storage: &Key) -> Result<Self, TpmError> {
        const FAILED: TpmError = TpmError::Crypto { what: "key agreement with the storage key failed" };
        let KeyKind::Ecc { point, .. } = &storage.public.kind else {
            return Err(TpmError::KeyUnfit {
                handle: storage.handle,
                found: "a storage key that is not on P-256",
            });
        };
        let ephemeral = PrivateKey::generate(&ECDH_P256).map_err(|_| FAILED)?;
        let public = ephemeral.compute_public_key().map_err(|_| FAILED)?;
        let mut sec1 = Reader::new("ephemeral key", public.as_ref());
        sec1.take(1)?;
        let (x, y) = (sec1.take(32)?, sec1.take(32)?);
        let theirs = UnparsedPublicKey::new(&ECDH_P256, uncompressed(point)?);
        let secret = agree(&ephemeral, theirs, FAILED, |z| Ok(kdf_e(z, "SECRET", x, &point.x)))?;
        Ok(Self { sent: Writer::new().sized(x).sized(y).done().to_vec(), secret })
    }
}

/// The bytes of a TPM2B at the start of the parameters.
fn first_parameter(parameters: &mut [u8]) -> Result<&mut [u8], TpmError> {
    let found = parameters.len();
    let what = "encrypted parameter";
    let (size, rest) =
        parameters.split_first_chunk_mut::<2>().ok_or(WireError::Truncated { what, expected: 2, found })?;
    let expected = usize::from(u16::from_be_bytes(*size));
    let found = rest.len();
    Ok(rest.get_mut(..expected).ok_or(WireError::Truncated { what, expected, found })?)
}

fn random() -> Result<[u8; 32], TpmError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|_| TpmError::Crypto { what: "no random bytes from the kernel" })?;
    Ok(bytes)
}
