//! The single `.sealed` file.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sealed_artifact::ArtifactError;
use sealed_artifact::core::Core;
use sealed_artifact::error::Found;
use sealed_artifact::sealed_file::{Current, Directory, HEADER, Region, Slot, SlotPosition};
use tempfile::NamedTempFile;

use super::blob::{Blob, open_named};
use super::{Carrier, Finished, Opened, digest, require_length};
use crate::Error;
use crate::files;

/// An open file and its current directory.
#[derive(Debug)]
pub(super) struct SealedFile {
    path: PathBuf,
    file: File,
    current: Current,
}

/// Opens a file and finds its directory.
pub(super) fn open(path: &Path) -> Result<Opened, Error> {
    open_file(open_named(path, false)?, path)
}

/// As [`open`], for a file that is open.
pub(super) fn open_file(file: File, path: &Path) -> Result<Opened, Error> {
    let sealed = SealedFile { current: current(&file, path)?, path: path.to_owned(), file };
    let directory = &sealed.current.directory;
    let core = sealed.read(directory.core)?;
    directory.require_payloads(&Core::parse(&core)?)?;
    Ok(Opened {
        core,
        signature: directory.signature.map(|region| sealed.read(region)).transpose()?,
        grants: directory.grants.iter().map(|region| sealed.read(*region)).collect::<Result<_, _>>()?,
        carrier: Carrier::File(sealed),
    })
}

fn current(file: &File, path: &Path) -> Result<Current, Error> {
    let length = file.metadata().map_err(Error::file("look at", path))?.len();
    if length < HEADER {
        let found = Found::text(&format!("{length} bytes"));
        return Err(Error::Artifact(ArtifactError::CarrierCorrupt {
            expected: "a file with two slots",
            found,
        }));
    }
    let header = read_at(file, path, Region { length: HEADER, offset: 0 })?;
    Current::find(&header, length, |region| read_at(file, path, region))
}

/// Reads a region that has been found to be small and inside the file.
fn read_at(file: &File, path: &Path, region: Region) -> Result<Vec<u8>, Error> {
    let length = usize::try_from(region.length).unwrap_or(usize::MAX);
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, region.offset).map_err(Error::file("read", path))?;
    Ok(bytes)
}

impl SealedFile {
    fn read(&self, region: Region) -> Result<Vec<u8>, Error> {
        read_at(&self.file, &self.path, region)
    }

    pub(super) fn payload(&self, index: usize) -> Result<Blob, Error> {
        let region = region(&self.current.directory.payloads, index)?;
        let file = self.file.try_clone().map_err(Error::file("open", &self.path))?;
        Ok(Blob { file, path: self.path.clone(), offset: region.offset, length: region.length, stated: None })
    }

    pub(super) fn tag_table(&self, index: usize, length: u64) -> Result<Vec<u8>, Error> {
        let region = region(&self.current.directory.tags, index)?;
        require_length("tag table", index, length, region.length)?;
        self.read(region)
    }

    pub(super) fn add_grant(&mut self, grant: &[u8]) -> Result<(), Error> {
        let file = self.writable()?;
        let end = file.metadata().map_err(Error::file("look at", &self.path))?.len();
        let mut directory = self.current.directory.clone();
        directory.grants.push(Region { length: u64::try_from(grant.len()).unwrap_or(u64::MAX), offset: end });
        file.write_all_at(grant, end).map_err(Error::file("write a grant to", &self.path))?;
        self.replace_directory(&file, directory)
    }

    pub(super) fn remove_grant(&mut self, wanted: &str) -> Result<bool, Error> {
        let mut directory = self.current.directory.clone();
        let mut kept = Vec::new();
        for region in &directory.grants {
            if digest(&self.read(*region)?) != wanted {
                kept.push(*region);
            }
        }
        if kept.len() == directory.grants.len() {
            return Ok(false);
        }
        directory.grants = kept;
        self.replace_directory(&self.writable()?, directory)?;
        Ok(true)
    }

