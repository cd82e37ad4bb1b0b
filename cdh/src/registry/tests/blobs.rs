use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::evil::Manner;
use super::image::noise;
use super::*;
use crate::registry::store::{Store, StoreOptions};

struct Scene {
    directory: tempfile::TempDir,
    store: Arc<Store>,
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(directory.path(), StoreOptions::default()).unwrap());
        Self { directory, store }
    }

    fn named(&self) -> usize {
        std::fs::read_dir(self.directory.path().join("blobs/sha256")).unwrap().count()
    }

    fn partial(&self) -> u64 {
        let parts = std::fs::read_dir(self.directory.path().join("partial")).unwrap();
        parts.map(|part| part.unwrap().metadata().unwrap().len()).sum()
    }
}

async fn fetch(evil: &Evil, scene: &Scene) -> Result<Fetched, RegistryError> {
    let registry = client(evil);
    let manifest = registry.pull_manifest(&reference(evil, ":v1"), &linux(), soon()).await.unwrap();
    registry.fetch_blobs(&manifest, &scene.store, &(), soon()).await
}

fn is_layer(image: &Image, seen: &Seen) -> bool {
    image.layers.iter().any(|layer| seen.path.ends_with(&Digest::of(layer).to_string()))
}

fn image() -> Image {
    Image::new(vec![noise(1, 3 << 20), noise(2, 100_000), noise(1, 3 << 20), Vec::new()])
}

#[tokio::test]
async fn layers_are_fetched_once_in_parallel_with_progress() {
    let (image, scene) = (image(), Scene::new());
    let served = image.clone();
    let evil = Evil::start(move |seen| served.reply(seen)).await;
    let registry = client(&evil);
    let manifest = registry.pull_manifest(&reference(&evil, ":v1"), &linux(), soon()).await.unwrap();
    let (most, calls) = (AtomicU64::new(0), AtomicUsize::new(0));
    let progress = |state: &Transferred| {
        most.fetch_max(state.done, Ordering::SeqCst);
        calls.fetch_add(1, Ordering::SeqCst);
        assert_eq!(state.total, (3 << 20) + 100_000);
    };
    let fetched = registry.fetch_blobs(&manifest, &scene.store, &progress, soon()).await.unwrap();
    assert_eq!(fetched.received, (3 << 20) + 100_000, "a layer that is there twice is fetched once");
    assert_eq!(most.load(Ordering::SeqCst), (3 << 20) + 100_000);
    assert!(calls.load(Ordering::SeqCst) >= 4, "each piece is told");
    for (layer, blob) in image.layers.iter().zip(&fetched.layers) {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut blob.reader(), &mut bytes).unwrap();
        assert_eq!(&bytes, layer);
    }
    assert_eq!((fetched.layers.len(), scene.named(), scene.partial()), (4, 3, 0));
    let before = evil.count("/blobs/");
    assert_eq!(registry.fetch_blobs(&manifest, &scene.store, &(), soon()).await.unwrap().received, 0);
    assert_eq!(evil.count("/blobs/"), before, "what is stored is not asked for");
}

#[tokio::test]
async fn evil_layer_of_other_bytes() {
    let (image, scene) = (image(), Scene::new());
    let served = image.clone();
    let evil = Evil::start(move |seen| {
        let mut reply = served.reply(seen);
        if is_layer(&served, seen) && reply.body.len() > 1 << 20 {
            reply.body[70_000] ^= 0x40;
        }
        reply
    })
    .await;
    let error = fetch(&evil, &scene).await.unwrap_err();
    assert_eq!(error.code(), "REGISTRY_DIGEST");
    assert!(scene.store.get(&Digest::of(&image.layers[0]), 3 << 20).unwrap().is_none());
    assert_eq!(evil.count(&Digest::of(&image.layers[0]).to_string()), 1, "who lies is not asked again");
}

#[tokio::test]
async fn cut_layers_are_continued() {
    let (image, scene) = (image(), Scene::new());
    let served = image.clone();
    let evil = Evil::start(move |seen| {
        let reply = served.reply(seen);
        if is_layer(&served, seen) { reply.manner(Manner::Cut(700_000)) } else { reply }
    })
    .await;
    let fetched = fetch(&evil, &scene).await.unwrap();
    assert_eq!(fetched.received, (3 << 20) + 100_000, "no byte came twice");
    let long = Digest::of(&image.layers[0]).to_string();
    let starts: Vec<Option<usize>> =
        evil.seen().iter().filter(|seen| seen.path.ends_with(&long)).map(Seen::start).collect();
    assert_eq!(starts, [None, Some(700_000), Some(1_400_000), Some(2_100_000), Some(2_800_000)]);
}

