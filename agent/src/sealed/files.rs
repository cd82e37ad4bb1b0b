//! Sealed files in the mounts of a container: it sees what they hold, in a file system of the guest's memory that stands in their place.
//!
//! ```text
//!  CreateContainer ─gather─▶ a mount of shared files with a sealed one in it? ─▶ a tmpfs with what lies beside it, the mount's source from now on
//!  StartContainer ──fill───▶ opened by the data hub, before the container's program runs                          (read-only there)
//!  now and then ────fill───▶ opened again; another secret takes the old one's place by a rename                   (rotation)
//!  RemoveContainer ─drop───▶ overwritten, and the file system taken off
//! ```
//! The host's files are read once. What it changes there afterwards, the container does not see. What lies beside a secret is the host's still: a
//! container that is named by its process alone, whose mounts nobody judged, gets no such mount (`SEALED_HOST_FILES`).

mod read;

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use cdh::plaintext::Plaintext;
use protocol::oci::Mount;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use zeroize::Zeroizing;

use read::{Entry, What, read};

/// How a sealed file begins.
const SEALED: &[u8] = b"sealed.";
/// Most of them in a container.
const MAXIMUM_FILES: usize = 64;
/// Files that runtimes give every container, and that hold no secrets: upstream does not look into them either.
const USUAL: [&str; 5] = ["resolv.conf", "termination-log", "hostname", "hosts", "serviceaccount"];
/// Room for all that may lie there; memory is used for what does.
const OPTIONS: [&std::ffi::CStr; 2] = [c"size=512m,mode=0711,noswap", c"size=512m,mode=0711"];
/// What a container may not do with such a mount, whatever it asked for.
const STRICTER: [&str; 4] = ["ro", "nosuid", "nodev", "noexec"];
/// The opposite, and what a mount of the host's files would share.
const DROPPED: [&str; 7] = ["rw", "suid", "dev", "exec", "rshared", "shared", "rslave"];
/// Where a new secret is written before it takes its place: in no mount of the container.
const NEW: &str = "new";

/// Why a container does not get its sealed files, and is not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilesError {
    /// The host's files cannot be read.
    #[error("mounts: a mount with sealed files: read {path}: {source}")]
    Read {
        /// Below the mount.
        path: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// More than are read.
    #[error(
        "mounts: sealed files: expected at most {MAXIMUM_FILES} in a container, beside files of 1 MiB and 8 MiB together, 4 directories deep; found more"
    )]
    TooMany,
    /// The guest's own file system.
    #[error("mounts: sealed files: {what}: {source}")]
    Place {
        /// What failed.
        what: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

impl FilesError {
    fn read(path: &Path, source: io::Error) -> Self {
        Self::Read { path: path.display().to_string().chars().take(256).collect(), source }
    }

    fn place(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Place { what, source }
    }

    /// The stable code.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => "SEALED_FILE_READ",
            Self::TooMany => "SEALED_FILE_TOO_MANY",
            Self::Place { .. } => "SEALED_FILE_PLACE",
        }
    }
}

/// The file system of one container. Dropped, it is gone.
#[derive(Debug)]
pub(crate) struct SecretFiles {
    place: PathBuf,
    files: Vec<SealedFile>,
    rotates: AtomicBool,
}

/// A file whose content is a secret.
#[derive(Debug)]
struct SealedFile {
    path: PathBuf,
    text: Vec<u8>,
    owner: (u32, u32, u32),
    /// It is what is mounted, and cannot be replaced there.
    is_mount: bool,
}

impl SecretFiles {
    /// Looks for sealed files in those mounts that are files below `shared`. Where there are some, the mounts' sources and options are changed: they
    /// lie below `place` from then on, which is made. Nothing secret is there yet.
    ///
    /// # Errors
    /// The container is not to be made.
    pub(crate) fn gather(
        mounts: &mut [Mount],
        shared: &Path,
        place: &Path,
    ) -> Result<Option<Self>, FilesError> {
        let mut found = Vec::new();
        for (index, mount) in mounts.iter().enumerate() {
            let source = Path::new(&mount.source);
            if USUAL.iter().any(|usual| mount.source.ends_with(usual)) {
                continue;
            }
            if let Some(entries) = read(shared, source)? {
                found.push((index, entries));
            }
        }
        if found.is_empty() {
            return Ok(None);
        }
        let sealed = |entry: &&Entry| matches!(entry.what, What::Sealed(_));
        // GUARD: sealed-files-cap -> evil_host_sealed_files_without_end
        if found.iter().flat_map(|(_, entries)| entries).filter(sealed).count() > MAXIMUM_FILES {
            return Err(FilesError::TooMany);
        }
        let mut own = Self::make(place)?;
        for (number, (index, entries)) in found.into_iter().enumerate() {
            let base = place.join(number.to_string());
            for entry in entries {
                own.put(&base, entry).map_err(FilesError::place("write a file beside a secret"))?;
            }
            if let Some(mount) = mounts.get_mut(index) {
                mount.source = base.display().to_string();
                mount.options.retain(|option| !DROPPED.contains(&option.as_str()));
                mount.options.extend(STRICTER.map(str::to_owned));
            }
        }
        Ok(Some(own))
    }

