//! The confidential data hub in this process: what bound `cdh.toml` configures, with the agent's own attester.
//!
//! ```text
//!  bound cdh.toml ─▶ DataHub ─audit attested?─▶ broker, attested to once ─▶ Plaintext
//!        none, or no platform ─▶ CDH_ABSENT, whatever is asked for
//! ```
//! Nothing is asked of anybody before there is evidence for the audit: what was released could not be told from what was not. What a broker
//! dated moves the floor of the clock.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use attestation_agent::kbs::{Dated, KbsOptions};
use attestation_agent::{Attester, TeeRoot};
use cdh::artifact::{BrokerPlace, HubBroker, Opener, Shared};
use cdh::config::{HubConfig, ImageConfig, RestAllow, of_entries};
use cdh::hub_error::HubError;
use cdh::image::pull::{Pulled, Puller};
use cdh::launch::{opener, puller};
use cdh::modes::Modes;
use cdh::plaintext::Plaintext;
use cdh::registry::{Limits, Registry, RegistryOptions};
use cdh::rest::event_register;
use cdh::sealed_secret::artifact::SealedSecrets;
use cdh::service::Hub;
use cdh::worker::Workers;
use initdata::Initdata;
use policy_engine::audit::Audit;
use tokio::time::Instant;

/// How often a call that waits for evidence looks for it.
const LOOK: Duration = Duration::from_millis(100);
/// How often secrets that were kept are looked at.
const WIPE_INTERVAL: Duration = Duration::from_secs(5);

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
    hub: Arc<Hub>,
    attester: Arc<Attester>,
    images: Puller,
    image: ImageConfig,
    audit: Arc<Audit>,
    broker: Option<BrokerPlace>,
    refresh: Option<Duration>,
    /// What containers may ask for by the REST front.
    allow: Vec<RestAllow>,
    /// The register of their events.
    register: Option<u64>,
    workers: Arc<dyn Workers>,
}

/// What a REST front for containers is made of.
pub(crate) struct ForContainers {
    /// What bound configuration lists.
    pub(crate) allow: Vec<RestAllow>,
    /// The hub.
    pub(crate) hub: Arc<Hub>,
    /// What gives evidence.
    pub(crate) attester: Arc<Attester>,
    /// The register of events, if they are enabled.
    pub(crate) register: Option<u64>,
}

impl fmt::Debug for Present {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Present").field("hub", &self.hub).finish_non_exhaustive()
    }
}

impl DataHub {
    /// The hub that bound initdata configures, where there is a platform that can attest. Nothing is sent; `shared` is what all
    /// openers of artifacts have in common, `workers` starts the processes that speak to registries and unpack images. Has to be called inside a runtime.
    ///
    /// # Errors
    /// `cdh.toml` is refused: an agent that went on would do without what its operator configured.
    pub(crate) fn open(
        initdata: Option<&Initdata>,
        attester: Option<&Arc<Attester>>,
        dated: Dated,
        audit: &Arc<Audit>,
        shared: &Shared,
        workers: Arc<dyn Workers>,
    ) -> Result<Self, HubError> {
        Self::open_at(initdata, attester, dated, audit, shared, &TeeRoot::system(), workers)
    }

