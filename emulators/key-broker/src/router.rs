//! Which request goes where, and what it is answered.

use std::collections::BTreeMap;

use aws_lc_rs::rand::fill;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{AUTHORIZATION, COOKIE as COOKIE_HEADER, HeaderMap};
use hyper::{Method, StatusCode, Uri};

use crate::admin;
use crate::broker::Broker;
use crate::error::{Refusal, Variant};
use crate::faults::{Kind, Place};
use crate::http::Answer;
use crate::log::printable;
use crate::rcar::Challenge;
use crate::release::{self, Access};
use crate::session::{COOKIE, Session};

const PREFIX: &str = "/kbs/v0";
/// What an expired token's end lies in the past, in seconds, beside its lifetime.
const EXPIRED_BY: u64 = 3600 + crate::token::LIFETIME;

/// A request without its body.
#[derive(Clone)]
pub(crate) struct Head {
    method: Method,
    endpoint: Endpoint,
    query: String,
    access: Access,
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Endpoint {
    Health,
    Auth,
    Attest,
    AttestationPolicy,
    ReferenceValue(String),
    ResourcePolicy,
    /// Name and the rest of the path without the slash between.
    Plugin(String, String),
    /// Below the prefix, but nowhere.
    Nameless(String),
    /// Not below the prefix.
    Outside,
}

impl Endpoint {
    fn of(method: &Method, path: &str) -> Self {
        if path == "/healthz" {
            return Self::Health;
        }
        let Some(rest) = path.strip_prefix(PREFIX) else { return Self::Outside };
        let (name, rest) = match rest.strip_prefix('/') {
            Some(rest) => rest.split_once('/').unwrap_or((rest, "")),
            None if rest.is_empty() => ("", ""),
            None => return Self::Outside,
        };
        match (name, method) {
            ("", _) => Self::Nameless(path.to_owned()),
            ("auth", &Method::POST) if rest.is_empty() => Self::Auth,
            ("attest", &Method::POST) if rest.is_empty() => Self::Attest,
            ("attestation-policy", &Method::POST) => Self::AttestationPolicy,
            ("reference-value", &Method::POST | &Method::GET) => Self::ReferenceValue(rest.to_owned()),
            ("resource-policy", &Method::POST | &Method::GET) => Self::ResourcePolicy,
            (name, _) => Self::Plugin(name.to_owned(), rest.to_owned()),
        }
    }
}

impl Head {
    /// What a request says before its body.
    pub(crate) fn new(method: &Method, uri: &Uri, headers: &HeaderMap) -> Self {
        Self {
            endpoint: Endpoint::of(method, uri.path()),
            method: method.clone(),
            query: uri.query().unwrap_or_default().to_owned(),
            access: Access { session: cookie(headers), bearer: bearer(headers) },
        }
    }

    /// Which faults can happen.
    pub(crate) fn place(&self) -> Option<Place> {
        match &self.endpoint {
            Endpoint::Auth => Some(Place::Auth),
            Endpoint::Attest => Some(Place::Attest),
            Endpoint::Plugin(..) if self.method == Method::GET => Some(Place::Resource),
            Endpoint::Plugin(..)
            | Endpoint::AttestationPolicy
            | Endpoint::ReferenceValue(_)
            | Endpoint::ResourcePolicy => Some(Place::Admin),
            Endpoint::Health | Endpoint::Nameless(_) | Endpoint::Outside => None,
        }
    }

