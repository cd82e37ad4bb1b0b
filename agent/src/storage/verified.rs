//! Roots that this guest verified, as bound configuration names them.

use cdh::composefs::pin::Pin;
use cdh::image::pull::Pulled;
use initdata::{Root, Sha256Digest, VerityTree};

use crate::dm::VerityParameters;

/// A root that the guest verified: which data it is, in full.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VerifiedRoot {
    /// A tree of dm-verity, verified at each read.
    Verity {
        /// SHA-256 root hash of the tree.
        root_hash: [u8; 32],
        /// Its salt.
        salt: Vec<u8>,
        /// Blocks of 4096 bytes that it is over.
        data_blocks: u64,
    },
    /// Trees of dm-verity, verified at each read, that are on top of each other; above them there is nothing but what the container writes.
    Layers(
        /// The topmost first.
        Vec<VerityTree>,
    ),
    /// An image that this guest pulled: its policy accepted it, and it is in memory that nobody writes to.
    Image {
        /// SHA-256 of the manifest, where that is what it is known by.
        manifest: Option<Sha256Digest>,
        /// fs-verity digest of the metadata image, where it is one by SHA-256.
        tree: Option<Sha256Digest>,
    },
}

impl VerifiedRoot {
    /// Of an image.
    pub(crate) fn of_image(pulled: &Pulled) -> Self {
        let manifest = Sha256Digest::parse(&pulled.manifest_digest().to_string());
        let tree = match pulled.image_digest() {
            Pin::Sha256(digest) => Some(Sha256Digest::new(digest.0)),
            Pin::Sha512(_) => None,
        };
        Self::Image { manifest, tree }
    }

    /// Of layers, the topmost first.
    pub(crate) fn of_layers(trees: &[VerityParameters]) -> Self {
        let tree = |tree: &VerityParameters| VerityTree {
            root_hash: Sha256Digest::new(tree.root_hash),
            salt: tree.salt.clone(),
            data_blocks: tree.data_blocks,
        };
        Self::Layers(trees.iter().map(tree).collect())
    }

    /// The names by which initdata may mean it.
    #[must_use]
    pub fn identities(&self) -> Vec<Root> {
        match self {
            Self::Verity { root_hash, salt, data_blocks } => vec![Root::Verity {
                root_hash: Sha256Digest::new(*root_hash),
                salt: salt.clone(),
                data_blocks: *data_blocks,
            }],
            // Its order is of what it is: one of them alone, or another order, is another root.
            Self::Layers(trees) => vec![Root::Layers(trees.clone())],
            Self::Image { manifest, tree } => {
                let manifest = manifest.map(Root::Image);
                manifest.into_iter().chain(tree.map(Root::Composefs)).collect()
            }
        }
    }
}

impl From<&VerityParameters> for VerifiedRoot {
    fn from(parameters: &VerityParameters) -> Self {
        let VerityParameters { root_hash, salt, data_blocks, .. } = parameters;
        Self::Verity { root_hash: *root_hash, salt: salt.clone(), data_blocks: *data_blocks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_known_by_its_manifest_and_by_its_tree() {
        let digest = |byte| Some(Sha256Digest::new([byte; 32]));
        let root = VerifiedRoot::Image { manifest: digest(1), tree: digest(2) };
        let [image, tree] = root.identities().try_into().unwrap();
        assert_eq!(image, Root::Image(Sha256Digest::new([1; 32])));
        assert_eq!(tree, Root::Composefs(Sha256Digest::new([2; 32])));
        assert!(VerifiedRoot::Image { manifest: None, tree: None }.identities().is_empty());
    }
}
