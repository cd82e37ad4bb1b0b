//! The metadata image of a dump file (composefs-dump(5)) as our writer makes it: `composefs-image v0|v1|v1-sha512 < DUMP > IMAGE`. With SHA-512 each
//! object is named by its digest twice, as the vectors have it.

#![expect(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "reads vectors of ours")]

use cdh::composefs::erofs::{Format, Names, Options, write};
use cdh::composefs::verity::Sha512Id;
use cdh::image::tree::{Content, Kind, ObjectId, Tree};
use std::collections::HashMap;
use std::io::{Read as _, Write as _};

/// What the reader of dumps calls its own.
mod image {
    pub(crate) use cdh::image::tree;
}

#[path = "../../../cdh/src/composefs/erofs/tests/dump.rs"]
mod dump;

fn main() -> anyhow::Result<()> {
    let form = std::env::args().nth(1).unwrap_or_default();
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let tree = dump::parse(&text);
    let names = doubled(&tree);
    let (format, names) = match form.as_str() {
        "v0" => (Format::V0, Names::Sha256),
        "v1" => (Format::V1, Names::Sha256),
        "v1-sha512" => (Format::V1, Names::Sha512(&names)),
        _ => anyhow::bail!("composefs-image v0|v1|v1-sha512 < DUMP > IMAGE"),
    };
    let image = write(&tree, &Options { format, names, ..Options::default() })?;
    Ok(std::io::stdout().write_all(&image)?)
}

fn doubled(tree: &Tree) -> HashMap<ObjectId, Sha512Id> {
    let (mut names, mut directories) = (HashMap::new(), vec![Tree::ROOT]);
    while let Some(directory) = directories.pop() {
        for id in tree.entries(directory).into_iter().flatten().map(|(_, id)| *id) {
            match tree.get(id).map(|inode| &inode.kind) {
                Some(Kind::Directory(_)) => directories.push(id),
                Some(Kind::Regular(Content::Object { id, .. })) => {
                    let twice: Vec<u8> = [id.0, id.0].concat();
                    names.extend(twice.try_into().ok().map(|twice| (*id, Sha512Id(twice))));
                }
                _ => {}
            }
        }
    }
    names
}
