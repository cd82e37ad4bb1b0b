//! PRESENT, UNWRAP, FLOORS: what decides whether a key leaves its wrapping (interface spec §8.1).

use std::sync::Arc;

use chip_client::abi::{self as wire, DataPath, Present, SessionSuite, Status, Unwrap};
use evidence::verify::VerifiedEvidence;
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha384;
use hpke::kem::{DhP384HkdfSha384, XWing};
use hpke::{Deserializable, Kem, OpModeR};
use p384::ecdsa::signature::Verifier;
use p384::ecdsa::{Signature, VerifyingKey};
use p384::pkcs8::DecodePublicKey;
use sealed_artifact::core::Core;
use sealed_artifact::keys::ContentKey;
use sealed_artifact::names::EnvironmentTag;
use sealed_artifact::policy::{LinkMode, PolicyDocument, StaticFacts};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::firmware::{Failure, Firmware, Output};
use crate::identity::Floor;
use crate::session::{LiveSession, Presented};
use crate::unseal::Handle;

const SIGNATURE_LABEL: &[u8] = b"innerkeep sealer signature v1\0";

impl Firmware {
    /// Keeps the policy, and evidence that verifies, for this session. A refusal leaves what was presented before.
    pub(crate) fn present(&self, session: &LiveSession, input: &[u8]) -> Output {
        let body = Present::parse(input)?;
        let policy =
            PolicyDocument::parse(body.preimage).map_err(|_policy| Failure::from(Status::PolicyMalformed))?;
        let digest = policy.digest();
        let evidence = self.verify_evidence(session, body.evidence)?.map(Arc::new);
        session.present(Presented { policy, evidence });
        Ok(Zeroizing::new(digest.as_bytes().to_vec()))
    }

    /// The steps of §8.1 in their order.
    pub(crate) fn unwrap_key(&self, session: &LiveSession, input: &[u8]) -> Output {
        let body = Unwrap::parse(input)?;
        // 1. The core.
        let core = Core::parse(body.core).map_err(|_core| Failure::from(Status::CoreMalformed))?;
        // 2. The sealer's signature.
        let signed = !body.sealer_spki.is_empty();
        // GUARD: sealer-signature -> evil_forged_sealer_signature_is_refused
        if signed && !sealer_signed(&core, body.sealer_spki, body.sealer_signature) {
            return Err(Status::SignatureInvalid.into());
        }
        // 3. The chip's own floor.
        let family = core.parameters().family().as_str().to_owned();
        let counter = core.parameters().counter().value();
        let sealer = core.parameters().sealer().map(|digest| *digest.as_bytes());
        let floor = sealer.and_then(|sealer| self.nvm().floor(&sealer, &family));
        // GUARD: chip-floor -> evil_core_below_the_floor_is_refused
        if floor.is_some_and(|floor| counter < floor) {
            return Err(Status::Rollback.into());
        }
        // 4. The policy presented in this session.
        let presented = session.presented().ok_or(Status::PolicyMalformed)?;
        self.judge_evidence(session, &presented)?;
        self.evaluate(session, &core, &presented.policy)?;
        // 5. Epoch and suite.
        // GUARD: key-epoch -> evil_grant_of_another_epoch_is_refused
        if body.key_epoch != self.keys.epoch() {
            return Err(Status::Epoch.into());
        }
        // GUARD: post-quantum-session -> evil_post_quantum_grant_in_a_classical_session_is_refused
        if body.suite == Unwrap::SUITE_X_WING && session.suite() != SessionSuite::Hybrid {
            return Err(Status::Suite.into());
        }
        // 6. The wrapping.
        let key = self.open_wrapped(&body, &core, &presented.policy).ok_or(Status::UnwrapFailed)?;
        // 7. Every commitment.
        let unlocked = core.unlock(&key).map_err(|_commitment| Failure::from(Status::CommitmentMismatch))?;

        let place = match session.path() {
            DataPath::KeyRelease => None,
            _ => Some(self.sessions.handle_place().ok_or(Status::NoResources)?),
        };
        // 8. Floors rise only for a sealer who signed and for evidence that was accepted; durable before anything is released.
        let floor = sealer.filter(|_| signed).map(|sealer| Floor { sealer, family, counter });
        let series = presented.evidence.as_deref().map(VerifiedEvidence::series).unwrap_or_default();
        self.nvm().accept(floor, &series).map_err(|error| {
            crate::log::note(&error.to_string());
            Failure::from(Status::Internal)
        })?;
        Ok(Zeroizing::new(match place {
            None => key.expose_bytes().to_vec(),
            Some(place) => session.keep(Handle::new(unlocked, core), place).to_le_bytes().to_vec(),
        }))
    }

