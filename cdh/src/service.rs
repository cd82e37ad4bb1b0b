//! The data hub: what peers may ask it for, in this process or over ttrpc.
//!
//! ```text
//!  socket ─accept─▶ Peer (the kernel's word) ─▶ limits ─▶ Access ─▶ queue of the peer ─▶ Hub ─▶ resources, sealed secrets, keys of layers
//!                                                                                         └──▶ Images, Volumes, Artifacts: seams
//! ```
//! Only processes of the image are served: a container never is, whatever socket is mounted into it.

mod access;
mod answer;
mod hand_over;
mod jobs;
mod seams;
mod status;

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use attestation_agent::kbs::Dated;
use attestation_agent::service::{Peer, QueueLimits, Queues, bind_socket, serve_connection};
use attestation_agent::{Attester, TeeRoot};
use initdata::Initdata;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::config::HubConfig;
use crate::hub_error::HubError;
use crate::key_provider;
use crate::modes::Modes;
use crate::plaintext::Plaintext;
use crate::resources::{Credentials, Refreshed, ResourceSource as _, Resources};
use crate::sealed_secret::artifact::{self, SealedSecrets};
use crate::sealed_secret::{self, Verification};

pub use access::Access;
pub use hand_over::{HandOver, TICKET_BYTES};
pub use jobs::{Jobs, LandedFiles, Lander, Progress};
pub use seams::{Artifacts, Images, NotAvailable, Volume, Volumes};

/// Connections at one time.
const MAXIMUM_CONNECTIONS: usize = 64;
/// What one peer may ask for: upstream's guest agent is a single peer, and pulls images while it unseals secrets.
const PEER_LIMITS: QueueLimits = QueueLimits { at_once: 8, queued: 32, connections: 16 };
/// How often resources that were kept are looked at.
const WIPE_INTERVAL: Duration = Duration::from_secs(5);
/// How long reading all credentials may take.
const CREDENTIALS_DEADLINE: Duration = Duration::from_secs(50);

/// What the hub does, for whoever is in this process.
pub struct Hub {
    resources: Arc<Resources>,
    modes: Modes,
    verification: Verification,
    images: Arc<dyn Images>,
    volumes: Arc<dyn Volumes>,
    artifacts: Arc<dyn Artifacts>,
    secrets: Option<Arc<SealedSecrets>>,
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("resources", &self.resources)
            .field("modes", &self.modes)
            .finish_non_exhaustive()
    }
}

impl Hub {
    /// The hub under a configuration that the platform vouches for. Images, volumes and artifacts are not available before
    /// they are given to it; nothing is sent yet.
    ///
    /// # Errors
    ///
    /// `CDH_INSECURE_UNBOUND`, `CDH_OFFLINE_INVALID`; those of the broker's configuration.
    pub fn new(
        config: &HubConfig,
        modes: Modes,
        attester: &Arc<Attester>,
        initdata: Option<&Initdata>,
        root: &TeeRoot,
    ) -> Result<Self, HubError> {
        Self::dated(config, modes, attester, initdata, root, None)
    }

    /// The same; `dated` hears when the broker made its tokens: it is no earlier than that.
    ///
    /// # Errors
    ///
    /// As [`Hub::new`].
    pub fn dated(
        config: &HubConfig,
        modes: Modes,
        attester: &Arc<Attester>,
        initdata: Option<&Initdata>,
        root: &TeeRoot,
        dated: Option<Dated>,
    ) -> Result<Self, HubError> {
        let text = initdata.map(|initdata| initdata.text().to_owned());
        let resources = Arc::new(Resources::dated(config, &modes, attester, text, root, dated)?);
        let verification = Verification::decide(config.skip_sealed_secret_verification, &modes)?;
        let none = Arc::new(NotAvailable);
        let (images, volumes, artifacts) = (Arc::clone(&none) as _, Arc::clone(&none) as _, none);
        Ok(Self { resources, modes, verification, images, volumes, artifacts, secrets: None })
    }

    /// With these to pull images.
    #[must_use]
    pub fn with_images(self, images: Arc<dyn Images>) -> Self {
        Self { images, ..self }
    }

    /// With these to mount volumes.
    #[must_use]
    pub fn with_volumes(self, volumes: Arc<dyn Volumes>) -> Self {
        Self { volumes, ..self }
    }

    /// With these to land artifacts.
    #[must_use]
    pub fn with_artifacts(self, artifacts: Arc<dyn Artifacts>) -> Self {
        Self { artifacts, ..self }
    }

    /// With this to open secrets that are sealed artifacts.
    #[must_use]
    pub fn with_secrets(self, secrets: SealedSecrets) -> Self {
        Self { secrets: Some(Arc::new(secrets)), ..self }
    }

    /// Resources: one session for all of them.
    #[must_use]
    pub const fn resources(&self) -> &Arc<Resources> {
        &self.resources
    }

    /// A resource by its whole URI.
    ///
    /// # Errors
    ///
    /// `KBS_RESOURCE_URI_INVALID`; whatever the source refuses.
    pub async fn resource(&self, uri: &str, deadline: Instant) -> Result<Arc<Plaintext>, HubError> {
        let uri = attestation_agent::kbs::ResourceUri::parse(uri)?;
        self.resources.get(&uri, deadline).await
    }

