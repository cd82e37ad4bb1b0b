//! TPMT_PUBLIC: the public area of the three kinds of object that this crate meets.

use std::fmt;

use sha2::{Digest, Sha256};

use super::{
    ALG_AES, ALG_CFB, ALG_ECC, ALG_ECDSA, ALG_KEYEDHASH, ALG_NULL, ALG_RSA, ALG_RSASSA, ALG_SHA256,
    CURVE_P256, Reader, WireError, Writer,
};

/// TPMA_OBJECT fixedTPM: never leaves its TPM.
pub(in super::super) const FIXED_TPM: u32 = 1 << 1;
/// TPMA_OBJECT fixedParent.
pub(in super::super) const FIXED_PARENT: u32 = 1 << 4;
/// TPMA_OBJECT sensitiveDataOrigin: the TPM made the key.
pub(in super::super) const TPM_MADE: u32 = 1 << 5;
/// TPMA_OBJECT userWithAuth: a password is enough to use it.
pub(in super::super) const USER_WITH_AUTH: u32 = 1 << 6;
/// TPMA_OBJECT adminWithPolicy: a password is not enough to change it.
pub(in super::super) const ADMIN_WITH_POLICY: u32 = 1 << 7;
/// TPMA_OBJECT noDA: not subject to lockout.
pub(in super::super) const NO_LOCKOUT: u32 = 1 << 10;
/// TPMA_OBJECT restricted: signs and decrypts only what the TPM made.
pub(in super::super) const RESTRICTED: u32 = 1 << 16;
/// TPMA_OBJECT decrypt.
pub(in super::super) const DECRYPT: u32 = 1 << 17;
/// TPMA_OBJECT sign.
pub(in super::super) const SIGN: u32 = 1 << 18;

const POLICY_MAX_BYTES: usize = 64;
const MODULUS_MAX_BYTES: usize = 512;
const COORDINATE_BYTES: usize = 32;
const PUBLIC_MAX_BYTES: usize = 1024;

/// Name of an object: the algorithm's number, then SHA-256 of its public area.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Name(pub [u8; 34]);

impl Name {
    /// A name as a TPM writes it.
    ///
    /// # Errors
    ///
    /// Another length or another algorithm than SHA-256.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new("name", bytes);
        let name = Self(reader.array()?);
        reader.finish()?;
        Reader::new("name", &name.0).expect_u16("algorithm of a name", "SHA-256", ALG_SHA256)?;
        Ok(name)
    }

    /// The name of an object whose public area (TPMT_PUBLIC) has this SHA-256.
    pub fn of_digest(digest: &[u8; 32]) -> Self {
        let mut name = [0; 34];
        name.iter_mut().zip(ALG_SHA256.to_be_bytes().iter().chain(digest)).for_each(|(to, from)| *to = *from);
        Self(name)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A point on P-256, 32 bytes a coordinate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EccPoint {
    /// x; empty in a template.
    pub x: Vec<u8>,
    /// y; empty in a template.
    pub y: Vec<u8>,
}

/// TPMT_SYM_DEF_OBJECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symmetric {
    /// AES-128-CFB, of a storage key.
    Aes128Cfb,
    /// None.
    Null,
}

/// The signing scheme of a key, always with SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// ECDSA.
    Ecdsa,
    /// None.
    Null,
    /// RSASSA (PKCS #1 v1.5).
    RsaSsa,
}

/// What depends on the type of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// Sealed data.
    Data {
        /// Hash that commits to the data; empty in a template.
        unique: Vec<u8>,
    },
    /// Key on P-256.
    Ecc {
        /// Of a storage key.
        symmetric: Symmetric,
        /// Of a signing key.
        scheme: Scheme,
        /// The point.
        point: EccPoint,
    },
    /// RSA key.
    Rsa {
        /// Of a storage key.
        symmetric: Symmetric,
        /// Of a signing key.
        scheme: Scheme,
        /// Length of the modulus in bits.
        bits: u16,
        /// Public exponent; 0 means 65537.
        exponent: u32,
        /// Modulus; empty in a template.
        modulus: Vec<u8>,
    },
}

/// TPMT_PUBLIC with name algorithm SHA-256.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Public {
    /// TPMA_OBJECT.
    pub attributes: u32,
    /// authPolicy.
    pub policy: Vec<u8>,
    /// The rest.
    pub kind: KeyKind,
}

