//! Signature packets of version 4 (RFC 4880, 5.2.3).

use super::error::OpenPgpFault;
use super::key::{Hash, PublicKey};
use super::packet::{Reader, subpacket_length};

pub(super) const BINARY: u8 = 0x00;
pub(super) const CERTIFICATIONS: std::ops::RangeInclusive<u8> = 0x10..=0x13;
pub(super) const SUBKEY_BINDING: u8 = 0x18;
pub(super) const PRIMARY_BINDING: u8 = 0x19;
pub(super) const DIRECT_KEY: u8 = 0x1f;
pub(super) const KEY_REVOCATION: u8 = 0x20;
pub(super) const SUBKEY_REVOCATION: u8 = 0x28;
pub(super) const NAME_REVOCATION: u8 = 0x30;

const CREATED: u8 = 2;
const EXPIRES: u8 = 3;
const KEY_EXPIRES: u8 = 9;
const ISSUER: u8 = 16;
const KEY_FLAGS: u8 = 27;
const EMBEDDED: u8 = 32;
const ISSUER_FINGERPRINT: u8 = 33;
/// What changes nothing here, even when it is marked as critical: exportable, revocable, preferences, features, whose name, why.
const HARMLESS: [u8; 12] = [4, 7, 11, 21, 22, 23, 24, 25, 26, 28, 29, 30];
/// Flag of a key for signing data.
const SIGN: u8 = 0x02;

/// A signature. Nothing in it is believed before it verified, and after that only what it hashed.
#[derive(Clone, Debug)]
pub(super) struct Signature {
    pub(super) kind: u8,
    pub(super) algorithm: u8,
    pub(super) hash: u8,
    /// When it was made, in seconds since 1970.
    pub(super) created: u32,
    /// Seconds after which it expires.
    pub(super) expires: Option<u32>,
    /// Seconds after its making when the key expires.
    pub(super) key_expires: Option<u32>,
    /// Whether the key is for signing, if the signature says what it is for.
    pub(super) for_signing: Option<bool>,
    /// Who says to have made it: a hint.
    pub(super) issuer: Option<[u8; 8]>,
    pub(super) issuer_fingerprint: Option<[u8; 20]>,
    /// The body of a signature inside it.
    pub(super) embedded: Option<Vec<u8>>,
    /// What is hashed behind the data.
    trailer: Vec<u8>,
    left: [u8; 2],
    numbers: Vec<u8>,
}

impl Signature {
    /// Reads the body of a signature's packet.
    pub(super) fn parse(body: &[u8]) -> Result<Self, OpenPgpFault> {
        let mut reader = Reader::new(body);
        let version = reader.byte()?;
        if version != 4 {
            return Err(OpenPgpFault::Unsupported { what: "version of a signature", found: version });
        }
        let (kind, algorithm, hash) = (reader.byte()?, reader.byte()?, reader.byte()?);
        let length = reader.u16()?;
        let hashed = reader.take(usize::from(length))?;
        let unhashed = reader.u16()?;
        let unhashed = reader.take(usize::from(unhashed))?;
        let left = reader.array()?;
        let head = [&[version, kind, algorithm, hash], length.to_be_bytes().as_slice(), hashed].concat();
        let total = u32::try_from(head.len()).map_err(|_| OpenPgpFault::malformed("a signature"))?;
        let trailer = [head.as_slice(), &[4, 0xff], &total.to_be_bytes()].concat();
        let mut signature = Self {
            kind,
            algorithm,
            hash,
            created: 0,
            expires: None,
            key_expires: None,
            for_signing: None,
            issuer: None,
            issuer_fingerprint: None,
            embedded: None,
            trailer,
            left,
            numbers: reader.rest().to_vec(),
        };
        // GUARD: pgp-signature-date -> evil_signature_without_a_date
        if !signature.subpackets(hashed, true)? {
            return Err(OpenPgpFault::malformed("a signature with a date"));
        }
        signature.subpackets(unhashed, false)?;
        Ok(signature)
    }

    /// Reads subpackets; whether there was a date among them. Of those that are not hashed only hints are taken.
    fn subpackets(&mut self, area: &[u8], hashed: bool) -> Result<bool, OpenPgpFault> {
        let mut reader = Reader::new(area);
        let mut seen = [false; 128];
        while !reader.is_empty() {
            let length = subpacket_length(&mut reader)?;
            let mut field = Reader::new(reader.take(length)?);
            let marked = field.byte()?;
            let kind = marked & 0x7f;
            let twice = seen.get_mut(usize::from(kind)).is_some_and(|seen| std::mem::replace(seen, true));
            // GUARD: pgp-subpacket-unique -> evil_signature_with_two_dates
            if hashed && twice && is_read(kind) {
                return Err(OpenPgpFault::malformed("each subpacket once"));
            }
            match kind {
                ISSUER => {
                    let id = field.array()?;
                    self.issuer = self.issuer.or(Some(id));
                }
                ISSUER_FINGERPRINT => {
                    let version = field.byte()?;
                    if version != 4 {
                        return Err(OpenPgpFault::Unsupported { what: "version of a key", found: version });
                    }
                    let fingerprint = field.array()?;
                    self.issuer_fingerprint = self.issuer_fingerprint.or(Some(fingerprint));
                }
                // It verifies by itself, so that it does not matter where it stands.
                EMBEDDED => self.embedded = Some(field.rest().to_vec()),
                _ if !hashed => {
                    field.rest();
                }
                CREATED => self.created = field.u32()?,
                EXPIRES => self.expires = Some(field.u32()?),
                KEY_EXPIRES => self.key_expires = Some(field.u32()?),
                KEY_FLAGS => {
                    let flags = field.rest();
                    self.for_signing = Some(flags.first().is_some_and(|flags| flags & SIGN != 0));
                }
                _ => {
                    // GUARD: pgp-critical -> evil_demand_in_a_signature
                    if marked & 0x80 != 0 && !HARMLESS.contains(&kind) {
                        return Err(OpenPgpFault::Unsupported { what: "demand in a signature", found: kind });
                    }
                    field.rest();
                }
            }
            field.finish()?;
        }
        Ok(seen.get(usize::from(CREATED)).copied().unwrap_or(false))
    }

    /// Whether it says to be of this key, or does not say.
    pub(super) fn is_of(&self, key: &PublicKey) -> bool {
        match (self.issuer_fingerprint, self.issuer) {
            (Some(fingerprint), _) => fingerprint == key.fingerprint,
            (None, Some(id)) => id == key.id(),
            (None, None) => true,
        }
    }

    /// Whether this key made it over `data`.
    pub(super) fn verify(&self, key: &PublicKey, data: &[&[u8]]) -> Result<(), OpenPgpFault> {
        key.usable()?;
        let hash = Hash::of(self.hash)?;
        let message = [data.concat().as_slice(), &self.trailer].concat();
        let digest = hash.digest(&message);
        // The first two bytes of the hash are there to fail early; they prove nothing.
        if self.algorithm != key.algorithm || !digest.as_ref().starts_with(&self.left) {
            return Err(OpenPgpFault::BadSignature);
        }
        key.verify(hash, &message, &self.numbers)
    }
}

const fn is_read(kind: u8) -> bool {
    matches!(kind, CREATED | EXPIRES | KEY_EXPIRES | ISSUER | KEY_FLAGS | EMBEDDED | ISSUER_FINGERPRINT)
}
