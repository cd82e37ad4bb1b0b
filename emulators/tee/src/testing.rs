//! What unit tests share: a platform whose RSA keys need not be made first.

use std::sync::Arc;

use tempfile::TempDir;

use crate::faults::Faults;
use crate::launch::Launch;
use crate::state::State;
use crate::tee::Tee;

/// 2026-11-22.
pub(crate) const NOW: u64 = 1_795_305_600;

/// A state directory with the RSA keys of the test vectors.
pub(crate) fn directory_with_keys() -> TempDir {
    let directory = TempDir::new().unwrap();
    let keys = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/evidence/keys/insecure-test-");
    for name in ["ark", "ask"] {
        std::fs::copy(format!("{keys}{name}.pk8"), directory.path().join(format!("snp-{name}.pk8"))).unwrap();
    }
    directory
}

/// A platform.
pub(crate) fn platform() -> (TempDir, State) {
    let directory = directory_with_keys();
    State::init(directory.path(), "").unwrap();
    let state = State::open(directory.path()).unwrap();
    (directory, state)
}

/// A guest on it, and its launch.
pub(crate) fn launched(state: &State, launch: &str, plan: &str) -> (Arc<Tee>, Launch) {
    let launch = Launch::parse(launch).unwrap();
    let faults = Arc::new(Faults::parse(plan).unwrap());
    (Arc::new(Tee::launch(state, &launch, faults, NOW).unwrap()), launch)
}

/// A plan of one fault.
pub(crate) fn fault(kind: &str) -> String {
    format!("[[fault]]\nkind = \"{kind}\"\n")
}
