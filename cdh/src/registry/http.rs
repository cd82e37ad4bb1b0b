//! Requests and answers: time, rate and size of each are bounded.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHORIZATION,
    USER_AGENT,
};
use hyper::{Method, Request};
use tokio::time::{Instant, timeout_at};

use super::connection::{self, Outgoing, Reach, Sender, empty, sensitive};
use super::error::{RegistryError, shown};
use super::proxy::Proxies;
use super::trust::RegistryTrust;
use super::url::{Origin, Url};

const AGENT: &str = concat!("innerkeep/", env!("CARGO_PKG_VERSION"));
/// Idle connections that are kept for one origin, and origins.
const IDLE_MAX: usize = 8;
const IDLE_ORIGINS_MAX: usize = 32;

/// How long a registry may take. A caller's deadline ends all of it.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For address, connection, proxy and TLS.
    pub connect: Duration,
    /// From a request to the head of its answer.
    pub answer: Duration,
    /// Over which time the rate of a body is looked at.
    pub window: Duration,
    /// Bytes that have to come in each window.
    pub window_bytes: u64,
}

impl Default for Patience {
    /// 15 s for a connection, 60 s for an answer, 64 KiB in each 20 s.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            answer: Duration::from_secs(60),
            window: Duration::from_secs(20),
            window_bytes: 64 << 10,
        }
    }
}

/// What all requests of one registry client share.
#[derive(Debug)]
pub(super) struct Transport {
    trust: Option<RegistryTrust>,
    proxies: Proxies,
    pub(super) patience: Patience,
    idle: Arc<Idle>,
}

type Key = (Origin, Reach);

#[derive(Debug, Default)]
struct Idle {
    senders: Mutex<HashMap<Key, Vec<Sender>>>,
}

/// A request. Without a body it may be sent again over a new connection.
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) reach: Reach,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Option<Outgoing>,
}

/// The head of an answer, and its body as it comes.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    /// Who answered, for messages.
    pub(super) from: String,
    body: Incoming,
    kept: Option<(Key, Sender, Arc<Idle>)>,
    patience: Patience,
    waited: Duration,
    in_window: u64,
}

impl Transport {
    pub(super) fn new(trust: Option<RegistryTrust>, proxies: Proxies, patience: Patience) -> Self {
        Self { trust, proxies, patience, idle: Arc::default() }
    }

    /// Sends a request and waits for the head of the answer.
    pub(super) async fn send(&self, mut ask: Ask, deadline: Instant) -> Result<Answer, RegistryError> {
        // GUARD: registry-deadline -> nothing_is_sent_after_the_deadline
        if deadline <= Instant::now() {
            return Err(RegistryError::Deadline { doing: "a request was due" });
        }
        let body = ask.body.take();
        let again = body.is_none();
        let key = (ask.url.origin.clone(), ask.reach);
        if again && let Some(sender) = self.idle.take(&key) {
            match self.over(sender, &ask, empty(), deadline).await {
                // An idle connection may have been closed by the registry: then once more over a new one.
                Err(RegistryError::Http { .. }) => {}
                other => return other,
            }
        }
        let end = deadline.min(Instant::now() + self.patience.connect);
        let proxy = self.proxies.of(&ask.url.origin);
        let opened = connection::open(&ask.url.origin, ask.reach, proxy, self.trust.as_ref());
        let sender = match timeout_at(end, opened).await {
            Ok(opened) => opened?,
            Err(_) if end == deadline => {
                return Err(RegistryError::Deadline { doing: "a connection was opened" });
            }
            Err(_) => {
                let source = std::io::Error::from(std::io::ErrorKind::TimedOut);
                return Err(RegistryError::Connect { to: ask.url.origin.to_string(), source });
            }
        };
        self.over(sender, &ask, body.unwrap_or_else(empty), deadline).await
    }

    async fn over(
        &self,
        mut sender: Sender,
        ask: &Ask,
        body: Outgoing,
        deadline: Instant,
    ) -> Result<Answer, RegistryError> {
        let from = ask.url.origin.to_string();
        let request = self.encode(ask, body)?;
        // Sending a body takes as long as it takes: the caller's deadline bounds it.
        let sends = request.headers().contains_key(CONTENT_LENGTH);
        let end = if sends { deadline } else { deadline.min(Instant::now() + self.patience.answer) };
        let exchange = async {
            sender.ready().await?;
            sender.send_request(request).await
        };
        let response = match timeout_at(end, exchange).await {
            Ok(response) => response.map_err(|error| RegistryError::broken(&from, error))?,
            Err(_) if end == deadline => {
                return Err(RegistryError::Deadline { doing: "an answer was awaited" });
            }
            Err(_) => {
                let (expected, seconds) = (1, self.patience.answer.as_secs());
                return Err(RegistryError::Stalled { from, expected, seconds, found: 0 });
            }
        };
        let (head, body) = response.into_parts();
        let kept = Some(((ask.url.origin.clone(), ask.reach), sender, Arc::clone(&self.idle)));
        let encoded = head.headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity");
        // GUARD: registry-encoding -> evil_registry_encodes_its_answer
        if encoded {
            let found = "a Content-Encoding".to_owned();
            return Err(RegistryError::Answer { from, expected: "bytes as they are", found });
        }
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            from,
            body,
            kept,
            patience: self.patience,
            waited: Duration::ZERO,
            in_window: 0,
        })
    }

    fn encode(&self, ask: &Ask, body: Outgoing) -> Result<Request<Outgoing>, RegistryError> {
        let Url { origin, path } = &ask.url;
        let to = origin.to_string();
        let mut request = Request::builder()
            .method(ask.method.clone())
            .header(HOST, origin.authority())
            .header(USER_AGENT, AGENT);
        // A proxy for plain http wants the whole URL; one for https never sees a request.
        match self.proxies.of(origin).filter(|_| !origin.is_tls()) {
            Some(proxy) => {
                request = request.uri(format!("{origin}{path}"));
                if let Some(authorization) = &proxy.authorization {
                    request = request.header(PROXY_AUTHORIZATION, sensitive(authorization, &to)?);
                }
            }
            None => request = request.uri(path),
        }
        for (name, value) in &ask.headers {
            request = request.header(name, value);
        }
        request.body(body).map_err(|error| RegistryError::broken(&to, error))
    }
}

