//! What can go wrong between this guest and a registry: who misbehaved, and a stable code.

use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::digest::Digest;

/// Most bytes of somebody else's text in an error.
const SHOWN_MAX: usize = 160;

/// A failed transfer. The codes are listed in [`crate::registry`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// A name led to an address that a stranger must not send us to.
    #[error("{host}: expected a public or private unicast address, found {address}")]
    Address {
        /// The name or address.
        host: String,
        /// The address that was found.
        address: IpAddr,
    },
    /// An answer that is not what the protocol says.
    #[error("{from}: expected {expected}, found {found}")]
    Answer {
        /// Who answered.
        from: String,
        /// What the protocol says.
        expected: &'static str,
        /// What came.
        found: String,
    },
    /// A challenge for credentials that cannot be met.
    #[error("{from}: expected a Basic or Bearer challenge, found {found}")]
    Challenge {
        /// Who asked.
        from: String,
        /// The challenge, without credentials.
        found: String,
    },
    /// Configuration that is refused.
    #[error("{what}: expected {expected}, found {found}")]
    Config {
        /// Which part.
        what: &'static str,
        /// What is accepted.
        expected: &'static str,
        /// What it was; never a credential.
        found: String,
    },
    /// No connection, or one that broke while it was made.
    #[error("connect to {to}: {source}")]
    Connect {
        /// Host and port.
        to: String,
        /// Why.
        source: io::Error,
    },
    /// Credentials would go where they must not.
    #[error("{registry} wants credentials for {to}: expected {expected}")]
    Credentials {
        /// The registry.
        registry: String,
        /// Where they would go.
        to: String,
        /// What is accepted.
        expected: &'static str,
    },
    /// The caller's time is over.
    #[error("the deadline passed while {doing}")]
    Deadline {
        /// What was being done.
        doing: &'static str,
    },
    /// The registry denied access.
    #[error("{from}: access to {what} is denied (status {status})")]
    Denied {
        /// Who denied.
        from: String,
        /// What was asked for.
        what: String,
        /// HTTP status.
        status: u16,
    },
    /// Bytes that are not those that were asked for.
    #[error("{what}: expected {expected}, found {found}")]
    Digest {
        /// What they were.
        what: &'static str,
        /// Their digest by reference or descriptor.
        expected: Box<Digest>,
        /// Their digest.
        found: Box<Digest>,
    },
    /// The registry asks for weaker authentication than before.
    #[error("{from}: expected a {before} challenge as before, found {found}")]
    Downgrade {
        /// Who asked.
        from: String,
        /// The scheme of before.
        before: &'static str,
        /// The scheme of now.
        found: &'static str,
    },
    /// There is no process that would speak to registries.
    #[error("{action} a process that fetches: {source}")]
    Fetcher {
        /// What was to be done.
        action: &'static str,
        /// Why it could not.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The connection broke, or spoke no HTTP.
    #[error("{to}: the connection broke: {source}")]
    Http {
        /// Host and port.
        to: String,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A manifest, index or image configuration of another form.
    #[error("{what}: expected {expected}, found {found}")]
    Manifest {
        /// Which document.
        what: &'static str,
        /// What its form is.
        expected: &'static str,
        /// What it was.
        found: String,
    },
    /// No such manifest or blob there.
    #[error("{from} has no {what}")]
    Missing {
        /// Who was asked.
        from: String,
        /// For what.
        what: String,
    },
    /// No source had it.
    #[error("no source of {reference} could serve it: {}", listed(.tried))]
    NoSource {
        /// What was asked for.
        reference: String,
        /// Each source and its failure, in order.
        tried: Vec<(String, RegistryError)>,
    },
    /// The image is for other machines.
    #[error("expected an image for {wanted}, found {found}")]
    Platform {
        /// This machine.
        wanted: String,
        /// What there is.
        found: String,
    },
    /// A redirect that is not followed.
    #[error("{from} redirects: expected {expected}, found {found}")]
    Redirect {
        /// Who redirects.
        from: String,
        /// What is followed.
        expected: &'static str,
        /// Where to.
        found: String,
    },
    /// Not an image reference.
    #[error("image reference: expected {expected}, found {found}")]
    Reference {
        /// What it has to be.
        expected: &'static str,
        /// What it was.
        found: String,
    },
    /// Bound configuration forbids this repository.
    #[error("{name} is blocked by the registry configuration")]
    Blocked {
        /// The repository.
        name: String,
    },
    /// The disk cannot hold what would be fetched.
    #[error("the blob store needs {needs} bytes, has {has}")]
    Space {
        /// Bytes that are missing, and what is kept free.
        needs: u64,
        /// Bytes that are there.
        has: u64,
    },
    /// Fewer bytes came than the slowest accepted registry sends.
    #[error("{from}: expected at least {expected} bytes in {seconds} s, found {found}")]
    Stalled {
        /// Who sent.
        from: String,
        /// Bytes that were expected.
        expected: u64,
        /// In which time.
        seconds: u64,
        /// Bytes that came.
        found: u64,
    },
    /// A status that the protocol does not know here.
    #[error("{from}: unexpected status {status} for {what}")]
    Status {
        /// Who answered.
        from: String,
        /// What was asked for.
        what: String,
        /// HTTP status.
        status: u16,
    },
    /// A file of the blob store.
    #[error("{purpose} {path}: {source}", path = path.display())]
    Store {
        /// What was to be done.
        purpose: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it could not.
        source: io::Error,
    },
    /// Somebody else's bytes are in the blob store under a digest that is not theirs.
    #[error("stored blob {expected}: expected bytes of this digest and size, found {found}")]
    Stored {
        /// Name of the blob.
        expected: Digest,
        /// What it was.
        found: String,
    },
    /// The TLS handshake failed.
    #[error("TLS with {to}: {source}")]
    Tls {
        /// Host and port.
        to: String,
        /// Why.
        source: io::Error,
    },
    /// More than its cap, or than was announced.
    #[error("{what}: expected at most {maximum}, found {found}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// The cap.
        maximum: u64,
        /// What it was; `maximum + 1` where nobody counted further.
        found: u64,
    },
    /// The registry cannot answer now.
    #[error("{from} is not available (status {status})")]
    Unavailable {
        /// Who.
        from: String,
        /// HTTP status.
        status: u16,
    },
}

