//! Keyrings: transferable public keys (RFC 4880, 11.1), and which of their keys may sign.

use super::armor;
use super::error::OpenPgpFault;
use super::key::PublicKey;
use super::packet::{
    PUBLIC_KEY, PUBLIC_SUBKEY, SECRET_KEY, SECRET_SUBKEY, SIGNATURE, USER_ATTRIBUTE, USER_ID, packets,
};
use super::signature::{
    CERTIFICATIONS, DIRECT_KEY, KEY_REVOCATION, NAME_REVOCATION, PRIMARY_BINDING, SUBKEY_BINDING,
    SUBKEY_REVOCATION, Signature,
};

/// Longest keyring, in bytes, with or without armor.
pub const KEYRING_MAX: usize = 256 << 10;
/// Most packets of a keyring.
const PACKETS_MAX: usize = 2048;

/// Public keys, each with what it may do. At least one may sign.
#[derive(Debug)]
pub struct Keyring {
    signers: Vec<Signer>,
}

/// A primary key or subkey.
#[derive(Debug)]
pub(super) struct Signer {
    pub(super) key: PublicKey,
    /// Fingerprint of the primary key, in upper-case hex.
    pub(super) primary: String,
    /// From when until before when it may sign, in seconds since 1970; or why never.
    valid: Result<(u64, u64), OpenPgpFault>,
}

impl Signer {
    /// Whether it may have signed at that date.
    pub(super) fn may_sign(&self, date: u32) -> Result<(), OpenPgpFault> {
        let (from, until) = self.valid.clone()?;
        let date = u64::from(date);
        // GUARD: pgp-key-expiry -> evil_signature_by_an_expired_key
        if date < from || date >= until {
            return Err(OpenPgpFault::KeyExpired { key: self.key.name() });
        }
        Ok(())
    }
}

impl Keyring {
    /// Reads a keyring, armored or not.
    ///
    /// # Errors
    ///
    /// [`OpenPgpFault`]: bytes that are not of the form, a secret key, or no key that may sign.
    pub fn parse(bytes: &[u8]) -> Result<Self, OpenPgpFault> {
        // GUARD: pgp-keyring-size -> evil_huge_keyring
        if bytes.len() > KEYRING_MAX {
            return Err(OpenPgpFault::TooLarge { most: KEYRING_MAX, unit: "bytes of a keyring" });
        }
        let bytes = armor::keyring(bytes)?;
        let mut keys: Vec<Vec<Component>> = Vec::new();
        for packet in packets(&bytes, PACKETS_MAX)? {
            let body = packet.body.as_ref();
            let what = match packet.tag {
                PUBLIC_KEY => {
                    keys.push(Vec::new());
                    What::Primary(PublicKey::parse(body)?)
                }
                PUBLIC_SUBKEY => What::Subkey(PublicKey::parse(body)?),
                SECRET_KEY | SECRET_SUBKEY => return Err(OpenPgpFault::SecretKey),
                USER_ID => What::Name(body.to_vec()),
                USER_ATTRIBUTE => What::Attribute,
                SIGNATURE => {
                    let component = keys.last_mut().and_then(|key| key.last_mut());
                    let component =
                        component.ok_or(OpenPgpFault::malformed("a key in front of signatures"))?;
                    component.signatures.push(Signature::parse(body)?);
                    continue;
                }
                found => return Err(OpenPgpFault::Unsupported { what: "packet in a keyring", found }),
            };
            let key =
                keys.last_mut().ok_or(OpenPgpFault::malformed("a key in front of what belongs to it"))?;
            key.push(Component { what, signatures: Vec::new() });
        }
        let signers: Vec<_> = keys.iter().flat_map(|key| signers(key)).collect();
        let mut faults = signers.iter().map(|signer| signer.valid.as_ref().err());
        if signers.iter().all(|signer| signer.valid.is_err()) {
            let empty = OpenPgpFault::malformed("a keyring");
            let first = faults.next().flatten().cloned().unwrap_or(empty);
            return Err(OpenPgpFault::NoKey { first: Box::new(first) });
        }
        Ok(Self { signers })
    }

    /// Keys that say to have this id. Ids are short: there may be several.
    pub(super) fn by_id(&self, id: [u8; 8]) -> impl Iterator<Item = &Signer> {
        self.signers.iter().filter(move |signer| signer.key.id() == id)
    }

    /// Fingerprints of the keys that may sign, in upper-case hex.
    pub fn fingerprints(&self) -> impl Iterator<Item = String> + '_ {
        self.signers.iter().filter(|signer| signer.valid.is_ok()).map(|signer| signer.key.name())
    }
}

/// A part of a key, with the signatures behind it.
#[derive(Debug)]
struct Component {
    what: What,
    signatures: Vec<Signature>,
}

#[derive(Debug)]
enum What {
    Attribute,
    Name(Vec<u8>),
    Primary(PublicKey),
    Subkey(PublicKey),
}

/// What the self-signatures of a key say together.
#[derive(Clone, Copy, Debug)]
struct Period {
    until: u64,
    for_signing: bool,
}

