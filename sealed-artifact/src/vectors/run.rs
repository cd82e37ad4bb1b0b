//! Runs one vector by the procedure of the specification's section 12.

use sha2::{Digest as _, Sha256};

use super::format::Vector;
use super::second::{self, Binding};
use crate::carrier::{Carried, from_layout};
use crate::core::{Commitment, Core, PayloadDigest};
use crate::digest::{SealerKeyDigest, TagTableDigest};
use crate::error::ArtifactError;
use crate::grant::{Grant, GrantSuite, KeyEpoch, RecipientId, RecipientIdentity, RecipientSecretKey};
use crate::keys::ContentKey;
use crate::names::{Counter, EnvironmentTag, Family, PayloadIndex};
use crate::policy::{LinkMode, PolicyDocument, StaticFacts};
use crate::sealed_file::Directory;
use crate::signature::{Floors, Pin, Signature, verify_origin};

/// Which implementation opens segments.
#[derive(Clone, Copy)]
pub(super) enum Engine {
    AwsLc,
    Second,
}

/// Runs `vector`; `Err` says how the outcome differs from what it expects.
pub(super) fn run(vector: &Vector, engine: Engine) -> Result<(), String> {
    let mut released = Sha256::new();
    let outcome = match vector.text("kind").unwrap() {
        "artifact" => open_artifact(vector, engine, &mut released),
        kind => parse_object(kind, vector),
    };
    let found = outcome.as_ref().map_or_else(ArtifactError::code, |()| "success");
    let expected = vector.text("expect").unwrap();
    if !expected.split(' ').any(|code| code == found) {
        return Err(format!("expected {expected}, found {found}: {:?}", outcome.err()));
    }
    let released = hex::encode(released.finalize());
    match vector.text("released") {
        Some(expected) if expected != released => Err(format!("released {released}, expected {expected}")),
        _ => Ok(()),
    }
}

fn parse_object(kind: &str, vector: &Vector) -> Result<(), ArtifactError> {
    let object = vector.bytes("object").unwrap();
    let digest = match kind {
        "core" => Core::parse(object)?.digest().to_string(),
        "directory" => Directory::parse(object).map(|_| String::new())?,
        "grant" => Grant::parse(object).map(|_| String::new())?,
        "policy" => PolicyDocument::parse(object)?.digest().to_string(),
        "signature" => Signature::parse(object).map(|_| String::new())?,
        other => panic!("unknown kind {other}"),
    };
    if let Some(expected) = vector.text("digest") {
        assert_eq!(digest, expected);
    }
    Ok(())
}

fn open_artifact(vector: &Vector, engine: Engine, released: &mut Sha256) -> Result<(), ArtifactError> {
    let carried = carried(vector)?;
    let core = Core::parse(&carried.core)?;
    if vector.text("origin") != Some("unchecked") {
        let signature = carried.signature.as_deref().map(Signature::parse).transpose()?;
        verify_origin(&core, signature.as_ref(), &pins(vector), &floors(vector))?;
    }
    let key = content_key(vector, &core, &carried)?;
    match engine {
        Engine::AwsLc => open_aws_lc(&core, &key, &carried, released),
        Engine::Second => open_second(&core, &key, &carried, released),
    }
}

fn carried(vector: &Vector) -> Result<Carried, ArtifactError> {
    if let Some(file) = vector.bytes("file") {
        return crate::carrier::from_file(file);
    }
    if let Some(index) = vector.bytes("index") {
        return from_layout(index, vector.text("tag").unwrap(), &vector.byte_list("blob"));
    }
    let core = vector.bytes("core").unwrap().to_vec();
    let numbered = |name: &str| {
        let values = (0..).map_while(|index| vector.bytes(&format!("{name}.{index}")));
        values.map(<[u8]>::to_vec).collect()
    };
    Ok(Carried {
        core,
        grants: vector.byte_list("grant").into_iter().map(<[u8]>::to_vec).collect(),
        payloads: numbered("payload"),
        signature: vector.bytes("signature").map(<[u8]>::to_vec),
        tags: numbered("tags"),
    })
}

fn pins(vector: &Vector) -> Vec<Pin> {
    let pins = vector.list("pin").iter().map(|pin| match *pin.split(' ').collect::<Vec<_>>() {
        ["core", digest] => Pin::Core(crate::digest::CoreDigest::parse(digest).unwrap()),
        ["sealer", key, "family", family, "min-counter", counter] => Pin::Sealer {
            key: SealerKeyDigest::parse(key).unwrap(),
            family: Family::parse(family).unwrap(),
            min_counter: Counter::new(counter.parse().unwrap()),
        },
        _ => panic!("unknown pin {pin}"),
    });
    pins.collect()
}

fn floors(vector: &Vector) -> Floors {
    let mut floors = Floors::new();
    for floor in vector.list("floor") {
        match *floor.split(' ').collect::<Vec<_>>() {
            ["sealer", key, "family", family, "counter", counter] => floors.raise(
                SealerKeyDigest::parse(key).unwrap(),
                Family::parse(family).unwrap(),
                Counter::new(counter.parse().unwrap()),
            ),
            _ => panic!("unknown floor {floor}"),
        }
    }
    floors
}

