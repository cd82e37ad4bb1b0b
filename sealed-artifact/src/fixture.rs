//! Deterministic artifacts, keys and randomness for tests and vectors. Nothing here can be reached from outside the crate.

use std::convert::Infallible;

use hpke::rand_core::{TryCryptoRng, TryRng};
use p384::ecdsa::{Signature as P384Signature, SigningKey, signature::Signer as _};
use sha2::{Digest as _, Sha256};

use crate::core::{Core, PayloadSeal};
use crate::digest::TagTableDigest;
use crate::grant::{
    Form, Grant, GrantSuite, KeyEpoch, Recipient, RecipientId, RecipientIdentity, RecipientSecretKey,
};
use crate::json::Value;
use crate::kbs::{BrokerName, KbsKek, KbsRecipient};
use crate::keys::ContentKey;
use crate::names::{
    ArtifactId, Counter, EnvironmentTag, Family, MediaType, PayloadName, SegmentIndex, SegmentSize,
};
use crate::policy::{Hex, PolicyDocument};
use crate::seal::{SealInput, SealRequest, Sealer};
use crate::signature::SealerPublicKey;
use crate::snp::{SnpDerivedKey, SnpGuest, SnpRootKey, SnpSelection};
use crate::tpm::{PcrSelection, TpmObject, TpmRecipient, TpmSecret};

/// The first `length` bytes of SHA-256(label ‖ u64(seed) ‖ u64(i)) over i = 0, 1, ….
pub(crate) fn stream(label: &str, seed: u64, length: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(length + 32);
    for block in 0u64.. {
        if out.len() >= length {
            break;
        }
        let mut hash = Sha256::new();
        hash.update(label.as_bytes());
        hash.update(seed.to_be_bytes());
        hash.update(block.to_be_bytes());
        out.extend_from_slice(&hash.finalize());
    }
    out.truncate(length);
    out
}

/// Plaintext of vectors, as the specification's section 12 states.
pub(crate) fn plaintext(seed: u64, length: usize) -> Vec<u8> {
    stream("innerkeep vector", seed, length)
}

fn bytes32(label: &str, seed: u64) -> [u8; 32] {
    stream(label, seed, 32).try_into().unwrap()
}

/// Randomness that is none.
pub(crate) struct TestRandom(pub(crate) u64);

impl TryRng for TestRandom {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_be_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_be_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0 += 1;
        bytes.copy_from_slice(&stream("test randomness", self.0, bytes.len()));
        Ok(())
    }
}

impl TryCryptoRng for TestRandom {}

/// A sealed artifact in memory with everything that was known when it was made.
pub(crate) struct Artifact {
    pub(crate) core: Core,
    pub(crate) key: [u8; 32],
    pub(crate) payloads: Vec<Vec<u8>>,
    pub(crate) tags: Vec<Vec<u8>>,
    pub(crate) plaintexts: Vec<(u64, usize)>,
}

impl Artifact {
    pub(crate) fn content_key(&self) -> ContentKey {
        ContentKey::from_bytes(&self.key).unwrap()
    }

    /// The core that a forger makes who keeps the parameters and changes what is said about payloads.
    pub(crate) fn forged_core(&self, change: impl FnOnce(&mut Vec<PayloadSeal>)) -> Core {
        let mut seals = self.core.payloads().to_vec();
        change(&mut seals);
        Core::new(self.core.parameters().clone(), seals).unwrap()
    }

    /// The core whose tag table digests fit `tags`.
    pub(crate) fn core_for_tags(&self, tags: &[Vec<u8>]) -> Core {
        self.forged_core(|seals| {
            for (seal, table) in seals.iter_mut().zip(tags) {
                seal.tags = TagTableDigest::of(table);
            }
        })
    }
}

/// What to seal; sizes of the payloads with the defaults of most tests.
#[derive(Clone)]
pub(crate) struct Recipe {
    pub(crate) seed: u64,
    pub(crate) sizes: Vec<usize>,
    pub(crate) counter: u64,
    pub(crate) digests: bool,
    pub(crate) sealer: Option<u64>,
    pub(crate) family: &'static str,
    pub(crate) environment: &'static str,
    /// Of the first payloads; others are plain bytes.
    pub(crate) media_types: Vec<MediaType>,
}

