use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};

use initdata::{ProcessIdentity, Unverified};
use protected_memory::landing::{
    FileName, Landing, LandingPlan, LandingPolicy, SwapPolicy, TeePolicy, TeeState,
};
use rustix::fs::{CWD, Mode, OFlags, openat};

use super::*;

pub(super) const PROCESS: ProcessIdentity<'static> = ProcessIdentity {
    args: &[b"/bin/serve"],
    env_names: &[b"PATH"],
    cwd: b"/",
    uid: 0,
    gid: 0,
    additional_gids: &[],
};

pub(super) fn root() -> Root {
    Root::Verity { root_hash: Sha256Digest::new([1; 32]), salt: Vec::new(), data_blocks: 8 }
}

/// Artifacts that nobody lands: one by process, one by index of the policy, at `path` and beside it.
pub(super) fn sealed(path: &str) -> Sealed {
    sealed_with(path, &Log::console())
}

/// The same, with this log.
pub(super) fn sealed_with(path: &str, log: &Log) -> Sealed {
    let hash = format!("sha256:{}", "01".repeat(32));
    let root = format!("verity = {{ root_hash = \"{hash}\", salt = \"\", data_blocks = 8 }}");
    let artifact = |name: &str, path: &str, process: &str| {
        format!(
            "[[artifact]]\nname = \"{name}\"\nreference = \"registry.example/{name}:v1\"\ncore = \"{hash}\"\n\
             path = \"{path}\"\ncontainer = {{ {root}, {process} }}\n"
        )
    };
    let text = format!(
        "environment = \"test\"\n\n{}\n{}",
        artifact("first", path, &format!("process = \"{}\"", PROCESS.digest())),
        artifact("second", &format!("{path}-2"), "policy_container = 2")
    );
    let text = format!("{text}\n[[secret]]\ncontainer = {{ image = \"{hash}\", policy_container = 2 }}\n");
    let mut package = initdata::Package::new(initdata::Algorithm::Sha256);
    package.insert("sealed.toml", &text).unwrap();
    let unverified = Unverified::from_annotation(&package.pack().unwrap().annotation()).unwrap();
    let document = unverified.insecure_unbound().unwrap();
    let config = document.document().sealed().unwrap();
    let setup = Setup {
        environment: config.environment.to_string(),
        chip_root: None,
        artifacts: config.artifacts.clone(),
        secrets: config.secrets.clone(),
        policy: Some(text_digest(POLICY)),
        insecure: Default::default(),
        places: Places { mounted: "/nowhere/artifacts".into(), shared: "/nowhere/shared".into() },
        attached: "/nowhere/landed".into(),
        hub: DataHub::absent("a test has none"),
        shared: Shared::default(),
    };
    Sealed::of(setup, "/proc".into(), log)
}

/// What stands beside `sealed.toml`.
const POLICY: &str = "package agent_policy\n";

/// A policy admitted `con` as its third container, and `no-root` as its second.
pub(super) fn under(text: &str) -> InForce {
    let state = serde_json::json!({ "pstate": { "con": 2, "no-root": 1, "never-admitted": 2 } });
    InForce { text_sha256: *text_digest(text).as_bytes(), state }
}

pub(super) fn state() -> InForce {
    under(POLICY)
}

pub(super) fn id(name: &str) -> ContainerId {
    ContainerId::parse(name).unwrap()
}

fn landing(bytes: &[u8]) -> Landing<protected_memory::landing::Complete> {
    let plan =
        LandingPlan::new([(FileName::parse("model").unwrap(), u64::try_from(bytes.len()).unwrap())]).unwrap();
    let policy = LandingPolicy { tee: TeePolicy::InsecureNoTee, swap: SwapPolicy::InsecureSwap };
    let mut landing = Landing::create(&plan, policy, TeeState::None).unwrap();
    landing.file_mut(0).unwrap().window().unwrap().bytes_mut().copy_from_slice(bytes);
    landing.complete().unwrap()
}

/// A process in a mount namespace of its own, which ends with its standard input.
pub(super) struct Container(Child);

impl Container {
    /// After `script` in the new namespace.
    pub(super) fn start(script: &str) -> Self {
        let script = format!("{script}\necho there; read end");
        let mut child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-ec", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "there\n");
        Self(child)
    }

    pub(super) fn id(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    /// A file as its processes see it.
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        std::fs::read(format!("/proc/{}/root{}", self.id(), path.display()))
    }

    fn mounts(&self) -> String {
        std::fs::read_to_string(format!("/proc/{}/mountinfo", self.id())).unwrap()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.0.stdin.take().map(|mut input| input.write_all(b"\n"));
        let _ = self.0.wait();
    }
}

/// A directory on the same mount as `/`.
pub(super) fn in_root() -> tempfile::TempDir {
    tempfile::tempdir_in("/").unwrap()
}