#[tokio::test]
async fn evil_registry_drops_connections_at_random() {
    let image = Image::new((0..6).map(|seed| noise(seed + 10, 2 << 20)).collect());
    let scene = Scene::new();
    let served = image.clone();
    let random = std::sync::Mutex::new(noise(99, 1 << 16).into_iter());
    let evil = Evil::start(move |seen| {
        let reply = served.reply(seen);
        let mut random = random.lock().unwrap();
        let mut next = || usize::from(random.next().unwrap());
        if !is_layer(&served, seen) || next() < 20 {
            return reply;
        }
        match next() % 8 {
            0 => Reply::new(500, ""),
            1 => reply.manner(Manner::Cut(0)),
            _ => reply.manner(Manner::Cut(next() * 4_000)),
        }
    })
    .await;
    let fetched = fetch(&evil, &scene).await.unwrap();
    assert_eq!(fetched.layers.len(), 6);
    assert_eq!(fetched.received, 12 << 20);
    for (layer, blob) in image.layers.iter().zip(&fetched.layers) {
        assert_eq!(*blob.digest(), Digest::of(layer));
    }
}

#[tokio::test]
async fn evil_registry_announces_another_length() {
    for length in [0, 5, 1 << 50] {
        let (image, scene) = (Image::new(vec![noise(1, 5_000)]), Scene::new());
        let evil = Evil::start(move |seen| {
            let reply = image.reply(seen);
            if is_layer(&image, seen) { reply.manner(Manner::Announced(length)) } else { reply }
        })
        .await;
        assert_eq!(fetch(&evil, &scene).await.unwrap_err().code(), "REGISTRY_ANSWER", "{length}");
        assert_eq!((scene.named(), scene.partial()), (0, 0));
    }
}

#[tokio::test]
async fn evil_registry_sends_an_endless_blob() {
    let (image, scene) = (Image::new(vec![noise(1, 5_000_000)]), Scene::new());
    let evil = Evil::start(move |seen| {
        let reply = image.reply(seen);
        if !is_layer(&image, seen) {
            return reply;
        }
        Reply::new(200, noise(2, 60_000)).manner(Manner::Endless)
    })
    .await;
    assert_eq!(fetch(&evil, &scene).await.unwrap_err().code(), "REGISTRY_TOO_LARGE");
    assert_eq!((scene.named(), scene.partial()), (0, 0));
}

#[tokio::test]
async fn evil_registry_lies_about_ranges() {
    for (range, status) in
        [("bytes 0-4999/5000", 206), ("bytes 100-4999/6000", 206), ("", 206), ("bytes */5000", 416)]
    {
        let (image, scene) = (Image::new(vec![noise(1, 5_000)]), Scene::new());
        let served = image.clone();
        let evil = Evil::start(move |seen| {
            let reply = served.reply(seen);
            match (is_layer(&served, seen), seen.start()) {
                (true, Some(_)) => {
                    Reply::new(status, served.layers[0][100..].to_vec()).with("Content-Range", range)
                }
                (true, None) => reply.manner(Manner::Cut(100)),
                _ => reply,
            }
        })
        .await;
        // It is asked for all of it once more, cuts again, lies again: and is left.
        let error = fetch(&evil, &scene).await.unwrap_err();
        let expected = if status == 206 { "REGISTRY_ANSWER" } else { "REGISTRY_STATUS" };
        assert_eq!((error.code(), scene.named()), (expected, 0), "{range}");
        let manifest = client(&evil).pull_manifest(&reference(&evil, ":v1"), &linux(), soon()).await.unwrap();
        let unverified =
            client(&evil).fetch_range_unverified(&manifest, &manifest.layers()[0], 100..5_000, soon()).await;
        let found = unverified.map_err(|error| error.code());
        let right = status == 206 && range == "bytes 100-4999/5000";
        assert_eq!(found.is_ok(), right, "{range}");
    }
}