impl Recipe {
    pub(crate) fn new(seed: u64, sizes: &[usize]) -> Self {
        Self {
            seed,
            sizes: sizes.to_vec(),
            counter: 7,
            digests: true,
            sealer: None,
            family: "acme/ranker",
            environment: "production",
            media_types: Vec::new(),
        }
    }

    pub(crate) fn request(&self) -> SealRequest {
        let plain = MediaType::parse("application/octet-stream").unwrap();
        let inputs = self.sizes.iter().enumerate().map(|(index, size)| SealInput {
            media_type: self.media_types.get(index).unwrap_or(&plain).clone(),
            name: PayloadName::parse(&format!("part-{index}.bin")).unwrap(),
            size: u64::try_from(*size).unwrap(),
        });
        SealRequest {
            counter: Counter::new(self.counter),
            environment: EnvironmentTag::parse(self.environment).unwrap(),
            family: Family::parse(self.family).unwrap(),
            inputs: inputs.collect(),
            payload_digests: self.digests,
            sealer: self.sealer.map(|seed| sealer_public(seed).digest()),
            segment_size: SegmentSize::MINIMUM,
        }
    }

    pub(crate) fn seal(&self) -> Artifact {
        let key = bytes32("content key", self.seed);
        let id = ArtifactId::new(bytes32("artifact id", self.seed));
        let content_key = ContentKey::from_bytes(&key).unwrap();
        let sealer = Sealer::with_material(&self.request(), content_key, id).unwrap();
        let mut payloads = Vec::new();
        let mut plaintexts = Vec::new();
        for (index, (payload, size)) in sealer.payloads().iter().zip(&self.sizes).enumerate() {
            let seed = self.seed * 1_000 + u64::try_from(index).unwrap();
            plaintexts.push((seed, *size));
            let mut blob = plaintext(seed, *size);
            for span in payload.layout().spans() {
                let start = usize::try_from(span.offset).unwrap();
                payload.seal_in_place(span.segment, &mut blob[start..start + span.length]).unwrap();
            }
            payloads.push(blob);
        }
        let sealed = sealer.finish().unwrap();
        let tags = sealed.tag_tables.iter().map(|table| table.bytes().to_vec()).collect();
        Artifact { core: sealed.core, key, payloads, tags, plaintexts }
    }
}

/// Index of a segment, for tests.
pub(crate) fn segment(index: u32) -> SegmentIndex {
    SegmentIndex::new(index)
}

pub(crate) fn sealer_secret(seed: u64) -> SigningKey {
    SigningKey::from_slice(&stream("sealer key", seed, 48)).unwrap()
}

pub(crate) fn sealer_public(seed: u64) -> SealerPublicKey {
    let prefix = hex::decode("3076301006072a8648ce3d020106052b81040022036200").unwrap();
    let point = sealer_secret(seed).verifying_key().to_sec1_point(false);
    SealerPublicKey::from_spki_der(&[prefix.as_slice(), point.as_bytes()].concat()).unwrap()
}

/// A signature object by the second implementation, with deterministic nonces.
pub(crate) fn sign(core: &Core, seed: u64) -> Vec<u8> {
    let message = [b"innerkeep sealer signature v1\0".as_slice(), core.digest().as_bytes()].concat();
    let signature: P384Signature = sealer_secret(seed).sign(&message);
    signature_object(&core.digest().to_string(), sealer_public(seed).spki_der(), &signature.to_bytes())
}

pub(crate) fn signature_object(core: &str, key: &[u8], signature: &[u8]) -> Vec<u8> {
    Value::object([
        ("@type", Value::text("innerkeep signature v1")),
        ("core", Value::text(core)),
        ("key", Value::base64(key)),
        ("signature", Value::base64(signature)),
    ])
    .encode()
}

pub(crate) fn identity(suite: GrantSuite, seed: u64, epoch: u64) -> RecipientIdentity {
    RecipientIdentity {
        id: RecipientId::new(bytes32("recipient id", seed)),
        key_epoch: KeyEpoch::new(epoch),
        key: RecipientSecretKey::derive(suite, &stream("recipient key", seed, 64)),
    }
}

