//! Questions about volumes and files that the host may see: how full they are, and how a container said that it ended.
//!
//! What is asked may lie on a file system of the host, which answers when it likes: each question has its time.

use std::collections::HashMap;
use std::io;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use protocol::csi::volume_usage::Unit;
use protocol::csi::{VolumeCondition, VolumeStatsResponse, VolumeUsage};
use protocol::ids::{AbsolutePath, ContainerId};
use protocol::oci::Spec;
use protocol::status::RpcError;
use rustix::fs::{FileType, Mode, OFlags, fstat, fstatvfs};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::storage::{Beneath, RUN};

/// How long a file system may take to answer.
const LIMIT: Duration = Duration::from_secs(5);
/// Questions that may be without an answer.
const QUESTIONS: usize = 8;
/// Of a termination log.
const MAXIMUM_LOG_BYTES: u64 = 4096;
const LOG_PATH: &str = "io.kubernetes.container.terminationMessagePath";
/// How the runtime's copies of termination logs are called: the agent never unseals anything in files of this name.
const LOG_NAME: &str = "termination-log";
/// Where host and guest share files, below the directory of the runtime.
const SHARED: &str = "shared/containers";
const MOUNT_TABLE: &str = "/proc/self/mountinfo";
const MOUNT_TABLE_BYTES: u64 = 4 << 20;

/// Who asks.
#[derive(Clone, Debug)]
pub struct Volumes {
    run: PathBuf,
    tee_active: bool,
    questions: Arc<Semaphore>,
    /// Of each container: its log, or why it may not be read.
    logs: Arc<Mutex<HashMap<ContainerId, Log>>>,
}

/// A container's log, where it has one, or why it may not be read.
type Log = Result<Option<PathBuf>, RpcError>;

impl Volumes {
    /// Below this directory of the runtime.
    #[must_use]
    pub fn below(run: &Path, tee_active: bool) -> Self {
        let questions = Arc::new(Semaphore::new(QUESTIONS));
        Self { run: run.to_owned(), tee_active, questions, logs: Arc::default() }
    }

    fn logs(&self) -> std::sync::MutexGuard<'_, HashMap<ContainerId, Result<Option<PathBuf>, RpcError>>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A container is there: where its log is stands in the specification that was admitted.
    pub fn remember_log(&self, container: &ContainerId, spec: &Spec) {
        self.logs().insert(container.clone(), log_place(spec, self.tee_active));
    }

    /// A container is gone.
    pub fn forget_log(&self, container: &ContainerId) {
        self.logs().remove(container);
    }

    /// Asks in a thread of its own, which is left behind when its time is over; only so many are.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Path) -> Result<T, RpcError> + Send + 'static,
    ) -> Result<T, RpcError> {
        let permit = Arc::clone(&self.questions).try_acquire_owned().map_err(|_| RpcError::Busy)?;
        let run = self.run.clone();
        let asked = spawn_blocking(move || {
            let answer = question(&run);
            drop(permit);
            answer
        });
        match tokio::time::timeout(LIMIT, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => {
                Err(RpcError::Failed("VOLUME_PANICKED", "the question was not answered".to_owned()))
            }
            Err(_) => Err(RpcError::Failed("VOLUME_TIMEOUT", "the file system does not answer".to_owned())),
        }
    }

    /// GetVolumeStats.
    ///
    /// # Errors
    /// `VOLUME_PLACE` for a path that is not below the directory of the runtime, `VOLUME_IO`, `VOLUME_TIMEOUT`.
    pub async fn statistics(&self, path: &str) -> Result<VolumeStatsResponse, RpcError> {
        let below = below(path)?;
        self.ask(move |run| {
            let opened = Beneath::open(run).and_then(|root| root.place(&below));
            statistics(&opened.map_err(|error| failed(&error))?)
        })
        .await
    }

    /// RemoveStaleVirtiofsShareMounts: looks at each mount below the shared directory, upon which the kernel drops what is stale. What
    /// does not answer stays as it is.
    ///
    /// # Errors
    /// `too many requests are waiting`.
    pub async fn look_at_shares(&self) -> Result<(), RpcError> {
        let looked = self.ask(|run| {
            let shared = run.join(SHARED);
            for place in mounts_below(&shared).map_err(|error| failed(&error))? {
                let _ = std::fs::symlink_metadata(place);
            }
            Ok(())
        });
        match looked.await {
            Err(RpcError::Failed("VOLUME_TIMEOUT", _)) => Ok(()),
            other => other,
        }
    }

    /// GetDiagnosticData: the termination log of a container; nothing if there is none.
    ///
    /// In a confidential guest only a file that is a termination log by its name, which is where the workload itself writes for the
    /// host.
    ///
    /// # Errors
    /// `invalid container id`, `DIAGNOSTIC_PLACE`, `VOLUME_IO`, `VOLUME_TIMEOUT`.
    pub async fn log_of(&self, container: &ContainerId) -> Result<String, RpcError> {
        let place = self.logs().get(container).cloned().ok_or(RpcError::NoContainer)?;
        let Some(place) = place? else { return Ok(String::new()) };
        self.ask(move |run| read_log(run, &place)).await
    }
}

