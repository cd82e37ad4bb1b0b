//! OPEN and FINISH: the responder's side of the handshake (interface spec §7.1, §7.2).

use aws_lc_rs::rand;
use chip_client::abi::{
    Accept, DataPath, InsecureFlags, LABEL_PROLOGUE, LABEL_REPORT_DATA, LABEL_SIGNATURE, LABEL_TRANSCRIPT,
    NOISE_NAME, Offer, SIGNATURE_LEN, SessionSuite, Status, TdispState, parse_finish,
};
use ml_kem::kem::{Decapsulate, KeyExport};
use ml_kem::ml_kem_768::DecapsulationKey;
use sha2::{Digest, Sha512};
use snow::HandshakeState;
use zeroize::{Zeroize, Zeroizing};

use super::live::{LiveSession, Terms};
use super::protect::SessionKeys;
use crate::faults::Kind;
use crate::firmware::{Context, Failure, Firmware, Output};
use crate::identity::issue::Maker;

/// Largest Noise message.
const MAX_NOISE: usize = 65_535;
/// Ciphertext expansion of a Noise transport message.
const NOISE_TAG: usize = 16;

/// A session between OPEN and FINISH.
pub(super) struct HalfOpen {
    noise: HandshakeState,
    terms: Terms,
    decapsulation: Option<DecapsulationKey>,
}

impl std::fmt::Debug for HalfOpen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HalfOpen").field("terms", &self.terms).finish_non_exhaustive()
    }
}

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, Failure> {
    let mut bytes = Zeroizing::new([0; N]);
    rand::fill(bytes.as_mut_slice()).map_err(|_unspecified| Failure::from(Status::Internal))?;
    Ok(bytes)
}

impl Firmware {
    pub(crate) fn open_session(&self, context: &Context<'_>, input: &[u8]) -> Output {
        let handshake = |_noise| Failure::from(Status::Handshake);
        let certificates = self.present_certificates()?;
        let mut noise = self.responder()?;
        let mut payload = vec![0; input.len().min(MAX_NOISE)];
        let length = noise.read_message(input, &mut payload).map_err(handshake)?;
        let offer = Offer::parse(payload.get(..length).unwrap_or_default())?;
        let terms = self.accept_offer(&offer)?;

        let id = self.sessions.reserve().ok_or(Status::NoResources)?;
        let decapsulation = match terms.suite {
            SessionSuite::Hybrid => Some(DecapsulationKey::from_seed((*random::<64>()?).into())),
            SessionSuite::Classical => None,
        };
        let encapsulation = decapsulation.as_ref().map(|key| key.encapsulation_key().to_bytes().to_vec());
        let accept = Accept {
            suite: terms.suite,
            path: self.stated_path(terms.path),
            tdisp: self.tdisp(),
            insecure: self.insecure_flags(),
            session: id,
            key_epoch: self.keys.epoch(),
            interface_report: [0; 48],
            nonce: *random::<32>()?,
            encapsulation_key: encapsulation.unwrap_or_default(),
            certificates,
        };
        let mut message = vec![0; MAX_NOISE];
        let length = noise.write_message(&accept.encode(), &mut message).map_err(handshake)?;
        message.truncate(length);
        if length > context.entry.out_cap as usize {
            return Err(Status::BadLength.into());
        }
        if !self.sessions.insert_half_open(id, HalfOpen { noise, terms, decapsulation }) {
            return Err(Status::NoResources.into());
        }
        Ok(Zeroizing::new(message))
    }

    fn responder(&self) -> Result<HandshakeState, Failure> {
        let internal = |_snow| Failure::from(Status::Internal);
        let wrong = self.faults.take(Kind::WrongStaticKey, None).map(|_| random::<32>()).transpose()?;
        let private = wrong.as_deref().unwrap_or(self.keys.noise_private());
        let parameters = NOISE_NAME.parse().map_err(internal)?;
        snow::Builder::new(parameters)
            .prologue(LABEL_PROLOGUE)
            .and_then(|builder| builder.local_private_key(private))
            .and_then(snow::Builder::build_responder)
            .map_err(internal)
    }

    /// What the chip makes of an offer, or why it refuses it.
    fn accept_offer(&self, offer: &Offer) -> Result<Terms, Failure> {
        let guest = offer.insecure;
        // "Emulated chip" is for the chip to say.
        if guest.contains(InsecureFlags::EMULATED_CHIP) {
            return Err(Status::BadField.into());
        }
        // GUARD: no-evidence-mode -> evil_guest_without_evidence_is_refused
        if guest.contains(InsecureFlags::NO_EVIDENCE) && !self.modes.no_evidence {
            return Err(Status::InsecureRefused.into());
        }
        // GUARD: emulated-dma-mode -> evil_guest_with_emulated_dma_is_refused
        if guest.contains(InsecureFlags::EMULATED_DMA) && !self.modes.emulated_dma {
            return Err(Status::InsecureRefused.into());
        }
        // GUARD: emulated-tee-mode -> evil_guest_with_an_emulated_tee_is_refused
        if guest.contains(InsecureFlags::EMULATED_TEE) && !self.roots.are_emulated() {
            return Err(Status::InsecureRefused.into());
        }
        // GUARD: direct-path -> evil_direct_dma_without_tdisp_is_refused
        if offer.path == DataPath::DmaDirect && !self.direct_dma_allowed(guest) {
            return Err(Status::Path.into());
        }
        let hybrid = offer.suites.contains(SessionSuite::Hybrid)
            && self.faults.take(Kind::DowngradeSuite, None).is_none();
        let suite = if hybrid { SessionSuite::Hybrid } else { SessionSuite::Classical };
        Ok(Terms { suite, path: offer.path, guest })
    }

