//! A sealed artifact and its grants.

use base64::Engine;
use chip_client::abi::Unwrap;
use sealed_artifact::core::Core;
use sealed_artifact::grant::{Grant, GrantSuite, KeyEpoch, Recipient, RecipientId, RecipientPublicKey};
use sealed_artifact::keys::ContentKey;
use sealed_artifact::names::*;
use sealed_artifact::policy::PolicyDocument;
use sealed_artifact::seal::{SealInput, SealRequest, Sealer};
use sealed_artifact::signature::{SealerSigningKey, Signature};

use crate::identity::Keys;

pub(crate) struct ArtifactOptions<'a> {
    pub(crate) counter: u64,
    pub(crate) environment: &'a str,
    pub(crate) family: &'a str,
    pub(crate) sealer: Option<&'a SealerSigningKey>,
    pub(crate) sizes: &'a [u64],
}

impl Default for ArtifactOptions<'_> {
    fn default() -> Self {
        Self { counter: 5, environment: "lab", family: "acme/ranker", sealer: None, sizes: &[200_000] }
    }
}

pub(crate) struct Artifact {
    pub(crate) core: Core,
    pub(crate) key: ContentKey,
    pub(crate) tags: Vec<Vec<u8>>,
    pub(crate) plaintexts: Vec<Vec<u8>>,
    pub(crate) ciphertexts: Vec<Vec<u8>>,
    pub(crate) signature: Option<(Vec<u8>, Vec<u8>)>,
}

/// The text of a policy: members other than the given ones allow everything.
pub(crate) fn policy(changes: &[(&str, &str)]) -> PolicyDocument {
    let mut members = vec![
        ("environment", "\"any\"".to_owned()),
        ("family", "\"any\"".to_owned()),
        ("link_mode", "\"any\"".to_owned()),
        ("min_counter", "0".to_owned()),
    ];
    for (name, value) in changes {
        members.retain(|(known, _)| known != name);
        members.push((name, (*value).to_owned()));
    }
    members.push(("@type", "\"innerkeep policy v1\"".to_owned()));
    members.sort();
    let members: Vec<String> =
        members.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    PolicyDocument::parse(format!("{{{}}}", members.join(",")).as_bytes()).unwrap()
}

impl Artifact {
    pub(crate) fn seal(options: &ArtifactOptions<'_>) -> Self {
        let inputs = options.sizes.iter().enumerate().map(|(i, size)| SealInput {
            media_type: MediaType::parse("application/octet-stream").unwrap(),
            name: PayloadName::parse(&format!("part{i}")).unwrap(),
            size: *size,
        });
        let sealer = Sealer::new(&SealRequest {
            counter: Counter::new(options.counter),
            environment: EnvironmentTag::parse(options.environment).unwrap(),
            family: Family::parse(options.family).unwrap(),
            inputs: inputs.collect(),
            payload_digests: true,
            sealer: options.sealer.map(|key| key.public_key().digest()),
            segment_size: SegmentSize::parse(65_536).unwrap(),
        })
        .unwrap();
        let mut plaintexts = Vec::new();
        let mut ciphertexts = Vec::new();
        for payload in sealer.payloads() {
            let size = usize::try_from(payload.layout().size()).unwrap();
            let plaintext: Vec<u8> =
                (0u32..).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).take(size).collect();
            let mut ciphertext = plaintext.clone();
            for span in payload.layout().spans() {
                let start = usize::try_from(span.offset).unwrap();
                payload.seal_in_place(span.segment, &mut ciphertext[start..start + span.length]).unwrap();
            }
            plaintexts.push(plaintext);
            ciphertexts.push(ciphertext);
        }
        let sealed = sealer.finish().unwrap();
        let signature = options.sealer.map(|key| {
            let object = Signature::sign(&sealed.core, key).unwrap().encode();
            (key.public_key().spki_der().to_vec(), base64_member(&object, "signature"))
        });
        let tags = sealed.tag_tables.iter().map(|table| table.bytes().to_vec()).collect();
        Self { core: sealed.core, key: sealed.content_key, tags, plaintexts, ciphertexts, signature }
    }

    /// The input of UNWRAP for a grant to this chip; altered by the caller where it attacks.
    pub(crate) fn grant(&self, keys: &Keys, policy: &PolicyDocument, suite: u16) -> OwnedUnwrap {
        let (name, public) = match suite {
            Unwrap::SUITE_P384 => (GrantSuite::P384, keys.grant_p384().1.as_slice()),
            _ => (GrantSuite::XWing, keys.grant_x_wing().1.as_slice()),
        };
        let recipient = Recipient {
            id: RecipientId::new(keys.id()),
            key: RecipientPublicKey::parse(name, public).unwrap(),
            key_epoch: KeyEpoch::new(keys.epoch()),
        };
        let grant = Grant::seal(&self.core, &self.key, &recipient, policy).unwrap().encode();
        let (spki, signature) = self.signature.clone().unwrap_or_default();
        OwnedUnwrap {
            suite,
            key_epoch: keys.epoch(),
            core: self.core.bytes().to_vec(),
            enc: base64_member(&grant, "enc"),
            wrapped: base64_member(&grant, "wrapped"),
            spki,
            signature,
        }
    }
}

fn base64_member(object: &[u8], name: &str) -> Vec<u8> {
    let object: serde_json::Value = serde_json::from_slice(object).unwrap();
    base64::engine::general_purpose::STANDARD.decode(object[name].as_str().unwrap()).unwrap()
}

#[derive(Clone)]
pub(crate) struct OwnedUnwrap {
    pub(crate) suite: u16,
    pub(crate) key_epoch: u64,
    pub(crate) core: Vec<u8>,
    pub(crate) enc: Vec<u8>,
    pub(crate) wrapped: Vec<u8>,
    pub(crate) spki: Vec<u8>,
    pub(crate) signature: Vec<u8>,
}

impl OwnedUnwrap {
    pub(crate) fn encode(&self) -> Vec<u8> {
        Unwrap {
            suite: self.suite,
            key_epoch: self.key_epoch,
            core: &self.core,
            enc: &self.enc,
            wrapped: &self.wrapped,
            sealer_spki: &self.spki,
            sealer_signature: &self.signature,
        }
        .encode()
    }
}
