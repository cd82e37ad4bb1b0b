//! From the bytes of a connection to one request: all of HTTP that is parsed, and nothing that decides. It runs wherever its caller wants
//! it to, in a process without rights for example: what it says of a request is the peer's word, and who the peer is it is not asked.

use std::convert::Infallible;
use std::future::pending;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::{Body, Bytes};
use hyper::header::{HOST, ORIGIN};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

/// Length of a head at which no more of it is read; what is read at a time is at most as much again.
pub(super) const MAXIMUM_HEAD_BYTES: usize = 40 * 1024;
pub(super) const MAXIMUM_FIELDS: usize = 64;
/// Longest body.
const MAXIMUM_BODY_BYTES: usize = 64 * 1024;
/// How long a head may take.
pub const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// How long a body may take.
pub const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// One request, as its peer wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// Its method.
    pub method: String,
    /// Whether the target is more than a path and a query.
    pub names_a_host: bool,
    /// The path, not decoded.
    pub path: String,
    /// The query, not decoded.
    pub query: Option<String>,
    /// Every `Host`; one that is no text is none.
    pub hosts: Vec<Option<String>>,
    /// Whether there is an `Origin`.
    pub has_origin: bool,
    /// The body of a POST; none if it is too long, too slow, not whole, or no text.
    pub body: Option<String>,
}

/// Reads requests somewhere else.
#[async_trait]
pub trait Reader: Send + Sync {
    /// The first request of a connection, of which this is a descriptor; none if there is none. It answers what is no HTTP itself.
    async fn read(&self, connection: OwnedFd) -> Option<Asked>;
}

/// Reads the first request of a connection, and nothing behind it. What is no HTTP is answered as such; to a request nobody has answered yet.
pub async fn read_one<S>(stream: S, head: Duration) -> Option<Asked>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let (tell, told) = oneshot::channel();
    let tell = Mutex::new(Some(tell));
    let service = service_fn(|request| {
        let tell = tell.lock().unwrap_or_else(PoisonError::into_inner).take();
        async move {
            let asked = asked(request).await;
            if let Some(tell) = tell {
                // Nobody listens any more when the connection is over.
                let _ = tell.send(asked);
            }
            pending::<Result<Response<Empty<Bytes>>, Infallible>>().await
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).keep_alive(false).max_headers(MAXIMUM_FIELDS);
    http.max_buf_size(MAXIMUM_HEAD_BYTES).header_read_timeout(head);
    let connection = http.serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        biased;
        asked = told => asked.ok(),
        // The peer is gone, or spoke something else.
        _ = connection => None,
    }
}

async fn asked<B>(request: Request<B>) -> Asked
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (head, body) = request.into_parts();
    let body = if head.method == Method::POST { whole(body).await } else { Some(String::new()) };
    Asked {
        method: head.method.as_str().to_owned(),
        names_a_host: head.uri.scheme().is_some() || head.uri.authority().is_some(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().map(str::to_owned),
        hosts: head.headers.get_all(HOST).iter().map(|host| Some(host.to_str().ok()?.to_owned())).collect(),
        has_origin: head.headers.contains_key(ORIGIN),
        body,
    }
}

async fn whole<B>(body: B) -> Option<String>
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let read = Limited::new(body, MAXIMUM_BODY_BYTES).collect();
    let read = tokio::time::timeout(BODY_DEADLINE, read).await.ok()?;
    String::from_utf8(read.ok()?.to_bytes().into()).ok()
}
