//! What a hostile image tries, each with the code of its refusal.

use super::tests::{Tar, at, paths, unpack};
use super::*;

mod archive;
mod bounds;

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
