//! Public keys (RFC 4880, 5.5; RFC 6637, 9) and what they verify.

use aws_lc_rs::digest::{self, SHA1_FOR_LEGACY_USE_ONLY};
use aws_lc_rs::signature::{
    self as algorithms, EcdsaVerificationAlgorithm, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
};

use super::error::OpenPgpFault;
use super::packet::{Reader, bit_length};

const RSA: u8 = 1;
const RSA_SIGN: u8 = 3;
const ECDSA: u8 = 19;
const EDDSA: u8 = 22;

const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const ED25519: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01];

/// The hash functions that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    pub(super) const fn of(id: u8) -> Result<Self, OpenPgpFault> {
        match id {
            8 => Ok(Self::Sha256),
            9 => Ok(Self::Sha384),
            10 => Ok(Self::Sha512),
            found => Err(OpenPgpFault::WeakHash { found }),
        }
    }

    pub(super) fn digest(self, bytes: &[u8]) -> digest::Digest {
        digest::digest(
            match self {
                Self::Sha256 => &digest::SHA256,
                Self::Sha384 => &digest::SHA384,
                Self::Sha512 => &digest::SHA512,
            },
            bytes,
        )
    }
}

/// A public key, whether it can verify or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PublicKey {
    /// The body of its packet, which signatures about the key are made over.
    body: Vec<u8>,
    pub(super) created: u32,
    pub(super) algorithm: u8,
    pub(super) fingerprint: [u8; 20],
    material: Result<Material, OpenPgpFault>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Material {
    Ed25519([u8; 32]),
    P256(Vec<u8>),
    P384(Vec<u8>),
    Rsa { n: Vec<u8>, e: Vec<u8> },
}

impl PublicKey {
    /// Reads the body of a key's packet. A key of an algorithm that cannot verify here is kept, because others may stand beside it.
    pub(super) fn parse(body: &[u8]) -> Result<Self, OpenPgpFault> {
        let length =
            u16::try_from(body.len()).map_err(|_| OpenPgpFault::malformed("a key of 65535 bytes"))?;
        let mut reader = Reader::new(body);
        let version = reader.byte()?;
        if version != 4 {
            return Err(OpenPgpFault::Unsupported { what: "version of a key", found: version });
        }
        let created = reader.u32()?;
        let algorithm = reader.byte()?;
        let material = material(algorithm, reader);
        if let Err(fault @ OpenPgpFault::Malformed { .. }) = material {
            return Err(fault);
        }
        let framed = [&[0x99], length.to_be_bytes().as_slice(), body].concat();
        let mut fingerprint = [0; 20];
        let digest = digest::digest(&SHA1_FOR_LEGACY_USE_ONLY, &framed);
        for (to, from) in fingerprint.iter_mut().zip(digest.as_ref()) {
            *to = *from;
        }
        Ok(Self { body: framed, created, algorithm, fingerprint, material })
    }

    /// Whether it is of a kind that can verify.
    pub(super) fn usable(&self) -> Result<(), OpenPgpFault> {
        self.material.as_ref().map(|_| ()).map_err(Clone::clone)
    }

    /// The last eight bytes of the fingerprint.
    pub(super) fn id(&self) -> [u8; 8] {
        self.fingerprint.last_chunk().copied().unwrap_or_default()
    }

    /// The fingerprint in upper-case hex, as tools show it.
    pub(super) fn name(&self) -> String {
        hex::encode_upper(self.fingerprint)
    }

    /// What signatures about this key are made over (RFC 4880, 5.2.4).
    pub(super) fn framed(&self) -> &[u8] {
        &self.body
    }

