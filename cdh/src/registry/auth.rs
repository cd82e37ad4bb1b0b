//! Answering a registry's challenge: where credentials may go, and what they are worth there.
//!
//! Nothing is sent before a registry asked. A password goes to the registry itself, or to its token service: the same host, a
//! parent domain of it (`gitlab.com` for `registry.gitlab.com`), or `auth.docker.io` for `docker.io`; never over plain http, but to
//! this machine. A token is asked for with the scope that this client needs, not with the one that the registry names, so that
//! a registry cannot collect tokens for others.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper::Method;
use hyper::header::{AUTHORIZATION, HeaderValue};
use serde::Deserialize;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::challenge::Challenge;
use super::connection::{Reach, sensitive};
use super::credentials::{Login, Wiped};
use super::error::{RegistryError, shown};
use super::http::{Ask, Transport};
use super::url::{Origin, Url, is_reachable_for_strangers};

const ANSWER_MAX: u64 = 256 << 10;
const TOKEN_MAX: usize = 32 << 10;
/// Lifetime of a token that names none (distribution specification).
const LIFETIME: Duration = Duration::from_secs(60);
/// Taken off a token's lifetime, for the way.
const MARGIN: Duration = Duration::from_secs(5);
const KNOWN_MAX: usize = 256;

/// What registries accepted so far.
#[derive(Default)]
pub(super) struct Authorizations {
    known: Mutex<HashMap<(Origin, String), Known>>,
    schemes: Mutex<HashMap<Origin, &'static str>>,
}

struct Known {
    value: Zeroizing<String>,
    until: Option<Instant>,
}

impl std::fmt::Debug for Authorizations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authorizations(..)")
    }
}

/// A registry's answer to the request for a token.
#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<Wiped>,
    access_token: Option<Wiped>,
    expires_in: Option<u64>,
}

/// Who asks, for what, with what.
pub(super) struct Claim<'a> {
    pub(super) registry: &'a Origin,
    /// For example `repository:acme/x:pull`.
    pub(super) scopes: &'a [String],
    pub(super) login: Option<&'a Login>,
}

impl Claim<'_> {
    fn key(&self) -> (Origin, String) {
        (self.registry.clone(), self.scopes.join(" "))
    }
}

impl Authorizations {
    /// The header for a request, if the registry asked for one before.
    pub(super) fn header(&self, claim: &Claim<'_>) -> Result<Option<HeaderValue>, RegistryError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let valid =
            known.get(&claim.key()).filter(|known| known.until.is_none_or(|until| Instant::now() < until));
        valid.map(|known| sensitive(&known.value, claim.registry.host())).transpose()
    }

    /// Meets a challenge.
    pub(super) async fn answer(
        &self,
        transport: &Transport,
        challenge: Option<Challenge>,
        claim: &Claim<'_>,
        deadline: Instant,
    ) -> Result<(), RegistryError> {
        let from = claim.registry.to_string();
        let challenge = challenge.ok_or_else(|| RegistryError::Challenge {
            from: from.clone(),
            found: "none that can be understood".to_owned(),
        })?;
        self.require_scheme(claim.registry, &challenge)?;
        let known = match &challenge {
            Challenge::Basic => {
                let login = claim.login.ok_or_else(|| RegistryError::Denied {
                    from,
                    what: "what needs a login".to_owned(),
                    status: 401,
                })?;
                require_confidential(claim.registry, claim.registry)?;
                Known { value: login.basic(), until: None }
            }
            Challenge::Bearer { realm, service, .. } => {
                token(transport, realm, service.as_deref(), claim, deadline).await?
            }
        };
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= KNOWN_MAX {
            all.clear();
        }
        all.insert(claim.key(), known);
        Ok(())
    }

    /// A registry that wanted tokens does not get passwords.
    fn require_scheme(&self, registry: &Origin, challenge: &Challenge) -> Result<(), RegistryError> {
        let mut schemes = self.schemes.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *schemes.entry(registry.clone()).or_insert_with(|| challenge.scheme());
        // GUARD: registry-auth-downgrade -> evil_registry_downgrades_authentication
        if before == "Bearer" && challenge.scheme() != before {
            let (from, found) = (registry.to_string(), challenge.scheme());
            return Err(RegistryError::Downgrade { from, before, found });
        }
        schemes.insert(registry.clone(), challenge.scheme());
        Ok(())
    }
}

