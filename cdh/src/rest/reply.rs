//! The answer to one request, as bytes: a head of our own words, and a body that is sent from where it lies.

use std::sync::Arc;

use hyper::StatusCode;
use serde::Serialize;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use crate::plaintext::Plaintext;
use crate::rest::RestError;

/// What a body is.
pub(super) const OCTETS: &str = "application/octet-stream";
pub(super) const JSON: &str = "application/json";

/// A body.
pub(super) enum Body {
    /// One that is no secret.
    Bytes(Vec<u8>),
    /// A secret.
    Held(Arc<Plaintext>),
}

impl Body {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Held(secret) => secret.expose(),
        }
    }
}

/// An answer.
pub(super) struct Reply {
    pub(super) status: u16,
    kind: &'static str,
    allowed: Option<&'static str>,
    pub(super) body: Body,
}

#[derive(Serialize)]
struct Refused<'a> {
    error: &'a str,
    message: String,
}

impl Reply {
    /// What was asked for.
    pub(super) const fn given(body: Body, kind: &'static str) -> Self {
        Self { status: 200, kind, allowed: None, body }
    }

    /// Why it is not given.
    pub(super) fn refusal(error: &RestError) -> Self {
        let refused = Refused { error: error.code(), message: chain(error) };
        let body = serde_json::to_vec(&refused).unwrap_or_default();
        let allowed = match error {
            RestError::Method { allowed } => Some(*allowed),
            _ => None,
        };
        Self { status: error.status(), kind: JSON, allowed, body: Body::Bytes(body) }
    }

    /// Sends it, and says that nothing follows. Who asked for a head alone gets no body.
    pub(super) async fn send(&self, stream: &mut (impl AsyncWrite + Unpin), method: &str) {
        let body = self.body.bytes();
        let reason = StatusCode::from_u16(self.status).ok().and_then(|status| status.canonical_reason());
        let allow = self.allowed.map(|method| format!("allow: {method}\r\n")).unwrap_or_default();
        let head = format!(
            "HTTP/1.1 {} {}\r\ncontent-type: {}\r\ncache-control: no-store\r\n{allow}content-length: {}\r\nconnection: close\r\n\r\n",
            self.status,
            reason.unwrap_or_default(),
            self.kind,
            body.len()
        );
        let body = if method == "HEAD" { &[] } else { body };
        // Who does not read its answer has none.
        if stream.write_all(head.as_bytes()).await.is_ok() && stream.write_all(body).await.is_ok() {
            let _ = stream.shutdown().await;
        }
    }
}

/// An error and its causes on one line of at most 512 bytes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let text = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    let mut text: String = text.chars().map(|it| if it.is_control() { ' ' } else { it }).collect();
    text.truncate(text.floor_char_boundary(512));
    text
}
