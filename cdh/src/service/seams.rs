//! What the hub serves and others do: images, volumes, artifacts.

use std::collections::BTreeMap;
use std::path::Path;

use async_trait::async_trait;
use attestation_agent::report_data::WorkloadIdentity;
use protocol::artifact::{
    ArtifactLandRequest, ArtifactOpenRequest, ArtifactOpenResponse, ArtifactStatusResponse,
};
use tokio::time::Instant;

use crate::Error;
use crate::hub_error::HubError;

/// Pulls images.
#[async_trait]
pub trait Images: Send + Sync {
    /// Pulls an image and makes `config.json` and `rootfs` in `bundle`, a directory that the caller made. The digest of the manifest,
    /// `sha256:…`. Nothing is in the bundle after an error, and nothing happens after the deadline.
    ///
    /// # Errors
    ///
    /// Whatever refuses or fails.
    async fn pull(&self, image: &str, bundle: &Path, deadline: Instant) -> Result<String, Error>;
}

/// A volume as a peer asked for it. Nothing of it was looked at, beyond its lengths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// `block-device` and the like.
    pub kind: String,
    /// Its options; at most 64.
    pub options: BTreeMap<String, String>,
    /// Flags; at most 64.
    pub flags: Vec<String>,
    /// Where it is to be mounted.
    pub mount_point: String,
}

/// Mounts volumes.
#[async_trait]
pub trait Volumes: Send + Sync {
    /// Mounts a volume. Nothing of it is left after an error.
    ///
    /// # Errors
    ///
    /// Whatever refuses or fails.
    async fn mount(&self, volume: Volume, deadline: Instant) -> Result<(), Error>;

    /// Unmounts one, and closes what is below it. It stays as it is after an error.
    ///
    /// # Errors
    ///
    /// Somebody uses it; there is none.
    async fn unmount(&self, mount_point: &str) -> Result<(), Error>;
}

/// Lands sealed artifacts that bound initdata names. A job is its owner's alone.
#[async_trait]
pub trait Artifacts: Send + Sync {
    /// Begins; the number of the job.
    ///
    /// # Errors
    ///
    /// `CDH_ARTIFACT_NOT_NAMED`, `CDH_BUSY`.
    async fn land(&self, owner: WorkloadIdentity, order: ArtifactLandRequest) -> Result<u64, Error>;

    /// How far it is.
    ///
    /// # Errors
    ///
    /// `CDH_JOB_UNKNOWN`.
    async fn status(&self, owner: WorkloadIdentity, job: u64) -> Result<ArtifactStatusResponse, Error>;

    /// A ticket for one file.
    ///
    /// # Errors
    ///
    /// `CDH_JOB_UNKNOWN`, `CDH_JOB_STATE`.
    async fn open(
        &self,
        owner: WorkloadIdentity,
        uid: u32,
        order: ArtifactOpenRequest,
    ) -> Result<ArtifactOpenResponse, Error>;

    /// Gives it up.
    ///
    /// # Errors
    ///
    /// `CDH_JOB_UNKNOWN`.
    async fn release(&self, owner: WorkloadIdentity, job: u64) -> Result<(), Error>;
}

/// None of it.
#[derive(Clone, Copy, Debug)]
pub struct NotAvailable;

fn not_available<T>(what: &'static str) -> Result<T, Error> {
    Err(HubError::NotAvailable { what }.into())
}

#[async_trait]
impl Images for NotAvailable {
    async fn pull(&self, _: &str, _: &Path, _: Instant) -> Result<String, Error> {
        not_available("pulling of images")
    }
}

#[async_trait]
impl Volumes for NotAvailable {
    async fn mount(&self, _: Volume, _: Instant) -> Result<(), Error> {
        not_available("mounting of volumes")
    }

    async fn unmount(&self, _: &str) -> Result<(), Error> {
        not_available("mounting of volumes")
    }
}

#[async_trait]
impl Artifacts for NotAvailable {
    async fn land(&self, _: WorkloadIdentity, _: ArtifactLandRequest) -> Result<u64, Error> {
        not_available("landing of artifacts")
    }

    async fn status(&self, _: WorkloadIdentity, _: u64) -> Result<ArtifactStatusResponse, Error> {
        Err(HubError::JobUnknown.into())
    }

    async fn open(
        &self,
        _: WorkloadIdentity,
        _: u32,
        _: ArtifactOpenRequest,
    ) -> Result<ArtifactOpenResponse, Error> {
        Err(HubError::JobUnknown.into())
    }

    async fn release(&self, _: WorkloadIdentity, _: u64) -> Result<(), Error> {
        Err(HubError::JobUnknown.into())
    }
}
