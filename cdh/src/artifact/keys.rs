//! Content keys without a chip: released by a key broker, derived by the SEV-SNP processor, unsealed by a TPM.
//!
//! This guest computes by itself what it asks for (the path of the core and of the policy in the grant, the selection, the registers) and who it is;
//! of a grant nothing is believed but that it opens. The policy's static members are judged here, at link mode `key-release`; there is no
//! recipient with a tier of its own, so the tier is the core's environment. Rules about evidence are the broker's to enforce; for keys of the
//! guest itself nobody is asked (specification, sealed artifact §9).

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use attestation_agent::Attester;
use attestation_agent::kbs::{Hop, KbsClient, KbsError, ResourceUri, Secret};
use chip_client::address::DeviceAddress;
use chip_client::chain::TrustRoot;
use sealed_artifact::grant::{Grant, GrantKind};
use sealed_artifact::kbs::{KbsKek, KbsRecipient, ResourcePath};
use sealed_artifact::keys::ContentKey;
use sealed_artifact::policy::{LinkMode, PolicyDocument, StaticFacts};
use tokio::time::Instant;

use super::guest::Guest;
use super::prepared::Prepared;
use crate::Error;
use crate::own_keys::{SnpKeys, TpmKeys};

/// Most grants that are tried: each one may be a question to a broker, and anybody can put grants beside an artifact.
const MOST_TRIED: usize = 16;

/// Where the content key comes from: exactly one place, named by the caller.
pub enum KeySource {
    /// A chip, whose certificates end at this root.
    Chip {
        /// The way to it.
        address: DeviceAddress,
        /// The pinned root.
        root: TrustRoot,
    },
    /// A key broker, by the name and TLS key that this guest was configured with.
    Broker {
        /// Whom grants have to name.
        recipient: KbsRecipient,
        /// The way to it.
        access: Box<dyn BrokerAccess>,
    },
    /// A key that the SEV-SNP processor derives for this guest.
    Snp,
    /// A secret that the TPM unseals.
    Tpm {
        /// The directory of an emulated platform, if there is one.
        insecure_below: Option<PathBuf>,
    },
}

impl KeySource {
    /// The kind of grant that it opens.
    #[must_use]
    pub const fn kind(&self) -> GrantKind {
        match self {
            Self::Chip { .. } => GrantKind::Chip,
            Self::Broker { .. } => GrantKind::Kbs,
            Self::Snp => GrantKind::Snp,
            Self::Tpm { .. } => GrantKind::Tpm,
        }
    }
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeySource").field(&self.kind()).finish()
    }
}

/// The way to a key broker, taken when there is a grant for it.
pub trait BrokerAccess: Send + Sync {
    /// The broker. Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// The configuration of the client.
    fn connect(&self, attester: Arc<Attester>) -> Result<Broker, Error>;
}

impl<T: BrokerAccess + ?Sized> BrokerAccess for Arc<T> {
    fn connect(&self, attester: Arc<Attester>) -> Result<Broker, Error> {
        (**self).connect(attester)
    }
}

/// A broker and the guest that asks it.
pub struct Broker {
    client: KbsClient,
    runtime: tokio::runtime::Runtime,
    timeout: Duration,
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Broker {
    /// A broker; each resource has to come within `timeout`.
    ///
    /// # Errors
    ///
    /// No thread for the network.
    pub fn new(client: KbsClient, timeout: Duration) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(Error::file("start", "the network runtime"))?;
        Ok(Self { client, runtime, timeout })
    }

    /// A resource. The first one attests. Not for threads of an async runtime.
    ///
    /// # Errors
    ///
    /// A URI that is none; whatever the broker, or the way to it, refuses.
    pub fn get(&self, uri: &str) -> Result<Secret, Error> {
        let uri = ResourceUri::parse(uri).map_err(|fault| KbsError::new(Hop::Setup, fault))?;
        let deadline = Instant::now() + self.timeout;
        Ok(self.runtime.block_on(self.client.get(&uri, deadline))?)
    }
}

/// The content key, from wherever it is that is no chip, and the policy that it was granted under.
pub(super) fn content_key(
    prepared: &Prepared,
    source: &KeySource,
    guest: &Guest,
) -> Result<(ContentKey, PolicyDocument), Error> {
    match source {
        KeySource::Broker { recipient, access } => from_broker(prepared, guest, recipient, &**access),
        KeySource::Snp => from_processor(prepared, guest),
        KeySource::Tpm { insecure_below } => from_tpm(prepared, insecure_below.as_deref()),
        KeySource::Chip { .. } => {
            Err(Error::Usage { argument: "--chip", expected: "a session with it", found: "none".to_owned() })
        }
    }
}

fn from_broker(
    prepared: &Prepared,
    guest: &Guest,
    recipient: &KbsRecipient,
    access: &dyn BrokerAccess,
) -> Result<(ContentKey, PolicyDocument), Error> {
    let core = &prepared.store().core;
    let mine = |grant: &Grant| {
        grant.recipient() == recipient.name.recipient_id() && grant.recipient_key() == recipient.key
    };
    let who = || format!("broker {} with key {}", recipient.name, recipient.key);
    let candidates = candidates(prepared, GrantKind::Kbs, mine, who)?;
    let broker = access.connect(Arc::clone(guest.attester()?))?;
    first_that_opens(&candidates, |grant, policy| {
        let path = ResourcePath::new(core.digest(), policy.digest());
        let kek = KbsKek::from_bytes(broker.get(&format!("kbs:///{path}"))?.expose())?;
        Ok(grant.open_kbs(recipient, &kek, core, policy)?)
    })
}

