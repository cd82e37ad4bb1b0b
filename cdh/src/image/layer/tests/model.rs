//! Merging against a model that is slow and obvious: hide first, then put, on a map of paths.

use proptest::prelude::*;

use super::super::*;
use super::{Tar, listing, unpack};

/// What is done at a path of a layer.
#[derive(Clone, Copy, Debug)]
enum Step {
    File,
    Dir,
    Hide,
    HideAll,
}

/// Mode of a directory that nobody described, and of what the archives of these tests describe.
const MODES: (u16, u16, u16) = (0o755, 0o700, 0o640);

type Paths = BTreeMap<String, u16>;

fn step() -> impl Strategy<Value = (Step, String)> {
    let step = prop_oneof![3 => Just(Step::File), 3 => Just(Step::Dir), 2 => Just(Step::Hide), 1 => Just(Step::HideAll)];
    (
        step,
        prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4)
            .prop_map(|names| names.join("/")),
    )
}

fn archive(layer: &[(Step, String)]) -> Vec<u8> {
    let tar = layer.iter().fold(Tar::new(), |tar, (step, path)| {
        let (parent, name) =
            path.rsplit_once('/').map_or((String::new(), &path[..]), |(p, n)| (format!("{p}/"), n));
        match step {
            Step::File => tar.file(path, b"x"),
            Step::Dir => tar.dir(path),
            Step::Hide => tar.file(&format!("{parent}.wh.{name}"), b""),
            Step::HideAll => tar.file(&format!("{path}/.wh..wh..opq"), b""),
        }
    });
    tar.finish()
}

/// `None` if a parent is no directory.
fn model(layers: &[Vec<(Step, String)>]) -> Option<Paths> {
    let mut paths = Paths::new();
    for layer in layers {
        for (step, path) in layer {
            let below = format!("{path}/");
            match step {
                Step::Hide => paths.retain(|found, _| found != path && !found.starts_with(&below)),
                Step::HideAll => paths.retain(|found, _| !found.starts_with(&below)),
                Step::File | Step::Dir => {}
            }
        }
        for (step, path) in layer {
            let mode = match step {
                Step::File => MODES.2,
                Step::Dir => MODES.1,
                Step::Hide | Step::HideAll => continue,
            };
            for (end, _) in path.match_indices('/') {
                if *paths.entry(path[..end].to_owned()).or_insert(MODES.0) == MODES.2 {
                    return None;
                }
            }
            let was_file = paths.get(path) == Some(&MODES.2);
            if mode == MODES.2 || was_file {
                let below = format!("{path}/");
                paths.retain(|found, _| !found.starts_with(&below));
            }
            paths.insert(path.clone(), mode);
        }
    }
    Some(paths)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn merging_is_hiding_and_then_putting(layers in prop::collection::vec(prop::collection::vec(step(), 0..8), 1..4)) {
        let archives: Vec<Vec<u8>> = layers.iter().map(|layer| archive(layer)).collect();
        match unpack(&archives, Limits::default()) {
            Ok(tree) => {
                let found: Paths = listing(&tree)
                    .into_iter()
                    .filter(|(path, _)| !path.is_empty())
                    .map(|(path, (_, inode))| (String::from_utf8(path).unwrap(), inode.metadata.mode))
                    .collect();
                prop_assert_eq!(Some(found), model(&layers));
            }
            // What the layer hides later may still be in the way of what it puts now: refused, not guessed.
            Err(error) => prop_assert_eq!(error.code(), "LAYER_PARENT"),
        }
    }
}
