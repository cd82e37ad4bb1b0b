//! Carriers in memory, for tests and vectors: the procedure of the specification's section 12, step 1.

use crate::core::Core;
use crate::digest::BlobDigest;
use crate::error::{ArtifactError, Found};
use crate::fixture::Artifact;
use crate::oci::{ArtifactManifest, Descriptor, EMPTY_BLOB, ImageIndex, Referrer, ReferrerKind, referrers};
use crate::sealed_file::{Current, Directory, HEADER, Region, Slot};

/// What a carrier carries.
pub(crate) struct Carried {
    pub(crate) core: Vec<u8>,
    pub(crate) grants: Vec<Vec<u8>>,
    pub(crate) payloads: Vec<Vec<u8>>,
    pub(crate) signature: Option<Vec<u8>>,
    pub(crate) tags: Vec<Vec<u8>>,
}

fn cut(file: &[u8], region: Region) -> Vec<u8> {
    let start = usize::try_from(region.offset).unwrap();
    file[start..start + usize::try_from(region.length).unwrap()].to_vec()
}

pub(crate) fn from_file(file: &[u8]) -> Result<Carried, ArtifactError> {
    let header = &file[..file.len().min(usize::try_from(HEADER).unwrap())];
    let found = Current::find(header, crate::error::length(file), |region| {
        Ok::<_, ArtifactError>(cut(file, region))
    })?;
    let directory = found.directory;
    directory.require_payloads(&Core::parse(&cut(file, directory.core))?)?;
    let all = |regions: &[Region]| regions.iter().map(|region| cut(file, *region)).collect();
    Ok(Carried {
        core: cut(file, directory.core),
        grants: all(&directory.grants),
        payloads: all(&directory.payloads),
        signature: directory.signature.map(|region| cut(file, region)),
        tags: all(&directory.tags),
    })
}

fn blob(blobs: &[&[u8]], descriptor: &Descriptor) -> Result<Vec<u8>, ArtifactError> {
    let found = blobs.iter().find(|blob| BlobDigest::of(blob) == descriptor.digest);
    let missing = || ArtifactError::CarrierCorrupt {
        expected: "a blob for each descriptor",
        found: Found::value(descriptor.digest),
    };
    found.map(|blob| blob.to_vec()).ok_or_else(missing)
}

pub(crate) fn from_layout(index: &[u8], tag: &str, blobs: &[&[u8]]) -> Result<Carried, ArtifactError> {
    let index = ImageIndex::parse(index)?;
    let entry = index.artifact(Some(tag))?;
    let manifest = ArtifactManifest::parse(&blob(blobs, entry)?)?;
    let core = blob(blobs, manifest.core())?;
    let payloads = manifest.payloads(&Core::parse(&core)?)?;
    let found = referrers(&index, entry.digest, |descriptor| blob(blobs, descriptor))?;
    let read = |descriptor: &Descriptor| blob(blobs, descriptor);
    Ok(Carried {
        grants: found.grants.iter().map(|(_, grant)| read(grant)).collect::<Result<_, _>>()?,
        payloads: payloads.iter().map(|payload| read(&payload.ciphertext)).collect::<Result<_, _>>()?,
        signature: found.signature.as_ref().map(read).transpose()?,
        tags: payloads.iter().map(|payload| read(&payload.tags)).collect::<Result<_, _>>()?,
        core,
    })
}

/// A `.sealed` file of an artifact, with its directory in slot A.
pub(crate) fn file_of(artifact: &Artifact, signature: Option<&[u8]>, grants: &[Vec<u8>]) -> Vec<u8> {
    let lengths = |blobs: &[Vec<u8>]| blobs.iter().map(|blob| crate::error::length(blob)).collect::<Vec<_>>();
    let directory = Directory::plan(
        crate::error::length(artifact.core.bytes()),
        &lengths(&artifact.payloads),
        &lengths(&artifact.tags),
        signature.map(crate::error::length),
        &lengths(grants),
    );
    let mut file = vec![0; usize::try_from(directory.end()).unwrap()];
    let mut put = |region: &Region, bytes: &[u8]| {
        let start = usize::try_from(region.offset).unwrap();
        file[start..start + bytes.len()].copy_from_slice(bytes);
    };
    put(&directory.core, artifact.core.bytes());
    if let (Some(region), Some(signature)) = (&directory.signature, signature) {
        put(region, signature);
    }
    let pairs = |regions: &[Region]| regions.to_vec();
    for (region, bytes) in pairs(&directory.payloads).iter().zip(&artifact.payloads) {
        put(region, bytes);
    }
    for (region, bytes) in directory.tags.iter().zip(&artifact.tags) {
        put(region, bytes);
    }
    for (region, bytes) in directory.grants.iter().zip(grants) {
        put(region, bytes);
    }
    let encoded = directory.encode();
    let slot = Slot::new(1, directory.end(), &encoded).encode();
    file[..slot.len()].copy_from_slice(&slot);
    file.extend(encoded);
    file
}

/// An image layout of an artifact: `index.json` and blobs.
pub(crate) fn layout_of(
    artifact: &Artifact,
    tag: &str,
    signature: Option<&[u8]>,
    grants: &[Vec<u8>],
) -> (ImageIndex, Vec<Vec<u8>>) {
    let digests: Vec<BlobDigest> = artifact.payloads.iter().map(|blob| BlobDigest::of(blob)).collect();
    let manifest = ArtifactManifest::build(&artifact.core, &digests).unwrap();
    let mut index = ImageIndex::new();
    index.set_artifact(tag, &manifest.descriptor);
    let mut blobs = vec![artifact.core.bytes().to_vec(), manifest.bytes.clone(), EMPTY_BLOB.to_vec()];
    blobs.extend(artifact.payloads.iter().chain(&artifact.tags).cloned());
    let signature = signature.map(|signature| (ReferrerKind::Signature, signature.to_vec()));
    let grants = grants.iter().map(|grant| (ReferrerKind::Grant, grant.clone()));
    for (kind, object) in signature.into_iter().chain(grants) {
        let referrer = Referrer::build(kind, &manifest.descriptor, &object);
        index.add_referrer(&referrer.descriptor);
        blobs.extend([object, referrer.bytes]);
    }
    (index, blobs)
}