fn content_key(vector: &Vector, core: &Core, carried: &Carried) -> Result<ContentKey, ArtifactError> {
    let stated = vector.text("content_key").map(|key| hex::decode(key).unwrap());
    if let Some(kind) = vector.text("recipient.kind") {
        let key = super::kinds::open(vector, kind, core, carried)?;
        if let Some(stated) = stated {
            assert_eq!(key.expose_bytes().as_slice(), stated);
        }
        return Ok(key);
    }
    let Some(suite) = vector.text("recipient.suite") else {
        return ContentKey::from_bytes(&stated.unwrap());
    };
    let suite = if suite == "X-Wing" { GrantSuite::XWing } else { GrantSuite::P384 };
    let secret = hex::decode(vector.text("recipient.secret").unwrap()).unwrap();
    let id: [u8; 32] = hex::decode(vector.text("recipient.id").unwrap()).unwrap().try_into().unwrap();
    let own = RecipientIdentity {
        id: RecipientId::new(id),
        key_epoch: KeyEpoch::new(vector.text("recipient.epoch").unwrap().parse().unwrap()),
        key: RecipientSecretKey::parse(suite, &secret)?,
    };
    let grant = Grant::parse(carried.grants.first().unwrap())?;
    grant.require_object(core)?;
    grant.require_recipient(own.id, &own.key.public_key(), own.key_epoch)?;
    let policy = PolicyDocument::parse(vector.bytes("preimage").unwrap_or(grant.preimage()))?;
    if let Some(facts) = vector.text("facts") {
        policy.evaluate(&static_facts(core, facts))?;
    }
    let key = grant.open(&own, core, &policy)?;
    if let Some(stated) = stated {
        assert_eq!(key.expose_bytes().as_slice(), stated);
    }
    Ok(key)
}

pub(super) fn static_facts(core: &Core, facts: &str) -> StaticFacts {
    match *facts.split(' ').collect::<Vec<_>>() {
        ["tier", tier, "link-mode", mode] => {
            StaticFacts::of(core, EnvironmentTag::parse(tier).unwrap(), LinkMode::parse(mode).unwrap())
        }
        _ => panic!("unknown facts {facts}"),
    }
}

fn open_aws_lc(
    core: &Core,
    key: &ContentKey,
    carried: &Carried,
    released: &mut Sha256,
) -> Result<(), ArtifactError> {
    let unlocked = core.unlock(key)?;
    for (index, (blob, tags)) in
        (0..).zip(carried.payloads.iter().zip(&carried.tags).take(core.payloads().len()))
    {
        let opener = unlocked.opener(PayloadIndex::new(index), tags)?;
        opener.require_blob_length(crate::error::length(blob))?;
        let mut progress = opener.progress();
        for span in opener.layout().spans() {
            let start = usize::try_from(span.offset).unwrap();
            let mut plaintext = vec![0xa5; span.length];
            let opened = opener.open_into(span.segment, &blob[start..start + span.length], &mut plaintext);
            if opened.is_err() {
                assert!(plaintext.iter().all(|byte| *byte == 0), "unverified plaintext was left");
            }
            progress.record(opened?, &plaintext)?;
            released.update(&plaintext);
        }
        progress.finish()?;
    }
    Ok(())
}

fn open_second(
    core: &Core,
    key: &ContentKey,
    carried: &Carried,
    released: &mut Sha256,
) -> Result<(), ArtifactError> {
    let described = core.parameters().payloads().iter().zip(core.payloads());
    let mut keys = Vec::new();
    for (payload, (_, seal)) in (0..).zip(described.clone()) {
        let payload_key = second::payload_key(core, key.expose_bytes(), payload);
        if seal.commitment != Commitment(payload_key.commitment) {
            return Err(ArtifactError::CommitmentMismatch { payload });
        }
        keys.push(payload_key);
    }
    for ((payload, (parameters, seal)), key) in (0..).zip(described).zip(keys) {
        let (blob, tags) = (
            &carried.payloads[usize::try_from(payload).unwrap()],
            &carried.tags[usize::try_from(payload).unwrap()],
        );
        let mismatch = |what, expected, found: &[u8]| ArtifactError::LengthMismatch {
            payload,
            what,
            expected,
            found: crate::error::length(found),
        };
        let size = parameters.layout.size();
        let segment_size = usize::try_from(parameters.layout.segment_size().bytes()).unwrap();
        let segments = usize::try_from(size).unwrap().div_ceil(segment_size).max(1);
        if tags.len() != segments * 16 {
            return Err(mismatch("tag table", parameters.layout.tag_table_length(), tags));
        }
        if TagTableDigest::of(tags) != seal.tags {
            let digest = crate::error::Found::text("");
            return Err(ArtifactError::TagTableMismatch { payload, expected: digest.clone(), found: digest });
        }
        if crate::error::length(blob) != size {
            return Err(mismatch("ciphertext", size, blob));
        }
        let mut whole = Vec::new();
        for segment in 0..segments {
            let end = blob.len().min((segment + 1) * segment_size);
            let ciphertext = &blob[segment * segment_size..end];
            let number = u64::try_from(segment).unwrap();
            let binding = Binding { payload, segment: number, last: segment == segments - 1, size };
            let Some(plaintext) = key.open(binding, ciphertext, &tags[segment * 16..][..16]) else {
                return Err(ArtifactError::SegmentAuthFailed {
                    payload,
                    segment: u32::try_from(segment).unwrap(),
                });
            };
            released.update(&plaintext);
            whole.extend(plaintext);
        }
        if seal.blake3.is_some_and(|stated| stated != PayloadDigest(blake3::hash(&whole).into())) {
            return Err(ArtifactError::PayloadDigestMismatch { payload });
        }
    }
    Ok(())
}