    /// Whether `numbers`, the end of a signature's packet, are a signature of this key over `message`.
    pub(super) fn verify(&self, hash: Hash, message: &[u8], numbers: &[u8]) -> Result<(), OpenPgpFault> {
        let mut reader = Reader::new(numbers);
        let bad = |_| OpenPgpFault::BadSignature;
        match self.material.as_ref().map_err(Clone::clone)? {
            Material::Rsa { n, e } => {
                let s = padded(reader.mpi()?, n.len())?;
                reader.finish()?;
                let parameters: &RsaParameters = match hash {
                    Hash::Sha256 => &algorithms::RSA_PKCS1_2048_8192_SHA256,
                    Hash::Sha384 => &algorithms::RSA_PKCS1_2048_8192_SHA384,
                    Hash::Sha512 => &algorithms::RSA_PKCS1_2048_8192_SHA512,
                };
                RsaPublicKeyComponents { n, e }.verify(parameters, message, &s).map_err(bad)
            }
            Material::P256(point) => {
                let algorithm = match hash {
                    Hash::Sha256 => &algorithms::ECDSA_P256_SHA256_ASN1,
                    Hash::Sha384 => &algorithms::ECDSA_P256_SHA384_ASN1,
                    Hash::Sha512 => &algorithms::ECDSA_P256_SHA512_ASN1,
                };
                ecdsa(algorithm, point, message, reader)
            }
            Material::P384(point) => {
                let algorithm = match hash {
                    Hash::Sha256 => &algorithms::ECDSA_P384_SHA256_ASN1,
                    Hash::Sha384 => &algorithms::ECDSA_P384_SHA384_ASN1,
                    Hash::Sha512 => &algorithms::ECDSA_P384_SHA512_ASN1,
                };
                ecdsa(algorithm, point, message, reader)
            }
            Material::Ed25519(point) => {
                let (r, s) = (padded(reader.mpi()?, 32)?, padded(reader.mpi()?, 32)?);
                reader.finish()?;
                // OpenPGP signs the hash of the message, not the message.
                let digest = hash.digest(message);
                let key = UnparsedPublicKey::new(&algorithms::ED25519, point);
                key.verify(digest.as_ref(), &[r, s].concat()).map_err(bad)
            }
        }
    }
}

fn material(algorithm: u8, mut reader: Reader<'_>) -> Result<Material, OpenPgpFault> {
    let material = match algorithm {
        RSA | RSA_SIGN => {
            let (n, e) = (reader.mpi()?, reader.mpi()?);
            let bits = bit_length(n);
            // GUARD: pgp-rsa-size -> evil_weak_gpg_key
            if !(2048..=8192).contains(&bits) {
                return Err(OpenPgpFault::WeakKey { bits });
            }
            Material::Rsa { n: n.to_vec(), e: e.to_vec() }
        }
        ECDSA | EDDSA => {
            let length = usize::from(reader.byte()?);
            let curve = reader.take(length)?;
            let point = reader.mpi()?;
            match (algorithm, curve, point) {
                (ECDSA, P256, [0x04, rest @ ..]) if rest.len() == 64 => Material::P256(point.to_vec()),
                (ECDSA, P384, [0x04, rest @ ..]) if rest.len() == 96 => Material::P384(point.to_vec()),
                (EDDSA, ED25519, [0x40, rest @ ..]) => Material::Ed25519(
                    rest.try_into().map_err(|_| OpenPgpFault::malformed("a point of 32 bytes"))?,
                ),
                _ => return Err(OpenPgpFault::Unsupported { what: "curve of a key", found: algorithm }),
            }
        }
        found => return Err(OpenPgpFault::Unsupported { what: "algorithm of a key", found }),
    };
    reader.finish()?;
    Ok(material)
}

fn ecdsa(
    algorithm: &'static EcdsaVerificationAlgorithm,
    point: &[u8],
    message: &[u8],
    mut reader: Reader<'_>,
) -> Result<(), OpenPgpFault> {
    let numbers = [integer(reader.mpi()?), integer(reader.mpi()?)].concat();
    reader.finish()?;
    // Two integers of at most 50 bytes each: one byte for the length.
    let length = u8::try_from(numbers.len()).ok().filter(|length| *length < 0x80);
    let length = length.ok_or(OpenPgpFault::BadSignature)?;
    let signature = [&[0x30, length], numbers.as_slice()].concat();
    UnparsedPublicKey::new(algorithm, point)
        .verify(message, &signature)
        .map_err(|_| OpenPgpFault::BadSignature)
}

/// A DER INTEGER of a non-negative number.
fn integer(number: &[u8]) -> Vec<u8> {
    let sign: &[u8] = if number.first().is_none_or(|first| *first >= 0x80) { &[0] } else { &[] };
    let length = u8::try_from(sign.len() + number.len()).unwrap_or(u8::MAX);
    [&[0x02, length], sign, number].concat()
}

/// A number in its full width.
fn padded(number: &[u8], width: usize) -> Result<Vec<u8>, OpenPgpFault> {
    let zeros = width.checked_sub(number.len()).ok_or(OpenPgpFault::BadSignature)?;
    Ok([vec![0; zeros], number.to_vec()].concat())
}
