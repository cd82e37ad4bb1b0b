//! The pause program of the measured image: `/pause_bundle`, of which a sandbox's own container gets the one file that it executes.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};

use protocol::oci;
use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, openat, openat2};
use rustix::io::Errno;
use serde::Deserialize;
use tokio::task::spawn_blocking;

use super::StorageError;
use super::mount::Detached;
use super::options::Options;
use crate::start::is_measured;

/// Where upstream's images have it.
const BUNDLE: &str = "/pause_bundle";
const MAXIMUM_CONFIG_BYTES: u64 = 64 << 10;
const MAXIMUM_PROGRAM_BYTES: u64 = 16 << 20;
/// What the file system may hold: the program, and mount points.
const SIZE: &str = "24m";
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o755);

/// The program, and how it is called.
#[derive(Debug)]
pub(crate) struct Pause {
    process: Process,
    program: Vec<u8>,
}

#[derive(Debug, Deserialize)]
struct Config {
    process: Process,
}

#[derive(Debug, Deserialize)]
struct Process {
    args: Vec<String>,
    #[serde(default)]
    env: Vec<String>,
    cwd: String,
    #[serde(default)]
    user: User,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct User {
    uid: u32,
    gid: u32,
}

impl Pause {
    /// Reads it.
    ///
    /// # Errors
    /// `STORAGE_PAUSE`: there is none, or nobody vouches for it.
    pub(super) async fn read(tee_active: bool) -> Result<Self, StorageError> {
        let read = spawn_blocking(move || Self::read_at(Path::new(BUNDLE), tee_active));
        read.await.map_err(|_| StorageError::Panicked)?
    }

    pub(super) fn read_at(bundle: &Path, tee_active: bool) -> Result<Self, StorageError> {
        let text = file(bundle, Path::new("config.json"), MAXIMUM_CONFIG_BYTES, tee_active)?;
        let config: Config =
            serde_json::from_slice(&text).map_err(|_| wrong("a configuration with a process"))?;
        let process = config.process;
        let name = process.args.first().and_then(|name| name.strip_prefix('/'));
        let is_plain = |name: &&str| {
            let mut parts = Path::new(name).components();
            !name.is_empty() && parts.all(|part| matches!(part, Component::Normal(_)))
        };
        let name = name.filter(is_plain).ok_or(wrong("a program by its absolute path"))?;
        let program = Path::new("rootfs").join(name);
        let program = file(bundle, &program, MAXIMUM_PROGRAM_BYTES, tee_active)?;
        Ok(Self { process, program })
    }

    /// Its process, in the place of the one that was asked for.
    pub(crate) fn replace(&self, process: &mut oci::Process) {
        let Process { args, env, cwd, user } = &self.process;
        (process.Args, process.Env, process.Cwd) = (args.clone(), env.clone(), cwd.clone());
        process.User = Some(oci::User { UID: user.uid, GID: user.gid, ..oci::User::default() }).into();
        process.Terminal = false;
    }

    /// A file system of its own with the program in it.
    pub(super) fn mount(&self, options: &Options) -> Result<Detached, StorageError> {
        let memory = Options {
            values: [("size", SIZE), ("mode", "755")].map(|(key, value)| (key.into(), value.into())).into(),
            attributes: options.attributes,
            ..Options::default()
        };
        let mounted = Detached::new("tmpfs", "pause", &memory)?;
        self.fill(&mounted).map_err(StorageError::io("put the pause program into", Path::new("tmpfs")))?;
        Ok(mounted)
    }