impl Public {
    /// Parses a whole TPMT_PUBLIC.
    ///
    /// # Errors
    ///
    /// Other algorithms than those of this crate, lengths beyond caps, bytes behind the end.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new("public area", bytes);
        let kind = reader.u16()?;
        reader.expect_u16("name algorithm", "SHA-256", ALG_SHA256)?;
        let attributes = reader.u32()?;
        let policy = reader.sized(POLICY_MAX_BYTES)?.to_vec();
        let kind = match kind {
            ALG_ECC => {
                let symmetric = Symmetric::read(&mut reader)?;
                let scheme = Scheme::read(&mut reader)?;
                reader.expect_u16("curve", "NIST P-256", CURVE_P256)?;
                reader.expect_u16("key derivation of a key", "none", ALG_NULL)?;
                let x = reader.sized(COORDINATE_BYTES)?.to_vec();
                let y = reader.sized(COORDINATE_BYTES)?.to_vec();
                KeyKind::Ecc { symmetric, scheme, point: EccPoint { x, y } }
            }
            ALG_KEYEDHASH => {
                reader.expect_u16("scheme of sealed data", "none", ALG_NULL)?;
                KeyKind::Data { unique: reader.sized(POLICY_MAX_BYTES)?.to_vec() }
            }
            ALG_RSA => {
                let symmetric = Symmetric::read(&mut reader)?;
                let scheme = Scheme::read(&mut reader)?;
                let bits = reader.u16()?;
                let exponent = reader.u32()?;
                let modulus = reader.sized(MODULUS_MAX_BYTES)?.to_vec();
                KeyKind::Rsa { symmetric, scheme, bits, exponent, modulus }
            }
            other => return Err(WireError::unexpected("type of an object", "RSA, ECC or KEYEDHASH", other)),
        };
        reader.finish()?;
        Ok(Self { attributes, policy, kind })
    }

    /// The bytes that [`Self::parse`] takes.
    pub fn marshal(&self) -> Vec<u8> {
        let start =
            |kind: u16| Writer::new().u16(kind).u16(ALG_SHA256).u32(self.attributes).sized(&self.policy);
        let writer = match &self.kind {
            KeyKind::Data { unique } => start(ALG_KEYEDHASH).u16(ALG_NULL).sized(unique),
            KeyKind::Ecc { symmetric, scheme, point } => {
                let writer = scheme.write(symmetric.write(start(ALG_ECC)));
                writer.u16(CURVE_P256).u16(ALG_NULL).sized(&point.x).sized(&point.y)
            }
            KeyKind::Rsa { symmetric, scheme, bits, exponent, modulus } => {
                let writer = scheme.write(symmetric.write(start(ALG_RSA)));
                writer.u16(*bits).u32(*exponent).sized(modulus)
            }
        };
        writer.done().to_vec()
    }

    /// The object's name.
    pub fn name(&self) -> Name {
        Name::of_digest(&Sha256::digest(self.marshal()).into())
    }

    /// Whether this is what a TPM makes from `template`: equal but for what makes each object unique.
    pub fn is_made_from(&self, template: &Self) -> bool {
        let mut bare = self.clone();
        match &mut bare.kind {
            KeyKind::Data { unique } => unique.clear(),
            KeyKind::Ecc { point, .. } => {
                point.x.clear();
                point.y.clear();
            }
            KeyKind::Rsa { modulus, .. } => modulus.clear(),
        }
        bare == *template
    }
}

impl Symmetric {
    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        match reader.u16()? {
            ALG_NULL => Ok(Self::Null),
            ALG_AES => {
                reader.expect_u16("key length of a storage key", "128 bits", 128)?;
                reader.expect_u16("mode of a storage key", "CFB", ALG_CFB)?;
                Ok(Self::Aes128Cfb)
            }
            other => Err(WireError::unexpected("symmetric algorithm", "none or AES", other)),
        }
    }

    fn write(self, writer: Writer) -> Writer {
        match self {
            Self::Aes128Cfb => writer.u16(ALG_AES).u16(128).u16(ALG_CFB),
            Self::Null => writer.u16(ALG_NULL),
        }
    }
}

impl Scheme {
    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let scheme = match reader.u16()? {
            ALG_NULL => return Ok(Self::Null),
            ALG_ECDSA => Self::Ecdsa,
            ALG_RSASSA => Self::RsaSsa,
            other => return Err(WireError::unexpected("signing scheme", "RSASSA or ECDSA", other)),
        };
        reader.expect_u16("hash of a signing scheme", "SHA-256", ALG_SHA256)?;
        Ok(scheme)
    }

    fn write(self, writer: Writer) -> Writer {
        match self {
            Self::Ecdsa => writer.u16(ALG_ECDSA).u16(ALG_SHA256),
            Self::Null => writer.u16(ALG_NULL),
            Self::RsaSsa => writer.u16(ALG_RSASSA).u16(ALG_SHA256),
        }
    }
}

/// Reads a TPM2B_PUBLIC.
pub(super) fn sized_public(reader: &mut Reader<'_>) -> Result<Public, WireError> {
    Public::parse(reader.sized(PUBLIC_MAX_BYTES)?)
}
