//! The OCI image layout: `oci-layout`, `index.json`, `blobs/sha256/…`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use sealed_artifact::core::{Core, MAXIMUM_CORE};
use sealed_artifact::digest::BlobDigest;
use sealed_artifact::oci::{
    ArtifactManifest, BuiltManifest, Descriptor, EMPTY_BLOB, ImageIndex, MAXIMUM_MANIFEST, OCI_LAYOUT,
    PayloadBlobs, Referrer, ReferrerKind, referrers,
};
use tempfile::NamedTempFile;

use super::blob::{Blob, open_below};
use super::{Carrier, Finished, Opened, require_length};
use crate::Error;
use crate::files;

const INDEX: &str = "index.json";
const BLOBS: &str = "blobs/sha256";

/// A layout that is open for reading and for changing grants.
#[derive(Debug)]
pub(super) struct Layout {
    root: PathBuf,
    directory: File,
    artifact: Descriptor,
    payloads: Vec<PayloadBlobs>,
    /// Grants: digest of the object and of its manifest.
    grants: Vec<(BlobDigest, BlobDigest)>,
}

/// Opens the artifact with a tag, or the only one.
pub(super) fn open(root: &Path, tag: Option<&str>) -> Result<Opened, Error> {
    let directory = File::open(root).map_err(Error::file("open the image layout", root))?;
    open_directory(directory, root, tag)
}

/// As [`open`], for a directory that is open.
pub(super) fn open_directory(directory: File, root: &Path, tag: Option<&str>) -> Result<Opened, Error> {
    let index = read_index(&directory, root)?;
    let artifact = index.artifact(tag)?.clone();
    let read = |descriptor: &Descriptor, cap| read_blob(&directory, root, descriptor, cap);
    let manifest = ArtifactManifest::parse(&read(&artifact, MAXIMUM_MANIFEST)?)?;
    let core = read(manifest.core(), MAXIMUM_CORE)?;
    let payloads = manifest.payloads(&Core::parse(&core)?)?;
    let found = referrers(&index, artifact.digest, |descriptor| read(descriptor, MAXIMUM_MANIFEST))?;
    let signature =
        found.signature.as_ref().map(|blob| read(blob, ReferrerKind::Signature.maximum())).transpose()?;
    let mut grants = Vec::new();
    let mut objects = Vec::new();
    for (manifest, blob) in &found.grants {
        // A grant that cannot be read hides no other.
        let Ok(bytes) = read(blob, ReferrerKind::Grant.maximum()) else { continue };
        objects.push((blob.digest, *manifest));
        grants.push(bytes);
    }
    let layout = Layout { root: root.to_owned(), directory, artifact, payloads, grants: objects };
    Ok(Opened { core, signature, grants, carrier: Carrier::Layout(layout) })
}

impl Layout {
    fn blobs(&self, index: usize) -> Result<&PayloadBlobs, Error> {
        self.payloads.get(index).ok_or(Error::Usage {
            argument: "payload",
            expected: "a payload of the core",
            found: index.to_string(),
        })
    }

    pub(super) fn payload(&self, index: usize) -> Result<Blob, Error> {
        let stated = self.blobs(index)?.ciphertext.digest;
        let path = stated.layout_path();
        let file = open_below(&self.directory, &self.root, &path, false)?;
        let path = self.root.join(path);
        let length = file.metadata().map_err(Error::file("look at the ciphertext", &path))?.len();
        Ok(Blob { file, path, offset: 0, length, stated: Some(stated) })
    }

    pub(super) fn tag_table(&self, index: usize, length: u64) -> Result<Vec<u8>, Error> {
        let path = self.blobs(index)?.tags.digest.layout_path();
        let file = open_below(&self.directory, &self.root, &path, false)?;
        let found = file.metadata().map_err(Error::file("look at", self.root.join(&path)))?.len();
        require_length("tag table", index, length, found)?;
        read_below(&self.directory, &self.root, &path, length)
    }

    pub(super) fn add_grant(&mut self, grant: &[u8]) -> Result<(), Error> {
        let manifest = Referrer::build(ReferrerKind::Grant, &self.artifact, grant);
        write_blob(&self.root, grant)?;
        write_blob(&self.root, EMPTY_BLOB)?;
        write_blob(&self.root, &manifest.bytes)?;
        let mut index = read_index(&self.directory, &self.root)?;
        index.add_referrer(&manifest.descriptor);
        self.grants.push((BlobDigest::of(grant), manifest.descriptor.digest));
        write_index(&self.root, &index)
    }

    pub(super) fn remove_grant(&self, digest: &str) -> Result<bool, Error> {
        let Some((object, manifest)) =
            self.grants.iter().find(|(object, _)| object.to_string() == digest).copied()
        else {
            return Ok(false);
        };
        let mut index = read_index(&self.directory, &self.root)?;
        let removed = index.remove(manifest);
        write_index(&self.root, &index)?;
        for blob in [manifest, object] {
            let path = self.root.join(blob.layout_path());
            std::fs::remove_file(&path).map_err(Error::file("remove", &path))?;
        }
        Ok(removed)
    }
}

fn read_below(directory: &File, root: &Path, path: &str, cap: u64) -> Result<Vec<u8>, Error> {
    let shown = root.join(path);
    let file = open_below(directory, root, path, false)?;
    let mut bytes = Vec::new();
    file.take(cap.saturating_add(1)).read_to_end(&mut bytes).map_err(Error::file("read", &shown))?;
    let found = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    // GUARD: store-read-cap -> evil_oversized_index_is_refused
    if found > cap {
        let error = sealed_artifact::ArtifactError::LimitExceeded {
            what: "size of a stored object",
            minimum: 0,
            maximum: cap,
            found,
        };
        return Err(Error::Artifact(error));
    }
    Ok(bytes)
}

