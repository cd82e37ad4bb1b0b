//! Noise NX with the chip, ML-KEM-768 beside it, and everything that must hold before message 3 is sent.

use aws_lc_rs::kem::{EncapsulationKey, ML_KEM_768};
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use zeroize::Zeroizing;

use super::keys::{SessionSecrets, Transcript};
use super::protect::Protection;
use super::requirement::Requirement;
use super::{Agreement, ReportData};
use crate::abi::{
    Accept, LABEL_PROLOGUE, LABEL_SIGNATURE, NOISE_NAME, Offer, Opcode, SIGNATURE_LEN, put_finish,
};
use crate::chain::ChipIdentity;
use crate::driver::Driver;
use crate::error::{ChipError, SessionError};

const MESSAGE_2_CAP: u32 = 32_768;
const MESSAGE_4_CAP: u32 = 4_096;
const NOISE_MAX: usize = 65_535;

pub(super) struct Done {
    pub(super) protection: Protection,
    pub(super) session: u32,
    pub(super) agreement: Agreement,
    pub(super) report_data: ReportData,
}

pub(super) fn run(driver: &mut Driver, requirement: &Requirement<'_>) -> Result<Done, ChipError> {
    let mut noise = initiator()?;
    let mut nonce = [0; 32];
    aws_lc_rs::rand::fill(&mut nonce).map_err(|_| crypto("random bytes"))?;
    let offer = Offer {
        suites: requirement.suite.offered(),
        path: requirement.path,
        insecure: requirement.guest_insecure,
        nonce,
    };
    let mut buffer = vec![0; NOISE_MAX];
    let length = noise.write_message(&offer.encode(), &mut buffer).map_err(failed("message 1"))?;
    let message_1 = buffer.get(..length).unwrap_or_default();
    let message_2 = driver.plain(Opcode::Open, 0, message_1, MESSAGE_2_CAP)?.output;
    let length = noise.read_message(&message_2, &mut buffer).map_err(failed("message 2"))?;
    let accept = Accept::parse(buffer.get(..length).unwrap_or_default())
        .map_err(ChipError::malformed(Opcode::Open))?;
    let chip = verify_acceptance(&accept, noise.get_remote_static(), requirement)?;

    let (k1, k2) = noise.dangerously_get_raw_split();
    let (k1, k2) = (Zeroizing::new(k1), Zeroizing::new(k2));
    let handshake_hash = noise.get_handshake_hash().to_vec();
    let mut noise = noise.into_transport_mode().map_err(failed("split"))?;
    let (ciphertext, shared) = encapsulate(&accept.encapsulation_key)?;
    let length = noise.write_message(&put_finish(&ciphertext), &mut buffer).map_err(failed("message 3"))?;
    let message_3 = buffer.get(..length).unwrap_or_default().to_vec();
    let transcript = Transcript::new(&handshake_hash, &message_3);
    let message_4 = driver.plain(Opcode::Finish, accept.session, &message_3, MESSAGE_4_CAP)?.output;
    let length = noise.read_message(&message_4, &mut buffer).map_err(failed("message 4"))?;
    verify_signature(&chip, &transcript, buffer.get(..length).unwrap_or_default())?;

    let secrets = SessionSecrets::derive(&transcript, &[k1.as_slice(), k2.as_slice(), &shared])?;
    let agreement = Agreement {
        chip,
        suite: accept.suite,
        path: accept.path,
        tdisp: accept.tdisp,
        guest_insecure: requirement.guest_insecure,
        chip_insecure: accept.insecure,
    };
    Ok(Done {
        protection: Protection::new(secrets),
        session: accept.session,
        agreement,
        report_data: transcript.report_data(),
    })
}

/// Everything that the chip said, against its certificates and against what was demanded.
fn verify_acceptance(
    accept: &Accept,
    remote_static: Option<&[u8]>,
    requirement: &Requirement<'_>,
) -> Result<ChipIdentity, ChipError> {
    let chip = ChipIdentity::verify(requirement.root, &accept.certificates)?;
    // GUARD: session-static-key -> evil_relayed_session
    if remote_static != Some(chip.noise_public().as_slice()) {
        return Err(SessionError::StaticKey.into());
    }
    requirement.verify_chip(&chip)?;
    // GUARD: session-key-epoch -> evil_key_epoch_not_certified
    if accept.key_epoch != chip.key_epoch() {
        let (expected, found) = (chip.key_epoch(), accept.key_epoch);
        return Err(SessionError::EpochMismatch { expected, found }.into());
    }
    requirement.verify_suite(accept.suite)?;
    requirement.verify_path(accept.path)?;
    requirement.verify_insecure(accept.insecure)?;
    requirement.verify_link(accept.tdisp, accept.insecure)?;
    Ok(chip)
}

/// The chip's signature over the transcript, under its certified key.
fn verify_signature(chip: &ChipIdentity, transcript: &Transcript, signature: &[u8]) -> Result<(), ChipError> {
    let signed = [LABEL_SIGNATURE, transcript.as_bytes()].concat();
    let key = UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, chip.signing_point());
    // GUARD: session-signature -> evil_session_signature_forged
    if signature.len() != SIGNATURE_LEN || key.verify(&signed, signature).is_err() {
        return Err(SessionError::Signature.into());
    }
    Ok(())
}

/// Ciphertext and shared secret for the chip's encapsulation key; both empty without one.
fn encapsulate(key: &[u8]) -> Result<(Vec<u8>, Zeroizing<Vec<u8>>), ChipError> {
    if key.is_empty() {
        return Ok((Vec::new(), Zeroizing::new(Vec::new())));
    }
    let what = "encapsulation key";
    let key = EncapsulationKey::new(&ML_KEM_768, key).map_err(|_| SessionError::Handshake { what })?;
    let (ciphertext, shared) = key.encapsulate().map_err(|_| SessionError::Handshake { what })?;
    Ok((ciphertext.as_ref().to_vec(), Zeroizing::new(shared.as_ref().to_vec())))
}

fn initiator() -> Result<snow::HandshakeState, ChipError> {
    let parameters = NOISE_NAME.parse().map_err(|_| crypto("noise parameters"))?;
    let builder = snow::Builder::new(parameters).prologue(LABEL_PROLOGUE);
    builder.and_then(snow::Builder::build_initiator).map_err(|_| crypto("noise"))
}

fn failed(what: &'static str) -> impl FnOnce(snow::Error) -> ChipError {
    move |_| SessionError::Handshake { what }.into()
}

fn crypto(what: &'static str) -> ChipError {
    SessionError::Crypto { what }.into()
}