fn failed(error: &io::Error) -> RpcError {
    RpcError::Failed("VOLUME_IO", format!("look at the volume: {}", error.kind()))
}

fn below(path: &str) -> Result<PathBuf, RpcError> {
    let path = AbsolutePath::parse(path)?;
    let below = path.as_path().strip_prefix(RUN).ok().filter(|below| below.components().next().is_some());
    // GUARD: volume-below-run -> evil_host_asks_about_files_of_the_guest
    if below.is_none() {
        return Err(RpcError::Failed("VOLUME_PLACE", format!("expected a path below {RUN}")));
    }
    Ok(below.unwrap_or(Path::new("")).to_owned())
}

fn statistics(place: &OwnedFd) -> Result<VolumeStatsResponse, RpcError> {
    let found = fstatvfs(place).map_err(|error| failed(&error.into()))?;
    let usage = |unit: Unit, total: u64, free: u64, available: u64| VolumeUsage {
        available,
        total,
        used: total.saturating_sub(free),
        unit: unit.into(),
        ..VolumeUsage::default()
    };
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Ok(VolumeStatsResponse {
        usage: vec![
            usage(Unit::BYTES, bytes(found.f_blocks), bytes(found.f_bfree), bytes(found.f_bfree)),
            usage(Unit::INODES, found.f_files, found.f_ffree, found.f_ffree),
        ],
        volume_condition: Some(VolumeCondition {
            abnormal: false,
            message: "OK".to_owned(),
            ..VolumeCondition::default()
        })
        .into(),
        ..VolumeStatsResponse::default()
    })
}

/// Mount points below a directory (proc(5), `/proc/pid/mountinfo`). One with blanks in its name is left out.
fn mounts_below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut table = String::new();
    std::fs::File::open(MOUNT_TABLE)?.take(MOUNT_TABLE_BYTES).read_to_string(&mut table)?;
    let places = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    Ok(places.filter(|place| place.starts_with(directory)).collect())
}

/// Where a container's log is, relative to the directory of the runtime.
fn log_place(spec: &Spec, tee_active: bool) -> Result<Option<PathBuf>, RpcError> {
    let Some(path) = spec.Annotations.get(LOG_PATH).filter(|path| !path.is_empty()) else { return Ok(None) };
    let Some(mount) = spec.Mounts.iter().find(|mount| mount.destination == *path) else { return Ok(None) };
    let refuse = |reason: &str| RpcError::Failed("DIAGNOSTIC_PLACE", format!("termination log: {reason}"));
    let source = AbsolutePath::parse(&mount.source)?;
    let place = source.as_path().strip_prefix(RUN).ok().filter(|place| place.starts_with(SHARED));
    let Some(place) = place else { return Err(refuse("expected a file that host and guest share")) };
    let is_log =
        place.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with(LOG_NAME));
    // GUARD: diagnostics-of-a-log -> evil_host_reads_a_secret_mount_by_diagnostics
    if tee_active && !is_log {
        return Err(refuse("expected a file whose name says that it is one"));
    }
    Ok(Some(place.to_owned()))
}