impl Idle {
    fn take(&self, key: &Key) -> Option<Sender> {
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        let of_key = senders.get_mut(key)?;
        std::iter::from_fn(|| of_key.pop()).find(|sender| !sender.is_closed())
    }

    fn keep(&self, key: Key, sender: Sender) {
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        senders.retain(|_, of_key| {
            of_key.retain(|sender| !sender.is_closed());
            !of_key.is_empty()
        });
        if senders.len() < IDLE_ORIGINS_MAX || senders.contains_key(&key) {
            let of_key = senders.entry(key).or_default();
            if of_key.len() < IDLE_MAX {
                of_key.push(sender);
            }
        }
    }
}

impl Answer {
    /// A header's text, if it is there once and text.
    pub(super) fn header(&self, name: impl hyper::header::AsHeaderName) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let first = values.next()?.to_str().ok()?;
        values.next().is_none().then_some(first)
    }

    /// Length of the body, if it is announced.
    pub(super) fn length(&self) -> Option<u64> {
        self.header(CONTENT_LENGTH)?.parse().ok()
    }

    /// The next piece of the body; none at its end. After an error nothing follows.
    pub(super) async fn piece(&mut self, deadline: Instant) -> Result<Option<Bytes>, RegistryError> {
        loop {
            let start = Instant::now();
            let end = deadline.min(start + self.patience.window.saturating_sub(self.waited));
            let frame = timeout_at(end, self.body.frame()).await;
            // Only waiting counts: whoever reads slowly is not the registry's fault.
            self.waited += start.elapsed();
            // GUARD: registry-body-deadline -> evil_slow_registry_meets_the_deadline
            if Instant::now() >= deadline {
                return Err(RegistryError::Deadline { doing: "a body was read" });
            }
            if self.waited >= self.patience.window {
                // GUARD: registry-stall -> evil_stalled_registry_is_left
                if self.in_window < self.patience.window_bytes && !matches!(frame, Ok(None)) {
                    let seconds = self.patience.window.as_secs();
                    let (expected, found) = (self.patience.window_bytes, self.in_window);
                    return Err(RegistryError::Stalled { from: self.from.clone(), expected, seconds, found });
                }
                self.waited = Duration::ZERO;
                self.in_window = 0;
            }
            match frame {
                Err(_) => {}
                Ok(None) => {
                    self.give_back();
                    return Ok(None);
                }
                Ok(Some(frame)) => {
                    let frame = frame.map_err(|error| RegistryError::broken(&self.from, error))?;
                    if let Ok(data) = frame.into_data() {
                        self.in_window += u64::try_from(data.len()).unwrap_or(u64::MAX);
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// The whole body, of at most `maximum` bytes.
    pub(super) async fn whole(
        mut self,
        what: &'static str,
        maximum: u64,
        deadline: Instant,
    ) -> Result<Vec<u8>, RegistryError> {
        let too_large = |found| RegistryError::TooLarge { what, maximum, found };
        let announced = self.length();
        // GUARD: registry-body-announced -> evil_registry_announces_a_huge_manifest
        if announced.is_some_and(|length| length > maximum) {
            return Err(too_large(announced.unwrap_or(u64::MAX)));
        }
        let mut bytes = Vec::new();
        while let Some(piece) = self.piece(deadline).await? {
            let room = maximum - u64::try_from(bytes.len()).unwrap_or(maximum);
            // GUARD: registry-body-cap -> evil_registry_sends_an_endless_manifest
            if u64::try_from(piece.len()).unwrap_or(u64::MAX) > room {
                return Err(too_large(maximum + 1));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    /// Reads what little is left, so that the connection can be used again; or closes it.
    pub(super) async fn drain(mut self, deadline: Instant) {
        let mut left = 64 << 10_u32;
        let deadline = deadline.min(Instant::now() + Duration::from_secs(2));
        while let Ok(Some(piece)) = self.piece(deadline).await {
            let length = u32::try_from(piece.len()).unwrap_or(u32::MAX);
            if length > left {
                return;
            }
            left -= length;
        }
    }

    pub(super) fn refused(&self, expected: &'static str, found: &str) -> RegistryError {
        RegistryError::Answer { from: self.from.clone(), expected, found: shown(found) }
    }

    fn give_back(&mut self) {
        if let Some((key, sender, idle)) = self.kept.take() {
            idle.keep(key, sender);
        }
    }
}
