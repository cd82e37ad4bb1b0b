//! What is written on the socket of a request. Numbers are big-endian.
//!
//! ```text
//!  client: u32 length, request as JSON
//!  child:  u32 length, answer as JSON: a head, or a fault
//!          after a head: pieces of the body, each u32 length (not 0) and so many bytes; then u32 0, or u32 0xffffffff, u32 length and a fault
//! ```

use std::io;
use std::net::IpAddr;

use hyper::Method;
use hyper::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    LOCATION, WWW_AUTHENTICATE,
};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use zeroize::Zeroizing;

use crate::registry::connection::{Reach, sensitive};
use crate::registry::credentials::Wiped;
use crate::registry::error::RegistryError;
use crate::registry::http::Ask;
use crate::registry::proxy::Proxy;
use crate::registry::url::{Origin, Url};

/// Longest request: a URL, a token, a user and a password.
const REQUEST_MAX: u32 = 256 << 10;
/// Longest answer: what fits into a connection's buffer, escaped.
const ANSWER_MAX: u32 = 1 << 20;
/// Longest piece: what fits into a connection's buffer.
const PIECE_MAX: u32 = 1 << 20;
/// In the place of a piece's length: a fault follows.
const FAULT: u32 = u32::MAX;
/// Bytes of a length.
pub(super) const LENGTH: usize = 4;
/// Most headers of an answer.
const HEADERS_MAX: usize = 64;
/// Longest text of a fault.
const TEXT_MAX: usize = 256;

/// What is passed on of an answer's headers: all that anybody looks at.
const HEADERS: [HeaderName; 7] = [
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    HeaderName::from_static("docker-content-digest"),
    LOCATION,
    WWW_AUTHENTICATE,
];

/// A request without a body.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    /// `HEAD` instead of `GET`.
    head: bool,
    origin: Address,
    path: String,
    /// Not to this machine or its links.
    strangers: bool,
    headers: Vec<(String, Wiped)>,
    proxy: Option<Way>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Address {
    tls: bool,
    authority: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Way {
    origin: Address,
    authorization: Option<Wiped>,
}

/// What came of a request.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) enum Answer {
    Head(Told),
    Fault(Fault),
}

/// The head of an answer: headers by their number in [`HEADERS`], a character for each byte.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Told {
    status: u16,
    headers: Vec<(usize, String)>,
}

/// The head of an answer.
#[derive(Debug)]
pub(in crate::registry) struct Head {
    pub(in crate::registry) status: u16,
    pub(in crate::registry) headers: HeaderMap,
}

/// Why there is no answer, or not all of it. Whose fault it was is known to whoever asked, but for a proxy.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) enum Fault {
    Address { host: String, address: IpAddr },
    Broken { text: String },
    Connect { text: String },
    Denied { from: String, what: String, status: u16 },
    NoAnswer,
    Status { from: String, what: String, status: u16 },
    Tls { text: String },
    Unavailable { from: String, status: u16 },
}

impl Address {
    fn of(origin: &Origin) -> Self {
        Self { tls: origin.is_tls(), authority: format!("{}:{}", origin.host(), origin.port()) }
    }

    fn origin(&self) -> Option<Origin> {
        Origin::parse(&self.authority, self.tls)
    }
}

impl Request {
    /// None for one that has a body, or another method than those that fetch.
    pub(super) fn of(ask: &Ask, proxy: Option<&Proxy>) -> Option<Self> {
        let fetches = matches!(ask.method, Method::GET | Method::HEAD) && ask.body.is_none();
        let header = |(name, value): &(HeaderName, HeaderValue)| {
            Some((name.as_str().to_owned(), Wiped(Zeroizing::new(value.to_str().ok()?.to_owned()))))
        };
        let authorization = |proxy: &Proxy| proxy.authorization.clone().map(Wiped);
        fetches.then_some(())?;
        Some(Self {
            head: ask.method == Method::HEAD,
            origin: Address::of(&ask.url.origin),
            path: ask.url.path.clone(),
            strangers: ask.reach == Reach::Strangers,
            headers: ask.headers.iter().map(header).collect::<Option<_>>()?,
            proxy: proxy
                .map(|proxy| Way { origin: Address::of(&proxy.origin), authorization: authorization(proxy) }),
        })
    }

    /// As it is sent. None where it is no request.
    pub(super) fn ask(self) -> Option<(Ask, Option<Proxy>)> {
        let header = |(name, Wiped(value)): (String, Wiped)| {
            Some((HeaderName::from_bytes(name.as_bytes()).ok()?, sensitive(&value, "").ok()?))
        };
        let proxy = |way: Way| {
            let authorization = way.authorization.map(|Wiped(text)| text);
            Some(Proxy { origin: way.origin.origin()?, authorization })
        };
        let ask = Ask {
            method: if self.head { Method::HEAD } else { Method::GET },
            url: Url::new(self.origin.origin()?, self.path),
            reach: if self.strangers { Reach::Strangers } else { Reach::Any },
            headers: self.headers.into_iter().map(header).collect::<Option<_>>()?,
            body: None,
        };
        let proxy = match self.proxy {
            Some(way) => Some(proxy(way)?),
            None => None,
        };
        Some((ask, proxy))
    }

    pub(super) async fn write(&self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        // Large enough from the beginning: what a buffer that grows leaves behind is not wiped.
        let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(REQUEST_MAX).unwrap_or_default()));
        serde_json::to_writer(&mut *bytes, self)?;
        write(&bytes, REQUEST_MAX, to).await
    }

    pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let bytes = Zeroizing::new(read(REQUEST_MAX, from).await?);
        Ok(serde_json::from_slice(&bytes)?)
    }
}