    fn evaluate(&self, session: &LiveSession, core: &Core, policy: &PolicyDocument) -> Result<(), Failure> {
        let tier = self.nvm().provisioned().map(|p| p.environment.clone()).ok_or(Status::NotProvisioned)?;
        let tier = EnvironmentTag::parse(&tier).map_err(|_tag| Failure::from(Status::Internal))?;
        let link_mode = match session.path() {
            DataPath::KeyRelease => LinkMode::KeyRelease,
            DataPath::DmaDirect => LinkMode::DmaDirect,
            DataPath::DmaSealed => LinkMode::DmaSealed,
        };
        let facts = StaticFacts::of(core, tier, link_mode);
        match policy.evaluate_static(&facts) {
            Ok(()) => Ok(()),
            Err(sealed_artifact::ArtifactError::PolicyDenied { rule, .. }) => {
                Err(Failure::Status(Status::PolicyDenied, rule_number(rule)))
            }
            Err(_) => Err(Status::PolicyMalformed.into()),
        }
    }

    /// Opens the wrapped key with an `info` made of what the chip itself knows and computed.
    fn open_wrapped(&self, body: &Unwrap<'_>, core: &Core, policy: &PolicyDocument) -> Option<ContentKey> {
        let info = |suite: &str, public: &[u8]| {
            let key = Sha256::digest(public);
            let (core, policy) = (core.digest(), policy.digest());
            let parts: [&[u8]; 10] = [
                b"innerkeep grant",
                b"v1",
                b"chip",
                suite.as_bytes(),
                b"core",
                core.as_bytes(),
                &self.keys.id(),
                &key,
                &self.keys.epoch().to_be_bytes(),
                policy.as_bytes(),
            ];
            length_prefixed(&parts)
        };
        let opened = match body.suite {
            Unwrap::SUITE_P384 => {
                let (private, public) = self.keys.grant_p384();
                let info = info("HPKE P-384 HKDF-SHA-384 AES-256-GCM", public);
                open::<DhP384HkdfSha384>(private, body, &info)
            }
            Unwrap::SUITE_X_WING => {
                let (private, public) = self.keys.grant_x_wing();
                let info = info("HPKE X-Wing HKDF-SHA-384 AES-256-GCM", public.as_slice());
                open::<XWing>(private, body, &info)
            }
            _ => None,
        }?;
        ContentKey::from_bytes(&opened).ok()
    }

    /// All floors.
    pub(crate) fn floors(&self) -> Zeroizing<Vec<u8>> {
        let nvm = self.nvm();
        let floors = nvm.floors().iter().map(|f| wire::Floor {
            sealer: f.sealer,
            family: f.family.clone(),
            counter: f.counter,
        });
        let collateral = nvm.collateral().iter().map(|f| wire::CollateralFloor {
            kind: f.kind,
            issuer: f.issuer,
            number: f.number,
        });
        Zeroizing::new(wire::Floors { floors: floors.collect(), collateral: collateral.collect() }.encode())
    }
}

fn open<K: Kem>(private: &K::PrivateKey, body: &Unwrap<'_>, info: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let encapsulated = K::EncappedKey::from_bytes(body.enc).ok()?;
    hpke::single_shot_open::<AesGcm256, HkdfSha384, K>(
        &OpModeR::Base,
        private,
        &encapsulated,
        info,
        body.wrapped,
        b"",
    )
    .ok()
    .map(Zeroizing::new)
}

/// Big-endian, as everything of the artifact specification.
fn length_prefixed(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        out.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(part);
    }
    out
}

/// Whether the key is the one that the core names and signed the core's digest.
fn sealer_signed(core: &Core, spki: &[u8], signature: &[u8]) -> bool {
    let digest: [u8; 32] = Sha256::digest(spki).into();
    if core.parameters().sealer().is_none_or(|sealer| *sealer.as_bytes() != digest) {
        return false;
    }
    let message = [SIGNATURE_LABEL, core.digest().as_bytes().as_slice()].concat();
    match (VerifyingKey::from_public_key_der(spki), Signature::from_slice(signature)) {
        (Ok(key), Ok(signature)) => key.verify(&message, &signature).is_ok(),
        _ => false,
    }
}

/// Detail of POLICY_DENIED.
fn rule_number(rule: &str) -> u32 {
    match rule {
        "environment" => 1,
        "tier" => 2,
        "family" => 3,
        "link_mode" => 4,
        "min_counter" => 5,
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