    fn make(place: &Path) -> Result<Self, FilesError> {
        let make = |path: &Path| DirBuilder::new().recursive(true).mode(0o700).create(path);
        make(place).map_err(FilesError::place("make their directory"))?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        let [first, second] = OPTIONS;
        let mounted = match mount("tmpfs", place, "tmpfs", flags, first) {
            // Before Linux 6.4; swap of a confidential guest is behind a cipher whose key nobody keeps.
            Err(Errno::INVAL) => mount("tmpfs", place, "tmpfs", flags, second),
            other => other,
        };
        if let Err(error) = mounted {
            let _ = fs::remove_dir(place);
            return Err(FilesError::place("mount memory for them")(error.into()));
        }
        let own = Self { place: place.to_owned(), files: Vec::new(), rotates: AtomicBool::new(false) };
        make(&place.join(NEW)).map_err(FilesError::place("make their directory"))?;
        Ok(own)
    }

    fn put(&mut self, base: &Path, Entry { path, owner, what }: Entry) -> io::Result<()> {
        let is_mount = path.as_os_str().is_empty();
        let path = if is_mount { base.to_owned() } else { base.join(path) };
        match what {
            What::Directory => {
                fs::create_dir(&path)?;
                dress(&path, owner)?;
            }
            What::Plain(bytes) => write_new(&path, &bytes, owner)?,
            What::Sealed(text) => {
                // Its name is there when the container is made; what it holds comes before the container's program.
                write_new(&path, &[], owner)?;
                self.files.push(SealedFile { path, text, owner, is_mount });
            }
        }
        Ok(())
    }

    /// The directory that holds all of them: where the container's mounts come from now.
    pub(crate) fn place(&self) -> &Path {
        &self.place
    }

    /// Whether this is the first call: who looks after them from now on is one.
    pub(crate) fn begins_to_rotate(&self) -> bool {
        !self.rotates.swap(true, Ordering::Relaxed)
    }

    /// The sealed texts, in an order of their own.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &[u8]> {
        self.files.iter().map(|file| file.text.as_slice())
    }

    /// Gives the file of the text with this number its content, if it has another one. Who reads it sees the old bytes or the new ones. Returns
    /// whether it was changed; a file that is itself mounted keeps its first content.
    pub(crate) fn fill(&self, number: usize, secret: &Plaintext) -> Result<bool, FilesError> {
        const WHAT: &str = "write a secret";
        let failed = || FilesError::place(WHAT);
        let Some(file) = self.files.get(number) else { return Ok(false) };
        let open = File::open(&file.path).map_err(failed())?;
        let is_empty = open.metadata().map_err(failed())?.len() == 0;
        if (file.is_mount && !is_empty) || holds(open, secret.expose()).map_err(failed())? {
            return Ok(false);
        }
        if file.is_mount {
            let open = OpenOptions::new().write(true).open(&file.path);
            open.and_then(|mut open| open.write_all(secret.expose())).map_err(failed())?;
            return Ok(true);
        }
        let new = self.place.join(NEW).join(number.to_string());
        write_new(&new, secret.expose(), file.owner).map_err(failed())?;
        // Whoever holds the old one open reads it to its end; its memory goes with the last of them.
        fs::rename(&new, &file.path).map_err(|error| {
            // It must not be in the way of the next one.
            let _ = fs::remove_file(&new);
            failed()(error)
        })?;
        Ok(true)
    }
}

impl Drop for SecretFiles {
    fn drop(&mut self) {
        for file in &self.files {
            if let Ok(open) = File::options().write(true).open(&file.path) {
                overwrite(open);
            }
        }
        // A container that is not gone yet keeps it until it is.
        let _ = unmount(&self.place, UnmountFlags::DETACH);
        let _ = fs::remove_dir(&self.place);
    }
}

/// Whether a file has these bytes and no others. What is read is wiped: its buffer is never moved.
fn holds(mut file: File, bytes: &[u8]) -> io::Result<bool> {
    let mut found = Zeroizing::new(vec![0; bytes.len() + 1]);
    let mut length = 0;
    while let Some(rest) = found.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read(rest)? {
            0 => break,
            count => length += count,
        }
    }
    Ok(found.get(..length) == Some(bytes))
}

/// Zeroes in place of what was there; its length stays.
fn overwrite(mut file: File) {
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let _ = io::copy(&mut io::repeat(0).take(length), &mut file);
}

fn write_new(path: &Path, bytes: &[u8], owner: (u32, u32, u32)) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let written = file.write_all(bytes).and_then(|()| dress(path, owner));
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written
}

/// As the host's file was, but for what nobody may write.
fn dress(path: &Path, (mode, uid, gid): (u32, u32, u32)) -> io::Result<()> {
    chown(path, Some(uid), Some(gid))?;
    fs::set_permissions(path, Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests;
