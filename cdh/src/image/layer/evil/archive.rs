//! Archives that are none, or that two readers could understand differently.

use super::*;

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
        (vec![long(b'K', b"b\0c\0"), raw(b'2', b"a", b"", |_| {})], "LAYER_NAME"),
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
