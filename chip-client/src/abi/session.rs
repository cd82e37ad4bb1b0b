//! Handshake messages, suites, paths and insecure flags (spec §7).

use super::codec::{Reader, WireError, put_lp, put_u16, put_u32, put_u64};
use super::identity::CertificateList;
use super::regs::TdispState;

/// Name of the Noise protocol.
pub const NOISE_NAME: &str = "Noise_NX_25519_AESGCM_SHA512";
/// Noise prologue.
pub const LABEL_PROLOGUE: &[u8] = b"innerkeep chip interface v1";
/// First bytes of the transcript hash (§7.2).
pub const LABEL_TRANSCRIPT: &[u8] = b"innerkeep chip session v1 transcript";
/// First bytes of what the chip signs, a zero byte included.
pub const LABEL_SIGNATURE: &[u8] = b"innerkeep chip session v1 signature\0";
/// First bytes of the input of report_data.
pub const LABEL_REPORT_DATA: &[u8] = b"innerkeep chip session v1";
/// First bytes of the HKDF info of session keys (§7.3), the separating space included.
pub const LABEL_KEY: &[u8] = b"innerkeep chip session v1 ";
/// Last part of the info of the submission key.
pub const LABEL_KEY_SUBMISSION: &[u8] = b"submission";
/// Last part of the info of the completion key.
pub const LABEL_KEY_COMPLETION: &[u8] = b"completion";
/// Last part of the info of the bulk key.
pub const LABEL_KEY_BULK: &[u8] = b"bulk";
/// First bytes of the associated data of a submission (§7.4), a zero byte included.
pub const LABEL_SUBMISSION_AAD: &[u8] = b"IKSUBv1\0";
/// First bytes of the associated data of a completion, a zero byte included.
pub const LABEL_COMPLETION_AAD: &[u8] = b"IKCPLv1\0";
/// First bytes of the associated data of a `dma-sealed` segment (§8.3), a zero byte included.
pub const LABEL_BULK_AAD: &[u8] = b"IKBLKv1\0";

/// Bytes of the offer.
pub const OFFER_LEN: usize = 44;
/// Bytes of an ML-KEM-768 encapsulation key.
pub const MLKEM768_PUBLIC: usize = 1_184;
/// Bytes of an ML-KEM-768 ciphertext.
pub const MLKEM768_CIPHERTEXT: usize = 1_088;
/// Bytes of the chip's signature (`r ‖ s`).
pub const SIGNATURE_LEN: usize = 96;

/// Suite of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub enum SessionSuite {
    /// X25519 alone.
    Classical = 1,
    /// X25519 and ML-KEM-768.
    Hybrid = 2,
}

impl SessionSuite {
    /// The suite with this bit.
    pub const fn from_u16(value: u16) -> Option<Self> {
        match value {
            1 => Some(Self::Classical),
            2 => Some(Self::Hybrid),
            _ => None,
        }
    }

    /// The bit.
    pub const fn as_u16(self) -> u16 {
        self as u16
    }

    /// Name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Classical => "classical",
            Self::Hybrid => "hybrid",
        }
    }
}

/// A set of suites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionSuites(pub u16);

impl SessionSuites {
    /// All known bits.
    pub const ALL: u16 = 3;

    /// Whether the suite is in the set.
    pub const fn contains(self, suite: SessionSuite) -> bool {
        self.0 & suite.as_u16() != 0
    }
}

/// The number of a data path on this interface (artifact spec: link mode).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum DataPath {
    /// The session gets the content key; the CPU decrypts.
    KeyRelease = 1,
    /// The chip writes plaintext to private memory.
    DmaDirect = 2,
    /// The chip re-seals to the session through shared memory.
    DmaSealed = 4,
}

impl DataPath {
    /// The path with this bit.
    pub const fn from_u16(value: u16) -> Option<Self> {
        match value {
            1 => Some(Self::KeyRelease),
            2 => Some(Self::DmaDirect),
            4 => Some(Self::DmaSealed),
            _ => None,
        }
    }

