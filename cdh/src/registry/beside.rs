//! What is beside an artifact or an image with sealed layers: its core, and the signature and grants that refer to its manifest.

use sealed_artifact::core::MAXIMUM_CORE;
use sealed_artifact::oci::{MAXIMUM_MANIFEST, Referrer, ReferrerKind};
use tokio::time::Instant;

use super::Registry;
use super::client::{Access, Repository};
use super::digest::Digest;
use super::error::{RegistryClass, RegistryError};
use super::graph::referrers_of;
use super::manifest::Descriptor;
use super::pull::{VerifiedManifest, manifest_of, small_blob};
use super::retry::Retry;
use crate::artifact::Beside;

/// Most bytes of all grants.
const GRANTS_MAX: usize = 16 << 20;

impl Registry {
    /// The core at `descriptor`, and what refers to the manifest. Nothing of it is trusted; a registry may withhold what it likes.
    ///
    /// # Errors
    ///
    /// See the codes of [`crate::registry`]. Referrers that are damaged are passed over: one does not hide the others.
    pub async fn fetch_beside(
        &self,
        manifest: &VerifiedManifest,
        core: &Descriptor,
        deadline: Instant,
    ) -> Result<Beside, RegistryError> {
        let core = self.fetch_bytes(manifest, core, MAXIMUM_CORE, deadline).await?;
        let mut last = None;
        for source in &manifest.sources {
            let repository = self.repository(source, Access::Pull)?;
            let mut retry = Retry::new(deadline);
            loop {
                let mut beside = Beside { core: core.clone(), ..Beside::default() };
                match referring(&repository, &manifest.digest, &mut beside, deadline).await {
                    // A mirror of images need not have them.
                    Ok(()) if beside.grants.is_empty() => {
                        if beside.signature.is_some() || last.is_none() {
                            last = Some(Ok(beside));
                        }
                        break;
                    }
                    Ok(()) => return Ok(beside),
                    Err(error) => {
                        if let Err(error) = retry.after(error).await {
                            last.get_or_insert(Err(error));
                            break;
                        }
                    }
                }
            }
        }
        last.unwrap_or_else(|| Ok(Beside { core, ..Beside::default() }))
    }
}

async fn referring(
    repository: &Repository<'_>,
    subject: &Digest,
    beside: &mut Beside,
    deadline: Instant,
) -> Result<(), RegistryError> {
    let mut total = 0_usize;
    for described in referrers_of(repository, subject, deadline).await? {
        match object_of(repository, subject, &described, deadline).await {
            Ok(Some((ReferrerKind::Grant, bytes))) => {
                total = total.saturating_add(bytes.len());
                // GUARD: beside-bytes -> evil_registry_lists_grants_without_end
                if total > GRANTS_MAX {
                    let maximum = u64::try_from(GRANTS_MAX).unwrap_or(u64::MAX);
                    let found = u64::try_from(total).unwrap_or(u64::MAX);
                    return Err(RegistryError::TooLarge {
                        what: "grants beside an artifact",
                        maximum,
                        found,
                    });
                }
                beside.grants.push(bytes);
            }
            Ok(Some((ReferrerKind::Signature, bytes))) => {
                beside.signature.get_or_insert(bytes);
            }
            Ok(None) => {}
            Err(error) => match error.class() {
                RegistryClass::Local | RegistryClass::Transient => return Err(error),
                _ => {}
            },
        }
    }
    Ok(())
}

async fn object_of(
    repository: &Repository<'_>,
    subject: &Digest,
    described: &Descriptor,
    deadline: Instant,
) -> Result<Option<(ReferrerKind, Vec<u8>)>, RegistryError> {
    if described.size > MAXIMUM_MANIFEST {
        return Ok(None);
    }
    let selector = described.digest.to_string();
    let found = manifest_of(repository, &selector, Some(&described.digest), deadline).await?;
    let Ok(Some(referrer)) = Referrer::parse(&found.bytes) else { return Ok(None) };
    // GUARD: beside-subject -> evil_registry_lists_grants_of_another_artifact
    if referrer.subject.to_string() != subject.to_string() {
        return Ok(None);
    }
    let blob = Descriptor {
        media_type: referrer.kind.media_type().to_owned(),
        digest: Digest::parse(&referrer.blob.digest.to_string())?,
        size: referrer.blob.size,
        annotations: std::collections::BTreeMap::new(),
        platform: None,
    };
    Ok(Some((referrer.kind, small_blob(repository, &blob, referrer.kind.maximum(), deadline).await?)))
}
