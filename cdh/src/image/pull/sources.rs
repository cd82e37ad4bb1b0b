//! Signatures, keys of policies and keys of layers, from where a guest has them.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

use async_trait::async_trait;
use protected_memory::secret::SecretBytes;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::image::ocicrypt::KeyUnwrap;
use crate::image::policy::cosign::{CosignLayer, SignatureLayer, signature_tag};
use crate::image::policy::{
    Cause, Digest, ImageName, LookasideConfig, Material, MaterialUri, PAYLOAD_MAX, SignatureSource,
};
use crate::key_provider::Packet;
use crate::modes::Modes;
use crate::registry::{Reference, Registry, RegistryError};
use crate::resources::ResourceSource;

/// Signatures beside the image: those of cosign in its repository, simple ones in the configured directories.
pub(super) struct Signatures<'a> {
    pub(super) registry: &'a Registry,
    pub(super) lookaside: &'a LookasideConfig,
    pub(super) deadline: Instant,
}

#[async_trait]
impl SignatureSource for Signatures<'_> {
    async fn cosign(&self, name: &ImageName, digest: &Digest) -> Result<Vec<CosignLayer>, Cause> {
        let reference = Reference::parse(&name.name())?.tagged(&signature_tag(digest))?;
        let manifest = match self.registry.pull_artifact(&reference, self.deadline).await {
            Ok(manifest) => manifest,
            Err(error) if is_missing(&error) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut signatures = Vec::new();
        for layer in SignatureLayer::parse_manifest(&manifest.bytes)? {
            let named = layer.digest.to_string();
            let descriptor = manifest.layers().iter().find(|found| found.digest.to_string() == named);
            let descriptor = descriptor.ok_or("a payload by SHA-256 or SHA-512")?;
            let most = u64::try_from(PAYLOAD_MAX)?;
            let payload = self.registry.fetch_bytes(&manifest, descriptor, most, self.deadline).await?;
            signatures.push(CosignLayer { payload, signature: layer.signature });
        }
        Ok(signatures)
    }

    async fn lookaside(&self, name: &ImageName, digest: &Digest) -> Result<Vec<Vec<u8>>, Cause> {
        let (config, name, digest) = (self.lookaside.clone(), name.clone(), digest.clone());
        tokio::task::spawn_blocking(move || config.read(&name, &digest)).await?
    }
}

/// Every place says that there is none. A place that says anything else may have withheld one.
pub(super) fn is_missing(error: &RegistryError) -> bool {
    match error {
        RegistryError::Missing { .. } => true,
        RegistryError::NoSource { tried, .. } => {
            !tried.is_empty() && tried.iter().all(|(_, error)| is_missing(error))
        }
        _ => false,
    }
}

/// Keys of a policy: resources, and files below directories that somebody vouches for.
pub(super) struct Keys<'a> {
    pub(super) resources: &'a dyn ResourceSource,
    pub(super) directories: &'a [PathBuf],
    pub(super) deadline: Instant,
}

#[async_trait]
impl Material for Keys<'_> {
    async fn read(&self, uri: &MaterialUri, maximum: usize) -> Result<Vec<u8>, Cause> {
        match uri {
            MaterialUri::Resource(uri) => {
                let found = self.resources.get(uri, self.deadline).await?;
                let bytes = found.expose();
                // GUARD: pull-key-resource-size -> evil_key_resource_of_a_huge_size
                if bytes.len() > maximum {
                    return Err(format!("expected at most {maximum} bytes, found {}", bytes.len()).into());
                }
                Ok(bytes.to_vec())
            }
            MaterialUri::File(path) => {
                let path = PathBuf::from(path);
                // GUARD: pull-key-directory -> evil_key_in_a_file_that_nobody_vouches_for
                if !self.directories.iter().any(|directory| path.starts_with(directory)) {
                    return Err(
                        "expected a resource, or a file of a directory that holds keys, found another".into(),
                    );
                }
                let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
                let file = rustix::fs::openat2(CWD, &path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
                let mut bytes = Vec::new();
                File::from(file).take(u64::try_from(maximum)?.saturating_add(1)).read_to_end(&mut bytes)?;
                // GUARD: pull-key-file-size -> evil_key_in_a_file_that_nobody_vouches_for
                if bytes.len() > maximum {
                    return Err(format!("expected at most {maximum} bytes, found more").into());
                }
                Ok(bytes)
            }
        }
    }
}

/// Keys of layers: packets of the key provider, opened in this process.
pub(super) struct Packets<'a> {
    pub(super) resources: &'a dyn ResourceSource,
    pub(super) modes: &'a Modes,
    pub(super) deadline: Instant,
}

#[async_trait]
impl KeyUnwrap for Packets<'_> {
    async fn unwrap(&self, _: &str, packet: &[u8]) -> Result<SecretBytes, Cause> {
        let options = Packet::parse(packet)?.unwrap(self.resources, self.modes, self.deadline).await?;
        let mut copy = Zeroizing::new(options.expose().to_vec());
        Ok(SecretBytes::take_from(&mut copy)?)
    }
}
