//! Bytes of TPM 2.0: commands out, responses in (TPM 2.0 Library, Parts 2 and 3). Numbers are big-endian.
//!
//! Everything that is parsed here was written by whoever holds the bus. Each parser takes a whole structure, caps
//! every length before it copies, and refuses what follows; none needs a device, so that a fuzzer can call it.

mod attest;
mod code;
mod public;
mod reader;
mod response;
mod results;
mod writer;

pub use attest::{Attest, ClockInfo, Signature};
pub use code::{Refusal, ResponseCode};
pub(super) use public::{
    ADMIN_WITH_POLICY, DECRYPT, FIXED_PARENT, FIXED_TPM, NO_LOCKOUT, RESTRICTED, SIGN, TPM_MADE,
    USER_WITH_AUTH,
};
pub use public::{EccPoint, KeyKind, Name, Public, Scheme, Symmetric};
pub use reader::{Reader, WireError};
pub use response::{Accepted, AuthReply, Response, Shape};
pub use results::{Created, CreatedPrimary, Handles, PcrBanks, PcrRead, Properties};
pub(super) use writer::Writer;

/// The longest command or response: what the character device takes and gives at once.
pub const MESSAGE_MAX_BYTES: usize = 4096;

/// TPM_ST_NO_SESSIONS.
pub const TAG_NO_SESSIONS: u16 = 0x8001;
/// TPM_ST_SESSIONS.
pub const TAG_SESSIONS: u16 = 0x8002;

/// TPM_ALG_NULL.
pub const ALG_NULL: u16 = 0x0010;
/// TPM_ALG_RSA.
pub const ALG_RSA: u16 = 0x0001;
/// TPM_ALG_AES.
pub const ALG_AES: u16 = 0x0006;
/// TPM_ALG_KEYEDHASH.
pub const ALG_KEYEDHASH: u16 = 0x0008;
/// TPM_ALG_SHA256.
pub const ALG_SHA256: u16 = 0x000b;
/// TPM_ALG_RSASSA.
pub const ALG_RSASSA: u16 = 0x0014;
/// TPM_ALG_ECDSA.
pub const ALG_ECDSA: u16 = 0x0018;
/// TPM_ALG_ECC.
pub const ALG_ECC: u16 = 0x0023;
/// TPM_ALG_CFB.
pub const ALG_CFB: u16 = 0x0043;
/// TPM_ECC_NIST_P256.
pub const CURVE_P256: u16 = 0x0003;

/// TPM_RH_OWNER: the storage hierarchy.
pub const HIERARCHY_OWNER: u32 = 0x4000_0001;
/// TPM_RH_NULL.
pub const HANDLE_NULL: u32 = 0x4000_0007;
/// TPM_RS_PW: a password in the place of a session.
pub const HANDLE_PASSWORD: u32 = 0x4000_0009;
/// TPM_RH_ENDORSEMENT: the privacy hierarchy.
pub const HIERARCHY_ENDORSEMENT: u32 = 0x4000_000b;

/// A command that this crate sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in TPM 2.0 Part 3")]
pub enum CommandCode {
    Create,
    CreatePrimary,
    FlushContext,
    GetCapability,
    Load,
    PcrExtend,
    PcrRead,
    PolicyGetDigest,
    PolicyPcr,
    Quote,
    ReadPublic,
    StartAuthSession,
    Unseal,
}

impl CommandCode {
    /// TPM_CC.
    pub const fn value(self) -> u32 {
        match self {
            Self::CreatePrimary => 0x131,
            Self::Create => 0x153,
            Self::Load => 0x157,
            Self::Quote => 0x158,
            Self::Unseal => 0x15e,
            Self::FlushContext => 0x165,
            Self::ReadPublic => 0x173,
            Self::StartAuthSession => 0x176,
            Self::GetCapability => 0x17a,
            Self::PcrRead => 0x17e,
            Self::PolicyPcr => 0x17f,
            Self::PcrExtend => 0x182,
            Self::PolicyGetDigest => 0x189,
        }
    }

    /// The name in Part 3.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Create => "Create",
            Self::CreatePrimary => "CreatePrimary",
            Self::FlushContext => "FlushContext",
            Self::GetCapability => "GetCapability",
            Self::Load => "Load",
            Self::PcrExtend => "PCR_Extend",
            Self::PcrRead => "PCR_Read",
            Self::PolicyGetDigest => "PolicyGetDigest",
            Self::PolicyPcr => "PolicyPCR",
            Self::Quote => "Quote",
            Self::ReadPublic => "ReadPublic",
            Self::StartAuthSession => "StartAuthSession",
            Self::Unseal => "Unseal",
        }
    }
}

#[cfg(test)]
mod tests;
