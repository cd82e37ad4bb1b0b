//! Secrets from files of the image (`offline_fs_kbc`): an insecure mode, for whoever tries things out.
//!
//! `/etc/aa-offline_fs_kbc-keys.json` and `/etc/aa-offline_fs_kbc-resources.json`, each a JSON object of `"repository/type/tag": "<base64>"`. One
//! that is not there has none. Upstream's environment variable that names further files is not read.

use std::collections::BTreeMap;
use std::path::Path;

use attestation_agent::TeeRoot;
use attestation_agent::kbs::{ResourceUri, parse_json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::files;
use crate::hub_error::HubError;
use crate::plaintext::Plaintext;

const FILES: [&str; 2] = ["etc/aa-offline_fs_kbc-keys.json", "etc/aa-offline_fs_kbc-resources.json"];
/// Longest file.
const MAXIMUM_FILE_BYTES: u64 = 4 << 20;

/// The resources of all files, still in base64.
pub(super) struct Offline {
    of_uris: BTreeMap<String, Zeroizing<String>>,
}

#[derive(Deserialize)]
#[serde(transparent)]
struct Resources(BTreeMap<String, String>);

impl Offline {
    pub(super) fn read(root: &TeeRoot) -> Result<Self, HubError> {
        let mut of_uris = BTreeMap::new();
        for name in FILES {
            let path = root.join(name);
            if path.symlink_metadata().is_ok() {
                of_uris.extend(Self::parse(&path)?);
            }
        }
        Ok(Self { of_uris })
    }

    fn parse(path: &Path) -> Result<BTreeMap<String, Zeroizing<String>>, HubError> {
        let bad = |reason| HubError::Offline { path: path.display().to_string(), reason };
        let bytes = files::read("read offline resources", path, MAXIMUM_FILE_BYTES);
        let bytes = Zeroizing::new(bytes.map_err(|_| bad("expected a file of at most 4 MiB"))?);
        let resources: Resources =
            parse_json(&bytes).map_err(|_| bad("expected a JSON object of strings, and each name once"))?;
        Ok(resources.0.into_iter().map(|(name, encoded)| (name, Zeroizing::new(encoded))).collect())
    }

    pub(super) fn get(&self, uri: &ResourceUri) -> Result<Plaintext, HubError> {
        let missing = || HubError::OfflineMissing { uri: uri.to_string() };
        let name = uri.to_string();
        let encoded = name.strip_prefix("kbs:///").and_then(|name| self.of_uris.get(name));
        let encoded = encoded.ok_or_else(missing)?;
        let decoded = STANDARD
            .decode(encoded.as_bytes())
            .map_err(|_| HubError::Offline { path: name.clone(), reason: "expected standard base64" })?;
        Plaintext::take_from(&mut Zeroizing::new(decoded))
    }
}