    /// The bit.
    pub const fn as_u16(self) -> u16 {
        self as u16
    }

    /// Name in policies (`link_mode`).
    pub const fn name(self) -> &'static str {
        match self {
            Self::KeyRelease => "key-release",
            Self::DmaDirect => "dma-direct",
            Self::DmaSealed => "dma-sealed",
        }
    }
}

/// Insecure modes of one side; part of the transcript.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InsecureFlags(u32);

impl InsecureFlags {
    /// No insecure mode.
    pub const NONE: Self = Self(0);
    /// The guest runs outside a TEE.
    pub const NO_TEE: Self = Self(1 << 0);
    /// No evidence.
    pub const NO_EVIDENCE: Self = Self(1 << 1);
    /// Private DMA is emulated.
    pub const EMULATED_DMA: Self = Self(1 << 2);
    /// Plaintext may be swapped.
    pub const SWAP: Self = Self(1 << 3);
    /// The container's root is not verified.
    pub const UNVERIFIED_ROOTFS: Self = Self(1 << 4);
    /// The chip is an emulation; set by the chip.
    pub const EMULATED_CHIP: Self = Self(1 << 5);
    /// The guest's TEE lies below another root; set by the chip: it believes emulated TEE roots.
    pub const EMULATED_TEE: Self = Self(1 << 6);

    /// All flags with their names.
    pub const NAMED: [(Self, &'static str); 7] = [
        (Self::NO_TEE, "no-tee"),
        (Self::NO_EVIDENCE, "no-evidence"),
        (Self::EMULATED_DMA, "emulated-dma"),
        (Self::SWAP, "swap"),
        (Self::UNVERIFIED_ROOTFS, "unverified-rootfs"),
        (Self::EMULATED_CHIP, "emulated-chip"),
        (Self::EMULATED_TEE, "emulated-tee"),
    ];

    /// The flags in these bits; unknown ones are refused.
    pub const fn from_bits(bits: u32) -> Result<Self, WireError> {
        if bits & !0x7F == 0 {
            Ok(Self(bits))
        } else {
            Err(WireError::Field { what: "insecure flags", found: bits as u64 })
        }
    }

    /// The bits.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in `self` and not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of `other` is in `self`.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether nothing is set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl std::fmt::Display for InsecureFlags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        let mut separator = "";
        for (flag, name) in Self::NAMED {
            if self.contains(flag) {
                write!(f, "{separator}{name}")?;
                separator = ", ";
            }
        }
        Ok(())
    }
}

/// Payload of message 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Suites that the guest offers; not empty.
    pub suites: SessionSuites,
    /// The data path.
    pub path: DataPath,
    /// Insecure modes of the guest.
    pub insecure: InsecureFlags,
    /// The guest's nonce.
    pub nonce: [u8; 32],
}

impl Offer {
    /// Version of the session.
    pub const VERSION: u16 = 1;

    /// The 44 bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_u16(&mut out, Self::VERSION);
        put_u16(&mut out, self.suites.0);
        put_u16(&mut out, self.path.as_u16());
        put_u16(&mut out, 0);
        put_u32(&mut out, self.insecure.bits());
        out.extend_from_slice(&self.nonce);
        out
    }

    /// Takes the offer apart.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        let version = r.u16("session version")?;
        if version != Self::VERSION {
            return Err(WireError::Field { what: "session version", found: version.into() });
        }
        let suites = r.u16("offered suites")?;
        if suites == 0 || suites & !SessionSuites::ALL != 0 {
            return Err(WireError::Field { what: "offered suites", found: suites.into() });
        }
        let path = path(r.u16("path")?)?;
        r.reserved::<2>("reserved bytes of an offer")?;
        let insecure = InsecureFlags::from_bits(r.u32("insecure flags")?)?;
        let offer = Self { suites: SessionSuites(suites), path, insecure, nonce: r.array("guest nonce")? };
        r.finish("offer")?;
        Ok(offer)
    }
}

