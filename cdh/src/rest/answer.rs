//! From one request to one answer.
//!
//! ```text
//!  peer: loopback ─▶ Host, Origin ─▶ which container ─▶ path ─▶ method ─▶ listed ─▶ feature ─▶ query, body ─▶ still that container ─▶ back end
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use attestation_agent::report_data::Claim;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body, Bytes};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue, ORIGIN};
use hyper::{HeaderMap, Request, Response, StatusCode};
use serde::Serialize;
use tokio::time::Instant;

use crate::config::lists;
use crate::plaintext::Plaintext;
use crate::rest::backend::{Event, Measured};
use crate::rest::peers::ContainerId;
use crate::rest::query::Query;
use crate::rest::{BODY_DEADLINE, DEADLINE, Front, RestError, Route, Way};

/// Longest body.
const MAXIMUM_BODY_BYTES: usize = 64 * 1024;
const OCTETS: &str = "application/octet-stream";
const JSON: &str = "application/json";
/// Domains of events that this guest logs about itself, and everything below them.
const OWN_DOMAINS: [&str; 2] = ["github.com/confidential-containers", "innerkeep"];

/// Body and its type.
type Answer = (Bytes, &'static str);

#[derive(Serialize)]
struct Info {
    version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tee: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    additional_tees: Vec<String>,
    feature: &'static str,
}

#[derive(Serialize)]
struct Logged {
    success: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
}

#[derive(Serialize)]
struct Refused<'a> {
    error: &'a str,
    message: String,
}

/// A secret that is sent from where it lies.
struct Held(Arc<Plaintext>);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        self.0.expose()
    }
}

impl Front {
    /// The answer to a request that came by `way`; `container`: who was at its other end when it was accepted.
    pub(super) async fn answer<B>(
        &self,
        request: Request<B>,
        way: &Way,
        container: Option<&ContainerId>,
    ) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let served = tokio::time::timeout(DEADLINE, self.served(request, way, container)).await;
        match served.unwrap_or(Err(RestError::Deadline)) {
            Ok((body, kind)) => response(StatusCode::OK, body, kind),
            Err(error) => refusal(&error),
        }
    }

    async fn served<B>(
        &self,
        request: Request<B>,
        way: &Way,
        container: Option<&ContainerId>,
    ) -> Result<Answer, RestError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        // GUARD: rest-loopback -> evil_peer_outside_of_the_guest
        way.require_loopback()?;
        // GUARD: rest-host -> evil_site_rebinds_its_name
        require_host(&head.headers, way)?;
        // GUARD: rest-origin -> evil_site_asks_by_a_browser
        if head.headers.contains_key(ORIGIN) {
            return Err(RestError::Origin);
        }
        let container = container.ok_or(RestError::PeerUnknown)?;
        // GUARD: rest-target -> evil_container_names_another_host
        if head.uri.scheme().is_some() || head.uri.authority().is_some() {
            return Err(RestError::Path);
        }
        let route = Route::parse(head.uri.path())?;
        // GUARD: rest-method -> evil_container_confuses_methods
        route.require_method(head.method.as_str())?;
        // GUARD: rest-token -> evil_container_asks_for_the_key
        if route == Route::Token {
            return Err(RestError::TokenKey);
        }
        // GUARD: rest-listed -> evil_container_asks_for_the_secret_of_another
        if !lists(&self.allow, container.name(), &route) {
            return Err(RestError::NotListed);
        }
        // GUARD: rest-feature -> a_feature_that_is_off_is_off_although_it_is_listed
        self.features.require(&route)?;
        let query = Query::parse(head.uri.query())?;
        let queue = self.queues.of(container.identity());
        let _turn = queue.turn().await.map_err(|_| RestError::Busy)?;
        let event = if route == Route::Event { Some(event(body).await?) } else { None };
        // GUARD: rest-peer-again -> evil_container_connection_changes_hands
        if self.who(way).await.as_ref() != Some(container) {
            return Err(RestError::PeerUnknown);
        }
        self.ask(route, &query, event, container).await
    }

    /// What the route is for: everything is decided.
    async fn ask(
        &self,
        route: Route,
        query: &Query,
        event: Option<Event>,
        container: &ContainerId,
    ) -> Result<Answer, RestError> {
        let claim = |runtime_data| Claim::Workload { identity: container.identity(), runtime_data };
        if !matches!(route, Route::Evidence | Route::AdditionalEvidence) && !query.is_empty() {
            return Err(RestError::Query { expected: "none for this route" });
        }
        match route {
            Route::Info => {
                let attests = self.features.attests();
                json(&Info {
                    version: env!("CARGO_PKG_VERSION"),
                    tee: attests.then(|| self.back_end.tee()),
                    additional_tees: if attests { self.back_end.additional_tees() } else { Vec::new() },
                    feature: self.features.name(),
                })
            }
            Route::Token => Err(RestError::TokenKey),
            Route::Evidence => {
                let evidence = self.back_end.evidence(claim(query.runtime_data()?)).await?;
                Ok((evidence.into(), OCTETS))
            }
            Route::AdditionalEvidence => {
                let evidence = self.back_end.additional_evidence(claim(query.runtime_data()?)).await?;
                Ok((evidence.into(), OCTETS))
            }
            Route::Event => {
                let event = event.ok_or(RestError::Body { expected: "an event" })?;
                // GUARD: rest-event-domain -> evil_container_logs_in_the_name_of_the_guest
                if OWN_DOMAINS.into_iter().any(|own| is_below(&event.domain, own)) {
                    return Err(RestError::EventDomain);
                }
                let (success, message) = match self.back_end.measure(event).await? {
                    Measured::Done => ("true", None),
                    Measured::NotEnabled => ("false", Some("runtime measurement is not enabled")),
                    Measured::NotSupported => {
                        ("false", Some("runtime measurement is not supported by this platform"))
                    }
                };
                json(&Logged { success, message })
            }
            Route::Resource([repository, kind, tag]) => {
                let uri = format!("kbs:///{repository}/{kind}/{tag}");
                let secret = self.back_end.resource(&uri, Instant::now() + DEADLINE).await?;
                Ok((Bytes::from_owner(Held(secret)), OCTETS))
            }
        }
    }
}