#[tokio::test]
async fn ranges_come_alone() {
    let image = Image::new(vec![noise(1, 5_000)]);
    let served = image.clone();
    let evil = Evil::start(move |seen| {
        let whole = served.reply(&Seen { headers: Vec::new(), ..seen.clone() });
        let Some(range) = seen.header("range").and_then(|range| range.strip_prefix("bytes=")) else {
            return whole;
        };
        let (start, end) = range.split_once('-').unwrap();
        let (start, end): (usize, usize) = (start.parse().unwrap(), end.parse().unwrap());
        let stated = format!("bytes {start}-{end}/{}", whole.body.len());
        Reply::new(206, &whole.body[start..=end]).with("Content-Range", &stated)
    })
    .await;
    let registry = client(&evil);
    let manifest = registry.pull_manifest(&reference(&evil, ":v1"), &linux(), soon()).await.unwrap();
    let layer = &manifest.layers()[0];
    let bytes = registry.fetch_range_unverified(&manifest, layer, 1_000..3_000, soon()).await.unwrap();
    assert_eq!(bytes, image.layers[0][1_000..3_000]);
    for refused in [3_000..3_000, 0..5_001] {
        let error = registry.fetch_range_unverified(&manifest, layer, refused, soon()).await.unwrap_err();
        assert_eq!(error.code(), "REGISTRY_CONFIG");
    }
}

#[tokio::test]
async fn registries_without_ranges_begin_again() {
    let (image, scene) = (Image::new(vec![noise(1, 500_000)]), Scene::new());
    let asked = AtomicUsize::new(0);
    let evil = Evil::start(move |seen| {
        let reply = image.reply(&Seen { headers: Vec::new(), ..seen.clone() });
        let first = is_layer(&image, seen) && asked.fetch_add(1, Ordering::SeqCst) == 0;
        if first { reply.manner(Manner::Cut(400_000)) } else { reply }
    })
    .await;
    assert_eq!(fetch(&evil, &scene).await.unwrap().received, 900_000);
    assert_eq!((scene.named(), scene.partial()), (1, 0));
}

