use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use attestation_agent::Options;

use super::*;
use crate::config::{CREDENTIALS, Credential, CredentialPath};
use initdata::InsecureMode;

const OFFLINE: &str = "[kbc]\nname = \"offline_fs_kbc\"";

fn uri(text: &str) -> ResourceUri {
    ResourceUri::parse(text).unwrap()
}

fn later() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn sample() -> Arc<Attester> {
    let options = Options { insecure_sample: true };
    Arc::new(Attester::detect(&TeeRoot::system(), options).unwrap())
}

fn resources(directory: &Path, config: &str) -> Result<Resources, HubError> {
    let modes = Modes::of(&[InsecureMode::OfflineKbc]);
    let config = HubConfig::parse(config).unwrap();
    Resources::new(&config, &modes, &sample(), None, &TeeRoot::insecure(directory))
}

fn store(directory: &Path, content: &str) {
    std::fs::create_dir_all(directory.join("etc")).unwrap();
    std::fs::write(directory.join("etc/aa-offline_fs_kbc-resources.json"), content).unwrap();
}

#[tokio::test]
async fn files_of_the_image_are_read_where_that_is_permitted() {
    let directory = tempfile::tempdir().unwrap();
    store(directory.path(), "{\"a/b/c\": \"c2VjcmV0\", \"a/b/bad\": \"!\"}");
    let found = resources(directory.path(), OFFLINE).unwrap();
    assert_eq!(found.get(&uri("kbs:///a/b/c"), later()).await.unwrap().expose(), b"secret");
    let code = |name: &'static str| {
        let found = &found;
        async move { found.get(&uri(name), later()).await.unwrap_err().code() }
    };
    assert_eq!(code("kbs:///a/b/d").await, "CDH_OFFLINE_NO_RESOURCE");
    assert_eq!(code("kbs+plugin:///a/b/c").await, "CDH_OFFLINE_NO_RESOURCE");
    assert_eq!(code("kbs:///a/b/bad").await, "CDH_OFFLINE_INVALID");
    for content in ["[]", "{\"a\": 1}", "{\"a\": \"\", \"a\": \"\"}", "{"] {
        store(directory.path(), content);
        assert_eq!(resources(directory.path(), OFFLINE).unwrap_err().code(), "CDH_OFFLINE_INVALID");
    }
}

#[tokio::test]
async fn without_a_source_nothing_is_had() {
    let directory = tempfile::tempdir().unwrap();
    store(directory.path(), "{\"a/b/c\": \"c2VjcmV0\"}");
    let found = resources(directory.path(), "").unwrap();
    assert_eq!(found.get(&uri("kbs:///a/b/c"), later()).await.unwrap_err().code(), "CDH_NO_BROKER");
    let config = HubConfig::parse(OFFLINE).unwrap();
    let root = TeeRoot::insecure(directory.path());
    let refused = Resources::new(&config, &Modes::none(), &sample(), None, &root);
    assert_eq!(refused.unwrap_err().code(), "CDH_INSECURE_UNBOUND");
}

#[test]
fn a_resource_is_kept_for_its_lifetime_and_no_longer() {
    let start = Instant::now();
    let after = |seconds| start + Duration::from_secs(seconds);
    let kept = Kept::new(Duration::from_secs(60));
    let secret = Arc::new(Plaintext::take_from(&mut [1, 2, 3]).unwrap());
    let name = uri("kbs:///a/b/c");
    kept.keep(&name, &secret, start);
    assert_eq!(kept.get(&name, start).unwrap().expose(), [1, 2, 3]);
    assert!(kept.get(&name, after(59)).is_some());
    assert!(kept.get(&name, after(60)).is_none());
    assert_eq!(kept.len(), 1);
    kept.wipe_expired(after(60));
    assert_eq!((kept.len(), Arc::strong_count(&secret)), (0, 1), "nobody else holds it");
    let none = Kept::new(Duration::ZERO);
    none.keep(&name, &secret, start);
    assert_eq!(none.len(), 0);
    for index in 0..40 {
        kept.keep(&uri(&format!("kbs:///a/b/{index}")), &secret, start);
    }
    assert_eq!(kept.len(), 32);
}

fn credential(path: &str) -> Credential {
    Credential {
        resource: uri("kbs:///a/b/c"),
        path: CredentialPath::parse(&format!("{CREDENTIALS}/{path}")).unwrap(),
    }
}

#[test]
fn a_credential_is_replaced_as_one_step() {
    let directory = tempfile::tempdir().unwrap();
    let credentials = Credentials::new(Vec::new(), &TeeRoot::insecure(directory.path()));
    let one = credential("deep/er/file");
    assert!(credentials.write(&one, b"first").unwrap());
    let below = directory.path().join(CREDENTIALS.trim_start_matches('/'));
    let path = below.join("deep/er/file");
    let open = std::fs::File::open(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(&below).unwrap().permissions().mode() & 0o777, 0o700);
    let before = std::fs::metadata(&path).unwrap().ino();
    assert!(!credentials.write(&one, b"first").unwrap(), "the same is left alone");
    assert_eq!(std::fs::metadata(&path).unwrap().ino(), before);
    std::fs::write(below.join("deep/er/.partial-0011"), "left by a run that was killed").unwrap();
    assert!(credentials.write(&one, b"second").unwrap());
    assert_eq!(std::fs::read(&path).unwrap(), b"second");
    // Whoever had it open reads the old bytes to their end.
    assert_eq!(std::io::read_to_string(open).unwrap(), "first");
    assert_eq!(std::fs::read_dir(below.join("deep/er")).unwrap().count(), 1);
    // A directory in its place is not removed.
    let error = credentials.write(&credential("deep/er"), b"x").unwrap_err();
    assert_eq!(error.code(), "CDH_CREDENTIAL_IO");
    assert_eq!(std::fs::read(&path).unwrap(), b"second");
}

#[test]
fn evil_image_link_among_the_credentials() {
    let directory = tempfile::tempdir().unwrap();
    let elsewhere = directory.path().join("elsewhere");
    let below = directory.path().join(CREDENTIALS.trim_start_matches('/'));
    std::fs::create_dir_all(&elsewhere).unwrap();
    std::fs::create_dir_all(&below).unwrap();
    std::fs::write(elsewhere.join("file"), "precious").unwrap();
    symlink(&elsewhere, below.join("link")).unwrap();
    symlink(elsewhere.join("file"), below.join("file")).unwrap();
    let credentials = Credentials::new(Vec::new(), &TeeRoot::insecure(directory.path()));
    let error = credentials.write(&credential("link/file"), b"secret").unwrap_err();
    assert_eq!(error.code(), "CDH_CREDENTIAL_IO");
    // A link in the place of the file itself is replaced, not followed.
    assert!(credentials.write(&credential("file"), b"secret").unwrap());
    assert_eq!(std::fs::read(elsewhere.join("file")).unwrap(), b"precious");
    assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 1);
    assert!(std::fs::symlink_metadata(below.join("file")).unwrap().is_file());
}

#[test]
fn evil_image_credentials_on_a_disk() {
    // The file system of processes is none that keeps files in memory.
    let on_disk = Credentials::in_memory("/proc".into());
    assert_eq!(on_disk.write(&credential("file"), b"x").unwrap_err().code(), "CDH_CREDENTIAL_PLACE");
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let in_memory = Credentials::in_memory(directory.path().join("kbs"));
    assert!(in_memory.write(&credential("file"), b"x").unwrap());
}
