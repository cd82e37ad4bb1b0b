//! Objects that are made once: an artifact with its keys, recipients, a sealer, policies.

use std::num::NonZeroUsize;
use std::sync::LazyLock;

use sealed_artifact::ArtifactError;
use sealed_artifact::core::Core;
use sealed_artifact::grant::{
    Grant, GrantSuite, KeyEpoch, Recipient, RecipientId, RecipientIdentity, RecipientSecretKey,
};
use sealed_artifact::kbs::{BrokerName, KbsKek, KbsRecipient};
use sealed_artifact::keys::ContentKey;
use sealed_artifact::names::{Counter, EnvironmentTag, Family, MediaType, PayloadName, SegmentSize};
use sealed_artifact::parallel::seal_streaming;
use sealed_artifact::policy::{Hex, PolicyDocument};
use sealed_artifact::seal::{SealInput, SealRequest, Sealer};
use sealed_artifact::signature::{SealerSigningKey, Signature};
use sealed_artifact::snp::{SnpDerivedKey, SnpGuest, SnpRootKey, SnpSelection};
use sealed_artifact::tags::TagTable;
use sealed_artifact::tpm::{PcrSelection, TpmObject, TpmRecipient, TpmSecret};

/// A policy without evidence rules, so that static evaluation decides.
pub const POLICY: &[u8] = br#"{"@type":"innerkeep policy v1","environment":{"exactly":"test"},"family":{"exactly":"acme/ranker"},"link_mode":"any","min_counter":3}"#;

/// An artifact with two payloads, its keys and everything beside it.
#[expect(missing_debug_implementations, reason = "holds key material")]
pub struct Artifact {
    /// The core.
    pub core: Core,
    /// The content key.
    pub key: ContentKey,
    /// Plaintexts in order.
    pub plaintexts: Vec<Vec<u8>>,
    /// Ciphertexts in order.
    pub ciphertexts: Vec<Vec<u8>>,
    /// Tag tables in order.
    pub tags: Vec<TagTable>,
    /// The sealer.
    pub sealer: SealerSigningKey,
    /// Its signature of the core.
    pub signature: Signature,
    /// The policy.
    pub policy: PolicyDocument,
}

/// The one artifact of this process. Keys are fresh in each process; nothing depends on their values.
pub static ARTIFACT: LazyLock<Artifact> = LazyLock::new(|| artifact().expect("the fixed artifact"));

/// Recipients of both suites: classical, hybrid.
pub static RECIPIENTS: LazyLock<[RecipientIdentity; 2]> = LazyLock::new(|| {
    [(GrantSuite::P384, 1), (GrantSuite::XWing, 2)].map(|(suite, id)| RecipientIdentity {
        id: RecipientId::new([id; 32]),
        key_epoch: KeyEpoch::new(7),
        key: RecipientSecretKey::derive(suite, &[id; 64]),
    })
});

/// The grant of the fixed artifact to one of the recipients.
pub fn grant(own: &RecipientIdentity) -> Grant {
    let to = Recipient { id: own.id, key: own.key.public_key(), key_epoch: own.key_epoch };
    Grant::seal(&ARTIFACT.core, &ARTIFACT.key, &to, &ARTIFACT.policy).expect("the fixed grant")
}

/// Recipients that open with a secret of 32 bytes, with their secrets and the grants of the fixed artifact to them.
#[expect(missing_debug_implementations, reason = "holds key material")]
pub struct SecretKinds {
    /// A key broker.
    pub broker: (KbsRecipient, KbsKek, Grant),
    /// An SEV-SNP guest.
    pub guest: (SnpGuest, SnpDerivedKey, Grant),
    /// A TPM.
    pub tpm: (TpmRecipient, TpmSecret, Grant),
}

/// The recipients of this process.
pub static SECRET_KINDS: LazyLock<SecretKinds> =
    LazyLock::new(|| secret_kinds().expect("grants of every kind"));

impl SecretKinds {
    /// The three grants: broker, guest, TPM.
    pub fn grants(&self) -> [&Grant; 3] {
        [&self.broker.2, &self.guest.2, &self.tpm.2]
    }