    /// The secret behind a sealed one.
    ///
    /// # Errors
    ///
    /// As [`sealed_secret::unseal`] and [`SealedSecrets::open`].
    pub async fn unseal(&self, text: &[u8], deadline: Instant) -> Result<Arc<Plaintext>, HubError> {
        if artifact::is_one(text) {
            let none = HubError::NotNamed { reference: "of innerkeep.sealed_secrets".to_owned() };
            return self.secrets.as_ref().ok_or(none)?.open_by(text, deadline).await;
        }
        sealed_secret::unseal(text, &*self.resources, self.verification, &self.modes, deadline).await
    }

    /// Mounts an encrypted volume.
    ///
    /// # Errors
    ///
    /// `VOLUME_…`; nothing of it is left then.
    pub async fn secure_mount(&self, volume: Volume, deadline: Instant) -> Result<(), crate::Error> {
        self.volumes.mount(volume, deadline).await
    }

    /// Unmounts one and closes it.
    ///
    /// # Errors
    ///
    /// `VOLUME_…`; it stays as it is then.
    pub async fn unmount(&self, mount_point: &str) -> Result<(), crate::Error> {
        self.volumes.unmount(mount_point).await
    }

    /// The answer to a request for a layer's key.
    ///
    /// # Errors
    ///
    /// As [`key_provider::unwrap_key`].
    pub async fn unwrap_key(&self, json: &[u8], deadline: Instant) -> Result<Zeroizing<Vec<u8>>, HubError> {
        key_provider::unwrap_key(json, &*self.resources, &self.modes, deadline).await
    }
}

/// The hub on a socket.
#[derive(Debug)]
pub struct HubService {
    hub: Arc<Hub>,
    access: Access,
    credentials: Arc<Credentials>,
    refresh: Option<Duration>,
    queues: Queues,
}

impl HubService {
    /// The service of a hub under its configuration; `root` is where credentials are written below.
    #[must_use]
    pub fn new(hub: Arc<Hub>, config: &HubConfig, root: &TeeRoot) -> Self {
        let seconds = config.innerkeep.credential_refresh_seconds;
        Self {
            hub,
            access: Access::new(rustix::process::geteuid().as_raw(), config.innerkeep.peers.clone()),
            credentials: Arc::new(Credentials::new(config.credentials.clone(), root)),
            refresh: (seconds > 0).then(|| Duration::from_secs(seconds)),
            queues: Queues::new(PEER_LIMITS),
        }
    }

    /// Writes every credential: to be done before the socket is served.
    ///
    /// # Errors
    ///
    /// The first that could not be had or written.
    pub async fn write_credentials(&self) -> Result<(), HubError> {
        let deadline = Instant::now() + CREDENTIALS_DEADLINE;
        let refreshed = self.credentials.refresh(self.hub.resources(), deadline).await;
        refreshed.failed.into_iter().next().map_or(Ok(()), Err)
    }

    /// Serves a socket until `stop` is done; `ready` is called when peers can connect, `refreshed` after each later look at the credentials.
    ///
    /// # Errors
    ///
    /// `CDH_SOCKET` if the socket cannot be made, or another hub serves it.
    pub async fn serve(
        self,
        socket: &Path,
        ready: impl FnOnce(),
        refreshed: impl Fn(Refreshed) + Send + Sync + 'static,
        stop: impl Future<Output = ()>,
    ) -> Result<(), HubError> {
        let listener = bind_socket(socket, self.access.socket_mode())?;
        let _cleanup = Cleanup(socket.to_owned());
        let _background = Background::start(&self, refreshed);
        let service = Arc::new(self);
        let places = Arc::new(Semaphore::new(MAXIMUM_CONNECTIONS));
        ready();
        tokio::pin!(stop);
        loop {
            let accepted = tokio::select! {
                () = &mut stop => return Ok(()),
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                // Out of descriptors, say: connections that end will free some.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let service = Arc::clone(&service);
            let name = socket.to_string_lossy().into_owned();
            tokio::spawn(async move {
                connection(service, stream, &name).await;
                drop(place);
            });
        }
    }
}

/// Serves a connection until it ends. A peer that the kernel does not name, or that has too many connections, is not served.
async fn connection(service: Arc<HubService>, stream: UnixStream, socket: &str) {
    let Ok(peer) = Peer::of(&stream, socket) else { return };
    let queue = service.queues.of(peer.identity());
    let connection = queue.connection();
    // GUARD: hub-peer-connections -> evil_peer_takes_every_connection_of_the_hub
    if connection.is_none() {
        return;
    }
    serve_connection(stream, answer::services(service, peer, queue)).await;
    drop(connection);
}

/// What happens beside requests, until it is dropped.
struct Background(Vec<tokio::task::JoinHandle<()>>);

impl Background {
    fn start(service: &HubService, refreshed: impl Fn(Refreshed) + Send + Sync + 'static) -> Self {
        let hub = Arc::clone(&service.hub);
        let wipe = tokio::spawn(async move {
            loop {
                tokio::time::sleep(WIPE_INTERVAL).await;
                hub.resources.wipe_expired();
            }
        });
        let mut tasks = vec![wipe];
        if let Some(interval) = service.refresh.filter(|_| !service.credentials.is_empty()) {
            let (hub, credentials) = (Arc::clone(&service.hub), Arc::clone(&service.credentials));
            tasks.push(tokio::spawn(async move {
                loop {
                    tokio::time::sleep(interval).await;
                    let deadline = Instant::now() + CREDENTIALS_DEADLINE;
                    refreshed(credentials.refresh(hub.resources(), deadline).await);
                }
            }));
        }
        Self(tasks)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.0.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// Takes the socket's file away.
struct Cleanup(PathBuf);

impl Drop for Cleanup {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests;
