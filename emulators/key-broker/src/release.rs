//! Release of a resource: token or session, policy, then an answer that one guest can read.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::broker::Broker;
use crate::error::{Refusal, Variant};
use crate::faults::{Kind, Place};
use crate::jwe::{self, Twist};
use crate::log::note;
use crate::policy::Wanted;
use crate::store::ResourcePath;
use crate::token::{Verified, now};

/// How a guest says who it is.
#[derive(Clone, Default)]
pub(crate) struct Access {
    /// Session id of the cookie.
    pub(crate) session: Option<String>,
    /// Bearer token.
    pub(crate) bearer: Option<String>,
}

impl Access {
    /// The verified token: of the session if it was attested, else the bearer's.
    fn token(&self, broker: &Broker) -> Result<(Arc<Verified>, &'static str), Refusal> {
        let session = self.session.as_deref().and_then(|id| broker.handshake.sessions.find(id));
        let refused = |error: &dyn std::fmt::Display| Refusal::new(Variant::TokenVerifierError, error);
        if let Some(attested) = session.as_ref().and_then(|session| session.attested()) {
            // GUARD: broker-session-token-expiry -> evil_client_uses_a_session_whose_token_is_over
            attested.verified.holds_at(now()).map_err(|error| refused(&error))?;
            return Ok((Arc::clone(&attested.verified), "session"));
        }
        let bearer = self
            .bearer
            .as_deref()
            .ok_or_else(|| Refusal::new(Variant::TokenNotFound, "no attested session and no bearer token"))?;
        let verified = broker.handshake.tokens.verify(bearer, now()).map_err(|error| refused(&error))?;
        Ok((verified, "token"))
    }
}

/// The encrypted resource, as JSON.
pub(crate) fn resource(
    broker: &Broker,
    access: &Access,
    path: &str,
    query: &BTreeMap<String, String>,
) -> Result<Vec<u8>, Refusal> {
    let (verified, by) = access.token(broker)?;
    let internal = |why: &dyn std::fmt::Display| Refusal::new(Variant::PluginInternalError, why);
    let path = ResourcePath::parse(path).map_err(|error| internal(&error))?;
    let wanted = Wanted { plugin: "resource", path: path.segments(), query };
    let allowed = broker.policy.allows(&wanted, &verified.claims);
    let allowed = allowed.map_err(|error| Refusal::new(Variant::PolicyEngineError, error))?;
    // GUARD: broker-resource-policy -> evil_guest_that_the_policy_denies
    if !allowed {
        return Err(Refusal::new(
            Variant::PolicyDeny,
            format_args!("data.policy.allow is not true for {path}"),
        ));
    }
    let plaintext =
        broker.store.resource(&path)?.ok_or_else(|| internal(&format_args!("no resource {path}")))?;
    let twist = twist(broker);
    let jwe = jwe::seal(&verified.key, plaintext, twist.as_ref());
    let jwe = jwe.map_err(|error| Refusal::new(Variant::JweError, error))?;
    note(&format!("released {path} by {by}, {}", verified.key.algorithm()));
    serde_json::to_vec(&jwe).map_err(|error| Refusal::new(Variant::SerdeError, error))
}

/// What the fault plan does to this answer.
fn twist(broker: &Broker) -> Option<Twist> {
    let twists = [
        (Kind::WrongCurveEpk, Twist::WrongCurveEpk),
        (Kind::OffCurveEpk, Twist::OffCurveEpk),
        (Kind::BadTag, Twist::BadTag),
        (Kind::BadWrappedKey, Twist::BadWrappedKey),
        (Kind::ReorderedHeader, Twist::ReorderedHeader),
    ];
    let mut found = None;
    for (kind, twist) in twists {
        if broker.faults.take(kind, Place::Resource).is_some() {
            found = found.or(Some(twist));
        }
    }
    let malformed = broker.faults.take(Kind::MalformedMember, Place::Resource);
    let member = malformed.map(|fault| fault.member.unwrap_or_else(|| "ciphertext".to_owned()));
    found.or(member.map(Twist::Malformed))
}
