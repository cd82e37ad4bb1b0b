//! The handshake: a challenge is given, the answer to it verified, a token made.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::appraisal::{Appraiser, POLICY_ID};
use crate::error::{Refusal, Variant};
use crate::initdata::InitData;
use crate::jwk::TeeKey;
use crate::log::note;
use crate::rcar::{Attestation, Challenge, Tee};
use crate::rego::RegoError;
use crate::runtime_data;
use crate::session::{Attested, MAXIMUM_ATTEMPTS, Session, Sessions};
use crate::token::{LIFETIME, Tokens, now};
use crate::verifier::{Bound, Claims, Untrusted, Verifier};

const PROFILE: &str = "tag:github.com,2024:confidential-containers/Trustee";
const ISSUER: &str = "CoCo-Attestation-Service";
/// Most device classes beside a guest.
const MAXIMUM_DEVICES: usize = 8;

/// What the handshake needs.
#[derive(Debug)]
pub(crate) struct Handshake {
    pub(crate) sessions: Sessions,
    pub(crate) verifier: Verifier,
    pub(crate) appraiser: Appraiser,
    pub(crate) tokens: Tokens,
}

/// Evidence that verified, with what was hashed into it.
struct Submod {
    name: String,
    tee: &'static str,
    claims: Claims,
    runtime_data: Value,
    init_data: Option<BTreeMap<String, Value>>,
}

impl Handshake {
    /// Step 1: opens a session for a guest and returns its challenge as JSON.
    pub(crate) fn challenge(&self, body: &[u8]) -> Result<(Arc<Session>, Vec<u8>), Refusal> {
        let refused = |why: &dyn std::fmt::Display| {
            let detail = format!("Attestation error: RCAR handshake Auth failed: {why}");
            Refusal::open(Variant::AttestationError, detail)
        };
        let tee = Tee::of_request(body).map_err(|error| refused(&error))?;
        if tee == Tee::Sample {
            self.verifier.sample_allowed().map_err(|error| refused(&error))?;
        }
        let session = self.sessions.open(tee).map_err(|error| refused(&error))?;
        let challenge = Challenge { nonce: &session.nonce, extra_params: "" };
        let body = serde_json::to_vec(&challenge).map_err(|error| refused(&error))?;
        Ok((session, body))
    }

    /// Step 3: verifies the answer to the challenge of a session and returns the token. A session that was answered keeps its token,
    /// whatever is sent. `lifetime_offset` is subtracted from the token's end (a fault plan's doing).
    pub(crate) fn attest(
        &self,
        session: &Session,
        body: &[u8],
        lifetime_offset: u64,
    ) -> Result<String, Refusal> {
        if let Some(attested) = session.attested() {
            return Ok(attested.token.clone());
        }
        let mut attempts = session.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        // GUARD: broker-challenge-once -> evil_client_answers_a_challenge_twice_at_once
        if let Some(attested) = session.attested() {
            return Ok(attested.token.clone());
        }
        *attempts += 1;
        // GUARD: broker-challenge-attempts -> evil_client_tries_a_challenge_without_end
        if *attempts > MAXIMUM_ATTEMPTS {
            self.sessions.close(&session.id);
            return Err(refuse(&"too many attempts at one challenge"));
        }
        let (token, verified) = self.answer(session, body, lifetime_offset)?;
        Ok(session.accept(Attested { token, verified }).token.clone())
    }

    fn answer(
        &self,
        session: &Session,
        body: &[u8],
        lifetime_offset: u64,
    ) -> Result<(String, Arc<crate::token::Verified>), Refusal> {
        let attestation: Attestation<'_> = serde_json::from_slice(body).map_err(|error| refuse(&error))?;
        let runtime = &attestation.runtime_data;
        // GUARD: broker-nonce -> evil_guest_answers_another_challenge
        if runtime.nonce != session.nonce {
            return Err(refuse(&"the nonce is not this session's"));
        }
        // A key that nothing could be encrypted to is refused here, not at the first resource.
        TeeKey::parse(&runtime.tee_pubkey).map_err(|error| refuse(&error))?;
        let init_data = attestation.init_data.as_ref().map(InitData::parse).transpose();
        let init_data = init_data.map_err(|error| refuse(&error))?;
        let additional = &attestation.tee_evidence.additional_evidence;
        // The nonce that is hashed is the session's own.
        let report_data = runtime_data::primary(&session.nonce, &runtime.tee_pubkey, additional);
        let now = now();
        let bound = Bound { report_data: &report_data, init_data: init_data.as_ref(), now };
        let evidence = attestation.tee_evidence.primary_evidence.get().as_bytes();
        let claims = self
            .verifier
            .verify(session.tee, evidence, bound)
            .map_err(|error| untrusted(session.tee.name(), &error))?;
        let key = runtime.tee_pubkey.members();
        let mut submods = vec![Submod {
            name: "cpu0".to_owned(),
            tee: session.tee.name(),
            claims,
            runtime_data: json!({"additional-evidence": additional, "nonce": session.nonce, "tee-pubkey": key}),
            init_data: init_data.map(|init_data| init_data.claims),
        }];
        let bound = runtime_data::device(&session.nonce, &runtime.tee_pubkey);
        for (name, evidence) in devices(additional)? {
            if name != "sampledevice" {
                return Err(refuse(&format_args!("device {name}: this broker does not verify its evidence")));
            }
            let claims = self.verifier.sample_device(evidence.get().as_bytes(), &bound);
            submods.push(Submod {
                name: "gpu0".to_owned(),
                tee: "sampledevice",
                claims: claims.map_err(|error| untrusted("sampledevice", &error))?,
                runtime_data: json!({"nonce": session.nonce, "tee-pubkey": key}),
                init_data: None,
            });
        }
        let claims = self.token_claims(submods, now, lifetime_offset).map_err(|error| refuse(&error))?;
        let issued = self.tokens.issue(&claims.to_string()).map_err(|error| refuse(&error))?;
        let status = claims.pointer("/submods/cpu0/ear.status").and_then(Value::as_str).unwrap_or("?");
        note(&format!("attested a {} guest, appraised as {status}", session.tee.name()));
        Ok(issued)
    }