/// The event in a body, read once and up to its cap.
async fn event<B>(body: B) -> Result<Event, RestError>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let bad = |expected| RestError::Body { expected };
    let read = tokio::time::timeout(BODY_DEADLINE, Limited::new(body, MAXIMUM_BODY_BYTES).collect()).await;
    let read = read.map_err(|_| bad("one within 10 seconds"))?;
    let body = read.map_err(|_| bad("at most 65536 bytes, whole"))?.to_bytes();
    serde_json::from_slice(&body)
        .map_err(|_| bad("JSON {\"domain\":TEXT,\"operation\":TEXT,\"content\":TEXT}, each once"))
}

fn is_below(domain: &str, own: &str) -> bool {
    let front = domain.get(..own.len());
    front.is_some_and(|front| front.eq_ignore_ascii_case(own))
        && !domain
            .get(own.len()..)
            .is_some_and(|rest| rest.starts_with(|next: char| next.is_ascii_alphanumeric()))
}

/// Exactly one Host, which is this guest's loopback: by the address that was connected to, or as `localhost`.
fn require_host(headers: &HeaderMap, way: &Way) -> Result<(), RestError> {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err(RestError::Host) };
    let host = host.to_str().map_err(|_| RestError::Host)?;
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    let (ip, expected) = way.local().map_or((None, None), |local| (Some(local.ip()), Some(local.port())));
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).map_or_else(
        || name.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        |name| name.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
    );
    let named = match (address, ip) {
        (None, _) => name.eq_ignore_ascii_case("localhost"),
        (Some(address), Some(ip)) => address.to_canonical() == ip.to_canonical(),
        (Some(address), None) => address.is_loopback(),
    };
    let on_port = match (port, expected) {
        (Some(port), Some(expected)) => port == expected.to_string(),
        (None, Some(expected)) => expected == 80,
        (_, None) => true,
    };
    if named && on_port { Ok(()) } else { Err(RestError::Host) }
}

fn json(value: &impl Serialize) -> Result<Answer, RestError> {
    let text = serde_json::to_vec(value).map_err(|_| crate::hub_error::HubError::Interrupted)?;
    Ok((text.into(), JSON))
}

fn refusal(error: &RestError) -> Response<Full<Bytes>> {
    let refused = Refused { error: error.code(), message: chain(error) };
    let body = serde_json::to_vec(&refused).unwrap_or_default();
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let mut response = response(status, body.into(), JSON);
    if let RestError::Method { allowed } = error {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    }
    response
}

fn response(status: StatusCode, body: Bytes, kind: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// An error and its causes on one line of at most 512 bytes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let text = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    let mut text: String = text.chars().map(|it| if it.is_control() { ' ' } else { it }).collect();
    text.truncate(text.floor_char_boundary(512));
    text
}
