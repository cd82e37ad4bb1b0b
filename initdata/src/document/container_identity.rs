//! Which container is meant: by what the guest itself verifies, never by a name, an id or an annotation.

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::values::Sha256Digest;

/// What process digests begin with.
const LABEL: &[u8] = b"innerkeep container process v1";
/// Longest salt of a dm-verity tree in bytes.
const MAXIMUM_SALT_BYTES: usize = 256;

/// Most layers of a root.
pub const MAXIMUM_LAYERS: usize = 128;

/// A container: its root and the process that was admitted in it. Both have to hold.
///
/// ```toml
/// container = { image = "sha256:…", process = "sha256:…" }
/// container = { composefs = "sha256:…", policy_container = 1 }
/// container = { verity = { root_hash = "sha256:…", salt = "00", data_blocks = 4096 }, policy_container = 0 }
/// container = { layers = [{ root_hash = "sha256:…", salt = "00", data_blocks = 4096 }, …], policy_container = 0 }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawContainer")]
pub struct Container {
    /// Its root.
    pub root: Root,
    /// Its process.
    pub process: ProcessRule,
}

/// The root of a container's file system, as the guest verified it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Root {
    /// `composefs`: the fs-verity digest (SHA-256, blocks of 4096 bytes) of the metadata image that was mounted.
    Composefs(Sha256Digest),
    /// `image`: the digest of the manifest of the image that this guest pulled.
    Image(Sha256Digest),
    /// `verity`: a dm-verity tree of version 1 over blocks of 4096 bytes.
    Verity {
        /// SHA-256 root hash.
        root_hash: Sha256Digest,
        /// Salt, at most 256 bytes, in hex.
        salt: Vec<u8>,
        /// Number of data blocks.
        data_blocks: u64,
    },
    /// `layers`: 1 to [`MAXIMUM_LAYERS`] such trees, each with a file system, on top of each other: the topmost first.
    Layers(Vec<VerityTree>),
}

/// A dm-verity tree of version 1 over blocks of 4096 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VerityTree {
    /// SHA-256 root hash.
    pub root_hash: Sha256Digest,
    /// Salt, at most 256 bytes.
    pub salt: Vec<u8>,
    /// Number of data blocks.
    pub data_blocks: u64,
}

/// Which process of the container.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProcessRule {
    /// `process`: the process with this [`ProcessIdentity::digest`].
    Digest(Sha256Digest),
    /// `policy_container`: the container that the policy of this document admits as the one with this index.
    PolicyContainer(u32),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawContainer {
    composefs: Option<Sha256Digest>,
    image: Option<Sha256Digest>,
    verity: Option<RawVerity>,
    layers: Option<Vec<RawVerity>>,
    process: Option<Sha256Digest>,
    policy_container: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawVerity {
    root_hash: Sha256Digest,
    salt: String,
    data_blocks: u64,
}

impl TryFrom<RawContainer> for Container {
    type Error = String;

    fn try_from(raw: RawContainer) -> Result<Self, String> {
        let root = match (raw.composefs, raw.image, raw.verity, raw.layers) {
            (Some(digest), None, None, None) => Root::Composefs(digest),
            (None, Some(digest), None, None) => Root::Image(digest),
            (None, None, Some(verity), None) => {
                let VerityTree { root_hash, salt, data_blocks } = verity.into_tree()?;
                Root::Verity { root_hash, salt, data_blocks }
            }
            (None, None, None, Some(layers)) if (1..=MAXIMUM_LAYERS).contains(&layers.len()) => {
                Root::Layers(layers.into_iter().map(RawVerity::into_tree).collect::<Result<_, _>>()?)
            }
            (None, None, None, Some(layers)) => {
                return Err(format!("layers: expected 1 to {MAXIMUM_LAYERS}, found {}", layers.len()));
            }
            _ => return Err("container: expected one of composefs, image, verity, layers".to_owned()),
        };
        let process = match (raw.process, raw.policy_container) {
            (Some(digest), None) => ProcessRule::Digest(digest),
            (None, Some(index)) => ProcessRule::PolicyContainer(index),
            _ => return Err("container: expected one of process, policy_container".to_owned()),
        };
        Ok(Self { root, process })
    }
}

impl RawVerity {
    fn into_tree(self) -> Result<VerityTree, String> {
        let salt = hex::decode(&self.salt).map_err(|_| "verity.salt: expected hex digits".to_owned())?;
        if salt.len() > MAXIMUM_SALT_BYTES || self.data_blocks == 0 {
            return Err(format!(
                "a verity tree: expected a salt of at most {MAXIMUM_SALT_BYTES} bytes and data blocks from 1 on"
            ));
        }
        Ok(VerityTree { root_hash: self.root_hash, salt, data_blocks: self.data_blocks })
    }
}

/// The process that a container starts with, as it was admitted: what `process` in a document is the digest of.
#[derive(Clone, Copy, Debug)]
pub struct ProcessIdentity<'a> {
    /// Program and arguments.
    pub args: &'a [&'a [u8]],
    /// Names of the environment's variables, in any order.
    pub env_names: &'a [&'a [u8]],
    /// Working directory.
    pub cwd: &'a [u8],
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Further group ids, in any order.
    pub additional_gids: &'a [u32],
}

