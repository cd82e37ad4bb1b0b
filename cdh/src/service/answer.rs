//! The answers to one peer.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use attestation_agent::service::{Peer, Queue, ServiceError, Turn};
use protocol::{api, artifact, keyprovider};
use tokio::time::Instant;
use ttrpc::asynchronous::{Service, TtrpcContext};

use super::status::status;
use super::{HubService, Volume};
use crate::Error;
use crate::hub_error::HubError;

/// How long a request may take, if the peer does not say less. Upstream's clients wait 50 seconds.
const DEADLINE: Duration = Duration::from_secs(45);
/// The same for images, where they wait 20 minutes.
const PULL_DEADLINE: Duration = Duration::from_secs(1190);
/// Longest name of an image, path of a bundle.
const MAXIMUM_NAME_BYTES: usize = 4096;

/// The hub as one peer sees it.
struct PeerHub {
    service: Arc<HubService>,
    peer: Peer,
    queue: Arc<Queue>,
}

/// All services, for one peer, each request within its limits.
pub(super) fn services(service: Arc<HubService>, peer: Peer, queue: Arc<Queue>) -> HashMap<String, Service> {
    let hub = Arc::new(PeerHub { service, peer, queue });
    let mut services = api::create_sealed_secret_service(Arc::clone(&hub) as _);
    services.extend(api::create_get_resource_service(Arc::clone(&hub) as _));
    services.extend(api::create_secure_mount_service(Arc::clone(&hub) as _));
    services.extend(api::create_image_pull_service(Arc::clone(&hub) as _));
    services.extend(keyprovider::create_key_provider_service(Arc::clone(&hub) as _));
    services.extend(artifact::create_artifact_service(hub));
    protocol::hub::admitted(services)
}

impl PeerHub {
    /// Whether the peer is served at all, and then its turn.
    async fn turn(&self) -> Result<Turn, HubError> {
        self.service.access.permit(&self.peer)?;
        self.queue.turn().await.map_err(|error| match error {
            ServiceError::Busy => HubError::Busy { what: "requests" },
            other => other.into(),
        })
    }
}

/// When an answer has to be there.
fn deadline(context: &TtrpcContext, most: Duration) -> Instant {
    let asked = u64::try_from(context.timeout_nano).ok().filter(|nanos| *nanos > 0).map(Duration::from_nanos);
    Instant::now() + asked.map_or(most, |asked| asked.min(most))
}

fn named(what: &'static str, text: &str) -> Result<(), Error> {
    // GUARD: hub-name-length -> evil_peer_oversize_names
    if text.len() > MAXIMUM_NAME_BYTES {
        return Err(HubError::TooLarge { what, most: MAXIMUM_NAME_BYTES, found: text.len() }.into());
    }
    Ok(())
}

#[async_trait]
impl api::SealedSecretService for PeerHub {
    async fn unseal_secret(
        &self,
        context: &TtrpcContext,
        request: api::UnsealSecretInput,
    ) -> ttrpc::Result<api::UnsealSecretOutput> {
        let answer = async {
            let _turn = self.turn().await?;
            let deadline = deadline(context, DEADLINE);
            let secret = self.service.hub.unseal(&request.secret, deadline).await?;
            // The framing below takes ownership; its copies are not wiped.
            Ok::<_, Error>(secret.expose().to_vec())
        };
        let plaintext = answer.await.map_err(|error| status("Unseal Secret failed", &error))?;
        Ok(api::UnsealSecretOutput { plaintext, ..Default::default() })
    }
}

#[async_trait]
impl api::GetResourceService for PeerHub {
    async fn get_resource(
        &self,
        context: &TtrpcContext,
        request: api::GetResourceRequest,
    ) -> ttrpc::Result<api::GetResourceResponse> {
        let answer = async {
            let _turn = self.turn().await?;
            let deadline = deadline(context, DEADLINE);
            let secret = self.service.hub.resource(&request.ResourcePath, deadline).await?;
            Ok::<_, Error>(secret.expose().to_vec())
        };
        let resource = answer.await.map_err(|error| status("Get Resource failed", &error))?;
        Ok(api::GetResourceResponse { Resource: resource, ..Default::default() })
    }
}