#[tokio::test]
async fn evil_stalled_registry_is_left() {
    for manner in [Manner::Silent, Manner::Drip(Duration::from_millis(10))] {
        let (image, scene) = (Image::new(vec![noise(1, 5_000)]), Scene::new());
        let evil = Evil::start(move |seen| {
            let reply = image.reply(seen);
            if is_layer(&image, seen) { reply.manner(manner.clone()) } else { reply }
        })
        .await;
        let start = Instant::now();
        let mut options = options(&[&evil]);
        options.patience.window = Duration::from_millis(200);
        options.patience.answer = Duration::from_millis(200);
        let registry = Registry::new(options);
        let manifest = registry.pull_manifest(&reference(&evil, ":v1"), &linux(), soon()).await.unwrap();
        let short = Instant::now() + Duration::from_millis(1_000);
        let error = registry.fetch_blobs(&manifest, &scene.store, &(), short).await.unwrap_err();
        assert!(matches!(error.code(), "REGISTRY_STALLED" | "REGISTRY_DEADLINE"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(3));
        assert!(evil.count("/blobs/") >= 3, "configuration, layer, layer again");
        assert_eq!(scene.named(), 0);
    }
}

#[tokio::test]
async fn evil_slow_registry_meets_the_deadline() {
    let (image, scene) = (Image::new(vec![noise(1, 5_000)]), Scene::new());
    let evil = Evil::start(move |seen| {
        let reply = image.reply(seen);
        if is_layer(&image, seen) { reply.manner(Manner::Drip(Duration::from_millis(1))) } else { reply }
    })
    .await;
    let mut options = options(&[&evil]);
    options.patience.window_bytes = 1;
    let registry = Registry::new(options);
    let manifest = registry.pull_manifest(&reference(&evil, ":v1"), &linux(), soon()).await.unwrap();
    let start = Instant::now();
    let short = start + Duration::from_millis(500);
    let error = registry.fetch_blobs(&manifest, &scene.store, &(), short).await.unwrap_err();
    assert_eq!(error.code(), "REGISTRY_DEADLINE");
    assert!(start.elapsed() < Duration::from_millis(1_500));
    assert!(scene.partial() > 0, "what came stays for the next time");
}

#[tokio::test]
async fn a_dropped_transfer_is_continued() {
    let (image, scene) = (Image::new(vec![noise(1, 4 << 20)]), Scene::new());
    let served = image.clone();
    let evil = Evil::start(move |seen| {
        let reply = served.reply(seen);
        // The end does not come before the client is gone.
        let first = is_layer(&served, seen) && seen.start().is_none();
        if first { reply.manner(Manner::Hung(3 << 20)) } else { reply }
    })
    .await;
    let registry = client(&evil);
    let manifest = registry.pull_manifest(&reference(&evil, ":v1"), &linux(), soon()).await.unwrap();
    let came = AtomicU64::new(0);
    let progress = |state: &Transferred| {
        came.fetch_max(state.done, Ordering::SeqCst);
    };
    {
        let transfer = registry.fetch_blobs(&manifest, &scene.store, &progress, soon());
        tokio::pin!(transfer);
        loop {
            tokio::select! {
                done = &mut transfer => { done.unwrap(); panic!("it was over before it was dropped") }
                () = tokio::time::sleep(Duration::from_millis(5)) => {
                    if came.load(Ordering::SeqCst) > 0 { break }
                }
            }
        }
    }
    assert_eq!(scene.named(), 0);
    let fetched = registry.fetch_blobs(&manifest, &scene.store, &(), soon()).await.unwrap();
    assert!(fetched.received < 4 << 20, "{}", fetched.received);
    let starts: Vec<Option<usize>> = evil.seen().iter().map(Seen::start).collect();
    assert!(starts.last().unwrap().is_some_and(|start| start >= 1 << 20), "{starts:?}");
}

#[tokio::test]
async fn two_transfers_of_one_blob_fetch_it_once() {
    let (image, scene) = (Image::new(vec![noise(1, 2 << 20)]), Scene::new());
    let served = image.clone();
    let evil = Evil::start(move |seen| served.reply(seen)).await;
    let (first, second) = tokio::join!(fetch(&evil, &scene), fetch(&evil, &scene));
    assert_eq!(first.unwrap().received + second.unwrap().received, 2 << 20);
    assert_eq!((scene.named(), scene.partial()), (1, 0));
}

#[tokio::test]
async fn evil_part_from_before_is_not_trusted() {
    let (image, scene) = (Image::new(vec![noise(1, 2 << 20)]), Scene::new());
    let digest = Digest::of(&image.layers[0]);
    let part = scene.directory.path().join(format!("partial/sha256-{}", digest.hex()));
    let mut torn = image.layers[0][..1 << 20].to_vec();
    torn[5] ^= 1;
    std::fs::write(part, torn).unwrap();
    let served = image.clone();
    let evil = Evil::start(move |seen| served.reply(seen)).await;
    let fetched = fetch(&evil, &scene).await.unwrap();
    assert_eq!(*fetched.layers[0].digest(), digest);
    assert_eq!(fetched.received, 3 << 20, "its rest, and then all of it");
}

#[tokio::test]
async fn evil_manifest_gives_a_blob_two_sizes() {
    let mut image = Image::new(vec![b"abc".to_vec(), b"abc".to_vec()]);
    let manifest = String::from_utf8(image.manifest.clone()).unwrap();
    let (head, tail) = manifest.rsplit_once("\"size\":3").unwrap();
    image.manifest = format!("{head}\"size\":4{tail}").into();
    let scene = Scene::new();
    let evil = Evil::start(move |seen| image.reply(seen)).await;
    assert_eq!(fetch(&evil, &scene).await.unwrap_err().code(), "REGISTRY_MANIFEST");
    assert_eq!(evil.count("/blobs/"), 1, "the configuration");
}

#[tokio::test]
async fn fetching_needs_space_before_the_first_byte() {
    let (image, directory) = (image(), tempfile::tempdir().unwrap());
    let served = image.clone();
    let evil = Evil::start(move |seen| served.reply(seen)).await;
    let registry = client(&evil);
    let manifest = registry.pull_manifest(&reference(&evil, ":v1"), &linux(), soon()).await.unwrap();
    for (options, code) in [
        (StoreOptions { keep_free: 1 << 60, ..StoreOptions::default() }, "STORE_SPACE"),
        (StoreOptions { bytes: 1 << 20, ..StoreOptions::default() }, "REGISTRY_TOO_LARGE"),
        (StoreOptions { entries: 2, ..StoreOptions::default() }, "REGISTRY_TOO_LARGE"),
    ] {
        let store = Arc::new(Store::open(directory.path(), options).unwrap());
        let error = registry.fetch_blobs(&manifest, &store, &(), soon()).await.unwrap_err();
        assert_eq!(error.code(), code);
        if code == "STORE_SPACE" {
            assert!(
                error.to_string().contains("needs 1152921504610") && error.to_string().contains("has "),
                "{error}"
            );
        }
    }
    assert_eq!(evil.count("/blobs/"), 1, "the configuration");
}