/// Who misbehaved. The class alone decides about another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistryClass {
    /// What was configured or asked for cannot be. Final.
    Config,
    /// Credentials or configuration do not permit it. Final at this source.
    Denied,
    /// The registry, or who stands in for it, broke the protocol. Final at this source.
    Fault,
    /// This machine's disk, time or processes. Final.
    Local,
    /// May work when tried again.
    Transient,
}

impl RegistryError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Address { .. } => "REGISTRY_ADDRESS",
            Self::Answer { .. } => "REGISTRY_ANSWER",
            Self::Blocked { .. } => "REGISTRY_BLOCKED",
            Self::Challenge { .. } => "REGISTRY_CHALLENGE",
            Self::Config { .. } => "REGISTRY_CONFIG",
            Self::Connect { .. } => "REGISTRY_CONNECT",
            Self::Credentials { .. } => "REGISTRY_CREDENTIALS",
            Self::Deadline { .. } => "REGISTRY_DEADLINE",
            Self::Denied { .. } => "REGISTRY_DENIED",
            Self::Digest { .. } => "REGISTRY_DIGEST",
            Self::Downgrade { .. } => "REGISTRY_AUTH_DOWNGRADE",
            Self::Fetcher { .. } => "REGISTRY_FETCHER",
            Self::Http { .. } => "REGISTRY_HTTP",
            Self::Manifest { .. } => "REGISTRY_MANIFEST",
            Self::Missing { .. } => "REGISTRY_MISSING",
            Self::NoSource { .. } => "REGISTRY_NO_SOURCE",
            Self::Platform { .. } => "REGISTRY_PLATFORM",
            Self::Redirect { .. } => "REGISTRY_REDIRECT",
            Self::Reference { .. } => "REGISTRY_REFERENCE",
            Self::Space { .. } => "STORE_SPACE",
            Self::Stalled { .. } => "REGISTRY_STALLED",
            Self::Status { .. } => "REGISTRY_STATUS",
            Self::Store { .. } => "STORE_IO",
            Self::Stored { .. } => "STORE_DIGEST",
            Self::Tls { .. } => "REGISTRY_TLS",
            Self::TooLarge { .. } => "REGISTRY_TOO_LARGE",
            Self::Unavailable { .. } => "REGISTRY_UNAVAILABLE",
        }
    }

    /// Who misbehaved.
    #[must_use]
    pub fn class(&self) -> RegistryClass {
        match self {
            Self::Config { .. } | Self::Reference { .. } => RegistryClass::Config,
            Self::Blocked { .. } | Self::Credentials { .. } | Self::Denied { .. } => RegistryClass::Denied,
            Self::Deadline { .. }
            | Self::Fetcher { .. }
            | Self::Space { .. }
            | Self::Store { .. }
            | Self::Stored { .. } => RegistryClass::Local,
            Self::Connect { .. } | Self::Http { .. } | Self::Stalled { .. } | Self::Unavailable { .. } => {
                RegistryClass::Transient
            }
            Self::NoSource { tried, .. } => {
                tried.last().map_or(RegistryClass::Fault, |(_, error)| error.class())
            }
            _ => RegistryClass::Fault,
        }
    }

    /// A failed step with a file of the store.
    pub(super) fn store(purpose: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Store { purpose, path, source }
    }

    /// A connection that broke.
    pub(super) fn broken(to: &str, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Http { to: to.to_owned(), source: error.into() }
    }
}

fn listed(tried: &[(String, RegistryError)]) -> String {
    let mut text = String::new();
    for (source, error) in tried {
        if !text.is_empty() {
            text.push_str("; ");
        }
        // A string cannot refuse text.
        let _ = write!(text, "{source}: {error} [{}]", error.code());
    }
    text
}

/// Somebody else's text for an error: quoted, without control characters, cut.
pub(super) fn shown(text: &str) -> String {
    let mut cut = text.len().min(SHOWN_MAX);
    while !text.is_char_boundary(cut) {
        cut -= 1;
    }
    let more = if cut < text.len() { "…" } else { "" };
    format!("{:?}{more}", text.get(..cut).unwrap_or_default())
}
