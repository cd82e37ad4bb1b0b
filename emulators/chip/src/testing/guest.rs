//! The initiator: handshake, transcript, keys, protected submissions.

use std::time::Duration;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use chip_client::abi::*;
use hkdf::Hkdf;
use ml_kem::kem::Encapsulate;
use p384::ecdsa::signature::Verifier;
use p384::ecdsa::{Signature, VerifyingKey};
use p384::pkcs8::DecodePublicKey;
use sha2::{Digest, Sha256, Sha512};

use super::Bench;

/// What a guest asks for.
#[derive(Clone, Copy)]
pub(crate) struct GuestOptions {
    pub(crate) suites: u16,
    pub(crate) path: DataPath,
    pub(crate) insecure: InsecureFlags,
}

impl GuestOptions {
    pub(crate) fn path(path: DataPath) -> Self {
        let insecure = InsecureFlags::NO_TEE.union(InsecureFlags::NO_EVIDENCE);
        let insecure =
            if path == DataPath::DmaDirect { insecure.union(InsecureFlags::EMULATED_DMA) } else { insecure };
        Self { suites: SessionSuites::ALL, path, insecure }
    }
}

impl Default for GuestOptions {
    fn default() -> Self {
        Self::path(DataPath::KeyRelease)
    }
}

/// A completion whose tag does not hold; what it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotAuthentic(pub(crate) u16);

/// A session of the client.
pub(crate) struct Guest {
    pub(crate) id: u32,
    pub(crate) accept: Accept,
    /// Whether the chip's signature over the transcript holds under its signing key.
    pub(crate) signature_holds: bool,
    /// Static key that the handshake proved.
    pub(crate) static_key: Vec<u8>,
    /// The transcript hash.
    pub(crate) transcript: [u8; 64],
    submission: Aes256Gcm,
    completion: Aes256Gcm,
    pub(crate) bulk: Aes256Gcm,
    pub(crate) next: [u64; 2],
}

/// A submission on its way.
pub(crate) struct Sent {
    pub(crate) entry: Submission,
    hash: [u8; 32],
}

pub(crate) fn nonce(word: u32, counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&word.to_le_bytes());
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

impl Guest {
    /// Message 1 and the initiator that waits for message 2.
    pub(crate) fn hello(options: GuestOptions) -> (snow::HandshakeState, Vec<u8>) {
        let mut noise = snow::Builder::new("Noise_NX_25519_AESGCM_SHA512".parse().unwrap())
            .prologue(b"innerkeep chip interface v1")
            .unwrap()
            .build_initiator()
            .unwrap();
        let mut offer = Vec::new();
        offer.extend(1u16.to_le_bytes());
        offer.extend(options.suites.to_le_bytes());
        offer.extend(options.path.as_u16().to_le_bytes());
        offer.extend(0u16.to_le_bytes());
        offer.extend(options.insecure.bits().to_le_bytes());
        offer.extend([7; 32]);
        let mut message = vec![0; 200];
        let length = noise.write_message(&offer, &mut message).unwrap();
        message.truncate(length);
        (noise, message)
    }

    pub(crate) fn open(bench: &mut Bench, options: GuestOptions) -> Result<Self, Status> {
        let (mut noise, hello) = Self::hello(options);
        let message = bench.plain(Opcode::Open, &hello)?;
        let mut payload = vec![0; 65_535];
        let length = noise.read_message(&message, &mut payload).unwrap();
        let accept = Accept::parse(&payload[..length]).unwrap();
        let h: [u8; 64] = noise.get_handshake_hash().try_into().unwrap();
        let static_key = noise.get_remote_static().unwrap().to_vec();
        let (k1, k2) = noise.dangerously_get_raw_split();
        let mut transport = noise.into_transport_mode().unwrap();

        let (ciphertext, shared) = if accept.suite == SessionSuite::Hybrid {
            let key = accept.encapsulation_key.as_slice().try_into().unwrap();
            let key = ml_kem::ml_kem_768::EncapsulationKey::new(key).unwrap();
            let (ciphertext, shared) = key.encapsulate_with_rng(&mut hpke_rng());
            (ciphertext.to_vec(), shared.to_vec())
        } else {
            (Vec::new(), Vec::new())
        };
        let mut finish = vec![0; 2_000];
        let length = transport.write_message(&put_finish(&ciphertext), &mut finish).unwrap();
        finish.truncate(length);
        let message = bench.plain_in(Opcode::Finish, accept.session, &finish)?;
        let mut signature = vec![0; 200];
        let length = transport.read_message(&message, &mut signature).unwrap();

        let transcript: [u8; 64] = Sha512::new()
            .chain_update(b"innerkeep chip session v1 transcript")
            .chain_update(h)
            .chain_update(&finish)
            .finalize()
            .into();
        let signed = [b"innerkeep chip session v1 signature\0".as_slice(), &transcript].concat();
        let record = IdentityRecord::parse(&bench.plain(Opcode::Identify, &[])?).unwrap();
        let verifier = VerifyingKey::from_public_key_der(&record.signing_spki).unwrap();
        let signature = Signature::from_slice(&signature[..length]).unwrap();
        let signature_holds = verifier.verify(&signed, &signature).is_ok();

        let kdf = Hkdf::<Sha512>::new(Some(&transcript), &[k1.as_slice(), &k2, &shared].concat());
        let key = |name: &str| {
            let mut key = Key::<Aes256Gcm>::default();
            kdf.expand(format!("innerkeep chip session v1 {name}").as_bytes(), &mut key).unwrap();
            Aes256Gcm::new(&key)
        };
        Ok(Self {
            id: accept.session,
            accept,
            signature_holds,
            static_key,
            transcript,
            submission: key("submission"),
            completion: key("completion"),
            bulk: key("bulk"),
            next: [1, 1],
        })
    }

