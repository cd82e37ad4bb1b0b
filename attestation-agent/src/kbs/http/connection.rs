//! Opening a connection: addresses, TCP, TLS, HTTP.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hyper::client::conn::http1;
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;

use super::{Sender, broken};
use crate::kbs::error::{Cause, TransportFault};
use crate::kbs::trust::{BrokerTrust, handshake_fault};
use crate::kbs::url::{Host, KbsUrl};

/// Most bytes of a status line and headers.
const HEADERS_MAX: usize = 64 << 10;
/// Most addresses of a name that are tried.
const ADDRESSES_MAX: usize = 8;

/// Opens a connection; the caller bounds the time.
pub(super) async fn open(url: &KbsUrl, trust: Option<&BrokerTrust>) -> Result<Sender, TransportFault> {
    let to = url.authority();
    let tcp = connect(url).await.map_err(|error| failed(&to, error))?;
    tcp.set_nodelay(true).map_err(|error| failed(&to, error))?;
    let Some(trust) = trust.filter(|_| url.is_tls()) else { return start(tcp).await };
    let name = server_name(url.host()).map_err(|error| failed(&to, error))?;
    let tls = TlsConnector::from(trust.config())
        .connect(name, tcp)
        .await
        .map_err(|error| handshake_fault(error, to))?;
    start(tls).await
}

fn failed(to: &str, error: io::Error) -> TransportFault {
    TransportFault::Connect { to: to.to_owned(), source: Cause::new(error) }
}

async fn connect(url: &KbsUrl) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses(url).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// `localhost` is not looked up: whoever answers for names must not choose where plain http goes.
async fn addresses(url: &KbsUrl) -> io::Result<Vec<SocketAddr>> {
    let port = url.port();
    match url.host() {
        Host::Address(address) => Ok(vec![SocketAddr::new(*address, port)]),
        Host::Name(_) if url.is_loopback() => {
            let both = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
            Ok(both.map(|address| SocketAddr::new(address, port)).to_vec())
        }
        Host::Name(name) => Ok(lookup_host((name.as_str(), port)).await?.take(ADDRESSES_MAX).collect()),
    }
}

fn server_name(host: &Host) -> io::Result<ServerName<'static>> {
    match host {
        Host::Address(address) => Ok(ServerName::from(*address)),
        Host::Name(name) => ServerName::try_from(name.clone()).map_err(io::Error::other),
    }
}

async fn start<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static>(
    stream: S,
) -> Result<Sender, TransportFault>
where
    TokioIo<S>: Read + Write,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(HEADERS_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    // It ends with its sender, or with the connection; its errors reach whoever waits for an answer.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}
