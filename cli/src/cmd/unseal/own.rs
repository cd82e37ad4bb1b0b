//! Content keys without a chip: released by a key broker, derived by the SEV-SNP processor, unsealed by a TPM.
//!
//! This guest computes by itself what it asks for (the path of the core and of the policy in the grant, the selection, the registers) and who it is;
//! of a grant nothing is believed but that it opens. The policy's static members are judged here, at link mode `key-release`; there is no
//! recipient with a tier of its own, so the tier is the core's environment. Rules about evidence are the broker's to enforce; for keys of the
//! guest itself nobody is asked (specification, sealed artifact §9).

use std::collections::BTreeMap;

use sealed_artifact::grant::{Grant, GrantKind};
use sealed_artifact::kbs::{KbsKek, KbsRecipient, ResourcePath};
use sealed_artifact::keys::ContentKey;
use sealed_artifact::policy::{LinkMode, PolicyDocument, StaticFacts};

use super::Prepared;
use super::guest::Guest;
use super::source::Source;
use crate::args::UnsealArgs;
use crate::broker::Broker;
use crate::error::Failure;
use crate::own_keys::{SnpKeys, TpmKeys};
use crate::platform;

/// Most grants that are tried: each one may be a question to a broker, and anybody can put grants beside an artifact.
const MOST_TRIED: usize = 16;

/// The content key, from wherever it is that is no chip.
pub(super) fn content_key(
    arguments: &UnsealArgs,
    prepared: &Prepared,
    guest: Guest,
) -> Result<ContentKey, Failure> {
    match &prepared.source {
        Source::Broker(recipient) => from_broker(arguments, prepared, guest, recipient),
        Source::Snp => from_processor(arguments, prepared, guest),
        Source::Tpm => from_tpm(arguments, prepared),
        Source::Chip { .. } => Err(Failure::Usage {
            argument: "--chip",
            expected: "a session with it",
            found: "none".to_owned(),
        }),
    }
}

fn from_broker(
    arguments: &UnsealArgs,
    prepared: &Prepared,
    guest: Guest,
    recipient: &KbsRecipient,
) -> Result<ContentKey, Failure> {
    let core = &prepared.store.core;
    let mine = |grant: &Grant| {
        grant.recipient() == recipient.name.recipient_id() && grant.recipient_key() == recipient.key
    };
    let who = || format!("broker {} with key {}", recipient.name, recipient.key);
    let candidates = candidates(prepared, GrantKind::Kbs, mine, who)?;
    let broker = Broker::new(&arguments.broker, guest.into_attester()?)?;
    first_that_opens(&candidates, |grant, policy| {
        let path = ResourcePath::new(core.digest(), policy.digest());
        let kek = KbsKek::from_bytes(broker.get(&format!("kbs:///{path}"))?.expose())?;
        Ok(grant.open_kbs(recipient, &kek, core, policy)?)
    })
}

fn from_processor(arguments: &UnsealArgs, prepared: &Prepared, guest: Guest) -> Result<ContentKey, Failure> {
    let core = &prepared.store.core;
    let keys = SnpKeys::of_guest(&guest.into_attester()?, platform::root(&arguments.platform))?;
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

fn from_tpm(arguments: &UnsealArgs, prepared: &Prepared) -> Result<ContentKey, Failure> {
    let core = &prepared.store.core;
    let keys = TpmKeys::found(&arguments.platform)?;
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
) -> Result<Candidates<'a>, Failure> {
    let core = &prepared.store.core;
    let fitting = prepared
        .store
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
fn policy_of(prepared: &Prepared, grant: &Grant) -> Result<PolicyDocument, Failure> {
    let core = &prepared.store.core;
    let policy = PolicyDocument::parse(grant.preimage())?;
    let tier = core.parameters().environment().clone();
    // GUARD: unseal-static-policy -> evil_policy_against_this_core_is_refused_before_anybody_is_asked
    policy.evaluate_static(&StaticFacts::of(core, tier, LinkMode::KeyRelease))?;
    Ok(policy)
}

fn none_of(prepared: &Prepared, kind: GrantKind, recipient: String) -> Failure {
    let mut kinds = BTreeMap::new();
    for stored in &prepared.store.grants {
        *kinds.entry(stored.grant.kind().as_str()).or_insert(0_usize) += 1;
    }
    let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count} of kind {kind}")).collect();
    let found = if kinds.is_empty() { "none".to_owned() } else { kinds.join(", ") };
    Failure::NoGrantForKey { kind, recipient, found }
}

/// Opens the first grant that opens. Where none does, the first one's failure says why; one that is about no grant ends the search.
fn first_that_opens(
    candidates: &Candidates<'_>,
    open: impl Fn(&Grant, &PolicyDocument) -> Result<ContentKey, Failure>,
) -> Result<ContentKey, Failure> {
    let (grant, policy) = &candidates.first;
    let first = match open(grant, policy) {
        Err(failure) if failure.is_about_one_grant() => failure,
        done => return done,
    };
    for (grant, policy) in &candidates.others {
        match open(grant, policy) {
            Err(failure) if failure.is_about_one_grant() => {}
            done => return done,
        }
    }
    Err(first)
}
