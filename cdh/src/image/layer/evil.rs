//! What a hostile image tries, each with the code of its refusal.

use std::io::Read as _;

use super::tests::{Tar, at, diff_id, paths, store, unpack};
use super::*;

const BLOCK: usize = 512;

/// One header with these fields, edited, its checksum made right, and its data.
fn raw(kind: u8, path: &[u8], data: &[u8], edit: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut header = vec![0; BLOCK];
    header[..path.len()].copy_from_slice(path);
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
    header[136..148].copy_from_slice(b"00000000000\0");
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar\x0000");
    edit(&mut header);
    checksum(&mut header);
    header.extend(data);
    header.resize(header.len().next_multiple_of(BLOCK), 0);
    header
}

fn checksum(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header[..BLOCK].iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn end() -> Vec<u8> {
    vec![0; 2 * BLOCK]
}

/// `LENGTH KEY=VALUE\n`.
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
    let length = (rest.len()..).find(|length| *length == rest.len() + length.to_string().len()).unwrap();
    [length.to_string().as_bytes(), &rest].concat()
}

fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let data: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
    raw(b'x', b"pax", &data, |_| {})
}

fn code(layers: &[Vec<u8>]) -> &'static str {
    unpack(layers, Limits::default()).unwrap_err().code()
}

fn limited(layers: &[Vec<u8>], limits: Limits) -> &'static str {
    unpack(layers, limits).unwrap_err().code()
}

