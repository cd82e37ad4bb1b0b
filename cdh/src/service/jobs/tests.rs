use std::sync::mpsc;

use super::*;

/// Files of a directory, and whether they are still held.
struct Files(tempfile::TempDir);

impl LandedFiles for Files {
    fn files(&self) -> Vec<(String, u64)> {
        vec![("weights".to_owned(), 6)]
    }

    fn open(&self, _: usize) -> Result<File, Error> {
        Ok(File::open(self.0.path().join("weights")).unwrap())
    }
}

/// Lands when it is told to.
struct Told(Mutex<mpsc::Receiver<()>>);

impl Lander for Told {
    fn land(&self, order: &ArtifactLandRequest, progress: &Progress) -> Result<Box<dyn LandedFiles>, Error> {
        if order.reference != "named" {
            return Err(HubError::NotNamed { reference: order.reference.clone() }.into());
        }
        progress.set_total(6);
        progress.advanced(3);
        self.0.lock().unwrap().recv().unwrap();
        if progress.is_cancelled() {
            return Err(sealed_artifact::ArtifactError::Cancelled.into());
        }
        progress.advanced(3);
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("weights"), "landed").unwrap();
        Ok(Box::new(Files(directory)))
    }
}

struct Scene {
    jobs: Jobs,
    tell: mpsc::Sender<()>,
    _directory: tempfile::TempDir,
}

fn scene() -> Scene {
    let directory = tempfile::tempdir().unwrap();
    let (tell, told) = mpsc::channel();
    let hand_over = HandOver::bind(&directory.path().join("files.sock"), 0o600).unwrap();
    let jobs = Jobs::new(Arc::new(Told(Mutex::new(told))), hand_over);
    Scene { jobs, tell, _directory: directory }
}

fn owner(uid: u32) -> WorkloadIdentity {
    WorkloadIdentity::of("/run/cdh.sock", uid, "/")
}

fn order(reference: &str) -> ArtifactLandRequest {
    ArtifactLandRequest { reference: reference.to_owned(), ..Default::default() }
}

impl Scene {
    async fn until(&self, job: u64, state: ArtifactState) -> ArtifactStatusResponse {
        for _ in 0..6000 {
            let status = self.jobs.status(owner(1), job).await.unwrap();
            if status.state.enum_value() == Ok(state) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never {state:?}");
    }
}

fn code<T>(result: Result<T, Error>) -> &'static str {
    result.map_or_else(|error| error.code(), |_| "OK")
}

#[tokio::test]
async fn a_job_lands_is_opened_and_given_up() {
    let scene = scene();
    let job = scene.jobs.land(owner(1), order("named")).await.unwrap();
    let status = scene.until(job, ArtifactState::LANDING).await;
    assert_eq!((status.bytes_done, status.bytes_total, status.files.len()), (3, 6, 0));
    let open = |job, file| ArtifactOpenRequest { job, file, ..Default::default() };
    assert_eq!(code(scene.jobs.open(owner(1), 1, open(job, 0)).await), "CDH_JOB_STATE");
    scene.tell.send(()).unwrap();
    let status = scene.until(job, ArtifactState::LANDED).await;
    assert_eq!((status.bytes_done, status.files[0].name.as_str(), status.files[0].bytes), (6, "weights", 6));
    assert_eq!(code(scene.jobs.open(owner(1), 1, open(job, 1)).await), "CDH_JOB_STATE");
    let ticket = scene.jobs.open(owner(1), 1, open(job, 0)).await.unwrap();
    assert_eq!((ticket.ticket.len(), ticket.socket.ends_with("files.sock")), (32, true));
    scene.jobs.release(owner(1), job).await.unwrap();
    assert_eq!(code(scene.jobs.status(owner(1), job).await), "CDH_JOB_UNKNOWN");
}

#[tokio::test]
async fn evil_peer_asks_for_a_job_of_another() {
    let scene = scene();
    let job = scene.jobs.land(owner(1), order("named")).await.unwrap();
    scene.tell.send(()).unwrap();
    scene.until(job, ArtifactState::LANDED).await;
    let open = ArtifactOpenRequest { job, ..Default::default() };
    assert_eq!(code(scene.jobs.status(owner(2), job).await), "CDH_JOB_UNKNOWN");
    assert_eq!(code(scene.jobs.open(owner(2), 2, open).await), "CDH_JOB_UNKNOWN");
    assert_eq!(code(scene.jobs.release(owner(2), job).await), "CDH_JOB_UNKNOWN");
    scene.until(job, ArtifactState::LANDED).await;
}

#[tokio::test]
async fn a_job_that_is_given_up_ends_without_a_landing() {
    let scene = scene();
    let job = scene.jobs.land(owner(1), order("named")).await.unwrap();
    scene.until(job, ArtifactState::LANDING).await;
    scene.jobs.release(owner(1), job).await.unwrap();
    scene.tell.send(()).unwrap();
    assert_eq!(code(scene.jobs.status(owner(1), job).await), "CDH_JOB_UNKNOWN");
}

#[tokio::test]
async fn what_nobody_names_fails_with_its_code() {
    let scene = scene();
    let job = scene.jobs.land(owner(1), order("other")).await.unwrap();
    let status = scene.until(job, ArtifactState::FAILED).await;
    assert!(status.error.starts_with("CDH_ARTIFACT_NOT_NAMED: "), "{}", status.error);
}

#[tokio::test]
async fn evil_peer_begins_many_jobs() {
    let scene = scene();
    for _ in 0..MAXIMUM_OWNED {
        scene.jobs.land(owner(1), order("other")).await.unwrap();
    }
    assert_eq!(code(scene.jobs.land(owner(1), order("other")).await), "CDH_BUSY");
    assert_eq!(code(scene.jobs.land(owner(2), order("other")).await), "OK");
}
