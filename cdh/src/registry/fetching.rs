//! Registries are spoken to by a process of its own: addresses, TLS and HTTP of strangers are read where there are no keys.
//!
//! ```text
//!  client: what is asked, where credentials go, ──request──▶ child, confined: names, connections, ──▶ proxy, registry, mirror
//!          what redirects mean, time, rate,                  TLS (roots of the job), HTTP
//!          sizes, digests                       ◀─ head, body ─┘
//! ```
//!
//! Each request has a socket of its own, whose other end is closed when nobody waits any more; so it is with the whole child. The child's word is
//! a registry's word: digests are compared, and times and sizes kept, on this side. It sees what registries see, credentials among it, and nothing
//! else: no file but those by which names are looked up, no privilege, no socket but those of the internet.
//!
//! A child that dies breaks its requests, which are tried again with another one. One that answers to nobody is killed.

mod child;
mod frame;
mod parent;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::error::RegistryError;
use super::http::Patience;
use super::trust::RegistryTrust;

pub use child::run;
pub(super) use parent::{Fetcher, Pieces};

/// User and group of children: nobody else's.
const USER: u32 = 0x7ffe_4b56;
/// Threads of all children: each has one, and some more while names are looked up.
const THREADS: u64 = 512;
/// Descriptors of a child: a connection and a socket for each request, idle connections, files of names.
const DESCRIPTORS: u64 = 1024;
/// Memory of a child: buffers of its connections.
const MEMORY_BYTES: u64 = 256 << 20;
/// Longest job: 64 texts of certificates, each of 1 MiB.
const JOB_BYTES_MAX: u64 = 96 << 20;
/// What a child says when it is ready.
const READY: u8 = 1;

/// What is made of all that a child says to one request: status, number of headers, length of the body. None where that is not what a child says.
/// For who looks for words that do harm; it never waits.
pub async fn understood(mut said: &[u8]) -> Option<(u16, usize, u64)> {
    let head = match frame::Answer::read(&mut said).await.ok()? {
        frame::Answer::Head(told) => told.head()?,
        frame::Answer::Fault(fault) => {
            drop(fault.error("a registry", &Patience::default()));
            return None;
        }
    };
    let mut length = 0;
    loop {
        match frame::begun(said) {
            frame::Begun::End => return Some((head.status, head.headers.len(), length)),
            frame::Begun::Piece(bytes) => {
                said = said.get(frame::LENGTH + bytes..)?;
                length += u64::try_from(bytes).ok()?;
            }
            frame::Begun::Fault(fault) => {
                drop(fault.error("a registry", &Patience::default()));
                return None;
            }
            frame::Begun::Nothing | frame::Begun::More => return None,
        }
    }
}

/// What a child is told at its beginning.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Job {
    /// Certificates of authorities, base64 of DER; without any there is no https.
    roots: Option<Vec<String>>,
    connect_ms: u64,
    answer_ms: u64,
}

impl Job {
    fn new(trust: Option<&RegistryTrust>, patience: Patience) -> Self {
        let text = |roots: &RegistryTrust| roots.roots().map(|root| STANDARD.encode(root)).collect();
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            roots: trust.map(text),
            connect_ms: milliseconds(patience.connect),
            answer_ms: milliseconds(patience.answer),
        }
    }

    fn trust(&self) -> Result<Option<RegistryTrust>, RegistryError> {
        let Some(roots) = &self.roots else { return Ok(None) };
        let roots: Result<Vec<Vec<u8>>, _> = roots.iter().map(|root| STANDARD.decode(root)).collect();
        let damaged = |_| RegistryError::Config {
            what: "root certificates",
            expected: "base64",
            found: "something else".to_owned(),
        };
        RegistryTrust::of_der(roots.map_err(damaged)?.into_iter()).map(Some)
    }

    fn patience(&self) -> Patience {
        Patience {
            connect: Duration::from_millis(self.connect_ms),
            answer: Duration::from_millis(self.answer_ms),
            ..Patience::default()
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
