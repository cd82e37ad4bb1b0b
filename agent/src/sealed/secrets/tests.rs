use initdata::VerityTree;
use policy_engine::InForce;
use tempfile::TempDir;

use super::super::tests::{Container, PROCESS, id, in_root, root, sealed_with, state, under};
use super::*;
use crate::hub::tests::{offline, sealed_text};
use crate::log::tests::recorded;

const SECRET: &str = "hunter2-and-more";

/// Secrets by a hub of files, for the containers of `sealed` at the path of the directory.
struct Scene {
    directory: TempDir,
    secrets: Secrets,
    log: Arc<Mutex<Vec<u8>>>,
}

impl Scene {
    fn new(secret: &[u8]) -> Self {
        Self::with(secret, true)
    }

    fn with(secret: &[u8], is_attested: bool) -> Self {
        let (directory, (log, lines)) = (in_root(), recorded());
        let hub = offline(directory.path(), secret, is_attested);
        let sealed = sealed_with(directory.path().to_str().unwrap(), &log);
        Self { secrets: Secrets::new(hub, &sealed), directory, log: lines }
    }

    fn admit(&self, name: &str, root: Option<Root>, rootfs: &Path) -> Result<(), SecretError> {
        self.secrets.admit(&id(name), &environment(), None, root, rootfs, PROCESS.digest())
    }

    async fn open(
        &self,
        name: &str,
        policy: Option<&InForce>,
        process: i32,
    ) -> Result<Vec<SecretVariable>, SecretError> {
        let deadline = Instant::now() + Duration::from_millis(500);
        self.secrets.open(&id(name), policy, process, Some(deadline), || false).await
    }

    async fn code(&self, name: &str, policy: Option<&InForce>, process: i32) -> &'static str {
        self.open(name, policy, process).await.unwrap_err().code()
    }

    fn said(&self) -> String {
        String::from_utf8(self.log.lock().unwrap().clone()).unwrap()
    }
}

fn environment() -> Vec<String> {
    vec!["PATH=/bin".to_owned(), format!("PASSWORD={}", sealed_text()), "sealed.x".to_owned()]
}

