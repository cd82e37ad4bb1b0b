//! The confidential data hub in this process: what bound `cdh.toml` configures, with the agent's own attester.
//!
//! ```text
//!  bound cdh.toml ─▶ DataHub ─audit attested?─▶ broker, attested to once ─▶ Plaintext
//!        none, or no platform ─▶ CDH_ABSENT, whatever is asked for
//! ```
//! Nothing is asked of anybody before there is evidence for the audit: what was released could not be told from what was not. What a broker
//! dated moves the floor of the clock.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use attestation_agent::kbs::{Dated, KbsClient, KbsOptions};
use attestation_agent::service::AttestationSource;
use attestation_agent::{Attester, TeeRoot};
use cdh::artifact::{Broker, BrokerAccess, BrokerPlace, KbsRecipient};
use cdh::config::{HubConfig, ImageConfig};
use cdh::hub_error::HubError;
use cdh::image::pull::{Pulled, Puller};
use cdh::image::unpacking::Unpacking;
use cdh::launch::{opener, puller};
use cdh::modes::Modes;
use cdh::plaintext::Plaintext;
use cdh::registry::{Carried, Reference, Registry};
use cdh::service::Hub;
use initdata::Initdata;
use policy_engine::audit::Audit;
use tokio::time::Instant;

/// How often a call that waits for evidence looks for it.
const LOOK: Duration = Duration::from_millis(100);
/// How often secrets that were kept are looked at.
const WIPE_INTERVAL: Duration = Duration::from_secs(5);
/// How long a broker has for the key of an artifact.
const KEY_PATIENCE: Duration = Duration::from_secs(60);

/// Why the hub gives nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataHubError {
    /// There is none.
    #[error("expected a confidential data hub, found none: {why}")]
    Absent {
        /// What is missing.
        why: &'static str,
    },
    /// No evidence commits to the audit yet.
    #[error("secrets: expected evidence for the audit of this guest, found none yet")]
    NotAttested,
    /// What the hub says.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// What it says of an image.
    #[error(transparent)]
    Image(cdh::Error),
}

impl DataHubError {
    /// The stable code.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Absent { .. } => "CDH_ABSENT",
            Self::NotAttested => "CDH_NOT_ATTESTED",
            Self::Hub(error) => error.code(),
            Self::Image(error) => error.code(),
        }
    }
}

/// The hub of this guest. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct DataHub {
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    Present(Arc<Present>),
    Absent(&'static str),
}

struct Present {
    hub: Hub,
    images: Puller,
    image: ImageConfig,
    audit: Arc<Audit>,
    broker: Option<(KbsRecipient, KbsOptions)>,
    initdata: Option<String>,
    refresh: Option<Duration>,
}

impl fmt::Debug for Present {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Present").field("hub", &self.hub).finish_non_exhaustive()
    }
}

impl DataHub {
    /// The hub that bound initdata configures, where there is a platform that can attest. Nothing is sent. `unpacking` starts the processes in
    /// which images are unpacked. Has to be called inside a runtime.
    ///
    /// # Errors
    /// `cdh.toml` is refused: an agent that went on would do without what its operator configured.
    pub(crate) fn open(
        initdata: Option<&Initdata>,
        attester: Option<&Arc<Attester>>,
        dated: Dated,
        audit: &Arc<Audit>,
        unpacking: Arc<dyn Unpacking>,
    ) -> Result<Self, HubError> {
        Self::open_at(initdata, attester, dated, audit, &TeeRoot::system(), unpacking)
    }

    /// As there; `root` is where the files of an offline hub are.
    pub(crate) fn open_at(
        initdata: Option<&Initdata>,
        attester: Option<&Arc<Attester>>,
        dated: Dated,
        audit: &Arc<Audit>,
        root: &TeeRoot,
        unpacking: Arc<dyn Unpacking>,
    ) -> Result<Self, HubError> {
        let text = initdata.and_then(|initdata| initdata.document().cdh_config());
        let Some(text) = text else { return Ok(Self::absent("bound initdata has no cdh.toml")) };
        // Parsed even where nobody can use it: what is wrong with it is said at once.
        let config = HubConfig::parse(text)?;
        let Some(attester) = attester else { return Ok(Self::absent("no platform that attests")) };
        let modes = Modes::decide(attester, initdata, &[])?;
        let options = config.kbs_options(&modes)?;
        let options = options.map(|options| KbsOptions { dated: Some(dated.clone()), ..options });
        let broker = config.kbs_recipient()?.zip(options);
        let hub = Hub::dated(&config, modes.clone(), attester, initdata, root, Some(dated))?;
        let keys = opener(&config, &modes, attester, initdata, root)?;
        let images = puller(&hub, &config, &modes, attester, keys, unpacking);
        let initdata = initdata.map(|initdata| initdata.text().to_owned());
        let seconds = config.innerkeep.credential_refresh_seconds;
        let refresh = (seconds > 0).then(|| Duration::from_secs(seconds));
        let audit = Arc::clone(audit);
        let present = Present { hub, images, refresh, image: config.image, audit, broker, initdata };
        let present = Arc::new(present);
        wipe_now_and_then(&present);
        Ok(Self { state: State::Present(present) })
    }