/// Payload of message 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accept {
    /// The suite that the chip chose.
    pub suite: SessionSuite,
    /// The data path.
    pub path: DataPath,
    /// The chip's own link state.
    pub tdisp: TdispState,
    /// Insecure modes of the chip.
    pub insecure: InsecureFlags,
    /// Session id; not 0.
    pub session: u32,
    /// Key epoch.
    pub key_epoch: u64,
    /// Digest of the interface report; zero when TDISP is not in use.
    pub interface_report: [u8; 48],
    /// The chip's nonce.
    pub nonce: [u8; 32],
    /// ML-KEM-768 encapsulation key; 1,184 bytes in a hybrid session, else empty.
    pub encapsulation_key: Vec<u8>,
    /// Model CA and chip.
    pub certificates: CertificateList,
}

impl Accept {
    /// The bytes of the payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_u16(&mut out, self.suite.as_u16());
        put_u16(&mut out, self.path.as_u16());
        out.extend_from_slice(&[self.tdisp.as_u8(), 0, 0, 0]);
        put_u32(&mut out, self.insecure.bits());
        put_u32(&mut out, self.session);
        put_u64(&mut out, self.key_epoch);
        out.extend_from_slice(&self.interface_report);
        out.extend_from_slice(&self.nonce);
        put_lp(&mut out, &self.encapsulation_key);
        self.certificates.put(&mut out);
        out
    }

    /// Takes the payload apart.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        let suite = r.u16("chosen suite")?;
        let suite = SessionSuite::from_u16(suite)
            .ok_or(WireError::Field { what: "chosen suite", found: suite.into() })?;
        let path = path(r.u16("path")?)?;
        let tdisp = r.u8("tdisp state")?;
        let tdisp = TdispState::from_u8(tdisp)
            .ok_or(WireError::Field { what: "tdisp state", found: tdisp.into() })?;
        r.reserved::<3>("reserved bytes of an acceptance")?;
        let insecure = InsecureFlags::from_bits(r.u32("insecure flags")?)?;
        let session = r.u32("session id")?;
        if session == 0 {
            return Err(WireError::Field { what: "session id", found: 0 });
        }
        let key_epoch = r.u64("key epoch")?;
        let interface_report = r.array("interface report digest")?;
        let nonce = r.array("chip nonce")?;
        let encapsulation_key = r.lp("encapsulation key", MLKEM768_PUBLIC)?;
        let wanted = if suite == SessionSuite::Hybrid { MLKEM768_PUBLIC } else { 0 };
        if encapsulation_key.len() != wanted {
            return Err(WireError::Length {
                what: "encapsulation key",
                expected: wanted,
                found: encapsulation_key.len(),
            });
        }
        let accept = Self {
            suite,
            path,
            tdisp,
            insecure,
            session,
            key_epoch,
            interface_report,
            nonce,
            encapsulation_key: encapsulation_key.to_vec(),
            certificates: CertificateList::take(&mut r)?,
        };
        r.finish("acceptance")?;
        Ok(accept)
    }
}

/// The plaintext of message 3.
pub fn put_finish(ciphertext: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_lp(&mut out, ciphertext);
    out
}

/// The ML-KEM ciphertext in the plaintext of message 3, for this suite.
pub fn parse_finish(bytes: &[u8], suite: SessionSuite) -> Result<&[u8], WireError> {
    let mut r = Reader::new(bytes);
    let ciphertext = r.lp("ml-kem ciphertext", MLKEM768_CIPHERTEXT)?;
    r.finish("message 3")?;
    let expected = if suite == SessionSuite::Hybrid { MLKEM768_CIPHERTEXT } else { 0 };
    if ciphertext.len() == expected {
        Ok(ciphertext)
    } else {
        Err(WireError::Length { what: "ml-kem ciphertext", expected, found: ciphertext.len() })
    }
}

fn path(value: u16) -> Result<DataPath, WireError> {
    DataPath::from_u16(value).ok_or(WireError::Field { what: "path", found: value.into() })
}
