//! A firmware that does the chip's part of a session honestly, except where it is told to lie.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, UnboundKey};
use aws_lc_rs::digest::{Context, SHA256, SHA512, digest};
use aws_lc_rs::hkdf::{HKDF_SHA512, KeyType, Salt};
use aws_lc_rs::kem::{DecapsulationKey, ML_KEM_768};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use sealed_artifact::policy::PolicyDigest;

use super::{Firmware, Memory, Reply};
use crate::abi::identity_const::{P384_PUBLIC_LEN, X_WING_PUBLIC_LEN};
use crate::abi::*;
use crate::chain::{Authority, ChipId, TrustRoot};
use crate::session::nonce;

/// Certificates and keys of one chip, and who issued them.
pub(crate) struct World {
    pub(crate) root: TrustRoot,
    pub(crate) root_authority: Authority,
    pub(crate) model_authority: Authority,
    pub(crate) certificates: CertificateList,
    pub(crate) record: IdentityRecord,
    signing: Vec<u8>,
    noise_private: Vec<u8>,
}

impl World {
    pub(crate) fn new() -> Self {
        let root_authority = Authority::create_root("test root").unwrap();
        let model_authority = root_authority.create_model("test model ca").unwrap();
        Self::below(root_authority, model_authority)
    }

    pub(crate) fn below(root_authority: Authority, model_authority: Authority) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        let spki = crate::chain::spki_of_point(pair.public_key().as_ref());
        let noise = snow::Builder::new(NOISE_NAME.parse().unwrap()).generate_keypair().unwrap();
        let record = IdentityRecord {
            flags: IdentityFlags(IdentityFlags::PROVISIONED | IdentityFlags::EMULATED),
            id: *ChipId::of_signing_key(&spki).as_bytes(),
            key_epoch: 1,
            environment: "production".into(),
            signing_spki: spki,
            noise: noise.public.try_into().unwrap(),
            p384: [4; P384_PUBLIC_LEN],
            x_wing: Box::new([5; X_WING_PUBLIC_LEN]),
            suites: 3,
            paths: 7,
        };
        let chip = model_authority.issue_chip(&record, "production", 1, "test").unwrap();
        Self {
            root: TrustRoot::from_trusted(root_authority.certificate()).unwrap(),
            certificates: CertificateList { model: model_authority.certificate().to_vec(), chip },
            root_authority,
            model_authority,
            record,
            signing: pair.to_pkcs8v1().unwrap().as_ref().to_vec(),
            noise_private: noise.private,
        }
    }

    pub(crate) fn id(&self) -> ChipId {
        ChipId::new(self.record.id)
    }

    pub(crate) fn chip(&self) -> Chip {
        Chip {
            certificates: self.certificates.clone(),
            record: self.record.clone(),
            signing: self.signing.clone(),
            noise_private: self.noise_private.clone(),
            content_key: [0x42; 32],
            lies: ChipLies::default(),
            opening: None,
            session: None,
        }
    }
}

type AcceptLie = Box<dyn FnMut(&mut Accept) + Send>;
type RefuseLie = Box<dyn FnMut(Opcode) -> Option<(Status, u32)> + Send>;

/// What the firmware lies about.
#[derive(Default)]
pub(crate) struct ChipLies {
    /// Changes message 2.
    pub(crate) accept: Option<AcceptLie>,
    /// Uses another static key than the certified one: a relay in the middle.
    pub(crate) foreign_static: bool,
    /// Signs something else.
    pub(crate) bad_signature: bool,
    /// Answers PRESENT with the digest of this.
    pub(crate) other_preimage: Option<Vec<u8>>,
    /// Answers with an authentic error.
    pub(crate) refuse: Option<RefuseLie>,
    /// Flips a bit of every bulk segment after sealing it.
    pub(crate) flip_bulk: bool,
    /// Swaps the first two segments of a bulk command.
    pub(crate) swap_bulk: Option<usize>,
}

pub(crate) struct Chip {
    certificates: CertificateList,
    record: IdentityRecord,
    signing: Vec<u8>,
    noise_private: Vec<u8>,
    pub(crate) content_key: [u8; 32],
    pub(crate) lies: ChipLies,
    opening: Option<Opening>,
    session: Option<Live>,
}

struct Opening {
    noise: snow::TransportState,
    hash: Vec<u8>,
    split: Vec<u8>,
    kem: Option<DecapsulationKey>,
    path: DataPath,
}

struct Live {
    submission: LessSafeKey,
    completion: LessSafeKey,
    bulk: LessSafeKey,
    bulk_counter: u64,
    path: DataPath,
}

