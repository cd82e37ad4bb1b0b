//! Where artifacts live: an OCI image layout or a single `.sealed` file. Everything read from them is untrusted.

mod blob;
mod carry;
mod file;
mod oci;

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use sealed_artifact::core::Core;
use sealed_artifact::grant::Grant;
use sealed_artifact::signature::Signature;
use sealed_artifact::tags::TagTable;

pub use blob::Blob;
pub use carry::carry;
pub use file::FileWriter;
pub use oci::LayoutWriter;

use crate::Error;

/// Tag that is used when none is given.
const DEFAULT_TAG: &str = "latest";

/// What a user names an artifact by: `DIR`, `DIR:TAG` or `FILE.sealed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// A single file.
    File(PathBuf),
    /// An image layout, and a tag if one was given.
    Layout(PathBuf, Option<String>),
}

impl Reference {
    /// Parses a command line argument.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let usage = || Error::Usage {
            argument: "REFERENCE",
            expected: "DIR, DIR:TAG or FILE.sealed",
            found: text.to_owned(),
        };
        if text.is_empty() {
            return Err(usage());
        }
        if text.ends_with(".sealed") {
            return Ok(Self::File(text.into()));
        }
        match text.rsplit_once(':') {
            Some((directory, tag)) if !tag.contains('/') => {
                let fitting =
                    |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
                if directory.is_empty() || tag.is_empty() || tag.len() > 128 || !tag.chars().all(fitting) {
                    return Err(usage());
                }
                Ok(Self::Layout(directory.into(), Some(tag.to_owned())))
            }
            _ => Ok(Self::Layout(text.into(), None)),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Layout(path, None) => write!(f, "{}", path.display()),
            Self::Layout(path, Some(tag)) => write!(f, "{}:{tag}", path.display()),
        }
    }
}

/// A grant and how the store names it.
#[derive(Clone, Debug)]
pub struct StoredGrant {
    /// `sha256:…` of the grant's bytes.
    pub digest: String,
    /// The grant.
    pub grant: Grant,
}

/// An artifact that was opened for reading.
#[derive(Debug)]
pub struct Store {
    /// The core, parsed; its origin is not yet judged.
    pub core: Core,
    /// The signature, parsed and not yet verified.
    pub signature: Option<Signature>,
    /// Grants that could be parsed.
    pub grants: Vec<StoredGrant>,
    carrier: Carrier,
}

#[derive(Debug)]
enum Carrier {
    File(file::SealedFile),
    Layout(oci::Layout),
    Parts(Box<dyn Parts>),
    /// Nothing of payloads is here yet.
    None,
}

/// Payloads that somebody else has: a store of blobs, a registry. Nothing of them is trusted.
pub trait Parts: fmt::Debug + Send + Sync {
    /// A payload's ciphertext.
    ///
    /// # Errors
    ///
    /// There is none.
    fn payload(&self, index: usize) -> Result<Blob, Error>;

    /// A payload's tag table, which has to be `length` bytes long.
    ///
    /// # Errors
    ///
    /// `LENGTH_MISMATCH`, or there is none.
    fn tag_table(&self, index: usize, length: u64) -> Result<Vec<u8>, Error>;

    /// A payload's ciphertext, where it is no file.
    fn ranges(&self, _index: usize) -> Option<&dyn Ranges> {
        None
    }
}

/// Ciphertext that is somewhere else, read from any number of threads, each byte once.
pub trait Ranges: Send + Sync {
    /// Fills the buffer with the bytes at an offset. Not for threads of an async runtime.
    ///
    /// # Errors
    ///
    /// They cannot be had.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Error>;
}

/// The small objects of an artifact: what decides whether anything else is looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    /// The core.
    pub core: Vec<u8>,
    /// The signature, if there is one.
    pub signature: Option<Vec<u8>>,
    /// Grants.
    pub grants: Vec<Vec<u8>>,
}

/// What a carrier hands over when it is opened.
struct Opened {
    core: Vec<u8>,
    signature: Option<Vec<u8>>,
    grants: Vec<Vec<u8>>,
    carrier: Carrier,
}

impl Store {
    /// Opens an artifact and parses everything but payloads and tag tables.
    ///
    /// # Errors
    ///
    /// The carrier cannot be read, or something in it is not of its form.
    pub fn open(reference: &Reference) -> Result<Self, Error> {
        let opened = match reference {
            Reference::File(path) => file::open(path)?,
            Reference::Layout(path, tag) => oci::open(path, tag.as_deref())?,
        };
        Self::parse(opened)
    }