fn signers(components: &[Component]) -> Vec<Signer> {
    let Some(Component { what: What::Primary(primary), .. }) = components.first() else { return Vec::new() };
    let bound = bound(primary, components);
    let valid = bound.clone().and_then(|period| {
        // GUARD: pgp-primary-flags -> evil_key_that_is_not_for_signing
        if !period.for_signing {
            return Err(OpenPgpFault::KeyNotForSigning { key: primary.name() });
        }
        Ok((u64::from(primary.created), period.until))
    });
    let mut signers = vec![Signer { key: primary.clone(), primary: primary.name(), valid }];
    for component in components {
        let What::Subkey(key) = &component.what else { continue };
        let valid = bound.clone().and_then(|period| subkey(primary, period, key, &component.signatures));
        signers.push(Signer { key: key.clone(), primary: primary.name(), valid });
    }
    signers
}

/// Until when the primary key is valid, and whether it is for signing.
fn bound(primary: &PublicKey, components: &[Component]) -> Result<Period, OpenPgpFault> {
    // GUARD: pgp-key-revoked -> evil_signature_by_a_revoked_key
    if components.iter().flat_map(|component| &component.signatures).any(|made| made.kind == KEY_REVOCATION) {
        return Err(OpenPgpFault::KeyRevoked { key: primary.name() });
    }
    primary.usable()?;
    let mut period: Option<Period> = None;
    for component in components {
        let (name, kinds) = match &component.what {
            What::Primary(_) => (None, DIRECT_KEY..=DIRECT_KEY),
            What::Name(name) => (Some(name), CERTIFICATIONS),
            What::Attribute | What::Subkey(_) => continue,
        };
        let revokes = |made: &Signature| made.kind == NAME_REVOCATION && made.is_of(primary);
        // GUARD: pgp-name-revoked -> a_revoked_name_vouches_for_nothing
        if component.signatures.iter().any(revokes) {
            continue;
        }
        let own =
            component.signatures.iter().filter(|made| kinds.contains(&made.kind) && made.is_of(primary));
        let Some(newest) = own.max_by_key(|made| made.created) else { continue };
        let framed = name.map(|name| {
            let length = u32::try_from(name.len()).unwrap_or(u32::MAX);
            [&[0xb4], length.to_be_bytes().as_slice(), name].concat()
        });
        let verified = newest.verify(primary, &[primary.framed(), framed.as_deref().unwrap_or_default()]);
        // GUARD: pgp-self-signature -> evil_key_with_a_forged_self_signature
        unbound(primary, verified)?;
        let this = said(primary, newest, newest.for_signing.unwrap_or(true));
        period = Some(period.map_or(this, |other| Period {
            until: other.until.min(this.until),
            for_signing: other.for_signing && this.for_signing,
        }));
    }
    period.ok_or_else(|| OpenPgpFault::KeyUnbound { key: primary.name() })
}

/// From when until when a subkey may sign.
fn subkey(
    primary: &PublicKey,
    period: Period,
    key: &PublicKey,
    signatures: &[Signature],
) -> Result<(u64, u64), OpenPgpFault> {
    // GUARD: pgp-subkey-revoked -> evil_signature_by_a_revoked_subkey
    if signatures.iter().any(|signature| signature.kind == SUBKEY_REVOCATION) {
        return Err(OpenPgpFault::KeyRevoked { key: key.name() });
    }
    let own = signatures.iter().filter(|made| made.kind == SUBKEY_BINDING && made.is_of(primary));
    let newest = own.max_by_key(|made| made.created);
    let newest = newest.ok_or_else(|| OpenPgpFault::KeyUnbound { key: key.name() })?;
    let data = [primary.framed(), key.framed()];
    let verified = newest.verify(primary, &data);
    // GUARD: pgp-subkey-binding -> evil_subkey_that_is_not_bound
    unbound(key, verified)?;
    let period_of_key = said(key, newest, newest.for_signing.unwrap_or(false));
    // GUARD: pgp-subkey-flags -> evil_subkey_that_is_not_for_signing
    if !period_of_key.for_signing {
        return Err(OpenPgpFault::KeyNotForSigning { key: key.name() });
    }
    key.usable()?;
    let back = newest.embedded.as_deref().and_then(|body| Signature::parse(body).ok());
    let back = back.filter(|back| back.kind == PRIMARY_BINDING);
    let verified = back.map_or(Err(OpenPgpFault::BadSignature), |back| back.verify(key, &data));
    // GUARD: pgp-subkey-back -> evil_subkey_of_somebody_else
    unbound(key, verified)?;
    Ok((u64::from(primary.created.max(key.created)), period.until.min(period_of_key.until)))
}

fn said(key: &PublicKey, signature: &Signature, for_signing: bool) -> Period {
    let seconds = signature.key_expires.filter(|seconds| *seconds != 0);
    let until = seconds.map_or(u64::MAX, |seconds| u64::from(key.created) + u64::from(seconds));
    Period { until, for_signing }
}

/// A weak hash keeps its name, everything else is the one thing: the key is not bound.
fn unbound(key: &PublicKey, verified: Result<(), OpenPgpFault>) -> Result<(), OpenPgpFault> {
    verified.map_err(|fault| match fault {
        OpenPgpFault::WeakHash { .. } => fault,
        _ => OpenPgpFault::KeyUnbound { key: key.name() },
    })
}
