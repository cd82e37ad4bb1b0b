use super::*;

fn file(byte: u8) -> Inode {
    Inode { metadata: Metadata::default(), kind: Kind::Regular(Content::Inline(Box::new([byte]))) }
}

fn directory() -> Inode {
    Inode { metadata: Metadata::default(), kind: Kind::Directory(BTreeMap::new()) }
}

#[test]
fn what_is_removed_takes_what_is_below_it() {
    let mut tree = Tree::new(Metadata::default(), 10);
    let usr = tree.insert(Tree::ROOT, b"usr", directory()).unwrap();
    let lib = tree.insert(usr, b"lib", directory()).unwrap();
    let kept = tree.insert(lib, b"kept", file(1)).unwrap();
    tree.insert(lib, b"gone", file(2)).unwrap();
    tree.link(Tree::ROOT, b"kept", kept).unwrap();
    assert_eq!((tree.len(), tree.names(kept)), (5, 2));
    assert!(tree.remove(Tree::ROOT, b"usr"));
    assert!(!tree.remove(Tree::ROOT, b"usr"));
    assert_eq!((tree.len(), tree.names(kept)), (2, 1));
    assert!(tree.get(lib).is_none() && tree.get(kept).is_some());
}

#[test]
fn a_name_is_taken_over_whole() {
    let mut tree = Tree::new(Metadata::default(), 10);
    let old = tree.insert(Tree::ROOT, b"x", directory()).unwrap();
    tree.insert(old, b"below", file(1)).unwrap();
    let new = tree.insert(Tree::ROOT, b"x", file(2)).unwrap();
    assert_eq!((tree.child(Tree::ROOT, b"x"), tree.len()), (Some(new), 2));
    // A link onto itself keeps it.
    tree.link(Tree::ROOT, b"x", new).unwrap();
    assert_eq!((tree.names(new), tree.get(new).is_some()), (1, true));
    assert_eq!(tree.link(Tree::ROOT, b"y", Tree::ROOT), Err(TreeError::LinkToDirectory));
    assert_eq!(tree.insert(new, b"below", file(3)), Err(TreeError::NotADirectory));
}

#[test]
fn evil_layer_names_that_no_directory_holds() {
    let mut tree = Tree::new(Metadata::default(), 10);
    let long = [b'a'; NAME_MAX + 1];
    for name in [&b""[..], b".", b"..", b"a/b", b"a\0", &long] {
        assert_eq!(tree.insert(Tree::ROOT, name, file(1)), Err(TreeError::Name));
    }
    assert_eq!(tree.len(), 1);
}

#[test]
fn a_tree_is_bounded() {
    let mut tree = Tree::new(Metadata::default(), 3);
    tree.insert(Tree::ROOT, b"a", file(1)).unwrap();
    tree.insert(Tree::ROOT, b"b", file(1)).unwrap();
    assert_eq!(tree.insert(Tree::ROOT, b"c", file(1)), Err(TreeError::TooMany(3)));
    assert_eq!(tree.len(), 3);
    tree.remove(Tree::ROOT, b"a");
    tree.insert(Tree::ROOT, b"c", file(1)).unwrap();
    assert_eq!(tree.len(), 3);
}