    /// As [`Store::open`], for a `.sealed` file that is open. `name` is for messages.
    ///
    /// # Errors
    ///
    /// As [`Store::open`].
    pub fn of_file(file: File, name: &Path) -> Result<Self, Error> {
        Self::parse(file::open_file(file, name)?)
    }

    /// As [`Store::open`], for a relative reference below a directory that somebody else fills: no symbolic link, nothing outside of the
    /// directory and no other file system is followed. `root` is the directory's path for messages.
    ///
    /// # Errors
    ///
    /// As [`Store::open`].
    pub fn open_below(directory: &File, root: &Path, reference: &Reference) -> Result<Self, Error> {
        Self::parse(match reference {
            Reference::File(path) => {
                let file = blob::open_at(directory, root, path)?;
                file::open_file(file, &root.join(path))?
            }
            Reference::Layout(path, tag) => {
                let layout = blob::directory_at(directory, root, path)?;
                oci::open_directory(layout, &root.join(path), tag.as_deref())?
            }
        })
    }

    /// An artifact whose small objects somebody fetched. Its payloads are not here before [`Store::with_parts`].
    ///
    /// # Errors
    ///
    /// Core or signature is not of its form.
    pub fn of_parts(beside: Beside) -> Result<Self, Error> {
        let Beside { core, signature, grants } = beside;
        Self::parse(Opened { core, signature, grants, carrier: Carrier::None })
    }

    /// With these payloads.
    #[must_use]
    pub fn with_parts(self, parts: Box<dyn Parts>) -> Self {
        Self { carrier: Carrier::Parts(parts), ..self }
    }

    /// Opens a regular file below a directory that somebody else fills, as [`Store::open_below`] does.
    ///
    /// # Errors
    ///
    /// There is none, or something else.
    pub fn file_below(directory: &File, root: &Path, path: &Path) -> Result<File, Error> {
        blob::open_at(directory, root, path)
    }

    fn parse(opened: Opened) -> Result<Self, Error> {
        // A grant that cannot be parsed hides no other: anyone may put one there.
        let grants = opened.grants.iter().filter_map(|bytes| {
            Some(StoredGrant { digest: digest(bytes), grant: Grant::parse(bytes).ok()? })
        });
        Ok(Self {
            core: Core::parse(&opened.core)?,
            signature: opened.signature.as_deref().map(Signature::parse).transpose()?,
            grants: grants.collect(),
            carrier: opened.carrier,
        })
    }

    /// A payload's ciphertext; its length is the core's.
    ///
    /// # Errors
    ///
    /// `LENGTH_MISMATCH`, or the carrier has none.
    pub fn payload(&self, index: usize) -> Result<Blob, Error> {
        let blob = match &self.carrier {
            Carrier::File(file) => file.payload(index)?,
            Carrier::Layout(layout) => layout.payload(index)?,
            Carrier::Parts(parts) => parts.payload(index)?,
            Carrier::None => return Err(elsewhere()),
        };
        let expected =
            self.core.parameters().payloads().get(index).map_or(0, |payload| payload.layout.size());
        require_length("ciphertext", index, expected, blob.length)?;
        Ok(blob)
    }

    /// A payload's ciphertext, where it is no file: [`Store::payload`] has none then.
    #[must_use]
    pub fn ranges(&self, index: usize) -> Option<&dyn Ranges> {
        match &self.carrier {
            Carrier::Parts(parts) => parts.ranges(index),
            _ => None,
        }
    }

    /// A payload's tag table, unverified, at most as long as the core allows.
    pub fn tag_table(&self, index: usize) -> Result<Vec<u8>, Error> {
        let cap = self
            .core
            .parameters()
            .payloads()
            .get(index)
            .map_or(0, |payload| payload.layout.tag_table_length());
        match &self.carrier {
            Carrier::File(file) => file.tag_table(index, cap),
            Carrier::Layout(layout) => layout.tag_table(index, cap),
            Carrier::Parts(parts) => parts.tag_table(index, cap),
            Carrier::None => Err(elsewhere()),
        }
    }

    /// Puts a grant beside the artifact and returns its digest.
    pub fn add_grant(&mut self, grant: &Grant) -> Result<String, Error> {
        let bytes = grant.encode();
        match &mut self.carrier {
            Carrier::File(file) => file.add_grant(&bytes)?,
            Carrier::Layout(layout) => layout.add_grant(&bytes)?,
            Carrier::Parts(_) | Carrier::None => return Err(elsewhere()),
        }
        let digest = digest(&bytes);
        self.grants.push(StoredGrant { digest: digest.clone(), grant: grant.clone() });
        Ok(digest)
    }

