//! What serves requests: the hub and the attester of this process. Nothing here decides who may ask.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use attestation_agent::config::AgentConfig;
use attestation_agent::report_data::Claim;
use attestation_agent::service::ServiceError;
use attestation_agent::{AttestationError, Attester, Extension};
use initdata::Initdata;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::hub_error::HubError;
use crate::plaintext::Plaintext;
use crate::service::Hub;

/// Calls of the platform that are worked on at one time.
const MAXIMUM_WORKING: usize = 4;
/// Most of an event, as for the attestation agent.
const MAXIMUM_EVENT_BYTES: usize = 16 * 1024;

/// An event for the runtime log. Members that nobody knows are ignored, as upstream.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Event {
    /// Whose.
    pub domain: String,
    /// What happened.
    pub operation: String,
    /// To what.
    pub content: String,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measured {
    /// Extended and logged.
    Done,
    /// Bound configuration does not enable it.
    NotEnabled,
    /// The platform cannot.
    NotSupported,
}

/// What the front needs of this guest.
#[async_trait]
pub trait BackEnd: Send + Sync {
    /// The name of the platform.
    fn tee(&self) -> String;

    /// Names of devices beside it that give evidence.
    fn additional_tees(&self) -> Vec<String>;

    /// A resource, `kbs:///…`.
    ///
    /// # Errors
    ///
    /// Whatever its source refuses.
    async fn resource(&self, uri: &str, deadline: Instant) -> Result<Arc<Plaintext>, HubError>;

    /// Evidence of the platform for a claim, JSON.
    ///
    /// # Errors
    ///
    /// Whatever the platform refuses.
    async fn evidence(&self, claim: Claim) -> Result<Vec<u8>, HubError>;

    /// Evidence of devices for a claim, JSON; no bytes without any.
    ///
    /// # Errors
    ///
    /// Whatever a device refuses.
    async fn additional_evidence(&self, claim: Claim) -> Result<Vec<u8>, HubError>;

    /// Extends the register of events, and logs.
    ///
    /// # Errors
    ///
    /// `ATTEST_EVENT_INVALID`, `CDH_REQUEST_TOO_LARGE`; whatever the platform refuses.
    async fn measure(&self, event: Event) -> Result<Measured, HubError>;
}

/// The register of events, if the `aa.toml` of bound initdata enables them.
///
/// # Errors
///
/// `ATTEST_CONFIG_INVALID`.
pub fn event_register(initdata: Option<&Initdata>) -> Result<Option<u64>, HubError> {
    let Some(text) = initdata.and_then(|bound| bound.document().aa_config()) else { return Ok(None) };
    let config = AgentConfig::parse(text).map_err(AttestationError::from)?;
    let events = config.eventlog_config;
    Ok(events.enable_eventlog.then_some(events.init_pcr))
}

/// The hub and the attester of this process.
pub struct ThisGuest {
    hub: Arc<Hub>,
    attester: Arc<Attester>,
    register: Option<u64>,
    working: Arc<Semaphore>,
}

impl fmt::Debug for ThisGuest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThisGuest")
            .field("hub", &self.hub)
            .field("register", &self.register)
            .finish_non_exhaustive()
    }
}

impl ThisGuest {
    /// `register`: the PCR of events, if bound `aa.toml` enables them.
    #[must_use]
    pub fn new(hub: Arc<Hub>, attester: Arc<Attester>, register: Option<u64>) -> Self {
        Self { hub, attester, register, working: Arc::new(Semaphore::new(MAXIMUM_WORKING)) }
    }

    /// Work that blocks. It ends with its place, even if nobody waits for the answer.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Attester) -> Result<T, AttestationError> + Send + 'static,
    ) -> Result<T, HubError> {
        let place = Arc::clone(&self.working).acquire_owned().await.map_err(|_| HubError::Interrupted)?;
        let attester = Arc::clone(&self.attester);
        let task = tokio::task::spawn_blocking(move || {
            let result = work(&attester);
            drop(place);
            result
        });
        Ok(task.await.map_err(|_| HubError::Interrupted)??)
    }
}

#[async_trait]
impl BackEnd for ThisGuest {
    fn tee(&self) -> String {
        self.attester.tee().name().to_owned()
    }

    fn additional_tees(&self) -> Vec<String> {
        self.attester.additional_tees().into_iter().map(|tee| tee.name().to_owned()).collect()
    }

    async fn resource(&self, uri: &str, deadline: Instant) -> Result<Arc<Plaintext>, HubError> {
        self.hub.resource(uri, deadline).await
    }

    async fn evidence(&self, claim: Claim) -> Result<Vec<u8>, HubError> {
        self.work(move |attester| Ok(attester.evidence(&claim)?.to_json().into_bytes())).await
    }

    async fn additional_evidence(&self, claim: Claim) -> Result<Vec<u8>, HubError> {
        if self.attester.additional_tees().is_empty() {
            return Ok(Vec::new());
        }
        let evidence = self.work(move |attester| attester.additional_evidence(&claim)).await?;
        let members = evidence.iter().map(|(tee, evidence)| format!("\"{tee}\":{}", evidence.to_json()));
        Ok(format!("{{{}}}", members.collect::<Vec<_>>().join(",")).into_bytes())
    }

    async fn measure(&self, event: Event) -> Result<Measured, HubError> {
        let Some(register) = self.register else { return Ok(Measured::NotEnabled) };
        let found = event.domain.len() + event.operation.len() + event.content.len();
        // GUARD: rest-event-cap -> evil_container_oversize_event
        if found > MAXIMUM_EVENT_BYTES {
            let too_large = ServiceError::TooLarge { what: "event", maximum: MAXIMUM_EVENT_BYTES, found };
            return Err(too_large.into());
        }
        let outcome = self
            .work(move |attester| attester.extend(&event.domain, &event.operation, &event.content, register));
        Ok(match outcome.await? {
            Extension::Done { .. } => Measured::Done,
            Extension::NotSupported => Measured::NotSupported,
        })
    }
}