pub(crate) fn recipient(own: &RecipientIdentity) -> Recipient {
    Recipient { id: own.id, key: own.key.public_key(), key_epoch: own.key_epoch }
}

/// A policy without evidence that allows the artifacts of [`Recipe::new`].
pub(crate) const POLICY: &str = r#"
environment = { exactly = "production" }
family = { one_of = ["acme/ranker", "acme/embedder"] }
link_mode = { exactly = "key-release" }
min_counter = 5
"#;

pub(crate) fn policy(source: &str) -> PolicyDocument {
    PolicyDocument::from_toml(source).unwrap()
}

pub(crate) fn grant(artifact: &Artifact, own: &RecipientIdentity, source: &str) -> Grant {
    let seed = u64::from(artifact.key[0]) << 8;
    Grant::seal_with(
        &artifact.core,
        &artifact.content_key(),
        &recipient(own),
        &policy(source),
        &mut TestRandom(seed),
    )
    .unwrap()
}

/// Bytes of a secret, the same for all kinds: what tells kinds apart is their context alone.
pub(crate) fn secret(seed: u64) -> [u8; 32] {
    bytes32("grant secret", seed)
}

pub(crate) fn broker(seed: u64) -> KbsRecipient {
    let name = BrokerName::parse(&format!("kbs-{seed}.example:8443")).unwrap();
    KbsRecipient { name, key: crate::digest::RecipientKeyDigest::of(&stream("broker key", seed, 120)) }
}

pub(crate) fn kbs_grant(artifact: &Artifact, to: &KbsRecipient, secret: [u8; 32], source: &str) -> Grant {
    let kek = KbsKek::from_bytes(&secret).unwrap();
    Grant::seal_kbs_with(&artifact.core, &artifact.content_key(), to, &policy(source), &kek).unwrap()
}

pub(crate) fn snp_guest(seed: u64) -> SnpGuest {
    SnpGuest {
        chip_id: stream("chip id", seed, 64).try_into().unwrap(),
        guest_policy: 0x30000 + seed,
        host_data: bytes32("host data", seed),
        measurement: stream("measurement", seed, 48).try_into().unwrap(),
    }
}

pub(crate) fn snp_selection(root: SnpRootKey) -> SnpSelection {
    let tcb = Hex([4, 0, 0, 0, 0, 0, 22, 213]);
    SnpSelection::new(root, SnpSelection::REQUIRED | SnpSelection::GUEST_SVN, 3, tcb).unwrap()
}

pub(crate) fn snp_grant(artifact: &Artifact, own: &SnpGuest, secret: [u8; 32], source: &str) -> Grant {
    snp_grant_with(artifact, own, snp_selection(SnpRootKey::Vcek), secret, source)
}

pub(crate) fn snp_grant_with(
    artifact: &Artifact,
    own: &SnpGuest,
    selection: SnpSelection,
    secret: [u8; 32],
    source: &str,
) -> Grant {
    let form = Form::Snp { selection, salt: bytes32("salt", 1) };
    let derived = SnpDerivedKey::from_bytes(&secret).unwrap();
    let key = artifact.content_key();
    Grant::seal_snp_with(&artifact.core, &key, own, form, &derived, &policy(source)).unwrap()
}

pub(crate) fn tpm_recipient(seed: u64) -> TpmRecipient {
    TpmRecipient::of(&stream("attestation key", seed, 280), &stream("storage key", seed, 90))
}

pub(crate) fn tpm_object() -> TpmObject {
    let pcrs = PcrSelection::new(&[0, 4, 8, 9]).unwrap();
    let (private, public) = (stream("private", 1, 126), stream("public", 1, 78));
    TpmObject::new(pcrs, bytes32("tpm policy", 1), private, public).unwrap()
}

pub(crate) fn tpm_grant(artifact: &Artifact, own: &TpmRecipient, secret: [u8; 32], source: &str) -> Grant {
    let form = Form::Tpm { object: tpm_object(), salt: bytes32("salt", 1) };
    let secret = TpmSecret::from_bytes(&secret).unwrap();
    let key = artifact.content_key();
    Grant::seal_tpm_with(&artifact.core, &key, own, form, &secret, &policy(source)).unwrap()
}
