//! Jobs that land artifacts: begun by a peer, looked at, opened, given up. Each is its owner's alone.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use attestation_agent::report_data::WorkloadIdentity;
use protocol::artifact::{
    ArtifactFile, ArtifactLandRequest, ArtifactOpenRequest, ArtifactOpenResponse, ArtifactState,
    ArtifactStatusResponse,
};
use sealed_artifact::parallel::Observer;

use super::Artifacts;
use super::hand_over::HandOver;
use crate::Error;
use crate::artifact::Landed;
use crate::hub_error::HubError;

/// Most jobs of one owner, and of all.
const MAXIMUM_OWNED: usize = 16;
const MAXIMUM_JOBS: usize = 64;
/// Longest error in an answer.
const MAXIMUM_ERROR_BYTES: usize = 512;

/// What landed.
pub trait LandedFiles: Send + Sync {
    /// Name and length of each file, in order.
    fn files(&self) -> Vec<(String, u64)>;

    /// A file for reading alone.
    ///
    /// # Errors
    ///
    /// There is none with this number.
    fn open(&self, index: usize) -> Result<File, Error>;
}

impl LandedFiles for Landed {
    fn files(&self) -> Vec<(String, u64)> {
        self.landing.files().map(|(name, bytes)| (name.as_str().to_owned(), bytes)).collect()
    }

    fn open(&self, index: usize) -> Result<File, Error> {
        Ok(self.landing.open(index)?)
    }
}

/// Lands what bound initdata names.
pub trait Lander: Send + Sync + 'static {
    /// Lands; blocks. `progress` is an observer of the landing, and to be told the total as soon as it is known.
    ///
    /// # Errors
    ///
    /// `CDH_ARTIFACT_NOT_NAMED`; whatever refuses or fails. Nothing of it is left then.
    fn land(&self, order: &ArtifactLandRequest, progress: &Progress) -> Result<Box<dyn LandedFiles>, Error>;
}

/// How far a job is.
#[derive(Debug)]
pub struct Progress {
    done: AtomicU64,
    total: AtomicU64,
    cancelled: AtomicBool,
    began: Instant,
}

impl Progress {
    fn new() -> Self {
        let (done, total, cancelled) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        Self { done, total, cancelled, began: Instant::now() }
    }

    /// Plaintext bytes of all payloads.
    pub fn set_total(&self, bytes: u64) {
        self.total.store(bytes, Ordering::Relaxed);
    }

    fn rate(&self, spent: Duration) -> u64 {
        let done = u128::from(self.done.load(Ordering::Relaxed));
        u64::try_from(done * 1000 / spent.as_millis().max(1)).unwrap_or(u64::MAX)
    }
}

impl Observer for Progress {
    fn advanced(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

struct Job {
    owner: WorkloadIdentity,
    progress: Arc<Progress>,
    outcome: Outcome,
}

enum Outcome {
    Failed(String),
    Landed(Arc<dyn LandedFiles>, Duration),
    Working,
}

/// The socket for files: there, or made when the first peer has something to open.
enum HandOvers {
    Bound(HandOver),
    Later { socket: PathBuf, mode: u32, bound: tokio::sync::OnceCell<HandOver> },
}

impl HandOvers {
    async fn get(&self) -> Result<&HandOver, HubError> {
        match self {
            Self::Bound(hand_over) => Ok(hand_over),
            Self::Later { socket, mode, bound } => {
                bound.get_or_try_init(|| async { HandOver::bind(socket, *mode) }).await
            }
        }
    }
}

/// The jobs of all peers.
pub struct Jobs {
    lander: Arc<dyn Lander>,
    hand_over: HandOvers,
    next: AtomicU64,
    all: Arc<Mutex<HashMap<u64, Job>>>,
}

impl fmt::Debug for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jobs").finish_non_exhaustive()
    }
}

type Table = HashMap<u64, Job>;