impl ProcessIdentity<'_> {
    /// SHA-256 over the label and all fields, each list with its count and each text with its length: no two processes meet.
    #[must_use]
    pub fn digest(&self) -> Sha256Digest {
        let mut env_names = self.env_names.to_vec();
        env_names.sort_unstable();
        env_names.dedup();
        let mut gids = self.additional_gids.to_vec();
        gids.sort_unstable();
        gids.dedup();
        let mut hash = Sha256::new();
        put(&mut hash, LABEL);
        put_list(&mut hash, self.args);
        put_list(&mut hash, &env_names);
        put(&mut hash, self.cwd);
        hash.update(self.uid.to_be_bytes());
        hash.update(self.gid.to_be_bytes());
        put_count(&mut hash, gids.len());
        for gid in gids {
            hash.update(gid.to_be_bytes());
        }
        Sha256Digest::new(hash.finalize().into())
    }
}

fn put_count(hash: &mut Sha256, count: usize) {
    hash.update(u64::try_from(count).unwrap_or(u64::MAX).to_be_bytes());
}

fn put(hash: &mut Sha256, text: &[u8]) {
    put_count(hash, text.len());
    hash.update(text);
}

fn put_list(hash: &mut Sha256, list: &[&[u8]]) {
    put_count(hash, list.len());
    for text in list {
        put(hash, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_processes_have_one_digest() {
        let args: &[&[u8]] = &[b"/bin/serve", b"-v"];
        let base = ProcessIdentity {
            args,
            env_names: &[b"PATH", b"HOME"],
            cwd: b"/",
            uid: 0,
            gid: 0,
            additional_gids: &[5, 4],
        };
        let others = [
            ProcessIdentity { args: &[b"/bin/serve-v"], ..base },
            ProcessIdentity { args: &[b"/bin/serve", b"-v", b"PATH"], env_names: &[b"HOME"], ..base },
            ProcessIdentity { env_names: &[b"PATH"], ..base },
            ProcessIdentity { cwd: b"/a", ..base },
            ProcessIdentity { uid: 1, ..base },
            ProcessIdentity { gid: 1, ..base },
            ProcessIdentity { uid: 0, additional_gids: &[4], ..base },
        ];
        for other in others {
            assert_ne!(base.digest(), other.digest(), "{other:?}");
        }
        let again =
            ProcessIdentity { env_names: &[b"HOME", b"PATH", b"HOME"], additional_gids: &[4, 5], ..base };
        assert_eq!(base.digest(), again.digest(), "order and repetition say nothing");
    }
}
