//! Identity, chain and provisioning (spec §6.3–§6.5).

use super::codec::{Reader, WireError, put_lp, put_u16, put_u32, put_u64};
use super::identity_const::{
    CHAIN_LEN, CHIP_ID_LEN, MAX_CERTIFICATE, MAX_ENVIRONMENT, MAX_SPKI, NOISE_PUBLIC_LEN, P384_PUBLIC_LEN,
    X_WING_PUBLIC_LEN,
};

/// Flags of the identity record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdentityFlags(pub u16);

impl IdentityFlags {
    /// The chip has its certificates.
    pub const PROVISIONED: u16 = 1 << 0;
    /// The chip is an emulation.
    pub const EMULATED: u16 = 1 << 1;
    /// The chip was started so that it does not demand evidence (insecure).
    pub const NO_EVIDENCE: u16 = 1 << 2;
    /// The chip was started so that it allows emulated private DMA (insecure).
    pub const EMULATED_DMA: u16 = 1 << 3;
    /// The chip was started so that it believes emulated TEE roots (insecure).
    pub const EMULATED_TEE: u16 = 1 << 4;
    /// All known flags.
    pub const ALL: u16 = 0x1F;

    /// Whether all bits of `mask` are set.
    pub const fn contains(self, mask: u16) -> bool {
        self.0 & mask == mask
    }
}

/// Answer of IDENTIFY. Not authenticated: what counts is the certificate inside a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityRecord {
    /// Flags.
    pub flags: IdentityFlags,
    /// Chip id.
    pub id: [u8; CHIP_ID_LEN],
    /// Key epoch.
    pub key_epoch: u64,
    /// Environment that the chip was provisioned for; empty before.
    pub environment: String,
    /// SubjectPublicKeyInfo (DER) of the signing key.
    pub signing_spki: Vec<u8>,
    /// Noise static public key.
    pub noise: [u8; NOISE_PUBLIC_LEN],
    /// P-384 grant public key.
    pub p384: [u8; P384_PUBLIC_LEN],
    /// X-Wing grant public key.
    pub x_wing: Box<[u8; X_WING_PUBLIC_LEN]>,
    /// Session suites: bit 0 classical, bit 1 hybrid.
    pub suites: u16,
    /// Data paths: 1 `key-release`, 2 `dma-direct`, 4 `dma-sealed`.
    pub paths: u16,
}

impl IdentityRecord {
    /// Version of the record.
    pub const VERSION: u16 = 1;

    /// The bytes of the answer.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_u16(&mut out, Self::VERSION);
        put_u16(&mut out, self.flags.0);
        out.extend_from_slice(&self.id);
        put_u64(&mut out, self.key_epoch);
        put_lp(&mut out, self.environment.as_bytes());
        put_lp(&mut out, &self.signing_spki);
        out.extend_from_slice(&self.noise);
        out.extend_from_slice(&self.p384);
        out.extend_from_slice(self.x_wing.as_slice());
        put_u16(&mut out, self.suites);
        put_u16(&mut out, self.paths);
        out
    }

    /// Takes the answer apart.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        let version = r.u16("identity version")?;
        if version != Self::VERSION {
            return Err(WireError::Field { what: "identity version", found: version.into() });
        }
        let flags = r.u16("identity flags")?;
        if flags & !IdentityFlags::ALL != 0 {
            return Err(WireError::Field { what: "identity flags", found: flags.into() });
        }
        let record = Self {
            flags: IdentityFlags(flags),
            id: r.array("chip id")?,
            key_epoch: r.u64("key epoch")?,
            environment: text(r.lp("environment", MAX_ENVIRONMENT)?, "environment")?,
            signing_spki: r.lp("signing key", MAX_SPKI)?.to_vec(),
            noise: r.array("noise key")?,
            p384: r.array("p-384 key")?,
            x_wing: Box::new(r.array("x-wing key")?),
            suites: r.u16("suites")?,
            paths: r.u16("paths")?,
        };
        r.finish("identity record")?;
        Ok(record)
    }
}

/// A list of DER certificates: `u32(n) ‖ n × LP(DER)` with n = 2, model CA and chip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateList {
    /// The model CA's certificate.
    pub model: Vec<u8>,
    /// The chip's certificate.
    pub chip: Vec<u8>,
}

impl CertificateList {
    /// Appends the encoding.
    pub fn put(&self, out: &mut Vec<u8>) {
        put_u32(out, CHAIN_LEN);
        put_lp(out, &self.model);
        put_lp(out, &self.chip);
    }

    /// Takes a list off the front.
    pub fn take(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let n = r.u32("number of certificates")?;
        if n != CHAIN_LEN {
            return Err(WireError::Field { what: "number of certificates", found: n.into() });
        }
        Ok(Self {
            model: r.lp("model certificate", MAX_CERTIFICATE)?.to_vec(),
            chip: r.lp("chip certificate", MAX_CERTIFICATE)?.to_vec(),
        })
    }

    /// The answer of CHAIN.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out);
        out
    }

    /// Takes the answer of CHAIN apart.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        let list = Self::take(&mut r)?;
        r.finish("certificate list")?;
        Ok(list)
    }
}

/// Input of PROVISION.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provision {
    /// Environment that the chip is provisioned for.
    pub environment: String,
    /// Key epoch.
    pub key_epoch: u64,
    /// Model CA and chip.
    pub certificates: CertificateList,
    /// Root certificate.
    pub root: Vec<u8>,
    /// Smallest TCB-evaluation number that the chip accepts.
    pub min_tcb_evaluation: u64,
    /// Smallest number of a PCK revocation list that the chip accepts.
    pub min_pck_crl: u64,
    /// Smallest number of the revocation list of Intel's root that the chip accepts.
    pub min_root_crl: u64,
    /// Smallest number of an SNP revocation list that the chip accepts; above 0, one has to be presented.
    pub min_snp_crl: u64,
}

impl Provision {
    /// The bytes of the input.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_lp(&mut out, self.environment.as_bytes());
        put_u64(&mut out, self.key_epoch);
        self.certificates.put(&mut out);
        put_lp(&mut out, &self.root);
        put_u64(&mut out, self.min_tcb_evaluation);
        put_u64(&mut out, self.min_pck_crl);
        put_u64(&mut out, self.min_root_crl);
        put_u64(&mut out, self.min_snp_crl);
        out
    }

    /// Takes the input apart.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        let body = Self {
            environment: text(r.lp("environment", MAX_ENVIRONMENT)?, "environment")?,
            key_epoch: r.u64("key epoch")?,
            certificates: CertificateList::take(&mut r)?,
            root: r.lp("root certificate", MAX_CERTIFICATE)?.to_vec(),
            min_tcb_evaluation: r.u64("minimum tcb-evaluation number")?,
            min_pck_crl: r.u64("minimum pck crl number")?,
            min_root_crl: r.u64("minimum root crl number")?,
            min_snp_crl: r.u64("minimum snp crl number")?,
        };
        r.finish("provisioning")?;
        Ok(body)
    }
}

pub(super) fn text(bytes: &[u8], what: &'static str) -> Result<String, WireError> {
    match str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(e) => Err(WireError::Field { what, found: e.valid_up_to() as u64 }),
    }
}
