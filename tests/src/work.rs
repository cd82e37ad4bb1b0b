//! A scratch directory, short enough for socket paths and gone at the end.

use crate::programs::{NOBODY, User};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// Paths of UNIX sockets end at 107 bytes; what tests add to the directory stays below this.
const LONGEST: usize = 80;

/// A scratch directory.
#[derive(Debug)]
pub struct Work {
    directory: tempfile::TempDir,
    user: User,
}

impl Work {
    /// A fresh one, which belongs to the user that the programs run as.
    pub fn create(user: User) -> Self {
        let mut directory =
            tempfile::Builder::new().prefix("ik-").tempdir().expect("make a scratch directory");
        if directory.path().as_os_str().len() > LONGEST {
            directory =
                tempfile::Builder::new().prefix("ik-").tempdir_in("/tmp").expect("make a scratch directory");
        }
        let work = Self { directory, user };
        work.hand_over(work.directory.path(), 0o755);
        for name in ["input", "tmp"] {
            work.directory(name);
        }
        work
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A path inside.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Makes a directory inside.
    pub fn directory(&self, name: impl AsRef<Path>) -> PathBuf {
        let path = self.join(name);
        std::fs::create_dir_all(&path).expect("make a directory");
        self.hand_over(&path, 0o755);
        path
    }

    /// Writes a file inside that the programs can read.
    pub fn write(&self, name: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        std::fs::write(&path, bytes).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
        self.hand_over(&path, 0o644);
        path
    }

    /// Gives a path to the user that the programs run as.
    pub fn hand_over(&self, path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("set a mode");
        if self.user == User::Nobody {
            chown(path, Some(NOBODY), Some(NOBODY)).expect("hand a path to nobody");
        }
    }

    /// Gives a whole directory to the user that the programs run as.
    pub fn hand_over_all(&self, path: &Path) {
        if self.user == User::Same {
            return;
        }
        chown(path, Some(NOBODY), Some(NOBODY)).expect("hand a path to nobody");
        if path.is_dir() {
            for entry in std::fs::read_dir(path).expect("list a directory") {
                self.hand_over_all(&entry.expect("list a directory").path());
            }
        }
    }
}