    /// What a grant gives to each of them.
    pub fn open(&self, grant: &Grant, policy: &PolicyDocument) -> [Result<ContentKey, ArtifactError>; 3] {
        let core = &ARTIFACT.core;
        [
            grant.open_kbs(&self.broker.0, &self.broker.1, core, policy),
            grant.open_snp(&self.guest.0, &self.guest.1, core, policy),
            grant.open_tpm(&self.tpm.0, &self.tpm.1, core, policy),
        ]
    }
}

fn secret_kinds() -> Result<SecretKinds, ArtifactError> {
    let Artifact { core, key, policy, .. } = &*ARTIFACT;
    let broker = KbsRecipient::without_tls(BrokerName::parse("kbs.example.org")?);
    let (of_broker, kek) = Grant::seal_kbs(core, key, &broker, policy)?;
    let guest =
        SnpGuest { chip_id: [1; 64], guest_policy: 0x3_0000, host_data: [2; 32], measurement: [3; 48] };
    let fields = SnpSelection::REQUIRED | SnpSelection::GUEST_SVN;
    let selection = SnpSelection::new(SnpRootKey::Vcek, fields, 3, Hex([4, 0, 0, 0, 0, 0, 22, 213]))?;
    let derived = SnpDerivedKey::from_bytes(&[4; 32])?;
    let of_guest = Grant::seal_snp(core, key, &guest, selection, &derived, policy)?;
    let tpm = TpmRecipient::of(b"attestation key", b"storage key");
    let object = TpmObject::new(PcrSelection::new(&[0, 4, 8, 9])?, [5; 32], vec![6; 126], vec![7; 78])?;
    let secret = TpmSecret::generate()?;
    let of_tpm = Grant::seal_tpm(core, key, &tpm, object, &secret, policy)?;
    Ok(SecretKinds {
        broker: (broker, kek, of_broker),
        guest: (guest, derived, of_guest),
        tpm: (tpm, secret, of_tpm),
    })
}

fn artifact() -> Result<Artifact, ArtifactError> {
    let plaintexts: Vec<Vec<u8>> =
        vec![(0..150_000_u32).map(|i| (i % 251) as u8).collect(), b"a small one".to_vec()];
    let sealer = SealerSigningKey::generate()?;
    let request = SealRequest {
        counter: Counter::new(3),
        environment: EnvironmentTag::parse("test")?,
        family: Family::parse("acme/ranker")?,
        inputs: (0_u32..)
            .zip(&plaintexts)
            .map(|(i, plaintext)| {
                Ok(SealInput {
                    media_type: MediaType::parse("application/octet-stream")?,
                    name: PayloadName::parse(&format!("part-{i}"))?,
                    size: plaintext.len() as u64,
                })
            })
            .collect::<Result<_, ArtifactError>>()?,
        payload_digests: true,
        sealer: Some(sealer.public_key().digest()),
        segment_size: SegmentSize::MINIMUM,
    };
    let seal = Sealer::new(&request)?;
    let mut ciphertexts = Vec::new();
    for (plaintext, payload) in plaintexts.iter().zip(seal.payloads()) {
        let blob = std::sync::Mutex::new(vec![0; plaintext.len()]);
        seal_streaming(
            payload,
            NonZeroUsize::MIN,
            |span, buffer| {
                buffer.copy_from_slice(&plaintext[span.offset as usize..][..span.length]);
                Ok::<(), ArtifactError>(())
            },
            |span, bytes| {
                blob.lock().unwrap()[span.offset as usize..][..span.length].copy_from_slice(bytes);
                Ok(())
            },
            &(),
        )?;
        ciphertexts.push(blob.into_inner().unwrap());
    }
    let sealed = seal.finish()?;
    let signature = Signature::sign(&sealed.core, &sealer)?;
    Ok(Artifact {
        core: sealed.core,
        key: sealed.content_key,
        plaintexts,
        ciphertexts,
        tags: sealed.tag_tables,
        sealer,
        signature,
        policy: PolicyDocument::parse(POLICY)?,
    })
}
