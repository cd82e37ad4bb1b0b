//! Certificate chains in PEM: one spelling only, so that no byte of a chain can change unnoticed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::abi::tdx::MAXIMUM_CHAIN_BYTES;
use crate::bytes::limit;
use crate::error::{EvidenceError, Found};

const BEGIN: &str = "-----BEGIN CERTIFICATE-----\n";
const END: &str = "-----END CERTIFICATE-----\n";
const LINE: usize = 64;

/// Exactly `N` certificates, DER, in the order of the text. One zero byte may end it, as in Intel's quotes.
pub(crate) fn parse_chain<const N: usize>(
    what: &'static str,
    pem: &[u8],
) -> Result<[Vec<u8>; N], EvidenceError> {
    limit(what, MAXIMUM_CHAIN_BYTES, pem.len())?;
    let malformed = |found: Found| EvidenceError::Malformed {
        what,
        expected: "certificates in PEM, lines of 64 characters, nothing between them",
        found,
    };
    let text = std::str::from_utf8(pem.strip_suffix(&[0]).unwrap_or(pem))
        .map_err(|error| malformed(Found::value(error)))?;
    let mut chain = Vec::new();
    let mut rest = text;
    while let Some(body) = rest.strip_prefix(BEGIN) {
        let Some((lines, after)) = body.split_once(END) else {
            return Err(malformed(Found::text("a certificate without an end")));
        };
        let der = STANDARD.decode(lines.replace('\n', "")).map_err(|error| malformed(Found::value(error)))?;
        chain.push(der);
        rest = after;
    }
    // GUARD: pem-one-spelling -> evil_any_changed_byte_of_a_quote_is_refused
    if encode_chain(&chain) != text {
        return Err(malformed(Found::text("another spelling of the same chain, or other text")));
    }
    chain.try_into().map_err(|chain: Vec<_>| EvidenceError::CertificateInvalid {
        which: what,
        expected: "its exact number of certificates",
        found: Found::value(format_args!("{} instead of {N}", chain.len())),
    })
}

/// The one spelling of a chain.
pub(crate) fn encode_chain(chain: &[Vec<u8>]) -> String {
    let mut text = String::new();
    for certificate in chain {
        text.push_str(BEGIN);
        let body = STANDARD.encode(certificate);
        let mut rest = body.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at_checked(LINE).unwrap_or((rest, ""));
            text.push_str(line);
            text.push('\n');
            rest = after;
        }
        text.push_str(END);
    }
    text
}