#[tokio::test]
async fn a_container_that_is_not_named_gets_nothing_and_waits_for_nothing() {
    let sealed = sealed("/models/m");
    for (name, root, process) in
        [("no-root", None, PROCESS), ("other-process", Some(root()), ProcessIdentity { uid: 1, ..PROCESS })]
    {
        sealed.admit(&id(name), root, Path::new("/"), process.digest()).unwrap();
        // Nothing is landed: whoever waited would not come back so.
        sealed.attach(&id(name), Some(&state()), 1, || false).await.unwrap();
    }
    let error = sealed.attach(&id("never-admitted"), Some(&state()), 1, || false).await.unwrap_err();
    assert_eq!(error.code(), "SEALED_CONTAINER");
    sealed.release(&id("no-root"));
    let error = sealed.attach(&id("no-root"), None, 1, || false).await.unwrap_err();
    assert_eq!(error.code(), "SEALED_CONTAINER");
}

#[tokio::test]
async fn evil_host_starts_before_the_artifact_is_there() {
    let sealed = sealed("/models/m");
    sealed.admit(&id("con"), Some(root()), Path::new("/"), PROCESS.digest()).unwrap();
    let error = sealed.attach(&id("con"), None, 1, || true).await.unwrap_err();
    assert_eq!(error.code(), "SEALED_NOT_READY");
    assert_eq!(error.to_string(), "artifact first is not ready: waiting");
    let states = &sealed.inner.states;
    while states.failed(0, "SEALED_NO_CACHE", Instant::now()) {}
    // Given up, and tried once more for a container: the caller is told what is wrong.
    let error = sealed.attach(&id("con"), None, 1, || true).await.unwrap_err();
    assert_eq!(error.to_string(), "artifact first is not ready: waiting after SEALED_NO_CACHE");
    let names: Vec<_> = sealed.progress().into_iter().map(|progress| progress.name).collect();
    assert_eq!(names, ["first", "second"]);
}

#[tokio::test]
async fn whoever_waits_for_a_refused_artifact_is_told_at_once() {
    let sealed = sealed("/models/m");
    sealed.admit(&id("con"), Some(root()), Path::new("/"), PROCESS.digest()).unwrap();
    // Refused before anybody asked: that is no answer to who asks now.
    let states = &sealed.inner.states;
    states.refused(0);
    states.failed(0, "ROLLBACK", Instant::now());
    let container = id("con");
    let attach = sealed.attach(&container, None, 1, || false);
    let refuse = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        states.refused(0);
        states.failed(0, "ROLLBACK", Instant::now());
    };
    let both = async { tokio::join!(attach, refuse) };
    let (error, ()) = tokio::time::timeout(PATIENCE / 2, both).await.expect("nobody waits for it");
    assert_eq!(error.unwrap_err().to_string(), "artifact first is not ready: waiting after ROLLBACK");
}

#[tokio::test]
async fn an_artifact_is_seen_in_its_container_alone() {
    let directory = in_root();
    let path = directory.path().to_str().unwrap().to_owned();
    std::fs::create_dir(format!("{path}/m")).unwrap();
    let sealed = sealed(&format!("{path}/m"));
    sealed.inner.states.ready(1, landing(b"second"));
    sealed.inner.states.ready(0, landing(b"first"));
    std::fs::create_dir(format!("{path}/m-2")).unwrap();
    sealed.admit(&id("con"), Some(root()), Path::new("/"), Sha256Digest::new([9; 32])).unwrap();
    let container = Container::start("true");
    sealed.attach(&id("con"), Some(&state()), container.id(), || false).await.unwrap();
    let place = directory.path().join("m-2");
    assert_eq!(container.read(&place.join("model")).unwrap(), b"second");
    assert!(container.read(&directory.path().join("m/model")).is_err(), "the other one's artifact");
    assert!(!place.join("model").exists(), "seen outside of the container");
    let before = container.mounts();
    let mount = before.lines().find(|line| line.contains("m-2")).unwrap();
    assert!(mount.contains(" ro,nosuid,nodev,noexec"), "{mount}");
    // Once more for the same process: nothing is done twice.
    sealed.attach(&id("con"), Some(&state()), container.id(), || false).await.unwrap();
    assert_eq!(container.mounts(), before);
}

