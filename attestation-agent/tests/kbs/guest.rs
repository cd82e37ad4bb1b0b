//! A guest inside the test: sample evidence, and counters.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use attestation_agent::kbs::{EvidenceSource, KbsClient, KbsError, KbsOptions, KbsUrl, ResourceUri, Secret};
use attestation_agent::report_data::{Claim, KbsDigest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::time::Instant;

/// Evidence of the TEE `sample`.
#[derive(Debug, Default)]
pub struct Sample {
    pub initdata: Option<String>,
    pub broken: bool,
    pub calls: AtomicUsize,
}

impl EvidenceSource for Sample {
    fn tee(&self) -> &str {
        "sample"
    }

    fn evidence(&self, digest: KbsDigest) -> Result<Value, Box<dyn Error + Send + Sync>> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.broken {
            return Err("the provider is gone".into());
        }
        Ok(json!({"svn": "1", "report_data": STANDARD.encode(digest_bytes(digest))}))
    }

    fn initdata(&self) -> Option<String> {
        self.initdata.clone()
    }
}

/// The 48 bytes.
pub fn digest_bytes(digest: KbsDigest) -> [u8; 48] {
    Claim::Kbs(digest).report_data().as_bytes()[..48].try_into().unwrap()
}

pub fn options(url: &str) -> KbsOptions {
    KbsOptions::new(KbsUrl::parse(url).unwrap(), None)
}

pub fn sample() -> Arc<Sample> {
    Arc::new(Sample::default())
}

pub fn client(url: &str) -> KbsClient {
    KbsClient::background_check(&options(url), sample()).unwrap()
}

/// Far away: for what must not depend on time.
pub fn later() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

pub fn uri() -> ResourceUri {
    ResourceUri::parse("kbs:///repository/type/tag").unwrap()
}

pub async fn get(client: &KbsClient) -> Result<Secret, KbsError> {
    client.get(&uri(), later()).await
}