#[tokio::test]
async fn a_named_container_gets_its_secrets_and_nobody_reads_them() {
    let scene = Scene::new(SECRET.as_bytes());
    let container = Container::start("true");
    // By the index of the policy beside sealed.toml, and by one of a policy that bound configuration lists.
    for (name, policy) in [("con", Some(state())), ("con", Some(under("package other\n")))] {
        scene.admit(name, Some(root()), Path::new("/")).unwrap();
        let opened = scene.open(name, policy.as_ref(), container.id()).await.unwrap();
        let expected = SecretVariable::new("PASSWORD", SECRET).unwrap();
        assert!(opened.len() == 1 && opened[0].is(&expected), "{name}");
        assert!(!format!("{opened:?}{:?}", scene.secrets).contains(SECRET));
    }
    assert!(scene.said().contains("sealed values opened for a container"));
    assert!(!scene.said().contains("hunter2"), "{}", scene.said());
    scene.secrets.release(&id("con"));
    assert!(scene.open("con", None, container.id()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_container_without_sealed_values_needs_nothing() {
    let (log, _) = recorded();
    let secrets = Secrets::new(DataHub::absent("none"), &sealed_with("/models/m", &log));
    let plain = ["A=b".to_owned(), "sealed.x".to_owned(), "B=unsealed.x".to_owned()];
    secrets.admit(&id("con"), &plain, None, None, Path::new("/"), PROCESS.digest()).unwrap();
    assert!(secrets.open(&id("con"), None, 1, None, || false).await.unwrap().is_empty());
    let error =
        secrets.admit(&id("con"), &environment(), None, Some(root()), Path::new("/"), PROCESS.digest());
    assert_eq!(error.unwrap_err().code(), "CDH_ABSENT");
}

#[tokio::test]
async fn evil_host_sealed_value_on_a_root_of_the_host() {
    let scene = Scene::new(SECRET.as_bytes());
    assert_eq!(scene.admit("con", None, Path::new("/")).unwrap_err().code(), "SEALED_VALUE_ROOT");
    assert!(scene.open("con", Some(&state()), 1).await.unwrap().is_empty(), "it is not known");
}

/// Whatever the policy says of its process: it does not know which image the host had pulled for it.
#[tokio::test]
async fn evil_host_another_image_under_a_process_with_secrets() {
    let scene = Scene::new(SECRET.as_bytes());
    let container = Container::start("true");
    let image = |byte| Root::Image(Sha256Digest::new([byte; 32]));
    let tree = Root::Composefs(Sha256Digest::new([1; 32]));
    // A policy judges each layer, and not their order.
    let layer =
        |byte| VerityTree { root_hash: Sha256Digest::new([byte; 32]), salt: Vec::new(), data_blocks: 1 };
    let layers = Root::Layers(vec![layer(1), layer(2)]);
    for roots in [vec![image(2), tree.clone()], vec![tree.clone()], vec![image(2)], vec![layers]] {
        let admitted =
            scene.secrets.admit(&id("con"), &environment(), None, roots, Path::new("/"), PROCESS.digest());
        admitted.unwrap();
        for policy in [Some(state()), Some(under("package other\n"))] {
            assert_eq!(scene.code("con", policy.as_ref(), container.id()).await, "SEALED_VALUE_NOT_NAMED");
        }
    }
    assert!(!scene.said().contains("opened"), "{}", scene.said());
    // The one that is named, and under the policy whose indices are meant.
    let roots = [image(1), tree];
    scene.secrets.admit(&id("con"), &environment(), None, roots, Path::new("/"), PROCESS.digest()).unwrap();
    let other = under("package other\n");
    assert_eq!(scene.code("con", Some(&other), container.id()).await, "SEALED_VALUE_NOT_NAMED");
    assert_eq!(scene.open("con", Some(&state()), container.id()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn evil_host_sealed_values_without_end() {
    let scene = Scene::new(SECRET.as_bytes());
    let admit = |environment: &[String]| {
        let admitted = scene.secrets.admit(
            &id("con"),
            environment,
            None,
            Some(root()),
            Path::new("/"),
            PROCESS.digest(),
        );
        admitted.map_err(|error| error.code())
    };
    let many = |count| (0..count).map(|number| format!("A{number}=sealed.x")).collect::<Vec<_>>();
    assert_eq!(admit(&many(MAXIMUM_VALUES)), Ok(()));
    assert_eq!(admit(&many(MAXIMUM_VALUES + 1)), Err("SEALED_VALUE_TOO_MANY"));
    let long = format!("A=sealed.{}", "x".repeat(MAXIMUM_SEALED_BYTES));
    assert_eq!(admit(&[long]), Err("SEALED_VALUE_TOO_MANY"));
}

/// The hash that its root was verified against is the host's word, too.
#[tokio::test]
async fn evil_host_verified_root_that_nobody_names() {
    let scene = Scene::new(SECRET.as_bytes());
    let own = Root::Verity { root_hash: Sha256Digest::new([9; 32]), salt: Vec::new(), data_blocks: 8 };
    let container = Container::start("true");
    for policy in [None, Some(state())] {
        scene.admit("own", Some(own.clone()), Path::new("/")).unwrap();
        assert_eq!(scene.code("own", policy.as_ref(), container.id()).await, "SEALED_VALUE_NOT_NAMED");
    }
    assert!(!scene.said().contains("opened"), "{}", scene.said());
}

#[tokio::test]
async fn evil_host_other_root_under_a_process_with_secrets() {
    let scene = Scene::new(SECRET.as_bytes());
    scene.admit("con", Some(root()), scene.directory.path()).unwrap();
    let container = Container::start("true");
    assert_eq!(scene.code("con", Some(&state()), container.id()).await, "SEALED_ROOT");
}

#[tokio::test]
async fn evil_host_files_over_the_root_of_a_secret() {
    let scene = Scene::new(SECRET.as_bytes());
    let path = scene.directory.path().to_str().unwrap();
    std::fs::create_dir(format!("{path}/bin")).unwrap();
    let container = Container::start(&format!("mount --bind {path} {path}/bin"));
    scene.admit("first", Some(root()), Path::new("/")).unwrap();
    // Named by its process alone: nobody judged its mounts.
    assert_eq!(scene.code("first", None, container.id()).await, "SEALED_HOST_FILES");
    scene.admit("con", Some(root()), Path::new("/")).unwrap();
    assert_eq!(scene.code("con", None, container.id()).await, "SEALED_HOST_FILES");
}

#[tokio::test]
async fn evil_host_starts_a_container_with_secrets_before_the_audit_is_attested() {
    let scene = Scene::with(SECRET.as_bytes(), false);
    scene.admit("con", Some(root()), Path::new("/")).unwrap();
    let container = Container::start("true");
    assert_eq!(scene.code("con", Some(&state()), container.id()).await, "CDH_NOT_ATTESTED");
    assert!(!scene.said().contains("hunter2"));
}

#[tokio::test]
async fn evil_broker_secret_that_is_no_text() {
    let long = vec![b'x'; 128 << 10];
    for secret in [b"\xff\xfehunter2".as_slice(), b"hunter2\0more", &long] {
        let scene = Scene::new(secret);
        scene.admit("con", Some(root()), Path::new("/")).unwrap();
        let container = Container::start("true");
        let error = scene.open("con", Some(&state()), container.id()).await.unwrap_err();
        assert_eq!(error.code(), "SEALED_VALUE_TEXT");
        let told = RpcError::from(error);
        assert!(!format!("{told:?}{}", scene.said()).contains("hunter2"), "{told:?}");
    }
}

/// What the hub says is the log's to tell: the host hears a code.
#[tokio::test]
async fn evil_host_alters_a_sealed_value() {
    let scene = Scene::new(SECRET.as_bytes());
    let text = sealed_text();
    let (body, signature) = text.rsplit_once('.').unwrap();
    let altered = format!("A={body}.{}", signature.chars().rev().collect::<String>());
    scene
        .secrets
        .admit(&id("con"), &[altered], None, Some(root()), Path::new("/"), PROCESS.digest())
        .unwrap();
    let container = Container::start("true");
    let error = scene.open("con", Some(&state()), container.id()).await.unwrap_err();
    assert!(error.code().starts_with("SEALED_SECRET_"), "{}", error.code());
    let RpcError::Failed(code, told) = RpcError::from(error) else { panic!("another error") };
    assert!(code.starts_with("SEALED_SECRET_"));
    assert_eq!(told, "a sealed value: see the log of the guest");
    assert!(scene.said().contains(code), "{}", scene.said());
}

/// Files of a mount that are sealed, gathered below the directory.
fn gathered(directory: &Path) -> (SecretFiles, std::path::PathBuf) {
    let volume = directory.join("shared/con-secrets");
    std::fs::create_dir_all(&volume).unwrap();
    std::fs::write(volume.join("password"), sealed_text() + "\n").unwrap();
    let source = volume.display().to_string();
    let mut mounts = vec![protocol::oci::Mount { source, ..Default::default() }];
    let place = directory.join("own/con");
    let files = SecretFiles::gather(&mut mounts, &directory.join("shared"), &place).unwrap().unwrap();
    (files, Path::new(&mounts[0].source).join("password"))
}

fn in_a_runtime<F: Future<Output = ()>>(work: impl FnOnce() -> F) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work());
}

#[test]
fn sealed_files_are_opened_for_a_named_container_and_gone_with_it() {
    crate::namespaces::tests::in_namespaces(&["--mount"], || {
        in_a_runtime(async || {
            let scene = Scene::new(SECRET.as_bytes());
            let container = Container::start("true");
            let (files, path) = gathered(scene.directory.path());
            let admitted = scene.secrets.admit(
                &id("con"),
                &[],
                Some(files),
                Some(root()),
                Path::new("/"),
                PROCESS.digest(),
            );
            admitted.unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
            assert!(scene.open("con", Some(&state()), container.id()).await.unwrap().is_empty());
            assert_eq!(std::fs::read_to_string(&path).unwrap(), SECRET);
            assert!(
                scene.said().contains("sealed values opened for a container")
                    && !scene.said().contains("hunter2")
            );
            scene.secrets.release(&id("con"));
            assert!(!path.exists());
        });
    });
}

/// Whose index no policy gave, and whom no entry names, reads an empty file, and is not started.
#[test]
fn evil_host_sealed_file_for_a_container_that_nobody_names() {
    crate::namespaces::tests::in_namespaces(&["--mount"], || {
        in_a_runtime(async || {
            let scene = Scene::new(SECRET.as_bytes());
            let container = Container::start("true");
            let (files, path) = gathered(scene.directory.path());
            let own =
                Root::Verity { root_hash: Sha256Digest::new([9; 32]), salt: Vec::new(), data_blocks: 8 };
            let admit = |files, root| {
                scene.secrets.admit(&id("own"), &[], Some(files), root, Path::new("/"), PROCESS.digest())
            };
            admit(files, Some(own)).unwrap();
            assert_eq!(scene.code("own", Some(&state()), container.id()).await, "SEALED_VALUE_NOT_NAMED");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
            scene.secrets.release(&id("own"));
            // On a root of the host it is not even made.
            let (files, path) = gathered(scene.directory.path());
            assert_eq!(admit(files, None).unwrap_err().code(), "SEALED_VALUE_ROOT");
            assert!(!path.exists());
        });
    });
}