    /// The request in the log: method and place, nothing secret.
    pub(crate) fn shown(&self) -> String {
        let place = match &self.endpoint {
            Endpoint::Plugin(name, rest) => printable(&format!("{name}/{rest}"), 120),
            Endpoint::Nameless(path) => printable(path, 120),
            other => format!("{other:?}"),
        };
        format!("{} {place}", self.method)
    }
}

/// Answers a request. Runs on a thread that may block.
pub(crate) fn answer(broker: &Broker, head: &Head, body: &[u8]) -> Result<Answer, Refusal> {
    match &head.endpoint {
        Endpoint::Health => Ok(Answer::empty(StatusCode::OK)),
        Endpoint::Outside => Ok(Answer::empty(StatusCode::NOT_FOUND)),
        Endpoint::Nameless(path) => {
            Err(Refusal::open(Variant::InvalidRequestPath, format_args!("Request path {path} is invalid")))
        }
        Endpoint::Auth => auth(broker, body),
        Endpoint::Attest => attest(broker, head, body),
        Endpoint::AttestationPolicy => {
            admin(broker, head)?;
            admin::set_attestation_policy(broker, body).map(|()| Answer::empty(StatusCode::OK))
        }
        Endpoint::ReferenceValue(name) => {
            admin(broker, head)?;
            if head.method == Method::GET {
                return Ok(Answer::json(admin::reference(broker, name)));
            }
            admin::register_reference(broker, body).map(|()| Answer::empty(StatusCode::OK))
        }
        Endpoint::ResourcePolicy => {
            admin(broker, head)?;
            if head.method == Method::GET {
                return Ok(Answer::text("text/xml", broker.policy.text().into_bytes()));
            }
            admin::set_resource_policy(broker, body).map(|()| Answer::empty(StatusCode::OK))
        }
        Endpoint::Plugin(name, path) => plugin(broker, head, (name, path), body),
    }
}

fn admin(broker: &Broker, head: &Head) -> Result<(), Refusal> {
    // GUARD: broker-admin-endpoints -> evil_client_uses_the_admin_api
    broker.admin.authorise(head.access.bearer.as_deref())?;
    Ok(())
}

fn plugin(broker: &Broker, head: &Head, (name, path): (&str, &str), body: &[u8]) -> Result<Answer, Refusal> {
    if name != "resource" {
        return Err(Refusal::open(Variant::PluginNotFound, format_args!("Plugin {name} not found")));
    }
    if head.method == Method::GET {
        let query = query(&head.query)
            .ok_or_else(|| Refusal::new(Variant::PluginInternalError, "a query that does not decode"))?;
        return release::resource(broker, &head.access, path, &query).map(Answer::json);
    }
    admin(broker, head)?;
    admin::resource(broker, &head.method, path, body).map(|()| Answer::empty(StatusCode::OK))
}

fn auth(broker: &Broker, body: &[u8]) -> Result<Answer, Refusal> {
    let (session, mut challenge) = broker.handshake.challenge(body)?;
    if broker.faults.take(Kind::WrongNonce, Place::Auth).is_some() {
        let mut other = [0; 32];
        fill(&mut other).map_err(|_unspecified| Refusal::new(Variant::AttestationError, "no randomness"))?;
        let lie = Challenge { nonce: &STANDARD.encode(other), extra_params: "" };
        challenge = serde_json::to_vec(&lie).unwrap_or_default();
    }
    let mut answer = Answer::json(challenge);
    if broker.faults.take(Kind::CookieOmitted, Place::Auth).is_none() {
        answer.cookie = Some(set_cookie(&session, broker.tls));
    }
    Ok(answer)
}

fn attest(broker: &Broker, head: &Head, body: &[u8]) -> Result<Answer, Refusal> {
    let refused = |why| Refusal::new(Variant::AttestationError, why);
    let id = head.access.session.as_deref().ok_or_else(|| refused("no session cookie"))?;
    let session =
        broker.handshake.sessions.find(id).ok_or_else(|| refused("no such session, or it is over"))?;
    let expired = broker.faults.take(Kind::ExpiredToken, Place::Attest).is_some();
    let token = broker.handshake.attest(&session, body, if expired { EXPIRED_BY } else { 0 })?;
    let mut answer = Answer::json(format!(r#"{{"token":"{token}"}}"#).into_bytes());
    answer.cookie = Some(set_cookie(&session, broker.tls));
    Ok(answer)
}

/// No `Path` and no `SameSite`, as upstream; what a program does not notice and a browser would need is set.
fn set_cookie(session: &Session, tls: bool) -> String {
    let expires = httpdate::fmt_http_date(session.expires);
    let secure = if tls { "; Secure" } else { "" };
    format!("{COOKIE}={}; Expires={expires}; HttpOnly{secure}", session.id)
}

/// The first session cookie.
fn cookie(headers: &HeaderMap) -> Option<String> {
    let lines = headers.get_all(COOKIE_HEADER).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, value)| value.to_owned())
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}

/// `name=value&…`, decoded. Of a name that comes twice the last value counts.
fn query(text: &str) -> Option<BTreeMap<String, String>> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decoded(name)?, decoded(value)?))
        })
        .collect()
}

