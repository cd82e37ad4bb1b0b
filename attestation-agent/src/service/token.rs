//! Tokens of a key broker for peers, and the evidence that a handshake shows.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::attester::Attester;
use crate::kbs::{EvidenceSource, ExportableKeyKind, TokenExporter};
use crate::report_data::{Claim, KbsDigest};
use crate::service::error::ServiceError;

/// How long a handshake for a peer may take, if the peer does not say less. Upstream's clients wait 50 seconds.
const DEADLINE: Duration = Duration::from_secs(45);

/// This guest's evidence for handshakes with key brokers.
#[derive(Debug)]
pub struct AttestationSource {
    attester: Arc<Attester>,
    initdata: Option<String>,
}

impl AttestationSource {
    /// Evidence of `attester`; `initdata` is the exact text that the platform vouches for.
    #[must_use]
    pub fn new(attester: Arc<Attester>, initdata: Option<String>) -> Self {
        Self { attester, initdata }
    }
}

impl EvidenceSource for AttestationSource {
    fn tee(&self) -> &str {
        self.attester.tee().name()
    }

    fn evidence(&self, digest: KbsDigest) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        let evidence = self.attester.evidence(&Claim::Kbs(digest))?;
        Ok(serde_json::from_str(&evidence.to_json())?)
    }

    fn initdata(&self) -> Option<String> {
        self.initdata.clone()
    }
}

/// What gets tokens.
#[derive(Debug)]
pub(crate) struct Tokens {
    pub(crate) exporter: TokenExporter,
    pub(crate) kind: ExportableKeyKind,
}

/// Upstream's answer.
#[derive(Serialize)]
struct TokenAnswer<'a> {
    token: &'a str,
    tee_keypair: &'a str,
}

impl Tokens {
    /// A token and the private key that was made for it, as upstream answers.
    ///
    /// # Errors
    /// Those of the handshake.
    pub(crate) async fn export(&self, timeout_ns: i64) -> Result<Zeroizing<Vec<u8>>, ServiceError> {
        let asked = u64::try_from(timeout_ns).ok().filter(|nanos| *nanos > 0).map(Duration::from_nanos);
        let deadline = Instant::now() + asked.map_or(DEADLINE, |asked| asked.min(DEADLINE));
        let (token, key) = self.exporter.export(self.kind, deadline).await?;
        let pem = key.into_pem();
        let answer = TokenAnswer { token: token.expose(), tee_keypair: &pem };
        serde_json::to_vec(&answer).map(Zeroizing::new).map_err(|_| ServiceError::Interrupted)
    }
}