impl Firmware for Chip {
    fn execute(&mut self, memory: &Memory, entry: &[u8; SUBMISSION_LEN], input: Vec<u8>) -> Reply {
        let submission = Submission::parse(entry).unwrap();
        match Opcode::from_u8(submission.opcode).unwrap() {
            Opcode::Identify => ok(self.record.encode()),
            Opcode::Chain => ok(self.certificates.encode()),
            Opcode::Open => self.open(&input),
            Opcode::Finish => self.finish(&input),
            opcode => self.protected(memory, entry, &submission, opcode, input),
        }
    }

    fn reset(&mut self) {
        self.opening = None;
        self.session = None;
    }
}

impl Chip {
    fn open(&mut self, input: &[u8]) -> Reply {
        let foreign = snow::Builder::new(NOISE_NAME.parse().unwrap()).generate_keypair().unwrap();
        let key = if self.lies.foreign_static { &foreign.private } else { &self.noise_private };
        let builder = snow::Builder::new(NOISE_NAME.parse().unwrap());
        let builder = builder.prologue(LABEL_PROLOGUE).unwrap().local_private_key(key).unwrap();
        let mut noise = builder.build_responder().unwrap();
        let mut buffer = vec![0; 65_535];
        let length = noise.read_message(input, &mut buffer).unwrap();
        let offer = Offer::parse(&buffer[..length]).unwrap();
        let hybrid = offer.suites.contains(SessionSuite::Hybrid);
        let kem = hybrid.then(|| DecapsulationKey::generate(&ML_KEM_768).unwrap());
        let encapsulation_key = kem
            .as_ref()
            .map_or(Vec::new(), |k| k.encapsulation_key().unwrap().key_bytes().unwrap().as_ref().to_vec());
        let mut accept = Accept {
            suite: if hybrid { SessionSuite::Hybrid } else { SessionSuite::Classical },
            path: offer.path,
            tdisp: TdispState::ConfigUnlocked,
            insecure: InsecureFlags::EMULATED_CHIP,
            session: 7,
            key_epoch: 1,
            interface_report: [0; 48],
            nonce: [9; 32],
            encapsulation_key,
            certificates: self.certificates.clone(),
        };
        if let Some(lie) = &mut self.lies.accept {
            lie(&mut accept);
        }
        let length = noise.write_message(&accept.encode(), &mut buffer).unwrap();
        let (k1, k2) = noise.dangerously_get_raw_split();
        let hash = noise.get_handshake_hash().to_vec();
        let noise = noise.into_transport_mode().unwrap();
        let split = [k1, k2].concat();
        let kem = kem.filter(|_| accept.suite == SessionSuite::Hybrid);
        self.opening = Some(Opening { noise, hash, split, kem, path: accept.path });
        ok(buffer[..length].to_vec())
    }