async fn token(
    transport: &Transport,
    realm: &str,
    service: Option<&str>,
    claim: &Claim<'_>,
    deadline: Instant,
) -> Result<Known, RegistryError> {
    let registry = claim.registry;
    let refused = |expected| RegistryError::Credentials {
        registry: registry.to_string(),
        to: Url::parse(realm, None).map_or_else(|| shown(realm), |url| url.to_string()),
        expected,
    };
    let mut url = Url::parse(realm, None).ok_or_else(|| refused("an absolute URL of a token service"))?;
    let own = url.origin.host() == registry.host();
    // GUARD: registry-realm-scheme -> evil_realm_is_refused
    if !url.origin.is_tls() && (registry.is_tls() || !own) {
        return Err(refused("a token service with https, or the registry's own host"));
    }
    if let Some(service) = service {
        url = url.with_query("service", service);
    }
    for scope in claim.scopes {
        url = url.with_query("scope", scope);
    }
    let mut headers = Vec::new();
    if let Some(login) = claim.login {
        // GUARD: registry-realm-host -> evil_realm_is_refused
        if !is_token_service_of(url.origin.host(), registry.host()) {
            return Err(refused("the registry's own host or a parent domain of it"));
        }
        require_confidential(registry, &url.origin)?;
        headers.push((AUTHORIZATION, sensitive(&login.basic(), registry.host())?));
    }
    let reach = if own { Reach::Any } else { reach_of_strangers(registry) };
    let what = || "a token".to_owned();
    let answer =
        transport.send(Ask { method: Method::GET, url, reach, headers, body: None }, deadline).await?;
    let (status, from) = (answer.status, answer.from.clone());
    match status {
        200 => {}
        400..=404 => return Err(RegistryError::Denied { from, what: what(), status }),
        429 | 500.. => return Err(RegistryError::Unavailable { from, status }),
        // Redirects too: a password was on the way.
        _ => return Err(RegistryError::Status { from, what: what(), status }),
    }
    let body = Zeroizing::new(answer.whole("answer of the token service", ANSWER_MAX, deadline).await?);
    let malformed = |found: &str| RegistryError::Answer {
        from: from.clone(),
        expected: "JSON with a token of up to 32 KiB",
        found: found.to_owned(),
    };
    let parsed: TokenAnswer = serde_json::from_slice(&body).map_err(|_| malformed("something else"))?;
    let Wiped(token) = parsed.token.or(parsed.access_token).ok_or_else(|| malformed("no token"))?;
    let plain = token.len() <= TOKEN_MAX && token.bytes().all(|byte| byte.is_ascii_graphic());
    // GUARD: registry-token-form -> evil_token_service
    if token.is_empty() || !plain {
        return Err(malformed("a token of another form"));
    }
    let lifetime = parsed.expires_in.map_or(LIFETIME, |seconds| Duration::from_secs(seconds.min(86_400)));
    Ok(Known {
        value: Zeroizing::new(format!("Bearer {}", *token)),
        until: Some(Instant::now() + lifetime.saturating_sub(MARGIN).max(Duration::from_secs(1))),
    })
}

/// Passwords travel encrypted, or stay on this machine.
fn require_confidential(registry: &Origin, to: &Origin) -> Result<(), RegistryError> {
    // GUARD: registry-plain-password -> evil_plain_http_gets_no_credentials
    if !to.is_tls() && !to.is_loopback() {
        return Err(RegistryError::Credentials {
            registry: registry.to_string(),
            to: to.to_string(),
            expected: "https, or this machine",
        });
    }
    Ok(())
}

/// Whether a host may see the passwords of a registry.
fn is_token_service_of(service: &str, registry: &str) -> bool {
    let is_parent = || {
        let below = registry.strip_suffix(service).is_some_and(|rest| rest.ends_with('.'));
        below && service.contains('.') && !service.starts_with(|first: char| first.is_ascii_digit())
    };
    service == registry || (registry == "registry-1.docker.io" && service == "auth.docker.io") || is_parent()
}

/// Where a registry's word may lead: to this machine or its links only if the registry itself is there.
pub(super) fn reach_of_strangers(registry: &Origin) -> Reach {
    let is_there = registry.is_loopback()
        || registry.address().is_some_and(|address| !is_reachable_for_strangers(address));
    if is_there { Reach::Any } else { Reach::Strangers }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evil_realm_gets_no_credentials() {
        for (service, registry) in [
            ("r.example", "r.example"),
            ("gitlab.com", "registry.gitlab.com"),
            ("auth.docker.io", "registry-1.docker.io"),
            ("127.0.0.1", "127.0.0.1"),
        ] {
            assert!(is_token_service_of(service, registry), "{service} {registry}");
        }
        for (service, registry) in [
            ("evil.example", "r.example"),
            ("example", "r.example"),
            ("x.r.example", "r.example"),
            ("com", "registry.gitlab.com"),
            ("auth.docker.io", "r.example"),
            ("ample.com", "r.example.com"),
            ("0.0.1", "127.0.0.1"),
            ("", "r.example"),
        ] {
            assert!(!is_token_service_of(service, registry), "{service} {registry}");
        }
    }

    #[test]
    fn evil_plain_http_gets_no_credentials() {
        let origin = |authority, tls| Origin::parse(authority, tls).unwrap();
        let registry = origin("r.example", true);
        let error = require_confidential(&registry, &origin("r.example", false)).unwrap_err();
        assert_eq!(error.code(), "REGISTRY_CREDENTIALS");
        assert!(require_confidential(&registry, &origin("r.example", true)).is_ok());
        assert!(require_confidential(&registry, &origin("localhost", false)).is_ok());
    }

    #[test]
    fn where_a_registry_may_lead() {
        let reach = |authority| reach_of_strangers(&Origin::parse(authority, true).unwrap());
        assert_eq!(reach("r.example"), Reach::Strangers);
        assert_eq!(reach("10.0.0.1"), Reach::Strangers);
        assert_eq!(reach("169.254.1.1"), Reach::Any);
        assert_eq!(reach("localhost:5000"), Reach::Any);
    }
}
