//! One handshake over the network: challenge, key, evidence, token.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::devices::{DeviceDigest, DeviceEvidence};
use super::error::{Cause, Hop, KbsError, LocalFault};
use super::http::{Broker, Limits};
use super::jwk::Jwk;
use super::rcar::{Attested, AwaitingToken, Challenged, Outgoing, Start};
use super::retry::deadline_over;
use super::tee_key::{ExportableKey, TeeKey};
use super::token::TOKEN_MAX_BYTES;
use crate::report_data::KbsDigest;

/// Longest challenge and error, in bytes.
const AUTH_BODY_MAX: usize = 64 << 10;
/// Longest answer with a token, in bytes.
const ATTEST_BODY_MAX: usize = TOKEN_MAX_BYTES + (4 << 10);

/// Where evidence comes from. Calls block; they run on threads of their own.
pub trait EvidenceSource: Send + Sync {
    /// The TEE by its name in the protocol: `tdx`, `snp`, …
    fn tee(&self) -> &str;

    /// The evidence, as the broker's verifier for [`Self::tee`] reads it.
    ///
    /// # Errors
    ///
    /// Whatever the provider says; it is kept as the cause of `KBS_EVIDENCE_FAILED`.
    fn evidence(&self, digest: KbsDigest) -> Result<Value, Box<dyn std::error::Error + Send + Sync>>;

    /// Evidence of devices beside the TEE, about this digest and no other. Without any there is none.
    ///
    /// # Errors
    ///
    /// As [`Self::evidence`]. Nothing is sent then: a broker's policy may count on what is missing.
    fn devices(
        &self,
        _digest: DeviceDigest,
    ) -> Result<DeviceEvidence, Box<dyn std::error::Error + Send + Sync>> {
        Ok(DeviceEvidence::default())
    }

    /// The exact text of the initdata that this guest was launched with.
    fn initdata(&self) -> Option<String>;
}

/// A key that evidence can be about.
pub(super) trait HandshakeKey: Send + 'static {
    fn public(&self) -> &Jwk;
}

impl HandshakeKey for TeeKey {
    fn public(&self) -> &Jwk {
        Self::public(self)
    }
}

impl HandshakeKey for ExportableKey {
    fn public(&self) -> &Jwk {
        Self::public(self)
    }
}

/// Attests a key that `make` makes after the nonce is known, and for nothing else.
pub(super) async fn handshake<K: HandshakeKey>(
    broker: &Broker,
    source: &Arc<dyn EvidenceSource>,
    make: impl FnOnce() -> Result<K, LocalFault> + Send + 'static,
    deadline: Instant,
    attempt: Duration,
) -> Result<(K, Attested), KbsError> {
    let limits = |body_max| Limits { body_max, deadline, attempt };
    let (waiting, request) = Start::new(source.tee())?.request()?;
    let received = broker.exchange(&request, limits(AUTH_BODY_MAX)).await.map_err(KbsError::at(Hop::Auth))?;
    let challenged = waiting.answer(&received.answer())?;

    let source = Arc::clone(source);
    let proving = tokio::task::spawn_blocking(move || prove(challenged, &*source, make));
    let proved = timeout_at(deadline, proving).await.map_err(|_| deadline_over(Hop::Attest))?;
    let interrupted = LocalFault::Interrupted { work: "making evidence" };
    let (key, waiting, request) = proved.map_err(|_| KbsError::new(Hop::Attest, interrupted))??;

    let received =
        broker.exchange(&request, limits(ATTEST_BODY_MAX)).await.map_err(KbsError::at(Hop::Attest))?;
    Ok((key, waiting.answer(&received.answer(), now())?))
}

/// Blocking: makes the key and the evidence about it.
fn prove<K: HandshakeKey>(
    challenged: Challenged,
    source: &dyn EvidenceSource,
    make: impl FnOnce() -> Result<K, LocalFault>,
) -> Result<(K, AwaitingToken, Outgoing), KbsError> {
    let key = make().map_err(KbsError::at(Hop::Attest))?;
    let none = |error| KbsError::new(Hop::Attest, LocalFault::Evidence { source: Cause::new(error) });
    let offered = challenged.offer(key.public())?;
    let devices = source.devices(offered.device_digest()).map_err(none)?;
    let bound = offered.bind(&devices)?;
    let evidence = source.evidence(bound.digest()).map_err(none)?;
    let (waiting, request) = bound.attestation(&evidence, source.initdata().as_deref())?;
    Ok((key, waiting, request))
}

/// Seconds since 1970. The host sets this clock: it decides when to ask anew, never whether to believe.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