fn read_log(run: &Path, place: &Path) -> Result<String, RpcError> {
    let root = Beneath::open(run).map_err(|error| failed(&error))?;
    // A pipe does not hold up who opens it.
    let opened = root.at(place, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK, Mode::empty());
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(failed(&error)),
    };
    let found = fstat(&file).map_err(|error| failed(&error.into()))?;
    // GUARD: diagnostics-of-a-file -> evil_host_reads_a_secret_mount_by_diagnostics
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        return Err(RpcError::Failed(
            "DIAGNOSTIC_PLACE",
            "termination log: expected a regular file".to_owned(),
        ));
    }
    let mut bytes = Vec::new();
    let read = std::fs::File::from(file).take(MAXIMUM_LOG_BYTES).read_to_end(&mut bytes);
    read.map_err(|error| failed(&error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use protocol::oci::Mount;

    use super::*;

    struct Room(tempfile::TempDir);

    impl Room {
        fn new() -> Self {
            let room = Self(tempfile::tempdir().unwrap());
            fs::create_dir_all(room.0.path().join(SHARED)).unwrap();
            room
        }

        fn shared(&self, name: &str) -> PathBuf {
            self.0.path().join(SHARED).join(name)
        }

        fn volumes(&self) -> Volumes {
            Volumes::below(self.0.path(), true)
        }

        async fn log(&self, spec: &Spec) -> Result<String, RpcError> {
            let (volumes, id) = (self.volumes(), ContainerId::parse("c1").unwrap());
            assert_eq!(volumes.log_of(&id).await, Err(RpcError::NoContainer));
            volumes.remember_log(&id, spec);
            let found = volumes.log_of(&id).await;
            volumes.forget_log(&id);
            assert_eq!(volumes.log_of(&id).await, Err(RpcError::NoContainer));
            found
        }
    }

    fn spec(source: &str) -> Spec {
        let mount = Mount {
            destination: "/dev/termination-log".to_owned(),
            source: source.to_owned(),
            ..Mount::default()
        };
        let annotations = [(LOG_PATH.to_owned(), "/dev/termination-log".to_owned())];
        Spec { Mounts: vec![mount], Annotations: annotations.into(), ..Spec::default() }
    }

    const SOURCE: &str = "/run/kata-containers/shared/containers/c-1-termination-log";

    fn code(error: &RpcError) -> String {
        error.status().1.split(':').next().unwrap().to_owned()
    }

    // COMPAT: GetDiagnosticData same: the first 4,096 bytes, or nothing
    #[tokio::test]
    async fn logs_are_read_to_their_end_or_4096_bytes() {
        let room = Room::new();
        assert_eq!(room.log(&spec(SOURCE)).await.unwrap(), "");
        fs::write(room.shared("c-1-termination-log"), b"done\xff").unwrap();
        assert_eq!(room.log(&spec(SOURCE)).await.unwrap(), "done\u{fffd}");
        fs::write(room.shared("c-1-termination-log"), vec![b'x'; 5000]).unwrap();
        assert_eq!(room.log(&spec(SOURCE)).await.unwrap().len(), 4096);
        assert_eq!(room.log(&Spec::default()).await.unwrap(), "");
        let unmounted = Spec { Mounts: Vec::new(), ..spec(SOURCE) };
        assert_eq!(room.log(&unmounted).await.unwrap(), "");
    }

    // COMPAT: GetDiagnosticData stricter: only a regular file that host and guest share, in a confidential guest one whose name says that it is a log
    #[tokio::test]
    async fn evil_host_reads_a_secret_mount_by_diagnostics() {
        let room = Room::new();
        fs::write(room.shared("c-1-secret"), "secret").unwrap();
        symlink(room.shared("c-1-secret"), room.shared("c-1-termination-log")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, room.shared("pipe-termination-log"), Mode::RUSR).unwrap();
        fs::create_dir(room.shared("dir-termination-log")).unwrap();
        let shared = "/run/kata-containers/shared/containers";
        for (source, expected) in [
            ("/etc/shadow".to_owned(), "DIAGNOSTIC_PLACE"),
            ("/run/kata-containers/sandbox/x-termination-log".to_owned(), "DIAGNOSTIC_PLACE"),
            (format!("{shared}/c-1-secret"), "DIAGNOSTIC_PLACE"),
            (format!("{shared}/../../../secret/termination-log"), "REQUEST_PATH"),
            (SOURCE.to_owned(), "VOLUME_IO"),
            (format!("{shared}/pipe-termination-log"), "DIAGNOSTIC_PLACE"),
            (format!("{shared}/dir-termination-log"), "DIAGNOSTIC_PLACE"),
        ] {
            let error = room.log(&spec(&source)).await.unwrap_err();
            assert_eq!(code(&error), expected, "{source}");
            assert!(!error.status().1.contains("secret\""), "{source}");
        }
    }

    // COMPAT: GetVolumeStats stricter: only what lies below the directory of the runtime
    #[tokio::test]
    async fn evil_host_asks_about_files_of_the_guest() {
        let room = Room::new();
        for path in
            ["/", "/etc", "/run/kata-containers", "/run/innerkeep/x", "relative", "/run/kata-containers/../x"]
        {
            let error = room.volumes().statistics(path).await.unwrap_err();
            assert!(["VOLUME_PLACE", "REQUEST_PATH"].contains(&code(&error).as_str()), "{path}");
        }
        symlink("/etc", room.shared("link")).unwrap();
        let link = format!("{RUN}/{SHARED}/link/passwd");
        assert_eq!(code(&room.volumes().statistics(&link).await.unwrap_err()), "VOLUME_IO");
    }

    // COMPAT: GetVolumeStats, RemoveStaleVirtiofsShareMounts same
    #[tokio::test]
    async fn volumes_say_how_full_they_are() {
        let room = Room::new();
        let found = room.volumes().statistics(&format!("{RUN}/{SHARED}")).await.unwrap();
        let [bytes, inodes] = found.usage.as_slice() else { panic!("two") };
        assert_eq!((bytes.unit.enum_value(), inodes.unit.enum_value()), (Ok(Unit::BYTES), Ok(Unit::INODES)));
        assert!(bytes.total > 0 && bytes.used <= bytes.total && bytes.used + bytes.available == bytes.total);
        assert_eq!(found.volume_condition.message, "OK");
        room.volumes().look_at_shares().await.unwrap();
    }
}