#[async_trait]
impl keyprovider::KeyProviderService for PeerHub {
    async fn un_wrap_key(
        &self,
        context: &TtrpcContext,
        request: keyprovider::KeyProviderKeyWrapProtocolInput,
    ) -> ttrpc::Result<keyprovider::KeyProviderKeyWrapProtocolOutput> {
        let answer = async {
            let _turn = self.turn().await?;
            let deadline = deadline(context, DEADLINE);
            let json = &request.KeyProviderKeyWrapProtocolInput;
            let mut answer = self.service.hub.unwrap_key(json, deadline).await?;
            Ok::<_, Error>(std::mem::take(&mut *answer))
        };
        let json = answer.await.map_err(|error| status("Decrypt Image (UnwrapKey) failed", &error))?;
        Ok(keyprovider::KeyProviderKeyWrapProtocolOutput {
            KeyProviderKeyWrapProtocolOutput: json,
            ..Default::default()
        })
    }
}

#[async_trait]
impl api::SecureMountService for PeerHub {
    async fn secure_mount(
        &self,
        context: &TtrpcContext,
        request: api::SecureMountRequest,
    ) -> ttrpc::Result<api::SecureMountResponse> {
        let answer = async {
            let _turn = self.turn().await?;
            named("mount_point", &request.mount_point)?;
            let volume = Volume {
                kind: request.volume_type,
                options: request.options.into_iter().collect(),
                flags: request.flags,
                mount_point: request.mount_point,
            };
            self.service.hub.secure_mount(volume, deadline(context, DEADLINE)).await
        };
        answer.await.map_err(|error| status("Secure Mount failed", &error))?;
        Ok(api::SecureMountResponse::default())
    }
}

#[async_trait]
impl api::ImagePullService for PeerHub {
    async fn pull_image(
        &self,
        context: &TtrpcContext,
        request: api::ImagePullRequest,
    ) -> ttrpc::Result<api::ImagePullResponse> {
        let answer = async {
            let _turn = self.turn().await?;
            named("image_url", &request.image_url)?;
            named("bundle_path", &request.bundle_path)?;
            let deadline = deadline(context, PULL_DEADLINE);
            self.service.hub.images.pull(&request.image_url, Path::new(&request.bundle_path), deadline).await
        };
        let manifest_digest = answer.await.map_err(|error| status("Image Pull error", &error))?;
        Ok(api::ImagePullResponse { manifest_digest, ..Default::default() })
    }
}

const ARTIFACT: &str = "Artifact failed";

#[async_trait]
impl artifact::ArtifactService for PeerHub {
    async fn land(
        &self,
        _context: &TtrpcContext,
        request: artifact::ArtifactLandRequest,
    ) -> ttrpc::Result<artifact::ArtifactLandResponse> {
        let answer = async {
            let _turn = self.turn().await?;
            named("reference", &request.reference)?;
            named("family", &request.family)?;
            self.service.hub.artifacts.land(self.peer.identity(), request).await
        };
        let job = answer.await.map_err(|error| status(ARTIFACT, &error))?;
        Ok(artifact::ArtifactLandResponse { job, ..Default::default() })
    }

    async fn status(
        &self,
        _context: &TtrpcContext,
        request: artifact::ArtifactStatusRequest,
    ) -> ttrpc::Result<artifact::ArtifactStatusResponse> {
        let answer = async {
            let _turn = self.turn().await?;
            self.service.hub.artifacts.status(self.peer.identity(), request.job).await
        };
        answer.await.map_err(|error| status(ARTIFACT, &error))
    }

    async fn open(
        &self,
        _context: &TtrpcContext,
        request: artifact::ArtifactOpenRequest,
    ) -> ttrpc::Result<artifact::ArtifactOpenResponse> {
        let answer = async {
            let _turn = self.turn().await?;
            self.service.hub.artifacts.open(self.peer.identity(), self.peer.uid, request).await
        };
        answer.await.map_err(|error| status(ARTIFACT, &error))
    }

    async fn release(
        &self,
        _context: &TtrpcContext,
        request: artifact::ArtifactReleaseRequest,
    ) -> ttrpc::Result<artifact::ArtifactReleaseResponse> {
        let answer = async {
            let _turn = self.turn().await?;
            self.service.hub.artifacts.release(self.peer.identity(), request.job).await
        };
        answer.await.map_err(|error| status(ARTIFACT, &error))?;
        Ok(artifact::ArtifactReleaseResponse::default())
    }
}