    /// None, and why.
    pub(crate) const fn absent(why: &'static str) -> Self {
        Self { state: State::Absent(why) }
    }

    /// Whether there is one.
    ///
    /// # Errors
    /// `CDH_ABSENT`.
    pub(crate) fn require(&self) -> Result<(), DataHubError> {
        self.present().map(drop)
    }

    fn present(&self) -> Result<&Arc<Present>, DataHubError> {
        match &self.state {
            State::Present(present) => Ok(present),
            State::Absent(why) => Err(DataHubError::Absent { why }),
        }
    }

    /// How often what was given to containers is looked at again: never, unless bound configuration says.
    pub(crate) fn refresh(&self) -> Option<Duration> {
        self.present().ok()?.refresh
    }

    /// The secret behind a sealed one. Waits for evidence of the audit, not beyond `deadline` and not for a caller that is gone.
    ///
    /// # Errors
    /// `CDH_ABSENT`, `CDH_NOT_ATTESTED`; whatever the hub refuses.
    pub(crate) async fn unseal(
        &self,
        text: &[u8],
        deadline: Instant,
        is_late: impl Fn() -> bool,
    ) -> Result<Arc<Plaintext>, DataHubError> {
        let present = self.present()?;
        present.attested(deadline, is_late).await?;
        Ok(present.hub.unseal(text, deadline).await?)
    }

    /// Pulls an image, as bound `[image]` permits. Waits for evidence of the audit, not beyond `deadline`. Nothing is mounted; what was pulled is
    /// measured.
    ///
    /// # Errors
    /// `CDH_ABSENT`, `CDH_NOT_ATTESTED`; whatever the hub refuses.
    pub(crate) async fn pull(&self, image: &str, deadline: Instant) -> Result<Pulled, DataHubError> {
        let present = self.present()?;
        present.attested(deadline, || false).await?;
        present.images.pull(image, deadline, &()).await.map_err(DataHubError::Image)
    }

    /// Fetches an artifact from its registry, as bound `[image]` says, into an image layout in the guest's memory, under `tag`. What comes is
    /// ciphertext of anybody's: who opens it judges its origin. Continues what an earlier call began.
    ///
    /// # Errors
    /// `CDH_ABSENT`, `CDH_NOT_ATTESTED`: credentials may be secrets of the broker. Those of registries, in an error of the data hub's crate.
    pub(crate) async fn fetch(
        &self,
        from: &Reference,
        layout: &Path,
        tag: &str,
        deadline: Instant,
    ) -> Result<Result<Carried, cdh::Error>, DataHubError> {
        let present = self.present()?;
        require_attested(&present.audit)?;
        let options = present.image.registry_options(present.hub.resources().as_ref(), deadline).await;
        Ok(match options {
            Ok(options) => {
                let registry = Registry::new(options);
                registry.pull_layout(from, layout, tag, &(), deadline).await.map_err(cdh::Error::from)
            }
            Err(error) => Err(error),
        })
    }

    /// The broker as a place of keys for artifacts, where bound configuration says by which name grants know it.
    pub(crate) fn broker_place(&self) -> Option<BrokerPlace> {
        let State::Present(present) = &self.state else { return None };
        let (recipient, _) = present.broker.as_ref()?;
        let access = Arc::new(Access(Arc::clone(present)));
        Some(BrokerPlace { recipient: recipient.clone(), access })
    }
}

impl Present {
    /// Waits for evidence of the audit, for as long as somebody waits for what depends on it.
    async fn attested(&self, deadline: Instant, is_late: impl Fn() -> bool) -> Result<(), DataHubError> {
        while self.audit.evidence_bytes().is_none() && !is_late() && Instant::now() < deadline {
            tokio::time::sleep(LOOK).await;
        }
        require_attested(&self.audit)
    }
}

/// What was kept for its lifetime goes at its end, whether somebody asks again or not.
fn wipe_now_and_then(present: &Arc<Present>) {
    let present = Arc::downgrade(present);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(WIPE_INTERVAL).await;
            let Some(present) = present.upgrade() else { return };
            present.hub.resources().wipe_expired();
        }
    });
}

/// What is released has to be seen by whoever reads the audit.
fn require_attested(audit: &Audit) -> Result<(), DataHubError> {
    // GUARD: hub-audit-attested -> evil_host_secret_before_the_audit_is_attested
    if audit.evidence_bytes().is_none() {
        return Err(DataHubError::NotAttested);
    }
    Ok(())
}

/// The way to the broker of bound configuration.
struct Access(Arc<Present>);

impl BrokerAccess for Access {
    fn connect(&self, attester: Arc<Attester>) -> Result<Broker, cdh::Error> {
        let (_, options) = self.0.broker.as_ref().ok_or(HubError::NoBroker)?;
        let evidence = Arc::new(AttestationSource::new(attester, self.0.initdata.clone()));
        Broker::new(KbsClient::background_check(options, evidence)?, KEY_PATIENCE)
    }
}

#[cfg(test)]
pub(crate) mod tests;
