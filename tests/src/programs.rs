//! Where the programs under test are, and as whom they run.

use std::ffi::OsStr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

/// `nobody` and `nogroup`.
pub const NOBODY: u32 = 65534;

/// The programs that take part.
#[derive(Clone, Debug)]
pub struct Programs {
    directory: PathBuf,
    user: User,
}

/// As whom a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// As the user who runs the tests.
    Same,
    /// As `nobody`: without any right.
    Nobody,
}

impl Programs {
    /// The programs beside this test: what `cargo xtask test` built.
    pub fn built() -> Self {
        let executable = std::env::current_exe().expect("find this program");
        let mut directory = executable.parent().expect("a program is in a directory");
        if directory.file_name() == Some(OsStr::new("deps")) {
            directory = directory.parent().expect("deps is in the target directory");
        }
        Self { directory: directory.to_owned(), user: User::Same }
    }

    /// The same programs run by `nobody`. Root copies them to where `nobody` can reach them; for others it is no change.
    pub fn for_nobody(&self, directory: &Path) -> Self {
        if !is_root() {
            return self.clone();
        }
        std::fs::create_dir_all(directory).expect("make a directory for programs");
        chown(directory, Some(NOBODY), Some(NOBODY)).expect("hand the programs' directory to nobody");
        for name in ["innerkeep", "innerkeep-chip-emulator", "test-consumer"] {
            let copy = directory.join(name);
            std::fs::copy(self.path(name), &copy).expect("copy a program");
            std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755))
                .expect("make it executable");
        }
        Self { directory: directory.to_owned(), user: User::Nobody }
    }

    /// As whom they run.
    pub fn user(&self) -> User {
        self.user
    }

    /// The path of a program; fails when it was not built.
    pub fn path(&self, name: &str) -> PathBuf {
        let path = self.directory.join(name);
        assert!(
            path.is_file(),
            "{} is not built. `cargo xtask test` builds it; by hand: cargo build --profile ci --bins",
            path.display()
        );
        path
    }

    /// A command that runs a program as the right user with an environment of its own.
    pub fn command(&self, name: &str, scratch: &Path) -> Command {
        let program = self.path(name);
        let mut command = match self.user {
            User::Same => Command::new(program),
            User::Nobody => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]).arg(program);
                command
            }
        };
        command.env_clear().env("TMPDIR", scratch).env("HOME", scratch).env("LANG", "C.UTF-8");
        command
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into()));
        command
    }
}

/// Runs a test that nobody but root can, for he alone may mount; for others there is nothing to test.
pub fn as_root(test: impl Future<Output = ()>) {
    if !is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(test);
}

/// Whether this process is root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
