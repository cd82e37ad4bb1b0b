//! Where keys of a policy are: files of the measured image, resources of the broker.

use std::fmt;

use async_trait::async_trait;
use attestation_agent::kbs::ResourceUri;

use super::error::Cause;

/// Reads what a policy names.
#[async_trait]
pub trait Material: Send + Sync {
    /// The bytes behind `uri`, at most `maximum` of them.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from giving all of them. More than `maximum` is an error too, and nothing above it is allocated.
    async fn read(&self, uri: &MaterialUri, maximum: usize) -> Result<Vec<u8>, Cause>;
}

/// The place of a file or resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MaterialUri {
    /// An absolute path: `/…` or `file:///…`.
    File(String),
    /// `kbs://…` or `kbs+plugin://…`.
    Resource(ResourceUri),
}

/// Longest path, in bytes (Linux, `PATH_MAX` with its NUL).
const PATH_MAX: usize = 4095;

impl MaterialUri {
    /// Reads an absolute path, a `file:` URI without host, or the URI of a resource; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.starts_with("kbs") {
            return ResourceUri::parse(text).ok().map(Self::Resource);
        }
        let path = text.strip_prefix("file://").unwrap_or(text);
        let fits = path.starts_with('/')
            && path.len() <= PATH_MAX
            && !path.contains(['\0', '%', '?', '#'])
            && path.split('/').all(|part| part != "..");
        fits.then(|| Self::File(path.to_owned()))
    }
}

impl fmt::Display for MaterialUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.write_str(path),
            Self::Resource(uri) => uri.fmt(f),
        }
    }
}
