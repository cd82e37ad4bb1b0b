//! `innerkeep.toml`: what upstream has no file for.
//!
//! ```toml
//! insecure = ["tpm-only"]
//! set_policy = ["sha256:…"]
//!
//! [[rest]]
//! container = { image = "sha256:…", policy_container = 0 }
//! routes = ["cdh-resource"]
//! resources = ["kbs:///default/key/1"]
//! ```

use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;

use super::container_identity::Container;
use super::values::Sha256Digest;

/// Most entries of a list.
const MAXIMUM_ENTRIES: usize = 256;
/// Longest URI of a resource in bytes.
const MAXIMUM_URI_BYTES: usize = 512;

/// Settings of the guest; without the file none of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawSettings")]
pub struct Settings {
    /// Insecure modes that are on. Each is named in every chip transcript and in the audit's genesis.
    pub insecure: BTreeSet<InsecureMode>,
    /// Which containers reach which routes of the REST interface. Without an entry: none.
    pub rest: Vec<RestRule>,
    /// SHA-256 of the policy texts that may replace `policy.rego`.
    pub set_policy: BTreeSet<Sha256Digest>,
}

/// Insecure modes that a document can ask for. Being outside a TEE cannot be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum InsecureMode {
    /// A chip that is an emulation.
    EmulatedChip,
    /// Private DMA is emulated.
    EmulatedDma,
    /// The TEE is an emulation that only verifiers with emulated trust roots believe. The guest cannot tell; it names the mode to them.
    EmulatedTee,
    /// A chip session without evidence.
    NoEvidence,
    /// Secrets from files of the image, which nothing protects.
    OfflineKbc,
    /// Key brokers by http.
    PlainHttp,
    /// Landing memory may be swapped.
    Swap,
    /// A TPM alone releases keys.
    TpmOnly,
    /// Secrets and keys of layers under ciphers that do not authenticate (A256CTR).
    UnauthenticatedSecrets,
    /// Artifacts for containers whose root the host provides.
    UnverifiedRootfs,
    /// Sealed secrets whose signature nobody looks at.
    UnverifiedSecrets,
}

impl InsecureMode {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::EmulatedChip,
        Self::EmulatedDma,
        Self::EmulatedTee,
        Self::NoEvidence,
        Self::OfflineKbc,
        Self::PlainHttp,
        Self::Swap,
        Self::TpmOnly,
        Self::UnauthenticatedSecrets,
        Self::UnverifiedRootfs,
        Self::UnverifiedSecrets,
    ];

    /// Its name, in documents, transcripts and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EmulatedChip => "emulated-chip",
            Self::EmulatedDma => "emulated-dma",
            Self::EmulatedTee => "emulated-tee",
            Self::NoEvidence => "no-evidence",
            Self::OfflineKbc => "offline-kbc",
            Self::PlainHttp => "plain-http",
            Self::Swap => "swap",
            Self::TpmOnly => "tpm-only",
            Self::UnauthenticatedSecrets => "unauthenticated-secrets",
            Self::UnverifiedRootfs => "unverified-rootfs",
            Self::UnverifiedSecrets => "unverified-secrets",
        }
    }
}

impl fmt::Display for InsecureMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What one container may ask the REST interface for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawRest")]
pub struct RestRule {
    /// Which container.
    pub container: Container,
    /// Which routes.
    pub routes: BTreeSet<RestRoute>,
    /// Which resources, `kbs:///repository/type/tag`; some exactly if `cdh-resource` is among the routes.
    pub resources: BTreeSet<String>,
}

/// Routes of the REST interface. `GET /info` is everybody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RestRoute {
    /// `POST /aa/aael`.
    AaAael,
    /// `GET /aa/additional-evidence`.
    AaAdditionalEvidence,
    /// `GET /aa/evidence`.
    AaEvidence,
    /// `GET /aa/token`.
    AaToken,
    /// `GET /cdh/resource/…`.
    CdhResource,
}

impl RestRoute {
    /// Its name in documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AaAael => "aa-aael",
            Self::AaAdditionalEvidence => "aa-additional-evidence",
            Self::AaEvidence => "aa-evidence",
            Self::AaToken => "aa-token",
            Self::CdhResource => "cdh-resource",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSettings {
    #[serde(default)]
    insecure: Vec<InsecureMode>,
    #[serde(default)]
    rest: Vec<RestRule>,
    #[serde(default)]
    set_policy: Vec<Sha256Digest>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRest {
    container: Container,
    routes: Vec<RestRoute>,
    #[serde(default)]
    resources: Vec<String>,
}

impl TryFrom<RawSettings> for Settings {
    type Error = String;

    fn try_from(raw: RawSettings) -> Result<Self, String> {
        if raw.rest.len() > MAXIMUM_ENTRIES {
            return Err(format!(
                "rest: expected at most {MAXIMUM_ENTRIES} entries, found {}",
                raw.rest.len()
            ));
        }
        for (index, rule) in raw.rest.iter().enumerate() {
            if raw.rest.iter().skip(index.saturating_add(1)).any(|other| other.container == rule.container) {
                return Err("rest: expected one entry for a container, found two".to_owned());
            }
        }
        Ok(Self {
            insecure: distinct("insecure", raw.insecure)?,
            rest: raw.rest,
            set_policy: distinct("set_policy", raw.set_policy)?,
        })
    }
}

impl TryFrom<RawRest> for RestRule {
    type Error = String;

    fn try_from(raw: RawRest) -> Result<Self, String> {
        let routes = distinct("routes", raw.routes)?;
        let resources = distinct("resources", raw.resources)?;
        if let Some(other) = resources.iter().find(|uri| !is_resource(uri)) {
            let found = crate::error::shown(other);
            return Err(format!("resources: expected kbs:///repository/type/tag, found {found:?}"));
        }
        // GUARD: initdata-resources-named -> a_container_that_may_read_resources_has_them_named
        if routes.is_empty() || routes.contains(&RestRoute::CdhResource) == resources.is_empty() {
            return Err("rest: expected routes, and resources exactly with cdh-resource".to_owned());
        }
        Ok(Self { container: raw.container, routes, resources })
    }
}

/// `kbs:///` and three segments of letters, digits, `.`, `_`, `-`.
fn is_resource(uri: &str) -> bool {
    let segment = |part: &str| {
        !matches!(part, "" | "." | "..")
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    uri.len() <= MAXIMUM_URI_BYTES
        && uri
            .strip_prefix("kbs:///")
            .is_some_and(|path| path.split('/').count() == 3 && path.split('/').all(segment))
}

/// A list as a set: no entry twice, and not too many.
fn distinct<T: Ord>(name: &str, list: Vec<T>) -> Result<BTreeSet<T>, String> {
    let count = list.len();
    let set: BTreeSet<T> = list.into_iter().collect();
    if set.len() != count || count > MAXIMUM_ENTRIES {
        return Err(format!("{name}: expected at most {MAXIMUM_ENTRIES} different entries, found {count}"));
    }
    Ok(set)
}