fn from_processor(prepared: &Prepared, guest: &Guest) -> Result<(ContentKey, PolicyDocument), Error> {
    let core = &prepared.store().core;
    let keys = SnpKeys::of_guest(guest.attester()?, guest.root.clone())?;
    let mine = |grant: &Grant| {
        let root = grant.snp_selection().map(|selection| selection.root());
        root.is_some_and(|root| grant.recipient() == keys.guest.recipient_id(root))
    };
    let who = || {
        format!(
            "a guest of measurement {} and guest policy {:#x} on chip {}",
            hex::encode(keys.guest.measurement),
            keys.guest.guest_policy,
            hex::encode(keys.guest.chip_id)
        )
    };
    let candidates = candidates(prepared, GrantKind::Snp, mine, who)?;
    first_that_opens(&candidates, |grant, policy| {
        let selection = grant.snp_selection().ok_or_else(|| none_of(prepared, GrantKind::Snp, who()))?;
        let derived = keys.derive(&selection)?;
        Ok(grant.open_snp(&keys.guest, &derived, core, policy)?)
    })
}

fn from_tpm(
    prepared: &Prepared,
    insecure_below: Option<&std::path::Path>,
) -> Result<(ContentKey, PolicyDocument), Error> {
    let core = &prepared.store().core;
    let keys = TpmKeys::found(insecure_below)?;
    let mine = |grant: &Grant| {
        grant.recipient() == keys.recipient.recipient_id()
            && grant.recipient_key() == keys.recipient.storage_key
    };
    let who = || format!("the TPM with storage key {}", keys.recipient.storage_key);
    let candidates = candidates(prepared, GrantKind::Tpm, mine, who)?;
    first_that_opens(&candidates, |grant, policy| {
        let object = grant.tpm_object().ok_or_else(|| none_of(prepared, GrantKind::Tpm, who()))?;
        let secret = keys.unseal(object)?;
        Ok(grant.open_tpm(&keys.recipient, &secret, core, policy)?)
    })
}

/// Grants that may open, at least one.
struct Candidates<'a> {
    first: (&'a Grant, PolicyDocument),
    others: Vec<(&'a Grant, PolicyDocument)>,
}

/// The grants that name this recipient and this core, under policies whose static members hold; none is an error.
fn candidates<'a>(
    prepared: &'a Prepared,
    kind: GrantKind,
    mine: impl Fn(&Grant) -> bool,
    who: impl Fn() -> String,
) -> Result<Candidates<'a>, Error> {
    let core = &prepared.store().core;
    let fitting = prepared
        .store()
        .grants
        .iter()
        .map(|stored| &stored.grant)
        .filter(|grant| grant.kind() == kind && grant.require_object(core).is_ok() && mine(grant));
    let (mut permitted, mut denied) = (Vec::new(), None);
    for grant in fitting {
        match policy_of(prepared, grant) {
            Ok(policy) => permitted.push((grant, policy)),
            Err(failure) => denied = denied.or(Some(failure)),
        }
    }
    let mut permitted = permitted.into_iter().take(MOST_TRIED);
    match permitted.next() {
        Some(first) => Ok(Candidates { first, others: permitted.collect() }),
        None => Err(denied.unwrap_or_else(|| none_of(prepared, kind, who()))),
    }
}

/// The policy of a grant, if it permits this core to be opened by this CPU.
fn policy_of(prepared: &Prepared, grant: &Grant) -> Result<PolicyDocument, Error> {
    let core = &prepared.store().core;
    let policy = PolicyDocument::parse(grant.preimage())?;
    let tier = core.parameters().environment().clone();
    // GUARD: unseal-static-policy -> evil_policy_against_this_core_is_refused_before_anybody_is_asked
    policy.evaluate_static(&StaticFacts::of(core, tier, LinkMode::KeyRelease))?;
    Ok(policy)
}

fn none_of(prepared: &Prepared, kind: GrantKind, recipient: String) -> Error {
    let mut kinds = BTreeMap::new();
    for stored in &prepared.store().grants {
        *kinds.entry(stored.grant.kind().as_str()).or_insert(0_usize) += 1;
    }
    let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count} of kind {kind}")).collect();
    let found = if kinds.is_empty() { "none".to_owned() } else { kinds.join(", ") };
    Error::NoGrantForKey { kind, recipient, found }
}

/// Opens the first grant that opens. Where none does, the first one's failure says why; one that is about no grant ends the search.
fn first_that_opens(
    candidates: &Candidates<'_>,
    open: impl Fn(&Grant, &PolicyDocument) -> Result<ContentKey, Error>,
) -> Result<(ContentKey, PolicyDocument), Error> {
    let (grant, policy) = &candidates.first;
    let first = match open(grant, policy) {
        Err(failure) if failure.is_about_one_grant() => failure,
        done => return Ok((done?, policy.clone())),
    };
    for (grant, policy) in &candidates.others {
        match open(grant, policy) {
            Err(failure) if failure.is_about_one_grant() => {}
            done => return Ok((done?, policy.clone())),
        }
    }
    Err(first)
}
