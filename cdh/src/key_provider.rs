//! Keys of encrypted image layers (ocicrypt key provider, `UnWrapKey`): JSON in, JSON out.
//!
//! In: `{"op":"keyunwrap","keyunwrapparams":{"dc":…,"annotation":"<base64 of a packet>"},…}`. A packet of version 1 has `kid`, `wrapped_data`, `iv`
//! and `wrap_type`; one of version 2 also `version` (`0.1.0`), `provider` (`kbs`), `provider_settings` and `annotations`. `kid` names a resource of
//! 32 bytes. Out: `{"keyunwrapresults":{"optsdata":[…]}}`, each byte a number.

use std::fmt;

use attestation_agent::kbs::{ResourceUri, parse_json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::hub_error::{HubError, shown};
use crate::modes::Modes;
use crate::plaintext::Plaintext;
use crate::resources::ResourceSource;
use crate::unwrap::WrapType;

/// Longest request.
pub const MAXIMUM_REQUEST_BYTES: usize = protocol::hub::KEY_REQUEST_BYTES;
/// Longest wrapped options of a layer: a key, a nonce, a digest in JSON.
const MAXIMUM_WRAPPED_BYTES: usize = 16 << 10;
const VERSION: &str = "0.1.0";
const KBS: &str = "kbs";
const WHAT: &str = "key of a layer";

#[derive(Deserialize)]
struct Request {
    op: String,
    keyunwrapparams: Parameters,
}

#[derive(Deserialize)]
struct Parameters {
    annotation: String,
}

#[derive(Deserialize)]
struct RawPacket {
    version: Option<String>,
    provider: Option<String>,
    kid: String,
    wrapped_data: String,
    iv: Option<String>,
    wrap_type: Option<String>,
}

/// How the key of a layer is wrapped.
#[derive(Clone)]
pub struct Packet {
    /// The key that it is wrapped under.
    pub kid: ResourceUri,
    kind: WrapType,
    iv: Vec<u8>,
    wrapped: Vec<u8>,
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packet").field("kind", &self.kind).finish_non_exhaustive()
    }
}

fn bad(expected: &'static str) -> HubError {
    HubError::KeyRequest { expected }
}

fn decode(text: &str, expected: &'static str) -> Result<Vec<u8>, HubError> {
    STANDARD.decode(text).map_err(|_| bad(expected))
}

impl Packet {
    /// Reads a packet of either version: the text behind the base64 of a layer's annotation.
    ///
    /// # Errors
    ///
    /// `CDH_REQUEST_TOO_LARGE`, `CDH_KEY_REQUEST`, `SEALED_SECRET_PROVIDER`, `WRAP_MALFORMED`, `KBS_RESOURCE_URI_INVALID`.
    pub fn parse(json: &[u8]) -> Result<Self, HubError> {
        require_length(json)?;
        let raw: RawPacket = parse_json(json)
            .map_err(|_| bad("a packet: a JSON object with kid and wrapped_data, each member once"))?;
        if raw.version.is_some_and(|version| version != VERSION) {
            return Err(bad("a packet of version 0.1.0"));
        }
        if let Some(other) = raw.provider.filter(|provider| !provider.eq_ignore_ascii_case(KBS)) {
            return Err(HubError::SealedProvider { expected: KBS, found: shown(&other) });
        }
        let kind = raw.wrap_type.ok_or(bad("a packet of provider kbs with wrap_type"))?;
        let kind = WrapType::parse(WHAT, &kind)?;
        let iv = raw.iv.ok_or(bad("a packet of provider kbs with iv"))?;
        let iv = decode(&iv, "iv in standard base64")?;
        let wrapped = decode(&raw.wrapped_data, "wrapped_data in standard base64")?;
        // GUARD: key-packet-cap -> evil_registry_oversize_packet
        if wrapped.len() > MAXIMUM_WRAPPED_BYTES {
            let found = wrapped.len();
            return Err(HubError::TooLarge { what: "wrapped_data", most: MAXIMUM_WRAPPED_BYTES, found });
        }
        Ok(Self { kid: ResourceUri::parse(&raw.kid)?, kind, iv, wrapped })
    }

    /// Unwraps: the private options of the layer.
    ///
    /// # Errors
    ///
    /// `WRAP_…`; those of the source.
    pub async fn unwrap(
        self,
        source: &dyn ResourceSource,
        modes: &Modes,
        deadline: Instant,
    ) -> Result<Plaintext, HubError> {
        let key = source.get(&self.kid, deadline).await?;
        self.kind.open(WHAT, key.expose(), &self.iv, Zeroizing::new(self.wrapped), modes)
    }
}

fn require_length(json: &[u8]) -> Result<(), HubError> {
    // GUARD: key-request-cap -> evil_peer_oversize_key_request
    if json.len() > MAXIMUM_REQUEST_BYTES {
        let found = json.len();
        return Err(HubError::TooLarge { what: "request", most: MAXIMUM_REQUEST_BYTES, found });
    }
    Ok(())
}

/// Reads a request.
///
/// # Errors
///
/// As [`Packet::parse`].
pub fn parse_request(json: &[u8]) -> Result<Packet, HubError> {
    require_length(json)?;
    let request: Request = parse_json(json)
        .map_err(|_| bad("a JSON object with op and keyunwrapparams.annotation, each member once"))?;
    if request.op != "keyunwrap" {
        return Err(bad("op keyunwrap"));
    }
    Packet::parse(&decode(&request.keyunwrapparams.annotation, "the annotation in standard base64")?)
}

/// Answers a request.
///
/// # Errors
///
/// As [`parse_request`] and [`Packet::unwrap`].
pub async fn unwrap_key(
    json: &[u8],
    source: &dyn ResourceSource,
    modes: &Modes,
    deadline: Instant,
) -> Result<Zeroizing<Vec<u8>>, HubError> {
    let options = parse_request(json)?.unwrap(source, modes, deadline).await?;
    Ok(answer(options.expose()))
}

/// Written into one place that is wiped: room for three digits and a comma each.
fn answer(options: &[u8]) -> Zeroizing<Vec<u8>> {
    const START: &[u8] = b"{\"keyunwrapresults\":{\"optsdata\":[";
    const END: &[u8] = b"]}}";
    let mut answer = Zeroizing::new(Vec::with_capacity(options.len() * 4 + START.len() + END.len()));
    answer.extend_from_slice(START);
    for (index, byte) in options.iter().enumerate() {
        if index > 0 {
            answer.push(b',');
        }
        let digits = [byte / 100, byte / 10 % 10, byte % 10];
        let first = digits.iter().position(|digit| *digit != 0).unwrap_or(2);
        answer.extend(digits.iter().skip(first).map(|digit| b'0' + digit));
    }
    answer.extend_from_slice(END);
    answer
}

#[cfg(test)]
mod tests;