#[tokio::test]
async fn evil_host_mounts_on_the_way_to_the_artifact() {
    let directory = in_root();
    let path = directory.path().to_str().unwrap().to_owned();
    std::fs::create_dir_all(format!("{path}/a/m-2")).unwrap();
    let sealed = sealed(&format!("{path}/a/m"));
    sealed.inner.states.ready(1, landing(b"second"));
    sealed.admit(&id("con"), Some(root()), Path::new("/"), Sha256Digest::new([9; 32])).unwrap();
    // The same name, in a file system of somebody else.
    let container = Container::start(&format!("mount -t tmpfs x {path}/a; mkdir {path}/a/m-2"));
    let before = container.mounts();
    let error = sealed.attach(&id("con"), Some(&state()), container.id(), || false).await.unwrap_err();
    assert_eq!(error.code(), "SEALED_TARGET");
    assert_eq!(container.mounts(), before, "something was attached");
    // A link to it.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let slash = openat(CWD, "/", flags, Mode::empty()).unwrap();
    std::os::unix::fs::symlink("a", directory.path().join("link")).unwrap();
    let link = format!("{path}/link/m-2");
    assert_eq!(attach::target(slash.as_fd(), Path::new(&link)).unwrap_err().code(), "SEALED_TARGET");
    assert!(attach::target(slash.as_fd(), &directory.path().join("a/m-2")).is_ok());
    assert_eq!(
        attach::target(slash.as_fd(), &directory.path().join("x")).unwrap_err().code(),
        "SEALED_TARGET"
    );
}

#[tokio::test]
async fn evil_host_other_root_under_the_process() {
    let directory = in_root();
    let path = directory.path().to_str().unwrap().to_owned();
    std::fs::create_dir(format!("{path}/m-2")).unwrap();
    let sealed = sealed(&format!("{path}/m"));
    sealed.inner.states.ready(1, landing(b"second"));
    // What was verified is another directory than the one that became its root.
    sealed.admit(&id("con"), Some(root()), directory.path(), Sha256Digest::new([9; 32])).unwrap();
    let container = Container::start("true");
    let before = container.mounts();
    let error = sealed.attach(&id("con"), Some(&state()), container.id(), || false).await.unwrap_err();
    assert_eq!(error.code(), "SEALED_ROOT");
    assert_eq!(container.mounts(), before, "something was attached");
}

#[tokio::test]
async fn evil_host_files_beside_the_verified_root_of_a_named_process() {
    let directory = in_root();
    let path = directory.path().to_str().unwrap().to_owned();
    for name in ["m", "m-2", "bin"] {
        std::fs::create_dir(format!("{path}/{name}")).unwrap();
    }
    let sealed = sealed(&format!("{path}/m"));
    sealed.inner.states.ready(0, landing(b"first"));
    sealed.admit(&id("con"), Some(root()), Path::new("/"), PROCESS.digest()).unwrap();
    let container = Container::start(&format!("mount --bind {path} {path}/bin"));
    let before = container.mounts();
    let error = sealed.attach(&id("con"), None, container.id(), || false).await.unwrap_err();
    assert_eq!(error.code(), "SEALED_HOST_FILES");
    assert_eq!(container.mounts(), before, "something was attached");
}

/// SetPolicy between create and start, by a text that initdata lists: its third container is another one.
#[tokio::test]
async fn evil_host_replaces_the_policy_before_the_start() {
    let directory = in_root();
    let path = directory.path().to_str().unwrap().to_owned();
    std::fs::create_dir(format!("{path}/m-2")).unwrap();
    let sealed = sealed(&format!("{path}/m"));
    sealed.inner.states.ready(1, landing(b"second"));
    sealed.admit(&id("con"), Some(root()), Path::new("/"), Sha256Digest::new([9; 32])).unwrap();
    let container = Container::start("true");
    let before = container.mounts();
    let other = under("package agent_policy\n# another one\n");
    let error = sealed.attach(&id("con"), Some(&other), container.id(), || false).await.unwrap_err();
    assert_eq!(error.code(), "SEALED_OTHER_POLICY");
    assert_eq!(container.mounts(), before, "something was attached");
    sealed.attach(&id("con"), Some(&state()), container.id(), || false).await.unwrap();
    assert_eq!(container.read(&directory.path().join("m-2/model")).unwrap(), b"second");
}

/// The policy's third container, with a root that nobody verified.
#[tokio::test]
async fn evil_host_named_container_on_a_root_of_the_host() {
    let directory = in_root();
    let path = directory.path().to_str().unwrap().to_owned();
    std::fs::create_dir(format!("{path}/m-2")).unwrap();
    let sealed = sealed(&format!("{path}/m"));
    sealed.inner.states.ready(1, landing(b"second"));
    sealed.admit(&id("con"), None, Path::new("/"), PROCESS.digest()).unwrap();
    let container = Container::start("true");
    let before = container.mounts();
    let error = sealed.attach(&id("con"), Some(&state()), container.id(), || false).await.unwrap_err();
    assert_eq!(error.code(), "SEALED_IMPOSTOR");
    assert_eq!(container.mounts(), before, "something was attached");
}

#[test]
fn evil_host_artifact_before_the_audit_is_attested() {
    let sealed = sealed("/models/m");
    sealed.land(0, || false);
    assert_eq!(sealed.progress()[0].stage, Stage::Waiting(Some("SEALED_NOT_ATTESTED")));
    sealed.land(0, || true);
    assert_eq!(sealed.progress()[0].stage, Stage::Waiting(Some("SEALED_NO_CACHE")));
}