    /// Whether plaintext may be written to what the guest says is private memory.
    pub(crate) fn direct_dma_allowed(&self, guest: InsecureFlags) -> bool {
        let emulated = self.emulated_dma() && guest.contains(InsecureFlags::EMULATED_DMA);
        self.tdisp() == TdispState::Run || emulated
    }

    fn insecure_flags(&self) -> InsecureFlags {
        let mut flags = InsecureFlags::EMULATED_CHIP;
        if self.modes.no_evidence {
            flags = flags.union(InsecureFlags::NO_EVIDENCE);
        }
        if self.modes.emulated_dma {
            flags = flags.union(InsecureFlags::EMULATED_DMA);
        }
        if self.roots.are_emulated() {
            flags = flags.union(InsecureFlags::EMULATED_TEE);
        }
        flags
    }

    fn stated_path(&self, path: DataPath) -> DataPath {
        match (self.faults.take(Kind::LiePath, None), path) {
            (None, path) => path,
            (Some(_), DataPath::KeyRelease) => DataPath::DmaSealed,
            (Some(_), _) => DataPath::KeyRelease,
        }
    }

    fn present_certificates(&self) -> Result<chip_client::abi::CertificateList, Failure> {
        let mut list = self.certificates()?;
        if self.faults.take(Kind::WrongChain, None).is_some() {
            let internal = |_issue| Failure::from(Status::Internal);
            let environment = self.nvm().provisioned().map(|p| p.environment.clone()).unwrap_or_default();
            let maker = Maker::new("another maker").map_err(internal)?;
            list.chip = maker.certify(&self.keys, &environment).map_err(internal)?;
            list.model = maker.model().to_vec();
        }
        Ok(list)
    }

    pub(crate) fn finish_session(&self, context: &Context<'_>, input: &[u8]) -> Output {
        let id = context.entry.session;
        let half = self.sessions.take_half_open(id).ok_or(Status::NoSession)?;
        if (context.entry.out_cap as usize) < SIGNATURE_LEN + NOISE_TAG {
            return Err(Status::BadLength.into());
        }
        let handshake = |_noise| Failure::from(Status::Handshake);
        let HalfOpen { mut noise, terms, decapsulation } = *half;
        let (mut k1, mut k2) = noise.dangerously_get_raw_split();
        // Room for the KEM's secret too: a vector that grows leaves a copy behind.
        let mut secret = Zeroizing::new(Vec::with_capacity(96));
        secret.extend_from_slice(&k1);
        secret.extend_from_slice(&k2);
        k1.zeroize();
        k2.zeroize();
        let mut hash = Sha512::new();
        hash.update(LABEL_TRANSCRIPT);
        hash.update(noise.get_handshake_hash());
        hash.update(input);
        let transcript: [u8; 64] = hash.finalize().into();
        let report_data: [u8; 64] =
            Sha512::new().chain_update(LABEL_REPORT_DATA).chain_update(transcript).finalize().into();

        let mut transport = noise.into_transport_mode().map_err(handshake)?;
        let mut payload = vec![0; input.len().min(MAX_NOISE)];
        let length = transport.read_message(input, &mut payload).map_err(handshake)?;
        let malformed = |_wire| Failure::from(Status::Handshake);
        let ciphertext =
            parse_finish(payload.get(..length).unwrap_or_default(), terms.suite).map_err(malformed)?;
        if let Some(key) = decapsulation {
            let shared =
                key.decapsulate_slice(ciphertext).map_err(|_length| Failure::from(Status::Handshake))?;
            let shared = Zeroizing::new(<[u8; 32]>::from(shared));
            secret.extend_from_slice(shared.as_slice());
        }
        let keys = SessionKeys::derive(&transcript, &secret).ok_or(Status::Internal)?;

        let mut signed = transcript;
        if self.faults.take(Kind::WrongSignature, None).is_some() {
            signed[0] ^= 1;
        }
        let signature = self.keys.sign(&[LABEL_SIGNATURE, signed.as_slice()].concat());
        let mut message = vec![0; SIGNATURE_LEN + NOISE_TAG];
        let length = transport.write_message(&signature, &mut message).map_err(handshake)?;
        message.truncate(length);
        self.sessions.insert_live(id, LiveSession::new(terms, keys, report_data));
        Ok(Zeroizing::new(message))
    }
}
