//! What a layer says that it is: its media type, and the digest of its expanded bytes.

use serde::{Deserialize, Serialize};

use super::LayerError;

/// How much of a foreign text is shown.
const SHOWN: usize = 80;

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip (RFC 1952), any number of members.
    Gzip,
    /// Zstandard (RFC 8878), any number of frames.
    Zstd,
}

impl Compression {
    /// Of a layer with this media type (OCI image specification, `layer.md`; docker's names of the same).
    ///
    /// Layers that may not be distributed hold the same bytes, so OCI's media types of them are accepted when the bytes are here.
    /// Docker's foreign layers, which no Linux image has, and encrypted layers, which have to be decrypted first, are refused.
    ///
    /// # Errors
    ///
    /// `LAYER_MEDIA_TYPE` for everything else: nothing is found out by looking at the bytes.
    pub fn of_media_type(media_type: &str) -> Result<Self, LayerError> {
        match media_type {
            "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar"
            | "application/vnd.docker.image.rootfs.diff.tar" => Ok(Self::None),
            "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Ok(Self::Gzip),
            "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Ok(Self::Zstd),
            _ => Err(LayerError::MediaType { found: media_type.chars().take(SHOWN).collect() }),
        }
    }
}

/// The digest of a layer's expanded bytes, as an image's configuration has it in `rootfs.diff_ids`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DiffId {
    /// SHA-256.
    Sha256([u8; 32]),
    /// SHA-512.
    Sha512([u8; 64]),
}

impl std::str::FromStr for DiffId {
    type Err = LayerError;

    fn from_str(text: &str) -> Result<Self, LayerError> {
        let refused = || LayerError::DiffIdForm { found: text.chars().take(SHOWN).collect() };
        let (algorithm, digits) = text.split_once(':').ok_or_else(refused)?;
        if digits.bytes().any(|digit| digit.is_ascii_uppercase()) {
            return Err(refused());
        }
        match algorithm {
            "sha256" => {
                let mut digest = [0; 32];
                hex::decode_to_slice(digits, &mut digest).map_err(|_| refused())?;
                Ok(Self::Sha256(digest))
            }
            "sha512" => {
                let mut digest = [0; 64];
                hex::decode_to_slice(digits, &mut digest).map_err(|_| refused())?;
                Ok(Self::Sha512(digest))
            }
            _ => Err(refused()),
        }
    }
}

impl TryFrom<String> for DiffId {
    type Error = LayerError;

    fn try_from(text: String) -> Result<Self, LayerError> {
        text.parse()
    }
}

impl From<DiffId> for String {
    fn from(digest: DiffId) -> Self {
        digest.to_string()
    }
}

impl std::fmt::Display for DiffId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sha256(digest) => write!(f, "sha256:{}", hex::encode(digest)),
            Self::Sha512(digest) => write!(f, "sha512:{}", hex::encode(digest)),
        }
    }
}