    /// As there; `root` is where the files of an offline hub are.
    pub(crate) fn open_at(
        initdata: Option<&Initdata>,
        attester: Option<&Arc<Attester>>,
        dated: Dated,
        audit: &Arc<Audit>,
        shared: &Shared,
        root: &TeeRoot,
        workers: Arc<dyn Workers>,
    ) -> Result<Self, HubError> {
        let text = initdata.and_then(|initdata| initdata.document().cdh_config());
        let Some(text) = text else { return Ok(Self::absent("bound initdata has no cdh.toml")) };
        // Parsed even where nobody can use it: what is wrong with it is said at once.
        let config = HubConfig::parse(text)?;
        let Some(attester) = attester else { return Ok(Self::absent("no platform that attests")) };
        let modes = Modes::decide(attester, initdata, &[])?;
        let options = config.kbs_options(&modes)?;
        let options = options.map(|options| KbsOptions { dated: Some(dated.clone()), ..options });
        let text = initdata.map(|initdata| initdata.text().to_owned());
        let broker = config.kbs_recipient()?.zip(options).map(|(recipient, options)| BrokerPlace {
            recipient,
            access: Arc::new(HubBroker { options, initdata: text }),
        });
        let hub = Hub::dated(&config, modes.clone(), attester, initdata, root, Some(dated))?;
        // By a broker whose words about the time count.
        let keys = opener(&config, &modes, attester, initdata, root, shared.clone())?;
        let keys = Opener { broker: broker.clone(), ..keys };
        let own = SealedSecrets::new(Arc::new(keys.clone()), &config.innerkeep.sealed_secrets)?;
        let hub = Arc::new(hub.with_secrets(own));
        let images = puller(&hub, &config, &modes, attester, keys, Arc::clone(&workers));
        let (allow, register) = (listed(&config, initdata)?, event_register(initdata)?);
        let seconds = config.innerkeep.credential_refresh_seconds;
        let refresh = (seconds > 0).then(|| Duration::from_secs(seconds));
        let audit = Arc::clone(audit);
        let (attester, image) = (Arc::clone(attester), config.image);
        let present =
            Present { hub, attester, images, refresh, image, audit, broker, allow, register, workers };
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

    /// The registries of artifacts, as bound `[image]` says. What they say is anybody's word: who opens an artifact judges its origin.
    ///
    /// # Errors
    /// `CDH_ABSENT`, `CDH_NOT_ATTESTED`: credentials may be secrets of the broker. Those of credentials and roots, in an error of the data hub's crate.
    pub(crate) async fn registry(
        &self,
        deadline: Instant,
    ) -> Result<Result<Registry, cdh::Error>, DataHubError> {
        let present = self.present()?;
        require_attested(&present.audit)?;
        let resources = present.hub.resources();
        let options = present.image.registry_options(resources.as_ref(), &present.workers, deadline).await;
        // Nothing is stored: the landing bounds what comes.
        Ok(options.map(|options| {
            let limits = Limits { image_bytes: u64::MAX, ..options.limits };
            Registry::new(RegistryOptions { limits, ..options })
        }))
    }

    /// Whether bound configuration lists something for a container.
    pub(crate) fn is_asked_by_containers(&self) -> bool {
        self.present().is_ok_and(|present| !present.allow.is_empty())
    }

    /// Whether it lists something for one of this name.
    pub(crate) fn lists_for(&self, name: &str) -> bool {
        self.present().is_ok_and(|present| present.allow.iter().any(|list| list.container == name))
    }

    /// What a REST front is made of, where bound configuration lists something for a container.
    pub(crate) fn for_containers(&self) -> Option<ForContainers> {
        let present = self.present().ok().filter(|present| !present.allow.is_empty())?;
        Some(ForContainers {
            allow: present.allow.clone(),
            hub: Arc::clone(&present.hub),
            attester: Arc::clone(&present.attester),
            register: present.register,
        })
    }

    /// Whether evidence commits to the audit.
    ///
    /// # Errors
    /// `CDH_ABSENT`, `CDH_NOT_ATTESTED`.
    pub(crate) fn require_attested(&self) -> Result<(), DataHubError> {
        require_attested(&self.present()?.audit)
    }

    /// The broker as a place of keys for artifacts, where bound configuration says by which name grants know it.
    pub(crate) fn broker_place(&self) -> Option<BrokerPlace> {
        self.present().ok()?.broker.clone()
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

/// What bound configuration lists for containers: by names in `cdh.toml`, by what is verified of them in `innerkeep.toml`.
fn listed(config: &HubConfig, initdata: Option<&Initdata>) -> Result<Vec<RestAllow>, HubError> {
    let entries = initdata.map(|initdata| initdata.document().settings().rest.as_slice());
    let entries = of_entries(entries.unwrap_or_default())?;
    Ok(config.innerkeep.rest.iter().cloned().chain(entries).collect())
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

#[cfg(test)]
pub(crate) mod tests;
