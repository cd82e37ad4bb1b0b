//! The broker: everything that requests act on.

use std::sync::{Mutex, PoisonError};

use crate::admin::Admin;
use crate::appraisal::{self, Appraiser};
use crate::error::{Refusal, Variant};
use crate::faults::Faults;
use crate::handshake::Handshake;
use crate::policy::{self, ResourcePolicy};
use crate::reference::ReferenceValues;
use crate::store::{Store, StoreError};

pub(crate) const RESOURCE_POLICY_FILE: &str = "resource-policy.rego";
pub(crate) const ATTESTATION_POLICY_FILE: &str = "attestation-policy.rego";
pub(crate) const REFERENCE_FILE: &str = "reference-values.json";

/// Everything that requests act on.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) handshake: Handshake,
    pub(crate) policy: ResourcePolicy,
    pub(crate) store: Store,
    pub(crate) admin: Admin,
    pub(crate) faults: Faults,
    /// Whether connections are TLS: then the cookie says so.
    pub(crate) tls: bool,
    /// Held while an administrator changes policies or reference values, so that file and memory agree.
    pub(crate) changes: Mutex<()>,
}

/// The resource policy of the state directory, else the default.
pub(crate) fn stored_policy(store: &Store) -> anyhow::Result<ResourcePolicy> {
    let text = text(store, RESOURCE_POLICY_FILE)?;
    Ok(ResourcePolicy::new(text.as_deref().unwrap_or(policy::DEFAULT))?)
}

/// The attestation policy and reference values of the state directory, else the defaults.
pub(crate) fn stored_appraiser(store: &Store) -> anyhow::Result<Appraiser> {
    let references = store.read(REFERENCE_FILE)?.map(|json| ReferenceValues::parse(&json)).transpose()?;
    let text = text(store, ATTESTATION_POLICY_FILE)?;
    let text = text.unwrap_or_else(|| appraisal::DEFAULT.to_owned());
    Ok(Appraiser::new(text, references.unwrap_or_default())?)
}

fn text(store: &Store, name: &str) -> anyhow::Result<Option<String>> {
    Ok(store.read(name)?.map(|bytes| String::from_utf8(bytes.to_vec())).transpose()?)
}

impl Broker {
    /// Runs a change of policies or values alone.
    pub(crate) fn change<T>(&self, change: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Refusal> {
        let _alone = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        change()
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::new(Variant::PluginInternalError, error)
    }
}