    /// Removes a grant.
    pub fn remove_grant(&mut self, digest: &str) -> Result<(), Error> {
        let removed = match &mut self.carrier {
            Carrier::File(file) => file.remove_grant(digest)?,
            Carrier::Layout(layout) => layout.remove_grant(digest)?,
            Carrier::Parts(_) | Carrier::None => return Err(elsewhere()),
        };
        if !removed {
            return Err(Error::Usage {
                argument: "GRANT",
                expected: "the digest of a grant of this artifact",
                found: digest.to_owned(),
            });
        }
        self.grants.retain(|stored| stored.digest != digest);
        Ok(())
    }
}

fn elsewhere() -> Error {
    let (expected, found) = ("an artifact of a layout or file", "one that is somewhere else".to_owned());
    Error::Usage { argument: "REFERENCE", expected, found }
}

/// Refuses a stored blob of another length than the core's payload has, before it is read.
pub(crate) fn require_length(
    what: &'static str,
    index: usize,
    expected: u64,
    found: u64,
) -> Result<(), Error> {
    // GUARD: stored-length -> evil_stored_blob_of_another_length_is_refused_unread
    if found != expected {
        let payload = u32::try_from(index).unwrap_or(u32::MAX);
        let error = sealed_artifact::ArtifactError::LengthMismatch { payload, what, expected, found };
        return Err(Error::Artifact(error));
    }
    Ok(())
}

/// Digest of an object as text.
fn digest(bytes: &[u8]) -> String {
    sealed_artifact::digest::BlobDigest::of(bytes).to_string()
}

/// What a seal has produced beside ciphertext.
#[derive(Debug)]
pub struct Finished<'a> {
    /// The core.
    pub core: &'a Core,
    /// Tag tables in order.
    pub tag_tables: &'a [TagTable],
    /// The sealer's signature.
    pub signature: Option<&'a Signature>,
    /// Media type and bytes of the configuration, if it is an image.
    pub image: Option<(&'a str, &'a [u8])>,
}

/// An artifact being written. Dropped before [`Writer::finish`], it leaves nothing behind.
#[derive(Debug)]
pub enum Writer {
    /// Into a single file.
    File(FileWriter),
    /// Into an image layout.
    Layout(LayoutWriter),
}

impl Writer {
    /// Prepares the places of all payloads.
    pub fn create(reference: &Reference, sizes: impl Iterator<Item = u64>) -> Result<Self, Error> {
        let sizes: Vec<u64> = sizes.collect();
        Ok(match reference {
            Reference::File(path) => Self::File(FileWriter::create(path, &sizes)?),
            Reference::Layout(path, tag) => {
                Self::Layout(LayoutWriter::create(path, tag.as_deref().unwrap_or(DEFAULT_TAG), sizes.len())?)
            }
        })
    }

    /// Where a payload's ciphertext goes: file, offset, and path for messages.
    pub fn sink(&self, index: usize) -> Result<(&File, u64, &Path), Error> {
        match self {
            Self::File(writer) => writer.sink(index),
            Self::Layout(writer) => writer.sink(index),
        }
    }

    /// A payload's ciphertext is whole.
    pub fn payload_done(&mut self, index: usize) -> Result<(), Error> {
        match self {
            Self::File(_) => Ok(()),
            Self::Layout(writer) => writer.payload_done(index),
        }
    }

    /// Writes what is beside the ciphertext and makes the artifact visible.
    pub fn finish(self, finished: &Finished<'_>) -> Result<(), Error> {
        match self {
            Self::File(writer) => writer.finish(finished),
            Self::Layout(writer) => writer.finish(finished),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evil_stored_blob_of_another_length_is_refused_unread() {
        require_length("tag table", 0, 32, 32).unwrap();
        for found in [0, 16, 31, 33, 1 << 40] {
            assert_eq!(require_length("tag table", 0, 32, found).unwrap_err().code(), "LENGTH_MISMATCH");
        }
    }

    #[test]
    fn references_are_files_layouts_and_tags() {
        assert_eq!(Reference::parse("a/b.sealed").unwrap(), Reference::File("a/b.sealed".into()));
        assert_eq!(Reference::parse("a/b").unwrap(), Reference::Layout("a/b".into(), None));
        assert_eq!(Reference::parse("a/b:v1").unwrap(), Reference::Layout("a/b".into(), Some("v1".into())));
        assert_eq!(Reference::parse("a:b/c").unwrap(), Reference::Layout("a:b/c".into(), None));
        for refused in ["", ":", "a:", ":v1", "a:v 1"] {
            assert_eq!(Reference::parse(refused).unwrap_err().code(), "USAGE", "{refused}");
        }
    }
}
