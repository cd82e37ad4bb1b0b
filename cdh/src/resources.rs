//! Resources: one attestation for many reads, each in protected memory, none kept longer than configured.
//!
//! ```text
//!  get(uri, deadline) ─▶ kept? ─▶ KbsClient (session of this process) ─▶ Plaintext
//!                                 or, as an insecure mode, files of the image
//!  Credentials ─▶ get ─▶ file below /run/confidential-containers/cdh/kbs, replaced as one step
//! ```

mod credentials;
mod kept;
mod offline;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use attestation_agent::Attester;
use attestation_agent::TeeRoot;
use attestation_agent::kbs::{Dated, KbsClient, ResourceUri, TokenSource as _};
use attestation_agent::service::AttestationSource;
use tokio::time::Instant;

use crate::config::{HubConfig, KbcName};
use crate::hub_error::HubError;
use crate::modes::Modes;
use crate::plaintext::Plaintext;

pub use credentials::{Credentials, Refreshed};
use kept::Kept;
use offline::Offline;

/// Where secrets and keys come from.
#[async_trait]
pub trait ResourceSource: Send + Sync {
    /// A resource.
    ///
    /// # Errors
    ///
    /// Whatever the source, or the way to it, refuses.
    async fn get(&self, uri: &ResourceUri, deadline: Instant) -> Result<Arc<Plaintext>, HubError>;
}

/// The source that is configured.
pub struct Resources {
    source: Source,
    kept: Kept,
}

enum Source {
    Broker(Box<KbsClient>),
    None,
    Offline(Offline),
}

impl fmt::Debug for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.source {
            Source::Broker(_) => "Resources(broker)",
            Source::None => "Resources(none)",
            Source::Offline(_) => "Resources(offline)",
        })
    }
}

impl Resources {
    /// The source of a configuration that the platform vouches for. `initdata` is its exact text; nothing is sent yet.
    ///
    /// # Errors
    ///
    /// `CDH_INSECURE_UNBOUND`, `CDH_OFFLINE_INVALID`; those of the broker's configuration.
    pub fn new(
        config: &HubConfig,
        modes: &Modes,
        attester: &Arc<Attester>,
        initdata: Option<String>,
        root: &TeeRoot,
    ) -> Result<Self, HubError> {
        Self::dated(config, modes, attester, initdata, root, None)
    }

    /// The same; `dated` hears when the broker made its tokens.
    ///
    /// # Errors
    ///
    /// As [`Resources::new`].
    pub fn dated(
        config: &HubConfig,
        modes: &Modes,
        attester: &Arc<Attester>,
        initdata: Option<String>,
        root: &TeeRoot,
        dated: Option<Dated>,
    ) -> Result<Self, HubError> {
        config.require_modes(modes)?;
        let source = match (config.kbs_options(modes)?, &config.kbc) {
            (Some(mut options), _) => {
                options.dated = dated;
                let evidence = Arc::new(AttestationSource::new(Arc::clone(attester), initdata));
                Source::Broker(Box::new(KbsClient::background_check(&options, evidence)?))
            }
            (None, Some(kbc)) if kbc.name == KbcName::OfflineFsKbc => Source::Offline(Offline::read(root)?),
            _ => Source::None,
        };
        let lifetime = Duration::from_secs(config.innerkeep.secret_lifetime_seconds);
        Ok(Self { source, kept: Kept::new(lifetime) })
    }

    /// As [`ResourceSource::get`], and never one that was kept.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn fresh(&self, uri: &ResourceUri, deadline: Instant) -> Result<Arc<Plaintext>, HubError> {
        let secret = match &self.source {
            Source::Broker(client) => client.get(uri, deadline).await?.into(),
            Source::None => return Err(HubError::NoBroker),
            Source::Offline(files) => files.get(uri)?,
        };
        let secret = Arc::new(secret);
        self.kept.keep(uri, &secret, Instant::now());
        Ok(secret)
    }

    /// Attests, if there is a broker and no session with it yet, so that the first secret need not wait.
    ///
    /// # Errors
    ///
    /// Those of the handshake.
    pub async fn attest(&self, deadline: Instant) -> Result<(), HubError> {
        if let Source::Broker(client) = &self.source {
            client.session(None, deadline).await?;
        }
        Ok(())
    }

    /// Wipes what was kept too long. To be called now and then.
    pub fn wipe_expired(&self) {
        self.kept.wipe_expired(Instant::now());
    }
}

#[async_trait]
impl ResourceSource for Resources {
    async fn get(&self, uri: &ResourceUri, deadline: Instant) -> Result<Arc<Plaintext>, HubError> {
        match self.kept.get(uri, Instant::now()) {
            Some(secret) => Ok(secret),
            None => self.fresh(uri, deadline).await,
        }
    }
}

#[cfg(test)]
mod tests;
