//! Tokens: made after an attestation, verified when a guest brings one. Only tokens of this broker are believed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::jwk::{TeeJwk, TeeKey};
use crate::signer::{Signer, SignerJwk};

/// How long a token holds, in seconds.
pub(crate) const LIFETIME: u64 = 300;
const ALGORITHM: &str = "ES256";
const KEY_CLAIM: &str = "/submods/cpu0/ear.veraison.annotated-evidence/runtime_data_claims/tee-pubkey";
/// Most tokens that are remembered as verified.
const MAXIMUM_KNOWN: usize = 1024;

/// A token that this broker signed.
#[derive(Debug)]
pub(crate) struct Verified {
    /// When it ends, in seconds since 1970.
    pub(crate) expires: u64,
    /// Its claims, as policies read them.
    pub(crate) claims: regorus::Value,
    /// The key that answers are encrypted to.
    pub(crate) key: TeeKey,
}

/// A token that is not believed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    /// It is over.
    #[error("token: expired {0} s ago")]
    Expired(u64),
    /// The text is not a token of the form that this broker makes.
    #[error("token: {0}")]
    Form(String),
    /// Another key signed it.
    #[error("token: the key in the header is not this broker's")]
    ForeignKey,
    /// The signature is wrong.
    #[error("token: the signature does not verify")]
    Signature,
}

#[derive(Serialize, Deserialize)]
struct Header {
    typ: String,
    alg: String,
    jwk: SignerJwk,
}

#[derive(Deserialize)]
struct Times {
    exp: u64,
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Verified {
    /// What claims say; they are trusted by whoever calls.
    fn of_claims(json: &str) -> Result<Self, TokenError> {
        let form = |what: &dyn std::fmt::Display| TokenError::Form(what.to_string());
        let times: Times = serde_json::from_str(json).map_err(|error| form(&error))?;
        let tree: serde_json::Value = serde_json::from_str(json).map_err(|error| form(&error))?;
        let jwk = tree.pointer(KEY_CLAIM).ok_or_else(|| form(&"no tee-pubkey"))?;
        let jwk = TeeJwk::deserialize(jwk).map_err(|error| form(&error))?;
        let key = TeeKey::parse(&jwk).map_err(|error| form(&error))?;
        let claims = regorus::Value::from_json_str(json).map_err(|error| form(&error))?;
        Ok(Self { expires: times.exp, claims, key })
    }

    /// Refuses a token that is over.
    pub(crate) fn holds_at(&self, now: u64) -> Result<(), TokenError> {
        // GUARD: broker-token-expiry -> evil_client_brings_an_expired_token, expired_tokens_are_refused
        if self.expires <= now {
            return Err(TokenError::Expired(now - self.expires));
        }
        Ok(())
    }
}

/// Makes and verifies tokens.
#[derive(Debug)]
pub(crate) struct Tokens {
    signer: Signer,
    known: Mutex<HashMap<[u8; 32], Arc<Verified>>>,
}

impl Tokens {
    /// Tokens of a signer.
    pub(crate) fn new(signer: Signer) -> Self {
        Self { signer, known: Mutex::default() }
    }

    /// Signs claims.
    pub(crate) fn issue(&self, claims: &str) -> Result<(String, Arc<Verified>), TokenError> {
        let verified = Arc::new(Verified::of_claims(claims)?);
        let header =
            Header { typ: "JWT".to_owned(), alg: ALGORITHM.to_owned(), jwk: self.signer.jwk().clone() };
        let token = self.sign(&header, claims);
        self.remember(fingerprint(&token), &verified);
        Ok((token, verified))
    }

    fn sign(&self, header: &Header, claims: &str) -> String {
        // Strings always have a JSON form.
        let header = serde_json::to_vec(header).unwrap_or_default();
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.signer.sign(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Verifies a token that a client brings.
    pub(crate) fn verify(&self, token: &str, now: u64) -> Result<Arc<Verified>, TokenError> {
        let id = fingerprint(token);
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        let verified = match known {
            Some(verified) => verified,
            None => {
                let verified = Arc::new(self.verify_text(token)?);
                self.remember(id, &verified);
                verified
            }
        };
        verified.holds_at(now)?;
        Ok(verified)
    }

    fn verify_text(&self, token: &str) -> Result<Verified, TokenError> {
        let form = |what: &dyn std::fmt::Display| TokenError::Form(what.to_string());
        let (signed, signature) = token.rsplit_once('.').ok_or_else(|| form(&"expected three parts"))?;
        let (header, claims) = signed.split_once('.').ok_or_else(|| form(&"expected three parts"))?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|error| form(&error));
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|error| form(&error))?;
        // GUARD: broker-token-algorithm -> evil_client_changes_the_token_header
        if header.alg != ALGORITHM {
            return Err(form(&"expected ES256"));
        }
        // GUARD: broker-token-own-key -> evil_client_changes_the_token_header
        if &header.jwk != self.signer.jwk() {
            return Err(TokenError::ForeignKey);
        }
        // GUARD: broker-token-signature -> evil_client_forges_a_token
        if !self.signer.is_signature(signed.as_bytes(), &decode(signature)?) {
            return Err(TokenError::Signature);
        }
        let claims = String::from_utf8(decode(claims)?).map_err(|error| form(&error))?;
        Verified::of_claims(&claims)
    }