    /// Encrypts an input for an entry.
    pub(crate) fn protect(&self, queue: u16, entry: &Submission, input: &[u8]) -> Vec<u8> {
        let aad = [b"IKSUBv1\0".as_slice(), &entry.encode()].concat();
        let nonce = Nonce::from(nonce(queue.into(), entry.seq));
        self.submission.encrypt(&nonce, Payload { msg: input, aad: &aad }).unwrap()
    }

    pub(crate) fn send(&mut self, bench: &mut Bench, queue: u16, opcode: Opcode, input: &[u8]) -> Sent {
        let seq = self.next[usize::from(queue)];
        self.next[usize::from(queue)] += 1;
        let entry = bench.entry(queue, opcode, self.id, seq, input.len() + 16);
        self.send_entry(bench, queue, entry, input)
    }

    pub(crate) fn send_entry(&self, bench: &mut Bench, queue: u16, entry: Submission, input: &[u8]) -> Sent {
        let sealed = self.protect(queue, &entry, input);
        let hash = Sha256::new().chain_update(entry.encode()).chain_update(&sealed).finalize().into();
        bench.submit(queue, &entry.encode(), &sealed);
        Sent { entry, hash }
    }

    /// Opens a completion: status, detail, output.
    pub(crate) fn receive(
        &self,
        bench: &mut Bench,
        queue: u16,
        sent: &Sent,
    ) -> Result<(Status, u32, Vec<u8>), NotAuthentic> {
        let done = bench.completion_within(queue, Duration::from_secs(20)).expect("a completion");
        self.open_completion(bench, queue, sent, &done)
    }

    pub(crate) fn open_completion(
        &self,
        bench: &Bench,
        queue: u16,
        sent: &Sent,
        done: &Completion,
    ) -> Result<(Status, u32, Vec<u8>), NotAuthentic> {
        let entry = &sent.entry;
        if done.cid != entry.cid || done.out_len > entry.out_cap {
            return Err(NotAuthentic(done.status));
        }
        let mut sealed = bench.read(entry.out_iova, done.out_len as usize);
        sealed.extend(done.tag);
        let mut aad = b"IKCPLv1\0".to_vec();
        aad.extend(sent.hash);
        aad.extend(done.status.to_le_bytes());
        aad.extend(done.cid.to_le_bytes());
        aad.extend(done.out_len.to_le_bytes());
        aad.extend(done.detail.to_le_bytes());
        let nonce = Nonce::from(nonce(queue.into(), entry.seq));
        match self.completion.decrypt(&nonce, Payload { msg: &sealed, aad: &aad }) {
            Ok(output) => Ok((Status::from_u16(done.status).unwrap(), done.detail, output)),
            Err(_) => Err(NotAuthentic(done.status)),
        }
    }

    /// One protected command.
    pub(crate) fn command(
        &mut self,
        bench: &mut Bench,
        queue: u16,
        opcode: Opcode,
        input: &[u8],
    ) -> Result<(Status, u32, Vec<u8>), NotAuthentic> {
        let sent = self.send(bench, queue, opcode, input);
        self.receive(bench, queue, &sent)
    }

    /// A command that must be answered authentically: output, or status and detail.
    pub(crate) fn ask(
        &mut self,
        bench: &mut Bench,
        opcode: Opcode,
        input: &[u8],
    ) -> Result<Vec<u8>, (Status, u32)> {
        match self.command(bench, u16::from(opcode == Opcode::Unseal), opcode, input).unwrap() {
            (Status::Ok, _, output) => Ok(output),
            (status, detail, output) => {
                assert_eq!(output, b"", "a refusal carries no output");
                Err((status, detail))
            }
        }
    }

    /// The hash that binds the completion, and bulk data, to a submission.
    pub(crate) fn bulk_aad(sent: &Sent, payload: u32, segment: u64) -> Vec<u8> {
        let mut aad = b"IKBLKv1\0".to_vec();
        aad.extend(sent.hash);
        aad.extend(payload.to_le_bytes());
        aad.extend(segment.to_le_bytes());
        aad
    }
}

/// The generator that the KEM crates accept.
fn hpke_rng() -> impl hpke::rand_core::CryptoRng {
    struct System;
    impl hpke::rand_core::TryRng for System {
        type Error = std::convert::Infallible;
        fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
            let mut bytes = [0; 4];
            self.try_fill_bytes(&mut bytes)?;
            Ok(u32::from_le_bytes(bytes))
        }
        fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
            let mut bytes = [0; 8];
            self.try_fill_bytes(&mut bytes)?;
            Ok(u64::from_le_bytes(bytes))
        }
        fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
            aws_lc_rs::rand::fill(out).unwrap();
            Ok(())
        }
    }
    impl hpke::rand_core::TryCryptoRng for System {}
    System
}