#[test]
fn evil_paths() {
    for path in ["../x", "a/../x", "/../etc/passwd", "a/..", "..", "./../x", "a/b/../../../x"] {
        assert_eq!(code(&[Tar::new().file(path, b"x").finish()]), "LAYER_NAME", "{path}");
        assert_eq!(code(&[Tar::new().dir(path).finish()]), "LAYER_NAME", "{path}");
        assert_eq!(code(&[Tar::new().file("t", b"x").link("l", path).finish()]), "LAYER_NAME", "{path}");
    }
    assert_eq!(code(&[Tar::new().file("", b"x").finish()]), "LAYER_NAME");
    // Nothing but `/` and `.` is the root.
    let tree =
        unpack(&[Tar::new().dir("/./").file("//./etc//./passwd", b"x").finish()], Limits::default()).unwrap();
    assert_eq!(paths(&tree), ["etc", "etc/passwd"]);
    let by_record =
        |path: &[u8]| [pax(&[("path", path)]), raw(b'0', b"innocent", b"x", |_| {}), end()].concat();
    for path in [
        &b"../x"[..],
        &[b'a'; 256],
        &b"a/".repeat(DEPTH_MAX)[..],
        &[&b"d/".repeat(100)[..], &[b'a'; 300]].concat(),
        &[b"a".repeat(200), b"/".to_vec()].concat().repeat(21),
    ] {
        let path = [path, b"x"].concat();
        assert_eq!(code(&[by_record(&path)]), "LAYER_NAME", "{}", path.escape_ascii());
    }
    // The longest and the deepest that may be.
    let deepest = b"a/".repeat(DEPTH_MAX - 1);
    unpack(&[by_record(&[&deepest[..], b"x"].concat())], Limits::default()).unwrap();
    unpack(&[by_record(&[b'a'; 255])], Limits::default()).unwrap();
    assert_eq!(code(&[by_record(b"a\0b")]), "LAYER_TAR_PAX");
    // A name that is shown is cut and escaped.
    let error =
        unpack(&[by_record(&[&b"../\n\x1b[2J"[..], &[b'a'; 200]].concat())], Limits::default()).unwrap_err();
    assert!(error.to_string().contains(r#""../\n\x1b[2Jaaa"#) && error.to_string().len() < 300, "{error}");
}

#[test]
fn evil_links_as_parents() {
    let link = || Tar::new().symlink("etc", "/host/etc").file("file", b"x");
    for (path, same) in
        [("etc/passwd", true), ("etc/passwd", false), ("file/x", true), ("file/x", false), ("etc/a/b", true)]
    {
        let layers = if same {
            vec![link().file(path, b"evil").finish()]
        } else {
            vec![link().finish(), Tar::new().file(path, b"evil").finish()]
        };
        assert_eq!(code(&layers), "LAYER_PARENT", "{path} {same}");
    }
    // The other way round: what is below goes with the directory.
    let tree = unpack(
        &[Tar::new().file("etc/passwd", b"x").symlink("etc", "/host/etc").finish()],
        Limits::default(),
    )
    .unwrap();
    assert_eq!(paths(&tree), ["etc"]);
    // Nor are links followed to the target of a hard link, or to what a whiteout hides.
    let through = Tar::new().file("usr/x", b"x").symlink("bin", "usr").link("y", "bin/x").finish();
    assert_eq!(code(&[through]), "LAYER_LINK_MISSING");
    let lower = Tar::new().file("usr/x", b"x").symlink("bin", "usr").finish();
    let tree = unpack(
        &[lower, Tar::new().file("bin/.wh.x", b"").file("bin/.wh..wh..opq", b"").finish()],
        Limits::default(),
    )
    .unwrap();
    assert_eq!(paths(&tree), ["bin", "usr", "usr/x"]);
}

#[test]
fn evil_hard_links() {
    let base = || Tar::new().dir("d").file("d/f", b"x");
    for target in ["nothing", "d/nothing", "d/f/x", "./nothing"] {
        assert_eq!(code(&[base().link("l", target).finish()]), "LAYER_LINK_MISSING", "{target}");
    }
    for target in ["d", "/", ".", "d/."] {
        assert_eq!(code(&[base().link("l", target).finish()]), "LAYER_LINK_DIRECTORY", "{target}");
        // Not even below itself.
        assert_eq!(code(&[base().link("d/l", target).finish()]), "LAYER_LINK_DIRECTORY", "{target}");
    }
    // To what comes later in this layer, or in the next one.
    assert_eq!(code(&[Tar::new().link("l", "later").file("later", b"x").finish()]), "LAYER_LINK_MISSING");
    assert_eq!(code(&[Tar::new().link("l", "l").finish()]), "LAYER_LINK_MISSING");
    let next = [Tar::new().link("l", "later").finish(), Tar::new().file("later", b"x").finish()];
    assert_eq!(code(&next), "LAYER_LINK_MISSING");
    // Over the directory that the target is in: the file stays.
    let tree = unpack(&[base().link("d", "d/f").finish()], Limits::default()).unwrap();
    assert_eq!((paths(&tree), tree.names(at(&tree, "d").unwrap().0)), (vec!["d".to_owned()], 1));
    // To what a lower layer had, and this one hid.
    let layers = [base().finish(), Tar::new().file("d/.wh.f", b"").link("l", "d/f").finish()];
    assert_eq!(code(&layers), "LAYER_LINK_MISSING");
}

#[test]
fn evil_whiteouts() {
    let base = || Tar::new().file("a/b", b"x").finish();
    for path in [
        ".wh.",
        ".wh..",
        ".wh...",
        "a/.wh..",
        "a/.wh...",
        ".wh..wh.x",
        ".wh..wh.aufs",
        ".wh..wh.plnk/1.2",
        ".wh.a/b",
        ".wh..wh..opq/x",
        ".wh..wh..wh..opq",
    ] {
        assert_eq!(code(&[base(), Tar::new().file(path, b"").finish()]), "LAYER_WHITEOUT", "{path}");
    }
    // Whiteouts that are no empty files.
    let kinds = [
        Tar::new().dir(".wh.a"),
        Tar::new().symlink(".wh.a", "a"),
        Tar::new().file(".wh.a", b"x"),
        Tar::new().entry(::tar::EntryType::Char, ".wh.a", "", b""),
        Tar::new().symlink("a/.wh..wh..opq", "a"),
    ];
    for tar in kinds {
        assert_eq!(code(&[base(), tar.finish()]), "LAYER_WHITEOUT");
    }
    // As aufs made them.
    let tree =
        unpack(&[base(), Tar::new().link("a/.wh.b", "a/.wh.other").finish()], Limits::default()).unwrap();
    assert_eq!(paths(&tree), ["a"]);
    // Overlay's own form would hide without anybody having seen it.
    let device = raw(b'3', b"a", b"", |header| {
        header[329..337].copy_from_slice(b"0000000\0");
        header[337..345].copy_from_slice(b"0000000\0");
    });
    assert_eq!(code(&[base(), device]), "LAYER_WHITEOUT");
    // `..` is no name to hide.
    assert_eq!(code(&[base(), Tar::new().file("a/../.wh.x", b"").finish()]), "LAYER_NAME");
}

#[test]
fn evil_overlay_attributes() {
    let tar = [
        pax(&[
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.user.overlay.metacopy", b""),
            ("SCHILY.xattr.user.", b"y"),
            ("SCHILY.xattr.user.kept", b"y"),
        ]),
        raw(b'5', b"d", b"", |_| {}),
        end(),
    ]
    .concat();
    let tree = unpack(&[tar], Limits::default()).unwrap();
    let found: Vec<_> = at(&tree, "d").unwrap().1.metadata.xattrs.keys().cloned().collect();
    assert_eq!(found, [b"user.kept".to_vec()]);
}

#[test]
fn evil_root() {
    for kind in [::tar::EntryType::Regular, ::tar::EntryType::Symlink, ::tar::EntryType::Fifo] {
        assert_eq!(code(&[Tar::new().entry(kind, ".", "x", b"").finish()]), "LAYER_ROOT");
    }
    assert_eq!(code(&[Tar::new().link("/", "x").finish()]), "LAYER_ROOT");
}

#[test]
fn evil_symlinks() {
    assert_eq!(code(&[Tar::new().symlink("x", "").finish()]), "LAYER_SYMLINK");
    let long = [pax(&[("linkpath", &[b'a'; TARGET_MAX + 1])]), raw(b'2', b"x", b"", |_| {}), end()].concat();
    assert_eq!(code(&[long]), "LAYER_SYMLINK");
}

#[test]
fn evil_devices() {
    for (major, minor) in [("0010000\0", "0000000\0"), ("0000001\0", "4000000\0"), ("7777777\0", "7777777\0")]
    {
        for kind in [b'3', b'4'] {
            let device = raw(kind, b"d", b"", |header| {
                header[329..337].copy_from_slice(major.as_bytes());
                header[337..345].copy_from_slice(minor.as_bytes());
            });
            assert_eq!(code(&[device]), "LAYER_DEVICE");
        }
    }
}

#[test]
fn evil_checksums() {
    let good = [raw(b'0', b"a", b"x", |_| {}), end()].concat();
    unpack(std::slice::from_ref(&good), Limits::default()).unwrap();
    // Each bit of the header counts.
    for index in (0..BLOCK).filter(|index| !(148..156).contains(index)) {
        let mut bad = good.clone();
        bad[index] ^= 1;
        assert_eq!(code(&[bad]), "LAYER_TAR_CHECKSUM", "byte {index}");
    }
    // As old programs added: bytes with a sign.
    let mut signed = [raw(b'0', b"\xc3\xa4", b"x", |_| {}), end()].concat();
    signed[148..156].fill(b' ');
    let sum: i32 = signed[..BLOCK].iter().map(|byte| i32::from(i8::from_ne_bytes([*byte]))).sum();
    signed[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    assert_eq!(paths(&unpack(&[signed], Limits::default()).unwrap()), ["ä"]);
}

#[test]
fn evil_headers() {
    let edited = |edit: fn(&mut [u8])| raw(b'0', b"a", b"", edit);
    assert_eq!(code(&[edited(|header| header[257..263].copy_from_slice(b"UStar\0"))]), "LAYER_TAR_FORMAT");
    assert_eq!(
        code(&[edited(|header| header[124..136].copy_from_slice(b"-0000000001\0"))]),
        "LAYER_TAR_NUMBER"
    );
    assert_eq!(code(&[edited(|header| header[124..136].fill(0xff))]), "LAYER_TAR_NUMBER");
    assert_eq!(
        code(&[edited(|header| header[108..116].copy_from_slice(b"\x80\0\0\0\xff\xff\xff\xff"))]),
        "LAYER_TAR_NUMBER"
    );
    assert_eq!(
        code(&[edited(|header| header[116..124].copy_from_slice(b"\x80\0\0\x01\0\0\0\0"))]),
        "LAYER_TAR_NUMBER"
    );
    for kind in [b'D', b'M', b'V', b'N', b'X', b'A', b'8', 0xff] {
        assert_eq!(code(&[raw(kind, b"a", b"", |_| {})]), "LAYER_TAR_TYPE", "{kind}");
    }
}

#[test]
fn evil_sizes() {
    // Data where there is none: two readers would go on at two places.
    for kind in [b'1', b'2', b'3', b'4', b'5', b'6'] {
        let entry = raw(kind, b"a", &[0; BLOCK], |header| header[157] = b'x');
        assert_eq!(code(&[entry]), "LAYER_TAR_SIZE", "{kind}");
        let stated =
            [pax(&[("size", b"512")]), raw(kind, b"a", b"", |header| header[157] = b'x'), end()].concat();
        assert_eq!(code(&[stated]), "LAYER_TAR_SIZE", "{kind}");
    }
    assert_eq!(code(&[raw(b'0', b"a/", b"x", |_| {})]), "LAYER_TAR_SIZE");
    // More than there is, and more than fits.
    let huge = raw(b'0', b"a", b"x", |header| {
        header[124..136].copy_from_slice(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff")
    });
    assert_eq!(code(&[huge]), "LAYER_CONTENT");
    let more = raw(b'0', b"a", b"x", |header| header[124..136].copy_from_slice(b"00001000000\0"));
    assert_eq!(code(&[more]), "LAYER_TRUNCATED");
    // What the record says counts: the header inside the data stays data.
    let inner = raw(b'0', b"evil", b"", |_| {});
    let outer = raw(b'0', b"a", &inner, |header| header[124..136].copy_from_slice(b"00000000000\0"));
    let tree = unpack(&[[pax(&[("size", b"512")]), outer, end()].concat()], Limits::default()).unwrap();
    assert_eq!(paths(&tree), ["a"]);
}

#[test]
fn evil_extended_headers() {
    let file = || raw(b'0', b"a", b"x", |_| {});
    let long = |kind: u8, name: &[u8]| raw(kind, b"././@LongLink", name, |_| {});
    let tar = |parts: &[Vec<u8>]| [parts.concat(), end()].concat();
    for (parts, expected) in [
        (vec![pax(&[("path", b"b")])], "LAYER_TAR_ORDER"),
        (vec![long(b'L', b"b\0")], "LAYER_TAR_ORDER"),
        (vec![pax(&[("path", b"b")]), pax(&[("path", b"c")]), file()], "LAYER_TAR_ORDER"),
        (vec![long(b'L', b"b\0"), long(b'L', b"c\0"), file()], "LAYER_TAR_ORDER"),
        (vec![long(b'K', b"b\0"), long(b'K', b"c\0"), file()], "LAYER_TAR_ORDER"),
        (vec![long(b'L', b"b\0"), pax(&[("path", b"c")]), file()], "LAYER_TAR_ORDER"),
        (vec![long(b'K', b"b\0"), pax(&[("linkpath", b"c")]), file()], "LAYER_TAR_ORDER"),
        (vec![raw(b'g', b"g", &record("path", b"../x"), |_| {}), file()], "LAYER_TAR_ORDER"),
        (vec![raw(b'g', b"g", &record("size", b"0"), |_| {}), file()], "LAYER_TAR_ORDER"),
        (vec![raw(b'g', b"g", b"nonsense", |_| {}), file()], "LAYER_TAR_PAX"),
        (vec![long(b'L', b"b\0c\0"), file()], "LAYER_NAME"),
        (vec![long(b'L', b"\0"), file()], "LAYER_NAME"),
        (vec![long(b'L', b""), file()], "LAYER_NAME"),
        (vec![long(b'L', b"../b\0"), file()], "LAYER_NAME"),
        (vec![long(b'L', &[b'a'; PATH_MAX + 2]), file()], "LAYER_TAR_SIZE"),
        (
            vec![raw(b'x', b"x", b"", |header| header[124..136].copy_from_slice(b"00004000001\0"))],
            "LAYER_TAR_PAX",
        ),
        (
            vec![raw(b'L', b"x", b"", |header| header[124..136].copy_from_slice(b"77777777777\0"))],
            "LAYER_TAR_SIZE",
        ),
    ] {
        assert_eq!(code(&[tar(&parts)]), expected);
    }
    let commented = tar(&[raw(b'g', b"g", &record("comment", b"of git"), |_| {}), file()]);
    assert_eq!(paths(&unpack(&[commented], Limits::default()).unwrap()), ["a"]);
}

#[test]
fn evil_sparse_entries() {
    let sparse = |records: &[(&str, &[u8])], kind: u8, data: &[u8]| {
        [pax(records), raw(kind, b"a", data, |_| {}), end()].concat()
    };
    let one = |size: &'static [u8]| {
        [
            ("GNU.sparse.major", &b"1"[..]),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"a"),
            ("GNU.sparse.realsize", size),
        ]
    };
    let map = |map: &[u8], data: &[u8]| {
        let mut bytes = map.to_vec();
        bytes.resize(BLOCK, 0);
        [&bytes, data].concat()
    };
    let good = sparse(&one(b"10"), b'0', &map(b"1\n4\n2\n", b"ab"));
    let tree = unpack(&[good], Limits::default()).unwrap();
    assert_eq!(
        at(&tree, "a").unwrap().1.kind,
        Kind::Regular(Content::Inline(b"\0\0\0\0ab\0\0\0\0"[..].into()))
    );
    for evil in [
        sparse(&one(b"10"), b'0', &map(b"1\n9\n2\n", b"ab")),
        sparse(&one(b"10"), b'0', &map(b"1\n4\n3\n", b"ab")),
        sparse(&one(b"10"), b'0', &map(b"1\n4\n1\n", b"ab")),
        sparse(&one(b"10"), b'0', b"1\n"),
        sparse(&one(b"10"), b'0', &vec![b'1'; BLOCK]),
        sparse(&one(b"10")[..3], b'0', &map(b"1\n4\n2\n", b"ab")),
        sparse(&[("GNU.sparse.major", b"2"), ("GNU.sparse.size", b"10")], b'0', b"ab"),
        sparse(
            &[("GNU.sparse.size", b"10"), ("GNU.sparse.numblocks", b"2"), ("GNU.sparse.map", b"0,2")],
            b'0',
            b"ab",
        ),
        sparse(&[("GNU.sparse.size", b"10"), ("GNU.sparse.map", b"8,2,0,0")], b'0', b"ab"),
        sparse(&[("GNU.sparse.size", b"1"), ("GNU.sparse.map", b"0,2")], b'0', b"ab"),
        sparse(&[("GNU.sparse.size", b"10"), ("GNU.sparse.map", b"0,2")], b'S', b"ab"),
        raw(b'S', b"a", b"", |_| {}),
    ] {
        assert_eq!(code(&[evil]), "LAYER_TAR_SPARSE");
    }
    assert_eq!(code(&[sparse(&one(b"10"), b'5', b"")]), "LAYER_TAR_SIZE");
    assert_eq!(
        code(&[sparse(
            &[("GNU.sparse.name", b"../a"), ("GNU.sparse.size", b"2"), ("GNU.sparse.map", b"0,2")],
            b'0',
            b"ab"
        )]),
        "LAYER_NAME"
    );
}

#[test]
fn evil_sparse_bomb() {
    // A file of 2⁶² bytes that is all hole: it would be hashed for years.
    let records = [("GNU.sparse.size", &b"4611686018427387904"[..]), ("GNU.sparse.numblocks", b"0")];
    let bomb = [pax(&records), raw(b'0', b"a", b"", |_| {}), end()].concat();
    assert_eq!(code(std::slice::from_ref(&bomb)), "LAYER_CONTENT");
    // Many of them that fit each.
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
fn evil_truncated_archives() {
    let tar =
        [pax(&[("path", b"b")]), raw(b'0', b"a", &[1; 700], |_| {}), raw(b'5', b"d", b"", |_| {})].concat();
    for length in 1..tar.len() {
        let found = unpack(&[tar[..length].to_vec()], Limits::default());
        if let Err(error) = found {
            assert!(matches!(error.code(), "LAYER_TRUNCATED" | "LAYER_TAR_ORDER"), "{length}: {error}");
        } else {
            // Between entries nothing is missing but the end mark, which some programs leave out; the digest tells.
            assert!([4 * BLOCK + 512, 5 * BLOCK].contains(&length), "{length}");
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
    let limits = Limits { entries: 1000, ..Limits::default() };
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
fn evil_bytes_do_not_panic() {
    // Each header of a good archive with each of its bytes changed and its checksum made right.
    let tar = [
        pax(&[("path", b"b"), ("mtime", b"1.5")]),
        raw(b'S', b"a", b"xy", |header| {
            header[257..265].copy_from_slice(b"ustar  \0");
            header[386..410].copy_from_slice(b"00000000004\x0000000000002\0");
            header[483..495].copy_from_slice(b"00000000010\0");
        }),
        end(),
    ]
    .concat();
    let tree = unpack(std::slice::from_ref(&tar), Limits::default()).unwrap();
    assert_eq!(at(&tree, "b").unwrap().1.kind, Kind::Regular(Content::Inline(b"\0\0\0\0xy\0\0"[..].into())));
    let limits = Limits { content_bytes: 1 << 20, ..Limits::default() };
    let mut refused = 0;
    for start in [0, 2 * BLOCK] {
        for index in 0..BLOCK {
            for value in [0, b'7', b' ', b'9', 0x80, 0xff] {
                let mut bad = tar.clone();
                bad[start + index] = value;
                checksum(&mut bad[start..]);
                refused += u32::from(unpack(&[bad], limits).is_err());
            }
        }
    }
    assert!(refused > 500, "{refused}");
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
    let open = |write| std::fs::OpenOptions::new().read(true).write(write).open(&path).unwrap();
    assert_eq!(paths(&confine::unpack(&job, vec![open(false)], &store).unwrap()), ["a"]);
    assert_eq!(confine::unpack(&job, vec![open(true)], &store).unwrap_err().code(), "LAYER_READ");
    assert_eq!(
        confine::unpack(&job, vec![open(false), open(false)], &store).unwrap_err().code(),
        "LAYER_READ"
    );
    assert_eq!(confine::unpack(&job, vec![], &store).unwrap_err().code(), "LAYER_READ");
}