    fn fill(&self, mounted: &Detached) -> std::io::Result<()> {
        let name = self.process.args.first().map(String::as_str).unwrap_or_default();
        let path = PathBuf::from(name.trim_start_matches('/'));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut directory: OwnedFd = openat(mounted.root(), ".", flags, Mode::empty())?;
        for part in path.parent().into_iter().flat_map(Path::components) {
            match mkdirat(&directory, part.as_os_str(), DIRECTORY_MODE) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            directory = openat(directory.as_fd(), part.as_os_str(), flags, Mode::empty())?;
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat(&directory, path.file_name().unwrap_or_default(), flags, DIRECTORY_MODE)?;
        File::from(file).write_all(&self.program)
    }
}

fn wrong(expected: &'static str) -> StorageError {
    StorageError::Image {
        code: "STORAGE_PAUSE",
        text: format!("the pause program of the image: expected {expected}, found none"),
    }
}

/// A file of the bundle: through no link, and where somebody vouches for it.
fn file(bundle: &Path, name: &Path, most: u64, tee_active: bool) -> Result<Vec<u8>, StorageError> {
    let path = bundle.join(name);
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = rustix::fs::open(bundle, directory, Mode::empty())
        .and_then(|directory| openat2(directory, name, flags, Mode::empty(), resolve));
    let open = match open {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Err(wrong("/pause_bundle with config.json and its program")),
        Err(error) => return Err(StorageError::errno("open", &path)(error)),
    };
    let measured = is_measured(&open).map_err(StorageError::io("look at", &path))?;
    // GUARD: pause-measured -> evil_host_pause_program_on_a_disk
    if tee_active && !measured {
        return Err(wrong("one of the measured image"));
    }
    let mut bytes = Vec::new();
    open.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(StorageError::io("read", &path))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > most) {
        return Err(wrong("a configuration of 64 KiB and a program of 16 MiB at most"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const CONFIG: &str = r#"{"ociVersion": "1.0.0", "process": {"args": ["/bin/pause", "-x"], "cwd": "/",
        "env": ["PATH=/bin"], "user": {"uid": 7, "gid": 8}}, "root": {"path": "rootfs"}}"#;

    fn bundle(config: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("rootfs/bin")).unwrap();
        fs::write(directory.path().join("rootfs/bin/pause"), b"a program").unwrap();
        fs::write(directory.path().join("config.json"), config).unwrap();
        directory
    }

    fn code(directory: &Path) -> &'static str {
        Pause::read_at(directory, false).map_or_else(|error| error.code(), |_| "OK")
    }

    #[test]
    fn the_process_of_the_sandbox_is_that_of_the_image() {
        let pause = Pause::read_at(bundle(CONFIG).path(), false).unwrap();
        let mut process = oci::Process {
            Args: vec!["/evil".to_owned()],
            Env: vec!["A=b".to_owned()],
            Terminal: true,
            NoNewPrivileges: true,
            ..oci::Process::default()
        };
        pause.replace(&mut process);
        assert_eq!(process.Args, ["/bin/pause", "-x"]);
        assert_eq!((process.Env[0].as_str(), process.Cwd.as_str()), ("PATH=/bin", "/"));
        assert_eq!((process.User.UID, process.User.GID), (7, 8));
        assert!(!process.Terminal && process.NoNewPrivileges);
    }

    #[test]
    fn a_bundle_of_another_form_is_refused() {
        assert_eq!(code(Path::new("/nonexistent")), "STORAGE_PAUSE");
        assert_eq!(code(bundle("{}").path()), "STORAGE_PAUSE");
        assert_eq!(code(bundle(&CONFIG.replace("/bin/pause", "pause")).path()), "STORAGE_PAUSE");
        assert_eq!(code(bundle(&CONFIG.replace("/bin/pause", "/bin/none")).path()), "STORAGE_PAUSE");
        assert_eq!(code(bundle(&CONFIG.replace("/bin/pause", "/../config.json")).path()), "STORAGE_PAUSE");
        let long = bundle(&format!("{CONFIG}{}", " ".repeat(64 << 10)));
        assert_eq!(code(long.path()), "STORAGE_PAUSE");
    }

    #[test]
    fn evil_host_pause_program_on_a_disk() {
        let directory = bundle(CONFIG);
        assert!(Pause::read_at(directory.path(), false).is_ok());
        let error = Pause::read_at(directory.path(), true).unwrap_err();
        assert_eq!(error.code(), "STORAGE_PAUSE");
        assert!(error.to_string().contains("measured image"), "{error}");
    }
}
