//! Roots that the kernel verifies at each read, as events of the runtime log: extended before anything of them is used, so that who verifies
//! evidence sees which they were. Images that the guest pulls are measured by who pulls them.
//!
//! ```text
//!  innerkeep MountRoot {"layers":[{"data_blocks":8192,"root_hash":"…","salt":"…"}]}        the topmost first
//! ```

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use attestation_agent::{AttestationError, Attester, Extension};
use protocol::status::RpcError;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::error::chain;
use crate::storage::VerifiedRoot;

/// Who logs.
const DOMAIN: &str = "innerkeep";
/// What was done.
const OPERATION: &str = "MountRoot";
/// That of pulled images.
const PCR: u64 = 17;

/// Which roots were measured.
pub(crate) struct Measured {
    attester: Option<Arc<Attester>>,
    /// Each once: containers come and go on the same root.
    done: Mutex<HashSet<String>>,
}

impl fmt::Debug for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Measured").finish_non_exhaustive()
    }
}

impl Measured {
    /// With the registers of this platform; without one there is nothing to extend.
    pub(crate) fn new(attester: Option<Arc<Attester>>) -> Self {
        Self { attester, done: Mutex::default() }
    }

    /// Measures a root, unless that was done.
    ///
    /// # Errors
    /// `ATTEST_…`: nothing of the root is to be used.
    pub(crate) async fn root(&self, root: &VerifiedRoot) -> Result<(), RpcError> {
        let (Some(content), Some(attester)) = (content(root), self.attester.clone()) else { return Ok(()) };
        // Held meanwhile: who comes second goes on when it is done.
        let mut done = self.done.lock().await;
        if done.contains(&content) {
            return Ok(());
        }
        let event = content.clone();
        let work = move || attester.extend(DOMAIN, OPERATION, &event, PCR);
        let extended = tokio::task::spawn_blocking(work).await;
        let failed = |error: &AttestationError| RpcError::Failed(error.code(), chain(error));
        let lost = |_| RpcError::Failed("AGENT_TASK", "a root was not measured".to_owned());
        let extended = extended.map_err(lost)?.map_err(|error| failed(&error))?;
        // As many as the log holds. Where nothing is logged, nothing is remembered: the host could bring new roots without end.
        if extended != Extension::NotSupported {
            done.insert(content);
        }
        Ok(())
    }
}

/// What is logged of a root; nothing of an image.
fn content(root: &VerifiedRoot) -> Option<String> {
    let tree = |root_hash: &[u8], salt: &[u8], data_blocks: u64| -> Value {
        json!({ "data_blocks": data_blocks, "root_hash": hex::encode(root_hash), "salt": hex::encode(salt) })
    };
    let layers = match root {
        VerifiedRoot::Verity { root_hash, salt, data_blocks } => vec![tree(root_hash, salt, *data_blocks)],
        VerifiedRoot::Layers(trees) => {
            trees.iter().map(|it| tree(it.root_hash.as_bytes(), &it.salt, it.data_blocks)).collect()
        }
        VerifiedRoot::Image { .. } => return None,
    };
    Some(json!({ "layers": layers }).to_string())
}

#[cfg(test)]
mod tests {
    use initdata::{Sha256Digest, VerityTree};

    use super::*;

    #[test]
    fn events_name_a_root_in_full() {
        let (hash, zeros) = ("01".repeat(32), "00".repeat(32));
        let verity = VerifiedRoot::Verity { root_hash: [1; 32], salt: vec![0xab], data_blocks: 7 };
        let expected =
            format!("{{\"layers\":[{{\"data_blocks\":7,\"root_hash\":\"{hash}\",\"salt\":\"ab\"}}]}}");
        assert_eq!(content(&verity).unwrap(), expected);
        let tree = |byte| VerityTree {
            root_hash: Sha256Digest::new([byte; 32]),
            salt: Vec::new(),
            data_blocks: u64::from(byte),
        };
        let expected = format!(
            "{{\"layers\":[{{\"data_blocks\":0,\"root_hash\":\"{zeros}\",\"salt\":\"\"}},{{\"data_blocks\":1,\"root_hash\":\"{hash}\",\"salt\":\"\"}}]}}"
        );
        assert_eq!(content(&VerifiedRoot::Layers(vec![tree(0), tree(1)])).unwrap(), expected);
        assert!(content(&VerifiedRoot::Image { manifest: None, tree: None }).is_none());
    }

    #[tokio::test]
    async fn without_a_platform_there_is_nothing_to_extend() {
        let verity = VerifiedRoot::Verity { root_hash: [1; 32], salt: Vec::new(), data_blocks: 7 };
        Measured::new(None).root(&verity).await.unwrap();
    }
}
