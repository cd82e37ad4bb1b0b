//! `[innerkeep.volumes]`: which volumes of a broker's keys are written.

use serde::Deserialize;

/// What may be written. Keys are named as requests name them: `kbs:///…`, or a whole sealed secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VolumesConfig {
    /// Keys whose volumes are made or written by this guest: the operator's word that no other guest writes them at the same time.
    pub writable: Vec<String>,
    /// Keys whose volumes are opened although nobody closed them: the operator's word that who had them open is no more.
    pub unclean: Vec<String>,
}
