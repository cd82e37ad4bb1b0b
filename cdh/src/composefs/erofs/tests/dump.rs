//! Trees from dump files (composefs-dump(5)), as far as the vectors use them.

use std::collections::HashMap;

use crate::image::tree::{Content, Inode, InodeId, Kind, Metadata, ObjectId, Timestamp, Tree};

fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = match (first, after) {
            (b'\\', [b'x', a, b, after @ ..]) => {
                out.extend(hex::decode([*a, *b]).unwrap());
                after
            }
            (b'\\', _) => panic!("{text}"),
            _ => {
                out.push(*first);
                after
            }
        };
    }
    out
}

fn metadata(fields: &[&str]) -> (u32, Metadata) {
    let mode = u32::from_str_radix(fields[2], 8).unwrap();
    let (seconds, nanoseconds) = fields[7].split_once('.').unwrap();
    let xattrs = fields[11..].iter().map(|field| {
        let (name, value) = field.split_once('=').unwrap();
        (unescape(name), unescape(value))
    });
    let metadata = Metadata {
        mode: u16::try_from(mode & 0o7777).unwrap(),
        uid: fields[4].parse().unwrap(),
        gid: fields[5].parse().unwrap(),
        mtime: Timestamp { seconds: seconds.parse().unwrap(), nanoseconds: nanoseconds.parse().unwrap() },
        xattrs: xattrs.collect(),
    };
    (mode & 0o170_000, metadata)
}

fn kind(format: u32, fields: &[&str]) -> Kind {
    let number: u64 = fields[6].parse().unwrap();
    let major = u32::try_from((number >> 8) & 0xfff).unwrap();
    let minor = u32::try_from((number & 0xff) | ((number >> 12) & 0xf_ff00)).unwrap();
    match format {
        0o040_000 => Kind::Directory(Default::default()),
        0o100_000 if fields[10] != "-" => Kind::Regular(Content::Object {
            id: ObjectId(hex::decode(fields[10]).unwrap().try_into().unwrap()),
            size: fields[1].parse().unwrap(),
        }),
        0o100_000 if fields[9] == "-" => Kind::Regular(Content::Inline(Box::default())),
        0o100_000 => Kind::Regular(Content::Inline(unescape(fields[9]).into())),
        0o120_000 => Kind::Symlink(unescape(fields[8]).into()),
        0o020_000 => Kind::CharDevice { major, minor },
        0o060_000 => Kind::BlockDevice { major, minor },
        0o010_000 => Kind::Fifo,
        0o140_000 => Kind::Socket,
        other => panic!("{other:o}"),
    }
}

pub(super) fn parse(text: &str) -> Tree {
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(' ').collect()).collect();
    let mut tree = Tree::new(metadata(&lines[0]).1, 1 << 20);
    let mut known: HashMap<Vec<u8>, InodeId> = HashMap::from([(Vec::new(), Tree::ROOT)]);
    for fields in &lines[1..] {
        let path = unescape(fields[0]);
        let slash = path.iter().rposition(|byte| *byte == b'/').unwrap();
        let (parent, name) = (known[&path[..slash]], &path[slash + 1..]);
        let id = if fields[2].starts_with('@') {
            let target = known[&unescape(fields[8])];
            tree.link(parent, name, target).unwrap();
            target
        } else {
            let (format, metadata) = metadata(fields);
            tree.insert(parent, name, Inode { metadata, kind: kind(format, fields) }).unwrap()
        };
        known.insert(path, id);
    }
    tree
}
