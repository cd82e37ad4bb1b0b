//! From one request to one answer.
//!
//! ```text
//!  peer: loopback ─▶ Host, Origin ─▶ which container ─▶ path ─▶ method ─▶ listed ─▶ feature ─▶ query, body ─▶ still that container ─▶ rule ─▶ back end
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use attestation_agent::report_data::Claim;
use serde::Serialize;
use tokio::time::Instant;

use crate::config::lists;
use crate::rest::backend::{Event, Measured};
use crate::rest::peers::ContainerId;
use crate::rest::query::Query;
use crate::rest::reply::{Body, JSON, OCTETS, Reply};
use crate::rest::{Asked, DEADLINE, Front, RestError, Route, Way};

/// Domains of events that this guest logs about itself, and everything below them.
const OWN_DOMAINS: [&str; 2] = ["github.com/confidential-containers", "innerkeep"];

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

impl Front {
    /// The answer to a request that came by `way`; `container`: who was at its other end when it was accepted.
    pub(super) async fn answer(&self, asked: &Asked, way: &Way, container: Option<&ContainerId>) -> Reply {
        let served = tokio::time::timeout(DEADLINE, self.served(asked, way, container)).await;
        let served = served.unwrap_or(Err(RestError::Deadline));
        served.unwrap_or_else(|error| Reply::refusal(&error))
    }

    async fn served(
        &self,
        asked: &Asked,
        way: &Way,
        container: Option<&ContainerId>,
    ) -> Result<Reply, RestError> {
        // GUARD: rest-loopback -> evil_peer_outside_of_the_guest
        way.require_loopback()?;
        // GUARD: rest-host -> evil_site_rebinds_its_name
        require_host(&asked.hosts, way)?;
        // GUARD: rest-origin -> evil_site_asks_by_a_browser
        if asked.has_origin {
            return Err(RestError::Origin);
        }
        let container = container.ok_or(RestError::PeerUnknown)?;
        // GUARD: rest-target -> evil_container_names_another_host
        if asked.names_a_host {
            return Err(RestError::Path);
        }
        let route = Route::parse(&asked.path)?;
        // GUARD: rest-method -> evil_container_confuses_methods
        route.require_method(&asked.method)?;
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
        let query = Query::parse(asked.query.as_deref())?;
        let queue = self.queues.of(container.identity());
        let _turn = queue.turn().await.map_err(|_| RestError::Busy)?;
        let event = if route == Route::Event { Some(event(asked.body.as_deref())?) } else { None };
        // GUARD: rest-peer-again -> evil_container_connection_changes_hands
        if self.who(way).await.as_ref() != Some(container) {
            return Err(RestError::PeerUnknown);
        }
        // GUARD: rest-rule -> evil_container_that_the_rule_refuses
        self.rule.permit(container, &route)?;
        self.ask(route, &query, event, container).await
    }

    /// What the route is for: everything is decided.
    async fn ask(
        &self,
        route: Route,
        query: &Query,
        event: Option<Event>,
        container: &ContainerId,
    ) -> Result<Reply, RestError> {
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
                Ok(Reply::given(Body::Bytes(evidence), OCTETS))
            }
            Route::AdditionalEvidence => {
                let evidence = self.back_end.additional_evidence(claim(query.runtime_data()?)).await?;
                Ok(Reply::given(Body::Bytes(evidence), OCTETS))
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
                Ok(Reply::given(Body::Held(secret), OCTETS))
            }
        }
    }
}

/// The event in a body.
fn event(body: Option<&str>) -> Result<Event, RestError> {
    let bad = |expected| RestError::Body { expected };
    let body = body.ok_or(bad("a text of at most 65536 bytes, whole, within 10 seconds"))?;
    serde_json::from_str(body)
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
fn require_host(hosts: &[Option<String>], way: &Way) -> Result<(), RestError> {
    let [Some(host)] = hosts else { return Err(RestError::Host) };
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host.as_str(), None),
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

fn json(value: &impl Serialize) -> Result<Reply, RestError> {
    let text = serde_json::to_vec(value).map_err(|_| crate::hub_error::HubError::Interrupted)?;
    Ok(Reply::given(Body::Bytes(text), JSON))
}