    fn token_claims(&self, submods: Vec<Submod>, now: u64, lifetime_offset: u64) -> Result<Value, RegoError> {
        let mut appraised = Map::new();
        for submod in submods {
            let name = submod.name.clone();
            let evidence = submod.annotated();
            let appraisal = self.appraiser.appraise(&evidence)?;
            appraised.insert(
                name,
                json!({
                    "ear.status": appraisal.status,
                    "ear.trustworthiness-vector": appraisal.vector,
                    "ear.appraisal-policy-id": POLICY_ID,
                    "ear.veraison.annotated-evidence": evidence,
                }),
            );
        }
        Ok(json!({
            "eat_profile": PROFILE,
            "iat": now,
            "exp": (now + LIFETIME).saturating_sub(lifetime_offset),
            "iss": ISSUER,
            "ear.verifier-id": {
                "build": concat!("innerkeep-key-broker ", env!("CARGO_PKG_VERSION"), " (emulator)"),
                "developer": "innerkeep",
            },
            "submods": appraised,
        }))
    }
}

impl Submod {
    fn annotated(self) -> Value {
        let mut evidence = Map::new();
        evidence.insert(self.tee.to_owned(), self.claims.claims);
        if let Some(field) = self.claims.init_data {
            evidence.insert("init_data".to_owned(), field.into());
        }
        if let Some(claims) = self.init_data {
            evidence.insert("init_data_claims".to_owned(), json!(claims));
        }
        evidence.insert("report_data".to_owned(), self.claims.report_data.into());
        evidence.insert("runtime_data_claims".to_owned(), self.runtime_data);
        Value::Object(evidence)
    }
}

/// Evidence of devices, by the name of their class.
fn devices(additional: &str) -> Result<BTreeMap<String, &RawValue>, Refusal> {
    if additional.is_empty() {
        return Ok(BTreeMap::new());
    }
    let devices: BTreeMap<String, &RawValue> = serde_json::from_str(additional)
        .map_err(|error| refuse(&format_args!("additional_evidence: {error}")))?;
    if devices.is_empty() || devices.len() > MAXIMUM_DEVICES {
        return Err(refuse(&format_args!("additional_evidence: expected 1 to {MAXIMUM_DEVICES} devices")));
    }
    Ok(devices)
}

/// The peer reads one line for all of these; the log has the reason.
fn refuse(why: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(Variant::AttestationError, why)
}

fn untrusted(tee: &str, error: &Untrusted) -> Refusal {
    refuse(&format_args!("{tee} evidence {}: {}: {error}", error.verdict(), error.code()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::ReferenceValues;
    use crate::signer::Signer;
    use crate::store::Store;
    use crate::verifier::Collateral;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use evidence::verify::roots::Roots;
    use std::time::Duration;

    fn handshake() -> Handshake {
        let directory = tempfile::tempdir().unwrap();
        let signer = Signer::open(&Store::open(directory.path()).unwrap()).unwrap();
        Handshake {
            sessions: Sessions::new(Duration::from_secs(60)),
            verifier: Verifier {
                roots: Roots::builtin().unwrap(),
                collateral: Collateral::default(),
                allow_sample: true,
            },
            appraiser: Appraiser::new(crate::appraisal::DEFAULT.to_owned(), ReferenceValues::default())
                .unwrap(),
            tokens: Tokens::new(signer),
        }
    }

    fn answer_to(session: &Session) -> String {
        let key: Value = serde_json::from_str(crate::jwk::tests::P256).unwrap();
        let jwk = serde_json::from_str(crate::jwk::tests::P256).unwrap();
        let report_data = STANDARD.encode(runtime_data::primary(&session.nonce, &jwk, ""));
        json!({
            "runtime-data": {"nonce": session.nonce, "tee-pubkey": key},
            "tee-evidence": {"primary_evidence": {"svn": "1", "report_data": report_data}, "additional_evidence": ""},
        })
        .to_string()
    }

    #[test]
    fn an_answer_is_accepted_once_and_then_kept() {
        let handshake = handshake();
        let session = handshake.sessions.open(Tee::Sample).unwrap();
        let token = handshake.attest(&session, answer_to(&session).as_bytes(), 0).unwrap();
        assert_eq!(handshake.attest(&session, b"anything", 0).unwrap(), token);
        assert_eq!(*session.attempts.lock().unwrap(), 1);
    }

    /// The second answer arrives while evidence of the first one is looked at.
    #[test]
    fn evil_client_answers_a_challenge_twice_at_once() {
        let handshake = handshake();
        let session = handshake.sessions.open(Tee::Sample).unwrap();
        let (token, verified) = handshake.answer(&session, answer_to(&session).as_bytes(), 0).unwrap();
        std::thread::scope(|scope| {
            let busy = session.attempts.lock().unwrap();
            let second = scope.spawn(|| handshake.attest(&session, answer_to(&session).as_bytes(), 7));
            std::thread::sleep(Duration::from_millis(200));
            session.accept(Attested { token: token.clone(), verified });
            drop(busy);
            assert_eq!(second.join().unwrap(), Ok(token));
        });
        assert_eq!(*session.attempts.lock().unwrap(), 0, "nothing was looked at a second time");
    }
}