fn read_index(directory: &File, root: &Path) -> Result<ImageIndex, Error> {
    Ok(ImageIndex::parse(&read_below(directory, root, INDEX, MAXIMUM_MANIFEST)?)?)
}

/// Reads a small blob and compares its digest.
fn read_blob(directory: &File, root: &Path, descriptor: &Descriptor, cap: u64) -> Result<Vec<u8>, Error> {
    descriptor.capped_size(cap)?;
    let bytes = read_below(directory, root, &descriptor.digest.layout_path(), cap)?;
    descriptor.verify(&bytes)?;
    Ok(bytes)
}

fn write_blob(root: &Path, bytes: &[u8]) -> Result<BlobDigest, Error> {
    let digest = BlobDigest::of(bytes);
    let path = root.join(digest.layout_path());
    // A blob that is there whole is left as it is: others may refer to it.
    let cap = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if !files::read("look at a blob", &path, cap).is_ok_and(|found| found == bytes) {
        files::replace("write a blob", &path, bytes)?;
    }
    Ok(digest)
}

fn write_index(root: &Path, index: &ImageIndex) -> Result<(), Error> {
    files::replace("write the index", &root.join(INDEX), &index.encode())
}

/// A layout that gets an artifact.
#[derive(Debug)]
pub struct LayoutWriter {
    root: PathBuf,
    tag: String,
    partial: Vec<NamedTempFile>,
    digests: Vec<BlobDigest>,
}

impl LayoutWriter {
    pub(super) fn create(root: &Path, tag: &str, payloads: usize) -> Result<Self, Error> {
        let blobs = root.join(BLOBS);
        std::fs::create_dir_all(&blobs).map_err(Error::file("create the image layout", root))?;
        if root.join(INDEX).exists() {
            read_index(&File::open(root).map_err(Error::file("open the image layout", root))?, root)?;
        }
        let partial = (0..payloads)
            .map(|_| {
                tempfile::Builder::new()
                    .prefix(".partial-")
                    .tempfile_in(&blobs)
                    .map_err(Error::file("create a blob in", &blobs))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { root: root.to_owned(), tag: tag.to_owned(), partial, digests: Vec::new() })
    }

    pub(super) fn sink(&self, index: usize) -> Result<(&File, u64, &Path), Error> {
        let partial = self.partial.get(index).ok_or(Error::Usage {
            argument: "payload",
            expected: "a payload",
            found: index.to_string(),
        })?;
        Ok((partial.as_file(), 0, partial.path()))
    }

    pub(super) fn payload_done(&mut self, index: usize) -> Result<(), Error> {
        let (file, _, path) = self.sink(index)?;
        let file = file.try_clone().map_err(Error::file("read back", path))?;
        let length = file.metadata().map_err(Error::file("read back", path))?.len();
        let blob = Blob { file, path: path.to_owned(), offset: 0, length, stated: None };
        self.digests.push(blob.digest(|_| ())?);
        Ok(())
    }

    pub(super) fn finish(self, finished: &Finished<'_>) -> Result<(), Error> {
        let Self { root, tag, partial, digests } = self;
        for (partial, digest) in partial.into_iter().zip(&digests) {
            let path = root.join(digest.layout_path());
            partial.as_file().sync_all().map_err(Error::file("write the ciphertext", &path))?;
            files::set_mode(partial.as_file(), "write the ciphertext", &path)?;
            partial
                .persist(&path)
                .map_err(|error| Error::file("write the ciphertext", &path)(error.error))?;
        }
        for tags in finished.tag_tables {
            write_blob(&root, tags.bytes())?;
        }
        write_blob(&root, finished.core.bytes())?;
        let manifest = match finished.image {
            Some((media_type, config)) => {
                write_blob(&root, config)?;
                let config = Descriptor::of(media_type, config);
                ArtifactManifest::build_image(finished.core, config, &digests)?
            }
            None => ArtifactManifest::build(finished.core, &digests)?,
        };
        write_blob(&root, &manifest.bytes)?;
        let signature = finished
            .signature
            .map(|signature| write_signature(&root, &manifest, &signature.encode()))
            .transpose()?;
        files::replace("write", &root.join("oci-layout"), OCI_LAYOUT.as_bytes())?;
        let mut index = if root.join(INDEX).exists() {
            read_index(&File::open(&root).map_err(Error::file("open the image layout", &root))?, &root)?
        } else {
            ImageIndex::new()
        };
        if finished.image.is_some() {
            index.set_image(&tag, &manifest.descriptor);
        } else {
            index.set_artifact(&tag, &manifest.descriptor);
        }
        if let Some(signature) = &signature {
            index.add_referrer(&signature.descriptor);
        }
        write_index(&root, &index)
    }
}

fn write_signature(root: &Path, manifest: &BuiltManifest, signature: &[u8]) -> Result<BuiltManifest, Error> {
    let referrer = Referrer::build(ReferrerKind::Signature, &manifest.descriptor, signature);
    write_blob(root, signature)?;
    write_blob(root, EMPTY_BLOB)?;
    write_blob(root, &referrer.bytes)?;
    Ok(referrer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evil_oversized_index_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(INDEX), [b' '; 65]).unwrap();
        let open = File::open(directory.path()).unwrap();
        let error = read_below(&open, directory.path(), INDEX, 64).unwrap_err();
        assert_eq!(error.code(), "LIMIT_EXCEEDED");
        assert_eq!(read_below(&open, directory.path(), INDEX, 65).unwrap().len(), 65);
    }
}
