//! Images and artifacts from registries, none of which is trusted.
//!
//! ```text
//!  Reference ─▶ Sources (mirrors, blocked) ─▶ pull_manifest ─▶ VerifiedManifest ─▶ signature policy (not here)
//!                                               by digest: compared                        │ permitted
//!                                               by tag: whatever one source had            ▼
//!                               Store ◀── fetch_blobs: parallel, continued, verified before they have a name
//! ```
//!
//! ```no_run
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use cdh::registry::store::{Store, StoreOptions};
//! use cdh::registry::{Platform, Reference, Registry, RegistryOptions, RegistryTrust};
//! use tokio::time::Instant;
//!
//! # async fn run(ca: &str) -> Result<(), cdh::registry::RegistryError> {
//! let trust = Some(RegistryTrust::new(&[ca])?);
//! let registry = Registry::new(RegistryOptions { trust, ..RegistryOptions::default() });
//! let reference = Reference::parse("registry.example/acme/ranker:v3")?;
//! let deadline = Instant::now() + Duration::from_secs(600);
//! let manifest = registry.pull_manifest(&reference, &Platform::host(), deadline).await?;
//! // Here the signature policy decides about manifest.reference, manifest.source and the digests.
//! let store = Arc::new(Store::open("/run/innerkeep/blobs".as_ref(), StoreOptions::default())?);
//! let fetched = registry.fetch_blobs(&manifest, &store, &(), deadline).await?;
//! assert_eq!(fetched.layers.len(), manifest.layers().len());
//! # Ok(())
//! # }
//! ```
//!
//! What it refuses to do: it takes no root of the platform, no proxy of the environment and no word of a registry for where
//! credentials go; it falls back to plain http for nobody; it follows no redirect to this machine; it allocates nothing by a length
//! that a registry wrote, and gives no bytes a name before their digest was right.
//!
//! # Codes
//!
//! *again*: tried again inside the deadline, and then at the next source; *next*: the next source is asked; the others are final.
//!
//! | code | means | |
//! |---|---|---|
//! | `REGISTRY_ADDRESS` | a registry's word led to an address of this machine or its links | next |
//! | `REGISTRY_ANSWER` | an answer that the protocol does not know: range, length, encoding, token | next |
//! | `REGISTRY_AUTH_DOWNGRADE` | a password is asked for where tokens were | next |
//! | `REGISTRY_BLOCKED` | bound configuration blocks the repository | |
//! | `REGISTRY_CHALLENGE` | a challenge that is neither Basic nor Bearer | next |
//! | `REGISTRY_CONFIG` | configuration, credentials, proxies or roots that are refused | |
//! | `REGISTRY_CONNECT` | no address, no connection | again |
//! | `REGISTRY_CREDENTIALS` | credentials would go to a stranger or in the clear | next |
//! | `REGISTRY_DEADLINE` | the caller's time is over | |
//! | `REGISTRY_DENIED` | 401 or 403 | next |
//! | `REGISTRY_DIGEST` | bytes with another digest | next |
//! | `REGISTRY_FETCHER` | no process could be started and confined that speaks to registries | |
//! | `REGISTRY_HTTP` | the connection broke, or an answer ended early | again |
//! | `REGISTRY_MANIFEST` | a manifest, index or configuration of another form | next |
//! | `REGISTRY_MISSING` | 404 | next |
//! | `REGISTRY_NO_SOURCE` | several sources failed, each with its own code | |
//! | `REGISTRY_PLATFORM` | no image for this machine | next |
//! | `REGISTRY_REDIRECT` | a redirect that is not followed | next |
//! | `REGISTRY_REFERENCE` | not an image reference or digest | |
//! | `REGISTRY_STALLED` | slower than the slowest registry that is accepted | again |
//! | `REGISTRY_STATUS` | another status | next |
//! | `REGISTRY_TLS` | the certificate is not vouched for, or no TLS | next |
//! | `REGISTRY_TOO_LARGE` | above a cap, or than announced | next |
//! | `REGISTRY_UNAVAILABLE` | 5xx, 408 or 429 | again |
//! | `STORE_DIGEST` | a stored blob changed while it was read | |
//! | `STORE_IO` | a file of the store | |
//! | `STORE_SPACE` | not enough room on the disk | |

mod auth;
mod beside;
mod carry;
pub mod challenge;
mod client;
mod connection;
mod credentials;
mod digest;
mod error;
pub mod fetching;
mod graph;
mod http;
mod local;
pub mod manifest;
pub mod platform;
mod progress;
mod proxy;
mod pull;
mod push;
pub mod reference;
mod retry;
mod sources;
pub mod store;
mod transfer;
mod trust;
mod url;
mod wire;

pub use carry::Carried;
pub use credentials::{CREDENTIALS_MAX, Credentials, Login};
pub use digest::{Digest, Hasher};
pub use error::{RegistryClass, RegistryError};
pub use http::Patience;
pub use local::LocalImage;
pub use manifest::Descriptor;
pub use platform::Platform;
pub use progress::{Progress, Transferred};
pub use proxy::Proxies;
pub use pull::VerifiedManifest;
pub use push::{Push, PushSource, Pushed};
pub use reference::Reference;
pub use sources::{SOURCES_MAX, Source, Sources};
pub use transfer::Fetched;
pub use trust::RegistryTrust;

use std::fmt;
use std::sync::Arc;

use crate::worker::Workers;

/// What a client is made with. All of it comes from bound configuration or the measured image.
#[derive(Default)]
pub struct RegistryOptions {
    /// Roots for https; without any there is no https.
    pub trust: Option<RegistryTrust>,
    /// Logins.
    pub credentials: Credentials,
    /// Proxies.
    pub proxies: Proxies,
    /// Mirrors, and registries that are blocked or spoken to in plain http.
    pub sources: Sources,
    /// Sizes and numbers.
    pub limits: Limits,
    /// Times and rates.
    pub patience: Patience,
    /// Who starts the process that speaks to registries ([`fetching`]). Without it this process does, which then has no business with keys.
    pub workers: Option<Arc<dyn Workers>>,
}

/// Sizes and numbers that a caller may choose; the others are constants.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of all layers of one image, as they are transferred.
    pub image_bytes: u64,
    /// Blobs in transfer at the same time.
    pub parallel: usize,
}

impl Default for Limits {
    /// 64 GiB; 3 blobs.
    fn default() -> Self {
        Self { image_bytes: 64 << 30, parallel: 3 }
    }
}

impl fmt::Debug for RegistryOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trust, credentials, proxies, sources, limits, patience, workers } = self;
        f.debug_struct("RegistryOptions")
            .field("trust", trust)
            .field("credentials", credentials)
            .field("proxies", proxies)
            .field("sources", sources)
            .field("limits", limits)
            .field("patience", patience)
            .field("apart", &workers.is_some())
            .finish()
    }
}

/// A client of registries.
#[derive(Debug)]
pub struct Registry {
    options: OwnOptions,
    transport: http::Transport,
    authorizations: auth::Authorizations,
}

#[derive(Debug)]
struct OwnOptions {
    credentials: Credentials,
    sources: Sources,
    limits: Limits,
}

impl Registry {
    /// A client. Nothing is connected yet.
    #[must_use]
    pub fn new(options: RegistryOptions) -> Self {
        let RegistryOptions { trust, credentials, proxies, sources, limits, patience, workers } = options;
        Self {
            options: OwnOptions { credentials, sources, limits },
            transport: http::Transport::new(trust, proxies, patience, workers),
            authorizations: auth::Authorizations::default(),
        }
    }
}

#[cfg(test)]
mod tests;
