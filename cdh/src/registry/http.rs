//! Requests and answers: time, rate and size of each are bounded.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::Method;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use tokio::time::{Instant, timeout_at};

use super::connection::{Outgoing, Reach};
use super::error::{RegistryError, shown};
use super::fetching::{Fetcher, Pieces};
use super::proxy::Proxies;
use super::trust::RegistryTrust;
use super::url::Url;
use super::wire::{Kept, Response, Wire};
use crate::worker::Workers;

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

impl Patience {
    /// What it means that no answer came in time.
    pub(super) fn no_answer(&self, from: String) -> RegistryError {
        RegistryError::Stalled { from, expected: 1, seconds: self.answer.as_secs(), found: 0 }
    }
}

/// A request. Without a body it may be sent again over a new connection.
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) reach: Reach,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Option<Outgoing>,
}

/// What all requests of one registry client share.
#[derive(Debug)]
pub(super) struct Transport {
    way: Way,
    proxies: Proxies,
    has_roots: bool,
    patience: Patience,
}

/// Who speaks to registries.
#[derive(Debug)]
enum Way {
    /// This process.
    Here(Wire),
    /// One that has nothing else.
    Apart(Fetcher),
}

/// The head of an answer, and its body as it comes.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    /// Who answered, for messages.
    pub(super) from: String,
    body: Body,
    patience: Patience,
    waited: Duration,
    in_window: u64,
}

/// A body. To be waited for as long as one likes, and again.
enum Body {
    Here(Incoming, Option<Kept>),
    Apart(Pieces),
}

impl Transport {
    pub(super) fn new(
        trust: Option<RegistryTrust>,
        proxies: Proxies,
        patience: Patience,
        workers: Option<Arc<dyn Workers>>,
    ) -> Self {
        let has_roots = trust.is_some();
        let mut way = Way::Here(Wire::new(trust.clone(), patience));
        // GUARD: registry-apart -> evil_registry_takes_over_the_process_that_fetches
        if let Some(workers) = workers {
            way = Way::Apart(Fetcher::new(workers, trust, patience));
        }
        Self { way, proxies, has_roots, patience }
    }

    /// Sends a request and waits for the head of the answer.
    pub(super) async fn send(&self, ask: Ask, deadline: Instant) -> Result<Answer, RegistryError> {
        // GUARD: registry-deadline -> nothing_is_sent_after_the_deadline
        if deadline <= Instant::now() {
            return Err(RegistryError::Deadline { doing: "a request was due" });
        }
        if ask.url.origin.is_tls() && !self.has_roots {
            let (what, expected) = ("root certificates", "at least one for https");
            return Err(RegistryError::Config { what, expected, found: "none".to_owned() });
        }
        let from = ask.url.origin.to_string();
        let proxy = self.proxies.of(&ask.url.origin);
        let (status, headers, body) = match &self.way {
            Way::Here(wire) => {
                let Response { status, headers, body, kept } = wire.send(ask, proxy, deadline).await?;
                (status, headers, Body::Here(body, Some(kept)))
            }
            Way::Apart(fetcher) => {
                let (head, pieces) = fetcher.send(ask, proxy, deadline).await?;
                (head.status, head.headers, Body::Apart(pieces))
            }
        };
        let encoded = headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity");
        // GUARD: registry-encoding -> evil_registry_encodes_its_answer
        if encoded {
            let found = "a Content-Encoding".to_owned();
            return Err(RegistryError::Answer { from, expected: "bytes as they are", found });
        }
        let (patience, waited) = (self.patience, Duration::ZERO);
        Ok(Answer { status, headers, from, body, patience, waited, in_window: 0 })
    }
}

impl Body {
    /// The next bytes; none at the end.
    async fn next(&mut self, from: &str) -> Result<Option<Bytes>, RegistryError> {
        match self {
            Self::Here(body, kept) => loop {
                match body.frame().await.transpose().map_err(|error| RegistryError::broken(from, error))? {
                    Some(frame) => {
                        if let Ok(data) = frame.into_data() {
                            return Ok(Some(data));
                        }
                    }
                    None => {
                        if let Some(kept) = kept.take() {
                            kept.give_back();
                        }
                        return Ok(None);
                    }
                }
            },
            Self::Apart(pieces) => pieces.next(from).await,
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
            let piece = timeout_at(end, self.body.next(&self.from)).await;
            // Only waiting counts: whoever reads slowly is not the registry's fault.
            self.waited += start.elapsed();
            // GUARD: registry-body-deadline -> evil_slow_registry_meets_the_deadline
            if Instant::now() >= deadline {
                return Err(RegistryError::Deadline { doing: "a body was read" });
            }
            if self.waited >= self.patience.window {
                // GUARD: registry-stall -> evil_stalled_registry_is_left
                if self.in_window < self.patience.window_bytes && !matches!(piece, Ok(Ok(None))) {
                    let seconds = self.patience.window.as_secs();
                    let (expected, found) = (self.patience.window_bytes, self.in_window);
                    return Err(RegistryError::Stalled { from: self.from.clone(), expected, seconds, found });
                }
                self.waited = Duration::ZERO;
                self.in_window = 0;
            }
            if let Ok(piece) = piece {
                let piece = piece?;
                let length = piece.as_ref().map_or(0, Bytes::len);
                self.in_window += u64::try_from(length).unwrap_or(u64::MAX);
                return Ok(piece);
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
}
