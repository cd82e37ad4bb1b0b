//! Requests over connections of this process: opened, kept, used again. What is read here is a registry's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, HOST, HeaderMap, PROXY_AUTHORIZATION, USER_AGENT};
use tokio::time::{Instant, timeout_at};

use super::connection::{self, Outgoing, Reach, Sender, empty, sensitive};
use super::error::RegistryError;
use super::http::{Ask, Patience};
use super::proxy::Proxy;
use super::trust::RegistryTrust;
use super::url::{Origin, Url};

const AGENT: &str = concat!("innerkeep/", env!("CARGO_PKG_VERSION"));
/// Idle connections that are kept for one origin, and origins.
const IDLE_MAX: usize = 8;
const IDLE_ORIGINS_MAX: usize = 32;

/// The connections of one client.
#[derive(Debug)]
pub(super) struct Wire {
    trust: Option<RegistryTrust>,
    patience: Patience,
    idle: Arc<Idle>,
}

type Key = (Origin, Reach);

#[derive(Debug, Default)]
struct Idle {
    senders: Mutex<HashMap<Key, Vec<Sender>>>,
}

/// The head of an answer, and a body that is still to come.
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Incoming,
    pub(super) kept: Kept,
}

/// A connection that can be used again when the body was read to its end.
pub(super) struct Kept {
    key: Key,
    sender: Sender,
    idle: Arc<Idle>,
}

impl Wire {
    pub(super) fn new(trust: Option<RegistryTrust>, patience: Patience) -> Self {
        Self { trust, patience, idle: Arc::default() }
    }

    /// Sends a request, by this proxy, and waits for the head of the answer.
    pub(super) async fn send(
        &self,
        mut ask: Ask,
        proxy: Option<&Proxy>,
        deadline: Instant,
    ) -> Result<Response, RegistryError> {
        let body = ask.body.take();
        let again = body.is_none();
        let key = (ask.url.origin.clone(), ask.reach);
        if again && let Some(sender) = self.idle.take(&key) {
            match self.over(sender, &ask, proxy, empty(), deadline).await {
                // An idle connection may have been closed by the registry: then once more over a new one.
                Err(RegistryError::Http { .. }) => {}
                other => return other,
            }
        }
        let end = deadline.min(Instant::now() + self.patience.connect);
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
        self.over(sender, &ask, proxy, body.unwrap_or_else(empty), deadline).await
    }

    async fn over(
        &self,
        mut sender: Sender,
        ask: &Ask,
        proxy: Option<&Proxy>,
        body: Outgoing,
        deadline: Instant,
    ) -> Result<Response, RegistryError> {
        let from = ask.url.origin.to_string();
        let request = encode(ask, proxy, body)?;
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
            Err(_) => return Err(self.patience.no_answer(from)),
        };
        let (head, body) = response.into_parts();
        let key = (ask.url.origin.clone(), ask.reach);
        let kept = Kept { key, sender, idle: Arc::clone(&self.idle) };
        Ok(Response { status: head.status.as_u16(), headers: head.headers, body, kept })
    }
}

fn encode(ask: &Ask, proxy: Option<&Proxy>, body: Outgoing) -> Result<Request<Outgoing>, RegistryError> {
    let Url { origin, path } = &ask.url;
    let to = origin.to_string();
    let mut request = Request::builder()
        .method(ask.method.clone())
        .header(HOST, origin.authority())
        .header(USER_AGENT, AGENT);
    // A proxy for plain http wants the whole URL; one for https never sees a request.
    match proxy.filter(|_| !origin.is_tls()) {
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

impl Kept {
    pub(super) fn give_back(self) {
        let Self { key, sender, idle } = self;
        idle.keep(key, sender);
    }
}
