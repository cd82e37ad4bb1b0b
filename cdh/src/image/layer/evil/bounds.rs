//! Too much of something, and bytes that are not the ones that were promised.

use std::io::Read as _;

use super::super::tests::{diff_id, store};
use super::*;

#[test]
fn evil_sparse_bomb() {
    // Many files with holes that fit each.
    let limits = Limits { content_bytes: 1 << 20, ..Limits::default() };
    let part = |name: &[u8]| {
        [pax(&[("GNU.sparse.size", b"600000"), ("GNU.sparse.numblocks", b"0")]), raw(b'0', name, b"", |_| {})]
            .concat()
    };
    unpack(&[[part(b"a"), end()].concat()], limits).unwrap();
    assert_eq!(
        limited(&[[part(b"a"), end()].concat(), [part(b"b"), end()].concat()], limits),
        "LAYER_CONTENT"
    );
    // A file of 2⁶² bytes that is all hole: it would be hashed for years.
    let records = [("GNU.sparse.size", &b"4611686018427387904"[..]), ("GNU.sparse.numblocks", b"0")];
    let bomb = [pax(&records), raw(b'0', b"a", b"", |_| {}), end()].concat();
    assert_eq!(code(std::slice::from_ref(&bomb)), "LAYER_CONTENT");
}

#[test]
fn evil_data_behind_the_end() {
    let tar = Tar::new().file("a", b"x").finish();
    for behind in [b"x".to_vec(), Tar::new().file("b", b"x").finish(), [vec![0; 1 << 20], vec![1]].concat()] {
        assert_eq!(code(&[[tar.clone(), behind].concat()]), "LAYER_TRAILING");
    }
    // Zeros are filling.
    unpack(&[[tar, vec![0; 100_001]].concat()], Limits::default()).unwrap();
    // Behind the last member of gzip, behind the last frame of zstd.
    let tar = Tar::new().file("a", b"x").finish();
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let mut gzip = Vec::new();
    flate2::read::GzEncoder::new(&tar[..], flate2::Compression::fast()).read_to_end(&mut gzip).unwrap();
    let zstd = ruzstd::encoding::compress_to_vec(&tar[..], ruzstd::encoding::CompressionLevel::Fastest);
    for (bytes, compression) in [(gzip, Compression::Gzip), (zstd, Compression::Zstd)] {
        let unpack =
            |bytes: &[u8]| Unpacker::new(&store, Limits::default()).layer(bytes, compression, &diff_id(&tar));
        unpack(&bytes).unwrap();
        for behind in [
            &b"\0"[..],
            b"\0\0\0\0\0\0\0\0\0\0\0\0",
            b"x",
            b"\x1f\x8b",
            b"\x28\xb5\x2f\xfd",
            b"\x50\x2a\x4d\x18\xff\0\0\0x",
        ] {
            let error = unpack(&[&bytes, behind].concat()).unwrap_err();
            assert_eq!(error.code(), "LAYER_COMPRESSED", "{compression:?} {behind:?}");
        }
        // Cut off anywhere.
        for length in (0..bytes.len()).step_by(7).chain([bytes.len() - 1]) {
            let error = unpack(&bytes[..length]).unwrap_err();
            assert!(
                matches!(error.code(), "LAYER_COMPRESSED" | "LAYER_TRUNCATED"),
                "{compression:?} {length}: {error}"
            );
        }
    }
}

#[test]
fn evil_layer_with_another_diff_id() {
    let tar = Tar::new().file("a", &[1; 1000]).finish();
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let unpack = |bytes: &[u8], id: &DiffId| {
        Unpacker::new(&store, Limits::default()).layer(bytes, Compression::None, id)
    };
    unpack(&tar, &diff_id(&tar)).unwrap();
    for id in [diff_id(b""), diff_id(&tar[..tar.len() - 1]), DiffId::Sha512([0; 64])] {
        // The unpacker is gone, and with it what could give a tree.
        assert_eq!(unpack(&tar, &id).unwrap_err().code(), "LAYER_DIFF_ID");
    }
    // Behind the end of the archive all bytes count, too.
    let filled = [tar.clone(), vec![0; 10_000]].concat();
    assert_eq!(unpack(&filled, &diff_id(&tar)).unwrap_err().code(), "LAYER_DIFF_ID");
}

#[test]
fn evil_bombs_of_gzip_and_zstd() {
    let zeros = std::io::repeat(0).take(64 << 20);
    let mut gzip = Vec::new();
    flate2::read::GzEncoder::new(zeros, flate2::Compression::best()).read_to_end(&mut gzip).unwrap();
    let part = ruzstd::encoding::compress_to_vec(
        std::io::repeat(0).take(4 << 20),
        ruzstd::encoding::CompressionLevel::Fastest,
    );
    let zstd = part.repeat(16);
    assert!(gzip.len() < 100_000 && zstd.len() < 100_000);
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let limits = Limits { layer_bytes: 1 << 20, ..Limits::default() };
    for (bytes, compression) in [(gzip, Compression::Gzip), (zstd, Compression::Zstd)] {
        // Also as the content of a file.
        let error = Unpacker::new(&store, limits).layer(&bytes[..], compression, &diff_id(b"")).unwrap_err();
        assert_eq!(error.code(), "LAYER_EXPANDED");
    }
    // Layers that are within their limit, but not together.
    let layer = Tar::new().file("a", &vec![1; 700_000]).finish();
    let limits = Limits { image_bytes: 1 << 20, ..Limits::default() };
    unpack(std::slice::from_ref(&layer), limits).unwrap();
    assert_eq!(limited(&[layer.clone(), layer], limits), "LAYER_EXPANDED");
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
}

