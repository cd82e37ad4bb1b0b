//! Resources as files, for whoever reads files: each replaced as one step, in memory, below one directory.

use std::fs::{DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Component, PathBuf};

use attestation_agent::TeeRoot;
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, fstatfs, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::Resources;
use crate::config::{CREDENTIALS, Credential, PARTIAL};
use crate::hub_error::HubError;

/// Longest resource that a broker's answer holds.
const MAXIMUM_CREDENTIAL_BYTES: usize = 4 << 20;
/// File systems whose files are in memory alone.
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// The credentials of a configuration and where they are written.
#[derive(Debug)]
pub struct Credentials {
    list: Vec<Credential>,
    directory: PathBuf,
    /// Whether the directory has to be in memory: not where the platform is an emulation below a directory.
    in_memory: bool,
}

/// What one look at the credentials did.
#[derive(Debug, Default)]
pub struct Refreshed {
    /// How many files are new or other than before.
    pub replaced: usize,
    /// What could not be had or written: the files of before stay.
    pub failed: Vec<HubError>,
}

impl Credentials {
    /// Those of a configuration, below `root`.
    #[must_use]
    pub fn new(list: Vec<Credential>, root: &TeeRoot) -> Self {
        Self { list, directory: root.join(CREDENTIALS), in_memory: !root.is_insecure() }
    }

    /// In a directory that has to be in memory, for tests.
    #[cfg(test)]
    pub(super) fn in_memory(directory: PathBuf) -> Self {
        Self { list: Vec::new(), directory, in_memory: true }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Reads each resource anew and writes those that changed. One that fails leaves its file as it is, and the others go on.
    pub async fn refresh(&self, resources: &Resources, deadline: Instant) -> Refreshed {
        let mut refreshed = Refreshed::default();
        for credential in &self.list {
            match self.refresh_one(credential, resources, deadline).await {
                Ok(replaced) => refreshed.replaced += usize::from(replaced),
                Err(error) => refreshed.failed.push(error),
            }
        }
        refreshed
    }

    async fn refresh_one(
        &self,
        credential: &Credential,
        resources: &Resources,
        deadline: Instant,
    ) -> Result<bool, HubError> {
        let secret = resources.fresh(&credential.resource, deadline).await?;
        self.write(credential, secret.expose())
    }

    /// Whether the file was new or changed.
    pub(super) fn write(&self, credential: &Credential, bytes: &[u8]) -> Result<bool, HubError> {
        let path = credential.path.relative();
        let failed = |action: &'static str| {
            let path = path.display().to_string();
            move |error: io::Error| HubError::CredentialIo { action, path, source: error }
        };
        let mut directory = self.open()?;
        let name = path.file_name().unwrap_or_default();
        for component in path.parent().into_iter().flat_map(|parent| parent.components()) {
            let Component::Normal(segment) = component else {
                return Err(failed("find the directory of")(io::ErrorKind::InvalidInput.into()));
            };
            match mkdirat(&directory, segment, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(failed("make the directory of")(error.into())),
            }
            let mut flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
            // GUARD: credential-no-link -> evil_image_link_among_the_credentials
            flags |= OFlags::NOFOLLOW;
            // One component: there is no other link to follow.
            directory = openat(&directory, segment, flags, Mode::empty())
                .map_err(|error| failed("open the directory of")(error.into()))?;
        }
        remove_partial(&directory);
        if is_same(&directory, name, bytes) {
            return Ok(false);
        }
        replace(&directory, name, bytes).map_err(failed("write"))?;
        Ok(true)
    }

    /// The directory, made if it is not there.
    fn open(&self) -> Result<OwnedFd, HubError> {
        let path = self.directory.display().to_string();
        let failed = |source: io::Error| HubError::CredentialIo {
            action: "open the directory of",
            path: path.clone(),
            source,
        };
        if let Some(parent) = self.directory.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(failed)?;
        }
        match DirBuilder::new().mode(0o700).create(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let directory = openat(CWD, &self.directory, flags, Mode::empty()).map_err(|e| failed(e.into()))?;
        if self.in_memory {
            let kind = fstatfs(&directory).map_err(|error| failed(error.into()))?.f_type;
            let in_memory = u64::try_from(kind).is_ok_and(|kind| IN_MEMORY.contains(&kind));
            // GUARD: credential-in-memory -> evil_image_credentials_on_a_disk
            if !in_memory {
                return Err(HubError::CredentialPlace { path });
            }
        }
        Ok(directory)
    }
}

/// What a run that was killed left behind. Nobody else writes here.
fn remove_partial(directory: &OwnedFd) {
    let Ok(entries) = Dir::read_from(directory) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_bytes().starts_with(PARTIAL.as_bytes()) {
            let _ = unlinkat(directory, entry.file_name(), AtFlags::empty());
        }
    }
}

fn is_same(directory: &OwnedFd, name: &std::ffi::OsStr, bytes: &[u8]) -> bool {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let Ok(file) = openat(directory, name, flags, Mode::empty()) else { return false };
    let file = File::from(file);
    if !file.metadata().is_ok_and(|found| found.is_file()) {
        return false;
    }
    let mut found = Zeroizing::new(Vec::with_capacity(bytes.len().saturating_add(1)));
    let cap = u64::try_from(MAXIMUM_CREDENTIAL_BYTES).unwrap_or(u64::MAX);
    file.take(cap).read_to_end(&mut found).is_ok() && *found == bytes
}

/// Readers see the old bytes or the new ones.
fn replace(directory: &OwnedFd, name: &std::ffi::OsStr, bytes: &[u8]) -> io::Result<()> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|_| io::Error::other("no randomness"))?;
    let partial = format!("{PARTIAL}{}", hex::encode(random));
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mut file = File::from(openat(directory, &partial, flags, Mode::RUSR | Mode::WUSR)?);
    let written = file.write_all(bytes);
    let renamed = written.and_then(|()| Ok(renameat(directory, &partial, directory, name)?));
    if renamed.is_err() {
        // The failure that counts is the first one.
        let _ = unlinkat(directory, &partial, AtFlags::empty());
    }
    renamed
}
