//! Attestation tokens (EAR, a JWT).
//!
//! A guest does not verify tokens: they are for the broker. It reads `exp` and `nbf` to know when to ask for another, and `iat`, by which the
//! broker, whom it knows by its TLS key, tells that it is no earlier than that.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::error::AnswerFault;
use super::json;

/// Longest token, in bytes: it carries event logs.
pub const TOKEN_MAX_BYTES: usize = 1 << 20;

/// A token. It opens secrets at a broker, so nothing prints it.
pub struct Token {
    text: Zeroizing<String>,
    expires: u64,
    not_before: u64,
    issued: Option<u64>,
}

#[derive(Deserialize)]
struct Claims {
    exp: u64,
    #[serde(default)]
    nbf: u64,
    /// Of any form: a token without a whole number is of use all the same.
    #[serde(default)]
    iat: serde_json::Value,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(expires {})", self.expires)
    }
}

impl Token {
    /// Reads a token in its compact form.
    ///
    /// # Errors
    ///
    /// `KBS_TOKEN_INVALID`: too long, not three parts of base64url, or claims without a whole number `exp`.
    pub fn parse(text: Zeroizing<String>) -> Result<Self, AnswerFault> {
        // GUARD: kbs-token-size -> evil_broker_sends_a_huge_token
        if text.len() > TOKEN_MAX_BYTES {
            return Err(AnswerFault::TokenForm { expected: "at most 1048576 bytes" });
        }
        let parts = AnswerFault::TokenForm { expected: "three parts of base64url" };
        // GUARD: kbs-token-text -> evil_broker_puts_a_header_into_a_token
        if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
            return Err(parts);
        }
        let mut split = text.split('.');
        let (Some(head), Some(claims), Some(signature), None) =
            (split.next(), split.next(), split.next(), split.next())
        else {
            return Err(parts);
        };
        if head.is_empty() || signature.is_empty() {
            return Err(parts);
        }
        let decoded = URL_SAFE_NO_PAD.decode(claims).map_err(|_| parts)?;
        let claims: Claims = json::parse(&decoded)
            .map_err(|_| AnswerFault::TokenForm { expected: "claims with exp as a whole number" })?;
        // What was made after its own end was not dated by a clock.
        let issued = claims.iat.as_u64().filter(|issued| *issued < claims.exp);
        Ok(Self { text, expires: claims.exp, not_before: claims.nbf, issued })
    }

    /// The compact form. It is a credential.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// Claim `exp`: seconds since 1970.
    pub fn expires(&self) -> u64 {
        self.expires
    }

    /// Claim `iat`, if it is there and before `exp`: seconds since 1970.
    pub fn issued(&self) -> Option<u64> {
        self.issued
    }

    /// Whether it is valid at `now`, in seconds since 1970.
    pub fn is_valid_at(&self, now: u64) -> bool {
        self.not_before <= now && now < self.expires
    }

    /// Refuses a token that is of no use.
    pub(super) fn require_valid_at(&self, now: u64) -> Result<(), AnswerFault> {
        // GUARD: kbs-token-expired -> evil_broker_sends_an_expired_token
        if !self.is_valid_at(now) {
            let (expires, not_before) = (self.expires, self.not_before);
            return Err(AnswerFault::TokenExpired { now, not_before, expires });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