#[test]
fn evil_zstd_window() {
    // Windows of 64 MiB and of 1 TiB, and a frame of one block with nothing in it.
    for window in [0x80, 0xf0] {
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0, window, 1, 0, 0];
        let root = tempfile::tempdir().unwrap();
        let store = store(root.path());
        let limits = Limits { window_bytes: 1 << 20, ..Limits::default() };
        let error =
            Unpacker::new(&store, limits).layer(&frame[..], Compression::Zstd, &diff_id(b"")).unwrap_err();
        assert_eq!(error.code(), "LAYER_WINDOW");
    }
}

#[test]
fn evil_entries_without_end() {
    /// One entry again and again, made while it is read.
    struct Endless(Vec<u8>, usize);
    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let at = self.1 % self.0.len();
            let count = buffer.len().min(self.0.len() - at);
            buffer[..count].copy_from_slice(&self.0[at..at + count]);
            self.1 += count;
            Ok(count)
        }
    }
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    // Without that limit another one ends it, later.
    let limits = Limits { entries: 1000, layer_bytes: 16 << 20, ..Limits::default() };
    let one = Tar::new().dir("a").finish()[..BLOCK].to_vec();
    let whiteout = Tar::new().file(".wh.a", b"").finish()[..BLOCK].to_vec();
    for entry in [one, whiteout] {
        let error = Unpacker::new(&store, limits)
            .layer(Endless(entry, 0), Compression::None, &diff_id(b""))
            .unwrap_err();
        assert_eq!(error.code(), "LAYER_ENTRIES");
    }
    // A million files: no image has so many that the default would not do.
    assert!(Limits::default().entries < 1_000_000 && Limits::default().inodes < 1_000_000);
    // Inodes that no entry is for: parents.
    let limits = Limits { inodes: 100, ..Limits::default() };
    let deep = |name: &str| {
        [
            pax(&[("path", [&b"d/".repeat(60)[..], name.as_bytes()].concat().as_slice())]),
            raw(b'0', b"a", b"", |_| {}),
        ]
        .concat()
    };
    let other = [pax(&[("path", &b"e/".repeat(60)[..])]), raw(b'5', b"a", b"", |_| {})].concat();
    unpack(&[[deep("x"), deep("y"), end()].concat()], limits).unwrap();
    assert_eq!(limited(&[[deep("x"), other, end()].concat()], limits), "LAYER_INODES");
}

#[test]
fn evil_layers_without_end() {
    let limits = Limits { layers: 2, ..Limits::default() };
    unpack(&[Vec::new(), Vec::new()], limits).unwrap();
    assert_eq!(limited(&[Vec::new(), Vec::new(), Vec::new()], limits), "LAYER_LAYERS");
}

#[test]
fn evil_xattr_bomb() {
    let value = vec![1; 60_000];
    let one = |name: &str| {
        [pax(&[("SCHILY.xattr.user.a", &value)]), raw(b'5', name.as_bytes(), b"", |_| {})].concat()
    };
    let limits = Limits { metadata_bytes: 100_000, ..Limits::default() };
    unpack(&[[one("a"), end()].concat()], limits).unwrap();
    assert_eq!(limited(&[[one("a"), one("b"), end()].concat()], limits), "LAYER_METADATA");
    // Also of the root, and also when the later one replaces the earlier one.
    assert_eq!(limited(&[[one("./"), one("./"), end()].concat()], limits), "LAYER_METADATA");
    let large =
        [pax(&[("SCHILY.xattr.user.a", &vec![1; XATTRS_MAX])]), raw(b'5', b"a", b"", |_| {}), end()].concat();
    assert_eq!(code(&[large]), "LAYER_XATTR");
}

#[test]
fn evil_layer_that_could_be_written() {
    let root = tempfile::tempdir().unwrap();
    let tar = Tar::new().file("a", b"x").finish();
    let path = root.path().join("layer");
    std::fs::write(&path, &tar).unwrap();
    let objects = root.path().join("objects");
    std::fs::create_dir(&objects).unwrap();
    let job = confine::Job {
        layers: vec![confine::JobLayer { compression: Compression::None, diff_id: diff_id(&tar) }],
        limits: Limits::default(),
        reserve: 0,
        transform: false,
    };
    let store = store(&objects);
    let open = |write| std::fs::OpenOptions::new().read(true).write(write).open(&path);
    assert_eq!(paths(&confine::unpack(&job, vec![open(false)], &store).unwrap()), ["a"]);
    assert_eq!(confine::unpack(&job, vec![open(true)], &store).unwrap_err().code(), "LAYER_READ");
    assert_eq!(confine::unpack(&job, vec![], &store).unwrap_err().code(), "LAYER_READ");
}
