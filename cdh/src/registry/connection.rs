//! Opening a connection: addresses, proxy, TLS, HTTP.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{HOST, HeaderValue, PROXY_AUTHORIZATION};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;

use super::error::RegistryError;
use super::proxy::Proxy;
use super::trust::{RegistryTrust, handshake_error};
use super::url::{Origin, is_reachable_for_strangers};

/// Most bytes of a status line and headers, and of one piece of a body.
const BUFFER_MAX: usize = 128 << 10;
/// Most addresses of a name that are tried.
const ADDRESSES_MAX: usize = 8;

/// A body that is sent.
pub(super) type Outgoing = BoxBody<Bytes, io::Error>;
pub(super) type Sender = SendRequest<Outgoing>;

/// Where a connection may lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reach {
    /// Anywhere: the configuration or the reference names the host.
    Any,
    /// Not to this machine or its links: a registry's answer names the host.
    Strangers,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Opens a connection; the caller bounds the time.
pub(super) async fn open(
    origin: &Origin,
    reach: Reach,
    proxy: Option<&Proxy>,
    trust: Option<&RegistryTrust>,
) -> Result<Sender, RegistryError> {
    let to = origin.to_string();
    let failed = |source| RegistryError::Connect { to: to.clone(), source };
    if let Some(address) = origin.address() {
        require_reachable(origin, reach, address)?;
    }
    let plain: Box<dyn Stream> = match proxy {
        None => Box::new(connect(origin, reach).await?),
        Some(proxy) => {
            let stream = connect(&proxy.origin, Reach::Any).await?;
            if origin.is_tls() { tunnel(stream, proxy, origin).await? } else { Box::new(stream) }
        }
    };
    if !origin.is_tls() {
        return start(plain, &to).await;
    }
    let trust = trust.ok_or(RegistryError::Config {
        what: "root certificates",
        expected: "at least one for https",
        found: "none".to_owned(),
    })?;
    let name = match origin.address() {
        Some(address) => ServerName::from(address),
        None => {
            let name = ServerName::try_from(origin.host().to_owned());
            name.map_err(|error| failed(io::Error::other(error)))?
        }
    };
    let tls = TlsConnector::from(trust.config()).connect(name, plain).await;
    start(tls.map_err(|error| handshake_error(to.clone(), error))?, &to).await
}

async fn connect(origin: &Origin, reach: Reach) -> Result<TcpStream, RegistryError> {
    let failed = |source| RegistryError::Connect { to: origin.to_string(), source };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses(origin).await.map_err(failed)? {
        // Judged here and not by name: names can be made to mean this machine.
        require_reachable(origin, reach, address.ip())?;
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(failed)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}

fn require_reachable(origin: &Origin, reach: Reach, address: IpAddr) -> Result<(), RegistryError> {
    // GUARD: registry-stranger-address -> evil_redirect_to_loopback_is_refused
    if reach == Reach::Strangers && !is_reachable_for_strangers(address) {
        return Err(RegistryError::Address { host: origin.to_string(), address });
    }
    Ok(())
}

/// `localhost` is not looked up: whoever answers for names must not choose where plain http goes.
async fn addresses(origin: &Origin) -> io::Result<Vec<SocketAddr>> {
    let port = origin.port();
    match origin.address() {
        Some(address) => Ok(vec![SocketAddr::new(address, port)]),
        None if origin.is_loopback() => {
            let both = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
            Ok(both.map(|address| SocketAddr::new(address, port)).to_vec())
        }
        None => Ok(lookup_host((origin.host(), port)).await?.take(ADDRESSES_MAX).collect()),
    }
}

/// Asks a proxy for a way to an origin.
async fn tunnel(stream: TcpStream, proxy: &Proxy, origin: &Origin) -> Result<Box<dyn Stream>, RegistryError> {
    let to = proxy.origin.to_string();
    let broken = |error: hyper::Error| RegistryError::broken(&to, error);
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(BUFFER_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    tokio::spawn(async move { drop(connection.with_upgrades().await) });
    let target = format!("{}:{}", origin.host(), origin.port());
    let mut request = hyper::Request::connect(&target).header(HOST, &target);
    if let Some(authorization) = &proxy.authorization {
        request = request.header(PROXY_AUTHORIZATION, sensitive(authorization, &to)?);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| RegistryError::broken(&to, error))?;
    let response = sender.send_request(request).await.map_err(broken)?;
    let status = response.status().as_u16();
    if status != 200 {
        return Err(match status {
            403 | 407 => RegistryError::Denied { from: format!("proxy {to}"), what: target, status },
            429 | 500.. => RegistryError::Unavailable { from: format!("proxy {to}"), status },
            _ => RegistryError::Status { from: format!("proxy {to}"), what: target, status },
        });
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(broken)?;
    Ok(Box::new(TokioIo::new(upgraded)))
}

/// A header value that hyper's logs leave out.
pub(super) fn sensitive(value: &str, to: &str) -> Result<HeaderValue, RegistryError> {
    let mut header = HeaderValue::from_str(value).map_err(|error| RegistryError::broken(to, error))?;
    header.set_sensitive(true);
    Ok(header)
}

pub(super) fn empty() -> Outgoing {
    Empty::new().map_err(|never| match never {}).boxed()
}

async fn start(stream: impl Stream + 'static, to: &str) -> Result<Sender, RegistryError> {
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(BUFFER_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| RegistryError::broken(to, error))?;
    // It ends with its sender and its answer, or with the connection; its errors reach whoever waits for an answer.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}
