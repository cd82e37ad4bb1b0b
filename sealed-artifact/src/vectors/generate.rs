//! Makes all vectors.

use std::collections::BTreeMap;
pub(super) fn files() -> BTreeMap<String, String> {
    BTreeMap::new()
}