/// Undoes percent-encoding and plus signs.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit =
                    |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                digit(rest.next()?)? << 4 | digit(rest.next()?)?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_go_where_method_and_path_say() {
        let of = Endpoint::of;
        let plugin = |name: &str, rest: &str| Endpoint::Plugin(name.into(), rest.into());
        assert_eq!(of(&Method::POST, "/kbs/v0/auth"), Endpoint::Auth);
        assert_eq!(of(&Method::POST, "/kbs/v0/attest"), Endpoint::Attest);
        assert_eq!(of(&Method::GET, "/kbs/v0/auth"), plugin("auth", ""));
        assert_eq!(of(&Method::POST, "/kbs/v0/auth/x"), plugin("auth", "x"));
        assert_eq!(of(&Method::GET, "/kbs/v0/resource/a/b/c"), plugin("resource", "a/b/c"));
        assert_eq!(of(&Method::GET, "/kbs/v0/attestation-policy"), plugin("attestation-policy", ""));
        assert_eq!(of(&Method::GET, "/kbs/v0/reference-value/a/b"), Endpoint::ReferenceValue("a/b".into()));
        assert_eq!(of(&Method::DELETE, "/kbs/v0/resource-policy"), plugin("resource-policy", ""));
        assert_eq!(of(&Method::GET, "/kbs/v0/"), Endpoint::Nameless("/kbs/v0/".into()));
        assert_eq!(of(&Method::GET, "/kbs/v0"), Endpoint::Nameless("/kbs/v0".into()));
        assert_eq!(of(&Method::GET, "/kbs/v0x/auth"), Endpoint::Outside);
        assert_eq!(of(&Method::GET, "/healthz"), Endpoint::Health);
    }

    #[test]
    fn cookies_bearers_and_queries_are_found() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE_HEADER, "a=b; kbs-session-id=one".parse().unwrap());
        headers.append(COOKIE_HEADER, "kbs-session-id=two".parse().unwrap());
        headers.insert(AUTHORIZATION, "bEARER  x.y.z ".parse().unwrap());
        assert_eq!((cookie(&headers).as_deref(), bearer(&headers).as_deref()), (Some("one"), Some("x.y.z")));
        headers.insert(AUTHORIZATION, "Basic x".parse().unwrap());
        assert_eq!(bearer(&headers), None);
        let found = query("a=1&b=%41+c&&d").unwrap();
        let pairs: Vec<(&str, &str)> =
            found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("a", "1"), ("b", "A c"), ("d", "")]);
        assert!(query("a=%4").is_none() && query("a=%zz").is_none() && query("a=%ff").is_none());
    }

    #[test]
    fn the_log_shows_no_session_and_no_token() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE_HEADER, "kbs-session-id=geheim".parse().unwrap());
        headers.insert(AUTHORIZATION, "Bearer geheim".parse().unwrap());
        let uri: Uri = "/kbs/v0/resource/a/b/c?x=geheim".parse().unwrap();
        let head = Head::new(&Method::GET, &uri, &headers);
        assert_eq!(head.shown(), "GET resource/a/b/c");
    }
}
