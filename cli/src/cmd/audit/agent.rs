//! The agent's `innerkeep.AuditService`, as the host lets one reach it.

use std::path::PathBuf;
use std::time::Duration;

use policy_engine::audit::Frame;
use protocol::innerkeep::{
    AuditAcknowledgeRequest, AuditHeadRequest, AuditHeadResponse, AuditReadRequest, AuditServiceClient,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use ttrpc::asynchronous::Client;
use ttrpc::asynchronous::transport::Socket;

use crate::error::Failure;

/// What is asked for at a time.
const PAGE_BYTES: u32 = 1 << 20;
/// Longest line that a hypervisor answers with.
const LINE_BYTES: usize = 64;

/// Where an agent is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Unix(PathBuf),
    /// A socket that is asked for a port by `CONNECT`.
    Hybrid {
        path: PathBuf,
        port: u32,
    },
    Vsock(String),
}

impl Address {
    /// An address; `None` for what has none of their schemes.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, Failure> {
        let Some((scheme, place)) = text.split_once("://") else { return Ok(None) };
        let address = match scheme {
            "unix" if place.starts_with('/') => Some(Self::Unix(place.into())),
            "hvsock" => place
                .rsplit_once(':')
                .filter(|(path, _)| path.starts_with('/'))
                .and_then(|(path, port)| Some(Self::Hybrid { path: path.into(), port: port.parse().ok()? })),
            "vsock" => place
                .split_once(':')
                .filter(|(cid, port)| cid.parse::<u32>().is_ok() && port.parse::<u32>().is_ok())
                .map(|_| Self::Vsock(text.to_owned())),
            _ => None,
        };
        let usage = || Failure::Usage {
            argument: "SOURCE",
            expected: "unix:///PATH, vsock://CID:PORT, hvsock:///PATH:PORT, or a file",
            found: text.to_owned(),
        };
        address.map(Some).ok_or_else(usage)
    }
}

/// A connection to the service.
pub(super) struct Connection {
    runtime: Runtime,
    client: AuditServiceClient,
    timeout: i64,
}

impl Connection {
    pub(super) fn open(address: &Address, seconds: u16) -> Result<Self, Failure> {
        let unreachable =
            |error: std::io::Error| Failure::Service { code: "AUDIT_UNREACHABLE", found: error.to_string() };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(unreachable)?;
        let limit = Duration::from_secs(u64::from(seconds));
        let client = runtime.block_on(async {
            let connected = tokio::time::timeout(limit, connect(address)).await;
            connected.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())).map_err(unreachable)
        })?;
        let timeout = i64::from(seconds).saturating_mul(1_000_000_000);
        Ok(Self { runtime, client: AuditServiceClient::new(client), timeout })
    }

    /// Genesis, head, and evidence if it is wanted.
    pub(super) fn head(&self, nonce: &[u8], evidence: bool) -> Result<AuditHeadResponse, Failure> {
        let request = AuditHeadRequest { nonce: nonce.to_vec(), evidence, ..Default::default() };
        let context = ttrpc::context::with_timeout(self.timeout);
        self.runtime.block_on(self.client.head(context, &request)).map_err(|error| refused(&error))
    }

    /// Records from a number on: their bytes, and what they are.
    pub(super) fn read(&self, from: u64) -> Result<(Vec<u8>, Vec<Frame>), Failure> {
        let request = AuditReadRequest { from, max_bytes: PAGE_BYTES, ..Default::default() };
        let context = ttrpc::context::with_timeout(self.timeout);
        let answer =
            self.runtime.block_on(self.client.read(context, &request)).map_err(|error| refused(&error))?;
        let frames = Frame::parse_all(&answer.frames)?;
        Ok((answer.frames, frames))
    }

    /// Gives up records before a number.
    pub(super) fn acknowledge(&self, to: u64) -> Result<(), Failure> {
        let request = AuditAcknowledgeRequest { to, ..Default::default() };
        let context = ttrpc::context::with_timeout(self.timeout);
        let answer = self.runtime.block_on(self.client.acknowledge(context, &request));
        answer.map(|_| ()).map_err(|error| refused(&error))
    }
}

async fn connect(address: &Address) -> std::io::Result<Client> {
    match address {
        Address::Unix(path) => Ok(Client::new(Socket::new(UnixStream::connect(path).await?))),
        Address::Vsock(text) => Ok(Client::new(Socket::connect(text).await?)),
        Address::Hybrid { path, port } => {
            let mut stream = UnixStream::connect(path).await?;
            stream.write_all(format!("CONNECT {port}\n").as_bytes()).await?;
            let mut line = Vec::new();
            while !line.ends_with(b"\n") {
                if line.len() == LINE_BYTES {
                    return Err(std::io::ErrorKind::InvalidData.into());
                }
                line.push(stream.read_u8().await?);
            }
            if !line.starts_with(b"OK ") {
                return Err(std::io::ErrorKind::ConnectionRefused.into());
            }
            Ok(Client::new(Socket::new(stream)))
        }
    }
}

/// What the agent, or nobody, answered.
fn refused(error: &ttrpc::Error) -> Failure {
    let ttrpc::Error::RpcStatus(status) = error else {
        return Failure::Service { code: "AUDIT_UNREACHABLE", found: error.to_string() };
    };
    let code = match status.code() {
        ttrpc::Code::PERMISSION_DENIED => "AUDIT_DENIED",
        ttrpc::Code::DEADLINE_EXCEEDED => "AUDIT_TIMEOUT",
        _ => "AUDIT_REFUSED",
    };
    Failure::Service { code, found: status.message().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_files() {
        let parse = |text| Address::parse(text).unwrap();
        assert_eq!(parse("audit.records"), None);
        assert_eq!(parse("unix:///run/a.sock"), Some(Address::Unix("/run/a.sock".into())));
        assert_eq!(parse("vsock://3:1024"), Some(Address::Vsock("vsock://3:1024".to_owned())));
        let hybrid = Address::Hybrid { path: "/run/a:b.sock".into(), port: 1024 };
        assert_eq!(parse("hvsock:///run/a:b.sock:1024"), Some(hybrid));
        for text in ["unix://a", "hvsock:///a", "hvsock://a:1", "hvsock:///a:x", "vsock://3", "tcp://a:1"] {
            assert_eq!(Address::parse(text).unwrap_err().code(), "USAGE", "{text}");
        }
    }
}
