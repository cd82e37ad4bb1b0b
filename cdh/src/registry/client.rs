//! One repository of one registry: requests with redirects and challenges (OCI distribution specification 1.1).

use hyper::Method;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue, LOCATION, WWW_AUTHENTICATE};
use tokio::time::Instant;

use super::auth::{Authorizations, Claim, reach_of_strangers};
use super::challenge::Challenge;
use super::connection::{Outgoing, Reach};
use super::credentials::Login;
use super::error::{RegistryError, shown};
use super::http::{Answer, Ask, Transport};
use super::reference::Reference;
use super::sources::Source;
use super::url::{Origin, Url};

const REDIRECTS_MAX: usize = 5;

/// A place that blobs and manifests come from or go to.
#[derive(Debug)]
pub(super) struct Repository<'a> {
    transport: &'a Transport,
    authorizations: &'a Authorizations,
    login: Option<&'a Login>,
    pub(super) origin: Origin,
    pub(super) reference: Reference,
    scopes: Vec<String>,
}

/// One request to the registry itself.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    /// Path and query.
    pub(super) path: String,
    pub(super) headers: &'a [(HeaderName, HeaderValue)],
    pub(super) body: Option<Outgoing>,
    /// What is asked for, for messages.
    pub(super) what: &'a str,
}

/// What is done with a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access<'a> {
    Pull,
    /// Push, and pull from these other repositories of the registry, to mount their blobs.
    Push(&'a [String]),
}

impl<'a> Repository<'a> {
    pub(super) fn new(
        transport: &'a Transport,
        authorizations: &'a Authorizations,
        login: Option<&'a Login>,
        source: &Source,
        access: Access<'_>,
    ) -> Result<Self, RegistryError> {
        let origin = Origin::of_registry(source.reference.registry(), !source.insecure)?;
        let repository = source.reference.repository();
        let scopes = match access {
            Access::Pull => vec![format!("repository:{repository}:pull")],
            Access::Push(others) => {
                let mut scopes = vec![format!("repository:{repository}:pull,push")];
                scopes.extend(others.iter().map(|other| format!("repository:{other}:pull")));
                scopes
            }
        };
        Ok(Self { transport, authorizations, login, origin, reference: source.reference.clone(), scopes })
    }

    /// `/v2/<repository>/<rest>`.
    pub(super) fn path(&self, rest: &str) -> String {
        format!("/v2/{}/{rest}", self.reference.repository())
    }

    /// Sends a request; answers of success come back, with their body to be read.
    pub(super) async fn call(&self, mut call: Call<'_>, deadline: Instant) -> Result<Answer, RegistryError> {
        let claim = Claim { registry: &self.origin, scopes: &self.scopes, login: self.login };
        let mut asked = false;
        let has_body = call.body.is_some();
        loop {
            let answer = self.follow(&mut call, &claim, deadline).await?;
            if answer.status != 401 {
                return judge(answer, call.what, deadline).await;
            }
            // GUARD: registry-challenge-once -> evil_registry_asks_for_ever
            if asked {
                let (from, what) = (answer.from.clone(), call.what.to_owned());
                return Err(RegistryError::Denied { from, what, status: 401 });
            }
            asked = true;
            let headers = answer.headers.get_all(WWW_AUTHENTICATE).iter().take(8);
            let found: Vec<Challenge> =
                headers.filter_map(|value| value.to_str().ok()).filter_map(Challenge::parse).collect();
            let bearer = found.iter().find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
            let challenge = bearer.or(found.first()).cloned();
            let from = answer.from.clone();
            answer.drain(deadline).await;
            self.authorizations.answer(self.transport, challenge, &claim, deadline).await?;
            // A body goes once: whoever has it sends it again, with what is known now.
            if has_body {
                return Err(RegistryError::Unavailable { from, status: 401 });
            }
        }
    }

    /// One request, and where its answer redirects to.
    async fn follow(
        &self,
        call: &mut Call<'_>,
        claim: &Claim<'_>,
        deadline: Instant,
    ) -> Result<Answer, RegistryError> {
        let mut url = Url::new(self.origin.clone(), call.path.clone());
        for _ in 0..=REDIRECTS_MAX {
            let own = url.origin == self.origin;
            let mut headers = call.headers.to_vec();
            // GUARD: registry-redirect-credentials -> evil_redirect_gets_no_credentials
            if own && let Some(value) = self.authorizations.header(claim)? {
                headers.push((AUTHORIZATION, value));
            }
            let reach = if own { Reach::Any } else { reach_of_strangers(&self.origin) };
            let (method, body) = (call.method.clone(), call.body.take());
            let answer =
                self.transport.send(Ask { method, url: url.clone(), reach, headers, body }, deadline).await?;
            let is_redirect = matches!(answer.status, 301 | 302 | 303 | 307 | 308);
            if !is_redirect || !matches!(call.method, Method::GET | Method::HEAD) {
                if answer.status == 401 && !own {
                    let (from, found) = (self.origin.to_string(), url.to_string());
                    let expected = "a place that asks for no credentials";
                    return Err(RegistryError::Redirect { from, expected, found });
                }
                return Ok(answer);
            }
            url = self.redirected(&url, answer.header(LOCATION))?;
            answer.drain(deadline).await;
        }
        let (from, found) = (self.origin.to_string(), url.to_string());
        Err(RegistryError::Redirect { from, expected: "at most 5 redirects", found })
    }

    pub(super) fn redirected(&self, from: &Url, location: Option<&str>) -> Result<Url, RegistryError> {
        let refused = |expected, found: &str| RegistryError::Redirect {
            from: from.to_string(),
            expected,
            found: shown(found.split('?').next().unwrap_or_default()),
        };
        let location = location.ok_or_else(|| refused("one Location", "none or several"))?;
        let to = Url::parse(location, Some(&from.origin))
            .ok_or_else(|| refused("an absolute URL or path", location))?;
        // GUARD: registry-redirect-plain -> evil_redirect_to_plain_http_is_refused
        if !to.origin.is_tls() && self.origin.is_tls() {
            return Err(refused("https", location));
        }
        Ok(to)
    }
}

/// What a status means.
async fn judge(answer: Answer, what: &str, deadline: Instant) -> Result<Answer, RegistryError> {
    let (status, from, what) = (answer.status, answer.from.clone(), what.to_owned());
    let error = match status {
        200..=299 => return Ok(answer),
        403 => RegistryError::Denied { from, what, status },
        404 => RegistryError::Missing { from, what },
        408 | 429 | 500.. => RegistryError::Unavailable { from, status },
        _ => RegistryError::Status { from, what, status },
    };
    answer.drain(deadline).await;
    Err(error)
}
