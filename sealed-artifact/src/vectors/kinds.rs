//! Opens grants of the kinds without HPKE by the procedure of the specification's section 12.

use super::format::Vector;
use super::run::static_facts;
use crate::carrier::Carried;
use crate::core::Core;
use crate::digest::RecipientKeyDigest;
use crate::error::ArtifactError;
use crate::grant::Grant;
use crate::kbs::{BrokerName, KbsKek, KbsRecipient};
use crate::keys::ContentKey;
use crate::policy::PolicyDocument;
use crate::snp::{SnpDerivedKey, SnpGuest};
use crate::tpm::{TpmRecipient, TpmSecret};

fn member<const N: usize>(vector: &Vector, name: &str) -> [u8; N] {
    hex::decode(vector.text(name).unwrap()).unwrap().try_into().unwrap()
}

fn key(vector: &Vector) -> RecipientKeyDigest {
    RecipientKeyDigest::parse(vector.text("recipient.key").unwrap()).unwrap()
}

pub(super) fn open(
    vector: &Vector,
    kind: &str,
    core: &Core,
    carried: &Carried,
) -> Result<ContentKey, ArtifactError> {
    let secret: [u8; 32] = member(vector, "recipient.secret");
    let grant = Grant::parse(carried.grants.first().unwrap())?;
    let policy = |grant: &Grant| {
        let policy = PolicyDocument::parse(vector.bytes("preimage").unwrap_or(grant.preimage()))?;
        if let Some(facts) = vector.text("facts") {
            policy.evaluate(&static_facts(core, facts))?;
        }
        Ok::<_, ArtifactError>(policy)
    };
    // Early answers first, as the procedure says: opening with any policy gives them.
    let early = |opened: Result<ContentKey, ArtifactError>| match opened {
        Err(error @ (ArtifactError::GrantWrongObject { .. } | ArtifactError::GrantWrongRecipient { .. })) => {
            Err(error)
        }
        _ => Ok(()),
    };
    let any = PolicyDocument::from_toml("type = \"opaque\"\nbytes = \"\"").unwrap();
    match kind {
        "kbs" => {
            let name = BrokerName::parse(vector.text("recipient.name").unwrap()).unwrap();
            let own = KbsRecipient { name, key: key(vector) };
            let kek = KbsKek::from_bytes(&secret)?;
            early(grant.open_kbs(&own, &kek, core, &any))?;
            grant.open_kbs(&own, &kek, core, &policy(&grant)?)
        }
        "snp" => {
            let own = SnpGuest {
                chip_id: member(vector, "recipient.chip_id"),
                guest_policy: u64::from_be_bytes(member(vector, "recipient.guest_policy")),
                host_data: member(vector, "recipient.host_data"),
                measurement: member(vector, "recipient.measurement"),
            };
            let derived = SnpDerivedKey::from_bytes(&secret)?;
            early(grant.open_snp(&own, &derived, core, &any))?;
            grant.open_snp(&own, &derived, core, &policy(&grant)?)
        }
        "tpm" => {
            let attestation_key = member(vector, "recipient.attestation_key");
            let own = TpmRecipient { attestation_key, storage_key: key(vector) };
            let secret = TpmSecret::from_bytes(&secret)?;
            early(grant.open_tpm(&own, &secret, core, &any))?;
            grant.open_tpm(&own, &secret, core, &policy(&grant)?)
        }
        other => panic!("unknown kind {other}"),
    }
}