    fn finish(&mut self, input: &[u8]) -> Reply {
        let mut opening = self.opening.take().unwrap();
        let mut buffer = vec![0; 65_535];
        let length = opening.noise.read_message(input, &mut buffer).unwrap();
        let suite = if opening.kem.is_some() { SessionSuite::Hybrid } else { SessionSuite::Classical };
        let ciphertext = parse_finish(&buffer[..length], suite).unwrap();
        let shared = opening
            .kem
            .as_ref()
            .map_or(Vec::new(), |k| k.decapsulate(ciphertext.into()).unwrap().as_ref().to_vec());
        let transcript = digest(&SHA512, &[LABEL_TRANSCRIPT, &opening.hash, input].concat());
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &self.signing).unwrap();
        let mut signed = [LABEL_SIGNATURE, transcript.as_ref()].concat();
        signed[0] ^= u8::from(self.lies.bad_signature);
        let signature = pair.sign(&SystemRandom::new(), &signed).unwrap();
        let length = opening.noise.write_message(signature.as_ref(), &mut buffer).unwrap();
        let secret = [opening.split, shared].concat();
        let key = |name: &[u8]| {
            let prk = Salt::new(HKDF_SHA512, transcript.as_ref()).extract(&secret);
            let mut key = [0; 32];
            prk.expand(&[LABEL_KEY, name], Len).unwrap().fill(&mut key).unwrap();
            LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).unwrap())
        };
        self.session = Some(Live {
            submission: key(LABEL_KEY_SUBMISSION),
            completion: key(LABEL_KEY_COMPLETION),
            bulk: key(LABEL_KEY_BULK),
            bulk_counter: 0,
            path: opening.path,
        });
        ok(buffer[..length].to_vec())
    }

    fn protected(
        &mut self,
        memory: &Memory,
        entry: &[u8; SUBMISSION_LEN],
        submission: &Submission,
        opcode: Opcode,
        mut input: Vec<u8>,
    ) -> Reply {
        let Some(session) = &mut self.session else {
            return Reply { status: Status::NoSession.as_u16(), ..Reply::default() };
        };
        let queue = u32::from(opcode == Opcode::Unseal);
        let mut hash = Context::new(&SHA256);
        hash.update(entry);
        hash.update(&input);
        let hash = hash.finish();
        let aad = [LABEL_SUBMISSION_AAD, entry].concat();
        let plain = session
            .submission
            .open_in_place(nonce(queue, submission.seq), Aad::from(aad), &mut input)
            .unwrap()
            .to_vec();
        let refusal = self.lies.refuse.as_mut().and_then(|lie| lie(opcode));
        let (status, detail, mut output) = match (refusal, opcode) {
            (Some((status, detail)), _) => (status, detail, Vec::new()),
            (None, Opcode::Present) => {
                let body = Present::parse(&plain).unwrap();
                let preimage = self.lies.other_preimage.as_deref().unwrap_or(body.preimage);
                (Status::Ok, 0, PolicyDigest::of(preimage).as_bytes().to_vec())
            }
            (None, Opcode::Unwrap) => {
                Unwrap::parse(&plain).unwrap();
                let released = session.path == DataPath::KeyRelease;
                let output = if released { self.content_key.to_vec() } else { 3u32.to_le_bytes().to_vec() };
                (Status::Ok, 0, output)
            }
            (None, Opcode::Status) => {
                let left = SessionStatus { bytes_left: 1, submissions_left: 2, key_epoch: 1, handles: 0 };
                (Status::Ok, 0, left.encode())
            }
            (None, Opcode::Unseal) => {
                (Status::Ok, 0, unseal(session, &self.lies, memory, &plain, hash.as_ref()))
            }
            (None, _) => (Status::Ok, 0, Vec::new()),
        };
        let out_len = u32::try_from(output.len()).unwrap();
        let aad = [
            LABEL_COMPLETION_AAD,
            hash.as_ref(),
            &status.as_u16().to_le_bytes(),
            &submission.cid.to_le_bytes(),
            &out_len.to_le_bytes(),
            &detail.to_le_bytes(),
        ]
        .concat();
        let number = nonce(queue, submission.seq);
        let tag = session.completion.seal_in_place_separate_tag(number, Aad::from(aad), &mut output).unwrap();
        Reply { status: status.as_u16(), detail, output, tag: tag.as_ref().try_into().unwrap() }
    }
}

/// "Unseals" by taking the source for plaintext; re-seals it, or writes it to the destination.
fn unseal(session: &mut Live, lies: &ChipLies, memory: &Memory, input: &[u8], hash: &[u8]) -> Vec<u8> {
    let body = Unseal::parse(input).unwrap();
    let nothing = SglEntry { iova: 0, length: 0 };
    let from = body.source.entries.first().unwrap_or(&nothing);
    let to = body.destination.entries.first().unwrap_or(&nothing);
    let mut bytes = memory.read(from.iova, from.length.try_into().unwrap()).unwrap();
    if session.path == DataPath::DmaDirect {
        memory.write(to.iova, &bytes);
        return Vec::new();
    }
    let first_counter = session.bulk_counter;
    let mut tags = Vec::new();
    let segment = bytes.len().div_ceil(body.count as usize).next_power_of_two().max(65_536);
    let mut rest = bytes.as_mut_slice();
    for index in 0..u64::from(body.count) {
        let (piece, behind) = rest.split_at_mut(segment.min(rest.len()));
        rest = behind;
        let aad =
            [LABEL_BULK_AAD, hash, &body.payload.to_le_bytes(), &(body.first + index).to_le_bytes()].concat();
        let number = nonce(0x8000_0001, first_counter + index);
        let tag = session.bulk.seal_in_place_separate_tag(number, Aad::from(aad), piece).unwrap();
        tags.push(tag.as_ref().try_into().unwrap());
        session.bulk_counter += 1;
    }
    if lies.flip_bulk {
        bytes[0] ^= 1;
    }
    if let Some(len) = lies.swap_bulk {
        let (a, b) = bytes.split_at_mut(len);
        a.swap_with_slice(&mut b[..len]);
    }
    memory.write(to.iova, &bytes);
    SealedReply { first_counter, tags }.encode()
}

struct Len;

impl KeyType for Len {
    fn len(&self) -> usize {
        32
    }
}

fn ok(output: Vec<u8>) -> Reply {
    Reply { output, ..Reply::default() }
}
