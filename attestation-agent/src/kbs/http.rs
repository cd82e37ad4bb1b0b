//! The way to the broker: HTTP/1.1, one connection kept alive; calls at the same time open more and close them.
//!
//! No redirect is followed, no proxy and no variable of the environment is looked at. A body is read only up to its
//! cap. A connection is used again only after its whole answer was read.

mod connection;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST, HeaderValue, SET_COOKIE, USER_AGENT};
use hyper::{Request, Response};
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use super::error::{Cause, ConfigFault, TransportFault};
use super::rcar::{Answer, Method, Outgoing};
use super::trust::BrokerTrust;
use super::url::KbsUrl;

const AGENT: &str = concat!("innerkeep-attestation-agent/", env!("CARGO_PKG_VERSION"));
/// Most session cookies that are looked at.
const COOKIES_MAX: usize = 8;

/// Plain http to another machine, which anybody on the way can read and answer. Loud, insecure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlainHttp {
    /// `--insecure-plain-http`: accepted.
    Insecure,
    /// Only to loopback addresses.
    LoopbackOnly,
}

/// One broker.
#[derive(Debug)]
pub(super) struct Broker {
    url: KbsUrl,
    trust: Option<BrokerTrust>,
    idle: Mutex<Option<Sender>>,
}

type Sender = SendRequest<Full<Bytes>>;

/// An answer that was read completely.
pub(super) struct Received {
    status: u16,
    set_cookie: Vec<Zeroizing<String>>,
    body: Zeroizing<Vec<u8>>,
}

impl Received {
    pub(super) fn answer(&self) -> Answer<'_> {
        Answer { status: self.status, set_cookie: &self.set_cookie, body: &self.body }
    }
}

/// How long and how much.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) body_max: usize,
    pub(super) deadline: Instant,
    pub(super) attempt: Duration,
}

impl Broker {
    /// Refuses what could only be reached insecurely.
    pub(super) fn new(
        url: KbsUrl,
        trust: Option<BrokerTrust>,
        plain: PlainHttp,
    ) -> Result<Self, ConfigFault> {
        // GUARD: kbs-plain-http -> evil_configuration_uses_plain_http
        if !url.is_tls() && !url.is_loopback() && plain == PlainHttp::LoopbackOnly {
            return Err(ConfigFault::PlainHttp);
        }
        // GUARD: kbs-https-trust -> https_needs_trust
        if url.is_tls() && trust.is_none() {
            return Err(ConfigFault::TrustMissing);
        }
        Ok(Self { url, trust, idle: Mutex::new(None) })
    }

    /// Sends a request and reads the whole answer, inside the deadline and the time of one attempt.
    pub(super) async fn exchange(
        &self,
        request: &Outgoing,
        limits: Limits,
    ) -> Result<Received, TransportFault> {
        let now = Instant::now();
        // GUARD: kbs-deadline-before -> nothing_is_sent_after_the_deadline
        if limits.deadline <= now {
            return Err(TransportFault::Deadline { last: None });
        }
        let end = limits.deadline.min(now + limits.attempt);
        match timeout_at(end, self.once_or_again(request, limits.body_max)).await {
            Ok(result) => result,
            Err(_) if end == limits.deadline => Err(TransportFault::Deadline { last: None }),
            Err(_) => Err(TransportFault::Late { limit: limits.attempt }),
        }
    }

    /// A connection that was idle may have been closed by the broker: then once more over a new one.
    async fn once_or_again(&self, request: &Outgoing, body_max: usize) -> Result<Received, TransportFault> {
        if let Some(sender) = self.take_idle() {
            match self.over(sender, request, body_max).await {
                Err(TransportFault::Http { .. }) => {}
                other => return other,
            }
        }
        let sender = connection::open(&self.url, self.trust.as_ref()).await?;
        self.over(sender, request, body_max).await
    }

    fn take_idle(&self) -> Option<Sender> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).take().filter(|sender| !sender.is_closed())
    }

    fn keep_idle(&self, sender: Sender) {
        *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
    }

    async fn over(
        &self,
        mut sender: Sender,
        request: &Outgoing,
        body_max: usize,
    ) -> Result<Received, TransportFault> {
        sender.ready().await.map_err(broken)?;
        let response = sender.send_request(self.encode(request)?).await.map_err(broken)?;
        let received = read(response, body_max).await?;
        self.keep_idle(sender);
        Ok(received)
    }

    fn encode(&self, request: &Outgoing) -> Result<Request<Full<Bytes>>, TransportFault> {
        let path = format!("{}{}", self.url.prefix(), request.path());
        let method = match request.method() {
            Method::Get => hyper::Method::GET,
            Method::Post => hyper::Method::POST,
        };
        let mut builder = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.url.authority())
            .header(USER_AGENT, AGENT);
        if request.method() == Method::Post {
            builder = builder.header(CONTENT_TYPE, "application/json");
        }
        for (name, value) in [(COOKIE, request.cookie()), (AUTHORIZATION, request.authorization())] {
            if let Some(value) = value {
                let mut value = HeaderValue::from_str(value).map_err(broken)?;
                value.set_sensitive(true);
                builder = builder.header(name, value);
            }
        }
        builder.body(Full::new(Bytes::copy_from_slice(request.body()))).map_err(broken)
    }
}

/// Reads an answer up to its cap; a redirect or an outage is an error of its own.
async fn read(response: Response<Incoming>, body_max: usize) -> Result<Received, TransportFault> {
    let status = response.status().as_u16();
    // GUARD: kbs-redirect -> evil_broker_redirects
    if (300..400).contains(&status) {
        return Err(TransportFault::Redirect { status });
    }
    if status >= 500 || status == 429 {
        return Err(TransportFault::Unavailable { status });
    }
    let announced = response.headers().get(hyper::header::CONTENT_LENGTH);
    let announced =
        announced.and_then(|value| value.to_str().ok()).and_then(|value| value.parse::<u64>().ok());
    // GUARD: kbs-body-announced -> evil_broker_announces_a_huge_body
    if announced.is_some_and(|length| usize::try_from(length).map_or(true, |length| length > body_max)) {
        return Err(TransportFault::BodySize { max: body_max });
    }
    let set_cookie = response
        .headers()
        .get_all(SET_COOKIE)
        .iter()
        .take(COOKIES_MAX)
        .filter_map(|value| value.to_str().ok())
        .map(|value| Zeroizing::new(value.to_owned()))
        .collect();
    let mut incoming = response.into_body();
    let room = announced.and_then(|length| usize::try_from(length).ok()).unwrap_or_default().min(body_max);
    let mut body = Zeroizing::new(Vec::with_capacity(room));
    while let Some(frame) = incoming.frame().await {
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        // GUARD: kbs-body-size -> evil_broker_sends_an_endless_body
        if data.len() > body_max - body.len() {
            return Err(TransportFault::BodySize { max: body_max });
        }
        body.extend_from_slice(&data);
    }
    Ok(Received { status, set_cookie, body })
}

fn broken(error: impl std::error::Error + Send + Sync + 'static) -> TransportFault {
    TransportFault::Http { source: Cause::new(error) }
}
