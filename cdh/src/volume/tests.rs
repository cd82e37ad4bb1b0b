use std::collections::BTreeMap;
use std::time::Duration;

use super::*;

/// A source of one key, which counts how often it is asked.
struct Source(Vec<u8>, Mutex<usize>);

#[async_trait]
impl ResourceSource for Source {
    async fn get(&self, _: &ResourceUri, _: Instant) -> Result<Arc<Plaintext>, HubError> {
        *self.1.lock().unwrap() += 1;
        Plaintext::take_from(&mut self.0.clone()).map(Arc::new)
    }
}

fn volumes(key: &[u8], writable: &[&str]) -> (BlockVolumes, Arc<Source>) {
    let source = Arc::new(Source(key.to_vec(), Mutex::new(0)));
    let modes = Modes::none();
    let verification = Verification::decide(false, &modes).unwrap();
    let keys = Keys { resources: Arc::clone(&source) as _, verification, modes };
    let writable = writable.iter().map(|&name| name.to_owned()).collect();
    let config = VolumesConfig { writable, unclean: Vec::new() };
    let none = Path::new("/nonexistent");
    (BlockVolumes::at(keys, config, Box::new(ext4::OwnChildren), none, none), source)
}

fn request(source: &str, flags: &[&str]) -> Volume {
    let options = [
        ("devicePath", "/dev/vdb"),
        ("sourceType", source),
        ("key", "kbs:///a/b/c"),
        ("targetType", "device"),
        ("encryptionType", "luks2"),
    ];
    Volume {
        kind: "block-device".to_owned(),
        options: BTreeMap::from(options.map(|(key, value)| (key.to_owned(), value.to_owned()))),
        flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
        mount_point: "/mnt/volume".to_owned(),
    }
}

async fn code(volumes: &BlockVolumes, volume: Volume) -> &'static str {
    let deadline = Instant::now() + Duration::from_secs(5);
    let code = volumes.mount(volume, deadline).await.map_or_else(|error| error.code(), |()| "OK");
    assert!(locked(&volumes.open).is_empty(), "the place is free again");
    code
}

#[tokio::test]
async fn evil_second_pod_writes_a_shared_volume() {
    let (shared, source) = volumes(&[7; 32], &[]);
    for (from, flags) in [("encrypted", &[][..]), ("encrypted", &["rw"]), ("empty", &[])] {
        assert_eq!(code(&shared, request(from, flags)).await, "VOLUME_WRITE_NOT_BOUND");
    }
    assert_eq!(*source.1.lock().unwrap(), 0, "the key was asked for");
    // To read, as many as like.
    for _ in 0..2 {
        assert_eq!(code(&shared, request("encrypted", &["ro"])).await, "VOLUME_IO");
    }
    let (other, _) = volumes(&[7; 32], &["kbs:///a/b/d", "kbs:///a/b/c/", ""]);
    assert_eq!(code(&other, request("encrypted", &[])).await, "VOLUME_WRITE_NOT_BOUND");
    let (own, source) = volumes(&[7; 32], &["kbs:///a/b/c"]);
    for from in ["encrypted", "empty"] {
        assert_eq!(code(&own, request(from, &[])).await, "VOLUME_IO");
    }
    assert_eq!(*source.1.lock().unwrap(), 2);
}

#[tokio::test]
async fn evil_broker_key_that_can_be_guessed() {
    for length in [0, 1, 31, 8193] {
        let (volumes, _) = volumes(&vec![7; length], &["kbs:///a/b/c"]);
        assert_eq!(code(&volumes, request("encrypted", &[])).await, "VOLUME_KEY", "{length}");
    }
}

#[tokio::test]
async fn a_place_has_one_volume() {
    let (volumes, _) = volumes(&[7; 32], &[]);
    let place = Reservation::take(&volumes.open, Path::new("/mnt/volume")).unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    let error = volumes.mount(request("encrypted", &["ro"]), deadline).await.unwrap_err();
    assert_eq!(error.code(), "VOLUME_PLACE");
    // Nor does who closes it take it from whoever is about to open it.
    for place in ["/mnt/other", "/mnt/volume"] {
        assert_eq!(volumes.unmount(place).await.unwrap_err().code(), "VOLUME_PLACE");
    }
    let error = volumes.mount(request("encrypted", &["ro"]), deadline).await.unwrap_err();
    assert_eq!(error.code(), "VOLUME_PLACE");
    drop(place);
    let _places: Vec<_> = (0..MAXIMUM_VOLUMES)
        .map(|number| Reservation::take(&volumes.open, &PathBuf::from(format!("/mnt/{number}"))).unwrap())
        .collect();
    let error = volumes.mount(request("encrypted", &["ro"]), deadline).await.unwrap_err();
    assert_eq!(error.code(), "CDH_BUSY");
}