    fn writable(&self) -> Result<File, Error> {
        open_named(&self.path, true)
    }

    /// Appends the directory, syncs, then names it in the other slot: at every moment one slot is valid.
    fn replace_directory(&mut self, file: &File, directory: Directory) -> Result<(), Error> {
        let failed = || Error::file("write the directory of", &self.path);
        let offset = file.metadata().map_err(failed())?.len();
        let bytes = directory.encode();
        file.write_all_at(&bytes, offset).and_then(|()| file.sync_all()).map_err(failed())?;
        let (position, slot) = self.current.next_slot(offset, &bytes);
        file.write_all_at(&slot.encode(), position.offset())
            .and_then(|()| file.sync_all())
            .map_err(failed())?;
        self.current = Current { directory, position, slot };
        Ok(())
    }
}

fn region(regions: &[Region], index: usize) -> Result<Region, Error> {
    regions.get(index).copied().ok_or_else(|| {
        let found = Found::text(&format!("none with index {index}"));
        Error::Artifact(ArtifactError::CarrierCorrupt { expected: "a region per payload of the core", found })
    })
}

/// A file that gets an artifact.
#[derive(Debug)]
pub struct FileWriter {
    path: PathBuf,
    partial: NamedTempFile,
    payloads: Vec<Region>,
}

impl FileWriter {
    pub(super) fn create(path: &Path, sizes: &[u64]) -> Result<Self, Error> {
        if path.exists() {
            return Err(Error::file("write", path)(std::io::ErrorKind::AlreadyExists.into()));
        }
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let partial = tempfile::Builder::new()
            .prefix(".partial-")
            .tempfile_in(directory)
            .map_err(Error::file("write", path))?;
        // Payloads come first in the file, so that their places do not depend on what follows.
        let payloads = Directory::plan(0, sizes, &[], None, &[]).payloads;
        Ok(Self { path: path.to_owned(), partial, payloads })
    }

    pub(super) fn sink(&self, index: usize) -> Result<(&File, u64, &Path), Error> {
        let region = region(&self.payloads, index)?;
        Ok((self.partial.as_file(), region.offset, &self.path))
    }

    pub(super) fn finish(self, finished: &Finished<'_>) -> Result<(), Error> {
        if finished.image.is_some() {
            let (argument, expected) = ("--output", "an image layout: a file is no image");
            return Err(Error::Usage { argument, expected, found: self.path.display().to_string() });
        }
        let Self { path, partial, payloads } = self;
        let length = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let signature = finished.signature.map(|signature| signature.encode());
        let sizes: Vec<u64> = payloads.iter().map(|region| region.length).collect();
        let tags: Vec<u64> = finished.tag_tables.iter().map(|tags| length(tags.bytes())).collect();
        let directory = Directory::plan(
            length(finished.core.bytes()),
            &sizes,
            &tags,
            signature.as_deref().map(length),
            &[],
        );
        let file = partial.as_file();
        let put = |region: &Region, bytes: &[u8]| {
            file.write_all_at(bytes, region.offset).map_err(Error::file("write", &path))
        };
        for (region, tags) in directory.tags.iter().zip(finished.tag_tables) {
            put(region, tags.bytes())?;
        }
        put(&directory.core, finished.core.bytes())?;
        if let (Some(region), Some(signature)) = (&directory.signature, &signature) {
            put(region, signature)?;
        }
        let encoded = directory.encode();
        let place = Region { length: length(&encoded), offset: directory.end() };
        put(&place, &encoded)?;
        put(
            &Region { length: 0, offset: SlotPosition::A.offset() },
            &Slot::new(1, place.offset, &encoded).encode(),
        )?;
        file.sync_all().map_err(Error::file("write", &path))?;
        files::set_mode(file, "write", &path)?;
        partial.persist_noclobber(&path).map_err(|error| Error::file("write", &path)(error.error))?;
        files::sync_directory("write", path.parent().unwrap_or(Path::new(".")))
    }
}