fn lock(all: &Mutex<Table>) -> MutexGuard<'_, Table> {
    all.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Jobs {
    /// Jobs of this lander, whose files go to peers through `hand_over`.
    #[must_use]
    pub fn new(lander: Arc<dyn Lander>, hand_over: HandOver) -> Self {
        Self { lander, hand_over: HandOvers::Bound(hand_over), next: AtomicU64::new(1), all: Arc::default() }
    }

    /// The same, with a socket of this mode that is made when the first file is asked for.
    #[must_use]
    pub fn with_socket(lander: Arc<dyn Lander>, socket: PathBuf, mode: u32) -> Self {
        let hand_over = HandOvers::Later { socket, mode, bound: tokio::sync::OnceCell::new() };
        Self { lander, hand_over, next: AtomicU64::new(1), all: Arc::default() }
    }

    fn with<T>(
        &self,
        owner: WorkloadIdentity,
        job: u64,
        look: impl FnOnce(&Job) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let all = lock(&self.all);
        let found = all.get(&job).ok_or(HubError::JobUnknown)?;
        // GUARD: job-owner -> evil_peer_asks_for_a_job_of_another
        if found.owner != owner {
            return Err(HubError::JobUnknown.into());
        }
        look(found)
    }

    fn insert(&self, owner: WorkloadIdentity, progress: &Arc<Progress>) -> Result<u64, Error> {
        let mut all = lock(&self.all);
        let owned = all.values().filter(|job| job.owner == owner).count();
        // GUARD: jobs-bounded -> evil_peer_begins_many_jobs
        if owned >= MAXIMUM_OWNED || all.len() >= MAXIMUM_JOBS {
            return Err(HubError::Busy { what: "jobs" }.into());
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        all.insert(number, Job { owner, progress: Arc::clone(progress), outcome: Outcome::Working });
        Ok(number)
    }
}

fn describe(job: &Job) -> ArtifactStatusResponse {
    let progress = &job.progress;
    let mut answer = ArtifactStatusResponse {
        bytes_done: progress.done.load(Ordering::Relaxed),
        bytes_total: progress.total.load(Ordering::Relaxed),
        ..Default::default()
    };
    let (state, spent) = match &job.outcome {
        Outcome::Failed(error) => {
            answer.error.clone_from(error);
            (ArtifactState::FAILED, None)
        }
        Outcome::Landed(landed, spent) => {
            let files = landed.files().into_iter();
            answer.files =
                files.map(|(name, bytes)| ArtifactFile { name, bytes, ..Default::default() }).collect();
            (ArtifactState::LANDED, Some(*spent))
        }
        Outcome::Working if answer.bytes_done > 0 => (ArtifactState::LANDING, Some(progress.began.elapsed())),
        Outcome::Working => (ArtifactState::PREPARING, None),
    };
    answer.state = state.into();
    answer.bytes_per_second = spent.map_or(0, |spent| progress.rate(spent));
    answer
}

#[async_trait]
impl Artifacts for Jobs {
    async fn land(&self, owner: WorkloadIdentity, order: ArtifactLandRequest) -> Result<u64, Error> {
        let progress = Arc::new(Progress::new());
        let number = self.insert(owner, &progress)?;
        let (lander, all) = (Arc::clone(&self.lander), Arc::clone(&self.all));
        tokio::task::spawn_blocking(move || {
            let landed = lander.land(&order, &progress);
            let outcome = match landed {
                Ok(landed) => Outcome::Landed(landed.into(), progress.began.elapsed()),
                Err(error) => Outcome::Failed(shortened(&error)),
            };
            // A job that was given up meanwhile is not there any more: what landed is dropped, and wiped.
            if let Some(job) = lock(&all).get_mut(&number) {
                job.outcome = outcome;
            }
        });
        Ok(number)
    }

    async fn status(&self, owner: WorkloadIdentity, job: u64) -> Result<ArtifactStatusResponse, Error> {
        self.with(owner, job, |job| Ok(describe(job)))
    }

    async fn open(
        &self,
        owner: WorkloadIdentity,
        uid: u32,
        order: ArtifactOpenRequest,
    ) -> Result<ArtifactOpenResponse, Error> {
        let landed = self.with(owner, order.job, |job| {
            let expected = "a job that has landed";
            match &job.outcome {
                Outcome::Landed(landed, _) => Ok(Arc::clone(landed)),
                Outcome::Failed(_) => Err(HubError::JobState { expected, found: "one that failed" }.into()),
                Outcome::Working => Err(HubError::JobState { expected, found: "one at work" }.into()),
            }
        })?;
        let index = usize::try_from(order.file).unwrap_or(usize::MAX);
        if index >= landed.files().len() {
            let expected = "the number of a file of the job";
            return Err(HubError::JobState { expected, found: "another" }.into());
        }
        let hand_over = self.hand_over.get().await?;
        let ticket = hand_over.ticket(landed.open(index)?, uid)?;
        let socket = hand_over.socket().display().to_string();
        Ok(ArtifactOpenResponse { ticket: ticket.to_vec(), socket, ..Default::default() })
    }

    async fn release(&self, owner: WorkloadIdentity, job: u64) -> Result<(), Error> {
        self.with(owner, job, |job| {
            job.progress.cancelled.store(true, Ordering::Relaxed);
            Ok(())
        })?;
        let released = lock(&self.all).remove(&job);
        // Wiping takes time, and holds no lock.
        let _ = tokio::task::spawn_blocking(move || drop(released)).await;
        Ok(())
    }
}

fn shortened(error: &Error) -> String {
    let mut text = format!("{}: {error}", error.code());
    let end = text.floor_char_boundary(MAXIMUM_ERROR_BYTES);
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests;