impl Answer {
    pub(super) fn head(status: u16, headers: &HeaderMap) -> Self {
        let mut told = Vec::new();
        for (number, name) in HEADERS.iter().enumerate() {
            let values = headers.get_all(name).iter();
            told.extend(
                values.map(|value| (number, value.as_bytes().iter().copied().map(char::from).collect())),
            );
        }
        told.truncate(HEADERS_MAX);
        Self::Head(Told { status, headers: told })
    }

    pub(super) async fn write(&self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        write(&serde_json::to_vec(self)?, ANSWER_MAX, to).await
    }

    pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        Ok(serde_json::from_slice(&read(ANSWER_MAX, from).await?)?)
    }
}

impl Told {
    /// As it is read. None where it is no head.
    pub(super) fn head(self) -> Option<Head> {
        // GUARD: fetcher-headers -> evil_fetcher_answers_something_else
        if self.headers.len() > HEADERS_MAX || !(200..1000).contains(&self.status) {
            return None;
        }
        let mut headers = HeaderMap::new();
        for (number, text) in self.headers {
            let bytes: Option<Vec<u8>> = text.chars().map(|char| u8::try_from(char).ok()).collect();
            headers.append(HEADERS.get(number)?, HeaderValue::from_bytes(&bytes?).ok()?);
        }
        Some(Head { status: self.status, headers })
    }
}

impl Fault {
    /// Of an error of the child. Deadlines are the client's, configuration it has judged already.
    pub(super) fn of(error: RegistryError) -> Self {
        let text = |error: &dyn std::error::Error| plain(&error.to_string());
        match error {
            RegistryError::Address { host, address } => Self::Address { host: plain(&host), address },
            RegistryError::Connect { source, .. } => Self::Connect { text: text(&source) },
            RegistryError::Denied { from, what, status } => {
                Self::Denied { from: plain(&from), what: plain(&what), status }
            }
            RegistryError::Http { source, .. } => Self::Broken { text: text(&*source) },
            RegistryError::Stalled { .. } => Self::NoAnswer,
            RegistryError::Status { from, what, status } => {
                Self::Status { from: plain(&from), what: plain(&what), status }
            }
            RegistryError::Tls { source, .. } => Self::Tls { text: text(&source) },
            RegistryError::Unavailable { from, status } => Self::Unavailable { from: plain(&from), status },
            other => Self::Broken { text: text(&other) },
        }
    }

    /// What it means to whoever asked there.
    pub(super) fn error(self, to: &str, patience: &crate::registry::Patience) -> RegistryError {
        let to = to.to_owned();
        let said = |text: String| io::Error::other(plain(&text));
        match self {
            Self::Address { host, address } => RegistryError::Address { host: plain(&host), address },
            Self::Broken { text } => RegistryError::broken(&to, said(text)),
            Self::Connect { text } => RegistryError::Connect { to, source: said(text) },
            Self::Denied { from, what, status } => {
                RegistryError::Denied { from: plain(&from), what: plain(&what), status }
            }
            Self::NoAnswer => patience.no_answer(to),
            Self::Status { from, what, status } => {
                RegistryError::Status { from: plain(&from), what: plain(&what), status }
            }
            Self::Tls { text } => RegistryError::Tls { to, source: said(text) },
            Self::Unavailable { from, status } => RegistryError::Unavailable { from: plain(&from), status },
        }
    }

    pub(super) async fn write(&self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        to.write_u32(FAULT).await?;
        write(&serde_json::to_vec(self)?, ANSWER_MAX, to).await
    }
}

/// What is at the beginning of what was read of a body.
pub(super) enum Begun {
    /// The end.
    End,
    /// A piece of so many bytes behind its length.
    Piece(usize),
    /// Why there is no more.
    Fault(Fault),
    /// Nothing that can be.
    Nothing,
    /// Not enough to know.
    More,
}

/// Looks at the beginning of what was read of a body, where no piece is being read.
pub(super) fn begun(bytes: &[u8]) -> Begun {
    match length(bytes) {
        None => Begun::More,
        Some((0, _)) => Begun::End,
        Some((FAULT, rest)) => fault(rest),
        Some((length, _)) => {
            // GUARD: fetcher-piece -> evil_fetcher_answers_something_else
            if length > PIECE_MAX {
                return Begun::Nothing;
            }
            usize::try_from(length).map_or(Begun::Nothing, Begun::Piece)
        }
    }
}

fn fault(bytes: &[u8]) -> Begun {
    let Some((length, rest)) = length(bytes) else { return Begun::More };
    // GUARD: fetcher-fault -> evil_fetcher_answers_something_else
    if length > ANSWER_MAX {
        return Begun::Nothing;
    }
    let text = usize::try_from(length).ok().and_then(|length| rest.get(..length));
    text.map_or(Begun::More, |text| serde_json::from_slice(text).map_or(Begun::Nothing, Begun::Fault))
}

fn length(bytes: &[u8]) -> Option<(u32, &[u8])> {
    bytes.split_first_chunk().map(|(length, rest)| (u32::from_be_bytes(*length), rest))
}

/// A text of somebody else's: without control characters, cut.
fn plain(text: &str) -> String {
    text.chars().filter(|char| !char.is_control()).take(TEXT_MAX).collect()
}

async fn write(bytes: &[u8], most: u32, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).ok().filter(|length| *length <= most);
    to.write_u32(length.ok_or(io::ErrorKind::InvalidData)?).await?;
    to.write_all(bytes).await
}

async fn read(most: u32, from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = from.read_u32().await?;
    // GUARD: fetcher-frame -> evil_fetcher_answers_something_else
    if length > most {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    from.read_exact(&mut bytes).await?;
    Ok(bytes)
}