    fn remember(&self, id: [u8; 32], verified: &Arc<Verified>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAXIMUM_KNOWN {
            let now = now();
            known.retain(|_, verified| verified.expires > now);
        }
        if known.len() >= MAXIMUM_KNOWN {
            known.clear();
        }
        known.insert(id, Arc::clone(verified));
    }
}

fn fingerprint(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use serde_json::{Value, json};

    fn fresh() -> Tokens {
        let directory = tempfile::tempdir().unwrap();
        Tokens::new(Signer::open(&Store::open(directory.path()).unwrap()).unwrap())
    }

    fn claims(exp: u64) -> String {
        let key: Value = serde_json::from_str(crate::jwk::tests::P256).unwrap();
        let evidence =
            json!({"ear.veraison.annotated-evidence": {"runtime_data_claims": {"tee-pubkey": key}}});
        json!({"exp": exp, "submods": {"cpu0": evidence}}).to_string()
    }

    /// Forgets what was verified, so that the text counts.
    fn verify(tokens: &Tokens, token: &str) -> Result<Arc<Verified>, TokenError> {
        tokens.known.lock().unwrap().clear();
        tokens.verify(token, 1000)
    }

    #[test]
    fn own_tokens_verify_with_and_without_memory() {
        let tokens = fresh();
        let (token, _) = tokens.issue(&claims(1001)).unwrap();
        assert_eq!(tokens.verify(&token, 1000).unwrap().expires, 1001);
        assert_eq!(verify(&tokens, &token).unwrap().expires, 1001);
        assert!(tokens.issue(r#"{"exp":1}"#).is_err());
    }

    #[test]
    fn expired_tokens_are_refused() {
        let tokens = fresh();
        let (token, _) = tokens.issue(&claims(1000)).unwrap();
        assert!(matches!(tokens.verify(&token, 1000), Err(TokenError::Expired(0))));
        assert!(matches!(verify(&tokens, &token), Err(TokenError::Expired(0))));
        assert!(tokens.verify(&token, 999).is_ok());
    }

    #[test]
    fn evil_client_forges_a_token() {
        let tokens = fresh();
        let (token, _) = tokens.issue(&claims(1001)).unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let (header, _) = signed.split_once('.').unwrap();
        let later = URL_SAFE_NO_PAD.encode(claims(9999));
        let forged = format!("{header}.{later}.{signature}");
        assert!(matches!(verify(&tokens, &forged), Err(TokenError::Signature)));
        for forged in [format!("{signed}."), format!("{signed}.AAAA"), signed.to_owned(), String::new()] {
            assert!(verify(&tokens, &forged).is_err(), "{forged}");
        }
        // A key of the client's own, named honestly and not.
        let other = fresh();
        let (foreign, _) = other.issue(&claims(1001)).unwrap();
        assert!(matches!(verify(&tokens, &foreign), Err(TokenError::ForeignKey)));
        let header = Header { typ: "JWT".into(), alg: ALGORITHM.into(), jwk: tokens.signer.jwk().clone() };
        let posing = other.sign(&header, &claims(1001));
        assert!(matches!(verify(&tokens, &posing), Err(TokenError::Signature)));
    }

    #[test]
    fn evil_client_changes_the_token_header() {
        let tokens = fresh();
        let header = |alg: &str, change: fn(&mut SignerJwk)| {
            let mut jwk = tokens.signer.jwk().clone();
            change(&mut jwk);
            tokens.sign(&Header { typ: "JWT".into(), alg: alg.into(), jwk }, &claims(1001))
        };
        assert!(verify(&tokens, &header("ES256", |_| ())).is_ok());
        assert!(verify(&tokens, &header("none", |_| ())).is_err());
        assert!(verify(&tokens, &header("HS256", |_| ())).is_err());
        for change in [
            (|jwk| jwk.alg.clear()) as fn(&mut SignerJwk),
            |jwk| jwk.x5c.clear(),
            |jwk| {
                jwk.x5c.reverse();
            },
        ] {
            assert!(matches!(verify(&tokens, &header("ES256", change)), Err(TokenError::ForeignKey)));
        }
    }
}
