//! Parts of a pull that need no registry and no privilege.

use std::time::Duration;

use attestation_agent::kbs::ResourceUri;

use super::*;
use crate::hub_error::HubError;
use crate::image::policy::{Material as _, MaterialUri};
use crate::plaintext::Plaintext;

/// One resource of a length.
struct Resource(usize);

#[async_trait]
impl ResourceSource for Resource {
    async fn get(&self, _: &ResourceUri, _: Instant) -> Result<Arc<Plaintext>, HubError> {
        Ok(Arc::new(Plaintext::take_from(&mut vec![7; self.0])?))
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

#[tokio::test]
async fn evil_key_resource_of_a_huge_size() {
    let uri = MaterialUri::parse("kbs:///default/key/1").unwrap();
    for (length, fits) in [(100, true), (101, false)] {
        let resources = Resource(length);
        let keys = Keys { resources: &resources, directories: &[], deadline: soon() };
        assert_eq!(keys.read(&uri, 100).await.is_ok(), fits);
    }
}

#[tokio::test]
async fn evil_key_in_a_file_that_nobody_vouches_for() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().canonicalize().unwrap();
    let (own, other) = (root.join("keys"), root.join("other"));
    for place in [&own, &other] {
        std::fs::create_dir(place).unwrap();
        std::fs::write(place.join("key"), [7; 100]).unwrap();
    }
    std::os::unix::fs::symlink(other.join("key"), own.join("link")).unwrap();
    let resources = Resource(1);
    let directories = [own.clone()];
    let keys = Keys { resources: &resources, directories: &directories, deadline: soon() };
    let uri = |path: PathBuf| MaterialUri::parse(path.to_str().unwrap()).unwrap();
    assert_eq!(keys.read(&uri(own.join("key")), 100).await.unwrap(), [7; 100]);
    assert!(keys.read(&uri(own.join("key")), 99).await.is_err(), "too long");
    assert!(keys.read(&uri(own.join("link")), 100).await.is_err(), "a link");
    assert!(keys.read(&uri(other.join("key")), 100).await.is_err(), "another directory");
    assert!(keys.read(&uri(PathBuf::from(format!("{}-other/key", own.display()))), 100).await.is_err());
}

#[test]
fn evil_registry_withholds_a_signature() {
    let missing = || RegistryError::Missing { from: "a".to_owned(), what: "b".to_owned() };
    let denied = || RegistryError::Unavailable { from: "a".to_owned(), status: 500 };
    let listed = |tried: Vec<RegistryError>| RegistryError::NoSource {
        reference: "r".to_owned(),
        tried: tried.into_iter().map(|error| ("s".to_owned(), error)).collect(),
    };
    assert!(sources::is_missing(&missing()));
    assert!(sources::is_missing(&listed(vec![missing(), missing()])));
    assert!(!sources::is_missing(&denied()));
    assert!(!sources::is_missing(&listed(vec![denied(), missing()])));
    assert!(!sources::is_missing(&listed(Vec::new())));
}

#[test]
fn the_event_is_upstreams() {
    let event = ImageEvent::new("registry.example/a:v1", &PolicyDigest::sha256(b""));
    let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(event.content(), format!(r#"{{"image":"registry.example/a:v1", "digest":"{digest}"}}"#));
}

#[test]
fn codes_are_in_the_table() {
    let table: Vec<_> =
        include_str!("../pull.rs").lines().filter_map(|line| line.strip_prefix("//! | `")).collect();
    let source = include_str!("error.rs").lines().filter_map(|line| line.split_once("=> \"PULL_"));
    let mut count = 0;
    for (_, code) in source {
        let code = format!("PULL_{}", code.trim_end_matches("\","));
        assert!(table.iter().any(|line| line.starts_with(&code)), "{code}");
        count += 1;
    }
    assert_eq!(count, table.len());
}
