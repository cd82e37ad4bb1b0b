use std::path::Path;

use super::*;
use crate::composefs::verity::{Hasher, Sha512Hasher};
use crate::image::tree::{Content, Inode, Kind};

mod dump;

fn vectors() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/composefs"))
}

/// The objects of a tree with these SHA-512 digests.
fn wide(tree: &Tree, digest: impl Fn(&ObjectId) -> [u8; 64]) -> HashMap<ObjectId, Sha512Id> {
    let mut names = HashMap::new();
    let mut directories = vec![Tree::ROOT];
    while let Some(directory) = directories.pop() {
        for id in tree.entries(directory).unwrap().values() {
            match &tree.get(*id).unwrap().kind {
                Kind::Directory(_) => directories.push(*id),
                Kind::Regular(Content::Object { id, .. }) => {
                    names.insert(*id, Sha512Id(digest(id)));
                }
                _ => (),
            }
        }
    }
    names
}

fn image(tree: &Tree, format: Format) -> Vec<u8> {
    write(tree, &Options { format, ..Options::default() }).unwrap()
}

fn digest(tree: &Tree, format: Format) -> String {
    hex::encode(Hasher::hash(&image(tree, format)).0)
}

/// The tree of which the C library and two crates make the same images.
#[test]
fn the_image_that_all_writers_agree_on() {
    let zeros = vec![0; 10_000];
    let tree = dump::parse(&format!(
        "/ 0 40755 1 0 0 0 1000.0 - - -\n/usr 0 40755 1 0 0 0 1000.0 - - -\n\
         /usr/hello 13 100644 1 0 0 0 1000.0 - hello,\\x20world\\x0a -\n/big 10000 100644 1 0 0 0 1000.0 - - {}\n",
        hex::encode(Hasher::hash(&zeros).0)
    ));
    assert_eq!(image(&tree, Format::V1).len(), 16_384);
    assert_eq!(digest(&tree, Format::V0), "b60d04141ab79172a7556f06aecc2d2421adcb7a35fbb70ac9a41f4967767a5c");
    assert_eq!(digest(&tree, Format::V1), "037c1c71d052ee30052068cff7bab683c3ce7ed4e891c1f45279c160be8c6f00");
    let names = wide(&tree, |_| Sha512Hasher::hash(&zeros).0);
    let image = write(&tree, &Options { names: Names::Sha512(&names), ..Options::default() }).unwrap();
    assert_eq!(
        hex::encode(Sha512Hasher::hash(&image).0),
        "5e6dfbf621443d26b7eeeef8cd9854e60c038ba5f62769d453603bc1c0cdac6ae34951fa1baf952e2f9484f4c5c08ff2e761c55c479a907f346c32db8e69aace"
    );
}

/// Trees of every kind, and what the crate `composefs` makes of them (`tests/oracle/composefs`).
#[test]
fn the_images_of_another_writer() {
    let digests = std::fs::read_to_string(vectors().join("digests")).unwrap();
    assert!(digests.lines().count() >= 20);
    for line in digests.lines() {
        let [name, size, v0, v1, wide_v1] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let dump = std::fs::read_to_string(vectors().join(format!("{name}.dump"))).unwrap();
        let tree = dump::parse(&dump);
        assert_eq!(image(&tree, Format::V1).len().to_string(), size, "{name}");
        assert_eq!(digest(&tree, Format::V0), v0, "{name}");
        assert_eq!(digest(&tree, Format::V1), v1, "{name}");
        let names = wide(&tree, |id| [id.0, id.0].concat().try_into().unwrap());
        let image = write(&tree, &Options { names: Names::Sha512(&names), ..Options::default() }).unwrap();
        assert_eq!(hex::encode(Sha512Hasher::hash(&image).0), wide_v1, "{name}");
    }
}
